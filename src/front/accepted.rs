//! An accepted connection, and what all kinds of traffic do with one.

use std::rc::Rc;
use std::time::{Instant, SystemTime};

use super::admission::{Admitted, Permit};
use super::context::Context;
use super::generation::Listener;
use crate::cluster::{ConnectFailure, Lease, Tried};
use crate::config::RelayTimeouts;
use crate::observe::access_log::{End, Record, Relay};
use crate::relay::{self, Flow};
use crate::sys::{Address, Stream};
use crate::timers::Watch;

/// An accepted connection. It holds what it uses and no more.
pub struct Accepted {
    /// The worker's state.
    pub context: Rc<Context>,
    /// The listener that accepted the connection.
    pub listener: Rc<Listener>,
    /// The client's stream.
    pub client: Rc<Stream>,
    /// The client's address.
    pub address: Address,
    start: Moment,
    _admitted: Option<Admitted>,
    _permit: Permit,
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
    /// Admits a connection. `None` if the listener is full: the refusal is then recorded and the
    /// connection is reset.
    pub fn admit(
        context: &Rc<Context>,
        listener: &Rc<Listener>,
        stream: Stream,
        address: Address,
        permit: Permit,
    ) -> Option<Accepted> {
        let admitted = listener.admission.admit();
        let is_admitted = admitted.is_some();
        let accepted = Accepted {
            context: Rc::clone(context),
            listener: Rc::clone(listener),
            client: Rc::new(stream),
            address,
            start: Moment::now(),
            _admitted: admitted,
            _permit: permit,
        };
        if !is_admitted {
            accepted.client.reset_on_close();
            accepted.record(accepted.start, |record| record.end = End::Overflow);
        }
        is_admitted.then_some(accepted)
    }

    /// When the connection was accepted.
    pub fn start(&self) -> Moment {
        self.start
    }

    /// Connects to a cluster of the listener.
    ///
    /// # Errors
    /// As [`Cluster::connect`](crate::cluster::Cluster::connect).
    pub async fn connect(&self, cluster: &str) -> Result<Lease, ConnectFailure> {
        let nodelay = self.listener.config.nodelay;
        let cluster = self.listener.cluster(cluster);
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
        watch.keep_alive(self.listener.keepalive());
        // If a limit has fired, it was that of an earlier stage, which is over.
        watch.renew(timeouts.idle);
        let (client, upstream) = (&self.client, &lease.stream);
        let end = relay::run(client, upstream, up, down, watch, timeouts.half_closed).await;
        let end = if end == End::Client && up.is_broken() { End::BadRequest } else { end };
        watch.set_upstream(None);
        end
    }

    /// Writes one access record. `fill` sets the fields beyond listener, client and time.
    pub(super) fn record<'a>(&'a self, start: Moment, fill: impl FnOnce(&mut Record<'a>)) {
        self.listener.record(&self.address, start, fill);
    }
}

impl Drop for Accepted {
    fn drop(&mut self) {
        // The permit itself is dropped after this function, before the woken task runs.
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
    record.endpoint = Some(&lease.endpoint.address);
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
