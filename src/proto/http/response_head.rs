//! Heads of the responses that ringgate generates itself.

/// The standard reason phrase (RFC 9110 section 15). It is empty for codes without one; a status
/// line may omit the phrase.
pub fn reason_phrase(status: u16) -> &'static str {
    match status {
        101 => "Switching Protocols",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
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
        406 => "Not Acceptable",
        408 => "Request Timeout",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        418 => "I'm a teapot",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
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

/// What the response tells the client about the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// HTTP/1.1 keeps the connection open by default.
    Persistent,
    /// HTTP/1.0 keeps the connection open because `Connection: keep-alive` is sent.
    KeepAlive,
    /// The connection is closed after this response.
    Close,
}

/// Whether the content of a response follows its head (RFC 9110 section 9.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// The content is sent.
    Sent,
    /// Only the length of the content is sent, in response to HEAD. The client takes the next byte
    /// for the start of the next response.
    Announced,
}

impl Content {
    /// The value for a response to a request with this method.
    pub fn for_method(method: &str) -> Content {
        if method == "HEAD" { Content::Announced } else { Content::Sent }
    }

    /// The value for a response to bytes that are not a request, or only a part of one. Bytes that
    /// begin with the method HEAD are treated as a HEAD request.
    pub fn for_rejected(bytes: &[u8]) -> Content {
        let is_line_end = |&byte: &u8| matches!(byte, b'\r' | b'\n');
        let start = bytes.iter().position(|byte| !is_line_end(byte)).unwrap_or(bytes.len());
        let method = bytes[start..].strip_prefix(b"HEAD");
        let is_head =
            method.is_some_and(|rest| rest.first().is_none_or(|&byte| !is_token_byte(byte)));
        if is_head { Content::Announced } else { Content::Sent }
    }
}

/// Returns true for a byte of a token (RFC 9110 section 5.6.2).
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The value of `Allow`: the methods that redirects and configured responses accept.
const ALLOWED: &[u8] = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// Appends `Allow`. A 405 must have this field (RFC 9110 section 15.5.6), and a response to OPTIONS
/// lists the methods in it. If `has_methods` is true, the site accepts other methods than that of
/// the request. If it is false, the target accepts no method, which is an empty list (section
/// 10.2.1).
pub fn append_allow(out: &mut Vec<u8>, has_methods: bool) {
    out.extend_from_slice(b"Allow: ");
    if has_methods {
        out.extend_from_slice(ALLOWED);
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends the status line and `Date`, an IMF-fixdate, unless it is `None`. The caller appends its
/// own fields, then calls [`finish`].
pub fn begin(out: &mut Vec<u8>, status: u16, date: Option<&[u8]>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
    out.push(b' ');
    out.extend_from_slice(reason_phrase(status).as_bytes());
    if let Some(date) = date {
        out.extend_from_slice(b"\r\nDate: ");
        out.extend_from_slice(date);
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends the framing fields and the empty line. The body, if there is one, follows.
pub fn finish(out: &mut Vec<u8>, length: Option<usize>, connection: Persistence) {
    if let Some(length) = length {
        out.extend_from_slice(b"Content-Length: ");
        out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(match connection {
        Persistence::Persistent => b"\r\n",
        Persistence::KeepAlive => b"Connection: keep-alive\r\n\r\n",
        Persistence::Close => b"Connection: close\r\n\r\n",
    });
}

#[cfg(test)]
mod tests;
