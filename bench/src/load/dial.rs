//! Opening the load's connections: plain, or through a WebSocket upgrade as simple-obfs asks for
//! it.
//!
//! The first bytes of every connection are a command to the sink. With an upgrade they travel as
//! the body of the request, and the rest waits for the 101: the one order that every proxy can
//! relay.

use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use clap::Args;

use super::tls::Certificate;
use super::wire::Wire;
use crate::while_doing;

/// How long one connect, or one step of a handshake, may take.
pub(crate) const STEP_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_HEAD: usize = 16 * 1024;

/// Where the load goes, and what is watched meanwhile.
#[derive(Args, Clone)]
pub(crate) struct Target {
    /// Address of the proxy, or of the sink itself
    #[arg(long, value_name = "ADDR")]
    pub(crate) connect: SocketAddr,
    /// Ask for a WebSocket upgrade on this path first, as simple-obfs does
    #[arg(long)]
    pub(crate) path: Option<String>,
    /// Ask as RFC 6455 has it, and put what is sent into frames as v2ray-plugin does
    #[arg(long, requires = "path")]
    pub(crate) framed: bool,
    /// Host named in the upgrade request
    #[arg(long, default_value = "live.example.com")]
    pub(crate) host: String,
    /// Speak TLS 1.3, to a proxy with this P-256 certificate (PEM) and no other
    #[arg(long, value_name = "FILE", value_parser = Certificate::read)]
    pub(crate) tls: Option<Certificate>,
    /// Process whose CPU time or memory is reported; several are added up
    #[arg(long = "pid", value_name = "PID")]
    pub(crate) pids: Vec<u32>,
    /// CPU that the load runs on
    #[arg(long)]
    pub(crate) cpu: Option<usize>,
    /// Print one JSON object instead of a line of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// A connection that has carried its command, and the bytes that came behind the 101 already.
pub(crate) struct Dialled<W = TcpStream> {
    pub(crate) stream: W,
    pub(crate) early: Vec<u8>,
}

impl Target {
    /// For the loads that have no use for an upgrade.
    pub(crate) fn must_not_upgrade(&self) -> io::Result<()> {
        match &self.path {
            None => Ok(()),
            Some(path) => Err(io::Error::other(format!("this load makes no upgrade on {path}"))),
        }
    }

    /// For the loads that do not speak TLS.
    pub(crate) fn must_be_plain(&self) -> io::Result<()> {
        if self.tls.is_some() {
            return Err(io::Error::other("this load does not speak TLS"));
        }
        Ok(())
    }
}

/// A blocking stream, none of whose steps takes for ever.
pub(crate) fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, STEP_TIMEOUT)
        .map_err(while_doing(format!("cannot connect to {address}")))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(STEP_TIMEOUT))?;
    stream.set_write_timeout(Some(STEP_TIMEOUT))?;
    Ok(stream)
}

/// Makes one plain connection: connects, upgrades when the target has a path, and sends the
/// command. The stream is blocking.
pub(crate) fn dial(target: &Target, command: &[u8]) -> io::Result<Dialled> {
    target.must_be_plain()?;
    dial_by(&(), target, command)
}

/// Makes one connection of any kind in the same way.
pub(crate) fn dial_by<W: Wire>(
    dialler: &W::Dialler,
    target: &Target,
    command: &[u8],
) -> io::Result<Dialled<W>> {
    let address = target.connect;
    let mut stream = W::connect(dialler, target)?;
    let Some(path) = &target.path else {
        stream.write_all(command)?;
        return Ok(Dialled { stream, early: Vec::new() });
    };
    let request = if target.framed {
        websocket_request(path, &target.host)
    } else {
        upgrade_request(path, &target.host, command)
    };
    stream.write_all(&request)?;
    let early = read_switching_protocols(&mut stream)
        .map_err(while_doing(format!("upgrade on {path} at {address}")))?;
    if target.framed {
        stream.write_all(&frame(command))?;
    }
    Ok(Dialled { stream, early })
}

/// Payload in one frame of a client. The mask is all zeroes, which leaves the bytes as they are,
/// and leaves whoever takes it off none the wiser.
pub(crate) fn frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x82];
    match payload.len() {
        length @ 0..=125 => frame.push(0x80 | length as u8),
        length => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

/// The request of v2ray-plugin.
fn websocket_request(path: &str, host: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: Go-http-client/1.1\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Key: cmluZ2dhdGUgYmVuY2ghIQ==\r\n\
         Sec-WebSocket-Version: 13\r\nUpgrade: websocket\r\n\r\n"
    )
    .into_bytes()
}

/// The request of simple-obfs: no version, and a length that covers the first chunk alone.
fn upgrade_request(path: &str, host: &str, first_chunk: &[u8]) -> Vec<u8> {
    let length = first_chunk.len();
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: curl/7.88.1\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Key: cmluZ2dhdGUgYmVuY2ghIQ==\r\n\
         Content-Length: {length}\r\n\r\n"
    );
    [head.as_bytes(), first_chunk].concat()
}

/// Reads the answer up to the end of its head, and returns what came behind it.
fn read_switching_protocols(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    while answer.len() < MAX_HEAD {
        let length = stream.read(&mut chunk)?;
        if length == 0 {
            return Err(io::Error::other("closed before the end of the answer's head"));
        }
        answer.extend_from_slice(&chunk[..length]);
        let Some(end) = head_end(&answer) else { continue };
        if !answer.starts_with(b"HTTP/1.1 101 ") {
            let line = answer.split(|&byte| byte == b'\r').next().unwrap_or_default();
            let line = String::from_utf8_lossy(line).into_owned();
            return Err(io::Error::other(format!("answered with {line}")));
        }
        return Ok(answer.split_off(end));
    }
    Err(io::Error::other("the answer's head is too long"))
}

/// Where the first byte behind a head is.
pub(crate) fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|start| start + 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_carries_the_command_as_its_body() {
        let request = upgrade_request("/stream", "live.example.com", b"U");
        let end = head_end(&request).unwrap();
        assert_eq!(&request[end..], b"U");
        let head = std::str::from_utf8(&request[..end]).unwrap();
        assert!(head.starts_with("GET /stream HTTP/1.1\r\nHost: live.example.com\r\n"));
        assert!(head.contains("\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"));
        assert!(head.contains("\r\nContent-Length: 1\r\n"));
    }
}
