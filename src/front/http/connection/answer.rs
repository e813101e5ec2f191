//! What each request leads to: a response at once, or an exchange that waits.

use std::rc::Rc;

use super::{Connection, MAX_SKIPPED, Next};
use crate::config::{Action, FieldRules, Files, Http, Route};
use crate::files::Content;
use crate::front::accepted::Accepted;
use crate::front::http::exchange::respond;
use crate::front::http::files::{self, Query};
use crate::front::http::proxy::{Proxied, Source, write_head};
use crate::front::moment::Moment;
use crate::front::response::{Response, protocol};
use crate::front::service::{LiveRoute, Service};
use crate::front::tunnel::Upgrade;
use crate::front::visitor::Visitor;
use crate::observe::access_log::Record;
use crate::observe::outcome::{End, Outcome};
use crate::proto::http::response_head::{Content as Sent, Persistence, reason_phrase};
use crate::proto::http::{Body, Reject, Request, Version, parse_request};
use crate::route;

const MISDIRECTED: Reject =
    Reject { status: 421, reason: "misdirected", text: "ask for this host on another connection" };

/// One request in the bytes that were read.
struct One<'a> {
    http: &'a Http,
    request: &'a Request<'a>,
    head: &'a [u8],
    /// The head, and everything that was read after it.
    rest: &'a [u8],
    start: Moment,
}

