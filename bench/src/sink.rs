//! The server behind the proxy. The first byte of a connection says what it is for:
//!
//! - `U`: read and discard all; at the end answer with the count (8 bytes, big endian)
//! - `D` and a number (8 bytes, big endian): send that many bytes, then close
//! - `E`: send everything back
//!
//! Where it is the backend of a site, HTTP requests come instead (see [`crate::backend`]).
//!
//! One thread serves all connections. Bytes to discard are taken with MSG_TRUNC, which for TCP
//! drops them in the kernel uncopied (tcp(7)): the load must not be what a proxy is measured by.
//! `--copy` reads them instead, as most real receivers do.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use rustix::event::epoll::EventFlags;
use rustix::net::{RecvFlags, SendFlags};

use crate::backend::Requests;
use crate::load::dial::head_end;
use crate::load::poller::{Poller, Ready};
use crate::load::source::{Send, Source};
use crate::{usage, while_doing};

pub(crate) const BUFFER: usize = 256 * 1024;
const BACKLOG: i32 = 4096;
const MAX_HEAD: usize = 16 * 1024;
/// How often a sink looks whether it should end.
const STOP_INTERVAL: Duration = Duration::from_millis(50);
const SWITCHING_PROTOCOLS: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Accept: cmluZ2dhdGUgYmVuY2ggc2luaw==\r\n\r\n";

#[derive(Args)]
pub(crate) struct Arguments {
    /// Address to listen on; may be given several times
    #[arg(long, value_name = "ADDR", required = true)]
    listen: Vec<SocketAddr>,
    /// Expect an HTTP upgrade first and answer it with a 101 at once
    #[arg(long)]
    upgrade: bool,
    /// Expect HTTP requests: GET /some/1024 for so many bytes, POST to have a body counted
    #[arg(long, conflicts_with = "upgrade")]
    http: bool,
    /// Read bytes to be discarded instead of having the kernel drop them
    #[arg(long)]
    copy: bool,
    /// How bulk is sent
    #[arg(long, value_enum, default_value_t)]
    send: Send,
    /// Run at a lower priority; 19 is the lowest
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..=19))]
    nice: Option<i32>,
    /// CPU that the sink runs on
    #[arg(long)]
    cpu: Option<usize>,
    /// The sink ends by itself after this many seconds
    #[arg(long, default_value = "3600", value_parser = crate::parse_seconds)]
    seconds: Duration,
}

pub(crate) fn main(arguments: &Arguments) -> io::Result<()> {
    if let Some(cpu) = arguments.cpu {
        usage::pin(cpu)?;
    }
    if let Some(nice) = arguments.nice {
        usage::be_nice(nice)?;
    }
    usage::raise_file_limit()?;
    let listeners: Vec<TcpListener> =
        arguments.listen.iter().map(|&address| listen(address)).collect::<io::Result<_>>()?;
    for listener in &listeners {
        println!("sink listening on {}", listener.local_addr()?);
    }
    let discard = discard(arguments.copy);
    let opening = match arguments {
        Arguments { upgrade: true, .. } => Opening::Upgrade,
        Arguments { http: true, .. } => Opening::Requests,
        _ => Opening::Command,
    };
    let manner = Manner { opening, discard, send: arguments.send, nice: None, discarded: None };
    serve(listeners, manner, Instant::now() + arguments.seconds)
}

/// What comes first on a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opening {
    /// The byte that says what the connection is for.
    Command,
    /// An upgrade request, and then the command.
    Upgrade,
    /// HTTP requests, and nothing else.
    Requests,
}

/// How a sink serves its connections.
#[derive(Clone, Copy)]
pub(crate) struct Manner {
    pub(crate) opening: Opening,
    /// How bytes to be discarded are received.
    pub(crate) discard: RecvFlags,
    /// How bulk is sent.
    pub(crate) send: Send,
    /// When it comes true, the thread that serves gives itself the lowest priority, for good: only
    /// the privileged could take it back.
    pub(crate) nice: Option<&'static AtomicBool>,
    /// Where bytes that were discarded are added up, beside the count of each connection.
    pub(crate) discarded: Option<&'static AtomicU64>,
}

/// Flags that receive bytes nobody will look at.
pub(crate) fn discard(copy: bool) -> RecvFlags {
    if copy { RecvFlags::empty() } else { RecvFlags::TRUNC }
}

/// Binds with a backlog that thousands of idle connections in a burst fit into.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener =
        TcpListener::bind(address).map_err(while_doing(format!("cannot listen on {address}")))?;
    // A second listen(2) on a listening socket only changes its backlog.
    rustix::net::listen(&listener, BACKLOG)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves every connection of the listeners until the deadline.
pub(crate) fn serve(
    listeners: Vec<TcpListener>,
    manner: Manner,
    deadline: Instant,
) -> io::Result<()> {
    serve_until(listeners, manner, deadline, &AtomicBool::new(false))
}

