//! Counts the failed attempts of one worker and reports them to the control plane, which writes the
//! diagnostics: a worker must not write to a descriptor that can block.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};

use crate::observe::endpoints::FailureKind;
use crate::sys::{Address, ConnectError};

/// Pairs of endpoint and reason that one cluster counts between two reports. Further ones appear in
/// the access log only.
const MOST: usize = 256;

/// Why an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The endpoint did not answer within `connect_timeout`.
    TimedOut,
    /// A Unix socket's accept queue stayed full for `connect_timeout`.
    BacklogFull,
    /// The TLS handshake failed, for this reason in one word.
    Tls(&'static str),
    /// The system's error.
    System(ConnectError),
}

impl Reason {
    /// Returns true when this machine has no route to the endpoint, so that nothing was sent.
    pub fn is_unreachable(self) -> bool {
        matches!(self, Reason::System(ConnectError::Unreachable(_)))
    }

    /// How it is counted.
    pub(super) fn kind(self) -> FailureKind {
        match self {
            Reason::TimedOut => FailureKind::TimedOut,
            Reason::BacklogFull => FailureKind::BacklogFull,
            Reason::Tls(_) => FailureKind::Tls,
            Reason::System(ConnectError::Unreachable(_)) => FailureKind::Unreachable,
            Reason::System(ConnectError::Local(_)) => FailureKind::Local,
            Reason::System(ConnectError::OwnPeer) => FailureKind::OwnPeer,
            Reason::System(ConnectError::Refused(_)) => FailureKind::Refused,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::TimedOut => f.write_str("no answer within connect_timeout"),
            Reason::BacklogFull => f.write_str("accept queue full for all of connect_timeout"),
            Reason::Tls(word) => write!(f, "TLS handshake failed: {word}"),
            Reason::System(ConnectError::OwnPeer) => {
                f.write_str("connected to itself: nothing listens there")
            }
            Reason::System(
                ConnectError::Unreachable(errno)
                | ConnectError::Local(errno)
                | ConnectError::Refused(errno),
            ) => {
                let text = std::io::Error::from(*errno).to_string();
                // Without the errno number, which adds nothing to the text.
                f.write_str(text.split(" (os error").next().unwrap_or_default())
            }
        }
    }
}

/// Failures of one endpoint for one reason on one worker since the last report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The cluster's name.
    pub cluster: Arc<str>,
    /// The endpoint.
    pub endpoint: Address,
    /// Why it failed.
    pub reason: Reason,
    /// The number of failures.
    pub failures: u64,
}

/// The failures of one cluster on one worker. Allocates nothing while there are none.
#[derive(Default)]
pub(super) struct Failures {
    counts: RefCell<Vec<Count>>,
}

struct Count {
    endpoint: Rc<Address>,
    reason: Reason,
    failures: u64,
}

impl Failures {
    /// Counts one failure.
    pub(super) fn note(&self, endpoint: &Rc<Address>, reason: Reason) {
        let mut counts = self.counts.borrow_mut();
        let same = |count: &&mut Count| count.endpoint == *endpoint && count.reason == reason;
        if let Some(count) = counts.iter_mut().find(same) {
            count.failures += 1;
        } else if counts.len() < MOST {
            counts.push(Count { endpoint: Rc::clone(endpoint), reason, failures: 1 });
        }
    }

    /// Sends the counts. Counts that do not fit the channel are kept for the next call.
    pub(super) fn report(&self, cluster: &Arc<str>, reports: &SyncSender<Report>) {
        let mut counts = self.counts.borrow_mut();
        while let Some(count) = counts.pop() {
            let endpoint = Address::clone(&count.endpoint);
            let Count { reason, failures, .. } = count;
            let cluster = Arc::clone(cluster);
            let report = Report { cluster, endpoint, reason, failures };
            if let Err(TrySendError::Full(_)) = reports.try_send(report) {
                return counts.push(count);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;
    use crate::sys::Errno;

    fn endpoint(port: u16) -> Rc<Address> {
        Rc::new(Address::Ip(([127, 0, 0, 1], port).into()))
    }

    #[test]
    fn failures_are_counted_by_endpoint_and_reason_until_there_is_room_for_a_report() {
        let cluster: Arc<str> = Arc::from("c");
        let (failures, (reports, received)) = (Failures::default(), sync_channel(1));
        failures.report(&cluster, &reports);
        assert!(received.try_recv().is_err(), "nothing failed");
        for port in [1, 1, 2] {
            failures.note(&endpoint(port), Reason::TimedOut);
        }
        failures.report(&cluster, &reports);
        let report = |port, failures| Report {
            cluster: Arc::clone(&cluster),
            endpoint: Address::clone(&endpoint(port)),
            reason: Reason::TimedOut,
            failures,
        };
        assert_eq!(received.try_iter().collect::<Vec<_>>(), [report(2, 1)]);
        // The other count was kept, and goes on.
        failures.note(&endpoint(1), Reason::TimedOut);
        failures.report(&cluster, &reports);
        assert_eq!(received.try_iter().collect::<Vec<_>>(), [report(1, 3)]);
        failures.report(&cluster, &reports);
        assert!(received.try_recv().is_err(), "it was reported already");
        failures.note(&endpoint(1), Reason::TimedOut);
        failures.note(&endpoint(1), Reason::BacklogFull);
        assert_eq!(failures.counts.borrow().len(), 2);
    }

    #[test]
    fn memory_is_bounded_however_many_endpoints_fail() {
        let failures = Failures::default();
        for port in 1..2000 {
            failures.note(&endpoint(port), Reason::TimedOut);
        }
        assert_eq!(failures.counts.borrow().len(), MOST);
    }

    #[test]
    fn reasons_read_as_the_system_says_them() {
        let refused = Reason::System(ConnectError::Refused(Errno::CONNREFUSED));
        assert_eq!(refused.to_string(), "Connection refused");
        assert!(!refused.is_unreachable());
        assert!(Reason::System(ConnectError::Unreachable(Errno::NETUNREACH)).is_unreachable());
    }
}
