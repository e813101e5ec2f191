//! Large bodies by HTTP/1.1: each connection asks for one after another, or sends them so.
//!
//! Bytes of bodies are counted as they move. Every answer is looked at: its status, its length, and
//! behind an upload the number of bytes that have arrived.

use std::io;
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use rustix::event::epoll::EventFlags;

use super::bulk::Direction;
use super::dial::{STEP_TIMEOUT, Target, head_end};
use super::http::{check_status, expected_length};
use super::poller::{Poller, Ready};
use super::source::{Send, Source};
use super::wire::Wire;
use super::{Meter, Outcome, tls};
use crate::sink::{BUFFER, discard};
use crate::while_doing;

/// The longest head, and the longest answer to an upload.
const MAX_HEAD: usize = 16 * 1024;

/// Between two looks at whether an answer has come.
const SLICE: Duration = Duration::from_millis(10);

#[derive(Args, Clone)]
pub(crate) struct Load {
    #[arg(long, value_enum)]
    pub(crate) direction: Direction,
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub(crate) connections: u16,
    /// Path of the requests; a download of --size bytes must be behind it
    #[arg(long, value_name = "PATH")]
    pub(crate) ask: String,
    /// Bytes of a body
    #[arg(long, default_value_t = 10 << 20)]
    pub(crate) size: u64,
    /// Length of the timed interval
    #[arg(long, default_value = "5", value_parser = crate::parse_seconds)]
    pub(crate) seconds: Duration,
    /// Seconds of load before the timed interval
    #[arg(long, default_value = "0.5", value_parser = crate::parse_seconds)]
    pub(crate) warmup: Duration,
    /// How an upload is sent
    #[arg(long, value_enum, default_value_t)]
    pub(crate) send: Send,
}

/// Keeps one transfer under way on each connection.
pub(crate) fn run(target: &Target, load: &Load) -> io::Result<Outcome> {
    run_counting(target, load, None)
}

/// The same, where uploads are known by what has arrived, if anybody counts that.
pub(crate) fn run_counting(
    target: &Target,
    load: &Load,
    arrived: Option<&AtomicU64>,
) -> io::Result<Outcome> {
    target.must_not_upgrade()?;
    match target.tls {
        None => run_over::<TcpStream>(target, load, arrived),
        Some(_) => run_over::<tls::Stream>(target, load, arrived),
    }
}

fn run_over<W: Wire>(
    target: &Target,
    load: &Load,
    arrived: Option<&AtomicU64>,
) -> io::Result<Outcome> {
    let send = if target.tls.is_some() { Send::Copy } else { load.send };
    let mut transfers = Transfers::<W>::new(send)?;
    transfers.open(target, load.direction, load.connections, &load.ask, load.size)?;
    transfers.move_until(Instant::now() + load.warmup)?;
    let arrived = arrived.filter(|_| load.direction == Direction::Up);
    let moved =
        |all: &Transfers<W>| arrived.map_or(all.moved, |bytes| bytes.load(Ordering::Relaxed));
    let before = moved(&transfers);
    let meter = Meter::start(target)?;
    transfers.move_until(meter.start + load.seconds)?;
    let outcome = meter.stop(moved(&transfers) - before, None)?;
    transfers.finish()?;
    Ok(outcome)
}

/// Connections with one transfer under way each.
pub(crate) struct Transfers<W> {
    lanes: Vec<Lane<W>>,
    poller: Poller,
    /// For heads, and for what comes with them.
    buffer: Vec<u8>,
    scratch: Vec<u8>,
    source: Source,
    /// Bytes of bodies over all lanes.
    pub(crate) moved: u64,
    /// Uploads that were confirmed, and downloads that were begun.
    answers: u64,
}

struct Lane<W> {
    stream: W,
    request: Vec<u8>,
    direction: Direction,
    size: u64,
    state: State,
    wanted: EventFlags,
}

