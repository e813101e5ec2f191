//! The page of the endpoint for browsers. It has no number in it: its script asks for them, with
//! the token if there is one, so that the page itself needs none.

use hyper::StatusCode;
use hyper::header::{CONTENT_SECURITY_POLICY, HeaderValue};

use super::replies::{Reply, reply};

const TEXT: &str = include_str!("page.html");
/// The page loads nothing, sends no form and is in no frame. Its style and script stand in it.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// The page.
pub(super) fn of() -> Reply {
    let mut page = reply(StatusCode::OK, "text/html; charset=utf-8", TEXT);
    page.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    page
}
