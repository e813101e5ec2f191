//! The plain request of `keepalive` and `churn`, and what the answer to it looks like.

use std::io;

use super::dial::{Target, head_end};
use super::exchange::Answer;
use super::wire::Wire;
use crate::while_doing;

const MAX_ANSWER: usize = 64 * 1024;
pub(crate) const REDIRECT: &[u8] = b"HTTP/1.1 301 ";

/// A request that a proxy with a redirect answers by itself.
pub(crate) fn request(host: &str, close: bool) -> Vec<u8> {
    let connection = if close { "Connection: close\r\n" } else { "" };
    format!("GET /some/path?x=1 HTTP/1.1\r\nHost: {host}\r\n{connection}\r\n").into_bytes()
}

/// Asks once and learns what all later answers must look like. The answer ends where its
/// Content-Length says or, with `close`, with the connection.
pub(crate) fn learn<W: Wire>(target: &Target, close: bool) -> io::Result<Answer> {
    let doing = while_doing(format!("the first answer of {}", target.connect));
    ask::<W>(target, close).and_then(|answer| shape(&answer, close)).map_err(doing)
}

fn ask<W: Wire>(target: &Target, close: bool) -> io::Result<Vec<u8>> {
    let mut stream = W::connect(&W::dialler(target)?, target)?;
    stream.write_all(&request(&target.host, close))?;
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    while answer.len() < MAX_ANSWER {
        let length = stream.read(&mut chunk)?;
        if length == 0 {
            return Ok(answer);
        }
        answer.extend_from_slice(&chunk[..length]);
        if !close && expected_length(&answer)?.is_some_and(|expected| answer.len() >= expected) {
            return Ok(answer);
        }
    }
    Err(io::Error::other("it is too long"))
}

fn shape(answer: &[u8], close: bool) -> io::Result<Answer> {
    let line = answer.split(|&byte| byte == b'\r').next().unwrap_or_default();
    if !line.starts_with(REDIRECT) {
        let line = String::from_utf8_lossy(line).into_owned();
        return Err(io::Error::other(format!("it is no 301 but {line:?}")));
    }
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
    Ok(Answer { start: line.to_vec(), length })
}

/// Head and body together; none while the head is not complete.
fn expected_length(answer: &[u8]) -> io::Result<Option<usize>> {
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
}