enum State {
    /// The body of an upload.
    Sending { left: u64 },
    /// What has come of an answer: its head, and all of an answer to an upload.
    Answer(Vec<u8>),
    /// The body of a download.
    Receiving { left: u64 },
}

impl<W: Wire> Transfers<W> {
    pub(crate) fn new(send: Send) -> io::Result<Self> {
        Ok(Self {
            lanes: Vec::new(),
            poller: Poller::new()?,
            // Records that arrive together must fit.
            buffer: vec![0; MAX_HEAD.max(2 * W::SCRATCH)],
            scratch: vec![0; BUFFER.max(W::SCRATCH)],
            source: Source::new(send)?,
            moved: 0,
            answers: 0,
        })
    }

    /// Opens more connections and begins a transfer on each.
    pub(crate) fn open(
        &mut self,
        target: &Target,
        direction: Direction,
        connections: u16,
        path: &str,
        size: u64,
    ) -> io::Result<()> {
        let host = &target.host;
        let request = match direction {
            Direction::Down => format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            Direction::Up => {
                format!("POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {size}\r\n\r\n")
            }
        };
        let request = request.into_bytes();
        let dialler = W::dialler(target)?;
        for _ in 0..connections {
            let stream = W::connect(&dialler, target)?;
            stream.socket().set_nonblocking(true)?;
            let (request, state) = (request.clone(), State::Answer(Vec::new()));
            let wanted = EventFlags::IN;
            self.poller.add(&stream, self.lanes.len(), wanted)?;
            let mut lane = Lane { stream, request, direction, size, state, wanted };
            lane.begin()?;
            self.lanes.push(lane);
            self.watch(self.lanes.len() - 1)?;
        }
        Ok(())
    }

    /// Moves bytes until the time is up.
    pub(crate) fn move_until(&mut self, deadline: Instant) -> io::Result<()> {
        let mut ready = Ready::new();
        while self.poller.wait(deadline, &mut ready)? {
            for &(key, _) in &ready {
                let turn = self.turn(key).and_then(|()| self.watch(key));
                turn.map_err(while_doing(format!("connection {key}")))?;
            }
        }
        Ok(())
    }

