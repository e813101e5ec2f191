//! One stream: a request and its response. What can be answered at once is answered in the turn of
//! the connection; everything else is a task of its own.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;

use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};

use super::head::{Collected, write_request};
use super::piece::{Piece, Unsent};
use super::send::{Broken, cut_off, finish, release, room_to_read, send_all, send_now};
use super::skip::skip;
use super::{MAX_STREAMS, Open, Place, Shared, proxy};
use crate::config::{Action, FieldRules, Files, Http, Route, Scheme};
use crate::files::{self, Content, Site};
use crate::front::accepted::Accepted;
use crate::front::http::{
    Asked, Proxied, Query, Source, TOO_LARGE, file_response, misdirected, respond,
};
use crate::front::moment::Moment;
use crate::front::response::Response;
use crate::front::service::{LiveRoute, Service};
use crate::front::visitor::Visitor;
use crate::observe::outcome::{Copied, End, Outcome, Relay};
use crate::proto::http::response_head::{Content as Sent, Persistence};
use crate::proto::http::{Conditions, Reject, Request, parse_request};
use crate::sched::spawn_isolated;
use crate::timers::{Limit, Watch};

/// How records name the version.
pub(super) const PROTOCOL: &str = "HTTP/2";

/// A request that has no response yet.
pub(super) struct Stream {
    pub(super) shared: Rc<Shared>,
    /// Its head in HTTP/1.1.
    pub(super) head: Vec<u8>,
    pub(super) respond: SendResponse<Piece>,
    pub(super) start: Moment,
}

/// Serves a request of a client.
pub(super) fn begin(
    shared: &Rc<Shared>,
    request: http::Request<RecvStream>,
    mut respond: SendResponse<Piece>,
) {
    // A stream that the client has reset is closed for it, but its task may still wait. So the
    // client could have any number of them (CVE-2023-44487). The request was not processed (RFC
    // 9113 section 8.7).
    if shared.open.get() >= MAX_STREAMS as usize {
        return respond.send_reset(Reason::REFUSED_STREAM);
    }
    let start = Moment::now();
    shared.active.set(start.instant);
    shared.has_begun.set(true);
    let (parts, mut body) = request.into_parts();
    let mut head = Vec::with_capacity(512);
    write_request(&parts, !body.is_end_stream(), &mut head);
    let mut stream = Stream { shared: Rc::clone(shared), head, respond, start };
    // A reload may have removed the listener.
    let Some(service) = shared.conn.listener.service() else {
        return stream.respond.send_reset(Reason::REFUSED_STREAM);
    };
    let waiting = stream.answer_at_once(&service).map(|stream| (stream, service));
    if waiting.is_some() || !body.is_end_stream() {
        let open = Open::new(shared);
        spawn_isolated(async move {
            if let Some((stream, service)) = waiting {
                stream.serve(service, &mut body).await;
            }
            if !body.is_end_stream() {
                skip(&mut body, &open.0.conn).await;
            }
            drop(open);
        });
    }
}

