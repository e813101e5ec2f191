//! The order in which endpoints are tried. It is a round robin over all connections, and one
//! connection tries each endpoint once before it tries one again.
//!
//! First attempts and retries each have their own round robin. If a retry always went to the next
//! endpoint in the list, that neighbour would get the whole share of an endpoint that is down. If
//! retries advanced the position of first attempts, an endpoint that is down would be tried more
//! often: one of two endpoints by every connection, each of which may wait for `connect_timeout`.
//!
//! An endpoint that is unreachable from this machine uses up no attempt, so that an IPv6 address
//! costs nothing where there is no IPv6. But it costs a socket and a connect(2), and a cluster may
//! have hundreds of such endpoints. So endpoints that were unreachable are left out for a second.
//! After that a connection tries one of them at most, while there are others.
//!
//! Connecting a UDP socket succeeds even if the endpoint is down: the session then loses its first
//! datagrams. So sessions leave out an endpoint that has refused datagrams, for a second. All
//! sessions use the round robin of first attempts, also those that replace a refused one. This
//! shares them out evenly, because a step past a left-out endpoint moves the position past it, too.

use std::rc::Rc;
use std::time::Instant;

use super::endpoints::{Endpoint, Standing, Use, now};
use super::{Cluster, Reason};
use crate::observe::outcome::Outcome;
use crate::sys::{Address, ConnectError, Errno};

/// The most unreachable endpoints that one connection tries, most of them for the first time. That
/// takes less than a millisecond, and the next connection leaves them out.
const MOST_UNREACHABLE: usize = 256;
/// The same if no endpoint has a good standing.
const MOST_KNOWN: usize = 16;

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
    /// The error of the last attempt that failed because this machine was short of descriptors,
    /// ports or memory.
    pub shortage: Option<Errno>,
}

impl Tried {
    /// Sets the attempts of an outcome, and the endpoints that failed.
    pub fn note(self, outcome: &mut Outcome) {
        outcome.attempts = Some(self.attempts);
        outcome.failed_endpoints = self.failed;
    }
}

/// The endpoints to try for one connection.
pub struct Candidates<'c> {
    cluster: &'c Cluster,
    /// A snapshot: the cluster's endpoints may change while a connect is under way.
    endpoints: Rc<[Rc<Endpoint>]>,
    wanted: Use,
    /// When the snapshot was taken.
    now: Instant,
    tried: Tried,
    /// The position of the endpoint that was tried last.
    current: usize,
    /// The positions of endpoints that failed, each with the last round in which it is not tried
    /// again.
    out: Vec<(usize, u32)>,
    /// The number of unreachable endpoints among them.
    unreachable: usize,
    /// True once a doubtful endpoint has been tried.
    has_probed: bool,
    /// True if no endpoint has a good standing: standings are then ignored.
    takes_any: bool,
    /// Incremented each time every endpoint has been tried.
    round: u32,
}

/// A round that is never reached: the endpoint is not tried again.
const FOR_GOOD: u32 = u32::MAX;

impl<'c> Candidates<'c> {
    pub(super) fn new(cluster: &'c Cluster, wanted: Use) -> Self {
        Candidates {
            cluster,
            endpoints: Rc::clone(&cluster.endpoints.borrow()),
            wanted,
            now: now(),
            tried: Tried::default(),
            current: 0,
            out: Vec::new(),
            unreachable: 0,
            has_probed: false,
            takes_any: false,
            round: 0,
        }
    }

    fn next_of_round(&mut self) -> Option<Rc<Endpoint>> {
        let first = self.tried.last.is_none();
        let cursor = if first { &self.cluster.turn } else { &self.cluster.retry_turn };
        let (turn, count) = (cursor.get(), self.endpoints.len());
        let step = (0..count).find(|step| self.may_try(turn.wrapping_add(*step) % count))?;
        cursor.set(turn.wrapping_add(step + 1));
        self.current = turn.wrapping_add(step) % count;
        let endpoint = &self.endpoints[self.current];
        self.has_probed |= endpoint.standing(self.wanted, self.now) == Standing::Doubtful;
        Some(Rc::clone(endpoint))
    }

