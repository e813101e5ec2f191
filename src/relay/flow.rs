//! One direction of a relay: bytes from one stream to the other, copied while they are few, spliced
//! while they are many, and sent together with those of other flows while they are very few.
//!
//! A flow keeps its state in itself, so that dropping a running [`Flow::run`] loses nothing: it
//! awaits readiness only, and what was read but not yet written stays in `pending`, in the pipe or
//! in the worker's outbox for the next run.
//!
//! Small messages are waited for by a poll and then received. A read through the ring, which holds
//! a buffer while it waits and must not be dropped, is no cheaper: 1.03 of the CPU for a round trip
//! with 1 and with 64 connections, 1.08 with 512 (paired medians of 9 rounds).

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};

use super::baton::TURN_BUDGET;
use super::coding::Coding;
use super::pool::{BUFFER_SIZE, PipeLease, Pool};
use crate::sys::{Errno, Queued, SLOT, Stream};
use crate::timers::{Fired, Watch};

mod coded;
#[cfg(test)]
mod tests;

/// A read of at least this much counts towards bulk.
const BULK_READ: usize = 32 * 1024;
/// So many such reads in a row, or one that fills the buffer, and the flow is spliced. From the
/// first one on it has the baton for its turns.
const BULK_STREAK: u8 = 4;
/// A spliced turn of less than this counts towards being copied again.
const THIN_TURN: usize = 16 * 1024;
/// So many such turns in a row and the flow is copied again.
const THIN_STREAK: u8 = 8;

/// Why a flow stopped before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Reading failed.
    From(Errno),
    /// Writing failed.
    To(Errno),
    /// The limit of the connection has fired.
    Fired(Fired),
}

impl From<Fired> for Broken {
    fn from(fired: Fired) -> Self {
        Broken::Fired(fired)
    }
}

/// How the bytes go at present.
#[derive(Clone, Copy)]
enum Mode {
    /// By the outbox, after a small read.
    Small,
    /// By recv and send; counts big reads in a row.
    Copy { streak: u8 },
    /// By splice; counts thin turns in a row.
    Splice { thin: u8 },
}

/// One direction: its position, not its streams.
pub struct Flow {
    pool: Rc<Pool>,
    /// None: the bytes are passed on as they are.
    coding: Option<Box<Coding>>,
    mode: Mode,
    /// Bytes read and not yet written, before those in the pipe.
    pending: Vec<u8>,
    /// Bytes of `pending` already written.
    written: usize,
    /// Held only while it has bytes inside or a turn is running.
    pipe: Option<PipeLease>,
    /// A message that the outbox has or had; what became of it is still to be asked.
    queued: Option<Queued>,
    /// Bytes that may still be read.
    allowed: u64,
    bytes: u64,
    spliced: bool,
    /// The end of the source was read.
    ended: bool,
    /// The source has probably said something already: the first read does not wait.
    expects: bool,
}

impl Flow {
    /// A flow that begins with bytes read elsewhere.
    pub fn new(pool: &Rc<Pool>, first: Vec<u8>) -> Flow {
        pool.keep(first.len());
        Flow {
            pool: Rc::clone(pool),
            coding: None,
            mode: Mode::Copy { streak: 0 },
            pending: first,
            written: 0,
            pipe: None,
            queued: None,
            allowed: u64::MAX,
            bytes: 0,
            spliced: false,
            ended: false,
            expects: false,
        }
    }

    /// Tries a first read without waiting. A client has mostly said something by the time that its
    /// upstream is connected; to hear that it has not costs less than to wait for what is there.
    pub fn expect(&mut self) {
        self.expects = true;
    }

    /// Bytes written to the destination so far, with those that the outbox is about to write.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether any byte was spliced.
    pub fn spliced(&self) -> bool {
        self.spliced
    }

    /// The end of the source was read, and everything before it is written.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Bytes were read that are not written yet.
    pub fn has_unsent(&self) -> bool {
        let in_pipe = self.pipe.as_ref().is_some_and(|pipe| !pipe.is_empty());
        self.queued.is_some() || self.written < self.pending.len() || in_pipe
    }

