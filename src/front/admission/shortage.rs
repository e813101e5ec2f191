//! Connections that wait or fail for lack of descriptors, permits or local ports. The workers
//! count; the control plane reports once a second.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};

use crate::sys::Errno;

/// How many reports it takes until a failure for lack of descriptors is over: two to three seconds.
const SHORT_FOR: u32 = 3;

/// What happened since the last report. Shared by all workers, which touch it only when a resource
/// is short.
#[derive(Debug, Default)]
pub struct Shortage {
    /// Connections that wait at present.
    waiting: AtomicUsize,
    /// Checks that found connections waiting while no worker had room for them.
    full: AtomicU64,
    /// Connections that were reset because they got no socket to their upstream.
    reset: AtomicU64,
    /// Connections that were answered 502 for the same reason.
    answered: AtomicU64,
    /// UDP clients that got no socket to their endpoint.
    dropped: AtomicU64,
    /// The error of the last of these three; 0 if there was none.
    connect_errno: AtomicI32,
    /// Reports until descriptors do not count as short any more.
    short_for: AtomicU32,
}

impl Shortage {
    /// Returns true if a descriptor was refused within the last seconds.
    pub fn is_short(&self) -> bool {
        self.short_for.load(Relaxed) > 0
    }

    /// Notes that a call has failed, which may be for lack of descriptors.
    pub fn call_failed(&self, errno: Errno) {
        if matches!(errno, Errno::MFILE | Errno::NFILE) {
            self.short_for.store(SHORT_FOR, Relaxed);
        }
    }

    /// Counts a check that found connections waiting while no worker had room for them.
    pub fn full(&self) {
        self.full.fetch_add(1, Relaxed);
    }

    /// Updates the number of connections that wait at one place.
    pub fn waits(&self, before: usize, now: usize) {
        self.waiting.fetch_add(now.wrapping_sub(before), Relaxed);
    }

    /// Counts a connection that is reset because it got no socket to its upstream.
    pub(in crate::front) fn reset(&self) {
        self.reset.fetch_add(1, Relaxed);
    }

    /// Counts a connection that is answered 502 because it got no socket to its upstream.
    pub(in crate::front) fn answered(&self) {
        self.answered.fetch_add(1, Relaxed);
    }

    /// Counts a dropped datagram of a new UDP client that got no socket to its endpoint.
    pub(in crate::front) fn dropped(&self) {
        self.dropped.fetch_add(1, Relaxed);
    }

    /// Stores the error of the last socket that could not be made.
    pub(in crate::front) fn no_socket(&self, errno: Errno) {
        self.call_failed(errno);
        self.connect_errno.store(errno.raw_os_error(), Relaxed);
    }

    /// Takes what is to be reported since the last call. `None` if there is nothing new.
    /// `accept_failed` is the name of a listener whose accept has failed since then, and the error.
    pub fn report(&self, accept_failed: Option<(Arc<str>, Errno)>) -> Option<Report> {
        // A failure at this moment may be counted for one report less.
        self.short_for.store(self.short_for.load(Relaxed).saturating_sub(1), Relaxed);
        let since_last = |count: &AtomicU64| count.swap(0, Relaxed);
        let full = since_last(&self.full);
        let report = Report {
            waiting: self.waiting.load(Relaxed),
            reset: since_last(&self.reset),
            answered: since_last(&self.answered),
            dropped: since_last(&self.dropped),
            connect_error: match self.connect_errno.swap(0, Relaxed) {
                0 => None,
                errno => Some(Errno::from_raw_os_error(errno)),
            },
            accept_failed,
        };
        // Connections that wait are reported only if a worker was full meanwhile.
        let waits = full > 0 && report.waiting > 0;
        let failed = report.reset + report.answered + report.dropped;
        let is_news = waits || report.accept_failed.is_some() || failed > 0;
        is_news.then_some(report)
    }
}

/// What the workers could not serve since the last report.
#[derive(Debug, PartialEq, Eq)]
pub struct Report {
    /// Connections that wait at present, in the backlog or accepted.
    pub waiting: usize,
    /// Connections that were reset because they got no socket to their upstream.
    pub reset: u64,
    /// Upgrades that got a 502 because they got no socket to their upstream.
    pub answered: u64,
    /// Datagrams of new UDP clients that were dropped because they got no socket to their endpoint.
    pub dropped: u64,
    /// The error of the last of these three.
    pub connect_error: Option<Errno>,
    /// The name of a listener whose accept failed, and the error.
    pub accept_failed: Option<(Arc<str>, Errno)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_and_what_was_reset_is_reported_once() {
        let shortage = Shortage::default();
        assert_eq!(shortage.report(None), None);
        let accept_failed = Some((Arc::from("a"), Errno::MFILE));
        shortage.waits(0, 31);
        (0..12).for_each(|_| shortage.reset());
        shortage.answered();
        (0..3).for_each(|_| shortage.dropped());
        shortage.no_socket(Errno::ADDRNOTAVAIL);
        let expected = Report {
            waiting: 31,
            reset: 12,
            answered: 1,
            dropped: 3,
            connect_error: Some(Errno::ADDRNOTAVAIL),
            accept_failed: accept_failed.clone(),
        };
        assert_eq!(shortage.report(accept_failed), Some(expected));
        assert_eq!(shortage.report(None), None);
    }

    #[test]
    fn descriptors_count_as_short_for_some_reports() {
        let shortage = Shortage::default();
        shortage.no_socket(Errno::ADDRNOTAVAIL);
        assert!(!shortage.is_short());
        shortage.no_socket(Errno::MFILE);
        for _ in 0..SHORT_FOR {
            assert!(shortage.is_short());
            shortage.report(None);
        }
        assert!(!shortage.is_short());
    }

    #[test]
    fn what_waits_is_the_sum_of_what_is_known_last() {
        let shortage = Shortage::default();
        shortage.waits(0, 5);
        shortage.waits(0, 3);
        shortage.waits(5, 1);
        shortage.full();
        let (reset, answered, dropped) = (0, 0, 0);
        let (connect_error, accept_failed) = (None, None);
        let expected =
            Report { waiting: 4, reset, answered, dropped, connect_error, accept_failed };
        assert_eq!(shortage.report(None), Some(expected));
    }
}
