//! What each path of the endpoint is.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::header::{ALLOW, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Method, Request, StatusCode};
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;

use super::replies::{JSON, Reply, error, json, reply, text};
use super::view::{Phase, View};
use super::{Shared, certificates, clusters, connections, guard, metrics, page, stats, steering};
use crate::control::roster::Steer;
use crate::control::signals::Signal;

/// How long an order may take. A reload waits 30 s for files and 5 s for names.
const ORDER: Duration = Duration::from_secs(60);
/// How long the body of a request may take, and how long a request may wait for its turn.
const BODY: Duration = Duration::from_secs(30);
/// The most bytes of a configuration, which are those of a file.
const CONFIGURATION: Longest = Longest { bytes: 16 << 20, refused: "a body has at most 16 MiB" };
/// The most bytes of a list of endpoints: twice as many as the longest one needs.
const ENDPOINTS: Longest =
    Longest { bytes: 128 << 10, refused: "a list of endpoints has at most 128 KiB" };

/// How long a body may be.
struct Longest {
    bytes: usize,
    /// The text of the error about a longer one.
    refused: &'static str,
}

/// What a client asks the process to do.
pub(in crate::control) struct Order {
    pub(in crate::control) what: What,
    pub(in crate::control) reply: ReplyTo,
}

/// What there is to do.
pub(in crate::control) enum What {
    /// The same as a signal does.
    Signal(Signal),
    /// Store this text in the file of the configuration, and serve by it.
    Configure(String),
    /// Write diagnostics of this level.
    SetLevel(&'static str),
    /// Change which endpoints this cluster has.
    Steer { cluster: String, steer: Steer },
}

/// Why an order is not done.
#[derive(Debug)]
pub(in crate::control) enum Undone {
    /// It is refused, with the reason.
    Refused(String),
    /// A worker has not carried it out in time, and does so when it goes on.
    Late,
}

impl From<String> for Undone {
    fn from(why: String) -> Undone {
        Undone::Refused(why)
    }
}

impl Undone {
    /// The response to the order.
    fn response(&self) -> Reply {
        const LATE: &str = "a worker does not carry it out within 10 s: it does so when it goes on";
        match self {
            Undone::Refused(why) => error(StatusCode::UNPROCESSABLE_ENTITY, why),
            Undone::Late => error(StatusCode::GATEWAY_TIMEOUT, LATE),
        }
    }
}

/// Gets the result of an order. The client may have gone.
pub(in crate::control) struct ReplyTo {
    result: oneshot::Sender<Result<(), Undone>>,
    /// The right to have a long text in memory, until the order is answered.
    _place: Option<Place>,
}

impl ReplyTo {
    /// Answers the order.
    pub(in crate::control) fn send(self, result: Result<(), Undone>) {
        // An error means that the client has gone.
        let _ = self.result.send(result);
    }
}

/// The right to do what takes much memory. Dropping it gives it to the next request.
type Place = OwnedSemaphorePermit;

/// Answers a request.
pub(super) async fn answer(request: Request<Incoming>, shared: &Shared, is_unix: bool) -> Reply {
    let view = Arc::clone(&shared.view.borrow());
    let (method, path) = (request.method(), request.uri().path());
    let is_probe = path == "/healthz" || path == "/ready";
    let token = view.config.admin.as_ref().and_then(|admin| admin.token.as_ref());
    if path == "/" && token.is_some() && is_read(method) {
        // A browser cannot be made to send the token: the script of the page asks for it.
        return page::of();
    }
    // Probes show nothing that needs a token, and what sends them often has none. Where there is
    // one the Host does not matter, for them neither: a probe often names the machine.
    let checked = match token {
        Some(_) if is_probe => Ok(()),
        token => guard::check(method, request.headers(), token, is_unix),
    };
    if let Err(refused) = checked {
        let (status, why) = refused.response();
        let mut reply = error(status, why);
        if status == StatusCode::UNAUTHORIZED {
            reply.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        return reply;
    }
    let Some((allowed, resource)) = find(path) else {
        return error(StatusCode::NOT_FOUND, "there is nothing at this path");
    };
    if !allowed.split(", ").any(|allowed| allowed == method.as_str()) {
        let mut reply = error(StatusCode::METHOD_NOT_ALLOWED, "the path has another method");
        reply.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
        return reply;
    }
    match resource {
        Resource::Page => page::of(),
        Resource::Health => text(StatusCode::OK, "ok"),
        Resource::Ready => ready(&view),
        Resource::Metrics => reply(StatusCode::OK, metrics::CONTENT_TYPE, metrics::of(&view)),
        Resource::Clusters => json(StatusCode::OK, &clusters::of(&view)),
        Resource::Certificates => json(StatusCode::OK, &certificates::of(&view)),
        Resource::Config if is_read(method) => config(view, shared).await,
        Resource::Config => configure(request.into_body(), shared).await,
        Resource::Stats => json(StatusCode::OK, &stats::of(&view)),
        Resource::Connections => {
            connections::list(&view, request.uri().query(), &shared.questions).await
        }
        Resource::Close(id) => connections::close(&view, id, &shared.questions).await,
        Resource::Endpoints(cluster) => {
            let Some(cluster) = steering::cluster(&view, cluster) else {
                return error(StatusCode::NOT_FOUND, NO_CLUSTER);
            };
            if *method == Method::DELETE {
                return order(shared, What::Steer { cluster, steer: Steer::Reset }, "reset").await;
            }
            set_endpoints(cluster, request.into_body(), shared).await
        }
        Resource::Endpoint(cluster, endpoint, verb) => {
            let Some(cluster) = steering::cluster(&view, cluster) else {
                return error(StatusCode::NOT_FOUND, NO_CLUSTER);
            };
            let Some(endpoint) = steering::endpoint(&view, &cluster, endpoint) else {
                return error(StatusCode::NOT_FOUND, NO_ENDPOINT);
            };
            let (steer, done) = match verb {
                Verb::Drain => (Steer::Drain(endpoint), "drained"),
                Verb::Enable => (Steer::Enable(endpoint), "enabled"),
            };
            order(shared, What::Steer { cluster, steer }, done).await
        }
        Resource::Log => match level(request.uri().query()) {
            Some(level) => order(shared, What::SetLevel(level), "set").await,
            None => error(StatusCode::BAD_REQUEST, LEVELS_ADVICE),
        },
        Resource::Reload => order(shared, What::Signal(Signal::Reload), "reloaded").await,
        Resource::Upgrade => order(shared, What::Signal(Signal::TakeOver), "started").await,
        Resource::Drain => {
            order(shared, What::Signal(Signal::End("POST /drain")), "draining").await
        }
    }
}

fn is_read(method: &Method) -> bool {
    *method == Method::GET || *method == Method::HEAD
}

/// What is at a path. Names in it are as the path has them.
#[derive(Clone, Copy)]
enum Resource<'p> {
    Page,
    Health,
    Ready,
    Metrics,
    Stats,
    Clusters,
    Certificates,
    Config,
    Connections,
    Close(connections::Id),
    /// Those of this cluster.
    Endpoints(&'p str),
    /// This one of this cluster.
    Endpoint(&'p str, &'p str, Verb),
    Log,
    Reload,
    Upgrade,
    Drain,
}

/// What there is to do with an endpoint.
#[derive(Clone, Copy)]
enum Verb {
    Drain,
    Enable,
}

const NO_CLUSTER: &str = "the configuration has no such cluster: GET /clusters lists them";
const NO_ENDPOINT: &str = "the cluster has no such endpoint: GET /clusters lists them";

/// The methods of a path, and what is there.
fn find(path: &str) -> Option<(&'static str, Resource<'_>)> {
    const READ: &str = "GET, HEAD";
    const ORDER: &str = "POST";
    Some(match path {
        "/" => (READ, Resource::Page),
        "/healthz" => (READ, Resource::Health),
        "/ready" => (READ, Resource::Ready),
        "/metrics" => (READ, Resource::Metrics),
        "/stats" => (READ, Resource::Stats),
        "/clusters" => (READ, Resource::Clusters),
        "/certificates" => (READ, Resource::Certificates),
        "/config" => ("GET, HEAD, POST", Resource::Config),
        "/connections" => (READ, Resource::Connections),
        "/log" => (ORDER, Resource::Log),
        "/reload" => (ORDER, Resource::Reload),
        "/upgrade" => (ORDER, Resource::Upgrade),
        "/drain" => (ORDER, Resource::Drain),
        _ => match *path.strip_prefix('/')?.split('/').collect::<Vec<_>>() {
            ["connections", id, "close"] => (ORDER, Resource::Close(connections::Id::parse(id)?)),
            ["clusters", cluster, "endpoints"] => ("POST, DELETE", Resource::Endpoints(cluster)),
            ["clusters", cluster, "endpoints", endpoint, "drain"] => {
                (ORDER, Resource::Endpoint(cluster, endpoint, Verb::Drain))
            }
            ["clusters", cluster, "endpoints", endpoint, "enable"] => {
                (ORDER, Resource::Endpoint(cluster, endpoint, Verb::Enable))
            }
            _ => return None,
        },
    })
}

/// Levels of diagnostics, as `log.level` has them.
const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
const LEVELS_ADVICE: &str = "write ?level= with error, warn, info, debug, trace or off";

/// The level that a query names.
fn level(query: Option<&str>) -> Option<&'static str> {
    let named = query?.strip_prefix("level=")?;
    LEVELS.into_iter().find(|level| *level == named)
}

/// Lets the process serve by a configuration that a client sends. The text of one at a time is in
/// memory.
async fn configure(body: Incoming, shared: &Shared) -> Reply {
    let taken = async {
        if CONFIGURATION.is_exceeded(&body) {
            return Err(CONFIGURATION.refusal());
        }
        let place = place_in(&shared.configurations, BODY).await?;
        Ok((text_of(body, &CONFIGURATION).await?, place))
    };
    match taken.await {
        Ok((text, place)) => {
            order_with(shared, What::Configure(text), "reloaded", Some(place)).await
        }
        Err(refused) => refused,
    }
}

/// Sets the endpoints of a cluster to those that a client sends.
async fn set_endpoints(cluster: String, body: Incoming, shared: &Shared) -> Reply {
    let text = match text_of(body, &ENDPOINTS).await {
        Ok(text) => text,
        Err(refused) => return refused,
    };
    match steering::endpoints(&text) {
        Ok(endpoints) => {
            order(shared, What::Steer { cluster, steer: Steer::Set(endpoints) }, "set").await
        }
        Err(why) => error(StatusCode::UNPROCESSABLE_ENTITY, &why),
    }
}

/// Waits until no other request has the place, for `limit` at most.
///
/// # Errors
/// The response to a request that has waited for too long.
async fn place_in(places: &Arc<Semaphore>, limit: Duration) -> Result<Place, Reply> {
    const BUSY: &str = "another request of this kind takes longer than 30 s: try again later";
    match timeout(limit, Arc::clone(places).acquire_owned()).await {
        Ok(Ok(place)) => Ok(place),
        _ => Err(error(StatusCode::SERVICE_UNAVAILABLE, BUSY)),
    }
}

impl Longest {
    /// Returns true if a body says itself that it is longer.
    fn is_exceeded(&self, body: &Incoming) -> bool {
        body.size_hint().lower() > self.bytes as u64
    }

