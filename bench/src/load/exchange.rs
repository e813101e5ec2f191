//! One message out, one answer of known length back, again and again on every connection: what
//! `echo` and `keepalive` have in common.

use std::io;
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;

use super::dial::Target;
use super::histogram::Histogram;
use super::poller::{Poller, Ready};
use super::wire::Wire;
use super::{Meter, Outcome};
use crate::while_doing;

/// What every answer must look like.
pub(crate) struct Answer {
    /// The bytes that it begins with; all of it, where all is known.
    pub(crate) start: Vec<u8>,
    pub(crate) length: usize,
}

impl Answer {
    /// Checks a piece that came behind `before` bytes, and says how many there are with it.
    pub(crate) fn check(&self, before: usize, piece: &[u8]) -> io::Result<usize> {
        let known = self.start.get(before..).unwrap_or_default();
        let common = known.len().min(piece.len());
        if piece[..common] != known[..common] {
            let got = String::from_utf8_lossy(&piece[..common]).into_owned();
            return Err(io::Error::other(format!("another answer than expected: {got:?}")));
        }
        let length = before + piece.len();
        if length > self.length {
            let wanted = self.length;
            return Err(io::Error::other(format!("{length} bytes came back, not {wanted}")));
        }
        Ok(length)
    }
}

/// Connections with one message in flight each.
pub(crate) struct Exchange<W> {
    lanes: Vec<Lane<W>>,
    poller: Poller,
    ready: Ready,
    message: Vec<u8>,
    answer: Answer,
    /// One byte longer than the answer, so that one receive shows whether too much came.
    buffer: Vec<u8>,
    /// For records of TLS.
    scratch: Vec<u8>,
    round_trips: u64,
    latency: Histogram,
    /// The time from one message of a connection to its next; none: as soon as the answer is here.
    pace: Option<Duration>,
}

struct Lane<W> {
    stream: W,
    sent_at: Instant,
    /// When the next message is due, between two of them.
    due: Option<Instant>,
    /// Bytes of the answer that are here already.
    back: usize,
}

impl<W: Wire> Exchange<W> {
    pub(crate) fn new(message: Vec<u8>, answer: Answer) -> io::Result<Self> {
        Ok(Self {
            lanes: Vec::new(),
            poller: Poller::new()?,
            ready: Ready::new(),
            message,
            buffer: vec![0; answer.length + 1],
            scratch: vec![0; W::SCRATCH],
            answer,
            round_trips: 0,
            latency: Histogram::new(),
            pace: None,
        })
    }

    /// Sends no faster than that, so that what is offered does not depend on who answers.
    pub(crate) fn pace(&mut self, pace: Duration) {
        self.pace = Some(pace);
    }

    /// Takes a connection that is ready for its first message.
    pub(crate) fn add(&mut self, stream: W) -> io::Result<()> {
        stream.socket().set_nonblocking(true)?;
        self.poller.add(&stream, self.lanes.len(), EventFlags::IN)?;
        self.lanes.push(Lane { stream, sent_at: Instant::now(), due: None, back: 0 });
        self.send(self.lanes.len() - 1, Instant::now())
    }

    pub(crate) fn warm_up(&mut self, time: Duration) -> io::Result<()> {
        self.run_until(Instant::now() + time)
    }

    pub(crate) fn measure(mut self, target: &Target, seconds: Duration) -> io::Result<Outcome> {
        self.round_trips = 0;
        self.latency = Histogram::new();
        let meter = Meter::start(target)?;
        self.run_until(meter.start + seconds)?;
        meter.stop(self.round_trips, Some(self.latency))
    }

    fn run_until(&mut self, deadline: Instant) -> io::Result<()> {
        loop {
            let wake = self.send_due(Instant::now())?.map_or(deadline, |due| due.min(deadline));
            if !self.poller.wait(wake, &mut self.ready)? {
                if Instant::now() >= deadline {
                    return Ok(());
                }
                continue;
            }
            for index in 0..self.ready.len() {
                let key = self.ready[index].0;
                self.receive(key).map_err(|error| {
                    let back = self.lanes[key].back;
                    while_doing(format!("connection {key} with {back} bytes back"))(error)
                })?;
            }
        }
    }

    /// Sends what is due by now, and says when the next message is.
    fn send_due(&mut self, now: Instant) -> io::Result<Option<Instant>> {
        if self.pace.is_none() {
            return Ok(None);
        }
        let mut next = None;
        for key in 0..self.lanes.len() {
            match self.lanes[key].due {
                Some(due) if due <= now => self.send(key, now)?,
                Some(due) => next = Some(next.map_or(due, |next: Instant| next.min(due))),
                None => {}
            }
        }
        Ok(next)
    }

    fn send(&mut self, key: usize, now: Instant) -> io::Result<()> {
        let lane = &mut self.lanes[key];
        lane.sent_at = now;
        lane.due = None;
        lane.back = 0;
        let sent = lane.stream.send(&self.message)?;
        // The socket buffer is empty whenever a message goes out, so it takes the whole message.
        if sent < self.message.len() {
            return Err(io::Error::other("the socket took only a part of a message"));
        }
        Ok(())
    }

    fn receive(&mut self, key: usize) -> io::Result<()> {
        let lane = &mut self.lanes[key];
        let length = match lane.stream.receive(&mut self.buffer, &mut self.scratch) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        lane.back = self.answer.check(lane.back, &self.buffer[..length])?;
        if lane.back < self.answer.length {
            return Ok(());
        }
        // The end of one round trip is the beginning of the next: one look at the clock is enough.
        let now = Instant::now();
        self.latency.record(now - lane.sent_at);
        self.round_trips += 1;
        match self.pace {
            None => self.send(key, now),
            Some(pace) => {
                // Connections of slightly different pace do not stay in step.
                let pace = pace + pace * (key % 16) as u32 / 64;
                lane.due = Some((lane.sent_at + pace).max(now));
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_checked_piece_by_piece() {
        let answer = Answer { start: b"HTTP/1.1 301".to_vec(), length: 20 };
        assert_eq!(answer.check(0, b"HTTP/1").unwrap(), 6);
        assert_eq!(answer.check(6, b".1 301 Moved").unwrap(), 18);
        assert_eq!(answer.check(18, b"..").unwrap(), 20);
        assert!(answer.check(6, b".1 502").is_err());
        assert!(answer.check(18, b"...").is_err());
    }
}
