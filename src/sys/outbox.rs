//! Small messages of one worker on their way out: all that a turn of its event loop has read is
//! sent by one system call.
//!
//! A second ring does nothing but send, with the non-blocking flag of the call, so that every send
//! is over when the call returns: nothing is ever in flight, and what does not fit is told as by
//! send(2). A message is received where it is sent from; nothing is copied, nothing allocated.
//!
//! With messages of 100 B this saves 12 % of the CPU over 64 connections and 4 % over 512.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, AsRawFd};
use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};

use io_uring::{IoUring, opcode, types};

use super::{Errno, Stream};

/// The most that a message has.
pub const SLOT: usize = 4096;

/// Messages of one system call; with 16 KiB the ring takes little of what may be locked.
const ENTRIES: usize = 128;
/// Messages lie behind each other, so that small ones stay in the CPU's cache.
const ARENA: usize = 16 * SLOT;
/// Each begins a line of the cache.
const LINE: usize = 64;

/// Sends for the flows of one worker.
pub struct Outbox {
    inner: RefCell<Inner>,
}

struct Inner {
    ring: IoUring,
    arena: Box<[u8]>,
    /// Bytes of the arena that hold messages.
    used: usize,
    queue: Vec<Message>,
    /// Messages that have left the queue since the start.
    done: u64,
    unsent: Vec<(Ticket, Unsent)>,
    flusher: Option<Waker>,
}

/// A message in the queue.
struct Message {
    /// Held, so that the descriptor is not closed before.
    to: Rc<Stream>,
    start: usize,
    len: usize,
    /// Of the task that is to hear of a failure.
    waker: Waker,
}

/// A message that was queued: its number, from 1 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(NonZeroU64);

/// What became of a message that was not sent whole.
#[derive(Debug, PartialEq, Eq)]
pub struct Unsent {
    /// What was not sent.
    pub rest: Vec<u8>,
    /// `AGAIN` when it did not fit; else as [`Stream::send`].
    pub errno: Errno,
}

impl Outbox {
    /// Makes the ring, and starts the task that flushes once per turn. On the worker's thread.
    ///
    /// # Errors
    /// As io_uring_setup(2): ENOMEM for the limit of locked memory, EINVAL before Linux 6.1.
    pub fn start() -> io::Result<Rc<Outbox>> {
        let outbox = Rc::new(Outbox::new()?);
        monoio::spawn(flush_each_turn(Rc::downgrade(&outbox)));
        Ok(outbox)
    }

    fn new() -> io::Result<Outbox> {
        let mut ring = IoUring::builder();
        ring.setup_single_issuer().setup_coop_taskrun().setup_defer_taskrun().setup_submit_all();
        let inner = Inner {
            ring: ring.build(ENTRIES as u32)?,
            arena: vec![0; ARENA].into_boxed_slice(),
            used: 0,
            queue: Vec::with_capacity(ENTRIES),
            done: 0,
            unsent: Vec::new(),
            flusher: None,
        };
        Ok(Outbox { inner: RefCell::new(inner) })
    }

    /// Reads what is there, at most `max` or [`SLOT`] bytes, and queues it; says how much that was.
    /// None is the end of the stream. The waker is called if it cannot be sent; nothing more may be
    /// sent to that stream before [`Outbox::settle`].
    ///
    /// # Errors
    /// As [`Stream::recv`].
    pub fn forward(
        &self,
        from: &Stream,
        to: &Rc<Stream>,
        max: usize,
        waker: &Waker,
    ) -> Result<Option<(usize, Ticket)>, Errno> {
        let mut inner = self.inner.borrow_mut();
        let start = inner.used;
        let len = from.recv(&mut inner.arena[start..start + max.min(SLOT)])?;
        if len == 0 {
            return Ok(None);
        }
        // The runtime's queue is first in, first out: the flusher comes behind every task that is
        // ready by now.
        if inner.queue.is_empty()
            && let Some(flusher) = &inner.flusher
        {
            flusher.wake_by_ref();
        }
        inner.queue.push(Message { to: Rc::clone(to), start, len, waker: waker.clone() });
        inner.used = (start + len).next_multiple_of(LINE);
        let number = inner.done + inner.queue.len() as u64;
        let full = inner.queue.len() == ENTRIES || inner.used + SLOT > ARENA;
        drop(inner);
        if full {
            self.flush();
        }
        Ok(Some((len, Ticket(NonZeroU64::new(number).expect("the queue is not empty")))))
    }

