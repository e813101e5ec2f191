//! Sends the small messages of one worker: all that its flows have read in one turn of the event
//! loop goes out by one system call.
//!
//! A second ring does nothing but send, with the non-blocking flag of the call. Every send is thus
//! complete when the call returns: nothing stays in flight, and a full socket is reported as by
//! send(2). A forwarded message is sent from the place where it was received, so nothing is copied
//! and nothing allocated. If the kernel refuses io_uring_enter(2), no message is lost: the ring is
//! given up, and flows send their messages themselves.
//!
//! With messages of 100 B this saves 12 % of the CPU with 64 connections and 4 % with 512. With
//! redirects it saves 10 % with 64 connections (0.90 of the CPU, 1.11 of the rate, medians of 9
//! paired rounds).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, AsRawFd};
use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};

use io_uring::{IoUring, opcode, types};

use super::ring::ring_bytes;
use super::{Errno, Stream};

/// The most bytes of one message.
pub const SLOT: usize = 4096;

/// The most messages of one system call. The ring takes 16 KiB, a small part of the memory that may
/// be locked.
const ENTRIES: usize = 128;
/// Bytes for messages. They lie next to each other, so that small ones stay in the CPU's cache.
const ARENA: usize = 16 * SLOT;
/// Each message begins at a cache line; this is its length in bytes.
const LINE: usize = 64;

/// Sends messages for the flows of one worker.
pub struct Outbox {
    inner: RefCell<Inner>,
}

struct Inner {
    /// `None` after the kernel has refused the ring; the outbox then stays closed.
    ring: Option<IoUring>,
    arena: Box<[u8]>,
    /// Bytes of the arena that are in use.
    used: usize,
    queue: Vec<Message>,
    /// Messages that have left the queue since the start.
    done: u64,
    /// Messages that were not sent whole, by their numbers.
    unsent: BTreeMap<NonZeroU64, Unsent>,
    flusher: Option<Waker>,
}

/// A message in the queue.
struct Message {
    /// Keeps the descriptor open until the message is sent.
    to: Rc<Stream>,
    start: usize,
    len: usize,
    /// The waker of the task that handles a failure.
    waker: Waker,
    /// Whether the result of the send is known.
    over: bool,
}

/// A queued message. Nothing more may be sent to its stream before it is settled. Dropping it
/// settles it, too, and discards what could not be sent.
pub struct Queued {
    outbox: Rc<Outbox>,
    /// The number of the message, counted from 1.
    number: NonZeroU64,
}

/// The result of a message that was not sent whole.
#[derive(Debug, PartialEq, Eq)]
pub struct Unsent {
    /// The bytes that were not sent.
    pub rest: Vec<u8>,
    /// `AGAIN` if they did not fit; otherwise as [`Stream::send`].
    pub errno: Errno,
}

impl Outbox {
    /// Makes the ring. Must be called on the worker's thread, because no other may submit to it.
    ///
    /// # Errors
    /// As io_uring_setup(2): ENOMEM if the ring exceeds the limit of locked memory, EINVAL before
    /// Linux 6.1.
    pub fn new() -> io::Result<Outbox> {
        let inner = Inner {
            ring: Some(make_ring()?),
            arena: vec![0; ARENA].into_boxed_slice(),
            used: 0,
            queue: Vec::with_capacity(ENTRIES),
            done: 0,
            unsent: BTreeMap::new(),
            flusher: None,
        };
        Ok(Outbox { inner: RefCell::new(inner) })
    }

    /// Starts the task that flushes once per turn of the event loop. Must be called in the runtime.
    pub fn start(self) -> Rc<Outbox> {
        let outbox = Rc::new(self);
        monoio::spawn(flush_each_turn(Rc::downgrade(&outbox)));
        outbox
    }

    /// Bytes of the ring that count as locked memory.
    pub fn bytes() -> u64 {
        // By default the kernel makes two completion entries for each submission entry.
        ring_bytes(ENTRIES as u32, 2 * ENTRIES as u32)
    }

    /// Returns true if the outbox takes messages. If it does not, each flow sends its own.
    pub fn is_open(&self) -> bool {
        self.inner.borrow().ring.is_some()
    }

