//! An HTTP backend whose every byte the test itself reads and sends.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::{Upstream, expect_end};

/// One connection to the backend.
pub(crate) struct Backend {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
}

/// One request, as it arrived.
#[derive(Debug)]
pub(crate) struct Request {
    /// With its empty line.
    pub(crate) head: String,
    /// Without its framing.
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// Every field with this name, in order.
    pub(crate) fn fields(&self, name: &str) -> Vec<&str> {
        let fields = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        let named = fields.filter(|(field, _)| field.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value).collect()
    }

    /// The only field with this name; `None` if there is no such field.
    #[track_caller]
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let fields = self.fields(name);
        assert!(fields.len() < 2, "{name} more than once: {}", self.head);
        fields.first().copied()
    }

    /// The request line without the version, which must be that of HTTP/1.1.
    #[track_caller]
    pub(crate) fn asks(&self) -> &str {
        let line = self.head.lines().next().unwrap_or_default();
        line.strip_suffix(" HTTP/1.1").unwrap_or_else(|| panic!("{}", self.head))
    }
}

impl Upstream {
    /// The next connection, as one of HTTP.
    #[track_caller]
    pub(crate) fn backend(&self) -> Backend {
        Backend::over(self.accept())
    }
}

impl Backend {
    /// On a connection from which nothing was read.
    pub(crate) fn over(stream: TcpStream) -> Self {
        Backend { stream, buffer: Vec::new() }
    }

    #[track_caller]
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// Sends a 200 with this body and its length.
    #[track_caller]
    pub(crate) fn answer(&mut self, body: &str) {
        self.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    }

    /// The next request with its body. Its framing must be canonical.
    #[track_caller]
    pub(crate) fn request(&mut self) -> Request {
        let mut request = self.head();
        let length = request.field("content-length").map(|length| length.parse().unwrap());
        let coding = request.field("transfer-encoding");
        request.body = match (length, coding) {
            (None, None) => Vec::new(),
            (Some(length), None) => self.take(length),
            (None, Some("chunked")) => self.chunks(),
            both => panic!("{both:?} in {}", request.head),
        };
        request
    }

    /// The head of the next request.
    #[track_caller]
    pub(crate) fn head(&mut self) -> Request {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            self.read_more("a request head");
        };
        let head: Vec<u8> = self.buffer.drain(..end).collect();
        Request { head: String::from_utf8(head).unwrap(), body: Vec::new() }
    }

    /// The next bytes.
    #[track_caller]
    pub(crate) fn take(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            self.read_more("a body");
        }
        self.buffer.drain(..count).collect()
    }

    /// The data of a chunked body in its canonical form.
    #[track_caller]
    pub(crate) fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk() {
            body.extend_from_slice(&chunk);
        }
        body
    }

    /// The data of the next chunk, in canonical form: no extension, no needless zeros, no trailers.
    /// `None` for the last one.
    #[track_caller]
    pub(crate) fn chunk(&mut self) -> Option<Vec<u8>> {
        let end = loop {
            if let Some(at) = self.buffer.windows(2).position(|window| window == b"\r\n") {
                break at;
            }
            self.read_more("a chunk size");
        };
        let line: Vec<u8> = self.buffer.drain(..end + 2).collect();
        let line = String::from_utf8(line[..end].to_vec()).unwrap();
        let size = usize::from_str_radix(&line, 16).unwrap_or_else(|e| panic!("{line:?}: {e}"));
        assert_eq!(format!("{size:x}"), line.to_lowercase(), "a chunk size");
        let mut chunk = self.take(size + 2);
        assert!(chunk.ends_with(b"\r\n"), "behind a chunk: {}", chunk.escape_ascii());
        chunk.truncate(size);
        (size > 0).then_some(chunk)
    }

    /// Everything up to the end, which may be a reset.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        // What arrived before a reset counts, too.
        let _ = self.stream.read_to_end(&mut self.buffer);
        std::mem::take(&mut self.buffer)
    }

    /// Ringgate closes in order, and no further byte came before that.
    #[track_caller]
    pub(crate) fn expect_end(&mut self) {
        assert!(self.buffer.is_empty(), "more: {}", self.buffer.escape_ascii());
        expect_end(&mut self.stream);
    }

    #[track_caller]
    fn read_more(&mut self, what: &str) {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(count @ 1..) => self.buffer.extend_from_slice(&buffer[..count]),
            other => panic!("{what}: {other:?} after {}", self.buffer.escape_ascii()),
        }
    }
}
