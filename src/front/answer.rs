//! The answers of the site: what a redirect, a canned response and a miss look like. They are the
//! same for every path, so that none of them tells what else there is.

use std::sync::Arc;

use crate::config::{Redirect, Respond, Route};
use crate::proto::http::answer::{self, Connection, Content};
use crate::proto::http::{Reject, Request, Version};
use crate::route;

/// Bodies up to this size are copied behind their head; larger ones are sent from where they are.
const SMALL_BODY: usize = 4 * 1024;

/// A redirect to the host that was asked for, where HTTP/1.0 has named none.
const NO_HOST: Reject = Reject { status: 400, reason: "no_host", text: "a redirect needs a Host" };

/// Sends the client elsewhere; says with which status.
///
/// # Errors
/// The request names no host to send it to, and is answered so.
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

/// Answers with what the configuration has; gives a large body to be sent behind it.
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

/// Answers with the methods of the site, for `OPTIONS *` (RFC 9110 section 9.3.7); says with which
/// status.
pub(super) fn options(date: &[u8], connection: Connection, out: &mut Vec<u8>) -> u16 {
    answer::begin(out, 200, date);
    answer::allow(out, true);
    answer::finish(out, Some(0), connection);
    200
}

/// Answers that there is nothing; says with which status.
pub(super) fn not_found(
    request: &Request<'_>,
    date: &[u8],
    connection: Connection,
    out: &mut Vec<u8>,
) -> u16 {
    plain(404, "Not Found\n", Content::for_method(request.method), date, connection, out);
    404
}

/// Answers a request that is refused.
pub(super) fn reject(
    reject: Reject,
    content: Content,
    date: &[u8],
    connection: Connection,
    out: &mut Vec<u8>,
) {
    plain(reject.status, &format!("{}\n", reject.text), content, date, connection, out);
}

/// A complete answer with a line of text.
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
