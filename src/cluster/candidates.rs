//! The order in which endpoints are tried: round robin over all connections, and one connection
//! tries each endpoint once before it tries one again.
//!
//! First attempts and retries have a round robin of their own. If a retry always went to the next
//! endpoint in the list, that neighbour would get the whole share of an endpoint that is down. If
//! retries advanced the position of first attempts, an endpoint that is down would be tried more
//! often: one of two endpoints by every connection, each of which may wait for `connect_timeout`.

use std::rc::Rc;

use super::{Cluster, Reason};
use crate::sys::{Address, ConnectError, Errno};

/// What one connection has tried.
#[derive(Clone, Debug, Default)]
pub struct Tried {
    /// Attempts made, including the one that succeeded or was cut off. An endpoint that is
    /// unreachable from this machine does not count as an attempt.
    pub attempts: u32,
    /// The endpoint that was tried last.
    pub last: Option<Rc<Address>>,
    /// Every endpoint that failed, once, in the order of their first failures. Allocates nothing
    /// while there is none.
    pub failed: Vec<Rc<Address>>,
    /// Why there were no more attempts, where this machine was short of descriptors, ports or
    /// memory.
    pub shortage: Option<Errno>,
}

/// The endpoints to try for one connection.
pub struct Candidates<'c> {
    cluster: &'c Cluster,
    /// A snapshot: the cluster's endpoints may change while a connect is under way.
    endpoints: Rc<[Rc<Address>]>,
    tried: Tried,
    /// For each of `tried.failed` the last round in which it is not tried again.
    out: Vec<u32>,
    /// Incremented when every endpoint has been tried.
    round: u32,
}

/// Not tried again in any round.
const FOR_GOOD: u32 = u32::MAX;

impl<'c> Candidates<'c> {
    pub(super) fn new(cluster: &'c Cluster) -> Self {
        let endpoints = Rc::clone(&cluster.endpoints.borrow());
        Candidates { cluster, endpoints, tried: Tried::default(), out: Vec::new(), round: 0 }
    }

    fn next_of_round(&self) -> Option<Rc<Address>> {
        let first = self.tried.last.is_none();
        let cursor = if first { &self.cluster.turn } else { &self.cluster.retry_turn };
        let turn = cursor.get();
        let at = |step: &usize| &self.endpoints[turn.wrapping_add(*step) % self.endpoints.len()];
        let step = (0..self.endpoints.len()).find(|step| !self.is_out(at(step)))?;
        cursor.set(turn.wrapping_add(step + 1));
        Some(Rc::clone(at(&step)))
    }

    fn is_out(&self, endpoint: &Rc<Address>) -> bool {
        self.failure(endpoint).is_some_and(|at| self.out[at] >= self.round)
    }

    /// The position of an endpoint in `tried.failed`.
    fn failure(&self, endpoint: &Rc<Address>) -> Option<usize> {
        self.tried.failed.iter().position(|failed| Rc::ptr_eq(failed, endpoint))
    }

    /// Records a failed endpoint, for this connection, its access record and the diagnostics. A
    /// shortage of this machine is an attempt that says nothing of the endpoint, and the last one.
    pub fn failed(&mut self, endpoint: Rc<Address>, reason: Reason) {
        if let Reason::System(ConnectError::Local(errno)) = reason {
            self.tried.attempts += 1;
            self.tried.shortage = Some(errno);
            return;
        }
        self.cluster.failures.note(&endpoint, reason);
        let unreachable = reason.is_unreachable();
        let out = if unreachable { FOR_GOOD } else { self.round };
        self.tried.attempts += u32::from(!unreachable);
        match self.failure(&endpoint) {
            Some(at) => self.out[at] = out,
            None => {
                self.tried.failed.push(endpoint);
                self.out.push(out);
            }
        }
    }

    /// The result when the last candidate was connected to.
    pub fn connected(mut self) -> Tried {
        self.tried.attempts += 1;
        self.tried
    }

