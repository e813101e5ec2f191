//! What the connections of one worker share, and what each of them holds.

use std::cell::{Cell, RefCell};
use std::io::Write;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::{Instant, SystemTime};

use httpdate::HttpDate;

use super::shortage::Shortage;
use crate::cluster::{Cluster, ConnectFailure, Lease, Report, Tried};
use crate::config::{ClusterId, Config, Listener, RelayTimeouts};
use crate::observe::access_log::{End, Record, Recorder, Relay};
use crate::observe::diagnostics::Throttle;
use crate::relay::{self, Flow, Pool};
use crate::sched::WaitQueue;
use crate::sys::{Address, Keepalive, Stream};
use crate::timers::{Timers, Watch};

/// What one worker knows: its configuration, clusters, pools and counters.
pub struct Context {
    /// The configuration.
    pub config: Arc<Config>,
    /// The clusters of [`Config::clusters`], in the same order, with their endpoints.
    pub clusters: Vec<Cluster>,
    /// Buffers and pipes.
    pub pool: Rc<Pool>,
    /// Time limits.
    pub timers: Rc<Timers>,
    /// The sender of access records. `None` once the worker ends: tasks that the runtime abandons
    /// keep the context alive, and the log writer waits until every recorder is dropped.
    pub recorder: RefCell<Option<Recorder>>,
    /// Scratch buffer for the responses of one turn.
    pub answers: RefCell<Vec<u8>>,
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
    /// Makes the context of a worker without connections.
    pub fn new(
        config: Arc<Config>,
        recorder: Recorder,
        index: usize,
        pool: Rc<Pool>,
        load: Arc<Load>,
        shortage: Arc<Shortage>,
    ) -> Context {
        let timers = Timers::new(pool.yielder());
        let clusters = config.clusters.iter().map(|cluster| Cluster::new(cluster, index)).collect();
        let context = Context {
            config,
            clusters,
            pool,
            timers,
            recorder: RefCell::new(Some(recorder)),
            answers: RefCell::new(Vec::new()),
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

    /// Writes one access record of a listener. `fill` sets the fields beyond listener, client and
    /// time.
    pub(super) fn record<'a>(
        &'a self,
        listener: usize,
        client: &'a Address,
        start: Moment,
        fill: impl FnOnce(&mut Record<'a>),
    ) {
        let listener = &self.config.listeners[listener];
        let Some(sink) = listener.access_log else { return };
        let mut record = Record {
            start: start.wall,
            listener: &listener.name,
            protocol: "tcp",
            client,
            method: None,
            host: None,
            path: None,
            status: None,
            route: None,
            cluster: None,
            endpoint: None,
            attempts: None,
            failed_endpoints: &[],
            reason: None,
            duration: start.instant.elapsed(),
            connect: None,
            bytes_up: 0,
            bytes_down: 0,
            relay: Relay::None,
            end: End::Done,
        };
        fill(&mut record);
        let format = &self.config.access_logs[sink].format;
        if let Some(recorder) = &mut *self.recorder.borrow_mut() {
            recorder.record(sink, format, &record);
        }
    }

    /// Hands records over to their writer. Called once a tick.
    pub fn flush_records(&self) {
        if let Some(recorder) = &mut *self.recorder.borrow_mut() {
            recorder.flush();
        }
    }

    /// Reports failed attempts to the control plane. Called once a tick; never blocks.
    pub fn report_failures(&self, reports: &SyncSender<Report>) {
        for (index, cluster) in self.clusters.iter().enumerate() {
            cluster.report_failures(index, reports);
        }
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

/// Counts a listener's connections over all workers.
pub struct Gate {
    open: AtomicUsize,
    limit: usize,
    /// Connections beyond the limit since the last report.
    refused: AtomicU64,
}

impl Gate {
    /// Makes a gate for at most `limit` connections at once.
    pub fn new(limit: usize) -> Gate {
        Gate { open: AtomicUsize::new(0), limit, refused: AtomicU64::new(0) }
    }

    /// Counts one more connection. Returns false, with nothing counted, when the limit is reached.
    fn enter(&self) -> bool {
        let inside = self.open.fetch_add(1, Ordering::Relaxed) < self.limit;
        if !inside {
            self.leave();
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        inside
    }

    /// Connections beyond the limit since the last call.
    pub fn take_refused(&self) -> u64 {
        self.refused.swap(0, Ordering::Relaxed)
    }

    fn leave(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts a worker's connections; all workers can read it. It has a cache line of its own, because
/// it changes with every connection.
#[repr(align(128))]
pub struct Load {
    open: AtomicUsize,
    /// The most connections at one time: the worker's share of the descriptors.
    max: usize,
}

impl Load {
    /// Stored when the worker has ended: more than any number of connections.
    const CLOSED: usize = usize::MAX / 2;

    /// Makes a counter for at most `max` connections at one time.
    pub fn new(max: usize) -> Load {
        Load { open: AtomicUsize::new(0), max }
    }

    /// Connections at present.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Returns true when the worker has `max` connections or has ended.
    pub fn is_full(&self) -> bool {
        self.open() >= self.max
    }

    /// Counts one more connection until the place is dropped. `None` if the worker is full or has
    /// ended.
    pub fn take_place(self: &Arc<Load>) -> Option<Place> {
        self.take(self.max)
    }

    /// Like [`Load::take_place`], but also when the worker is full. `None` if the worker has ended.
    pub fn force_place(self: &Arc<Load>) -> Option<Place> {
        self.take(Self::CLOSED)
    }

    fn take(self: &Arc<Load>, max: usize) -> Option<Place> {
        let before = self.open.fetch_add(1, Ordering::AcqRel);
        // If the place is not returned, dropping it undoes the count.
        let place = Place { load: Arc::clone(self) };
        (before < max.min(Self::CLOSED)).then_some(place)
    }

    /// Ends the worker if it has no connections. Returns true when it has ended: no place can be
    /// taken any more.
    pub fn close(&self) -> bool {
        self.open.compare_exchange(0, Self::CLOSED, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

/// One connection, counted.
pub struct Place {
    load: Arc<Load>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.load.open.fetch_sub(1, Ordering::AcqRel);
    }
}

/// An accepted connection.
pub struct Accepted {
    /// The worker's context.
    pub context: Rc<Context>,
    /// The client's stream.
    pub client: Rc<Stream>,
    /// The client's address.
    pub address: Address,
    listener: usize,
    gate: Option<Arc<Gate>>,
    start: Moment,
    _place: Place,
}

/// A point in time, on the wall clock and on the monotonic clock.
#[derive(Clone, Copy)]
pub struct Moment {
    /// Wall clock, for records.
    pub wall: SystemTime,
    /// Monotonic clock, for durations.
    pub instant: Instant,
}

impl Moment {
    /// Now.
    pub fn now() -> Moment {
        Moment { wall: SystemTime::now(), instant: Instant::now() }
    }
}

impl Accepted {
    /// Counts a connection in. `None` if the listener is full: the refusal is then recorded and the
    /// connection is reset.
    pub fn admit(
        context: &Rc<Context>,
        listener: usize,
        gate: Option<&Arc<Gate>>,
        stream: Stream,
        address: Address,
        place: Place,
    ) -> Option<Accepted> {
        let inside = gate.is_none_or(|gate| gate.enter());
        let accepted = Accepted {
            context: Rc::clone(context),
            client: Rc::new(stream),
            address,
            listener,
            gate: gate.filter(|_| inside).cloned(),
            start: Moment::now(),
            _place: place,
        };
        if !inside {
            accepted.client.reset_on_close();
            accepted.record(accepted.start, |record| record.end = End::Overflow);
        }
        inside.then_some(accepted)
    }

    /// The listener that accepted the connection.
    pub fn listener(&self) -> &Listener {
        &self.context.config.listeners[self.listener]
    }

    /// When the connection was accepted.
    pub fn start(&self) -> Moment {
        self.start
    }

    /// TCP keepalive for the upstream's stream: that of the listener.
    pub fn keepalive(&self) -> Option<Keepalive> {
        self.listener().keepalive.map(|idle| Keepalive { idle })
    }

    /// Connects to a cluster for this connection.
    ///
    /// # Errors
    /// As [`Cluster::connect`].
    pub async fn connect(&self, cluster: ClusterId) -> Result<Lease, ConnectFailure> {
        let nodelay = self.listener().nodelay;
        let cluster = &self.context.clusters[cluster.0];
        let connected = cluster.connect(&self.context.timers, nodelay).await;
        if let Err(ConnectFailure::Local(Tried { shortage: Some(errno), .. })) = &connected {
            self.context.shortage.no_socket(*errno);
        }
        connected
    }

    /// Makes the close a reset because there is no upstream. The client must not take a clean close
    /// for an empty response.
    pub(super) fn reset_for(&self, failure: &ConnectFailure) {
        self.client.reset_on_close();
        if let ConnectFailure::Local(_) = failure {
            self.context.shortage.reset();
        }
    }

    /// Relays between the client and its upstream. Returns why the relay ended. The watch may have
    /// run the limit of an earlier stage before.
    pub(super) async fn relay(
        &self,
        watch: &Watch,
        lease: &Lease,
        up: &mut Flow,
        down: &mut Flow,
        timeouts: RelayTimeouts,
    ) -> End {
        watch.set_upstream(Some(&lease.stream));
        watch.keep_alive(self.keepalive());
        // If a limit has fired, it was that of an earlier stage, which is over.
        watch.renew(timeouts.idle);
        let (client, upstream) = (&self.client, &lease.stream);
        let end = relay::run(client, upstream, up, down, watch, timeouts.half_closed).await;
        let end = if end == End::Client && up.is_broken() { End::BadRequest } else { end };
        watch.set_upstream(None);
        end
    }

    /// Writes one access record. `fill` sets the fields beyond listener, client and time.
    pub fn record<'a>(&'a self, start: Moment, fill: impl FnOnce(&mut Record<'a>)) {
        self.context.record(self.listener, &self.address, start, fill);
    }

    /// The name of a cluster.
    pub fn cluster_name(&self, cluster: ClusterId) -> &str {
        &self.context.config.clusters[cluster.0].name
    }
}

impl Drop for Accepted {
    fn drop(&mut self) {
        if let Some(gate) = &self.gate {
            gate.leave();
        }
        // The place itself is dropped after this function, before the woken task runs.
        self.context.waiting_accepts.wake_front();
    }
}

/// Describes a failed connect in a record.
pub(super) fn describe_failure<'a>(failure: &'a ConnectFailure, record: &mut Record<'a>) {
    record.end = match failure {
        ConnectFailure::NoEndpoint => End::NoEndpoint,
        ConnectFailure::TimedOut(_) => End::ConnectTimeout,
        ConnectFailure::Failed(_) => End::ConnectFailed,
        ConnectFailure::Local(_) => End::Local,
        ConnectFailure::Drained(_) => End::Drain,
    };
    record.attempts = Some(0);
    if let Some(tried) = failure.tried() {
        describe_tried(tried, record);
        record.endpoint = tried.last.as_deref();
    }
}

/// Sets the fields of a record about connect attempts.
pub(super) fn describe_tried<'a>(tried: &'a Tried, record: &mut Record<'a>) {
    record.attempts = Some(tried.attempts);
    record.failed_endpoints = &tried.failed;
}

/// Describes a relay in a record.
pub(super) fn describe_relay<'a>(
    lease: &'a Lease,
    up: &Flow,
    down: &Flow,
    record: &mut Record<'a>,
) {
    describe_tried(&lease.tried, record);
    record.endpoint = Some(&lease.endpoint);
    record.connect = Some(lease.connect);
    record.bytes_up = up.bytes();
    record.bytes_down = down.bytes();
    record.relay = if up.spliced() || down.spliced() {
        Relay::Splice
    } else if up.bytes() > 0 || down.bytes() > 0 {
        Relay::Copy
    } else {
        Relay::None
    };
}
