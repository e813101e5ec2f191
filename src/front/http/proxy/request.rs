//! The request that a cluster gets. It is made in the turn in which the client's head was parsed,
//! so that only this copy of it lives longer.

use std::cell::Cell;
use std::io::Write;
use std::rc::Rc;

use crate::cluster::Cluster;
use crate::config::{Action, FieldRules, Http, PathMatch, PathRewrite, Proxy, Route, Scheme};
use crate::front::accepted::Accepted;
use crate::front::http::asked::Asked;
use crate::front::moment::Moment;
use crate::front::service::LiveRoute;
use crate::observe::access_log::Record;
use crate::proto::codec::Stack;
use crate::proto::http::forward::{self, Framing, Rules, write_request};
use crate::proto::http::{Body, Hop, Reject, Request, RequestKind, match_prefix};
use crate::relay::{Flow, Pool};
use crate::sched::Charge;
use crate::sys::Address;

const TOO_LARGE: Reject =
    Reject { status: 413, reason: "body_too_large", text: "the request body is too large" };
const TOO_MANY_NAMES: Reject =
    Reject { status: 400, reason: "bad_connection", text: "Connection names too many fields" };
const NO_HOST: Reject =
    Reject { status: 400, reason: "no_host", text: "a request to this path needs a Host" };

/// A request on its way to a cluster.
pub(in crate::front) struct Proxied {
    live: Rc<LiveRoute>,
    pub(in crate::front) asked: Asked,
    /// How often the request was sent again.
    pub(in crate::front) retries: Cell<u32>,
    pub(in crate::front) kind: RequestKind,
    /// Bytes of the body that were still to be read when the response began, if its length is
    /// known.
    pub(super) left: Cell<u64>,
    /// The head for the cluster.
    pub(in crate::front) head: Vec<u8>,
    /// Bytes of the body that were read together with the client's head, as they arrived.
    early: Vec<u8>,
    /// The body, without `early` if its length is known.
    pub(in crate::front) body: Body,
    /// Bytes of the next requests.
    pub(in crate::front) behind: Vec<u8>,
    /// Whether the client waits for a 100 before it sends the body.
    pub(in crate::front) expects_continue: bool,
    pub(in crate::front) is_persistent: bool,
    pub(in crate::front) start: Moment,
    /// Counts all of these bytes.
    _charge: Charge,
}

/// What a request is made of.
pub(in crate::front) struct Source<'a> {
    pub(in crate::front) conn: &'a Accepted,
    pub(in crate::front) http: &'a Http,
    pub(in crate::front) live: &'a Rc<LiveRoute>,
    /// The action of its route.
    pub(in crate::front) proxy: &'a Proxy,
    pub(in crate::front) request: &'a Request<'a>,
    pub(in crate::front) scheme: Scheme,
    /// The client's head.
    pub(in crate::front) head: &'a [u8],
    /// Everything that was read after it.
    pub(in crate::front) rest: &'a [u8],
    pub(in crate::front) start: Moment,
    /// The version as records name it.
    pub(in crate::front) protocol: &'static str,
}

impl Proxied {
    /// Makes the request for the cluster.
    ///
    /// # Errors
    /// The request is refused.
    pub(in crate::front) fn new(source: &Source<'_>) -> Result<Proxied, Reject> {
        let &Source { conn, request, rest, .. } = source;
        let head = write_head(source)?;
        // What follows a body whose length is known belongs to the next requests.
        let (early, behind, body) = match request.body {
            Body::Length(length) => {
                let own = usize::try_from(length).unwrap_or(usize::MAX).min(rest.len());
                let (early, behind) = rest.split_at(own);
                (early, behind, Body::Length(length - own as u64))
            }
            Body::Chunked(_) | Body::UntilClose => (rest, &b""[..], request.body),
        };
        let asked = Asked::of(request, source.head, source.protocol, conn);
        let mut charge = conn.context.pool.charge();
        charge.set(asked.kept() + head.len() + early.len() + behind.len());
        Ok(Proxied {
            live: Rc::clone(source.live),
            asked,
            retries: Cell::new(0),
            left: Cell::new(0),
            kind: if request.method == "HEAD" { RequestKind::Head } else { RequestKind::Other },
            head,
            early: early.to_vec(),
            body,
            behind: behind.to_vec(),
            expects_continue: request.expects_continue,
            is_persistent: request.is_persistent,
            start: source.start,
            _charge: charge,
        })
    }

    /// Its route.
    pub(in crate::front) fn route(&self) -> &Route {
        &self.live.route
    }

    /// The action of its route.
    pub(in crate::front) fn proxy(&self) -> &Proxy {
        let Action::Proxy(proxy) = &self.live.route.action else {
            unreachable!("requests with other actions are not passed on")
        };
        proxy
    }

    /// The cluster that it goes to.
    pub(super) fn cluster(&self) -> &Rc<Cluster> {
        self.live.cluster()
    }

    /// Returns true if the request may be sent a second time after the first one was lost: it has
    /// the same effect (RFC 9110 section 9.2.2), and no byte of a body is gone.
    pub(in crate::front) fn may_repeat(&self) -> bool {
        let is_idempotent =
            matches!(self.asked.method(), "GET" | "HEAD" | "OPTIONS" | "PUT" | "DELETE");
        is_idempotent && self.is_bodyless()
    }

    /// Returns true if the head is all that is sent.
    pub(in crate::front) fn is_bodyless(&self) -> bool {
        self.body.is_done() && self.early.is_empty()
    }

