//! Bulk bytes through a proxy, up or down, over a fixed number of connections.
//!
//! A timed run starts its clock after a warm-up: the buffers on the way are full by then, and what
//! goes in during the interval equals what comes out. A counted run is timed until the last byte
//! has arrived. At the end of an upload the sink's own count is compared with what was sent.

use std::io;
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use rustix::event::epoll::EventFlags;
use rustix::net::RecvFlags;

use super::dial::{STEP_TIMEOUT, Target, dial_by};
use super::poller::{Poller, Ready};
use super::source::{Send, Source};
use super::wire::Wire;
use super::{Meter, Outcome, tls};
use crate::sink::{BUFFER, discard};
use crate::while_doing;

/// A counted run that has not ended by then has failed.
const COUNTED_LIMIT: Duration = Duration::from_secs(600);

#[derive(Args, Clone)]
pub(crate) struct Load {
    #[arg(long, value_enum)]
    pub(crate) direction: Direction,
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub(crate) connections: u16,
    /// Length of the timed interval
    #[arg(long, default_value = "5", value_parser = crate::parse_seconds)]
    pub(crate) seconds: Duration,
    /// Seconds of load before the timed interval
    #[arg(long, default_value = "0.5", value_parser = crate::parse_seconds)]
    pub(crate) warmup: Duration,
    /// Move this many bytes over each connection instead of running for a time
    #[arg(long, conflicts_with_all = ["seconds", "warmup"])]
    pub(crate) bytes: Option<u64>,
    /// How an upload is sent
    #[arg(long, value_enum, default_value_t)]
    pub(crate) send: Send,
    /// Read what arrives instead of having the kernel drop it
    #[arg(long)]
    pub(crate) copy: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Direction {
    /// Client to sink
    Up,
    /// Sink to client
    Down,
}

/// Opens the connections, moves the bytes and waits for the confirmations.
pub(crate) fn run(target: &Target, load: &Load) -> io::Result<Outcome> {
    run_counting(target, load, None)
}

/// The same, where a timed upload is known by what has arrived, if anybody counts that: thousands
/// of connections go on filling buffers for longer than any warm-up.
pub(crate) fn run_counting(
    target: &Target,
    load: &Load,
    arrived: Option<&AtomicU64>,
) -> io::Result<Outcome> {
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
    let send = match target {
        Target { framed: true, .. } => Send::Frames,
        // What is encrypted has been copied then.
        Target { tls: Some(_), .. } => Send::Copy,
        _ => load.send,
    };
    let mut flow = Flow::<W>::new(send, load.copy)?;
    if load.bytes.is_some() && target.framed {
        return Err(io::Error::other("payload in frames is timed, not counted"));
    }
    if load.bytes.is_some() {
        let meter = Meter::start(target)?;
        flow.open(target, load.direction, load.connections, load.bytes)?;
        flow.move_until(meter.start + COUNTED_LIMIT)?;
        let moved = flow.moved;
        flow.finish()?;
        return meter.stop(moved, None);
    }
    flow.open(target, load.direction, load.connections, None)?;
    flow.move_until(Instant::now() + load.warmup)?;
    let arrived = arrived.filter(|_| load.direction == Direction::Up);
    let moved = |flow: &Flow<W>| arrived.map_or(flow.moved, |bytes| bytes.load(Ordering::Relaxed));
    let before = moved(&flow);
    let meter = Meter::start(target)?;
    flow.move_until(meter.start + load.seconds)?;
    let outcome = meter.stop(moved(&flow) - before, None)?;
    flow.finish()?;
    Ok(outcome)
}

/// Connections that move bulk, each in its direction.
pub(crate) struct Flow<W> {
    lanes: Vec<Lane<W>>,
    /// How bytes that arrive are received.
    discard: RecvFlags,
    poller: Poller,
    buffer: Vec<u8>,
    source: Source,
    /// Bytes over all lanes; the sum of `Lane::moved`.
    pub(crate) moved: u64,
    open_lanes: usize,
}

struct Lane<W> {
    stream: W,
    direction: Direction,
    moved: u64,
    /// Bytes still to be moved; out of reach in a timed run.
    left: u64,
    counted: bool,
    /// What is moved has headers in it, which the other end does not count.
    framed: bool,
    over: bool,
}

impl<W: Wire> Flow<W> {
    pub(crate) fn new(send: Send, copy: bool) -> io::Result<Self> {
        Ok(Self {
            lanes: Vec::new(),
            discard: discard(copy),
            poller: Poller::new()?,
            buffer: vec![0; BUFFER],
            source: Source::new(send)?,
            moved: 0,
            open_lanes: 0,
        })
    }

    /// Opens more connections, for so many bytes each or without an end.
    pub(crate) fn open(
        &mut self,
        target: &Target,
        direction: Direction,
        connections: u16,
        bytes: Option<u64>,
    ) -> io::Result<()> {
        let quota = bytes.unwrap_or(u64::MAX);
        let (command, wanted) = match direction {
            Direction::Up => (b"U".to_vec(), EventFlags::OUT),
            Direction::Down => ([&b"D"[..], &quota.to_be_bytes()].concat(), EventFlags::IN),
        };
        let dialler = W::dialler(target)?;
        for _ in 0..connections {
            let dialled = dial_by::<W>(&dialler, target, &command)?;
            let moved = dialled.early.len() as u64;
            let stream = dialled.stream;
            stream.socket().set_nonblocking(true)?;
            self.poller.add(&stream, self.lanes.len(), wanted)?;
            let left = quota.checked_sub(moved).ok_or_else(too_much)?;
            let (counted, framed) = (bytes.is_some(), target.framed);
            self.lanes.push(Lane { stream, direction, moved, left, counted, framed, over: false });
            self.moved += moved;
            self.open_lanes += 1;
        }
        Ok(())
    }

