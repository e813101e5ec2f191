//! Connections that live for one exchange: connect, ask, read the whole answer, close, again.
//!
//! Every lane does this on its own, in one epoll loop. The clock of a connection runs from connect
//! to the last byte of its answer. Whatever ends a connection early ends the run.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::str::FromStr;
use std::time::{Duration, Instant};

use clap::Args;
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use socket2::{Domain, Socket, Type};

use super::dial::Target;
use super::exchange::Answer;
use super::histogram::Histogram;
use super::poller::{Poller, Ready};
use super::{Meter, Outcome, http};
use crate::while_doing;

#[derive(Args, Clone)]
pub(crate) struct Load {
    /// Connections in flight at any time
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub(crate) connections: u16,
    /// What each connection is for: redirect, or echo:SIZE of at most 16384 bytes
    #[arg(long, default_value = "echo:100")]
    pub(crate) kind: Kind,
    /// Length of the timed interval
    #[arg(long, default_value = "5", value_parser = crate::parse_seconds)]
    pub(crate) seconds: Duration,
    /// Seconds of load before the timed interval
    #[arg(long, default_value = "0.5", value_parser = crate::parse_seconds)]
    pub(crate) warmup: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// A message to the sink and back; the client closes first.
    Echo { size: u16 },
    /// A request that the proxy answers with a 301; the proxy closes first.
    Redirect,
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let size = text.strip_prefix("echo:").and_then(|size| size.parse().ok());
        match (text, size) {
            ("redirect", _) => Ok(Self::Redirect),
            (_, Some(size)) if (1..=16_384).contains(&size) => Ok(Self::Echo { size }),
            _ => Err("must be redirect, or echo: and a size from 1 to 16384".to_string()),
        }
    }
}

/// Keeps so many connections in flight and counts those that had their answer.
pub(crate) fn run(target: &Target, load: &Load) -> io::Result<Outcome> {
    target.must_not_upgrade()?;
    target.must_be_plain()?;
    let mut churn = Churn::new(target, load.kind)?;
    for key in 0..usize::from(load.connections) {
        let lane = churn.begin(key)?;
        churn.lanes.push(lane);
    }
    churn.run_until(Instant::now() + load.warmup)?;
    churn.completed = 0;
    churn.latency = Histogram::new();
    let meter = Meter::start(target)?;
    churn.run_until(meter.start + load.seconds)?;
    meter.stop(churn.completed, Some(churn.latency))
}

struct Churn {
    lanes: Vec<Lane>,
    connect: SocketAddr,
    sources: Sources,
    poller: Poller,
    message: Vec<u8>,
    answer: Answer,
    /// The end of the connection ends the answer.
    to_the_end: bool,
    buffer: Vec<u8>,
    completed: u64,
    latency: Histogram,
}

struct Lane {
    socket: OwnedFd,
    began: Instant,
    sent: bool,
    /// Bytes of the answer that are here, and since when.
    back: usize,
    last: Instant,
}

