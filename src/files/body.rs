//! The bytes of a file on their way to a client.
//!
//! | bytes | client | how they are moved |
//! | --- | --- | --- |
//! | in the page cache | plain | spliced: file → pipe → socket |
//! | in the page cache | TLS, or plain without a pipe | read into the worker's buffer, and sent |
//! | not there | any | read by a thread that may wait, and sent |
//!
//! overlayfs, which container images are on, and network file systems cannot say what is in the
//! page cache. A thread reads all of their bytes.
//!
//! A body moves its bytes in turns with other bulk. It keeps its position in itself, so that
//! dropping a running [`Body::send`] loses nothing: it awaits readiness and results only.
//!
//! A file that becomes shorter meanwhile ends in a reset, because its length was announced. Spliced
//! bytes are pages of the file itself, so a file that is overwritten in place shows its new bytes
//! in them. Sites should replace files by rename(2).

use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::threads::{Disk, NoResult};
use crate::observe::live::Direction;
use crate::proto::http::ByteRange;
use crate::relay::{BUFFER_SIZE, PipeLease, Pool, Sender};
use crate::sched::{SMALL, Turn};
use crate::sys::{Errno, File, Stream};
use crate::timers::{Fired, Watch};
use crate::transport::Transport;

/// Bytes that are spliced at a time: what a pipe holds.
const PIECE: u64 = 1024 * 1024;
/// Bytes that a thread reads at a time.
const COLD_READ: usize = 256 * 1024;
/// Bytes after those that the kernel is asked to read into the page cache meanwhile.
const READ_AHEAD: u64 = 2 * 1024 * 1024;
/// The pause before a job is offered again that found the queue full.
const RETRY: Duration = Duration::from_millis(50);

/// Why a body could not be sent whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Writing to the client failed.
    Client(Errno),
    /// The file cannot be read, or it is shorter than it was (`NODATA`).
    File(Errno),
    /// The watch has ended a wait: a limit, a drain or a reset.
    Fired(Fired),
}

impl From<Fired> for Broken {
    fn from(fired: Fired) -> Self {
        Broken::Fired(fired)
    }
}

/// A part of a file that is to be sent.
pub struct Body {
    file: Arc<File>,
    /// The position of the next byte.
    position: u64,
    end: u64,
    /// Bytes that were given to the client's transport.
    sent: u64,
    /// Bytes of the response that come before it.
    before: u64,
    spliced: bool,
    /// The file system does not know splice(2).
    is_copied: bool,
    /// Held only during a turn, or while bytes are inside.
    pipe: Option<PipeLease>,
    /// Bytes that a thread has read and that the client has not taken yet.
    sender: Option<Sender>,
}

/// What a turn has come to.
enum Step {
    /// The budget is spent, or everything is moved.
    Moved,
    /// The client takes no more bytes for now.
    Full,
    /// The next bytes are not in the page cache.
    Cold,
}

impl Body {
    pub(super) fn new(file: File, range: ByteRange) -> Body {
        let ByteRange { start, end } = range;
        Body {
            file: Arc::new(file),
            position: start,
            end,
            sent: 0,
            before: 0,
            spliced: false,
            is_copied: false,
            pipe: None,
            sender: None,
        }
    }

    /// Bytes that are not read yet.
    pub fn left(&self) -> u64 {
        self.end - self.position
    }

    /// Bytes that were given to the client's transport.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Notes how many bytes of the response come before it.
    pub fn follows(&mut self, bytes: u64) {
        self.before = bytes;
    }

    /// Reports the bytes of the response so far: see [`Watch::moved`]. [`Body::send`] does this
    /// itself.
    pub fn report(&self, watch: &Watch) {
        watch.moved(Direction::Down, self.before + self.sent);
    }

    /// Returns true if any byte was spliced.
    pub fn spliced(&self) -> bool {
        self.spliced
    }

    /// Sends all bytes. Everything before them must be sent already. `watch` limits each wait; it
    /// starts anew when the client has taken some bytes.
    ///
    /// # Errors
    /// A wait or a write has failed, or the file has. The client's transport is set to reset on
    /// close in these cases, because the client has not got all bytes.
    pub async fn send(
        &mut self,
        to: &Transport,
        pool: &Rc<Pool>,
        disk: &Disk,
        watch: &Watch,
    ) -> Result<(), Broken> {
        let result = self.run(to, pool, disk, watch).await;
        if result.is_err() {
            to.reset_on_close();
        }
        result
    }