    /// The response to a body that is longer.
    fn refusal(&self) -> Reply {
        error(StatusCode::PAYLOAD_TOO_LARGE, self.refused)
    }
}

/// The text that a client sends.
///
/// # Errors
/// The response to a body that is refused.
async fn text_of(body: Incoming, longest: &Longest) -> Result<String, Reply> {
    if longest.is_exceeded(&body) {
        return Err(longest.refusal());
    }
    let bytes = match timeout(BODY, Limited::new(body, longest.bytes).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(why)) if why.is::<LengthLimitError>() => return Err(longest.refusal()),
        Ok(Err(_)) => return Err(error(StatusCode::BAD_REQUEST, "the body has not come whole")),
        Err(_) => {
            return Err(error(StatusCode::REQUEST_TIMEOUT, "the body takes longer than 30 s"));
        }
    };
    String::from_utf8(bytes.into())
        .map_err(|_| error(StatusCode::UNPROCESSABLE_ENTITY, "a body is UTF-8 text"))
}

fn ready(view: &View) -> Reply {
    let status = match view.phase {
        Phase::Serving => StatusCode::OK,
        Phase::EndingSoon | Phase::Draining => StatusCode::SERVICE_UNAVAILABLE,
    };
    text(status, view.phase.as_str())
}

/// The configuration in use. A large one takes too long for the control plane's own thread, and as
/// much memory again, so that one at a time is written as text.
async fn config(view: Arc<View>, shared: &Shared) -> Reply {
    let place = match place_in(&shared.shown, BODY).await {
        Ok(place) => place,
        Err(busy) => return busy,
    };
    let text = move || {
        // Also when the client goes meanwhile: this goes on.
        let _place = place;
        view.config.redacted()
    };
    match tokio::task::spawn_blocking(text).await {
        Ok(Some(text)) => reply(StatusCode::OK, JSON, text),
        // This endpoint has served until now, and a reload has just removed it; or a panic.
        _ => error(StatusCode::SERVICE_UNAVAILABLE, "the configuration cannot be shown"),
    }
}

