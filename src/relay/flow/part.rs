//! Flows that are a part of what their destination gets: the body of a message, with a length or an
//! end of its own.

use std::future::poll_fn;
use std::task::{Poll, Waker};

use super::{Flow, Mode};
use crate::transport::Transport;

/// A flow that is limited to at least this many bytes, and so is going to have them, is spliced
/// from the start.
const LONG_BODY: u64 = 256 * 1024;

impl Flow {
    /// Makes the flow a part of what the destination gets: the end of the source is not announced
    /// to it, and does not complete the output before [`Flow::end`].
    pub fn keep_open(&mut self) {
        self.is_part = true;
    }

    /// Queues bytes in the worker's outbox, as the first that the flow writes. Returns false, with
    /// nothing queued, if they do not suit it: see [`Sender::queue`]. `waker` is called if they
    /// cannot be sent.
    pub fn queue(&mut self, to: &Transport, bytes: &[u8], waker: &Waker) -> bool {
        self.sender.queue(to, bytes, waker)
    }

    /// Waits until it is known that the queued bytes could not be sent whole. Waits for ever if
    /// they were. Returns at once if none are queued.
    pub async fn queue_failed(&self, to: &Transport) {
        poll_fn(|_| match self.sender.is_queued(to) && !self.sender.has_failed(to) {
            // The outbox has the waker of this task.
            true => Poll::Pending,
            false => Poll::Ready(()),
        })
        .await;
    }

    /// Limits the flow to this many more bytes; [`Flow::run`] returns when they are written. If
    /// they are many, the flow is spliced from the start.
    pub fn allow(&mut self, bytes: u64) {
        self.allowed = bytes;
        if (LONG_BODY..u64::MAX).contains(&bytes) && !self.is_coded() {
            self.mode = Mode::Splice { thin: 0 };
        }
    }

    /// Takes bytes of the source, which is read elsewhere.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.allowed = self.allowed.saturating_sub(bytes.len() as u64);
        self.begin_with(bytes);
    }

    /// Completes the output of a source that has ended as it should. If the source is read
    /// elsewhere, this is its end.
    pub fn end(&mut self) {
        self.push_last_bytes();
        self.ended = true;
    }

    /// Bytes that the flow may still read.
    pub fn allowed(&self) -> u64 {
        self.allowed
    }

    /// As [`Flow::has_unsent`], but for what is queued in the outbox and not known to have failed.
    pub fn has_waiting(&self, to: &Transport) -> bool {
        if self.sender.is_queued(to) {
            return self.sender.has_failed(to);
        }
        self.has_unsent(to)
    }
}
