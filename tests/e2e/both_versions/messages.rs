//! Requests and replies, made at random, and their bytes in HTTP/1.1.

use proptest::prelude::*;
use proptest::sample::select;

/// The host that is asked for.
pub(super) const NAME: &str = "site.test";

/// A field: its name in some case, and its value.
pub(super) type Field = (String, String);

/// What a client asks for.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) method: &'static str,
    target: String,
    fields: Vec<Field>,
    cookies: Vec<String>,
    /// The body, and whether its length is announced.
    pub(super) body: Option<(Vec<u8>, bool)>,
    /// The size of the pieces in which the body is sent.
    pub(super) piece: usize,
}

/// What the backend answers.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    interim: Vec<u16>,
    status: u16,
    fields: Vec<Field>,
    framing: Framing,
    content: Vec<u8>,
    /// Bytes behind the end.
    extra: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Length,
    /// In chunks of this size, with extensions and trailers.
    Chunks(usize),
    UntilClose,
    /// The connection ends before the body.
    CutLength,
    CutChunks,
    BadChunks,
    TwoLengths,
}

impl Ask {
    /// The whole request in HTTP/1.1.
    pub(super) fn http1(&self) -> Vec<u8> {
        let mut out = format!("{} {} HTTP/1.1\r\nhost: {NAME}\r\n", self.method, self.target);
        if !self.cookies.is_empty() {
            out += &format!("cookie: {}\r\n", self.cookies.join("; "));
        }
        match &self.body {
            Some((body, true)) => out += &format!("content-length: {}\r\n", body.len()),
            Some(_) => out += "transfer-encoding: chunked\r\n",
            None => {}
        }
        let mut out = out.into_bytes();
        push_fields(&self.fields, &mut out);
        out.extend_from_slice(b"connection: close\r\n\r\n");
        match &self.body {
            Some((body, true)) => out.extend_from_slice(body),
            Some((body, false)) => push_chunks(body, self.piece, "", &mut out),
            None => {}
        }
        out
    }

    /// The head in HTTP/2.
    pub(super) fn http2(&self) -> http::Request<()> {
        let uri = http::Uri::builder().scheme("https").authority(NAME);
        let uri = uri.path_and_query(self.target.as_str()).build().unwrap();
        let mut request = http::Request::builder().method(self.method).uri(uri);
        for (name, value) in &self.fields {
            request = request.header(name, value.as_bytes());
        }
        for cookie in &self.cookies {
            request = request.header("cookie", cookie);
        }
        if let Some((body, true)) = &self.body {
            request = request.header("content-length", body.len());
        }
        request.body(()).unwrap()
    }
}

