//! Exchanges: a request leads to a response. An exchange uses no state of the connection. Error
//! responses do not depend on the path, so that none of them reveals which paths exist.

use crate::config::{Action, Redirect, Respond, Route, Scheme};
use crate::front::response::{Allow, Body, Fields, Response};
use crate::proto::http::{Reject, Request};
use crate::route::Location;

/// An HTTP/1.0 request without Host matched a redirect that keeps the host.
const NO_HOST: Reject = Reject { status: 400, reason: "no_host", text: "a redirect needs a Host" };

/// Returns the response to a request with this route, which came by `scheme`. A tunnel is not an
/// exchange: its connection does not carry further requests.
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
        // Not served yet.
        Some((_, Action::Proxy(_) | Action::Files(_))) => {
            Response::text(503, "Service Unavailable")
        }
        None if request.path == "*" => options(),
        Some((_, Action::Tunnel(_))) | None => Response::text(404, "Not Found"),
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

/// The response to `OPTIONS *`: the methods of the site (RFC 9110 section 9.3.7).
fn options<'a>() -> Response<'a> {
    let fields = Fields { allow: Some(Allow::Site), ..Fields::default() };
    Response { status: 200, fields, body: Body::Empty, reason: None }
}
