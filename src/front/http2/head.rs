//! Heads between the two versions: a request of HTTP/2 becomes a head of HTTP/1.1 in bytes, and a
//! response in bytes becomes one of HTTP/2.

use http::header::{CONTENT_LENGTH, COOKIE, HOST};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::proto::http::Fields;
use crate::proto::http::forward::Sink;

/// Writes the head that a client of HTTP/1.1 would have sent. Its checks are left to the parser.
/// The names of fields have been checked by the crate: those about the connection are errors (RFC
/// 9113 section 8.2.2).
pub(super) fn write_request(parts: &Parts, has_body: bool, out: &mut Vec<u8>) {
    let uri = &parts.uri;
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let target = if target.is_empty() { "/" } else { target };
    for bytes in [parts.method.as_str(), " ", target, " HTTP/1.1\r\n"] {
        out.extend_from_slice(bytes.as_bytes());
    }
    // `:authority` takes the place of Host. A Host that says something else makes two, which the
    // parser refuses.
    let authority = uri.authority().map(|authority| authority.as_str());
    if let Some(authority) = authority {
        field(b"host", authority.as_bytes(), out);
    }
    for (name, value) in &parts.headers {
        let is_repeated = name == HOST && authority.is_some_and(|own| *value == *own);
        if !is_repeated && name != COOKIE {
            field(name.as_str().as_bytes(), value.as_bytes(), out);
        }
    }
    // One line (RFC 9113 section 8.2.3).
    let cookies: Vec<&[u8]> =
        parts.headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if !cookies.is_empty() {
        field(b"cookie", &cookies.join(&b"; "[..]), out);
    }
    if has_body && !parts.headers.contains_key(CONTENT_LENGTH) {
        field(b"transfer-encoding", b"chunked", out);
    }
    out.extend_from_slice(b"\r\n");
}

fn field(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    for bytes in [name, b": ", value, b"\r\n"] {
        out.extend_from_slice(bytes);
    }
}

/// Collects a response for HTTP/2. Fields about the connection have no place in it.
#[derive(Default)]
pub(super) struct Collected {
    status: StatusCode,
    fields: HeaderMap,
}

impl Sink for Collected {
    fn status(&mut self, status: u16, _reason: &[u8]) {
        self.status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    }

    fn field(&mut self, name: &[u8], value: &[u8]) {
        // Names in any case become lower case. A value that HTTP/2 cannot carry is left out.
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        {
            self.fields.append(name, value);
        }
    }
}

impl Collected {
    /// The response of a head of HTTP/1.1 that was made here.
    pub(super) fn of_own(head: &[u8]) -> Collected {
        let mut collected = Collected::default();
        let status = head.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok());
        collected.status(status.and_then(|digits| digits.parse().ok()).unwrap_or(500), b"");
        for (name, value) in Fields::of(head) {
            if !name.eq_ignore_ascii_case(b"connection") {
                collected.field(name, value);
            }
        }
        collected
    }

    /// The response as the crate takes it.
    pub(super) fn into_response(self) -> http::Response<()> {
        let mut response = http::Response::new(());
        *response.status_mut() = self.status;
        *response.headers_mut() = self.fields;
        response
    }
}