    fn may_try(&self, at: usize) -> bool {
        // Endpoints that this connection found unreachable are excluded here, without a search of
        // `out`.
        let is_left_out = match self.endpoints[at].standing(self.wanted, self.now) {
            Standing::Good => false,
            Standing::Doubtful => self.has_probed,
            Standing::Bad => true,
        };
        let is_out = |(failed, until): &(usize, u32)| *failed == at && *until >= self.round;
        (self.takes_any || !is_left_out)
            && !self.out.iter().any(is_out)
            && !self.has_left(&self.endpoints[at])
    }

    /// Whether the cluster has dropped an endpoint since the snapshot was taken, and has kept
    /// another one of it. If it has kept none, the snapshot is better than nothing.
    fn has_left(&self, endpoint: &Endpoint) -> bool {
        endpoint.idle.is_retired() && self.endpoints.iter().any(|one| !one.idle.is_retired())
    }

    /// What a session left out, where all others turned out to be unreachable: it may be up again.
    fn what_was_left_out(&mut self) -> Option<Rc<Endpoint>> {
        self.takes_any |= self.wanted == Use::Datagrams && self.tried.attempts == 0;
        if self.takes_any { self.next_of_round() } else { None }
    }

    /// Records a failed endpoint, for this connection, its access record and the diagnostics. A
    /// shortage on this machine counts as an attempt, but not as a failure of the endpoint. It ends
    /// the attempts, unless local ports are short: every endpoint can use the whole range of them.
    pub fn failed(&mut self, endpoint: &Endpoint, reason: Reason) {
        if let Reason::System(ConnectError::Local(errno)) = reason {
            self.tried.attempts += 1;
            self.tried.shortage = Some(errno);
            endpoint.counters.endpoint.add_failure(reason.kind());
            self.out.push((self.current, FOR_GOOD));
            return;
        }
        endpoint.note_failure(reason);
        let unreachable = reason.is_unreachable();
        endpoint.set_reachable(!unreachable);
        self.unreachable += usize::from(unreachable);
        self.tried.attempts += u32::from(!unreachable);
        let until = if unreachable { FOR_GOOD } else { self.round };
        match self.out.iter_mut().find(|(at, _)| *at == self.current) {
            Some(out) => out.1 = until,
            None => {
                self.tried.failed.push(Rc::clone(&endpoint.address));
                self.out.push((self.current, until));
            }
        }
    }

    /// The result if the last candidate was connected to.
    pub fn connected(mut self) -> Tried {
        self.endpoints[self.current].set_connected();
        self.tried.attempts += 1;
        self.tried
    }

    /// The result if the attempt at the last candidate was cut off.
    pub fn cut_off(mut self) -> Tried {
        self.tried.attempts += 1;
        self.tried
    }

    /// The result if no candidate was connected to.
    pub fn given_up(self) -> Tried {
        self.tried
    }
}

/// After each endpoint the caller calls [`Candidates::failed`], [`Candidates::connected`] or
/// [`Candidates::cut_off`]. The iterator ends when there is no endpoint, when `connect_attempts`
/// attempts were made, when too many endpoints were unreachable, or when this machine is short of a
/// resource that all endpoints need.
impl Iterator for Candidates<'_> {
    type Item = Rc<Endpoint>;

    fn next(&mut self) -> Option<Rc<Endpoint>> {
        let most = if self.takes_any { MOST_KNOWN } else { MOST_UNREACHABLE };
        let is_short = self.tried.shortage.is_some_and(|errno| errno != Errno::ADDRNOTAVAIL);
        let is_over = is_short || self.unreachable >= most;
        if is_over || self.tried.attempts as usize >= self.cluster.connect_attempts {
            return None;
        }
        // On the first call, decide whether standings count.
        if self.tried.last.is_none() {
            let is_known = |endpoint: &Rc<Endpoint>| {
                endpoint.standing(self.wanted, self.now) != Standing::Good
            };
            self.takes_any = self.endpoints.iter().all(is_known);
        }
        // Every endpoint has been tried: begin the next round, without unreachable ones.
        let next = match self.next_of_round() {
            Some(next) => next,
            None => {
                self.round += 1;
                self.next_of_round().or_else(|| self.what_was_left_out())?
            }
        };
        self.tried.last = Some(Rc::clone(&next.address));
        Some(next)
    }
}

impl From<ConnectError> for Reason {
    fn from(error: ConnectError) -> Self {
        Reason::System(error)
    }
}

#[cfg(test)]
mod tests;
