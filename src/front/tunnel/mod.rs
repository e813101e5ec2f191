//! Upgrades that lead to a cluster: the request, and how its handshake is completed.
//!
//! | file | what it does |
//! | --- | --- |
//! | `forward` | forwards the handshake to the cluster and passes the upstream's response on |
//! | `hold` | sends or holds the client's bytes until that response |
//! | `terminate` | responds to the handshake here and forwards only the payload |

mod forward;
mod hold;
mod terminate;

use std::rc::Rc;
use std::time::Duration;

use super::accepted::Accepted;
use super::http::Source;
use super::moment::Moment;
use super::response::protocol;
use super::service::LiveRoute;
use super::visitor::Kept;
use crate::config::{RelayTimeouts, Tunnel, TunnelKind};
use crate::observe::access_log::Record;
use crate::observe::outcome::Outcome;
use crate::proto::http::{Body, Request, Version, write_websocket_alone};
use crate::sched::Charge;
use crate::timers::Watch;
use terminate::HandshakeResponse;

/// An upgrade request and where it goes.
pub(super) struct Upgrade {
    live: Rc<LiveRoute>,
    kind: TunnelKind,
    timeouts: RelayTimeouts,
    /// The head and everything that was read after it.
    bytes: Vec<u8>,
    /// The length of the head in `bytes`.
    head: usize,
    /// Content-Length: how many of the bytes after the head are the request's body.
    body: u64,
    /// The response to the handshake, if the tunnel terminates here.
    response: Option<HandshakeResponse>,
    /// How long the cluster may take for its response to the handshake.
    response_timeout: Duration,
    host: String,
    target: String,
    /// For the record, if it names this.
    visitor: Option<Box<Kept>>,
    /// Counts `bytes` and the strings.
    charge: Charge,
    start: Moment,
}

impl Upgrade {
    /// Makes an upgrade of a request. `rest` begins with `head` and contains everything read after
    /// it.
    pub(super) fn new(
        conn: &Accepted,
        live: &Rc<LiveRoute>,
        tunnel: &Tunnel,
        request: &Request<'_>,
        head: &[u8],
        rest: &[u8],
        start: Moment,
    ) -> Self {
        let body = if let Body::Length(length) = request.body { length } else { 0 };
        let terminates = matches!(tunnel.kind, TunnelKind::Terminate(_));
        let handshake = request.handshake.as_ref().filter(|_| terminates);
        // A forwarded head must not offer the upstream any protocol but WebSocket.
        let (mut bytes, mut head_length) = (Vec::with_capacity(rest.len()), head.len());
        if request.names_websocket_alone {
            bytes.extend_from_slice(rest);
        } else {
            write_websocket_alone(head, &mut bytes);
            head_length = bytes.len();
            bytes.extend_from_slice(&rest[head.len()..]);
        }
        let visitor = Kept::of(head, conn.listener.names_visitors());
        let mut upgrade = Upgrade {
            charge: conn.context.pool.charge(),
            visitor,
            live: Rc::clone(live),
            kind: tunnel.kind,
            timeouts: tunnel.timeouts,
            bytes,
            head: head_length,
            body,
            response: handshake.map(HandshakeResponse::new),
            response_timeout: tunnel.timeouts.idle,
            host: request.host.to_owned(),
            target: request.target.to_owned(),
            start,
        };
        upgrade.charge.set(upgrade.bytes.len() + upgrade.strings());
        upgrade
    }

    /// Makes an upgrade on a route that passes requests on. `head` is the one for the cluster, and
    /// `rest` is what was read after that of the client.
    pub(super) fn through(source: &Source<'_>, mut bytes: Vec<u8>) -> Self {
        let &Source { conn, live, proxy, request, head, rest, start, .. } = source;
        let head_length = bytes.len();
        bytes.extend_from_slice(rest);
        let mut upgrade = Upgrade {
            charge: conn.context.pool.charge(),
            visitor: Kept::of(head, conn.listener.names_visitors()),
            live: Rc::clone(live),
            kind: proxy.upgrades.kind,
            timeouts: proxy.upgrades.timeouts,
            bytes,
            head: head_length,
            body: if let Body::Length(length) = request.body { length } else { 0 },
            response: None,
            response_timeout: proxy.response_timeout,
            host: request.host.to_owned(),
            target: request.target.to_owned(),
            start,
        };
        upgrade.charge.set(upgrade.bytes.len() + upgrade.strings());
        upgrade
    }

    /// Takes the bytes out. The strings stay counted as long as the tunnel lasts.
    fn take_bytes(&mut self) -> Vec<u8> {
        self.charge.set(self.strings());
        std::mem::take(&mut self.bytes)
    }

    /// The bytes that are kept for the record.
    fn strings(&self) -> usize {
        let visitor = self.visitor.as_ref().map_or(0, |visitor| visitor.length());
        self.host.len() + self.target.len() + visitor
    }

    /// Counts the outcome and writes the record.
    fn record(&self, conn: &Accepted, outcome: Outcome) {
        conn.record(self.start, &outcome, |record| self.describe(record));
    }

    fn describe<'a>(&'a self, record: &mut Record<'a>) {
        record.protocol = protocol(Version::Http11);
        record.method = Some("GET");
        record.host = Some(&self.host);
        record.path = Some(&self.target);
        record.route = Some(&self.live.route.name);
        record.cluster = Some(self.live.cluster().name());
        if let Some(visitor) = &self.visitor {
            visitor.visitor().describe(record);
        }
    }
}

/// Serves the tunnel to its end and writes its record.
pub(super) async fn serve(conn: &Accepted, watch: &Watch, mut upgrade: Upgrade) {
    match (upgrade.response.take(), upgrade.kind) {
        (Some(response), _) => terminate::serve(conn, watch, upgrade, response).await,
        (None, TunnelKind::Forward { early_data }) => {
            forward::serve(conn, watch, upgrade, early_data).await;
        }
        // Unreachable: such a route matches only requests with a handshake.
        (None, TunnelKind::Terminate(_)) => {}
    }
}