impl Connection<'_> {
    /// Answers one request. `rest` begins with its head and contains everything that was read after
    /// it.
    pub(super) fn answer(
        &mut self,
        service: &Service,
        head: &[u8],
        rest: &[u8],
        now: Moment,
        out: &mut Vec<u8>,
    ) -> Next {
        let Some(http) = service.http() else { return Next::Drop };
        let request = match parse_request(head, http.max_headers) {
            Ok(request) => request,
            Err(reject) => {
                self.reject(service, reject, Sent::for_rejected(head), now, out);
                return Next::Linger;
            }
        };
        let start = self.begun.take().unwrap_or(now);
        let one = One { http, request: &request, head, rest, start };
        // A challenge of a certificate authority comes before any route.
        let challenges = self.conn.context.challenges.borrow();
        if let Some(content) = challenges.content(request.path) {
            return self.respond(&one, Some("acme"), None, Response::challenge(content), out);
        }
        let live = service.route(&request, self.scheme);
        let route = live.map(|live| &*live.route);
        if let Some(reject) = misdirected(self.conn, service, &request, route) {
            return self.refuse(service, &one, None, reject, now, out);
        }
        match live.map(|live| (live, &live.route.action)) {
            Some((live, Action::Tunnel(tunnel))) => {
                let upgrade = Upgrade::new(self.conn, live, tunnel, &request, head, rest, start);
                Next::Tunnel(Box::new(upgrade))
            }
            Some((live, Action::Proxy(proxy))) if request.may_be_passed_on() => {
                let source = Source {
                    conn: self.conn,
                    http,
                    live,
                    proxy,
                    request: &request,
                    scheme: self.scheme,
                    head,
                    rest: &rest[head.len()..],
                    start,
                    protocol: protocol(request.version),
                };
                let next = if request.is_upgrade {
                    let upgrade = |head| Next::Tunnel(Box::new(Upgrade::through(&source, head)));
                    write_head(&source).map(upgrade)
                } else {
                    Proxied::new(&source).map(|proxied| Next::Proxy(Box::new(proxied)))
                };
                next.unwrap_or_else(|reject| self.refuse(service, &one, route, reject, now, out))
            }
            Some((live, Action::Files(files))) => self.find_file(&one, live, files, out),
            _ => {
                let name = route.map(|route| &*route.name);
                self.respond(&one, name, route, respond(route, &request, self.scheme), out)
            }
        }
    }

    /// Answers a request for a file, at once or after a wait.
    fn find_file(
        &mut self,
        one: &One<'_>,
        live: &Rc<LiveRoute>,
        files: &Files,
        out: &mut Vec<u8>,
    ) -> Next {
        let &One { request, head, start, .. } = one;
        let (conn, route) = (self.conn, &*live.route);
        let site = live.site();
        let (persistence, rest) = (self.persistence(request), &one.rest[head.len()..]);
        let query = Query { conn, site, live, request, head, rest, persistence, start };
        match query.lookup() {
            Some(found) if !matches!(found.content, Content::File(_)) => {
                let response = files::respond(&found, files, request.path, request.query);
                self.respond(one, Some(&route.name), Some(route), response, out)
            }
            found => Next::File(Box::new(query.wait(found, conn.context.pool.charge()))),
        }
    }

    /// What a response says of the connection, which goes on unless the request or a drain ends it.
    fn persistence(&self, request: &Request<'_>) -> Persistence {
        match request.version {
            _ if !may_go_on(request) || self.conn.must_end() => Persistence::Close,
            Version::Http11 => Persistence::Persistent,
            Version::Http10 => Persistence::KeepAlive,
        }
    }

    /// Appends the response to a request and writes the record, which names the route `name`.
    fn respond(
        &mut self,
        one: &One<'_>,
        name: Option<&str>,
        route: Option<&Route>,
        response: Response<'_>,
        out: &mut Vec<u8>,
    ) -> Next {
        let &One { http, request, head, start, .. } = one;
        let persistence = self.persistence(request);
        let (status, reason) = (response.status, response.reason);
        let content = Sent::for_method(request.method);
        let rules = route.map_or(&http.response_fields, |route| &route.response_fields);
        let written = self.append(response, Some(http), rules, content, persistence, out);
        let outcome =
            Outcome { reason, bytes_up: head.len() as u64, ..written.outcome(status, End::Done) };
        self.conn.record(start, &outcome, |record| {
            self.describe(record, request, head);
            record.route = name;
        });
        (self.skipped, self.skipped_bytes) = (request.body, 0);
        if persistence == Persistence::Close { Next::Linger } else { Next::Read }
    }

    /// Refuses a valid request, which may have got as far as a route. The connection ends after it.
    fn refuse(
        &mut self,
        service: &Service,
        one: &One<'_>,
        route: Option<&Route>,
        reject: Reject,
        now: Moment,
        out: &mut Vec<u8>,
    ) -> Next {
        self.begun = Some(one.start);
        let content = Sent::for_method(one.request.method);
        self.reject_request(service, reject, content, Some((one, route)), now, out);
        Next::Linger
    }

    /// Ends a connection that was read after the service of its listener has ended: the listener
    /// was removed a while ago. `bytes` are those that nothing has answered. The pages and fields
    /// of the listener are gone with its service.
    pub(super) fn end_unserved(&mut self, bytes: &[u8]) -> Next {
        // The rest of a request that was answered, and its record is written.
        if !self.skipped.is_done() {
            return Next::Linger;
        }
        let mut outcome = Outcome::new(End::Drain);
        // A client may repeat a request without a response that was sent over an idle connection
        // (RFC 9112 section 9.3.1), but none that was refused.
        if !self.is_at_rest() {
            let mut out = self.scratch();
            let (status, rules) = (503, FieldRules::default());
            let response = Response::text(status, reason_phrase(status));
            let (content, close) = (Sent::for_rejected(bytes), Persistence::Close);
            let written = self.append(response, None, &rules, content, close, &mut out);
            self.send(&out);
            outcome = written.outcome(status, End::Drain);
        }
        self.conn.record(self.begun.take().unwrap_or_else(Moment::now), &outcome, |record| {
            record.protocol = protocol(Version::Http11);
        });
        // A close with unread bytes is a reset, which could destroy the last response.
        Next::Linger
    }

    /// Sets what a request asks for, and who asks.
    fn describe<'r>(&self, record: &mut Record<'r>, request: &Request<'r>, head: &'r [u8]) {
        record.protocol = protocol(request.version);
        record.method = Some(request.method);
        record.host = Some(request.host).filter(|host| !host.is_empty());
        record.path = Some(request.target);
        if self.conn.listener.names_visitors() {
            Visitor::of(head).describe(record);
        }
    }

    /// Answers a head that is not a valid request.
    pub(super) fn reject(
        &mut self,
        service: &Service,
        reject: Reject,
        content: Sent,
        now: Moment,
        out: &mut Vec<u8>,
    ) {
        self.reject_request(service, reject, content, None, now, out);
    }

    /// Refuses a request. `request` is what is known of it if its head is valid.
    fn reject_request(
        &mut self,
        service: &Service,
        reject: Reject,
        content: Sent,
        request: Option<(&One<'_>, Option<&Route>)>,
        now: Moment,
        out: &mut Vec<u8>,
    ) {
        let route = request.and_then(|(_, route)| route);
        let Some(http) = service.http() else { return };
        let rules = route.map_or(&http.response_fields, |route| &route.response_fields);
        let response = Response::reject(reject);
        let written = self.append(response, Some(http), rules, content, Persistence::Close, out);
        let end = match reject.status {
            408 => End::HeadTimeout,
            503 => End::Overflow,
            _ => End::BadRequest,
        };
        let outcome =
            Outcome { reason: Some(reject.reason), ..written.outcome(reject.status, end) };
        self.conn.record(self.begun.take().unwrap_or(now), &outcome, |record| {
            record.protocol = protocol(Version::Http11);
            if let Some((one, _)) = request {
                self.describe(record, one.request, one.head);
            }
            if let Some(route) = route {
                record.route = Some(&route.name);
                if let Action::Proxy(proxy) = &route.action {
                    record.cluster = Some(&proxy.cluster);
                }
            }
        });
    }
}

/// Returns the refusal of a request whose host demands a client certificate that the connection was
/// not asked for. A redirect from plain HTTP to HTTPS needs none.
pub(in crate::front) fn misdirected(
    conn: &Accepted,
    service: &Service,
    request: &Request<'_>,
    route: Option<&Route>,
) -> Option<Reject> {
    if !service.servers.demand_certificates() {
        return None;
    }
    let own = conn.tls_rule.as_deref();
    let is_upgrade = own.is_none() && route.is_some_and(Route::leads_to_https);
    let tls = service.tls();
    let is_misdirected =
        !is_upgrade && tls.is_some_and(|tls| route::is_misdirected(tls, own, request.host));
    is_misdirected.then_some(MISDIRECTED)
}

/// Returns true if the connection carries another request, as far as this one decides it.
fn may_go_on(request: &Request<'_>) -> bool {
    // A client that waits for a 100 may or may not send its body, so the next bytes are ambiguous.
    let is_ambiguous = request.expects_continue && !request.body.is_done();
    let is_too_long = matches!(request.body, Body::Length(length) if length > MAX_SKIPPED);
    request.is_persistent && !is_ambiguous && !is_too_long
}
