//! Connections that wait or fail for lack of descriptors, places or local ports. The workers count;
//! the control plane reports once a second.

use std::io;
use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering::Relaxed};

use crate::sys::Errno;

/// What happened since the last report. Shared by all workers, which touch it only when a resource
/// is short.
#[derive(Debug, Default)]
pub struct Shortage {
    /// Connections that wait at present.
    waiting: AtomicUsize,
    /// Connections that arrived while their worker had as many as it may have.
    full: AtomicU64,
    /// Accepts that failed. The next two fields are the error and the listener of the last one.
    refused: AtomicU64,
    errno: AtomicI32,
    listener: AtomicUsize,
    /// Connections that were reset because they got no socket to their upstream.
    reset: AtomicU64,
    /// Connections that were answered 502 for the same reason.
    answered: AtomicU64,
    /// UDP clients that got no socket to their endpoint.
    dropped: AtomicU64,
    /// The error of the last of these three; 0 if there was none.
    connect_errno: AtomicI32,
}

impl Shortage {
    /// Counts a connection that arrived while its worker had as many as it may have.
    pub fn full(&self) {
        self.full.fetch_add(1, Relaxed);
    }

    /// Counts a failed accept. `listener` is its position in the configuration.
    pub fn refused(&self, listener: usize, error: &io::Error) {
        self.listener.store(listener, Relaxed);
        self.errno.store(error.raw_os_error().unwrap_or_default(), Relaxed);
        self.refused.fetch_add(1, Relaxed);
    }

    /// Updates the number of connections that wait at one place.
    pub fn waits(&self, before: usize, now: usize) {
        self.waiting.fetch_add(now.wrapping_sub(before), Relaxed);
    }

    /// Counts a connection that is reset because it got no socket to its upstream.
    pub(super) fn reset(&self) {
        self.reset.fetch_add(1, Relaxed);
    }

    /// Counts a connection that is answered 502 because it got no socket to its upstream.
    pub(super) fn answered(&self) {
        self.answered.fetch_add(1, Relaxed);
    }

    /// Counts a dropped datagram of a new UDP client that got no socket to its endpoint.
    pub(super) fn dropped(&self) {
        self.dropped.fetch_add(1, Relaxed);
    }

    /// Stores the error of the last socket that could not be made.
    pub(super) fn no_socket(&self, errno: Errno) {
        self.connect_errno.store(errno.raw_os_error(), Relaxed);
    }

    /// Takes what is to be reported since the last call. `None` if there is nothing new.
    pub fn report(&self) -> Option<Report> {
        let take = |count: &AtomicU64| count.swap(0, Relaxed);
        let (full, refused) = (take(&self.full), take(&self.refused));
        let report = Report {
            waiting: self.waiting.load(Relaxed),
            reset: take(&self.reset),
            answered: take(&self.answered),
            dropped: take(&self.dropped),
            connect_error: match self.connect_errno.swap(0, Relaxed) {
                0 => None,
                errno => Some(Errno::from_raw_os_error(errno)),
            },
            refused: (refused > 0).then(|| {
                let errno = Errno::from_raw_os_error(self.errno.load(Relaxed));
                (self.listener.load(Relaxed), errno)
            }),
        };
        // Connections that wait are reported only if a worker was full meanwhile.
        let waits = full > 0 && report.waiting > 0;
        let failed = report.reset + report.answered + report.dropped;
        let is_news = waits || refused > 0 || failed > 0;
        is_news.then_some(report)
    }
}

/// What the workers could not serve since the last report.
#[derive(Debug, PartialEq, Eq)]
pub struct Report {
    /// Connections that wait in the backlog at present.
    pub waiting: usize,
    /// Connections that were reset because they got no socket to their upstream.
    pub reset: u64,
    /// Upgrades that got a 502 because they got no socket to their upstream.
    pub answered: u64,
    /// Datagrams of new UDP clients that were dropped because they got no socket to their endpoint.
    pub dropped: u64,
    /// The error of the last of these three.
    pub connect_error: Option<Errno>,
    /// The listener whose accept failed last, by its position in the configuration, and the error.
    pub refused: Option<(usize, Errno)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_and_what_was_reset_is_reported_once() {
        let shortage = Shortage::default();
        assert_eq!(shortage.report(), None);
        shortage.refused(1, &io::Error::from_raw_os_error(libc::EMFILE));
        shortage.waits(0, 31);
        (0..12).for_each(|_| shortage.reset());
        shortage.answered();
        (0..3).for_each(|_| shortage.dropped());
        shortage.no_socket(Errno::ADDRNOTAVAIL);
        let (refused, connect_error) = (Some((1, Errno::MFILE)), Some(Errno::ADDRNOTAVAIL));
        let expected =
            Report { waiting: 31, reset: 12, answered: 1, dropped: 3, connect_error, refused };
        assert_eq!(shortage.report(), Some(expected));
        assert_eq!(shortage.report(), None);
    }

    #[test]
    fn what_waits_is_the_sum_of_what_is_known_last() {
        let shortage = Shortage::default();
        shortage.waits(0, 5);
        shortage.waits(0, 3);
        shortage.waits(5, 1);
        shortage.full();
        let (reset, answered, dropped) = (0, 0, 0);
        let (connect_error, refused) = (None, None);
        let expected = Report { waiting: 4, reset, answered, dropped, connect_error, refused };
        assert_eq!(shortage.report(), Some(expected));
    }
}