fn push_fields(fields: &[Field], out: &mut Vec<u8>) {
    for (name, value) in fields {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

/// A body in chunks, up to its end.
fn push_chunks(body: &[u8], size: usize, extension: &str, out: &mut Vec<u8>) {
    for chunk in body.chunks(size) {
        out.extend_from_slice(format!("{:X}{extension}\r\n", chunk.len()).as_bytes());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0\r\n\r\n");
}

impl Reply {
    /// All bytes of the reply to this method.
    pub(super) fn bytes(&self, method: &str) -> Vec<u8> {
        let mut out = Vec::new();
        for status in &self.interim {
            let head = format!("HTTP/1.1 {status} Early\r\nLink: </{status}>\r\nKeep-Alive: a\r\n");
            out.extend_from_slice(head.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        let head = format!("HTTP/1.1 {} Reason\r\nConnection: x-hop\r\n", self.status);
        out.extend_from_slice(head.as_bytes());
        push_fields(&self.fields, &mut out);
        let has_content = method != "HEAD" && !matches!(self.status, 204 | 304);
        let length = self.content.len();
        let framing = match self.framing {
            _ if self.status == 204 => String::new(),
            Framing::Length => format!("Content-Length: {length}\r\n"),
            Framing::CutLength => format!("Content-Length: {}\r\n", length + 9),
            Framing::TwoLengths => format!("Content-Length: {length}\r\nContent-Length: 7\r\n"),
            Framing::UntilClose => String::new(),
            _ => "Transfer-Encoding: chunked\r\n".to_owned(),
        };
        out.extend_from_slice(framing.as_bytes());
        out.extend_from_slice(b"\r\n");
        if !has_content {
            return out;
        }
        match self.framing {
            Framing::Chunks(size) => {
                push_chunks(&self.content, size, ";a=\"b\"", &mut out);
                // A trailer before the empty line.
                out.truncate(out.len() - 2);
                out.extend_from_slice(b"X-Trailer: a\r\n\r\n");
            }
            Framing::CutChunks => {
                push_chunks(&self.content, 1000, "", &mut out);
                out.truncate(out.len() - 5);
            }
            Framing::BadChunks => {
                push_chunks(&self.content, 1000, "", &mut out);
                out.truncate(out.len() - 5);
                out.extend_from_slice(b"no size\r\n");
            }
            _ => out.extend_from_slice(&self.content),
        }
        if matches!(self.framing, Framing::Length | Framing::Chunks(_)) {
            out.extend_from_slice(self.extra.as_bytes());
        }
        out
    }
}

/// Visible text, or letters beyond ASCII, or nothing.
fn value() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[!-~]([ -~]{0,20}[!-~])?", 1 => "[à-ÿ€]{0,5}"]
}

fn fields(names: &'static [&'static str]) -> impl Strategy<Value = Vec<Field>> {
    let field = (select(names).prop_map(str::to_owned), value());
    prop::collection::vec(field, 0..6)
}

fn content() -> impl Strategy<Value = Vec<u8>> {
    let size = prop_oneof![0usize..3, 3usize..3000, 3000usize..90_000];
    (size, any::<u8>()).prop_map(|(size, seed)| {
        (0..size).map(|at| (at / 3) as u8 ^ (at >> 8) as u8 ^ seed).collect()
    })
}

pub(super) fn ask() -> impl Strategy<Value = Ask> {
    const METHODS: &[&str] =
        &["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "QUERY", "TRACE"];
    const NAMES: &[&str] = &[
        "Accept",
        "x-Custom",
        "User-Agent",
        "referer",
        "range",
        "x_under",
        "X-Forwarded-For",
        "forwarded",
        "x-real-ip",
        "if-none-match",
        "priority",
        "content-type",
    ];
    // An empty body that is not announced is no body in HTTP/2.
    let body = (content(), any::<bool>());
    let body = body.prop_map(|(body, is_announced)| {
        let is_announced = is_announced || body.is_empty();
        (body, is_announced)
    });
    (
        select(METHODS),
        r"/[a-z0-9._~!$&'()*+,;=:@/-]{0,30}(%2e)?(\?[a-z0-9=&/?]{0,20})?",
        fields(NAMES),
        prop::collection::vec("[a-z]{1,3}=[a-z0-9]{0,5}", 0..3),
        prop::option::of(body),
        1usize..20_000,
    )
        .prop_map(|(method, target, mut fields, cookies, body, piece)| {
            // Both have the same one.
            fields.push(("x-request-id".to_owned(), "0123".to_owned()));
            fields.push(("te".to_owned(), "trailers".to_owned()));
            // TRACE has no body (RFC 9110 section 9.3.8).
            let body = body.filter(|_| method != "TRACE");
            // Pieces of a byte would make thousands of frames.
            let piece = piece.max(body.as_ref().map_or(1, |(body, _)| body.len() / 100 + 1));
            Ask { method, target, fields, cookies, body, piece }
        })
}

pub(super) fn reply() -> impl Strategy<Value = Reply> {
    const NAMES: &[&str] = &[
        "Content-Type",
        "ETag",
        "Set-Cookie",
        "Server",
        "X-Custom",
        "X-Hop",
        "Keep-Alive",
        "Upgrade",
        "Proxy-Connection",
        "Date",
        "Location",
        "Vary",
        "Trailer",
    ];
    let framing = prop_oneof![
        5 => Just(Framing::Length),
        5 => (1usize..20_000).prop_map(Framing::Chunks),
        3 => Just(Framing::UntilClose),
        1 => select(&[
            Framing::CutLength, Framing::CutChunks, Framing::BadChunks, Framing::TwoLengths,
        ][..]),
    ];
    (
        prop::collection::vec(select(&[100u16, 102, 103][..]), 0..3),
        select(&[200u16, 200, 200, 201, 204, 206, 301, 304, 404, 416, 500, 503][..]),
        fields(NAMES),
        framing,
        content(),
        select(&["", "", "", "HTTP/1.1 200 OK\r\n\r\n"][..]),
    )
        .prop_map(|(interim, status, fields, framing, content, extra)| {
            let framing = match framing {
                Framing::Chunks(size) => Framing::Chunks(size.max(content.len() / 100 + 1)),
                framing => framing,
            };
            Reply { interim, status, fields, framing, content, extra }
        })
}
