//! Requests for files. The response is made at once if the file is in memory or in the kernel's
//! caches. If not, a thread looks for the file, and the connection waits.

use std::rc::Rc;

use super::asked::Asked;
use super::connection::{Connection, Next};
use crate::config::{Action, Files};
use crate::files::{self, Broken, Content, Site};
use crate::front::accepted::Accepted;
use crate::front::moment::Moment;
use crate::front::response::{Body as OwnBody, Fields, FileFields, Response, protocol};
use crate::front::service::LiveRoute;
use crate::observe::outcome::{Copied, End, Outcome, Relay};
use crate::proto::http::response_head::{self, Persistence, reason_phrase};
use crate::proto::http::{Body, Conditions, Request};
use crate::sched::Charge;
use crate::timers::{Limit, OnDrain};

/// A request for a file that has to wait.
pub(in crate::front) struct Wanted {
    site: Rc<Site>,
    live: Rc<LiveRoute>,
    asked: Asked,
    path: String,
    query: Option<String>,
    /// The head of the request, for its conditions.
    head: Vec<u8>,
    /// What was found already, if that did not have to wait.
    found: Option<files::Response>,
    content: response_head::Content,
    persistence: Persistence,
    /// The body of the request, which is read and dropped.
    body: Body,
    /// Everything that was read after the head.
    behind: Vec<u8>,
    start: Moment,
    /// Counts these bytes.
    _charge: Charge,
}

/// A request for a file, in the turn in which its head was parsed.
pub(in crate::front) struct Query<'a> {
    pub(in crate::front) conn: &'a Accepted,
    pub(in crate::front) site: &'a Rc<Site>,
    pub(in crate::front) live: &'a Rc<LiveRoute>,
    pub(in crate::front) request: &'a Request<'a>,
    /// The head of the request.
    pub(in crate::front) head: &'a [u8],
    /// Everything that was read after it.
    pub(in crate::front) rest: &'a [u8],
    pub(in crate::front) persistence: Persistence,
    pub(in crate::front) start: Moment,
}

impl Query<'_> {
    /// Returns the response if nothing has to wait for it.
    pub(in crate::front) fn lookup(&self) -> Option<files::Response> {
        let conditions = Conditions::of_head(self.head);
        let (method, path) = (self.request.method, self.request.path);
        let request = files::Request { method, path, conditions: &conditions };
        self.site.lookup_now(&request, self.start.instant)
    }

    /// Makes a request that can wait. `found` is a response whose bytes have to wait.
    pub(super) fn wait(&self, found: Option<files::Response>, mut charge: Charge) -> Wanted {
        let &Query { site, live, request, head, rest, persistence, start, .. } = self;
        let asked = Asked::of(request, head, protocol(request.version), self.conn);
        charge.set(asked.kept() + head.len() + rest.len() + request.target.len());
        Wanted {
            site: Rc::clone(site),
            live: Rc::clone(live),
            asked,
            path: request.path.to_owned(),
            query: request.query.map(str::to_owned),
            head: head.to_vec(),
            found,
            content: response_head::Content::for_method(request.method),
            persistence,
            body: request.body,
            behind: rest.to_vec(),
            start,
            _charge: charge,
        }
    }
}

/// The response that the client gets. `path` and `query` are those of the request.
pub(in crate::front) fn respond<'a>(
    found: &'a files::Response,
    files: &'a Files,
    path: &'a str,
    query: Option<&'a str>,
) -> Response<'a> {
    let body = match &found.content {
        Content::None => OwnBody::None,
        Content::Announced(length) => OwnBody::Length(*length),
        Content::File(body) => OwnBody::Length(body.left()),
        Content::Bytes(bytes, range) => OwnBody::Part(bytes, range.clone()),
        Content::Error => OwnBody::Line(reason_phrase(found.status)),
    };
    let is_error = matches!(found.content, Content::Error);
    // Not for the page of a 404: the file may be there the next time.
    let may_be_kept = matches!(found.status, 200 | 206 | 304);
    let cache_control = files.cache_control.as_deref().filter(|_| may_be_kept);
    let moved = (found.status == 301).then_some((path, query));
    let file = Some(FileFields { found, cache_control, moved });
    let own = if is_error { Response::text(found.status, "").fields } else { Fields::default() };
    // The file knows which methods it has.
    let fields = Fields { file, allow: None, ..own };
    Response { status: found.status, fields, body, reason: None }
}

