//! Decides whether a connection is served. A worker has a limit that follows from the limit of open
//! files ([`Load`]); a listener may have a limit that all workers share ([`Admission`]). What
//! cannot be served for lack of a resource is counted ([`Shortage`]).

mod load;
mod shortage;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering::Relaxed};

pub use load::{Load, Permit};
pub use shortage::{Report, Shortage};

use crate::sys::Errno;

/// Stands for "no limit".
const UNLIMITED: usize = usize::MAX;

/// The connections of one listener over all workers, as far as it has a limit, and its failed
/// accepts.
pub struct Admission {
    /// [`UNLIMITED`]: connections are not counted, so that workers do not share a cache line.
    limit: AtomicUsize,
    open: AtomicUsize,
    /// Connections beyond the limit since the last report.
    refused: AtomicU64,
    /// The error of the last accept that failed since the last report; 0 if none did.
    accept_errno: AtomicI32,
}

impl Admission {
    /// Admits at most `limit` connections at one time.
    pub fn new(limit: Option<usize>) -> Admission {
        let (open, refused) = (AtomicUsize::new(0), AtomicU64::new(0));
        let limit = AtomicUsize::new(limit.unwrap_or(UNLIMITED));
        Admission { limit, open, refused, accept_errno: AtomicI32::new(0) }
    }

    /// Changes the limit. Connections from a time without a limit are not counted.
    pub(super) fn set_limit(&self, limit: Option<usize>) {
        self.limit.store(limit.unwrap_or(UNLIMITED), Relaxed);
    }

    /// Counts one more connection, until the result is dropped. `None` if the limit is reached.
    pub(super) fn admit(self: &Arc<Self>) -> Option<Admitted> {
        let limit = self.limit.load(Relaxed);
        if limit == UNLIMITED {
            return Some(Admitted::default());
        }
        let is_inside = self.open.fetch_add(1, Relaxed) < limit;
        // If it is not returned, dropping it undoes the count.
        let admitted = Admitted { counted_by: Some(Arc::clone(self)) };
        if !is_inside {
            self.refused.fetch_add(1, Relaxed);
        }
        is_inside.then_some(admitted)
    }

    /// Returns the number of connections beyond the limit since the last call.
    pub fn take_refused(&self) -> u64 {
        self.refused.swap(0, Relaxed)
    }

    /// Notes that an accept has failed.
    pub fn accept_failed(&self, error: &io::Error) {
        self.accept_errno.store(error.raw_os_error().unwrap_or(libc::EIO), Relaxed);
    }

    /// Returns the error of the last accept that has failed since the last call.
    pub fn take_accept_error(&self) -> Option<Errno> {
        match self.accept_errno.swap(0, Relaxed) {
            0 => None,
            errno => Some(Errno::from_raw_os_error(errno)),
        }
    }
}

/// A connection that its listener has admitted. The default is one that is not counted.
#[derive(Default)]
pub(super) struct Admitted {
    counted_by: Option<Arc<Admission>>,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if let Some(admission) = &self.counted_by {
            admission.open.fetch_sub(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_counts_what_is_open_and_what_was_refused() {
        let admission = Arc::new(Admission::new(Some(2)));
        let (first, second) = (admission.admit(), admission.admit());
        assert!(first.is_some() && second.is_some() && admission.admit().is_none());
        assert_eq!((admission.take_refused(), admission.take_refused()), (1, 0));
        drop(first);
        assert!(admission.admit().is_some());
    }

    #[test]
    fn a_limit_that_changes_counts_what_was_counted_before() {
        let admission = Arc::new(Admission::new(Some(1)));
        let _first = admission.admit();
        admission.set_limit(Some(2));
        let second = admission.admit();
        assert!(second.is_some() && admission.admit().is_none());
        admission.set_limit(None);
        let _uncounted = admission.admit().unwrap();
        admission.set_limit(Some(2));
        drop(second);
        assert!(admission.admit().is_some());
    }

    #[test]
    fn an_error_of_an_accept_is_taken_once() {
        let admission = Admission::new(None);
        assert_eq!(admission.take_accept_error(), None);
        admission.accept_failed(&io::Error::from_raw_os_error(libc::EMFILE));
        assert_eq!(admission.take_accept_error(), Some(Errno::MFILE));
        assert_eq!(admission.take_accept_error(), None);
    }
}
