//! The requests of `keepalive` and `churn`, and what the answer to one looks like.

use std::io;

use clap::Args;

use super::dial::{Target, head_end};
use super::exchange::Answer;
use super::wire::Wire;
use crate::while_doing;

const MAX_ANSWER: usize = 64 * 1024;

/// What is asked for, and what an answer must be.
#[derive(Args, Clone, Debug)]
pub(crate) struct Request {
    /// Path and query of the requests
    #[arg(long, value_name = "PATH", default_value = "/some/path?x=1")]
    pub(crate) ask: String,
    /// Status that every answer must have
    #[arg(long, default_value_t = 301)]
    pub(crate) status: u16,
    /// Bytes that the body of every answer must have; default: as many as the first has
    #[arg(long, value_name = "BYTES")]
    pub(crate) body: Option<usize>,
}

impl Request {
    /// A request that a proxy with a redirect answers by itself.
    pub(crate) fn redirect() -> Self {
        Self { ask: "/some/path?x=1".to_string(), status: 301, body: None }
    }

    /// A request that is answered with so many bytes.
    pub(crate) fn of(ask: impl Into<String>, body: usize) -> Self {
        Self { ask: ask.into(), status: 200, body: Some(body) }
    }

    pub(crate) fn bytes(&self, host: &str, close: bool) -> Vec<u8> {
        let (ask, close) = (&self.ask, if close { "Connection: close\r\n" } else { "" });
        format!("GET {ask} HTTP/1.1\r\nHost: {host}\r\n{close}\r\n").into_bytes()
    }

    /// Asks once and learns what all later answers must look like. The answer ends where its
    /// Content-Length says or, with `close`, with the connection.
    pub(crate) fn learn<W: Wire>(&self, target: &Target, close: bool) -> io::Result<Answer> {
        let doing = while_doing(format!("the first answer of {}", target.connect));
        self.first::<W>(target, close).and_then(|answer| self.shape(&answer, close)).map_err(doing)
    }

    fn first<W: Wire>(&self, target: &Target, close: bool) -> io::Result<Vec<u8>> {
        let mut stream = W::connect(&W::dialler(target)?, target)?;
        stream.write_all(&self.bytes(&target.host, close))?;
        let mut answer = Vec::new();
        let mut chunk = [0; 4096];
        while answer.len() < MAX_ANSWER {
            let length = stream.read(&mut chunk)?;
            if length == 0 {
                return Ok(answer);
            }
            answer.extend_from_slice(&chunk[..length]);
            if !close && expected_length(&answer)?.is_some_and(|expected| answer.len() >= expected)
            {
                return Ok(answer);
            }
        }
        Err(io::Error::other("it is too long"))
    }

    fn shape(&self, answer: &[u8], close: bool) -> io::Result<Answer> {
        let line = answer.split(|&byte| byte == b'\r').next().unwrap_or_default();
        check_status(line, self.status)?;
        let length = match (close, expected_length(answer)) {
            (true, Ok(None)) | (false, Ok(None)) => {
                return Err(io::Error::other("it ends within its head"));
            }
            // Without a length it was the end of the connection that ended it.
            (true, Err(_)) => answer.len(),
            (_, expected) => expected?.unwrap_or_default(),
        };
        if length != answer.len() {
            let message = format!("it has {} bytes and says {length}", answer.len());
            return Err(io::Error::other(message));
        }
        let body = length - head_end(answer).unwrap_or_default();
        if self.body.is_some_and(|wanted| wanted != body) {
            return Err(io::Error::other(format!("its body has {body} bytes")));
        }
        Ok(Answer { start: line.to_vec(), length })
    }
}

/// Fails unless an answer that begins so has the status.
pub(super) fn check_status(start: &[u8], status: u16) -> io::Result<()> {
    if start.starts_with(format!("HTTP/1.1 {status} ").as_bytes()) {
        return Ok(());
    }
    let line = start.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line).into_owned();
    Err(io::Error::other(format!("it is no {status} but {line:?}")))
}

/// Head and body together; none while the head is not complete.
pub(super) fn expected_length(answer: &[u8]) -> io::Result<Option<usize>> {
    let Some(end) = head_end(answer) else { return Ok(None) };
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let body = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    match body.and_then(|number| number.trim().parse::<usize>().ok()) {
        Some(body) => Ok(Some(end + body)),
        None => Err(io::Error::other("it has no Content-Length")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_redirect_has_a_shape() {
        let whole = b"HTTP/1.1 301 Moved\r\nContent-Length: 2\r\n\r\nab";
        let request = Request::redirect();
        let shape = |answer: &[u8], close| request.shape(answer, close);
        for close in [false, true] {
            let answer = shape(whole, close).unwrap();
            assert_eq!((&answer.start[..], answer.length), (&b"HTTP/1.1 301 Moved"[..], 43));
            assert!(shape(&whole[..42], close).is_err());
            assert!(shape(&whole[..30], close).is_err());
            assert!(shape(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", close).is_err());
        }
        let endless = b"HTTP/1.1 301 Moved\r\n\r\nabc";
        assert!(shape(endless, false).is_err());
        assert_eq!(shape(endless, true).unwrap().length, 25);
    }
    #[test]
    fn a_body_of_another_length_than_wanted_has_no_shape() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab";
        assert_eq!(Request::of("/a", 2).shape(answer, false).unwrap().length, 40);
        let error = Request::of("/a", 3).shape(answer, false).err().unwrap().to_string();
        assert!(error.contains("2 bytes"), "{error}");
    }
}