impl Connection<'_> {
    /// Answers a request for a file that has to wait. Returns what comes after it.
    pub(in crate::front::http) async fn file(&mut self, wanted: &mut Wanted) -> Next {
        let (conn, watch) = (self.conn, self.watch);
        watch.on_drain(OnDrain::Wait);
        watch.renew(Limit::new(self.keepalive_timeout(), End::Idle));

        // 1. Find the file.
        let found = match wanted.found.take() {
            Some(found) => found,
            None => {
                let conditions = Conditions::of_head(&wanted.head);
                let (method, path) = (wanted.asked.method(), &*wanted.path);
                let request = files::Request { method, path, conditions: &conditions };
                match wanted.site.find(&request, wanted.start.instant, watch).await {
                    Ok(found) => found,
                    Err(fired) => {
                        let outcome = Outcome::new(fired.end());
                        conn.record(wanted.start, &outcome, |record| wanted.describe(record));
                        conn.client.reset_on_close();
                        return Next::Drop;
                    }
                }
            }
        };

        // 2. Send the head, with the bytes of a small file.
        let written = {
            let (route, query) = (&wanted.live.route, wanted.query.as_deref());
            let Action::Files(files) = &route.action else { return Next::Drop };
            let service = conn.listener.service();
            let http = service.as_ref().and_then(|service| service.http());
            let response = respond(&found, files, &wanted.path, query);
            let (rules, content) = (&route.response_fields, wanted.content);
            let mut out = self.scratch();
            let written = self.append(response, http, rules, content, wanted.persistence, &mut out);
            self.send(&out);
            written
        };
        let mut outcome = Outcome {
            bytes_up: wanted.head.len() as u64,
            ..written.outcome(found.status, End::Done)
        };
        if matches!(found.content, Content::File(_)) {
            // The rest is counted as it is sent.
            outcome.bytes_down = outcome.head_down;
        }

        // 3. Send the bytes of a large one.
        if let Content::File(mut body) = found.content {
            outcome.end = self.send_file(&mut body, &mut outcome).await;
        }
        conn.record(wanted.start, &outcome, |record| wanted.describe(record));
        if outcome.end != End::Done {
            return Next::Drop;
        }
        if wanted.persistence == Persistence::Close {
            return Next::Linger;
        }
        self.resume(wanted.body, std::mem::take(&mut wanted.behind));
        Next::Read
    }

    async fn send_file(&mut self, body: &mut files::Body, outcome: &mut Outcome) -> End {
        let (conn, watch) = (self.conn, self.watch);
        if !self.flush().await {
            conn.client.reset_on_close();
            return End::ClientReset;
        }
        body.follows(outcome.head_down);
        let store = &conn.context.store;
        watch.renew(Limit::new(self.keepalive_timeout(), End::Idle));
        let result = body.send(&conn.client, &conn.context.pool, store.disk(), watch).await;
        outcome.bytes_down += body.sent();
        outcome.counted = watch.take_counted();
        outcome.relay = if body.spliced() { Relay::Splice } else { Relay::Copy };
        outcome.copied = match conn.client.plain() {
            _ if body.spliced() => None,
            Some(_) => Some(Copied::NoPipe),
            None => Some(Copied::Tls),
        };
        match result {
            Ok(()) => End::Done,
            Err(Broken::Client(_)) => End::ClientReset,
            Err(Broken::File(_)) => End::Local,
            Err(Broken::Fired(fired)) => fired.end(),
        }
    }
}

impl Wanted {
    fn describe<'a>(&'a self, record: &mut crate::observe::access_log::Record<'a>) {
        self.asked.describe(Some(&self.live.route), record);
    }
}