/// Gives an order to the main loop, and waits for its result.
async fn order(shared: &Shared, what: What, done: &'static str) -> Reply {
    order_with(shared, what, done, None).await
}

/// The same, for an order that keeps this place until it is answered. It does so, too, if the
/// client does not wait for that.
async fn order_with(
    shared: &Shared,
    what: What,
    done: &'static str,
    place: Option<Place>,
) -> Reply {
    let (sender, result) = oneshot::channel();
    let asked = async {
        let reply = ReplyTo { result: sender, _place: place };
        // An error means that the process ends.
        shared.orders.send(Order { what, reply }).await.ok()?;
        result.await.ok()
    };
    match timeout(ORDER, asked).await {
        Ok(Some(Ok(()))) => json(StatusCode::OK, &json!({ "result": done })),
        Ok(Some(Err(undone))) => undone.response(),
        Ok(None) => error(StatusCode::SERVICE_UNAVAILABLE, "the process is about to end"),
        Err(_) => error(StatusCode::GATEWAY_TIMEOUT, "it takes longer than 60 s; it goes on"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_carried_out_yet_is_no_success_and_no_refusal() {
        assert_eq!(Undone::Late.response().status(), StatusCode::GATEWAY_TIMEOUT);
        let refused = Undone::from(String::new()).response();
        assert_eq!(refused.status(), StatusCode::UNPROCESSABLE_ENTITY);
    }

    #[tokio::test]
    async fn a_request_waits_for_a_place_for_a_limited_time() {
        let places = Arc::new(Semaphore::new(1));
        let place = place_in(&places, BODY).await.expect("it is free");
        let refused = place_in(&places, Duration::from_millis(1)).await.expect_err("it is taken");
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        drop(place);
        assert!(place_in(&places, BODY).await.is_ok());
    }
}