    async fn run(
        &mut self,
        to: &Transport,
        pool: &Rc<Pool>,
        disk: &Disk,
        watch: &Watch,
    ) -> Result<(), Broken> {
        loop {
            self.flush(to, pool, watch).await?;
            self.report(watch);
            if self.left() == 0 {
                return Ok(());
            }
            let step = pool.bulk().turn(|turn| self.move_cached(to, pool, watch, turn)).await?;
            match step {
                Step::Moved => {}
                Step::Full => wait_for_room(to, watch).await?,
                Step::Cold => {
                    let max = if pool.is_spent() { SMALL } else { COLD_READ };
                    let bytes = self.read_cold(max, disk, watch).await?;
                    watch.touch();
                    self.position += bytes.len() as u64;
                    self.sent += bytes.len() as u64;
                    let sender = self.sender.get_or_insert_with(|| Sender::new(pool, Vec::new()));
                    sender.send(to, &bytes).map_err(Broken::Client)?;
                }
            }
        }
    }

    /// Waits until every byte that was read is sent.
    async fn flush(
        &mut self,
        to: &Transport,
        pool: &Rc<Pool>,
        watch: &Watch,
    ) -> Result<(), Broken> {
        loop {
            let is_sent = match &mut self.sender {
                Some(sender) => sender.flush(to),
                None => to.flush(),
            };
            if is_sent.map_err(Broken::Client)? {
                if self.pipe.is_some() {
                    pool.bulk().turn(|turn| self.drain_pipe(to, pool, turn)).await?;
                }
                if self.pipe.is_none() {
                    return Ok(());
                }
            }
            wait_for_room(to, watch).await?;
        }
    }

    /// Writes what the pipe holds until the client is full. Gives an empty pipe back.
    fn drain_pipe(
        &mut self,
        to: &Transport,
        pool: &Pool,
        turn: &mut Turn<'_>,
    ) -> Result<(), Broken> {
        flush_outbox(pool);
        if let (Some(pipe), Some(socket)) = (&mut self.pipe, to.plain()) {
            while !pipe.is_empty() {
                match pipe.drain(socket) {
                    Ok(sent) => {
                        turn.spend(sent);
                        self.sent += sent as u64;
                    }
                    Err(Errno::AGAIN) => return Ok(()),
                    Err(errno) => return Err(Broken::Client(errno)),
                }
            }
        }
        self.pipe = None;
        Ok(())
    }

    /// Moves bytes of the page cache until the client is full or the budget is spent.
    fn move_cached(
        &mut self,
        to: &Transport,
        pool: &Rc<Pool>,
        watch: &Watch,
        turn: &mut Turn<'_>,
    ) -> Result<Step, Broken> {
        // What other flows have queued must not wait for this turn.
        flush_outbox(pool);
        let pipe = if self.is_copied || to.plain().is_none() { None } else { pool.pipe() };
        let step = match (pipe, to.plain()) {
            (Some(pipe), Some(socket)) => self.splice(pipe, socket, watch, turn),
            _ => self.copy(to, pool, watch, turn),
        };
        if self.pipe.as_ref().is_some_and(PipeLease::is_empty) {
            self.pipe = None;
        }
        step
    }

    fn splice(
        &mut self,
        pipe: PipeLease,
        to: &Stream,
        watch: &Watch,
        turn: &mut Turn<'_>,
    ) -> Result<Step, Broken> {
        to.ensure_nonblocking().map_err(Broken::Client)?;
        let pipe = self.pipe.insert(pipe);
        while self.position < self.end && turn.left() > 0 {
            let wanted = PIECE.min(self.end - self.position);
            let cached = self.file.cached(self.position, wanted);
            if cached == 0 {
                return Ok(Step::Cold);
            }
            // At most PIECE, which fits.
            match pipe.fill_from_file(&self.file, &mut self.position, cached as usize) {
                Ok(0) => return Err(Broken::File(Errno::NODATA)),
                Ok(moved) => turn.spend(moved),
                Err(Errno::INVAL) => {
                    self.is_copied = true;
                    return Ok(Step::Moved);
                }
                Err(Errno::AGAIN) => return Ok(Step::Cold),
                Err(errno) => return Err(Broken::File(errno)),
            }
            self.spliced = true;
            match pipe.drain(to) {
                Ok(sent) => self.sent += sent as u64,
                Err(Errno::AGAIN) => return Ok(Step::Full),
                Err(errno) => return Err(Broken::Client(errno)),
            }
            watch.touch();
            if !pipe.is_empty() {
                return Ok(Step::Full);
            }
        }
        Ok(Step::Moved)
    }

