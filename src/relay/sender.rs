//! Bytes on their way to one stream. They are sent at once, or by the worker's outbox together with
//! those to other streams, or they wait until the stream has room.

use std::rc::Rc;
use std::task::Waker;

use super::pool::Pool;
use crate::sched::{MAX_MESSAGE, QueuedSend};
use crate::sys::Errno;
use crate::transport::Transport;

/// Sends to one stream in order. The caller passes in the stream, and waits until it is writable
/// where bytes are left.
pub struct Sender {
    pool: Rc<Pool>,
    /// A message in the outbox whose result is not known yet. It comes before `waiting`.
    queued: Option<QueuedSend>,
    /// Bytes that did not fit, or that follow those.
    waiting: Vec<u8>,
    /// Bytes of `waiting` that are already sent.
    sent: usize,
    /// All bytes that were sent or queued so far.
    total: u64,
}

impl Sender {
    /// Makes a sender with bytes that are sent first.
    pub fn new(pool: &Rc<Pool>, first: Vec<u8>) -> Sender {
        pool.memory().keep(first.len());
        Sender { pool: Rc::clone(pool), queued: None, waiting: first, sent: 0, total: 0 }
    }

    /// The pool that counts what waits here.
    pub(super) fn pool(&self) -> &Rc<Pool> {
        &self.pool
    }

    /// Counts bytes that reached the stream by another way: they were spliced.
    pub(super) fn count(&mut self, bytes: usize) {
        self.total += bytes as u64;
    }

    /// Bytes that were sent so far, those in the outbox included.
    pub fn bytes(&self) -> u64 {
        self.total
    }