    /// The source has something to read, and nothing keeps the flow from reading it.
    pub fn is_behind(&self, from: &Stream) -> bool {
        !self.ended && !self.has_unsent() && from.has_input()
    }

    /// Reads at most so many more bytes; [`Flow::run`] returns when they are written.
    pub fn allow(&mut self, bytes: u64) {
        self.allowed = bytes;
    }

    /// Appends bytes that are to be written as they are.
    pub fn push(&mut self, bytes: &[u8]) {
        self.pool.keep(bytes.len());
        self.pending.extend_from_slice(bytes);
    }

    /// Writes `pending` without waiting.
    ///
    /// # Errors
    /// Writing failed.
    pub fn send_pending(&mut self, to: &Stream) -> Result<(), Broken> {
        self.settle()?;
        while self.written < self.pending.len() {
            match to.send(&self.pending[self.written..]) {
                Ok(sent) => {
                    self.written += sent;
                    self.bytes += sent as u64;
                }
                Err(Errno::AGAIN) => return Ok(()),
                Err(errno) => return Err(Broken::To(errno)),
            }
        }
        self.clear_pending();
        Ok(())
    }

    /// Moves bytes until the source ends, or until the allowed bytes are written. The end is the
    /// caller's to pass on. May be dropped at any await and run again.
    ///
    /// # Errors
    /// A stream failed, or the limit has fired.
    #[expect(clippy::manual_async_fn, reason = "an async fn keeps its arguments twice")]
    pub fn run(
        &mut self,
        from: &Stream,
        to: &Rc<Stream>,
        watch: &Watch,
    ) -> impl Future<Output = Result<(), Broken>> {
        async move {
            self.flush(to, watch).await?;
            while !self.ended && self.allowed > 0 {
                if !std::mem::take(&mut self.expects) {
                    watch.turn().await;
                    self.readable(from, watch).await?;
                }
                if self.queued.is_some() {
                    self.flush(to, watch).await?;
                }
                match self.mode {
                    Mode::Small => {
                        poll_fn(|cx| Poll::Ready(self.small_turn(from, to, watch, cx.waker())))
                            .await?;
                    }
                    Mode::Copy { streak: 0 } => {
                        self.copy_turn(from, to, watch, BUFFER_SIZE)?;
                    }
                    Mode::Copy { .. } | Mode::Splice { .. } => {
                        self.pool.baton.take().await;
                        let moved = self.bulk_turn(from, to, watch);
                        self.pool.baton.pass(moved.unwrap_or(0)).await;
                        moved?;
                    }
                }
                // What is queued goes out together with the messages of other flows.
                if self.queued.is_none() {
                    self.flush(to, watch).await?;
                }
            }
            self.flush(to, watch).await?;
            if self.has_last_word() {
                // Boxed: few flows have one, and it does not last.
                return Box::pin(self.say_last_word(to, watch)).await;
            }
            Ok(())
        }
    }

    /// Waits until there is something to read, or something that the outbox could not send, or
    /// something to tell the destination beside: that comes from the other direction, which is in
    /// the same task and is polled before this one.
    async fn readable(&self, from: &Stream, watch: &Watch) -> Result<(), Fired> {
        let mut readable = pin!(from.readable());
        poll_fn(|cx| {
            if self.is_due() || self.queued.as_ref().is_some_and(Queued::has_failed) {
                return Poll::Ready(Ok(()));
            }
            watch.poll(readable.as_mut(), cx)
        })
        .await
    }

    /// Waits until nothing is left between the two streams.
    ///
    /// # Errors
    /// Writing failed, or the limit has fired.
    pub async fn flush(&mut self, to: &Stream, watch: &Watch) -> Result<(), Broken> {
        loop {
            self.send_pending(to)?;
            if self.pending.is_empty() && self.pipe.as_ref().is_none_or(PipeLease::is_empty) {
                self.pipe = None;
                return Ok(());
            }
            {
                let _stall = watch.stall();
                watch.writable(to).await?;
            }
            watch.touch();
            if self.pending.is_empty() {
                self.pool.baton.take().await;
                let drained = self.drain_pipe(to);
                self.pool.baton.pass(drained.unwrap_or(0)).await;
                drained?;
            }
        }
    }