    /// What of a message could not be sent; none when all was. Flushes if it is still queued. To be
    /// called once for each.
    pub fn settle(&self, ticket: Ticket) -> Option<Unsent> {
        let queued = ticket.0.get() > self.inner.borrow().done;
        if queued {
            self.flush();
        }
        let unsent = &mut self.inner.borrow_mut().unsent;
        let position = unsent.iter().position(|(number, _)| *number == ticket)?;
        Some(unsent.swap_remove(position).1)
    }

    /// It is known that the message could not be sent whole.
    pub fn has_failed(&self, ticket: Ticket) -> bool {
        self.inner.borrow().unsent.iter().any(|(number, _)| *number == ticket)
    }

    /// Sends what is queued.
    pub fn flush(&self) {
        let mut inner = self.inner.borrow_mut();
        if inner.queue.is_empty() {
            return;
        }
        inner.send_all();
        let mut messages = std::mem::take(&mut inner.queue);
        drop(inner);
        // Not while borrowed: with the last reference goes a stream or a task, and a task may have
        // a ticket.
        messages.clear();
        self.inner.borrow_mut().queue = messages;
    }
}

impl Inner {
    fn send_all(&mut self) {
        self.submit();
        let mut left = self.queue.len();
        let mut wait_for = 0;
        while left > 0 {
            match self.ring.submitter().submit_and_wait(wait_for).map_err(|e| e.raw_os_error()) {
                Ok(_) | Err(Some(libc::EINTR | libc::EAGAIN | libc::EBUSY)) => {}
                Err(errno) => panic!("io_uring_enter refuses what it took before: {errno:?}"),
            }
            for completion in self.ring.completion() {
                left -= 1;
                let index = completion.user_data() as usize;
                let message = &self.queue[index];
                let Some(unsent) = message.judge(completion.result(), &self.arena) else {
                    continue;
                };
                let number = NonZeroU64::MIN.saturating_add(self.done + index as u64);
                self.unsent.push((Ticket(number), unsent));
                message.waker.wake_by_ref();
            }
            // Only if the kernel took fewer than all: what it took is complete.
            wait_for = left;
        }
        self.done += self.queue.len() as u64;
        self.used = 0;
    }

    fn submit(&mut self) {
        let mut entries = self.ring.submission();
        for (index, message) in self.queue.iter().enumerate() {
            let bytes = &self.arena[message.start..message.start + message.len];
            let socket = types::Fd(message.to.as_fd().as_raw_fd());
            let entry = opcode::Send::new(socket, bytes.as_ptr(), bytes.len() as u32)
                .flags(libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
                .build()
                .user_data(index as u64);
            // SAFETY: the descriptor is open as long as the message holds its stream, and the bytes
            // stay where they are in the arena. Both outlast the send: `send_all` returns when all
            // are complete.
            unsafe { entries.push(&entry) }.expect("the ring has an entry for each message");
        }
    }
}

impl Message {
    /// What a completion means; none when all was sent.
    fn judge(&self, result: i32, arena: &[u8]) -> Option<Unsent> {
        let (sent, errno) = match result {
            0.. => (result as usize, Errno::AGAIN),
            // Sent once more by who hears that there was no room.
            _ if result == -libc::EINTR => (0, Errno::AGAIN),
            _ => (0, Errno::from_raw_os_error(-result)),
        };
        let rest = &arena[self.start + sent..self.start + self.len];
        (!rest.is_empty()).then(|| Unsent { rest: rest.to_vec(), errno })
    }
}

/// The task: woken by the first message of a turn. It ends with the outbox.
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
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    /// Streams without a ring of their own; none where the kernel has no such ring to give.
    fn with_outbox(test: impl AsyncFnOnce(Outbox)) {
        let Ok(outbox) = Outbox::new() else { return };
        let mut runtime = monoio::RuntimeBuilder::<monoio::LegacyDriver>::new().build().unwrap();
        runtime.block_on(test(outbox));
    }

    fn stream() -> (Rc<Stream>, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (Rc::new(Stream::from_fd(OwnedFd::from(ours)).unwrap()), theirs)
    }

    fn forward(outbox: &Outbox, bytes: &[u8], to: &Rc<Stream>) -> Ticket {
        let (from, mut source) = stream();
        source.write_all(bytes).unwrap();
        let (len, ticket) = outbox.forward(&from, to, usize::MAX, Waker::noop()).unwrap().unwrap();
        assert_eq!(len, bytes.len());
        ticket
    }