    /// Reads available bytes, at most `max` or [`SLOT`], and queues them. Returns their number, or
    /// `None` at the end of the stream. The waker is called if the bytes cannot be sent.
    ///
    /// # Errors
    /// As [`Stream::recv`].
    pub fn forward(
        self: &Rc<Self>,
        from: &Stream,
        to: &Rc<Stream>,
        max: usize,
        waker: &Waker,
    ) -> Result<Option<(usize, Queued)>, Errno> {
        let mut inner = self.inner.borrow_mut();
        let len = from.recv(&mut inner.slot()[..max.min(SLOT)])?;
        drop(inner);
        Ok((len > 0).then(|| (len, self.queue_slot(len, to, waker))))
    }

    /// Queues at most [`SLOT`] bytes. The waker is called if they cannot be sent.
    pub fn queue(self: &Rc<Self>, bytes: &[u8], to: &Rc<Stream>, waker: &Waker) -> Queued {
        self.inner.borrow_mut().slot()[..bytes.len()].copy_from_slice(bytes);
        self.queue_slot(bytes.len(), to, waker)
    }

    /// Queues the bytes that were written to the free slot.
    fn queue_slot(self: &Rc<Self>, len: usize, to: &Rc<Stream>, waker: &Waker) -> Queued {
        let mut inner = self.inner.borrow_mut();
        // The runtime's ready queue is first in, first out. The flusher therefore runs after every
        // task that is ready by now.
        if inner.queue.is_empty()
            && let Some(flusher) = &inner.flusher
        {
            flusher.wake_by_ref();
        }
        let start = inner.used;
        inner.queue.push(Message::new(to, start, len, waker));
        inner.used = (start + len).next_multiple_of(LINE);
        let number = NonZeroU64::MIN.saturating_add(inner.done + inner.queue.len() as u64 - 1);
        let full = inner.queue.len() == ENTRIES || inner.used + SLOT > ARENA;
        drop(inner);
        if full {
            self.flush();
        }
        Queued { outbox: Rc::clone(self), number }
    }

    /// Sends all queued messages.
    pub fn flush(&self) {
        let mut inner = self.inner.borrow_mut();
        if inner.queue.is_empty() {
            return;
        }
        inner.send_all();
        let mut messages = std::mem::take(&mut inner.queue);
        drop(inner);
        // Cleared while nothing is borrowed: the last reference to a stream or a task may be
        // dropped here, and the task may hold a [`Queued`], which borrows.
        messages.clear();
        self.inner.borrow_mut().queue = messages;
    }
}

impl Queued {
    /// Returns true if it is known that the message could not be sent whole.
    pub fn has_failed(&self) -> bool {
        self.outbox.inner.borrow().unsent.contains_key(&self.number)
    }

    /// Returns what could not be sent; `None` if all was sent. Flushes if the message is still
    /// queued.
    pub fn settle(self) -> Option<Unsent> {
        self.take_unsent()
    }

    fn take_unsent(&self) -> Option<Unsent> {
        let queued = self.number.get() > self.outbox.inner.borrow().done;
        if queued {
            self.outbox.flush();
        }
        self.outbox.inner.borrow_mut().unsent.remove(&self.number)
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        // The result is discarded, since no caller can ask for it any more.
        let _ = self.take_unsent();
    }
}

impl Inner {
    /// The free slot behind the queued messages. There is one, because a full arena is flushed at
    /// once.
    fn slot(&mut self) -> &mut [u8] {
        &mut self.arena[self.used..self.used + SLOT]
    }

