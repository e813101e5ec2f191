//! A thin epoll loop: register descriptors under a number, wait until a deadline, get the numbers
//! back.
//!
//! The loads use it level-triggered: a load program that serves one buffer per event and connection
//! is then fair between its connections without any book-keeping.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

const EVENTS_PER_WAIT: usize = 256;

/// What a wait found: the key of each descriptor and what it is ready for.
pub(crate) type Ready = Vec<(usize, EventFlags)>;

pub(crate) struct Poller {
    epoll: OwnedFd,
    events: Vec<Event>,
}

impl Poller {
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, events: Vec::with_capacity(EVENTS_PER_WAIT) })
    }

    pub(crate) fn add(&self, source: impl AsFd, key: usize, wanted: EventFlags) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, source, EventData::new_u64(key as u64), wanted)?)
    }

    pub(crate) fn change(
        &self,
        source: impl AsFd,
        key: usize,
        wanted: EventFlags,
    ) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, source, EventData::new_u64(key as u64), wanted)?)
    }

    pub(crate) fn remove(&self, source: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, source)?)
    }

    /// Waits for readiness, at most until `deadline`; false when that had passed already.
    pub(crate) fn wait(&mut self, deadline: Instant, ready: &mut Ready) -> io::Result<bool> {
        let left = deadline.saturating_duration_since(Instant::now());
        self.wait_for(left, ready)?;
        Ok(left > Duration::ZERO)
    }

    /// Waits for readiness, at most for that long.
    pub(crate) fn wait_for(&mut self, left: Duration, ready: &mut Ready) -> io::Result<()> {
        ready.clear();
        self.events.clear();
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        let buffer = rustix::buffer::spare_capacity(&mut self.events);
        match epoll::wait(&self.epoll, buffer, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        ready.extend(self.events.iter().map(|event| (event.data.u64() as usize, event.flags)));
        Ok(())
    }
}
