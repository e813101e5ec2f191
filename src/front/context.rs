//! What the connections of one worker share.

use std::cell::{Cell, RefCell};
use std::io::Write;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use httpdate::HttpDate;

use super::admission::{Load, Shortage};
use super::challenges::Challenges;
use super::generation::{Generation, Layout};
use crate::observe::access_log::Recorder;
use crate::observe::diagnostics::Throttle;
use crate::relay::Pool;
use crate::sched::WaitQueue;
use crate::timers::Timers;
use crate::transport::TlsPool;

/// The state of one worker.
pub struct Context {
    /// The listeners and clusters of the current configuration.
    pub generation: RefCell<Generation>,
    /// Challenges of certificate authorities that are answered at present.
    pub challenges: RefCell<Arc<Challenges>>,
    /// Buffers and pipes.
    pub pool: Rc<Pool>,
    /// Time limits.
    pub timers: Rc<Timers>,
    /// What TLS streams share.
    pub tls: Rc<TlsPool>,
    /// The access logs.
    pub recorder: Recorder,
    /// Scratch buffer for the responses of one turn.
    pub responses: RefCell<Vec<u8>>,
    /// Counts accepted connections that are still served.
    pub load: Arc<Load>,
    /// True while the worker drains: it takes no new work, and its connections are to end.
    pub draining: Cell<bool>,
    /// Limits messages about accepted connections that cannot be used, over all listeners.
    pub unusable: Throttle,
    /// Counts what could not be served.
    pub shortage: Arc<Shortage>,
    /// Accepts that wait until a connection ends.
    pub waiting_accepts: WaitQueue,
    date: Cell<[u8; 29]>,
}

impl Context {
    /// Makes the context of the worker with this index, without connections.
    pub fn new(
        layout: &Layout,
        index: usize,
        pool: Rc<Pool>,
        load: Arc<Load>,
        shortage: Arc<Shortage>,
    ) -> Context {
        let recorder = Recorder::default();
        let context = Context {
            generation: RefCell::new(Generation::new(layout, index, &recorder)),
            challenges: RefCell::default(),
            timers: Timers::new(pool.yielder()),
            tls: TlsPool::new(pool.memory(), pool.yielder(), pool.outbox()),
            pool,
            recorder,
            responses: RefCell::new(Vec::new()),
            load,
            draining: Cell::new(false),
            unusable: Throttle::default(),
            shortage,
            waiting_accepts: WaitQueue::default(),
            date: Cell::new([b' '; 29]),
        };
        context.update_date();
        context
    }

    /// The `date` field of responses (RFC 9110 section 5.6.7): an IMF-fixdate, at most one tick
    /// old.
    pub fn date(&self) -> [u8; 29] {
        self.date.get()
    }

    /// Updates the date of responses. Called once a tick.
    pub fn update_date(&self) {
        let mut date = [b' '; 29];
        let now = HttpDate::from(SystemTime::now());
        // The date has this length until the year 9999. It is written in place: a tick allocates
        // nothing.
        if write!(&mut date[..], "{now}").is_ok() {
            self.date.set(date);
        }
    }
}
