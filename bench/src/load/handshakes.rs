//! Connections that live for one TLS handshake and one exchange: connect, shake hands, send a small
//! message with the Finished, read it back, close, again.
//!
//! Every lane does this on its own, in one epoll loop. Full handshakes never offer a ticket,
//! resumed ones always do and use each ticket once. A handshake of the other kind ends the run, as
//! any other error does. The first connection of each lane is not counted: in a run of resumed
//! handshakes it fetches the tickets.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use clap::Args;
use rustix::event::epoll::EventFlags;
use rustix::net::RecvFlags;
use rustls::HandshakeKind;
use rustls::client::ClientConnection;

use super::churn::Sources;
use super::dial::{STEP_TIMEOUT, Target};
use super::exchange::Answer;
use super::histogram::Histogram;
use super::poller::{Poller, Ready};
use super::tls::{Client, Manner, Socket, Stream, check, decrypt};
use super::wire::Wire;
use super::{Meter, Outcome};
use crate::while_doing;

/// Bytes that go to the sink and back.
const MESSAGE: usize = 100;
/// Between two looks at whether all lanes have had their first connection.
const SLICE: Duration = Duration::from_millis(10);
/// What one receive can take: the server's whole flight.
const SCRATCH: usize = 32 * 1024;

#[derive(Args, Clone)]
pub(crate) struct Load {
    /// Connections in flight at any time
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub(crate) connections: u16,
    /// Resume a session by a ticket instead of making full handshakes
    #[arg(long)]
    pub(crate) resumed: bool,
    /// Length of the timed interval
    #[arg(long, default_value = "5", value_parser = crate::parse_seconds)]
    pub(crate) seconds: Duration,
    /// Seconds of load before the timed interval
    #[arg(long, default_value = "0.5", value_parser = crate::parse_seconds)]
    pub(crate) warmup: Duration,
}

/// Keeps so many connections in flight and counts those that had their handshake and their answer.
pub(crate) fn run(target: &Target, load: &Load) -> io::Result<Outcome> {
    target.must_not_upgrade()?;
    // The rest of the run does not verify signatures.
    Stream::connect(&Stream::dialler(target)?, target)?;
    let mut handshakes = Handshakes::new(target, load.resumed)?;
    for key in 0..usize::from(load.connections) {
        let lane = handshakes.begin(key, true)?;
        handshakes.lanes.push(lane);
    }
    let deadline = Instant::now() + STEP_TIMEOUT;
    while handshakes.lanes.iter().any(|lane| lane.is_first) {
        if Instant::now() >= deadline {
            return Err(io::Error::other("the first handshakes do not end"));
        }
        handshakes.run_until(Instant::now() + SLICE)?;
    }
    handshakes.run_until(Instant::now() + load.warmup)?;
    handshakes.completed = 0;
    handshakes.latency = Histogram::new();
    let meter = Meter::start(target)?;
    handshakes.run_until(meter.start + load.seconds)?;
    meter.stop(handshakes.completed, Some(handshakes.latency))
}

struct Handshakes {
    lanes: Vec<Lane>,
    target: Target,
    client: Client,
    resumed: bool,
    sources: Sources,
    poller: Poller,
    message: Vec<u8>,
    answer: Answer,
    scratch: Vec<u8>,
    completed: u64,
    latency: Histogram,
}

struct Lane {
    socket: OwnedFd,
    session: Box<ClientConnection>,
    began: Instant,
    is_first: bool,
    /// What epoll watches for.
    wanted: EventFlags,
    /// Bytes of the answer that are here.
    back: usize,
}

impl Lane {
    /// Sends the records that wait, as far as the socket takes them, and returns what to wait for.
    fn flush(&mut self) -> io::Result<EventFlags> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut Socket(&self.socket)) {
                Ok(_) => {}
                // Also as long as the connection is not there yet.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(EventFlags::OUT);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(EventFlags::IN)
    }
}