    fn send_all(&mut self) {
        if let [message] = &self.queue[..] {
            // A single message is sent by send(2), which costs less than a call on the ring.
            let result = message.to.send(message.bytes(&self.arena));
            let result = result.map_or_else(|errno| -errno.raw_os_error(), |sent| sent as i32);
            self.complete(0, result);
        } else if let Some(mut ring) = self.ring.take() {
            self.ring = match self.send_by(&mut ring) {
                Ok(()) => Some(ring),
                // The kernel was out of memory for a moment. The entries that it has not taken are
                // still in the ring, so the ring cannot be used again and is replaced.
                Err(Some(libc::EAGAIN | libc::EBUSY)) => make_ring().ok(),
                Err(_) => None,
            };
            if self.ring.is_none() {
                tracing::warn!("io_uring refuses to send: every message is a call of its own now");
            }
        }
        // A message that the ring has not sent is reported as unsent; its flow sends it.
        for index in 0..self.queue.len() {
            if !self.queue[index].over {
                self.complete(index, -libc::EAGAIN);
            }
        }
        self.done += self.queue.len() as u64;
        self.used = 0;
    }

    /// Sends the messages that the kernel takes, and stores their results.
    ///
    /// # Errors
    /// The kernel's error if it refuses the other messages.
    fn send_by(&mut self, ring: &mut IoUring) -> Result<(), Option<i32>> {
        self.submit(ring);
        let mut left = self.queue.len();
        let mut wait_for = 0;
        while left > 0 {
            match ring.submitter().submit_and_wait(wait_for).map_err(|e| e.raw_os_error()) {
                Ok(_) | Err(Some(libc::EINTR)) => {}
                Err(errno) => return Err(errno),
            }
            for completion in ring.completion() {
                left -= 1;
                self.complete(completion.user_data() as usize, completion.result());
            }
            // Not 0 if the kernel took fewer than all; those that it took are complete.
            wait_for = left;
        }
        Ok(())
    }

    fn complete(&mut self, index: usize, result: i32) {
        let message = &mut self.queue[index];
        message.over = true;
        let Some(unsent) = message.judge(result, &self.arena) else { return };
        message.waker.wake_by_ref();
        self.unsent.insert(NonZeroU64::MIN.saturating_add(self.done + index as u64), unsent);
    }

    fn submit(&self, ring: &mut IoUring) {
        let mut entries = ring.submission();
        for (index, message) in self.queue.iter().enumerate() {
            let bytes = message.bytes(&self.arena);
            let socket = types::Fd(message.to.as_fd().as_raw_fd());
            let entry = opcode::Send::new(socket, bytes.as_ptr(), bytes.len() as u32)
                .flags(libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
                .build()
                .user_data(index as u64);
            // SAFETY: the descriptor is open as long as the message holds its stream, and the bytes
            // do not move in the arena. Both outlast the send, because `send_all` returns only when
            // all sends are complete.
            unsafe { entries.push(&entry) }.expect("the ring has an entry for each message");
        }
    }
}

impl Message {
    fn new(to: &Rc<Stream>, start: usize, len: usize, waker: &Waker) -> Message {
        Message { to: Rc::clone(to), start, len, waker: waker.clone(), over: false }
    }

    fn bytes<'a>(&self, arena: &'a [u8]) -> &'a [u8] {
        &arena[self.start..self.start + self.len]
    }

    /// Interprets a completion. Returns `None` if all was sent.
    fn judge(&self, result: i32, arena: &[u8]) -> Option<Unsent> {
        let (sent, errno) = match result {
            0.. => (result as usize, Errno::AGAIN),
            // Treated like a full socket, after which the flow sends the message again.
            _ if result == -libc::EINTR => (0, Errno::AGAIN),
            _ => (0, Errno::from_raw_os_error(-result)),
        };
        let rest = &self.bytes(arena)[sent..];
        (!rest.is_empty()).then(|| Unsent { rest: rest.to_vec(), errno })
    }
}

fn make_ring() -> io::Result<IoUring> {
    let mut ring = IoUring::builder();
    ring.setup_single_issuer().setup_coop_taskrun().setup_defer_taskrun().setup_submit_all();
    ring.build(ENTRIES as u32)
}

/// The task that flushes. The first message of a turn wakes it. It ends when the outbox is dropped.
async fn flush_each_turn(outbox: Weak<Outbox>) {
    poll_fn(|cx| {
        let Some(outbox) = outbox.upgrade() else { return Poll::Ready(()) };
        outbox.flush();
        let flusher = &mut outbox.inner.borrow_mut().flusher;
        flusher.get_or_insert_with(|| cx.waker().clone());
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests;
