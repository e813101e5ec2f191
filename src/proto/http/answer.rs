//! Heads of the answers that ringgate gives itself.

/// The standard phrase (RFC 9110 section 15); empty for codes without one, which a status line may
/// have.
pub fn reason(status: u16) -> &'static str {
    match status {
        101 => "Switching Protocols",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        410 => "Gone",
        418 => "I'm a teapot",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

/// What the client is told about the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// HTTP/1.1 goes on by itself.
    Persistent,
    /// HTTP/1.0 goes on because it is told so.
    KeepAlive,
    /// It is closed after this answer.
    Close,
}

/// Whether the content of an answer is sent behind its head (RFC 9110 section 9.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// It is sent.
    Sent,
    /// Only its length is announced: to HEAD. The client reads the next byte as the next answer.
    Announced,
}

impl Content {
    /// For the answer to a request with this method.
    pub fn for_method(method: &str) -> Content {
        if method == "HEAD" { Content::Announced } else { Content::Sent }
    }

    /// For the answer to bytes that are no request, or none so far: they count as HEAD when they
    /// begin with that method.
    pub fn for_rejected(bytes: &[u8]) -> Content {
        let is_line_end = |&byte: &u8| matches!(byte, b'\r' | b'\n');
        let start = bytes.iter().position(|byte| !is_line_end(byte)).unwrap_or(bytes.len());
        let method = bytes[start..].strip_prefix(b"HEAD");
        let is_head = method.is_some_and(|rest| rest.first().is_none_or(|&byte| !is_token(byte)));
        if is_head { Content::Announced } else { Content::Sent }
    }
}

/// A character of a token (RFC 9110 section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The value of `Allow` for the methods that redirects and canned responses answer.
const ALLOWED: &[u8] = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// Appends `Allow`, which a 405 must have (RFC 9110 section 15.5.6) and OPTIONS asks for. With
/// `any` the site answers other methods than that of the request; without it, it answers none for
/// this target, which is an empty list (section 10.2.1).
pub fn allow(out: &mut Vec<u8>, any: bool) {
    out.extend_from_slice(b"allow: ");
    if any {
        out.extend_from_slice(ALLOWED);
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends an answer's head up to, and without, the fields that `finish` adds. `date` is an
/// IMF-fixdate.
pub fn begin(out: &mut Vec<u8>, status: u16, date: &[u8]) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
    out.push(b' ');
    out.extend_from_slice(reason(status).as_bytes());
    out.extend_from_slice(b"\r\ndate: ");
    out.extend_from_slice(date);
    out.extend_from_slice(b"\r\n");
}

/// Appends the framing and the empty line. A body, if there is one, follows.
pub fn finish(out: &mut Vec<u8>, length: Option<usize>, connection: Connection) {
    if let Some(length) = length {
        out.extend_from_slice(b"content-length: ");
        out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(match connection {
        Connection::Persistent => b"\r\n",
        Connection::KeepAlive => b"connection: keep-alive\r\n\r\n",
        Connection::Close => b"connection: close\r\n\r\n",
    });
}

/// An upstream's head, changed to say that the connection closes behind this answer. The head must
/// have been parsed: it has no folded lines.
pub fn closing_head(head: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(head.len() + 24);
    let about_connection = |line: &[u8]| {
        [&b"connection:"[..], b"keep-alive:", b"proxy-connection:"].iter().any(|name| {
            line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
        })
    };
    for line in head.split_inclusive(|&byte| byte == b'\n') {
        if line == b"\r\n" {
            break;
        }
        if !about_connection(line) {
            out.extend_from_slice(line);
        }
    }
    out.extend_from_slice(b"connection: close\r\n\r\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_answer_is_a_head() {
        let mut out = Vec::new();
        begin(&mut out, 301, b"Thu, 01 Jan 1970 00:00:00 GMT");
        finish(&mut out, Some(0), Connection::Close);
        let expected = "HTTP/1.1 301 Moved Permanently\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\
                        content-length: 0\r\nconnection: close\r\n\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn what_begins_with_head_gets_no_content() {
        for bytes in [
            &b"HEAD / HTTP/1.1\r\n\r\n"[..],
            b"HEAD /",
            b"HEAD ",
            b"HEAD",
            b"HEAD\t/ HTTP/1.1",
            b"HEAD\r\n",
            b"\r\nHEAD / HTTP/1.1",
            b"\nHEAD / HTTP/1.1",
        ] {
            assert_eq!(Content::for_rejected(bytes), Content::Announced, "{bytes:?}");
        }
        for bytes in [
            &b""[..],
            b"\r\n",
            b"HEA",
            b"HEADER / HTTP/1.1",
            b"HEAD-IT / HTTP/1.1",
            b"head / HTTP/1.1",
            b" HEAD / HTTP/1.1",
            b"GET /HEAD HTTP/1.1",
        ] {
            assert_eq!(Content::for_rejected(bytes), Content::Sent, "{bytes:?}");
        }
        assert_eq!(Content::for_method("HEAD"), Content::Announced);
        assert_eq!(Content::for_method("GET"), Content::Sent);
    }

    proptest! {
        #[test]
        fn a_head_that_parses_gets_the_same_from_both(
            start in "(\r\n)?", method in "HEAD|HEAD[A-Z]|[A-Z]{1,5}", rest in "[ /a]{0,9}",
        ) {
            let bytes = format!("{start}{method} {rest}");
            let expected = Content::for_method(&method);
            prop_assert_eq!(Content::for_rejected(bytes.as_bytes()), expected);
        }
    }

    #[test]
    fn a_closing_head_keeps_the_other_fields() {
        let head = b"HTTP/1.1 403 No\r\nConnection: keep-alive\r\nX: y\r\nKeep-Alive: 5\r\n\r\n";
        let expected = b"HTTP/1.1 403 No\r\nX: y\r\nconnection: close\r\n\r\n";
        assert_eq!(closing_head(head), expected);
    }
}
