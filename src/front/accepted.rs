//! An accepted connection, and what all kinds of traffic do with one.

use std::rc::Rc;
use std::sync::Arc;

use super::admission::{Admitted, Permit};
use super::context::Context;
use super::linger::linger;
use super::listener::Listener;
use super::moment::Moment;
use crate::cluster::{Cluster, ConnectFailure, Lease, Reason, Tried};
use crate::config::{RelayTimeouts, TlsEnd};
use crate::observe::access_log::{self, Record};
use crate::observe::live::{Activity, Protocol, RowKey};
use crate::observe::outcome::{Copied, End, Outcome, Relay};
use crate::proto::tls::State;
use crate::relay::{self, Flow};
use crate::sys::{Address, Stream};
use crate::timers::{Limit, Watch};
use crate::transport::Transport;

/// An accepted connection.
pub struct Accepted {
    /// The worker's state.
    pub context: Rc<Context>,
    /// The listener that accepted the connection.
    pub listener: Rc<Listener>,
    /// The client's side.
    pub client: Transport,
    /// The client's address.
    pub address: Address,
    /// The rule by which TLS ends here, once the handshake is done.
    pub tls_rule: Option<Arc<TlsEnd>>,
    start: Moment,
    /// Its row among the open connections of the worker.
    row: RowKey,
    _admitted: Admitted,
    _permit: Permit,
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
        listener.counters.connections.begin();
        let admitted = listener.admission.admit();
        let is_admitted = admitted.is_some();
        let admitted = admitted.unwrap_or_default();
        let start = Moment::now();
        let stream = Rc::new(stream);
        let row = context.timers.live().begin(listener.source(), &stream, start.instant);
        let accepted = Accepted {
            context: Rc::clone(context),
            listener: Rc::clone(listener),
            client: Transport::Plain(stream),
            address,
            tls_rule: None,
            start,
            row,
            _admitted: admitted,
            _permit: permit,
        };
        if !is_admitted {
            accepted.client.reset_on_close();
            accepted.record(accepted.start, &Outcome::new(End::Overflow), |_| {});
        }
        is_admitted.then_some(accepted)
    }

    /// Returns true if the connection is to end after what it does at present.
    pub(super) fn must_end(&self) -> bool {
        self.context.closing.get() || self.listener.is_removed()
    }

    /// Ends a connection that was to be served by a service which has ended: its listener was
    /// removed a while ago. A reset, because the client must not take a clean end for a response.
    /// `protocol` is what its record says.
    pub(super) fn end_unserved(&self, protocol: &'static str) {
        self.client.reset_on_close();
        let outcome = Outcome::new(End::Drain);
        self.record(self.start, &outcome, |record| record.protocol = protocol);
    }

    /// When the connection was accepted.
    pub fn start(&self) -> Moment {
        self.start
    }

    /// Watches the client's stream; the limit starts now. The bytes that move under the watch count
    /// for this connection.
    pub(super) fn watch(&self, limit: Limit) -> Watch {
        let watch = self.context.timers.watch(self.client.socket(), limit);
        watch.belongs_to(self.row);
        watch
    }

    /// Notes what the client speaks.
    pub(super) fn speaks(&self, protocol: Protocol) {
        self.context.timers.live().change(self.row, |row| row.protocol = protocol);
    }

    /// Notes what is done with a cluster that the connection has reached.
    pub(super) fn reaches(&self, activity: Activity, cluster: &Cluster, lease: &Lease) {
        let reached = (Rc::clone(cluster.shown()), Rc::clone(&lease.endpoint.address));
        self.context.timers.live().reach(self.row, activity, Some(reached));
    }

    /// Notes that it leads nowhere any more.
    pub(super) fn rests(&self) {
        self.context.timers.live().reach(self.row, Activity::Own, None);
    }

    /// Connects to a cluster.
    ///
    /// # Errors
    /// As [`Cluster::connect`](crate::cluster::Cluster::connect).
    pub async fn connect(&self, cluster: &Cluster) -> Result<Lease, ConnectFailure> {
        self.connect_to(cluster, false).await
    }

    /// The same for a request, which may go over a connection that had a request before, if
    /// `may_reuse` is true.
    ///
    /// # Errors
    /// As [`Cluster::connect`](crate::cluster::Cluster::connect).
    pub(super) async fn connect_to(
        &self,
        cluster: &Cluster,
        may_reuse: bool,
    ) -> Result<Lease, ConnectFailure> {
        let options = &self.listener.options();
        let (timers, tls) = (&self.context.timers, &self.context.tls);
        let connected = cluster.connect(timers, options, tls, may_reuse).await;
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

    /// Relays between the client and its upstream. Returns why the relay ended. Starts the
    /// idle limit, also if an earlier limit has fired.
    #[expect(clippy::manual_async_fn, reason = "an async fn keeps its arguments twice")]
    pub(super) fn relay(
        &self,
        watch: &Watch,
        lease: &Lease,
        up: &mut Flow,
        down: &mut Flow,
        timeouts: RelayTimeouts,
    ) -> impl Future<Output = End> {
        async move {
            watch.set_upstream(Some(lease.upstream.socket()));
            watch.set_tcp_keepalive(self.listener.tcp_keepalive());
            watch.renew(Limit::new(timeouts.idle, End::Idle));
            let _tunnel = self.listener.counters.tunnels.guard();
            let (client, upstream) = (&self.client, &lease.upstream);
            let end = relay::run(client, upstream, up, down, watch, timeouts.half_closed).await;
            let end =
                if end == End::Client && up.has_protocol_error() { End::BadRequest } else { end };
            watch.set_upstream(None);
            end
        }
    }

    /// What records say about TLS that ends here.
    fn tls(&self) -> Option<access_log::Tls<'_>> {
        let stream = self.client.tls()?;
        let facts = stream.facts()?;
        Some(access_log::Tls {
            version: Some(facts.version),
            cipher: Some(facts.cipher),
            server_name: facts.server_name.as_deref(),
            protocol: facts.protocol.as_deref(),
            is_resumed: Some(facts.is_resumed),
            handshake: Some(facts.time),
            error: stream.failure(),
        })
    }

    /// Lets the alert of a session that has failed arrive: a close with unread bytes would reset
    /// the connection.
    pub(super) async fn linger_after_alert(&self, watch: &Watch) {
        if self.client.tls().is_some_and(|tls| matches!(tls.state(), State::Failed(_))) {
            linger(self, watch).await;
        }
    }

    /// Counts an outcome and writes its access record. `describe` sets what was asked for.
    pub(super) fn record<'a>(
        &'a self,
        start: Moment,
        outcome: &'a Outcome,
        describe: impl FnOnce(&mut Record<'a>),
    ) {
        self.listener.record(&self.address, start, outcome, |record| {
            record.tls = self.tls();
            describe(record);
        });
    }
}