/// The same, and ends soon after somebody has said `stop`.
pub(crate) fn serve_until(
    listeners: Vec<TcpListener>,
    manner: Manner,
    deadline: Instant,
    stop: &AtomicBool,
) -> io::Result<()> {
    let mut nice = manner.nice;
    let mut poller = Poller::new()?;
    // The keys of the listeners count down from the top, those of connections up from 0.
    for (index, listener) in listeners.iter().enumerate() {
        poller.add(listener, usize::MAX - index, EventFlags::IN)?;
    }
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut free = Vec::new();
    let mut buffer = vec![0; BUFFER];
    let source = Source::new(manner.send)?;
    let mut ready = Ready::new();
    while !stop.load(Ordering::Relaxed) && Instant::now() < deadline {
        poller.wait_for(STOP_INTERVAL, &mut ready)?;
        if nice.take_if(|nice| nice.load(Ordering::Relaxed)).is_some() {
            usage::be_nice(19)?;
        }
        for &(key, _) in &ready {
            if let Some(listener) = listeners.get(usize::MAX - key) {
                accept(listener, manner.opening, &poller, &mut connections, &mut free)?;
                continue;
            }
            let Some(connection) = &mut connections[key] else { continue };
            let next = match connection.turn(&mut buffer, &source, &manner) {
                Ok(next) => next,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                // What goes wrong on one connection ends that connection: its client sees it.
                Err(_) => Next::Close,
            };
            match next {
                Next::Wait(wanted) if wanted == connection.wanted => {}
                Next::Wait(wanted) => {
                    connection.wanted = wanted;
                    poller.change(&connection.stream, key, wanted)?;
                }
                Next::Close => {
                    poller.remove(&connection.stream)?;
                    connections[key] = None;
                    free.push(key);
                }
            }
        }
    }
    Ok(())
}

fn accept(
    listener: &TcpListener,
    opening: Opening,
    poller: &Poller,
    connections: &mut Vec<Option<Connection>>,
    free: &mut Vec<usize>,
) -> io::Result<()> {
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            // The client went away while it waited in the backlog.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => return Err(error),
        };
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let key = free.pop().unwrap_or_else(|| {
            connections.push(None);
            connections.len() - 1
        });
        poller.add(&stream, key, EventFlags::IN)?;
        let job = match opening {
            Opening::Command => Job::Command(Vec::new()),
            Opening::Upgrade => Job::Head(Vec::new()),
            Opening::Requests => Job::Requests(Requests::default()),
        };
        connections[key] = Some(Connection { stream, job, wanted: EventFlags::IN });
    }
}

struct Connection {
    stream: TcpStream,
    job: Job,
    /// What epoll watches for; `serve` keeps both in step.
    wanted: EventFlags,
}

enum Job {
    /// The upgrade request, as far as it has come.
    Head(Vec<u8>),
    /// The command, as far as it has come.
    Command(Vec<u8>),
    Discard {
        count: u64,
    },
    Send {
        left: u64,
    },
    /// Bytes read and not yet sent back: nothing more is read before they are gone.
    Echo(Vec<u8>),
    Requests(Requests),
}

/// What a connection waits for after its turn.
pub(crate) enum Next {
    Wait(EventFlags),
    Close,
}

impl Connection {
    /// One turn: at most one buffer is moved, so that all connections get on alike.
    fn turn(&mut self, buffer: &mut [u8], source: &Source, manner: &Manner) -> io::Result<Next> {
        match &mut self.job {
            Job::Head(_) | Job::Command(_) => self.read_opening(buffer),
            Job::Discard { count } => {
                match rustix::net::recv(&self.stream, &mut *buffer, manner.discard)?.1 {
                    0 => {
                        let count = count.to_be_bytes();
                        rustix::net::send(&self.stream, &count, SendFlags::NOSIGNAL)?;
                        Ok(Next::Close)
                    }
                    length => {
                        *count += length as u64;
                        if let Some(discarded) = manner.discarded {
                            discarded.fetch_add(length as u64, Ordering::Relaxed);
                        }
                        Ok(Next::Wait(EventFlags::IN))
                    }
                }
            }
            Job::Send { left } => {
                let sent = source.send(&self.stream, *left, 0)?;
                *left -= sent as u64;
                if *left == 0 {
                    self.stream.shutdown(Shutdown::Write)?;
                    return Ok(Next::Close);
                }
                Ok(Next::Wait(EventFlags::OUT))
            }
            Job::Echo(pending) => echo(&self.stream, pending, buffer),
            Job::Requests(requests) => requests.turn(&self.stream, buffer, source, manner),
        }
    }