    /// Moves bytes until the time is up or no lane has any left.
    pub(crate) fn move_until(&mut self, deadline: Instant) -> io::Result<()> {
        let mut ready = Ready::new();
        while self.open_lanes > 0 && self.poller.wait(deadline, &mut ready)? {
            for &(key, _) in &ready {
                self.turn(key).map_err(|error| {
                    let Lane { moved, direction, .. } = self.lanes[key];
                    let what = format!("connection {key} ({direction:?}) after {moved} bytes");
                    while_doing(what)(error)
                })?;
            }
        }
        Ok(())
    }

    /// One buffer on one lane.
    fn turn(&mut self, key: usize) -> io::Result<()> {
        let lane = &mut self.lanes[key];
        let moved = match lane.direction {
            Direction::Up => lane.stream.send_bulk(&self.source, lane.left, lane.moved),
            Direction::Down => lane.stream.discard(&mut self.buffer, self.discard),
        };
        let moved = match moved {
            Ok(moved) => moved as u64,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        lane.left = lane.left.checked_sub(moved).ok_or_else(too_much)?;
        lane.moved += moved;
        self.moved += moved;
        // An upload is over with its last byte, a download with the end of the stream behind it.
        lane.over = match lane.direction {
            Direction::Up => lane.left == 0 && !lane.stream.is_sending(),
            Direction::Down => moved == 0,
        };
        if !lane.over {
            return Ok(());
        }
        if lane.left > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.poller.remove(&lane.stream)?;
        self.open_lanes -= 1;
        if lane.direction == Direction::Up {
            lane.stream.end()?;
        }
        Ok(())
    }

    /// Ends every lane and compares what was sent with what the sink says has arrived.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        for (key, lane) in self.lanes.iter_mut().enumerate() {
            if lane.counted && !lane.over {
                let moved = lane.moved;
                let message = format!("connection {key} never ended, it stands at {moved} bytes");
                return Err(io::Error::other(message));
            }
            if lane.direction == Direction::Up && !lane.over && !lane.framed {
                // Records that wait for the socket go first.
                lane.stream.socket().set_nonblocking(false)?;
                lane.stream.end().map_err(while_doing(format!("connection {key} at its end")))?;
            }
        }
        let deadline = Instant::now() + STEP_TIMEOUT;
        for (key, lane) in self.lanes.into_iter().enumerate() {
            // A download has been cut off, or its end has been seen.
            if lane.direction == Direction::Up && !lane.framed {
                lane.confirm(deadline).map_err(while_doing(format!("connection {key}")))?;
            }
        }
        Ok(())
    }
}

impl<W: Wire> Lane<W> {
    /// Waits for the sink's count of an upload that has been ended.
    fn confirm(mut self, deadline: Instant) -> io::Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        self.stream.socket().set_nonblocking(false)?;
        self.stream.socket().set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        let mut count = [0; 8];
        match self.stream.read_exact(&mut count) {
            Ok(()) => {}
            Err(error) if self.counted => return Err(while_doing("no confirmation")(error)),
            // Some proxies close both ways when one way ends: that loses the count of a timed run.
            Err(_) => return Ok(()),
        }
        let (sent, arrived) = (self.moved, u64::from_be_bytes(count));
        if sent != arrived {
            return Err(io::Error::other(format!("{sent} bytes sent, {arrived} arrived")));
        }
        Ok(())
    }
}

fn too_much() -> io::Error {
    io::Error::other("more bytes arrived than were asked for")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::testing;

    fn load(direction: Direction, bytes: Option<u64>, send: Send) -> Load {
        let (seconds, warmup) = (Duration::from_millis(400), Duration::from_millis(20));
        Load { direction, connections: 4, seconds, warmup, bytes, send, copy: false }
    }

    #[test]
    fn counted_bytes_are_exactly_those() {
        let target = testing::sink(true);
        for direction in [Direction::Up, Direction::Down] {
            for send in [Send::Copy, Send::File, Send::Pages] {
                let outcome = run(&target, &load(direction, Some(3_000_001), send)).unwrap();
                assert_eq!(outcome.units, 12_000_004);
            }
        }
    }

    #[test]
    fn counted_bytes_are_exactly_those_through_tls() {
        let target = testing::tls(testing::Offer::Right);
        for direction in [Direction::Up, Direction::Down] {
            let outcome = run(&target, &load(direction, Some(300_001), Send::Pages)).unwrap();
            assert_eq!(outcome.units, 1_200_004);
        }
    }

    #[test]
    fn timed_runs_end_in_time() {
        for target in [testing::sink(false), testing::tls(testing::Offer::Right)] {
            for direction in [Direction::Up, Direction::Down] {
                let outcome = run(&target, &load(direction, None, Send::Copy)).unwrap();
                assert!(outcome.units > 0 && outcome.seconds >= 0.1 && outcome.gbit_per_s() > 0.0);
            }
        }
    }
}
