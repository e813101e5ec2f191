//! The head of a client's request, as a backend gets it.

use super::{Framing, Lines, Rules, Sink, is_written_by_us, write_length};
use crate::proto::http::Hop;
use crate::proto::http::fields::{Fields, has_prefix, is};

/// What is changed in the head of a request.
pub struct Request<'a, N, V> {
    /// The names that are hop by hop in the client's head.
    pub hop: &'a Hop<'a>,
    /// The target for the backend, in origin form.
    pub target: &'a [u8],
    /// The value of `Host`.
    pub host: &'a [u8],
    /// What the backend learns about the client.
    pub client: Client<'a>,
    /// Rules for the fields; the first one about a name counts. They also apply to the fields about
    /// the client.
    pub rules: &'a [Rules<'a, N, V>],
    /// How the body is framed for the backend.
    pub framing: Framing,
    /// Whether `Expect` goes on to the backend.
    pub keeps_expect: bool,
    /// The value of `Max-Forwards`. `None` if the client's is passed on.
    pub max_forwards: Option<u64>,
    /// Whether this is an upgrade to WebSocket.
    pub is_upgrade: bool,
}

/// The fields about the client. None of them can be believed unless the peer is trusted.
pub struct Client<'a> {
    /// The address of the peer, for `X-Forwarded-For`. Empty if it has none.
    pub address: &'a str,
    /// The scheme of the request, for `X-Forwarded-Proto`.
    pub scheme: &'a str,
    /// The host that the client asked for, for `X-Forwarded-Host`.
    pub host: &'a [u8],
    /// A new `X-Request-Id`.
    pub request_id: &'a str,
    /// Whether the peer is a proxy whose fields about the client are believed. Its address is then
    /// appended to its `X-Forwarded-For`, and its other fields are kept.
    pub is_trusted: bool,
}

/// Writes the head of a request with its empty line. `head` is the parsed head of the client.
pub fn write_request<N: AsRef<[u8]>, V: AsRef<[u8]>>(
    head: &[u8],
    request: &Request<'_, N, V>,
    out: &mut Vec<u8>,
) {
    // 1. The request line, and Host before all other fields (RFC 9110 section 7.2).
    let method = head.split(|&byte| byte == b' ').next().unwrap_or_default();
    for bytes in [method, b" ", request.target, b" HTTP/1.1\r\nHost: ", request.host, b"\r\n"] {
        out.extend_from_slice(bytes);
    }

    // 2. The client's fields.
    let mut sink = Lines(out);
    let mut kept = Kept::default();
    for (name, value) in Fields::of(head) {
        let is_dropped = is_written_by_us(name)
            || request.hop.contains(name)
            || may_be_misread(name)
            || is(name, "expect") && !request.keeps_expect
            || is(name, "max-forwards") && request.max_forwards.is_some()
            || Rules::any_replaces(request.rules, name)
            || kept.drops(name, request.client.is_trusted);
        if !is_dropped {
            sink.field(name, value);
        }
    }

    // 3. Ours.
    write_client(head, request, &kept, &mut sink);
    if let Some(hops) = request.max_forwards
        && !Rules::any_replaces(request.rules, b"max-forwards")
    {
        sink.field(b"Max-Forwards", itoa::Buffer::new().format(hops).as_bytes());
    }
    Rules::write_set(request.rules, &mut sink);
    match request.framing {
        Framing::None => {}
        Framing::Length(length) => write_length(length, &mut sink),
        Framing::Chunked => sink.field(b"Transfer-Encoding", b"chunked"),
    }
    if request.is_upgrade {
        sink.field(b"Connection", b"Upgrade");
        sink.field(b"Upgrade", b"websocket");
    }
    out.extend_from_slice(b"\r\n");
}

/// Returns true for a name that a backend may take for another one. Many turn `-` into `_`, so that
/// `X_Forwarded_For` would look like ours; and CGI passes `Proxy` on as the variable `HTTP_PROXY`,
/// which libraries take for the address of a proxy.
fn may_be_misread(name: &[u8]) -> bool {
    name.contains(&b'_') || is(name, "proxy")
}

/// The fields about the client that were taken from its own head.
#[derive(Default)]
struct Kept {
    proto: bool,
    host: bool,
    request_id: bool,
    /// There are `X-Forwarded-For` fields to append to.
    forwarded_for: bool,
}

impl Kept {
    /// Returns true if a field about the client is not copied. Notes the others.
    fn drops(&mut self, name: &[u8], is_trusted: bool) -> bool {
        // Most names are none of these.
        if !matches!(name.first(), Some(b'X' | b'x' | b'F' | b'f')) {
            return false;
        }
        let (is_for, is_id) = (is(name, "x-forwarded-for"), is(name, "x-request-id"));
        let is_about_client = is_id
            || has_prefix(name, "x-forwarded-")
            || is(name, "forwarded")
            || is(name, "x-real-ip");
        if !is_trusted {
            return is_about_client;
        }
        self.forwarded_for |= is_for;
        self.request_id |= is_id;
        self.proto |= is(name, "x-forwarded-proto");
        self.host |= is(name, "x-forwarded-host");
        // All lines of this one become one line.
        is_for
    }
}

/// Writes the fields about the client, but those that were kept or have a rule.
fn write_client<N: AsRef<[u8]>, V: AsRef<[u8]>>(
    head: &[u8],
    request: &Request<'_, N, V>,
    kept: &Kept,
    sink: &mut Lines<'_>,
) {
    let client = &request.client;
    let is_ours = |name: &[u8]| !Rules::any_replaces(request.rules, name);
    // A peer on a Unix socket has no address.
    if is_ours(b"x-forwarded-for") && !client.address.is_empty() {
        sink.0.extend_from_slice(b"X-Forwarded-For: ");
        if kept.forwarded_for {
            let earlier = Fields::of(head).filter(|(name, _)| is(name, "x-forwarded-for"));
            for (_, value) in earlier.filter(|(_, value)| !value.is_empty()) {
                sink.0.extend_from_slice(value);
                sink.0.extend_from_slice(b", ");
            }
        }
        sink.0.extend_from_slice(client.address.as_bytes());
        sink.0.extend_from_slice(b"\r\n");
    }
    let fields = [
        (&b"X-Forwarded-Proto"[..], client.scheme.as_bytes(), kept.proto),
        (b"X-Forwarded-Host", client.host, kept.host),
        (b"X-Request-Id", client.request_id.as_bytes(), kept.request_id),
    ];
    for (name, value, is_kept) in fields {
        // A request of HTTP/1.0 may have no host.
        if !is_kept && !value.is_empty() && is_ours(name) {
            sink.field(name, value);
        }
    }
}