    /// The flow that sends the head and the body. `chunks` makes the codec of a body without a
    /// length, with the limit of its payload.
    pub(super) fn flow(&self, pool: &Rc<Pool>, chunks: impl FnOnce(u64) -> Stack) -> Flow {
        let mut flow = match self.body {
            Body::Length(left) => {
                let mut flow = Flow::new(pool, Vec::new());
                flow.allow(left);
                flow
            }
            Body::Chunked(_) | Body::UntilClose => {
                Flow::coded(pool, chunks(self.proxy().max_body.unwrap_or(u64::MAX)))
            }
        };
        flow.keep_open();
        flow
    }

    /// Gives the flow what it sends first. `queue` is called with the bytes if they are all that
    /// there is, and returns true if it has taken them.
    pub(super) fn begin(&self, flow: &mut Flow, queue: impl FnOnce(&mut Flow, &[u8]) -> bool) {
        if self.is_bodyless() {
            if !queue(flow, &self.head) {
                flow.push(&self.head);
            }
            return;
        }
        flow.push(&self.head);
        flow.begin_with(&self.early);
    }

    /// Says in a record what was asked for.
    pub(in crate::front) fn describe<'a>(&'a self, record: &mut Record<'a>) {
        self.asked.describe(Some(self.route()), record);
        record.cluster = Some(&self.proxy().cluster);
    }
}

/// The rules of the configuration as the writers of heads take them.
pub(super) fn rules<'a, N, V>(set: &'a [(N, V)], remove: &'a [N]) -> Rules<'a, N, V> {
    Rules { set, remove }
}

/// Writes the head that the cluster gets. An upgrade to WebSocket stays one: its bytes go through a
/// tunnel.
///
/// # Errors
/// The request is refused.
pub(in crate::front) fn write_head(source: &Source<'_>) -> Result<Vec<u8>, Reject> {
    let &Source { conn, http, live, proxy, request, scheme, head, .. } = source;
    // The body of an upgrade comes before its tunnel (RFC 9110 section 7.8). Chunks are counted
    // as they arrive.
    if let (Body::Length(length), Some(most)) = (request.body, proxy.max_body)
        && length > most
    {
        return Err(TOO_LARGE);
    }
    let hop = Hop::of(head).ok_or(TOO_MANY_NAMES)?;
    let mut host = Vec::new();
    authority(request, &mut host);
    let target_host = match &proxy.rewrite.host {
        Some(host) => host.as_bytes(),
        // HTTP/1.1 demands one (RFC 9112 section 3.2), and the cluster gets that version.
        None if host.is_empty() => return Err(NO_HOST),
        None => &host,
    };
    let mut target = Vec::with_capacity(request.target.len() + 16);
    write_target(source, &live.route, &mut target);
    let (mut address, mut is_trusted) = (Vec::with_capacity(40), false);
    if let Address::Ip(ip) = &conn.address {
        let ip = ip.ip().to_canonical();
        // Writing to a vector does not fail.
        let _ = write!(address, "{ip}");
        is_trusted = http.trusted_proxies.iter().any(|network| network.contains(ip));
    }
    let id = conn.context.request_id();
    let FieldRules { set, remove, .. } = &proxy.request_fields;
    let mut out = Vec::with_capacity(head.len() + 256);
    let framing = match request.body {
        Body::Length(0) if !has_body_by_method(request.method) => Framing::None,
        Body::Length(length) => Framing::Length(length),
        Body::Chunked(_) | Body::UntilClose => Framing::Chunked,
    };
    let request = forward::Request {
        hop: &hop,
        target: &target,
        host: target_host,
        client: forward::Client {
            address: std::str::from_utf8(&address).unwrap_or_default(),
            scheme: if scheme == Scheme::Https { "https" } else { "http" },
            host: &host,
            request_id: std::str::from_utf8(&id).unwrap_or_default(),
            is_trusted,
        },
        rules: &[rules(set, remove)],
        framing,
        keeps_expect: request.expects_continue,
        max_forwards: request.max_forwards.map(|hops| hops.saturating_sub(1)),
        is_upgrade: request.is_upgrade,
    };
    write_request(head, &request, &mut out);
    Ok(out)
}

/// Returns true for methods whose requests usually have a body, so that an empty one is announced
/// (RFC 9110 section 8.6).
fn has_body_by_method(method: &str) -> bool {
    matches!(method, "POST" | "PUT" | "PATCH")
}

/// Writes the host of the request with its port, as a Host field has them.
fn authority(request: &Request<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(request.host.as_bytes());
    if let Some(port) = request.port {
        out.push(b':');
        out.extend_from_slice(port.as_bytes());
    }
}

/// Writes the target in origin form (RFC 9112 section 3.2.1), rewritten as the route says.
fn write_target(source: &Source<'_>, route: &Route, out: &mut Vec<u8>) {
    let request = source.request;
    match (&source.proxy.rewrite.path, &route.path) {
        (PathRewrite::Keep, _) => out.extend_from_slice(request.path.as_bytes()),
        (PathRewrite::Path(path), _) => out.extend_from_slice(path.as_bytes()),
        (PathRewrite::Prefix(new), PathMatch::Prefix(old) | PathMatch::Exact(old)) => {
            out.extend_from_slice(new.as_bytes());
            let rest = match_prefix(request.path, old).unwrap_or_default();
            // "/api" becomes "/" also for "/api/x": one slash is enough.
            let rest =
                if new.ends_with('/') { rest.strip_prefix('/').unwrap_or(rest) } else { rest };
            out.extend_from_slice(rest.as_bytes());
        }
    }
    if let Some(query) = request.query {
        out.push(b'?');
        out.extend_from_slice(query.as_bytes());
    }
}