    /// One recv into the worker's outbox, which sends when every flow that is ready had its turn.
    fn small_turn(
        &mut self,
        from: &Stream,
        to: &Rc<Stream>,
        watch: &Watch,
        waker: &Waker,
    ) -> Result<usize, Broken> {
        let Some(outbox) = self.pool.outbox() else {
            return self.copy_turn(from, to, watch, BUFFER_SIZE);
        };
        let max = usize::try_from(self.allowed).unwrap_or(usize::MAX);
        let (read, queued) = match outbox.forward(from, to, max, waker) {
            Ok(Some(forwarded)) => forwarded,
            Ok(None) => {
                self.ended = true;
                return Ok(0);
            }
            Err(Errno::AGAIN) => return Ok(0),
            Err(errno) => return Err(Broken::From(errno)),
        };
        watch.touch();
        self.queued = Some(queued);
        self.bytes += read as u64;
        self.allowed -= read as u64;
        if read < SLOT || self.allowed == 0 {
            return Ok(read);
        }
        self.mode = Mode::Copy { streak: 0 };
        self.send_pending(to)?;
        match self.pending.is_empty() {
            true => self.copy_turn(from, to, watch, BUFFER_SIZE),
            false => Ok(read),
        }
    }

    /// Asks what became of the message in the outbox; what did not fit is then the first of
    /// `pending`.
    pub(super) fn settle(&mut self) -> Result<(), Broken> {
        let Some(unsent) = self.queued.take().and_then(Queued::settle) else { return Ok(()) };
        self.bytes -= unsent.rest.len() as u64;
        if unsent.errno != Errno::AGAIN {
            return Err(Broken::To(unsent.errno));
        }
        self.pool.keep(unsent.rest.len());
        self.pending.splice(self.written..self.written, unsent.rest);
        Ok(())
    }

    /// What others have queued does not wait for a turn of bulk.
    fn flush_outbox(&self) {
        if let Some(outbox) = self.pool.outbox() {
            outbox.flush();
        }
    }

    /// recv and send through the worker's buffer until the source is dry or so much was read. Says
    /// how much that was.
    fn copy_turn(
        &mut self,
        from: &Stream,
        to: &Stream,
        watch: &Watch,
        budget: usize,
    ) -> Result<usize, Broken> {
        self.flush_outbox();
        let pool = Rc::clone(&self.pool);
        let mut buffer = pool.buffer();
        let room = self.room();
        let size = pool.read_size().min(usize::try_from(self.allowed).unwrap_or(usize::MAX));
        let size = size.min(BUFFER_SIZE - room);
        if self.push_due() {
            return Ok(0);
        }
        let mut moved = 0;
        while moved < budget {
            let read = match from.recv(&mut buffer[room..room + size]) {
                Ok(0) => {
                    self.end();
                    break;
                }
                Ok(read) => read,
                Err(Errno::AGAIN) => break,
                Err(errno) => return Err(Broken::From(errno)),
            };
            watch.touch();
            moved += read;
            self.allowed -= read as u64;
            let range = self.apply(&mut buffer, read);
            let bytes = &buffer[range];
            let sent = match bytes {
                [] => 0,
                _ => match to.send(bytes) {
                    Ok(sent) => sent,
                    Err(Errno::AGAIN) => 0,
                    Err(errno) => return Err(Broken::To(errno)),
                },
            };
            self.bytes += sent as u64;
            self.note_read(read);
            if sent < bytes.len() {
                self.push(&bytes[sent..]);
                break;
            }
            // A short read means that the source is dry: asking again would cost a call to hear so.
            if self.ended
                || read < size
                || matches!(self.mode, Mode::Splice { .. })
                || self.allowed == 0
            {
                break;
            }
        }
        Ok(moved)
    }