    fn reads(peer: &mut UnixStream, expected: &[u8]) {
        let mut read = vec![0; expected.len()];
        peer.read_exact(&mut read).unwrap();
        assert!(read == expected);
    }

    #[test]
    fn messages_wait_for_the_flush_and_each_gets_where_it_is_to_go() {
        with_outbox(async |outbox| {
            // More than the ring and the arena hold: a full outbox flushes by itself.
            let pairs: Vec<_> = (0..=u8::MAX).map(|_| stream()).collect();
            let message = |number: usize| vec![number as u8; 1 + 13 * number];
            for (number, (to, _)) in pairs.iter().enumerate() {
                forward(&outbox, &message(number), to);
            }
            pairs[255].1.set_nonblocking(true).unwrap();
            assert!((&pairs[255].1).read(&mut [0]).is_err(), "the last one still waits");
            outbox.flush();
            for (number, (_, mut peer)) in pairs.into_iter().enumerate() {
                reads(&mut peer, &message(number));
            }
        });
    }

    #[test]
    fn a_message_that_is_asked_for_is_sent_at_once() {
        with_outbox(async |outbox| {
            let (to, mut peer) = stream();
            for message in [b"one", b"two"] {
                let ticket = forward(&outbox, message, &to);
                assert_eq!(outbox.settle(ticket), None);
                reads(&mut peer, message);
            }
        });
    }

    #[test]
    fn what_does_not_fit_comes_back() {
        with_outbox(async |outbox| {
            let (to, mut peer) = stream();
            let mut sent = Vec::new();
            let unsent = loop {
                let message = vec![sent.len() as u8; 1000];
                sent.extend_from_slice(&message);
                if let Some(unsent) = outbox.settle(forward(&outbox, &message, &to)) {
                    break unsent;
                }
            };
            assert_eq!(unsent.errno, Errno::AGAIN);
            sent.truncate(sent.len() - unsent.rest.len());
            reads(&mut peer, &sent);
        });
    }

    #[test]
    fn the_rest_of_a_message_is_what_was_not_sent() {
        with_outbox(async |_| {
            let message =
                Message { to: stream().0, start: 2, len: 3, waker: Waker::noop().clone() };
            let unsent = |rest: &[u8], errno| Some(Unsent { rest: rest.to_vec(), errno });
            let judge = |result| message.judge(result, b"..abc..");
            assert_eq!(judge(3), None);
            assert_eq!(judge(2), unsent(b"c", Errno::AGAIN));
            assert_eq!(judge(-libc::EINTR), unsent(b"abc", Errno::AGAIN));
            assert_eq!(judge(-libc::EPIPE), unsent(b"abc", Errno::PIPE));
        });
    }

    #[test]
    fn a_failure_wakes_its_task_and_no_other_message_is_lost() {
        struct Count(AtomicUsize);
        impl Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        with_outbox(async |outbox| {
            let (gone, peer) = stream();
            drop(peer);
            let (to, mut peer) = stream();
            let count = Arc::new(Count(AtomicUsize::new(0)));
            let (from, mut source) = stream();
            source.write_all(b"lost").unwrap();
            let waker = Waker::from(Arc::clone(&count));
            let (_, lost) = outbox.forward(&from, &gone, 4, &waker).unwrap().unwrap();
            let arrives = forward(&outbox, b"arrives", &to);
            outbox.flush();
            assert_eq!(count.0.load(Ordering::Relaxed), 1);
            assert!(outbox.has_failed(lost) && !outbox.has_failed(arrives));
            let unsent = outbox.settle(lost).unwrap();
            assert_eq!(unsent, Unsent { rest: b"lost".to_vec(), errno: Errno::PIPE });
            assert_eq!(outbox.settle(arrives), None);
            reads(&mut peer, b"arrives");
        });
    }

    #[test]
    fn a_stream_is_not_closed_before_its_message_is_sent() {
        with_outbox(async |outbox| {
            let (to, mut peer) = stream();
            forward(&outbox, b"last words", &to);
            drop(to);
            outbox.flush();
            let mut read = String::new();
            peer.read_to_string(&mut read).unwrap();
            assert_eq!(read, "last words");
        });
    }

    #[test]
    fn the_end_of_a_source_queues_nothing() {
        with_outbox(async |outbox| {
            let ((from, source), (to, _peer)) = (stream(), stream());
            assert_eq!(outbox.forward(&from, &to, 1, Waker::noop()), Err(Errno::AGAIN));
            drop(source);
            assert_eq!(outbox.forward(&from, &to, 1, Waker::noop()), Ok(None));
        });
    }
}
