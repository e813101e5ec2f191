//! A web application with persistent connections: what it sends and receives can be checked to the
//! byte.

use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::bytes;
use super::web::sum;

/// `GET /bytes/N` gets [`bytes`]`(N, N)` with its length, `/chunks/N` the same in chunks of several
/// sizes, with extensions and trailers, `/close/N` the same up to the end of the connection; any
/// other path gets [`sum`] of the body of the request. Lives until the test process ends.
pub(crate) struct Application {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Application {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::Relaxed);
                // What goes wrong is for the test to notice.
                std::thread::spawn(move || serve(stream));
            }
        });
        Application { address, connections }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections it has taken.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

fn serve(stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut out = stream.try_clone()?;
    let mut input = BufReader::new(stream);
    loop {
        let mut lines = Vec::new();
        loop {
            let line = line(&mut input)?;
            if line.is_empty() {
                break;
            }
            lines.push(line);
        }
        let Some(first) = lines.first() else { return Ok(()) };
        let mut words = first.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let field = |name: &str| {
            let named = lines.iter().filter_map(|line| line.split_once(": "));
            let mut named = named.filter(|(field, _)| field.eq_ignore_ascii_case(name));
            named.next().map(|(_, value)| value)
        };
        if field("expect").is_some() {
            out.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let body = match field("content-length") {
            Some(length) => {
                let mut body = vec![0; length.parse().map_err(Error::other)?];
                input.read_exact(&mut body)?;
                body
            }
            None if field("transfer-encoding").is_some() => chunks(&mut input)?,
            None => Vec::new(),
        };

        let mut parts = path.split('/').skip(1);
        let kind = parts.next().unwrap_or_default();
        let count = parts.next().and_then(|count| count.parse().ok()).unwrap_or(0);
        let content = match kind {
            "bytes" | "chunks" | "close" => bytes(count as u64, count),
            _ => sum(&body).into_bytes(),
        };
        let framing = match kind {
            "chunks" => "Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n".to_owned(),
            "close" => String::new(),
            _ => format!("Content-Length: {}\r\n", content.len()),
        };
        out.write_all(format!("HTTP/1.1 200 OK\r\nServer: own\r\n{framing}\r\n").as_bytes())?;
        if method == "HEAD" {
            continue;
        }
        if kind == "chunks" {
            send_chunks(&content, &mut out)?;
        } else {
            out.write_all(&content)?;
        }
        if kind == "close" {
            return Ok(());
        }
    }
}

fn send_chunks(content: &[u8], out: &mut TcpStream) -> Result<()> {
    let (mut rest, mut size) = (content, 1);
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(size.min(rest.len()));
        let mut piece = format!("000{:X};name=\"value\"\r\n", chunk.len()).into_bytes();
        piece.extend_from_slice(chunk);
        piece.extend_from_slice(b"\r\n");
        out.write_all(&piece)?;
        rest = after;
        size = (size * 3 + 1) % 100_003;
    }
    out.write_all(b"0\r\nX-Sum: 1\r\nX-Other: 2\r\n\r\n")
}

fn chunks(input: &mut impl BufRead) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let size = usize::from_str_radix(&line(input)?, 16).map_err(Error::other)?;
        let start = body.len();
        body.resize(start + size, 0);
        input.read_exact(&mut body[start..])?;
        if !line(input)?.is_empty() {
            return Err(ErrorKind::InvalidData.into());
        }
        if size == 0 {
            return Ok(body);
        }
    }
}

/// The next line without its end; empty at the end of the connection.
fn line(input: &mut impl BufRead) -> Result<String> {
    let mut line = String::new();
    input.read_line(&mut line)?;
    Ok(line.trim_end_matches("\r\n").to_owned())
}