    /// splice through a borrowed pipe, or a copy where there is none or none is wanted, until the
    /// source is dry or the turn is over. Says how much was read.
    fn bulk_turn(&mut self, from: &Stream, to: &Stream, watch: &Watch) -> Result<usize, Broken> {
        self.flush_outbox();
        let budget = self.pool.baton.left();
        if self.pipe.is_none() && matches!(self.mode, Mode::Splice { .. }) {
            self.pipe = self.pool.pipe();
        }
        let Some(pipe) = &mut self.pipe else {
            return self.copy_turn(from, to, watch, budget);
        };
        from.ensure_nonblocking().map_err(Broken::From)?;
        to.ensure_nonblocking().map_err(Broken::To)?;
        let mut moved = 0;
        while moved < budget {
            // As much as there is, up to the pipe's size: a rest would be a small fragment, which
            // every hop behind this one pays for, too.
            match pipe.fill(from, TURN_BUDGET) {
                // The end; or, with the end behind it, a mark of urgent data (tcp(7)), which a read
                // passes and a splice does not. The read of the next turn tells.
                Ok(0) => {
                    self.mode = Mode::Copy { streak: 0 };
                    return Ok(moved);
                }
                Ok(read) => moved += read,
                // The pipe is empty at this point, so it is the source that is dry.
                Err(Errno::AGAIN) => break,
                Err(errno) => return Err(Broken::From(errno)),
            }
            self.spliced = true;
            watch.touch();
            match pipe.drain(to) {
                Ok(sent) => self.bytes += sent as u64,
                Err(Errno::AGAIN) => break,
                Err(errno) => return Err(Broken::To(errno)),
            }
            if !pipe.is_empty() {
                break;
            }
        }
        if moved < budget {
            self.note_turn(moved);
        }
        Ok(moved)
    }

    /// Writes what the pipe holds, as far as it goes; says how much that was.
    fn drain_pipe(&mut self, to: &Stream) -> Result<usize, Broken> {
        self.flush_outbox();
        let mut drained = 0;
        let Some(pipe) = &mut self.pipe else { return Ok(0) };
        while !pipe.is_empty() {
            match pipe.drain(to) {
                Ok(sent) => {
                    drained += sent;
                    self.bytes += sent as u64;
                }
                Err(Errno::AGAIN) => break,
                Err(errno) => return Err(Broken::To(errno)),
            }
        }
        Ok(drained)
    }

    fn note_read(&mut self, read: usize) {
        self.mode = match self.mode {
            // Only whether it needs the baton.
            Mode::Copy { .. } if self.coding.is_some() => {
                Mode::Copy { streak: u8::from(read >= BULK_READ) }
            }
            Mode::Copy { streak } if read >= BULK_READ => {
                // A bounded flow must not read past its bound, so it goes on being copied.
                let bounded = self.allowed < u64::MAX / 2;
                let bulk = streak + 1 >= BULK_STREAK || read == BUFFER_SIZE;
                match bulk && !bounded {
                    true => Mode::Splice { thin: 0 },
                    false => Mode::Copy { streak: (streak + 1).min(BULK_STREAK) },
                }
            }
            Mode::Copy { .. } if read < SLOT && self.pool.outbox().is_some() => Mode::Small,
            Mode::Small | Mode::Copy { .. } => Mode::Copy { streak: 0 },
            // No pipe was to be had; the next turn asks again.
            mode @ Mode::Splice { .. } => mode,
        };
    }

    fn note_turn(&mut self, moved: usize) {
        if let Mode::Splice { thin } = &mut self.mode {
            *thin = if moved < THIN_TURN { *thin + 1 } else { 0 };
            if *thin >= THIN_STREAK {
                self.mode = Mode::Copy { streak: 0 };
            }
        }
    }

    fn clear_pending(&mut self) {
        self.pool.release(self.pending.len());
        // Not `clear`: an idle connection holds no buffer.
        self.pending = Vec::new();
        self.written = 0;
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.pool.release(self.pending.len());
    }
}
