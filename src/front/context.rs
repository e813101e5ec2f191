//! What the connections of one worker share.

use std::cell::{Cell, RefCell};
use std::io::{self, Write};
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use httpdate::HttpDate;

use super::admission::{Load, Shortage};
use super::challenges::Challenges;
use super::generation::{Generation, Layout, Own};
use crate::cluster::IdleQuota;
use crate::files::Store;
use crate::observe::access_log::Recorder;
use crate::observe::diagnostics::Throttle;
use crate::relay::Pool;
use crate::sched::WaitQueue;
use crate::sys::{Shares, random_bytes};
use crate::timers::Timers;
use crate::transport::TlsPool;

/// The state of one worker.
pub struct Context {
    /// The listeners and clusters of the current configuration.
    pub generation: RefCell<Generation>,
    /// Challenges of certificate authorities that are answered at present.
    pub challenges: RefCell<Arc<Challenges>>,
    /// What sites of files share.
    pub store: Rc<Store>,
    /// Counts idle connections to endpoints.
    idle_quota: Rc<IdleQuota>,
    /// From 0 to the number of workers - 1.
    index: usize,
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
    /// True while connections are to end: responses say that theirs ends. The worker drains, or
    /// will after `server.drain_delay` and still accepts connections.
    pub closing: Cell<bool>,
    /// True while the worker drains: it takes no new work. `closing` is true, too.
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
        let context = Context {
            generation: RefCell::default(),
            store: Store::start(pool.memory())?,
            idle_quota: IdleQuota::new(max_idle),
            index,
            challenges: RefCell::default(),
            timers: Timers::new(pool.yielder()),
            tls: TlsPool::new(pool.memory(), pool.yielder(), pool.outbox()),
            pool,
            recorder: Recorder::default(),
            responses: RefCell::new(Vec::new()),
            load,
            closing: Cell::new(false),
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
        context.apply(layout);
        Ok(context)
    }

    /// The index of the worker.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Changes how the descriptors of the worker are divided. What is open stays.
    pub fn set_shares(&self, shares: &Shares) {
        self.load.set_max(shares.connections);
        self.pool.set_max_pipes(shares.pipes);
        self.idle_quota.set_max(shares.idle);
    }

    /// Makes the worker serve by a layout. What connections use at present stays until they end.
    pub fn apply(&self, layout: &Layout) {
        if let Some(threads) = &layout.files {
            self.store.disk().use_threads(threads);
        }
        let own = Own {
            index: self.index,
            recorder: &self.recorder,
            store: &self.store,
            idle_quota: &self.idle_quota,
            timers: &self.timers,
        };
        self.generation.borrow_mut().apply(layout, &own);
    }

    /// Connections to endpoints that wait for a request.
    pub fn idle_upstreams(&self) -> usize {
        self.idle_quota.open()
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
