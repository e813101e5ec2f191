//! A plain HTTP/1.1 client that sends exactly what the test says.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::{connect, expect_end};

/// One connection, plain or over TLS.
pub(crate) struct HttpClient<S = TcpStream> {
    pub(crate) stream: S,
    buffer: Vec<u8>,
}

/// One answer.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// The first field with this name.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields(name).next()
    }

    /// Every field with this name, in order.
    pub(crate) fn fields(&self, name: &str) -> impl Iterator<Item = &str> {
        let fields = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        let named = fields.filter(move |(field, _)| field.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.trim())
    }
}

impl HttpClient {
    #[track_caller]
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::over(connect(address))
    }

    /// The connection ends in order, and no further byte came before that.
    #[track_caller]
    pub(crate) fn expect_end(&mut self) {
        assert!(self.buffer.is_empty(), "more: {:?}", String::from_utf8_lossy(&self.buffer));
        expect_end(&mut self.stream);
    }
}

impl<S: Read + Write> HttpClient<S> {
    /// On a connection that is already open and from which nothing was read.
    pub(crate) fn over(stream: S) -> Self {
        HttpClient { stream, buffer: Vec::new() }
    }

    #[track_caller]
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// The next answer, to anything but HEAD.
    #[track_caller]
    pub(crate) fn response(&mut self) -> Response {
        let mut response = self.head_only();
        response.body = match response.status {
            101 | 204 | 304 => Vec::new(),
            _ if response.field("transfer-encoding").is_some() => self.chunked(),
            _ => match response.field("content-length") {
                Some(length) => self.take(length.parse().unwrap()),
                None => self.rest(),
            },
        };
        response
    }

    /// The next answer, to HEAD: no body, whatever its fields say.
    #[track_caller]
    pub(crate) fn head_only(&mut self) -> Response {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            self.read_more("a response head");
        };
        let head = String::from_utf8(self.buffer.drain(..end).collect()).unwrap();
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status line: {head:?}"));
        Response { status, head, body: Vec::new() }
    }

    /// The next bytes are these.
    #[track_caller]
    pub(crate) fn expect_bytes(&mut self, bytes: &[u8]) {
        assert!(self.take(bytes.len()) == bytes, "other bytes");
    }

    /// The next bytes.
    #[track_caller]
    pub(crate) fn take(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            self.read_more("a body");
        }
        self.buffer.drain(..count).collect()
    }

    /// Everything up to the end, which must be an orderly one.
    #[track_caller]
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        self.stream.read_to_end(&mut self.buffer).unwrap();
        std::mem::take(&mut self.buffer)
    }

    #[track_caller]
    fn chunked(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let size = usize::from_str_radix(&self.line(), 16).unwrap();
            let chunk = self.take(size + 2);
            body.extend_from_slice(&chunk[..size]);
            if size == 0 {
                return body;
            }
        }
    }

    /// The next line without its end.
    #[track_caller]
    pub(crate) fn line(&mut self) -> String {
        let end = loop {
            if let Some(at) = self.buffer.windows(2).position(|window| window == b"\r\n") {
                break at;
            }
            self.read_more("a line");
        };
        let line: Vec<u8> = self.buffer.drain(..end + 2).collect();
        String::from_utf8(line[..end].to_vec()).unwrap()
    }

    #[track_caller]
    fn read_more(&mut self, what: &str) {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(count @ 1..) => self.buffer.extend_from_slice(&buffer[..count]),
            other => {
                let so_far = String::from_utf8_lossy(&self.buffer);
                panic!("{what}: {other:?} after {so_far:?}")
            }
        }
    }
}
