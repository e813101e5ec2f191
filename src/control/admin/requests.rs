//! What each path of the endpoint is.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{ALLOW, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Method, Request, StatusCode};
use serde_json::json;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::replies::{JSON, Reply, error, json, reply, text};
use super::view::{Phase, View};
use super::{Shared, certificates, clusters, connections, guard, metrics, stats};
use crate::control::signals::Signal;

/// How long an order may take. A reload waits 30 s for files and 5 s for names.
const ORDER: Duration = Duration::from_secs(60);

/// What a client asks the process to do: the same as a signal does.
pub(in crate::control) struct Order {
    pub(in crate::control) signal: Signal,
    pub(in crate::control) reply: ReplyTo,
}

/// Gets the result of an order, or why it was refused. The client may have gone.
pub(in crate::control) type ReplyTo = oneshot::Sender<Result<(), String>>;

/// Answers a request.
pub(super) async fn answer(request: Request<Incoming>, shared: &Shared, is_unix: bool) -> Reply {
    let view = Arc::clone(&shared.view.borrow());
    let (method, path) = (request.method(), request.uri().path());
    let is_probe = path == "/healthz" || path == "/ready";
    let token = view.config.admin.as_ref().and_then(|admin| admin.token.as_ref());
    // Probes show nothing that needs a token, and those who send them often have none.
    let token = token.filter(|_| !is_probe);
    if let Err(refused) = guard::check(method, request.headers(), token, is_unix) {
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
    let is_read = *method == Method::GET || *method == Method::HEAD;
    if (allowed == "GET, HEAD") != is_read || (!is_read && *method != Method::POST) {
        let mut reply = error(StatusCode::METHOD_NOT_ALLOWED, "the path has another method");
        reply.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
        return reply;
    }
    match resource {
        Resource::Health => text(StatusCode::OK, "ok"),
        Resource::Ready => ready(&view),
        Resource::Metrics => reply(StatusCode::OK, metrics::CONTENT_TYPE, metrics::of(&view)),
        Resource::Clusters => json(StatusCode::OK, &clusters::of(&view)),
        Resource::Certificates => json(StatusCode::OK, &certificates::of(&view)),
        Resource::Config => config(view).await,
        Resource::Stats => json(StatusCode::OK, &stats::of(&view)),
        Resource::Connections => connections::list(&view, request.uri().query()).await,
        Resource::Close(worker, number) => connections::close(&view, worker, number).await,
        Resource::Reload => order(shared, Signal::Reload, "reloaded").await,
        Resource::Upgrade => order(shared, Signal::TakeOver, "started").await,
        Resource::Drain => order(shared, Signal::End("POST /drain"), "draining").await,
    }
}

/// What is at a path.
#[derive(Clone, Copy)]
enum Resource {
    Health,
    Ready,
    Metrics,
    Stats,
    Clusters,
    Certificates,
    Config,
    Connections,
    /// Of one connection: its worker and its number.
    Close(usize, u32),
    Reload,
    Upgrade,
    Drain,
}

/// The methods of a path, and what is there.
fn find(path: &str) -> Option<(&'static str, Resource)> {
    const READ: &str = "GET, HEAD";
    const ORDER: &str = "POST";
    Some(match path {
        "/healthz" => (READ, Resource::Health),
        "/ready" => (READ, Resource::Ready),
        "/metrics" => (READ, Resource::Metrics),
        "/stats" => (READ, Resource::Stats),
        "/clusters" => (READ, Resource::Clusters),
        "/certificates" => (READ, Resource::Certificates),
        "/config" => (READ, Resource::Config),
        "/connections" => (READ, Resource::Connections),
        "/reload" => (ORDER, Resource::Reload),
        "/upgrade" => (ORDER, Resource::Upgrade),
        "/drain" => (ORDER, Resource::Drain),
        _ => {
            let id = path.strip_prefix("/connections/")?.strip_suffix("/close")?;
            let (worker, number) = connections::id(id)?;
            (ORDER, Resource::Close(worker, number))
        }
    })
}

fn ready(view: &View) -> Reply {
    let status = match view.phase {
        Phase::Serving => StatusCode::OK,
        Phase::EndingSoon | Phase::Draining => StatusCode::SERVICE_UNAVAILABLE,
    };
    text(status, view.phase.as_str())
}

/// The configuration in use. A large one takes too long for the control plane's own thread.
async fn config(view: Arc<View>) -> Reply {
    match tokio::task::spawn_blocking(move || view.config.redacted()).await {
        Ok(Some(text)) => reply(StatusCode::OK, JSON, text),
        // This endpoint has served until now, and a reload has just removed it; or a panic.
        _ => error(StatusCode::SERVICE_UNAVAILABLE, "the configuration cannot be shown"),
    }
}

/// Gives an order to the main loop, and waits for its result.
async fn order(shared: &Shared, signal: Signal, done: &'static str) -> Reply {
    let (reply, result) = oneshot::channel();
    let asked = async {
        // An error means that the process ends.
        shared.orders.send(Order { signal, reply }).await.ok()?;
        result.await.ok()
    };
    match timeout(ORDER, asked).await {
        Ok(Some(Ok(()))) => json(StatusCode::OK, &json!({ "result": done })),
        Ok(Some(Err(why))) => error(StatusCode::UNPROCESSABLE_ENTITY, &why),
        Ok(None) => error(StatusCode::SERVICE_UNAVAILABLE, "the process is about to end"),
        Err(_) => error(StatusCode::GATEWAY_TIMEOUT, "it takes longer than 60 s; it goes on"),
    }
}