    /// The result when the attempt at the last candidate was cut off.
    pub fn cut_off(mut self) -> Tried {
        self.tried.attempts += 1;
        self.tried
    }

    /// The result when no candidate was connected to.
    pub fn given_up(self) -> Tried {
        self.tried
    }
}

/// After each endpoint the caller calls [`Candidates::failed`], [`Candidates::connected`] or
/// [`Candidates::cut_off`]. Ends when there is no endpoint, when `connect_attempts` attempts were
/// made, or when this machine is short of something.
impl Iterator for Candidates<'_> {
    type Item = Rc<Address>;

    fn next(&mut self) -> Option<Rc<Address>> {
        let attempts = self.tried.attempts as usize;
        if self.tried.shortage.is_some() || attempts >= self.cluster.connect_attempts {
            return None;
        }
        // Every endpoint has been tried: begin the next round, without unreachable ones.
        let next = self.next_of_round().or_else(|| {
            self.round += 1;
            self.next_of_round()
        })?;
        self.tried.last = Some(Rc::clone(&next));
        Some(next)
    }
}

impl From<ConnectError> for Reason {
    fn from(error: ConnectError) -> Self {
        Reason::System(error)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::config::{self, Discovery};

    const REFUSED: Reason = Reason::System(ConnectError::Refused(Errno::CONNREFUSED));
    const NO_ROUTE: Reason = Reason::System(ConnectError::Unreachable(Errno::NETUNREACH));

    fn cluster(connect_attempts: usize, ports: &[u16]) -> Cluster {
        let cluster = Cluster::new(
            &config::Cluster {
                name: "c".into(),
                discovery: Discovery::Static(Vec::new()),
                connect_timeout: Duration::from_secs(1),
                connect_attempts,
            },
            0,
        );
        let address = |&port| Address::Ip(([127, 0, 0, 1], port).into());
        cluster.set_endpoints(&ports.iter().map(address).collect::<Vec<_>>());
        cluster
    }

    fn port(address: &Address) -> u16 {
        match address {
            Address::Ip(ip) => ip.port(),
            Address::Unix(_) => 0,
        }
    }

    /// The ports that one connection tries; `verdict` gives the failure of each, or none.
    fn tries(cluster: &Cluster, verdict: impl Fn(u16) -> Option<Reason>) -> (Vec<u16>, Tried) {
        let (mut candidates, mut ports) = (cluster.candidates(), Vec::new());
        while let Some(endpoint) = candidates.next() {
            ports.push(port(&endpoint));
            match verdict(port(&endpoint)) {
                None => return (ports, candidates.connected()),
                Some(reason) => candidates.failed(endpoint, reason),
            }
        }
        (ports, candidates.given_up())
    }

    #[test]
    fn endpoints_take_turns() {
        let cluster = cluster(2, &[1, 2, 3]);
        let first = |_| tries(&cluster, |_| None).0[0];
        assert_eq!(Vec::from_iter((0..7).map(first)), [1, 2, 3, 1, 2, 3, 1]);
    }

    #[test]
    fn one_endpoint_is_tried_again_and_none_gives_nothing() {
        let (ports, tried) = tries(&cluster(3, &[7]), |_| Some(REFUSED));
        assert_eq!(ports, [7, 7, 7]);
        assert_eq!((tried.attempts, tried.failed.len()), (3, 1));
        let (ports, tried) = tries(&cluster(3, &[]), |_| Some(REFUSED));
        assert_eq!((ports, tried.attempts, tried.last), (vec![], 0, None));
    }

    #[test]
    fn attempts_go_to_others_while_there_are_others() {
        let cluster = cluster(4, &[1, 2, 3]);
        assert_eq!(tries(&cluster, |_| Some(REFUSED)).0, [1, 2, 3, 1]);
        assert_eq!(tries(&cluster, |_| Some(REFUSED)).0, [2, 3, 1, 2]);
    }

    #[test]
    fn what_cannot_be_reached_uses_up_no_attempt_and_is_asked_once() {
        let cluster = cluster(2, &[1, 2, 3, 4]);
        let only_the_first = |port| (port != 1).then_some(NO_ROUTE);
        for first in [1, 2, 3, 4, 1] {
            let (ports, tried) = tries(&cluster, only_the_first);
            assert_eq!((ports[0], ports[ports.len() - 1]), (first, 1), "{ports:?}");
            assert_eq!((tried.attempts, tried.failed.len()), (1, ports.len() - 1));
        }
        let (ports, tried) = tries(&cluster, |_| Some(NO_ROUTE));
        assert_eq!((ports.len(), tried.attempts), (4, 0));
        // The only one with a route is tried as often as configured.
        let refuses = |port| Some(if port == 1 { REFUSED } else { NO_ROUTE });
        let (ports, tried) = tries(&cluster, refuses);
        assert_eq!(ports.iter().filter(|port| **port == 1).count(), 2, "{ports:?}");
        assert_eq!((tried.attempts, ports.len()), (2, 5));
    }

    #[test]
    fn a_shortage_of_this_machine_is_no_fault_of_the_endpoint() {
        let cluster = cluster(3, &[1, 2]);
        let short = Reason::System(ConnectError::Local(Errno::MFILE));
        let (ports, tried) = tries(&cluster, |_| Some(short));
        assert_eq!((ports.len(), tried.attempts, tried.failed.len()), (1, 1, 0));
        assert_eq!(tried.shortage, Some(Errno::MFILE));
        let (reports, received) = std::sync::mpsc::sync_channel(1);
        cluster.report_failures(0, &reports);
        assert!(received.try_recv().is_err(), "it was reported");
    }

    #[test]
    fn an_attempt_that_was_cut_off_counts() {
        let cluster = cluster(2, &[1]);
        let mut candidates = cluster.candidates();
        let endpoint = candidates.next().unwrap();
        candidates.failed(endpoint, REFUSED);
        assert!(candidates.next().is_some());
        let tried = candidates.cut_off();
        assert_eq!((tried.attempts, tried.failed.len()), (2, 1));
    }

    #[test]
    fn an_endpoint_that_is_down_comes_up_no_more_often_than_others() {
        let cluster = cluster(2, &[1, 2]);
        let dead = |port| (port == 1).then_some(REFUSED);
        let waited = (0..10).filter(|_| !tries(&cluster, dead).1.failed.is_empty());
        assert_eq!(waited.count(), 5);
    }

    proptest! {
        /// Both for sequential connections and for connections that fail at the same time.
        #[test]
        fn the_share_of_a_dead_endpoint_goes_to_all_others(
            dead in 0u16..4,
            rounds in 1usize..20,
            at_once in 1usize..12,
        ) {
            let cluster = cluster(2, &[0, 1, 2, 3]);
            let mut served = HashMap::<u16, usize>::new();
            for _ in 0..rounds {
                let connections = (0..at_once).map(|_| {
                    let mut candidates = cluster.candidates();
                    (candidates.next(), candidates)
                });
                // All first attempts begin before the first failure is known.
                for (first, mut candidates) in connections.collect::<Vec<_>>() {
                    let mut endpoint = first.unwrap();
                    if port(&endpoint) == dead {
                        candidates.failed(endpoint, REFUSED);
                        endpoint = candidates.next().unwrap();
                    }
                    prop_assert_ne!(port(&endpoint), dead);
                    *served.entry(port(&endpoint)).or_default() += 1;
                }
            }
            let shares = (0..4).filter(|port| *port != dead).map(|port| {
                served.get(&port).copied().unwrap_or(0)
            });
            let (least, most) = (shares.clone().min().unwrap(), shares.max().unwrap());
            prop_assert!(most - least <= 2, "{served:?}");
        }
    }
}