    /// Collects the head and the command, and turns to the job as soon as it is known.
    fn read_opening(&mut self, buffer: &mut [u8]) -> io::Result<Next> {
        let length = rustix::net::recv(&self.stream, &mut *buffer, RecvFlags::empty())?.1;
        if length == 0 {
            return Ok(Next::Close);
        }
        if let Job::Head(head) = &mut self.job {
            head.extend_from_slice(&buffer[..length]);
            let Some(end) = head_end(head) else {
                let too_long = head.len() > MAX_HEAD;
                return Ok(if too_long { Next::Close } else { Next::Wait(EventFlags::IN) });
            };
            let behind = head.split_off(end);
            rustix::net::send(&self.stream, SWITCHING_PROTOCOLS, SendFlags::NOSIGNAL)?;
            self.job = Job::Command(behind);
        } else if let Job::Command(command) = &mut self.job {
            command.extend_from_slice(&buffer[..length]);
        }
        let Job::Command(command) = &self.job else { return Ok(Next::Close) };
        let wanted = match (command.first(), command.get(1..9)) {
            (None, _) | (Some(b'D'), None) => EventFlags::IN,
            (Some(b'U'), _) => {
                self.job = Job::Discard { count: command.len() as u64 - 1 };
                EventFlags::IN
            }
            (Some(b'D'), Some(number)) => {
                let left = number.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte));
                self.job = Job::Send { left };
                EventFlags::OUT
            }
            (Some(b'E'), _) => {
                let pending = command[1..].to_vec();
                let wanted = if pending.is_empty() { EventFlags::IN } else { EventFlags::OUT };
                self.job = Job::Echo(pending);
                wanted
            }
            (Some(_), _) => return Ok(Next::Close),
        };
        Ok(Next::Wait(wanted))
    }
}

fn echo(stream: &TcpStream, pending: &mut Vec<u8>, buffer: &mut [u8]) -> io::Result<Next> {
    if pending.is_empty() {
        let length = rustix::net::recv(stream, &mut *buffer, RecvFlags::empty())?.1;
        if length == 0 {
            return Ok(Next::Close);
        }
        let sent = match rustix::net::send(stream, &buffer[..length], SendFlags::NOSIGNAL) {
            Err(rustix::io::Errno::AGAIN) => 0,
            other => other?,
        };
        pending.extend_from_slice(&buffer[sent..length]);
    } else {
        let sent = rustix::net::send(stream, pending, SendFlags::NOSIGNAL)?;
        pending.drain(..sent);
    }
    Ok(Next::Wait(if pending.is_empty() { EventFlags::IN } else { EventFlags::OUT }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::dial::dial;
    use crate::load::testing;
    use std::io::{Read, Write};

    #[test]
    fn uploads_are_counted_downloads_are_exact_and_echoes_come_back() {
        for upgrade in [false, true] {
            let target = testing::sink(upgrade);

            let mut up = dial(&target, b"Uab").unwrap().stream;
            up.write_all(&[7; 300_000]).unwrap();
            up.shutdown(Shutdown::Write).unwrap();
            let mut count = [0; 8];
            up.read_exact(&mut count).unwrap();
            assert_eq!(u64::from_be_bytes(count), 300_002);

            let command = [&b"D"[..], &1_000_000u64.to_be_bytes()].concat();
            let mut down = dial(&target, &command).unwrap();
            let mut rest = Vec::new();
            down.stream.read_to_end(&mut rest).unwrap();
            assert_eq!(down.early.len() + rest.len(), 1_000_000);

            let mut both = dial(&target, b"E").unwrap().stream;
            both.write_all(b"there and back").unwrap();
            let mut back = [0; 14];
            both.read_exact(&mut back).unwrap();
            assert_eq!(&back, b"there and back");
        }
    }

    #[test]
    fn several_addresses_are_served_until_somebody_says_stop() {
        let listeners: Vec<TcpListener> =
            (0..2).map(|_| listen("127.0.0.1:0".parse().unwrap()).unwrap()).collect();
        let addresses: Vec<SocketAddr> =
            listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
        let stop = AtomicBool::new(false);
        let (opening, discard, send) = (Opening::Command, discard(false), Send::Copy);
        static NICE: AtomicBool = AtomicBool::new(true);
        let manner = Manner { opening, discard, send, nice: Some(&NICE), discarded: None };
        let deadline = Instant::now() + Duration::from_secs(60);
        std::thread::scope(|scope| {
            let sink = scope.spawn(|| serve_until(listeners, manner, deadline, &stop));
            for address in addresses {
                let mut stream = dial(&testing::target(address, None), b"Eab").unwrap().stream;
                // Its sink is nice: it waits for all others on a busy CPU.
                stream.set_read_timeout(Some(Duration::from_secs(50))).unwrap();
                let mut back = [0; 2];
                stream.read_exact(&mut back).unwrap();
                assert_eq!(&back, b"ab");
            }
            stop.store(true, Ordering::Relaxed);
            sink.join().unwrap().unwrap();
        });
    }
}
