//! Exchanges: a request leads to a response. An exchange uses no state of the connection. Error
//! responses do not depend on the path, so that none of them reveals which paths exist.

use crate::config::{Action, Redirect, Respond, Route, Scheme};
use crate::front::response::{Allow, Body, Fields, Response};
use crate::proto::http::{Reject, Request};
use crate::route::Location;

/// An HTTP/1.0 request without Host matched a redirect that keeps the host.
const NO_HOST: Reject = Reject { status: 400, reason: "no_host", text: "a redirect needs a Host" };

/// Returns the response to a request with this route, which came by `scheme`, if it needs no wait.
pub(in crate::front) fn respond<'a>(
    route: Option<&'a Route>,
    request: &'a Request<'a>,
    scheme: Scheme,
) -> Response<'a> {
    match route.map(|route| (route, &route.action)) {
        Some((route, Action::Redirect(redirect))) => {
            self::redirect(redirect, route, request, scheme)
        }
        Some((_, Action::Respond(respond))) => configured(respond),
        Some((_, Action::Proxy(_))) if !request.may_be_passed_on() => options(),
        None if request.path == "*" => options(),
        // The callers serve tunnels, requests that go on to a cluster, and files themselves.
        Some((_, Action::Tunnel(_) | Action::Proxy(_) | Action::Files(_))) | None => {
            Response::text(404, "Not Found")
        }
    }
}

fn redirect<'a>(
    redirect: &'a Redirect,
    route: &'a Route,
    request: &'a Request<'a>,
    scheme: Scheme,
) -> Response<'a> {
    if redirect.host.is_none() && request.host.is_empty() {
        return Response::reject(NO_HOST);
    }
    let location = Some(Location { redirect, route, request, scheme });
    let fields = Fields { location, ..Fields::default() };
    Response { status: redirect.status, fields, body: Body::Empty, reason: None }
}

fn configured(respond: &Respond) -> Response<'_> {
    let status = respond.status;
    if matches!(status, 204 | 304) {
        return Response { status, fields: Fields::default(), body: Body::None, reason: None };
    }
    let fields = Fields {
        content_type: Some(&respond.content_type),
        allow: (status == 405).then_some(Allow::Nothing),
        ..Fields::default()
    };
    Response { status, fields, body: Body::Bytes(&respond.body), reason: None }
}

/// The response to `OPTIONS *`, and to an OPTIONS that must not be passed on: the methods of the
/// site (RFC 9110 section 9.3.7).
fn options<'a>() -> Response<'a> {
    let fields = Fields { allow: Some(Allow::Site), ..Fields::default() };
    Response { status: 200, fields, body: Body::Empty, reason: None }
}