    /// One buffer on one lane.
    fn turn(&mut self, key: usize) -> io::Result<()> {
        let lane = &mut self.lanes[key];
        match lane.turn(&mut self.buffer, &mut self.scratch, &self.source) {
            Ok(Turn { moved, answered }) => {
                self.moved += moved;
                self.answers += u64::from(answered);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Has the poller wait for what the lane needs.
    fn watch(&mut self, key: usize) -> io::Result<()> {
        let lane = &mut self.lanes[key];
        let wanted = match lane.state {
            State::Sending { .. } => EventFlags::OUT,
            State::Answer(_) | State::Receiving { .. } => EventFlags::IN,
        };
        if wanted != lane.wanted {
            lane.wanted = wanted;
            self.poller.change(&lane.stream, key, wanted)?;
        }
        Ok(())
    }

    /// Ends all transfers where they are, as soon as one answer was looked at.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        let deadline = Instant::now() + STEP_TIMEOUT;
        while self.answers == 0 {
            if Instant::now() >= deadline {
                return Err(io::Error::other("not one answer comes"));
            }
            self.move_until(Instant::now() + SLICE)?;
        }
        Ok(())
    }
}

/// What a turn has done.
#[derive(Default)]
struct Turn {
    /// Bytes of bodies.
    moved: u64,
    /// An answer was looked at.
    answered: bool,
}

impl<W: Wire> Lane<W> {
    /// Sends the head of the next request.
    fn begin(&mut self) -> io::Result<()> {
        // The socket is empty between two transfers.
        if self.stream.send(&self.request)? < self.request.len() {
            return Err(io::Error::other("the socket took only a part of a head"));
        }
        self.state = match self.direction {
            Direction::Up => State::Sending { left: self.size },
            Direction::Down => State::Answer(Vec::new()),
        };
        Ok(())
    }

    fn turn(&mut self, buffer: &mut [u8], scratch: &mut [u8], source: &Source) -> io::Result<Turn> {
        match &mut self.state {
            State::Sending { left } => {
                let sent = self.stream.send_bulk(source, *left, self.size - *left)? as u64;
                *left -= sent;
                if *left == 0 && !self.stream.is_sending() {
                    self.state = State::Answer(Vec::new());
                }
                Ok(Turn { moved: sent, answered: false })
            }
            State::Answer(answer) => {
                let length = self.stream.receive(buffer, &mut scratch[..W::SCRATCH])?;
                if length == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                answer.extend_from_slice(&buffer[..length]);
                self.look_at_answer()
            }
            State::Receiving { left } => {
                let length = self.stream.discard(scratch, discard(false))? as u64;
                if length == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                let too_much = || io::Error::other("more came than the answer's length says");
                *left = left.checked_sub(length).ok_or_else(too_much)?;
                if *left == 0 {
                    self.begin()?;
                }
                Ok(Turn { moved: length, answered: false })
            }
        }
    }

    /// Checks what has come of an answer, and goes on when it is enough.
    fn look_at_answer(&mut self) -> io::Result<Turn> {
        let State::Answer(answer) = &self.state else { return Ok(Turn::default()) };
        let Some(head) = head_end(answer) else {
            return match answer.len() {
                MAX_HEAD.. => Err(io::Error::other("a head is too long")),
                _ => Ok(Turn::default()),
            };
        };
        check_status(answer, 200)?;
        let all = expected_length(answer)?.unwrap_or_default();
        match self.direction {
            Direction::Down => {
                let wanted = head as u64 + self.size;
                let left = wanted.checked_sub(answer.len() as u64).filter(|_| all as u64 == wanted);
                let left = left.ok_or_else(|| {
                    io::Error::other(format!("an answer of {} bytes", all - head))
                })?;
                let moved = (answer.len() - head) as u64;
                self.state = State::Receiving { left };
                if left == 0 {
                    self.begin()?;
                }
                Ok(Turn { moved, answered: true })
            }
            Direction::Up if answer.len() < all && all <= MAX_HEAD => Ok(Turn::default()),
            Direction::Up => {
                let said = String::from_utf8_lossy(&answer[head..]);
                if said != self.size.to_string() {
                    let message = format!("{} bytes were sent, {said:?} arrived", self.size);
                    return Err(io::Error::other(message));
                }
                self.begin()?;
                Ok(Turn { moved: 0, answered: true })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::testing;

    fn load(direction: Direction, size: u64) -> Load {
        let (seconds, warmup) = (Duration::from_millis(400), Duration::from_millis(20));
        let ask = format!("/some/{size}");
        Load { direction, connections: 4, ask, size, seconds, warmup, send: Send::Copy }
    }

    #[test]
    fn bodies_move_both_ways_one_after_another() {
        let target = testing::backend();
        for direction in [Direction::Up, Direction::Down] {
            for size in [1, 100_000, 3_000_000] {
                for send in [Send::Copy, Send::Pages] {
                    let outcome = run(&target, &Load { send, ..load(direction, size) }).unwrap();
                    assert!(outcome.units > size * 4, "{direction:?} {size}");
                }
            }
        }
    }

    #[test]
    fn an_answer_of_another_length_or_status_ends_the_run() {
        let ask = "/some/2000000".to_string();
        let wrong = Load { ask, ..load(Direction::Down, 2_000_001) };
        let error = run(&testing::backend(), &wrong).err().unwrap().to_string();
        assert!(error.contains("an answer of 2000000 bytes"), "{error}");

        let refused = testing::http("HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n");
        for direction in [Direction::Up, Direction::Down] {
            let error = run(&refused, &load(direction, 1000)).err().unwrap().to_string();
            assert!(error.contains("413 No"), "{error}");
        }
        let other = testing::http("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n999");
        let error = run(&other, &load(Direction::Up, 1000)).err().unwrap().to_string();
        assert!(error.contains("\"999\" arrived"), "{error}");
    }
}
