//! The descriptors for UDP sessions: the quota of each listener, and how many of it are in use.

use std::cell::Cell;
use std::rc::Rc;

use crate::config::{self, Config, Protocol};
use crate::sys::{CLOSING_SESSIONS, Shares};

/// 1/`CLOSING_PART` of a listener's quota is reserved for the sockets of ended sessions, or all
/// that its sessions cannot use. [`CLOSING_SESSIONS`] is the upper limit.
const CLOSING_PART: usize = 4;

/// Counts the sockets of one listener's sessions until they are closed.
#[derive(Default)]
pub(super) struct SocketQuota {
    open: Rc<Cell<usize>>,
    max: usize,
    max_sessions: usize,
}

/// One counted socket. Dropping it ends the count.
pub(super) struct SocketPermit {
    open: Rc<Cell<usize>>,
}

/// The most sessions that all workers together can have at one time, over all UDP listeners.
pub fn udp_session_limit(config: &Config, workers: usize, shares: &Shares) -> usize {
    let max_sessions = config.listeners.iter().filter_map(|listener| match &listener.protocol {
        Protocol::Udp(udp) => Some(max_sessions_of_worker(udp, workers)),
        _ => None,
    });
    let quotas = socket_quotas(shares.sessions, &max_sessions.collect::<Vec<_>>());
    workers * quotas.iter().map(SocketQuota::max_sessions).sum::<usize>()
}

/// The part of a listener's `max_sessions` that each worker may use.
pub(super) fn max_sessions_of_worker(config: &config::Udp, workers: usize) -> usize {
    config.max_sessions.div_ceil(workers)
}

/// Divides `descriptors` among listeners. `max_sessions` has the limit of each.
pub(super) fn socket_quotas(descriptors: usize, max_sessions: &[usize]) -> Vec<SocketQuota> {
    let wanted: Vec<usize> = max_sessions.iter().map(|max| max + CLOSING_SESSIONS).collect();
    let shares = fair_shares(descriptors, &wanted);
    let quota = |(share, &max)| SocketQuota::new(share, max);
    shares.into_iter().zip(max_sessions).map(quota).collect()
}

/// Divides a total into equal shares, none larger than wanted. What one share does not need goes to
/// the others (max-min fairness).
fn fair_shares(total: usize, wanted: &[usize]) -> Vec<usize> {
    let mut shares = vec![0; wanted.len()];
    let (mut rest, mut remaining) = (total, wanted.len());
    let mut by_size: Vec<usize> = (0..wanted.len()).collect();
    by_size.sort_by_key(|&index| wanted[index]);
    // The smallest first, so that all later shares get what it leaves.
    for index in by_size {
        shares[index] = wanted[index].min(rest / remaining);
        rest -= shares[index];
        remaining -= 1;
    }
    shares
}

impl SocketQuota {
    /// Divides a share into the sockets of sessions and those of ended sessions.
    fn new(share: usize, max_sessions: usize) -> SocketQuota {
        let spare = share.saturating_sub(max_sessions);
        let closing = (share / CLOSING_PART).max(spare).clamp(1, CLOSING_SESSIONS);
        let max_sessions = max_sessions.min(share.saturating_sub(closing)).max(1);
        SocketQuota { open: Rc::default(), max: max_sessions + closing, max_sessions }
    }

    /// The quota in place of this one, which counts the same sockets.
    pub(super) fn replaced_by(&self, quota: SocketQuota) -> SocketQuota {
        SocketQuota { open: Rc::clone(&self.open), ..quota }
    }

    /// The most sessions at one time.
    pub(super) fn max_sessions(&self) -> usize {
        self.max_sessions
    }

    /// Counts one more socket until the permit is dropped. `None` if the quota is used up.
    pub(super) fn acquire(&self) -> Option<SocketPermit> {
        let open = self.open.get();
        if open >= self.max {
            return None;
        }
        self.open.set(open + 1);
        Some(SocketPermit { open: Rc::clone(&self.open) })
    }
}

impl Drop for SocketPermit {
    fn drop(&mut self) {
        self.open.set(self.open.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_one_listener_does_not_want_the_others_get() {
        assert_eq!(fair_shares(100, &[1000, 1000]), [50, 50]);
        assert_eq!(fair_shares(100, &[1000, 10, 1000]), [45, 10, 45]);
        assert_eq!(fair_shares(100, &[20, 30]), [20, 30]);
        assert_eq!(fair_shares(2, &[5, 5, 5]).iter().sum::<usize>(), 2);
    }

    #[test]
    fn sockets_count_until_they_are_closed() {
        let [quota] = &socket_quotas(40, &[1000])[..] else { panic!("one listener, one quota") };
        assert_eq!(quota.max_sessions(), 30);
        let [small] = &socket_quotas(1000, &[10])[..] else { panic!("one listener, one quota") };
        assert_eq!((small.max_sessions(), small.max), (10, 10 + CLOSING_SESSIONS));
        let mut permits: Vec<SocketPermit> = std::iter::from_fn(|| quota.acquire()).collect();
        assert_eq!(permits.len(), 40);
        permits.pop();
        assert!(quota.acquire().is_some());
    }

    proptest! {
        #[test]
        fn no_more_is_shared_out_than_there_is(
            total in 0usize..10_000,
            wanted in proptest::collection::vec(1usize..5_000, 1..20),
        ) {
            let shares = fair_shares(total, &wanted);
            let sum: usize = shares.iter().sum();
            prop_assert_eq!(sum, total.min(wanted.iter().sum()));
            prop_assert!(shares.iter().zip(&wanted).all(|(share, wanted)| share <= wanted));
        }
    }
}