impl Stream {
    /// Answers the request, unless it has to wait: then it comes back.
    fn answer_at_once(mut self, service: &Service) -> Option<Stream> {
        let conn = Rc::clone(&self.shared.conn);
        let http = service.http()?;
        let head = std::mem::take(&mut self.head);
        // The crate has the limit with which the connection began. A reload may have lowered it.
        let request = match parse_request(&head, http.max_headers) {
            _ if head.len() > http.max_head => Err(TOO_LARGE),
            request => request,
        };
        let request = match request {
            Ok(request) => request,
            Err(reject) => {
                self.reject(&conn, http, None, None, reject);
                return None;
            }
        };
        let challenges = conn.context.challenges.borrow();
        if let Some(content) = challenges.content(request.path) {
            self.send(&conn, http, &request, &head, None, Response::challenge(content));
            return None;
        }
        let live = service.route(&request, Scheme::Https);
        let route = live.map(|live| &*live.route);
        if let Some(reject) = misdirected(&conn, service, &request, route) {
            self.reject(&conn, http, Some(&request), None, reject);
            return None;
        }
        match live.map(|live| (live, &live.route.action)) {
            Some((_, Action::Proxy(_))) if request.may_be_passed_on() => {}
            Some((live, Action::Files(files))) => {
                match query(&conn, &request, live, &head, self.start).lookup() {
                    Some(found) if !matches!(found.content, Content::File(_)) => {
                        let response = file_response(&found, files, request.path, request.query);
                        self.send(&conn, http, &request, &head, route, response);
                        return None;
                    }
                    _ => {}
                }
            }
            _ => {
                let response = respond(route, &request, Scheme::Https);
                self.send(&conn, http, &request, &head, route, response);
                return None;
            }
        }
        drop(challenges);
        self.head = head;
        Some(self)
    }

    /// Serves a request that has to wait.
    async fn serve(mut self, service: Rc<Service>, body: &mut RecvStream) {
        let conn = Rc::clone(&self.shared.conn);
        let Some(http) = service.http() else { return };
        let head = std::mem::take(&mut self.head);
        // It was valid a moment ago.
        let Ok(request) = parse_request(&head, http.max_headers) else { return };
        let Some(live) = service.route_again(&request, Scheme::Https).cloned() else { return };
        let route = &*live.route;
        let Some(_place) = Place::take(&self.shared) else {
            // The request was not processed, so the client may send it again (RFC 9113 section
            // 8.7).
            self.respond.send_reset(Reason::REFUSED_STREAM);
            let outcome = Outcome::new(End::Overflow);
            let asked = Asked::of(&request, &head, PROTOCOL, &conn);
            return conn.record(self.start, &outcome, |record| {
                asked.describe(Some(route), record);
            });
        };
        match &route.action {
            Action::Proxy(proxy) => {
                let (conn, scheme, start) = (&*conn, Scheme::Https, self.start);
                let (live, request, head, rest) = (&live, &request, &head[..], &b""[..]);
                let protocol = PROTOCOL;
                let source = Source {
                    conn,
                    http,
                    live,
                    proxy,
                    request,
                    scheme,
                    head,
                    rest,
                    start,
                    protocol,
                };
                match Proxied::new(&source) {
                    Ok(proxied) => {
                        // The exchange may last long.
                        drop(service);
                        proxy::serve(self, body, conn, &proxied).await;
                    }
                    Err(reject) => self.reject(conn, http, Some(request), Some(route), reject),
                }
            }
            Action::Files(files) => {
                drop(service);
                self.file(&conn, &request, &live, files, &head).await;
            }
            Action::Tunnel(_) | Action::Redirect(_) | Action::Respond(_) => {}
        }
    }

    /// Refuses a request. `request` is its head, if that is valid, and `route` its route, if it has
    /// got as far as that.
    pub(super) fn reject(
        &mut self,
        conn: &Accepted,
        http: &Http,
        request: Option<&Request<'_>>,
        route: Option<&Route>,
        reject: Reject,
    ) {
        let method = request.map_or("GET", |request| request.method);
        let mut outcome = Outcome::new(End::BadRequest);
        (outcome.status, outcome.reason) = (Some(reject.status), Some(reject.reason));
        let response = Response::reject(reject);
        let rules = route.map_or(&http.response_fields, |route| &route.response_fields);
        self.send_response(conn, Some(http), rules, method, response, &mut outcome);
        conn.record(self.start, &outcome, |record| {
            record.protocol = PROTOCOL;
            if let Some(request) = request {
                record.method = Some(request.method);
                record.host = Some(request.host).filter(|host| !host.is_empty());
                record.path = Some(request.target);
            }
            if let Some(route) = route {
                record.route = Some(&route.name);
                if let Action::Proxy(proxy) = &route.action {
                    record.cluster = Some(&proxy.cluster);
                }
            }
        });
    }

