//! The backend of a site, as the sink serves it: HTTP/1.1 on connections that stay open.
//!
//! A GET is answered with as many bytes as the last segment of its path says: `/small/1024`. The
//! body of any other request is discarded as the sink discards it, and the answer says how long it
//! was. The backend must not be what a proxy is measured by, so it knows no more of HTTP than
//! proxies send: heads of HTTP/1.1, and bodies with a Content-Length.

use std::io;
use std::net::TcpStream;
use std::sync::atomic::Ordering;

use rustix::event::epoll::EventFlags;
use rustix::net::{RecvFlags, SendFlags};

use crate::load::dial::head_end;
use crate::load::source::Source;
use crate::sink::{Manner, Next};

const MAX_HEAD: usize = 16 * 1024;
/// Up to this length a body is sent with its head: both fit an empty socket.
const SMALL: u64 = 8 * 1024;

/// The requests of one connection.
#[derive(Default)]
pub(crate) struct Requests {
    /// Bytes that have arrived and belong to no request yet.
    arrived: Vec<u8>,
    state: State,
    /// The last small answer, and how many bytes its body has: the next one mostly is the same.
    answer: Option<(u64, Vec<u8>)>,
}

#[derive(Default)]
enum State {
    #[default]
    Head,
    /// The body of a request is discarded.
    Body { length: u64, left: u64 },
    /// The body of an answer is sent.
    Answer { left: u64 },
}

impl Requests {
    /// One turn: at most one buffer is moved, so that all connections get on alike.
    pub(crate) fn turn(
        &mut self,
        stream: &TcpStream,
        buffer: &mut [u8],
        source: &Source,
        manner: &Manner,
    ) -> io::Result<Next> {
        match &mut self.state {
            State::Head => {
                let length = rustix::net::recv(stream, &mut *buffer, RecvFlags::empty())?.1;
                if length == 0 {
                    return Ok(Next::Close);
                }
                self.arrived.extend_from_slice(&buffer[..length]);
                self.begin(stream, manner)
            }
            State::Body { length, left } => {
                // No more than the body: what is discarded cannot be looked at.
                let most = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
                let count = rustix::net::recv(stream, &mut buffer[..most], manner.discard)?.1;
                if count == 0 {
                    return Ok(Next::Close);
                }
                *left -= count as u64;
                count_discarded(manner, count);
                if *left > 0 {
                    return Ok(Next::Wait(EventFlags::IN));
                }
                let length = *length;
                confirm(stream, length)?;
                self.state = State::Head;
                self.begin(stream, manner)
            }
            State::Answer { left } => {
                *left -= source.send(stream, *left, 0)? as u64;
                if *left > 0 {
                    return Ok(Next::Wait(EventFlags::OUT));
                }
                self.state = State::Head;
                self.begin(stream, manner)
            }
        }
    }

    /// Begins every request whose head has arrived, up to one that takes further turns.
    fn begin(&mut self, stream: &TcpStream, manner: &Manner) -> io::Result<Next> {
        while let Some(end) = head_end(&self.arrived) {
            match Request::parse(&self.arrived[..end])? {
                Request::Get { size } if size <= SMALL => {
                    self.arrived.drain(..end);
                    self.send_small(stream, size)?;
                }
                Request::Get { size } => {
                    self.arrived.drain(..end);
                    // Together with the first bytes of the body.
                    send_all(stream, &head(size), SendFlags::MORE)?;
                    self.state = State::Answer { left: size };
                    return Ok(Next::Wait(EventFlags::OUT));
                }
                Request::Upload { length } => {
                    let behind = (self.arrived.len() - end) as u64;
                    let here = behind.min(length);
                    self.arrived.drain(..end + here as usize);
                    count_discarded(manner, here as usize);
                    if here < length {
                        self.state = State::Body { length, left: length - here };
                        return Ok(Next::Wait(EventFlags::IN));
                    }
                    confirm(stream, length)?;
                }
            }
        }
        if self.arrived.len() > MAX_HEAD {
            return Err(io::Error::other("a head is too long"));
        }
        Ok(Next::Wait(EventFlags::IN))
    }

    fn send_small(&mut self, stream: &TcpStream, size: u64) -> io::Result<()> {
        if self.answer.as_ref().is_none_or(|answer| answer.0 != size) {
            let mut answer = head(size);
            answer.resize(answer.len() + size as usize, 0x5a);
            self.answer = Some((size, answer));
        }
        match &self.answer {
            Some((_, answer)) => send_all(stream, answer, SendFlags::empty()),
            None => Ok(()),
        }
    }
}