    /// Reads into the worker's buffer and sends from there.
    fn copy(
        &mut self,
        to: &Transport,
        pool: &Pool,
        watch: &Watch,
        turn: &mut Turn<'_>,
    ) -> Result<Step, Broken> {
        let size = to.piece().min(BUFFER_SIZE);
        let mut buffer = pool.buffer();
        while self.position < self.end && turn.left() > 0 {
            let wanted = usize::try_from(self.left()).unwrap_or(usize::MAX).min(size);
            let read = match self.file.read_cached(&mut buffer[..wanted], self.position) {
                Ok(0) => return Err(Broken::File(Errno::NODATA)),
                Ok(read) => read,
                Err(Errno::AGAIN) => return Ok(Step::Cold),
                Err(errno) => return Err(Broken::File(errno)),
            };
            let sent = match to.send(&buffer[..read]) {
                Ok(sent) => sent,
                Err(Errno::AGAIN) => return Ok(Step::Full),
                Err(errno) => return Err(Broken::Client(errno)),
            };
            watch.touch();
            turn.spend(sent);
            self.position += sent as u64;
            self.sent += sent as u64;
            if sent < read || to.unsent() > 0 {
                return Ok(Step::Full);
            }
        }
        Ok(Step::Moved)
    }

    /// Reads the next bytes, at most `max`, for a caller that sends them itself. Returns no bytes
    /// at the end of the body. May be dropped at any time.
    ///
    /// # Errors
    /// A wait has failed, or the file has: the caller must break its response off.
    pub async fn read(
        &mut self,
        max: usize,
        disk: &Disk,
        watch: &Watch,
    ) -> Result<Vec<u8>, Broken> {
        let wanted = usize::try_from(self.left()).unwrap_or(usize::MAX).min(max);
        if wanted == 0 {
            return Ok(Vec::new());
        }
        let mut bytes = vec![0; wanted];
        match self.file.read_cached(&mut bytes, self.position) {
            Ok(0) => return Err(Broken::File(Errno::NODATA)),
            Ok(read) => bytes.truncate(read),
            Err(Errno::AGAIN) => bytes = self.read_cold(wanted, disk, watch).await?,
            Err(errno) => return Err(Broken::File(errno)),
        }
        self.position += bytes.len() as u64;
        self.sent += bytes.len() as u64;
        Ok(bytes)
    }

    /// Lets a thread read the next bytes. The position stays.
    async fn read_cold(&self, max: usize, disk: &Disk, watch: &Watch) -> Result<Vec<u8>, Broken> {
        loop {
            let (file, position, end) = (Arc::clone(&self.file), self.position, self.end);
            let work = move || read_and_prefetch(&file, position, end, max);
            match disk.run(watch, work).await {
                Ok(Ok(bytes)) if bytes.is_empty() => return Err(Broken::File(Errno::NODATA)),
                Ok(read) => return read.map_err(Broken::File),
                Err(NoResult::Fired(fired)) => return Err(fired.into()),
                Err(NoResult::Busy) => {
                    let mut pause = pin!(monoio::time::sleep(RETRY));
                    poll_fn(|cx| watch.poll(pause.as_mut(), cx)).await?;
                }
            }
        }
    }
}

fn flush_outbox(pool: &Pool) {
    if let Some(outbox) = pool.outbox() {
        outbox.flush();
    }
}

/// Waits until the client takes bytes.
async fn wait_for_room(to: &Transport, watch: &Watch) -> Result<(), Broken> {
    {
        let _stall = watch.stall();
        watch.writable(to.socket()).await?;
    }
    watch.touch();
    Ok(())
}

impl fmt::Debug for Body {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "bytes {} to {} of {:?}", self.position, self.end, self.file)
    }
}

/// Reads bytes of a file, waits for them, and lets the kernel begin to read those behind them.
fn read_and_prefetch(file: &File, position: u64, end: u64, max: usize) -> Result<Vec<u8>, Errno> {
    let wanted = usize::try_from(end - position).unwrap_or(usize::MAX).min(max);
    let bytes = file.read_blocks(position, wanted)?;
    let next = position + bytes.len() as u64;
    let ahead = READ_AHEAD.min(end.saturating_sub(next));
    if ahead > 0 {
        file.prefetch(next, ahead);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