    /// Sends a response that is made here, and writes its record.
    fn send(
        &mut self,
        conn: &Accepted,
        http: &Http,
        request: &Request<'_>,
        head: &[u8],
        route: Option<&Route>,
        response: Response<'_>,
    ) {
        let mut outcome = Outcome { bytes_up: head.len() as u64, ..Outcome::new(End::Done) };
        (outcome.status, outcome.reason) = (Some(response.status), response.reason);
        let rules = route.map_or(&http.response_fields, |route| &route.response_fields);
        self.send_response(conn, Some(http), rules, request.method, response, &mut outcome);
        conn.record(self.start, &outcome, |record| {
            record.protocol = PROTOCOL;
            record.method = Some(request.method);
            record.host = Some(request.host).filter(|host| !host.is_empty());
            record.path = Some(request.target);
            record.route = route.map(|route| &*route.name);
            if conn.listener.names_visitors() {
                Visitor::of(head).describe(record);
            }
        });
    }

    /// Sends a response that is made here, with the page that `http` has for its status, and notes
    /// its length in HTTP/1.1.
    pub(super) fn send_response(
        &mut self,
        conn: &Accepted,
        http: Option<&Http>,
        rules: &FieldRules,
        method: &str,
        response: Response<'_>,
        outcome: &mut Outcome,
    ) {
        let response = match http {
            Some(http) => response.with_page(&http.error_pages),
            None => response,
        };
        let date = conn.context.date();
        let mut out = conn.context.responses.borrow_mut();
        out.clear();
        // The head alone: the body is shared.
        response.write(rules, Sent::Announced, &date, Persistence::Persistent, &mut out);
        let body = match Sent::for_method(method) {
            Sent::Sent => Piece::of(&response.body, &conn.context.pool),
            Sent::Announced => Piece::empty(),
        };
        (outcome.bytes_down, outcome.head_down) =
            ((out.len() + body.len()) as u64, out.len() as u64);
        let head = Collected::of_own(&out).into_response();
        // An error means that the client does not want the response any more.
        let Ok(mut stream) = self.respond.send_response(head, body.is_empty()) else { return };
        if body.is_empty() {
            return;
        }
        // What the client does not take now waits in a task, with a limit of its own.
        if let Some(body) = send_now(&mut stream, body) {
            let limit = Limit::new(self.shared.keepalive_timeout(), End::Idle);
            let watch = conn.watch(limit);
            let open = Open::new(&self.shared);
            let unsent = Rc::clone(&self.shared.unsent);
            spawn_isolated(async move {
                if send_all(&mut stream, body, true, &unsent, &watch).await.is_err() {
                    cut_off(&mut stream);
                }
                drop((watch, open));
            });
        }
    }

    /// Answers a request for a file that has to wait.
    async fn file(
        &mut self,
        conn: &Accepted,
        request: &Request<'_>,
        live: &LiveRoute,
        files: &Files,
        head: &[u8],
    ) {
        let route = &*live.route;
        let outcome = self.send_found(conn, request, (live.site(), route), files, head).await;
        let asked = Asked::of(request, head, PROTOCOL, conn);
        conn.record(self.start, &outcome, |record| asked.describe(Some(route), record));
    }

