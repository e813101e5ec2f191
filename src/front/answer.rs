//! The responses of the site: redirects, canned responses and errors. They are the same for every
//! path, so that none of them reveals which other paths exist.

use std::sync::Arc;

use crate::config::{Redirect, Respond, Route};
use crate::proto::http::answer::{self, Connection, Content};
use crate::proto::http::{Reject, Request, Version};
use crate::route;

/// Bodies up to this size are copied after their head; larger ones are sent without a copy.
const SMALL_BODY: usize = 4 * 1024;

/// An HTTP/1.0 request without Host matched a redirect that keeps the host.
const NO_HOST: Reject = Reject { status: 400, reason: "no_host", text: "a redirect needs a Host" };

/// Redirects the client. Returns the status.
///
/// # Errors
/// The request names no host to redirect to; a response that says so is written to `out`.
pub(super) fn redirect(
    redirect: &Redirect,
    route: &Route,
    request: &Request<'_>,
    date: &[u8],
    connection: Connection,
    out: &mut Vec<u8>,
) -> Result<u16, Reject> {
    if redirect.host.is_none() && request.host.is_empty() {
        let content = Content::for_method(request.method);
        reject(NO_HOST, content, date, connection, out);
        return Err(NO_HOST);
    }
    answer::begin(out, redirect.status, date);
    out.extend_from_slice(b"location: ");
    route::write_location(redirect, route, request, out);
    out.extend_from_slice(b"\r\n");
    answer::finish(out, Some(0), connection);
    Ok(redirect.status)
}

/// Writes the configured response. Returns a large body, which is to be sent after `out`.
pub(super) fn respond(
    respond: &Respond,
    request: &Request<'_>,
    date: &[u8],
    connection: Connection,
    out: &mut Vec<u8>,
) -> Option<Arc<[u8]>> {
    answer::begin(out, respond.status, date);
    // These have no content, and so neither its type nor its length (RFC 9110 section 15).
    if matches!(respond.status, 204 | 304) {
        answer::finish(out, None, connection);
        return None;
    }
    if respond.status == 405 {
        answer::allow(out, false);
    }
    out.extend_from_slice(b"content-type: ");
    out.extend_from_slice(respond.content_type.as_bytes());
    out.extend_from_slice(b"\r\n");
    answer::finish(out, Some(respond.body.len()), connection);
    if Content::for_method(request.method) == Content::Announced {
        return None;
    }
    if respond.body.len() > SMALL_BODY {
        return Some(Arc::clone(&respond.body));
    }
    out.extend_from_slice(&respond.body);
    None
}

/// Answers `OPTIONS *` with the methods of the site (RFC 9110 section 9.3.7). Returns the status.
pub(super) fn options(date: &[u8], connection: Connection, out: &mut Vec<u8>) -> u16 {
    answer::begin(out, 200, date);
    answer::allow(out, true);
    answer::finish(out, Some(0), connection);
    200
}

/// Answers that the path does not exist. Returns the status.
pub(super) fn not_found(
    request: &Request<'_>,
    date: &[u8],
    connection: Connection,
    out: &mut Vec<u8>,
) -> u16 {
    plain(404, "Not Found\n", Content::for_method(request.method), date, connection, out);
    404
}

/// Answers a refused request.
pub(super) fn reject(
    reject: Reject,
    content: Content,
    date: &[u8],
    connection: Connection,
    out: &mut Vec<u8>,
) {
    plain(reject.status, &format!("{}\n", reject.text), content, date, connection, out);
}

/// Writes a complete response with a line of text.
pub(super) fn plain(
    status: u16,
    body: &str,
    content: Content,
    date: &[u8],
    connection: Connection,
    out: &mut Vec<u8>,
) {
    answer::begin(out, status, date);
    if status == 405 {
        answer::allow(out, true);
    }
    out.extend_from_slice(b"content-type: text/plain; charset=utf-8\r\n");
    answer::finish(out, Some(body.len()), connection);
    if content == Content::Sent {
        out.extend_from_slice(body.as_bytes());
    }
}

/// How records name a version.
pub(super) fn protocol(version: Version) -> &'static str {
    match version {
        Version::Http10 => "HTTP/1.0",
        Version::Http11 => "HTTP/1.1",
    }
}
