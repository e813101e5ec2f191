//! A web server at the far end of a chain: what it sends and receives can be checked to the byte.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{digest, fill};

/// `GET /bytes/N` answers with [`bytes`]`(N, N)`, `GET /unmeasured/N` with the same and no length,
/// so that the end of the connection is that of the body, `GET /endless` with more bytes than any
/// buffer on the way holds, `POST /sum` with the body's length and [`digest`]. One request per
/// connection. Lives until the test process ends.
pub(crate) struct Web {
    address: SocketAddr,
    /// Bytes of bodies.
    received: Arc<AtomicUsize>,
}

impl Web {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let received = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&received);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                // A client that goes away in the middle of a request is for the test to notice, not
                // for us.
                let count = Arc::clone(&count);
                std::thread::spawn(move || stream.and_then(|stream| answer(stream, &count)));
            }
        });
        Web { address, received }
    }

    /// How many bytes of bodies have arrived so far.
    pub(crate) fn received(&self) -> usize {
        self.received.load(Ordering::Relaxed)
    }

    /// The URL of a path on this server.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

fn answer(stream: TcpStream, received: &AtomicUsize) -> std::io::Result<()> {
    let mut out = stream.try_clone()?;
    let mut input = BufReader::new(stream);
    let mut line = String::new();
    input.read_line(&mut line)?;
    let target = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut length = 0;
    loop {
        line.clear();
        input.read_line(&mut line)?;
        let field = line.trim_end().to_ascii_lowercase();
        if field.is_empty() {
            break;
        }
        if let Some(value) = field.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        if field.starts_with("expect:") {
            out.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
    }
    let mut body = vec![0; length];
    for part in body.chunks_mut(64 * 1024) {
        input.read_exact(part)?;
        received.fetch_add(part.len(), Ordering::Relaxed);
    }

    let head = |status: &str, length: u64| {
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")
    };
    if target == "/endless" {
        out.write_all(head("200 OK", 1 << 50).as_bytes())?;
        loop {
            out.write_all(&[b'x'; 64 * 1024])?;
        }
    }
    let unmeasured = target.strip_prefix("/unmeasured/");
    let count = target.strip_prefix("/bytes/").or(unmeasured).map(str::parse::<usize>);
    let Some(Ok(count)) = count else {
        let (status, content) = if target == "/sum" {
            ("200 OK", sum(&body))
        } else {
            ("404 Not Found", String::new())
        };
        return out.write_all((head(status, content.len() as u64) + &content).as_bytes());
    };
    let head = match unmeasured {
        None => head("200 OK", count as u64),
        Some(_) => "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_owned(),
    };
    out.write_all(head.as_bytes())?;
    // In parts, so that it begins at once.
    let mut part = vec![0; 64 * 1024];
    for offset in (0..count).step_by(part.len()) {
        let length = part.len().min(count - offset);
        fill(count as u64, offset, &mut part[..length]);
        out.write_all(&part[..length])?;
    }
    Ok(())
}

/// What `POST /sum` answers for this body.
pub(crate) fn sum(body: &[u8]) -> String {
    format!("{} {:016x}", body.len(), digest(body))
}