    /// Finds a file and sends it.
    async fn send_found(
        &mut self,
        conn: &Accepted,
        request: &Request<'_>,
        (site, route): (&Site, &Route),
        files: &Files,
        head: &[u8],
    ) -> Outcome {
        // 1. Find the file.
        let limit = Limit::new(self.shared.keepalive_timeout(), End::Idle);
        let watch = conn.watch(limit);
        let conditions = Conditions::of_head(head);
        let wanted =
            files::Request { method: request.method, path: request.path, conditions: &conditions };
        let now = self.start.instant;
        let found = match site.lookup_now(&wanted, now) {
            Some(found) => found,
            None => match site.find(&wanted, now, &watch).await {
                Ok(found) => found,
                Err(fired) => {
                    self.respond.send_reset(Reason::CANCEL);
                    return Outcome::new(fired.end());
                }
            },
        };

        // 2. Send the head, and the bytes if there are few.
        let response = file_response(&found, files, request.path, request.query);
        let mut outcome = Outcome { bytes_up: head.len() as u64, ..Outcome::new(End::Done) };
        (outcome.status, outcome.reason) = (Some(response.status), response.reason);
        let rules = &route.response_fields;
        if !matches!(found.content, Content::File(_)) {
            // A listener that was removed meanwhile has no pages for errors any more.
            let service = conn.listener.service();
            let http = service.as_ref().and_then(|service| service.http());
            self.send_response(conn, http, rules, request.method, response, &mut outcome);
            return outcome;
        }
        let mut out = Vec::with_capacity(512);
        let (content, date) = (Sent::for_method(request.method), conn.context.date());
        response.write(rules, content, &date, Persistence::Persistent, &mut out);
        (outcome.bytes_down, outcome.head_down) = (out.len() as u64, out.len() as u64);
        (outcome.relay, outcome.copied) = (Relay::Copy, Some(Copied::Tls));
        let own = Collected::of_own(&out).into_response();

        // 3. Send the bytes of a large file.
        outcome.end = match (self.respond.send_response(own, false), found.content) {
            (Ok(mut stream), Content::File(mut body)) => {
                let unsent = &self.shared.unsent;
                body.follows(outcome.head_down);
                let end = send_file(&mut stream, &mut body, conn, unsent, &watch).await;
                outcome.bytes_down += body.sent();
                outcome.counted = watch.take_counted();
                end
            }
            _ => End::Client,
        };
        outcome
    }
}

async fn send_file(
    stream: &mut SendStream<Piece>,
    body: &mut files::Body,
    conn: &Accepted,
    unsent: &Rc<Unsent>,
    watch: &Watch,
) -> End {
    let (pool, store) = (&conn.context.pool, &conn.context.store);
    while body.left() > 0 {
        // What the client does not take is not read.
        let room = match room_to_read(stream, pool, unsent, watch).await {
            Ok(room) => room,
            Err(broken) => return broken_off(broken, stream),
        };
        let read = {
            let mut reading = pin!(body.read(room.bytes, store.disk(), watch));
            poll_fn(|cx| {
                let read = reading.as_mut().poll(cx);
                // It waits for a disk.
                if read.is_pending() {
                    release(stream);
                }
                read
            })
            .await
        };
        let piece = match read {
            Ok(bytes) => Piece::read(bytes, pool),
            Err(broken) => {
                cut_off(stream);
                return match broken {
                    files::Broken::Client(_) => End::ClientReset,
                    files::Broken::File(_) => End::Local,
                    files::Broken::Fired(fired) => fired.end(),
                };
            }
        };
        pool.bulk().turn(|turn| turn.spend(piece.len())).await;
        let sent = send_all(stream, piece, false, unsent, watch).await;
        body.report(watch);
        if let Err(broken) = sent {
            return broken_off(broken, stream);
        }
    }
    finish(stream).map_or(End::ClientReset, |()| End::Done)
}

fn broken_off(broken: Broken, stream: &mut SendStream<Piece>) -> End {
    match broken {
        Broken::Client => End::ClientReset,
        Broken::Fired(fired) => {
            cut_off(stream);
            fired.end()
        }
    }
}

fn query<'a>(
    conn: &'a Accepted,
    request: &'a Request<'a>,
    live: &'a Rc<LiveRoute>,
    head: &'a [u8],
    start: Moment,
) -> Query<'a> {
    let site = live.site();
    let (rest, persistence) = (&b""[..], Persistence::Persistent);
    Query { conn, site, live, request, head, rest, persistence, start }
}