fn count_discarded(manner: &Manner, count: usize) {
    if let Some(discarded) = manner.discarded {
        discarded.fetch_add(count as u64, Ordering::Relaxed);
    }
}

/// Says how many bytes of a body have arrived.
fn confirm(stream: &TcpStream, length: u64) -> io::Result<()> {
    let body = length.to_string();
    let answer = [&head(body.len() as u64)[..], body.as_bytes()].concat();
    send_all(stream, &answer, SendFlags::empty())
}

/// The head of every answer, with the fields that most backends send.
fn head(size: u64) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\nServer: backend\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n\
         Content-Type: text/plain\r\nContent-Length: {size}\r\n\r\n"
    )
    .into_bytes()
}

/// The socket is empty whenever an answer begins, so it takes the whole of a small one.
fn send_all(stream: &TcpStream, bytes: &[u8], flags: SendFlags) -> io::Result<()> {
    let sent = rustix::net::send(stream, bytes, flags | SendFlags::NOSIGNAL)?;
    if sent < bytes.len() {
        return Err(io::Error::other("the socket took only a part of an answer"));
    }
    Ok(())
}

enum Request {
    Get { size: u64 },
    Upload { length: u64 },
}

impl Request {
    fn parse(head: &[u8]) -> io::Result<Self> {
        let mut lines = head.split(|&byte| byte == b'\n');
        let mut words = lines.next().unwrap_or_default().split(|&byte| byte == b' ');
        let (method, target) = (words.next(), words.next().unwrap_or_default());
        if method == Some(b"GET") {
            let last = target.rsplit(|&byte| byte == b'/').next();
            let size = last.and_then(number).ok_or_else(|| io::Error::other("no number in it"))?;
            return Ok(Self::Get { size });
        }
        let length = lines.find_map(|line| {
            let (name, value) = line.split_at_checked(CONTENT_LENGTH.len())?;
            name.eq_ignore_ascii_case(CONTENT_LENGTH).then(|| number(value.trim_ascii()))
        });
        match length.flatten() {
            Some(length) => Ok(Self::Upload { length }),
            None => Err(io::Error::other("a body without a length")),
        }
    }
}

const CONTENT_LENGTH: &[u8] = b"content-length:";

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use crate::load::dial::{connect, head_end};
    use crate::load::testing;

    /// Sends the request and reads the head and as many bytes as it announces.
    fn ask(stream: &mut std::net::TcpStream, request: &[u8]) -> Vec<u8> {
        stream.write_all(request).unwrap();
        let (mut answer, mut byte) = (Vec::new(), [0]);
        while head_end(&answer).is_none() {
            stream.read_exact(&mut byte).unwrap();
            answer.push(byte[0]);
        }
        let head = String::from_utf8(answer).unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let mut body = vec![0; length.unwrap().parse().unwrap()];
        stream.read_exact(&mut body).unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        body
    }

    #[test]
    fn one_connection_has_answers_of_all_sizes_and_its_uploads_counted() {
        let mut stream = connect(testing::backend().connect).unwrap();
        for size in [0, 1, 1024, 300_000, 1024] {
            let request = format!("GET /some/{size} HTTP/1.1\r\nHost: a.test\r\n\r\n");
            assert_eq!(ask(&mut stream, request.as_bytes()), vec![0x5a; size], "{size}");
        }
        for size in [0, 5, 700_000] {
            let head =
                format!("POST /a HTTP/1.1\r\nHost: a.test\r\ncontent-length: {size}\r\n\r\n");
            let request = [head.as_bytes(), &vec![7; size]].concat();
            assert_eq!(ask(&mut stream, &request), size.to_string().as_bytes());
        }
    }

    #[test]
    fn requests_that_arrive_together_are_answered_in_turn() {
        let mut stream = connect(testing::backend().connect).unwrap();
        let heads = b"GET /3 HTTP/1.1\r\n\r\nGET /20000 HTTP/1.1\r\n\r\nGET /5 HTTP/1.1\r\n\r\n";
        assert_eq!(ask(&mut stream, heads).len(), 3);
        assert_eq!(ask(&mut stream, b"").len(), 20_000);
        assert_eq!(ask(&mut stream, b"").len(), 5);
    }

    #[test]
    fn what_is_no_request_ends_the_connection() {
        for wrong in ["GET /x HTTP/1.1\r\n\r\n", "POST / HTTP/1.1\r\nHost: a.test\r\n\r\n"] {
            let mut stream = connect(testing::backend().connect).unwrap();
            stream.write_all(wrong.as_bytes()).unwrap();
            assert_eq!(stream.read(&mut [0; 16]).unwrap(), 0, "{wrong}");
        }
    }
}
