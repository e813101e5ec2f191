//! What the connections of one worker share, and what each of them carries.

use std::cell::{Cell, RefCell};
use std::io::Write;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::{Instant, SystemTime};

use httpdate::HttpDate;

use super::shortage::{Line, Shortage};
use crate::cluster::{Cluster, ConnectFailure, Lease, Report, Tried};
use crate::config::{ClusterId, Config, Listener, RelayTimeouts};
use crate::observe::access_log::{End, Record, Recorder, Relay};
use crate::observe::diagnostics::Throttle;
use crate::relay::{self, Flow, Pool};
use crate::sys::{Address, Keepalive, Stream};
use crate::timers::{Timers, Watch};

/// One worker's view of everything.
pub struct Context {
    /// The configuration.
    pub config: Arc<Config>,
    /// As [`Config::clusters`], with endpoints.
    pub clusters: Vec<Cluster>,
    /// Buffers and pipes.
    pub pool: Rc<Pool>,
    /// Time limits.
    pub timers: Rc<Timers>,
    /// Access records on their way out. Taken out when the worker ends: tasks that the runtime
    /// abandons then keep the context alive, and the writer waits for its last recorder.
    pub recorder: RefCell<Option<Recorder>>,
    /// Answers on their way out; empty between two turns.
    pub answers: RefCell<Vec<u8>>,
    /// Accepted connections that are still served.
    pub load: Arc<Load>,
    /// No new work: connections are to end.
    pub draining: Cell<bool>,
    /// Of messages about accepted connections that cannot be used, on any listener.
    pub unusable: Throttle,
    /// What could not be served.
    pub shortage: Arc<Shortage>,
    /// Accepts that wait until a connection ends.
    pub line: Line,
    date: Cell<[u8; 29]>,
}

impl Context {
    /// A worker without connections.
    pub fn new(
        config: Arc<Config>,
        recorder: Recorder,
        index: usize,
        pool: Rc<Pool>,
        load: Arc<Load>,
        shortage: Arc<Shortage>,
    ) -> Context {
        let timers = Timers::new(pool.turns());
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
            line: Line::default(),
            date: Cell::new([b' '; 29]),
        };
        context.update_date();
        context
    }

    /// The `date` of answers (RFC 9110 section 5.6.7): an IMF-fixdate, at most one tick old.
    pub fn date(&self) -> [u8; 29] {
        self.date.get()
    }

    /// Writes one access record of a listener; `fill` says what is known beyond listener, client
    /// and time.
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

    /// Called once a tick.
    pub fn update_date(&self) {
        let mut date = [b' '; 29];
        let now = HttpDate::from(SystemTime::now());
        // It has this length until the year 9999. Written in place: a tick allocates nothing.
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
    /// Lets `limit` connections in at once.
    pub fn new(limit: usize) -> Gate {
        Gate { open: AtomicUsize::new(0), limit, refused: AtomicU64::new(0) }
    }

    /// True: one more is in.
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

/// Counts a worker's connections, for all workers to see. On a cache line of its own: it changes
/// with every connection.
#[repr(align(128))]
pub struct Load {
    open: AtomicUsize,
    /// Connections there may be at one time: the worker's share of the descriptors.
    max: usize,
}

impl Load {
    /// Added when the worker has ended: more than there can be connections.
    const CLOSED: usize = usize::MAX / 2;

    /// No connections, and as many as `max` at one time.
    pub fn new(max: usize) -> Load {
        Load { open: AtomicUsize::new(0), max }
    }

    /// How many there are.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// There are as many as there may be, or the worker has ended.
    pub fn is_full(&self) -> bool {
        self.open() >= self.max
    }

    /// Counts one more, until the place is dropped. None: there are as many as there may be, or the
    /// worker has ended.
    pub fn take_place(self: &Arc<Load>) -> Option<Place> {
        self.take(self.max)
    }

    /// As [`Load::take_place`], but more than there may be. None: the worker has ended.
    pub fn force_place(self: &Arc<Load>) -> Option<Place> {
        self.take(Self::CLOSED)
    }

    fn take(self: &Arc<Load>, max: usize) -> Option<Place> {
        let before = self.open.fetch_add(1, Ordering::AcqRel);
        // Dropped again where it is of no use.
        let place = Place { load: Arc::clone(self) };
        (before < max.min(Self::CLOSED)).then_some(place)
    }

    /// Ends the worker, unless it has connections; true: nobody can take a place any more.
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
    /// Its worker.
    pub context: Rc<Context>,
    /// Its stream.
    pub client: Rc<Stream>,
    /// Where it comes from.
    pub address: Address,
    listener: usize,
    gate: Option<Arc<Gate>>,
    start: Moment,
    _place: Place,
}

/// A point in time, for people and for durations.
#[derive(Clone, Copy)]
pub struct Moment {
    /// When, for people.
    pub wall: SystemTime,
    /// When, for durations.
    pub instant: Instant,
}

impl Moment {
    /// Now.
    pub fn now() -> Moment {
        Moment { wall: SystemTime::now(), instant: Instant::now() }
    }
}

impl Accepted {
    /// Counts a connection in. None: the listener is full; the refusal is recorded and the
    /// connection closed.
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

    /// The listener that accepted it.
    pub fn listener(&self) -> &Listener {
        &self.context.config.listeners[self.listener]
    }

    /// When it was accepted.
    pub fn start(&self) -> Moment {
        self.start
    }

    /// TCP keepalive of its upstream's stream: that of its listener.
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

    /// Makes the close a reset, because there is no upstream: the client must not take that for an
    /// empty answer.
    pub(super) fn reset_for(&self, failure: &ConnectFailure) {
        self.client.reset_on_close();
        if let ConnectFailure::Local(_) = failure {
            self.context.shortage.reset();
        }
    }

    /// Relays between the client and an upstream that was connected for it while the watch ran a
    /// limit; says why it ended.
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
        // What has fired until now was the limit of an earlier stage, which is over.
        watch.renew(timeouts.idle);
        let (client, upstream) = (&self.client, &lease.stream);
        let end = relay::run(client, upstream, up, down, watch, timeouts.half_closed).await;
        let end = if end == End::Client && up.is_broken() { End::BadRequest } else { end };
        watch.set_upstream(None);
        end
    }

    /// Writes one access record; `fill` says what is known beyond listener, client and time.
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
        // Its place is free when the woken task runs.
        self.context.line.call();
    }
}

/// What a record says of a connect that failed.
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

/// What a record says of a relay.
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