impl Handshakes {
    fn new(target: &Target, resumed: bool) -> io::Result<Self> {
        let payload = vec![0x5a; MESSAGE];
        let manner = if resumed { Manner::Resume } else { Manner::Trust };
        Ok(Self {
            lanes: Vec::new(),
            target: target.clone(),
            client: Client::new(target, manner)?,
            resumed,
            sources: Sources::new(target.connect),
            poller: Poller::new()?,
            message: [&b"E"[..], &payload].concat(),
            answer: Answer { length: payload.len(), start: payload },
            scratch: vec![0; SCRATCH],
            completed: 0,
            latency: Histogram::new(),
        })
    }

    /// Connects without waiting, and sends the hello at once if that is possible.
    fn begin(&mut self, key: usize, is_first: bool) -> io::Result<Lane> {
        let to = self.target.connect;
        let doing = while_doing(format!("lane {key} cannot connect to {to}"));
        let (socket, began) = self.sources.connect(to).map_err(doing)?;
        let mut session = Box::new(self.client.session()?);
        // rustls keeps it until the handshake is complete, and sends it with the Finished.
        io::Write::write_all(&mut session.writer(), &self.message)?;
        let wanted = EventFlags::IN;
        let mut lane = Lane { socket, session, began, is_first, wanted, back: 0 };
        lane.wanted = lane.flush().map_err(|error| self.explain(key, &lane, error))?;
        self.poller.add(&lane.socket, key, lane.wanted)?;
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
                    self.lanes[key] = self.begin(key, false)?;
                }
            }
        }
        Ok(())
    }

    /// One step of one connection; true when it has had its answer.
    fn turn(&mut self, key: usize) -> io::Result<bool> {
        let lane = &mut self.lanes[key];
        if lane.wanted == EventFlags::IN {
            let arrived = &mut self.scratch[..];
            let length = rustix::net::recv(&lane.socket, &mut *arrived, RecvFlags::empty())?.1;
            if length == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let (answer, back) = (&self.answer, &mut lane.back);
            decrypt(&mut lane.session, &arrived[..length], |piece| {
                *back = answer.check(*back, piece)?;
                Ok(())
            })?;
        }
        let done = lane.back == self.answer.length;
        if done {
            let resumed = self.resumed && !lane.is_first;
            let kind = if resumed { HandshakeKind::Resumed } else { HandshakeKind::Full };
            check(&lane.session, kind)?;
            self.latency.record(lane.began.elapsed());
            self.completed += 1;
            lane.session.send_close_notify();
        }
        let wanted = lane.flush()?;
        if !done && wanted != lane.wanted {
            lane.wanted = wanted;
            self.poller.change(&lane.socket, key, wanted)?;
        }
        Ok(done)
    }

    /// Says what was going on and where.
    fn explain(&self, key: usize, lane: &Lane, error: io::Error) -> io::Error {
        let at = if lane.session.is_handshaking() {
            "in its handshake".to_string()
        } else {
            format!("with {} of {MESSAGE} bytes of the answer", lane.back)
        };
        let (to, number) = (self.target.connect, self.completed);
        while_doing(format!("lane {key} to {to} {at}, after {number} handshakes"))(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::testing::{self, Offer};

    fn load(resumed: bool) -> Load {
        let (seconds, warmup) = (Duration::from_millis(400), Duration::from_millis(20));
        // More than rustls' own store has tickets for.
        Load { connections: 24, resumed, seconds, warmup }
    }

    #[test]
    fn full_and_resumed_handshakes_are_made_and_counted() {
        for offer in [Offer::Right, Offer::OneTicket] {
            let target = testing::tls(offer);
            for resumed in [false, true] {
                let outcome = run(&target, &load(resumed)).unwrap();
                assert!(outcome.units > 10, "{offer:?}, resumed: {resumed}");
                assert!(outcome.latency.unwrap().quantile_us(0.5) > 1.0);
            }
        }
    }

    #[test]
    fn a_run_of_resumed_handshakes_with_a_full_one_fails() {
        let error = run(&testing::tls(Offer::NoTickets), &load(true)).err().unwrap().to_string();
        assert!(error.contains("Some(Full)") && error.contains("Some(Resumed)"), "{error}");
    }
}
