//! The head of a backend's response, as the client gets it.

use super::{Framing, Lines, Rules, Sink, write_length};
use crate::proto::http::Hop;
use crate::proto::http::fields::{Fields, is};
use crate::proto::http::response_head::{Persistence, reason_phrase};

/// What is changed in the head of a response.
pub struct Response<'a, N, V> {
    /// The names that are hop by hop in the backend's head.
    pub hop: &'a Hop<'a>,
    /// Rules for the fields; the first one about a name counts.
    pub rules: &'a [Rules<'a, N, V>],
    /// How the body is framed for the client. `Content-Length` stays in its place among the fields.
    pub framing: Framing,
    /// An IMF-fixdate for a head without `Date` (RFC 9110 section 6.6.1). `None` adds none, as for
    /// interim responses.
    pub date: Option<&'a [u8]>,
}

/// Writes a head of HTTP/1.1 with its empty line. `head` is the parsed head of the backend. An
/// upgrade is a 101 to WebSocket; no other 101 is passed on.
pub fn write_response<N: AsRef<[u8]>, V: AsRef<[u8]>>(
    head: &[u8],
    response: &Response<'_, N, V>,
    persistence: Persistence,
    is_upgrade: bool,
    out: &mut Vec<u8>,
) {
    pass_fields(head, response, &mut Lines(out));
    if response.framing == Framing::Chunked {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    if is_upgrade {
        out.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
        return;
    }
    out.extend_from_slice(match persistence {
        Persistence::Persistent => b"\r\n",
        Persistence::KeepAlive => b"Connection: keep-alive\r\n\r\n",
        Persistence::Close => b"Connection: close\r\n\r\n",
    });
}

/// Gives the status and the fields to a sink: all that HTTP/2 passes on. Fields about the
/// connection and `Transfer-Encoding` are not among them.
pub fn pass_fields<N: AsRef<[u8]>, V: AsRef<[u8]>>(
    head: &[u8],
    response: &Response<'_, N, V>,
    sink: &mut impl Sink,
) {
    let (status, reason) = status_line(head);
    sink.status(status, reason);
    let mut length = match response.framing {
        Framing::Length(length) => Some(length),
        Framing::None | Framing::Chunked => None,
    };
    let mut has_date = false;
    for (name, value) in Fields::of(head) {
        if is(name, "content-length") {
            if let Some(length) = length.take() {
                write_length(length, sink);
            }
        } else if !response.hop.contains(name) && !Rules::any_replaces(response.rules, name) {
            has_date |= is(name, "date");
            sink.field(name, value);
        }
    }
    if let Some(date) = response.date
        && !has_date
        && !Rules::any_replaces(response.rules, b"date")
    {
        sink.field(b"Date", date);
    }
    if let Some(length) = length {
        write_length(length, sink);
    }
    Rules::write_set(response.rules, sink);
}

/// The status and the reason phrase of a parsed head. A phrase with other bytes than visible ones
/// and spaces is replaced by the usual one.
fn status_line(head: &[u8]) -> (u16, &[u8]) {
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let digits = line.get(9..12).unwrap_or_default();
    let status = digits.iter().fold(0, |status, digit| 10 * status + u16::from(digit & 15));
    let reason = line.get(13..).unwrap_or_default();
    let is_plain = reason.iter().all(|&byte| byte == b' ' || byte.is_ascii_graphic());
    (status, if is_plain { reason } else { reason_phrase(status).as_bytes() })
}