impl Lane {
    /// Sends the message, unless the connection is not there yet.
    fn ask(&mut self, message: &[u8]) -> io::Result<()> {
        match rustix::net::send(&self.socket, message, SendFlags::NOSIGNAL) {
            Ok(sent) if sent == message.len() => self.sent = true,
            Ok(_) => return Err(io::Error::other("the socket took only a part of the message")),
            Err(Errno::AGAIN) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

impl Churn {
    fn new(target: &Target, kind: Kind) -> io::Result<Self> {
        let (message, answer) = match kind {
            Kind::Echo { size } => {
                let payload = vec![0x5a; size.into()];
                let message = [&b"E"[..], &payload].concat();
                (message, Answer { length: payload.len(), start: payload })
            }
            Kind::Redirect => {
                let request = http::Request::redirect();
                (request.bytes(&target.host, true), request.learn::<TcpStream>(target, true)?)
            }
        };
        Ok(Self {
            lanes: Vec::new(),
            connect: target.connect,
            sources: Sources::new(target.connect),
            poller: Poller::new()?,
            message,
            buffer: vec![0; answer.length + 1],
            answer,
            to_the_end: kind == Kind::Redirect,
            completed: 0,
            latency: Histogram::new(),
        })
    }

    /// Connects without waiting, and asks at once if that is possible: over loopback it mostly is.
    fn begin(&mut self, key: usize) -> io::Result<Lane> {
        let doing = while_doing(format!("lane {key} cannot connect to {}", self.connect));
        let (socket, began) = self.sources.connect(self.connect).map_err(doing)?;
        let mut lane = Lane { socket, began, sent: false, back: 0, last: began };
        lane.ask(&self.message).map_err(|error| self.explain(key, &lane, error))?;
        let wanted = if lane.sent { EventFlags::IN } else { EventFlags::OUT };
        self.poller.add(&lane.socket, key, wanted)?;
        Ok(lane)
    }

    fn run_until(&mut self, deadline: Instant) -> io::Result<()> {
        let mut ready = Ready::new();
        while self.poller.wait(deadline, &mut ready)? {
            for &(key, _) in &ready {
                let done =
                    self.turn(key).map_err(|error| self.explain(key, &self.lanes[key], error))?;
                if done {
                    // Replacing the socket closes the old one, and epoll forgets it.
                    self.lanes[key] = self.begin(key)?;
                }
            }
        }
        Ok(())
    }

    /// One step of one connection; true when it has had its answer.
    fn turn(&mut self, key: usize) -> io::Result<bool> {
        let lane = &mut self.lanes[key];
        if !lane.sent {
            lane.ask(&self.message)?;
            if lane.sent {
                self.poller.change(&lane.socket, key, EventFlags::IN)?;
            }
            return Ok(false);
        }
        let length = match rustix::net::recv(&lane.socket, &mut self.buffer[..], RecvFlags::empty())
        {
            Ok((_, length)) => length,
            Err(Errno::AGAIN) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        if length > 0 {
            lane.back = self.answer.check(lane.back, &self.buffer[..length])?;
            lane.last = Instant::now();
        }
        let complete = lane.back == self.answer.length;
        if length == 0 && !complete {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let done = complete && (length == 0 || !self.to_the_end);
        if done {
            self.latency.record(lane.last - lane.began);
            self.completed += 1;
        }
        Ok(done)
    }

    /// Says what was going on and where.
    fn explain(&self, key: usize, lane: &Lane, error: io::Error) -> io::Error {
        let (connect, back, all) = (self.connect, lane.back, self.answer.length);
        let at = if lane.sent {
            format!("with {back} of {all} bytes of the answer")
        } else {
            "before the request was sent".to_string()
        };
        let number = self.completed;
        while_doing(format!("lane {key} to {connect} {at}, after {number} connections"))(error)
    }
}

/// The addresses and ports that connections come from.
///
/// A closed connection occupies its port for a minute. Over loopback there are more addresses than
/// one, so the load goes round several of them, and round ports outside the range that the kernel
/// gives the proxy for its own connections: a port that was bound on purpose is one that connect(2)
/// passes over in its search.
pub(super) struct Sources {
    /// Going round makes sense at all.
    loopback: bool,
    next: u32,
}

impl Sources {
    const ADDRESSES: u32 = 8;
    const FIRST_PORT: u32 = 10_240;
    /// The kernel's own range begins at 32768.
    const PORTS: u32 = 32_768 - Self::FIRST_PORT;
    /// So many ports in a row that are taken are no accident.
    const TRIES: u32 = 1000;

    pub(super) fn new(connect: SocketAddr) -> Self {
        let loopback = matches!(connect.ip(), IpAddr::V4(address) if address.is_loopback());
        // Two runs in a row do not begin with the same ports.
        Self { loopback, next: std::process::id() % Self::PORTS * Self::ADDRESSES }
    }

    /// A socket that is connecting, and when it began to.
    pub(super) fn connect(&mut self, to: SocketAddr) -> io::Result<(OwnedFd, Instant)> {
        let taken = [ErrorKind::AddrInUse, ErrorKind::AddrNotAvailable];
        let mut last = ErrorKind::AddrInUse.into();
        for _ in 0..Self::TRIES {
            match self.try_connect(to) {
                Err(error) if taken.contains(&error.kind()) => last = error,
                result => return result,
            }
        }
        Err(while_doing("no port is free")(last))
    }

    fn try_connect(&mut self, to: SocketAddr) -> io::Result<(OwnedFd, Instant)> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM.nonblocking(), None)?;
        if self.loopback {
            // A port whose last connection is still being remembered may be used again.
            socket.set_reuse_address(true)?;
            socket.bind(&self.next_source().into())?;
        }
        let began = Instant::now();
        match socket.connect(&to.into()) {
            Err(error) if Errno::from_io_error(&error) != Some(Errno::INPROGRESS) => Err(error),
            _ => Ok((socket.into(), began)),
        }
    }

    fn next_source(&mut self) -> SocketAddr {
        let number = self.next;
        self.next = (self.next + 1) % (Self::ADDRESSES * Self::PORTS);
        let last_byte = (number % Self::ADDRESSES + 1) as u8;
        let port = (Self::FIRST_PORT + number / Self::ADDRESSES) as u16;
        ([127, 0, 0, last_byte], port).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::testing;

    fn load(kind: Kind) -> Load {
        let (seconds, warmup) = (Duration::from_millis(400), Duration::from_millis(20));
        Load { connections: 8, kind, seconds, warmup }
    }

    #[test]
    fn kinds_are_read_from_the_command_line() {
        assert_eq!("redirect".parse(), Ok(Kind::Redirect));
        assert_eq!("echo:7".parse(), Ok(Kind::Echo { size: 7 }));
        for wrong in ["echo", "echo:0", "echo:16385", "bulk"] {
            assert!(wrong.parse::<Kind>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn connections_are_made_answered_and_counted() {
        let outcome = run(&testing::sink(false), &load(Kind::Echo { size: 100 })).unwrap();
        assert!(outcome.units > 10);
        assert!(outcome.latency.unwrap().quantile_us(0.5) > 1.0);
        let target = testing::http("HTTP/1.1 301 Moved\r\nContent-Length: 2\r\n\r\nab");
        assert!(run(&target, &load(Kind::Redirect)).unwrap().units > 10);
    }

    #[test]
    fn what_goes_wrong_on_one_connection_ends_the_run() {
        let error = run(&testing::unused_address(), &load(Kind::Echo { size: 1 })).err().unwrap();
        assert!(error.to_string().contains("before the request was sent"), "{error}");
        // This server answers with other bytes than were sent.
        let error = run(&testing::http("no echo"), &load(Kind::Echo { size: 7 })).err().unwrap();
        assert!(error.to_string().contains("lane "), "{error}");
        let error = run(&testing::http("HTTP/1.1 500 No\r\n\r\n"), &load(Kind::Redirect));
        assert!(error.err().unwrap().to_string().contains("HTTP/1.1 500 No"));
    }

    #[test]
    fn sources_go_round_all_addresses_before_a_port_comes_again() {
        let mut sources = Sources { loopback: true, next: 0 };
        let first = sources.next_source();
        assert_eq!(first, "127.0.0.1:10240".parse().unwrap());
        let rest: Vec<_> =
            (1..Sources::ADDRESSES * Sources::PORTS).map(|_| sources.next_source()).collect();
        assert_eq!(rest.last(), Some(&"127.0.0.8:32767".parse().unwrap()));
        assert!(!rest.contains(&first));
        assert_eq!(sources.next_source(), first);
    }
}
