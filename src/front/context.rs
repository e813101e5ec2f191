//! What the connections of one worker share.

use std::cell::{Cell, RefCell};
use std::io::{self, Write};
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use httpdate::HttpDate;

use super::admission::{Load, Shortage};
use super::challenges::Challenges;
use super::generation::{Generation, Layout};
use crate::cluster::IdleQuota;
use crate::files::Store;
use crate::observe::access_log::Recorder;
use crate::observe::diagnostics::Throttle;
use crate::relay::Pool;
use crate::sched::WaitQueue;
use crate::sys::random_bytes;
use crate::timers::Timers;
use crate::transport::TlsPool;

/// The state of one worker.
pub struct Context {
    /// The listeners and clusters of the current configuration.
    pub generation: RefCell<Generation>,
    /// Challenges of certificate authorities that are answered at present.
    pub challenges: RefCell<Arc<Challenges>>,
    /// What sites of files share. `None` if no route serves files.
    pub store: Option<Rc<Store>>,
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
    /// The first half of the ids of requests: random, another one for each worker and start.
    id_base: u64,
    /// The second half: counts them.
    id_count: Cell<u64>,
}

impl Context {
    /// Makes the context of the worker with this index, without connections. It keeps at most
    /// `max_idle` connections to endpoints. Must be called in its runtime.
    ///
    /// # Errors
    /// The sockets cannot be made that wake tasks which wait for files.
    pub fn new(
        layout: &Layout,
        index: usize,
        pool: Rc<Pool>,
        load: Arc<Load>,
        shortage: Arc<Shortage>,
        max_idle: usize,
    ) -> io::Result<Context> {
        let recorder = Recorder::default();
        let start = |threads| Store::start(threads, pool.memory());
        let store = layout.files.as_ref().map(start).transpose()?;
        let quota = IdleQuota::new(max_idle);
        let generation = Generation::new(layout, index, &recorder, store.as_ref(), &quota);
        let context = Context {
            generation: RefCell::new(generation),
            store,
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
            id_base: {
                let mut bytes = [0; 8];
                random_bytes(&mut bytes);
                u64::from_ne_bytes(bytes)
            },
            id_count: Cell::new(0),
        };
        context.update_date();
        Ok(context)
    }

    /// The `date` field of responses (RFC 9110 section 5.6.7): an IMF-fixdate, at most one tick
    /// old.
    pub fn date(&self) -> [u8; 29] {
        self.date.get()
    }

    /// An id that no other request has: 32 hexadecimal digits.
    pub fn request_id(&self) -> [u8; 32] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let count = self.id_count.get();
        self.id_count.set(count.wrapping_add(1));
        let id = u128::from(self.id_base) << 64 | u128::from(count);
        std::array::from_fn(|at| DIGITS[(id >> (124 - 4 * at)) as usize & 15])
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
