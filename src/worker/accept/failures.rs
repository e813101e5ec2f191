//! Accepts that fail, and what waits meanwhile. Without a descriptor for its upstream an accepted
//! connection could only be reset. So while descriptors are short nothing is accepted unless enough
//! are free, and one task of each socket tries.

use std::io;
use std::time::Instant;

use super::{Acceptor, BACK_OFF};
use crate::sys::{self, Errno};

/// While descriptors are short, a connection is accepted only if so many are free: for itself, its
/// upstream and a pipe.
const SPARE: usize = 4;

impl Acceptor {
    /// Waits while descriptors are short. The task whose accept failed last goes on when it finds
    /// [`SPARE`] of them. It is that task because the kernel wakes only one accept in flight for
    /// each connection: if that one fails, no other one in flight finds the connection.
    pub(super) async fn wait_for_descriptors(&self, task: usize) {
        let shortage = &self.context.shortage;
        while shortage.is_short() && !self.paused.is_set() {
            if self.retrying.get() == task {
                // The connection that was accepted last connects to its upstream first.
                self.context.pool.yielder().yield_now().await;
                match sys::check_descriptors(SPARE) {
                    Ok(()) => return,
                    Err(errno) => self.note_failure(&errno.into()),
                }
            }
            monoio::time::sleep(BACK_OFF).await;
        }
    }

    /// Handles a failed accept. The accept loop goes on.
    pub(super) async fn failed(&self, error: &io::Error) {
        // The connection was aborted before the accept (accept(2)). Others may wait, so there is no
        // pause.
        if error.kind() == io::ErrorKind::ConnectionAborted {
            return;
        }
        self.note_failure(error);
        monoio::time::sleep(BACK_OFF).await;
    }

    /// Notes an error for the next report.
    fn note_failure(&self, error: &io::Error) {
        self.look_at_queue();
        if let Some(errno) = Errno::from_io_error(error) {
            self.context.shortage.call_failed(errno);
        }
        self.listener.borrow().admission.accept_failed(error);
    }

    /// Counts the connections that wait, unless the last count was less than [`BACK_OFF`] ago.
    pub(super) fn look_at_queue(&self) {
        if self.looked.get().is_none_or(|looked| looked.elapsed() >= BACK_OFF) {
            self.looked.set(Some(Instant::now()));
            let queue = self.open().map_or(0, |open| sys::accept_queue_length(&open.socket));
            self.set_waiting(queue + self.held.get());
        }
    }

    pub(super) fn set_waiting(&self, now: usize) {
        let before = self.waiting.replace(now);
        if before != now {
            self.context.shortage.waits(before, now);
        }
    }
}