impl Drop for Accepted {
    fn drop(&mut self) {
        self.listener.counters.connections.end();
        self.context.timers.live().end(self.row);
        // The permit itself is dropped after this function, before the woken task runs.
        self.context.waiting_accepts.wake_front();
    }
}

/// The outcome of a relay. In TLS 1.3 an endpoint checks the certificate of ringgate when ringgate
/// has finished the handshake (RFC 8446 section 2), so its refusal arrives during the relay. A
/// session that fails before its first byte counts as a failed handshake.
pub(super) fn relayed(
    conn: &Accepted,
    watch: &Watch,
    lease: Lease,
    (up, down): (&Flow, &Flow),
    end: End,
) -> Outcome {
    let (client, upstream) = (&conn.client, &lease.upstream);
    let is_plain = client.plain().is_some() && upstream.plain().is_some();
    let larger = if up.bytes() > down.bytes() { up } else { down };
    let mut outcome = Outcome {
        endpoint: Some(Rc::clone(&lease.endpoint.address)),
        used: Some(Rc::clone(&lease.endpoint.counters)),
        connect: Some(lease.connect),
        counted: watch.take_counted(),
        // Records that wait are not sent.
        bytes_up: up.bytes().saturating_sub(upstream.unsent() as u64),
        bytes_down: down.bytes().saturating_sub(client.unsent() as u64),
        relay: if up.spliced() || down.spliced() {
            Relay::Splice
        } else if larger.bytes() > 0 {
            Relay::Copy
        } else {
            Relay::None
        },
        copied: larger.why_copied().map(|why| if is_plain { why } else { Copied::Tls }),
        ..Outcome::new(end)
    };
    lease.tried.note(&mut outcome);
    let session = upstream.tls().filter(|_| end == End::UpstreamTlsFailed && down.bytes() == 0);
    if let Some(State::Failed(error)) = session.map(|tls| tls.state()) {
        let address = &lease.endpoint.address;
        lease.endpoint.note_failure(Reason::Tls(error.reason()));
        if !outcome.failed_endpoints.contains(address) {
            outcome.failed_endpoints.push(Rc::clone(address));
        }
    }
    outcome
}