    /// Bytes that wait, apart from those in the outbox.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> &[u8] {
        &self.waiting[self.sent..]
    }

    /// Returns true when every byte is sent.
    pub fn is_empty(&self) -> bool {
        self.queued.is_none() && self.waiting.is_empty()
    }

    /// Returns true while a message is in the outbox, or its result was not asked for yet.
    pub fn is_queued(&self, to: &Transport) -> bool {
        self.queued.is_some() || to.is_queued()
    }

    /// Returns true if it is known that the message in the outbox could not be sent whole.
    pub fn has_failed(&self, to: &Transport) -> bool {
        self.queued.as_ref().is_some_and(QueuedSend::has_failed) || to.has_failed_send()
    }

    /// Appends bytes that are sent later.
    pub fn push(&mut self, bytes: &[u8]) {
        self.pool.memory().keep(bytes.len());
        self.waiting.extend_from_slice(bytes);
    }

    /// Sends bytes at once and keeps what does not fit. Nothing else may wait. Returns the number
    /// of bytes sent.
    ///
    /// # Errors
    /// As [`Transport::send`], but for `AGAIN`. The bytes are not kept.
    pub fn send(&mut self, to: &Transport, bytes: &[u8]) -> Result<usize, Errno> {
        debug_assert!(self.is_empty(), "bytes are sent in order");
        let sent = match to.send(bytes) {
            Ok(sent) => sent,
            Err(Errno::AGAIN) => 0,
            Err(errno) => return Err(errno),
        };
        self.total += sent as u64;
        if sent < bytes.len() {
            self.push(&bytes[sent..]);
        }
        Ok(sent)
    }

    /// Queues bytes in the outbox. Nothing else may wait. Returns false, with nothing queued, if
    /// there is no outbox, or if the bytes are none or more than [`MAX_MESSAGE`], a little less for
    /// TLS. `waker` is called if they cannot be sent.
    pub fn queue(&mut self, to: &Transport, bytes: &[u8], waker: &Waker) -> bool {
        debug_assert!(self.is_empty(), "bytes are sent in order");
        let Some(to) = to.plain() else {
            let is_queued = to.queue(bytes, waker);
            self.total += if is_queued { bytes.len() as u64 } else { 0 };
            return is_queued;
        };
        let Some(outbox) = self.pool.outbox() else { return false };
        let fits = !bytes.is_empty() && bytes.len() <= MAX_MESSAGE;
        if fits {
            self.queued = Some(outbox.queue(bytes, to, waker));
            self.total += bytes.len() as u64;
        }
        fits
    }

    /// Receives at most `max` bytes into the outbox, which sends them after every ready task had
    /// its turn. Nothing else may wait. Returns the number of bytes, 0 at the end of `from`, or
    /// `None` if there is no outbox or a transport is not plain. `waker` is called if they cannot
    /// be sent.
    ///
    /// # Errors
    /// As [`Transport::recv`].
    pub(super) fn forward(
        &mut self,
        from: &Transport,
        to: &Transport,
        max: usize,
        waker: &Waker,
    ) -> Result<Option<usize>, Errno> {
        debug_assert!(self.is_empty(), "bytes are sent in order");
        let Some(outbox) = self.pool.outbox() else { return Ok(None) };
        let (Some(from), Some(to)) = (from.plain(), to.plain()) else { return Ok(None) };
        let Some((read, queued)) = outbox.forward(from, to, max, waker)? else {
            return Ok(Some(0));
        };
        self.queued = Some(queued);
        self.total += read as u64;
        Ok(Some(read))
    }

    /// Takes the result of the message in the outbox. Bytes that did not fit become the first that
    /// wait.
    ///
    /// # Errors
    /// As [`Transport::send`], but for `AGAIN`. The bytes wait in this case, too.
    pub fn finish_queued(&mut self, to: &Transport) -> Result<(), Errno> {
        to.settle()?;
        let Some(Err(short)) = self.queued.take().map(QueuedSend::finish) else { return Ok(()) };
        self.total -= short.rest.len() as u64;
        self.pool.memory().keep(short.rest.len());
        self.waiting.splice(self.sent..self.sent, short.rest);
        if short.errno == Errno::AGAIN { Ok(()) } else { Err(short.errno) }
    }

    /// Takes the result of the message in the outbox, and sends what waits until the stream is
    /// full. Returns true when every byte is sent, also those that the transport keeps.
    ///
    /// # Errors
    /// As [`Transport::send`], but for `AGAIN`.
    pub fn flush(&mut self, to: &Transport) -> Result<bool, Errno> {
        self.finish_queued(to)?;
        while self.sent < self.waiting.len() {
            match to.send(&self.waiting[self.sent..]) {
                Ok(sent) => {
                    self.sent += sent;
                    self.total += sent as u64;
                }
                Err(Errno::AGAIN) => return Ok(false),
                Err(errno) => return Err(errno),
            }
        }
        self.release();
        to.flush()
    }

    fn release(&mut self) {
        self.pool.memory().release(self.waiting.len());
        // A new `Vec`, not `clear`: an idle connection must hold no buffer.
        (self.waiting, self.sent) = (Vec::new(), 0);
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.pool.memory().release(self.waiting.len());
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::{ErrorKind, Read};
    use std::os::unix::net::UnixStream;
    use std::task::Poll;

    use super::*;
    use crate::sched::{BUDGET, Outbox, Yielder};
    use crate::sys::Stream;

    fn streams() -> (Transport, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        (Transport::Plain(Rc::new(Stream::from_fd(ours.into()).unwrap())), theirs)
    }

    fn with_outbox(test: impl AsyncFnOnce(Rc<Pool>)) {
        let mut runtime = monoio::RuntimeBuilder::<monoio::LegacyDriver>::new().build().unwrap();
        runtime.block_on(async {
            let outbox = match Outbox::new() {
                Ok(outbox) => outbox.start(),
                Err(error) => return eprintln!("not tested without a ring: {error}"),
            };
            test(Pool::new(4, BUDGET, Some(outbox), Yielder::start().unwrap())).await;
        });
    }

    #[test]
    fn queued_bytes_that_do_not_fit_go_first_when_there_is_room() {
        with_outbox(async |pool| {
            let (client, mut peer) = streams();
            let (mut sender, mut all) = (Sender::new(&pool, Vec::new()), Vec::new());
            while sender.flush(&client) == Ok(true) {
                let message = vec![all.len() as u8; 1000];
                assert!(
                    sender.queue(&client, &message, Waker::noop()) && sender.is_queued(&client)
                );
                all.extend_from_slice(&message);
            }
            assert!(pool.memory().kept() > 0);
            // The client reads now, and gets another message after those.
            let mut read = Vec::new();
            while sender.flush(&client) != Ok(true) {
                let error = peer.read_to_end(&mut read).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
            }
            assert_eq!((sender.send(&client, b"the last one"), pool.memory().kept()), (Ok(12), 0));
            all.extend_from_slice(b"the last one");
            let _ = peer.read_to_end(&mut read);
            assert!(read == all, "{} bytes of {}", read.len(), all.len());
        });
    }

    #[test]
    fn bytes_that_do_not_fit_are_kept_and_counted_until_they_are_sent() {
        with_outbox(async |pool| {
            let (client, mut peer) = streams();
            let mut sender = Sender::new(&pool, Vec::new());
            let bytes: Vec<u8> = (0..2_000_000u32).map(|at| at as u8).collect();
            let sent = sender.send(&client, &bytes).unwrap();
            assert_eq!(pool.memory().kept(), bytes.len() - sent);
            sender.push(b"end");
            let mut read = Vec::new();
            while sender.flush(&client) != Ok(true) {
                let _ = peer.read_to_end(&mut read);
            }
            let _ = peer.read_to_end(&mut read);
            assert!(read == [&bytes[..], b"end"].concat());
            sender.push(b"never sent");
            drop(sender);
            assert_eq!(pool.memory().kept(), 0);
        });
    }

    #[test]
    fn a_task_that_waits_is_woken_when_its_message_could_not_be_sent() {
        with_outbox(async |pool| {
            let (client, peer) = streams();
            let mut sender = Sender::new(&pool, Vec::new());
            poll_fn(|cx| {
                assert!(sender.queue(&client, b"message", cx.waker()));
                Poll::Ready(())
            })
            .await;
            client.socket().shutdown();
            drop(peer);
            pool.outbox().unwrap().flush();
            assert!(sender.has_failed(&client));
            assert!(sender.flush(&client).is_err());
        });
    }

    #[test]
    fn a_send_that_fails_keeps_nothing_and_a_queued_message_that_fails_can_be_sent_again() {
        with_outbox(async |pool| {
            let (client, peer) = streams();
            let mut sender = Sender::new(&pool, Vec::new());
            drop(peer);
            assert!(sender.send(&client, &[0; 100_000]).is_err());
            assert!(sender.is_empty());
            assert_eq!((pool.memory().kept(), sender.bytes()), (0, 0));

            assert!(sender.queue(&client, b"message", Waker::noop()));
            assert!(sender.finish_queued(&client).is_err());
            assert_eq!(
                (sender.waiting(), pool.memory().kept(), sender.bytes()),
                (&b"message"[..], 7, 0)
            );
            drop(sender);
            assert_eq!(pool.memory().kept(), 0);
        });
    }

    #[test]
    fn no_bytes_and_many_bytes_are_not_queued() {
        with_outbox(async |pool| {
            let (client, _peer) = streams();
            let mut sender = Sender::new(&pool, Vec::new());
            assert!(!sender.queue(&client, &[0; MAX_MESSAGE + 1], Waker::noop()));
            assert!(!sender.queue(&client, b"", Waker::noop()));
            let without_outbox = Pool::new(4, BUDGET, None, Yielder::start().unwrap());
            let mut alone = Sender::new(&without_outbox, Vec::new());
            assert!(!alone.queue(&client, b"message", Waker::noop()));
            assert!(sender.is_empty() && alone.is_empty());
        });
    }
}
