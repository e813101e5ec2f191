//! The endpoints of one cluster on one worker, with what earlier attempts have shown of each.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::ops::Deref;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::Reason;
use super::failures::Failures;
use super::idle::IdleConnections;
use crate::observe::endpoints::{EndpointCells, Endpoints, Listed};
use crate::sys::Address;

/// How long an endpoint is avoided after it was unreachable or refused datagrams. After that each
/// connection tries at most one endpoint that was unreachable.
const LEFT_OUT: Duration = Duration::from_secs(1);

/// One endpoint. Connections, sessions and the cluster share it, also after the cluster has dropped
/// it.
pub struct Endpoint {
    /// Its address.
    pub address: Rc<Address>,
    /// What this worker counts of it.
    pub counters: Rc<EndpointCells>,
    /// Connections and sessions of this worker that use it at present.
    in_use: Cell<u32>,
    /// When it was last found unreachable from this machine. `None` if it was reachable since, or
    /// was never tried.
    unreachable: Cell<Option<Instant>>,
    /// When it last refused datagrams. `None` if never. Connections ignore this.
    refused_datagrams: Cell<Option<Instant>>,
    /// Those of the cluster.
    failures: Rc<Failures>,
    /// Connections to it that wait for a request.
    pub(super) idle: IdleConnections,
}

/// The purpose that an endpoint is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    Connection,
    Datagrams,
}

/// How promising an endpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// No failure is known.
    Good,
    /// It was unreachable a while ago.
    Doubtful,
    /// It was unreachable, or refused datagrams that are to be sent, within the last [`LEFT_OUT`].
    Bad,
}

/// The current time.
#[cfg(not(test))]
pub(super) fn now() -> Instant {
    Instant::now()
}

/// In a test time stands still, as a busy machine may take a second for any of its steps. See
/// [`Endpoint::age`].
#[cfg(test)]
pub(super) fn now() -> Instant {
    thread_local!(static BEGIN: Instant = Instant::now());
    BEGIN.with(|begin| *begin)
}

/// Makes the list of these endpoints, on the worker with this index. Those that were there before
/// stay the same objects. The others of `before` are retired.
pub(super) fn replace(
    before: &[Rc<Endpoint>],
    endpoints: &Endpoints,
    worker: usize,
    failures: &Rc<Failures>,
) -> Rc<[Rc<Endpoint>]> {
    let known: HashMap<&Address, &Rc<Endpoint>> =
        before.iter().map(|endpoint| (&*endpoint.address, endpoint)).collect();
    let endpoint = |listed: &Listed| {
        let new = || {
            let counters = endpoints.cells(listed, worker);
            Rc::new(Endpoint::new(listed.address.clone(), counters, failures))
        };
        known.get(&listed.address).map_or_else(new, |&one| Rc::clone(one))
    };
    let all: Rc<[Rc<Endpoint>]> = endpoints.listed.iter().map(endpoint).collect();
    let listed: HashSet<*const Endpoint> = all.iter().map(Rc::as_ptr).collect();
    let dropped = before.iter().filter(|endpoint| !listed.contains(&Rc::as_ptr(endpoint)));
    dropped.for_each(|endpoint| endpoint.idle.retire());
    all
}

/// Makes the endpoints of a cluster whose TLS settings have changed: the same addresses, with what
/// is known of them. Those of `before` are retired with their idle connections, which were made by
/// the settings before.
pub(super) fn inherit(before: &[Rc<Endpoint>], failures: &Rc<Failures>) -> Rc<[Rc<Endpoint>]> {
    let endpoint = |before: &Rc<Endpoint>| {
        let (address, counters) = (Address::clone(&before.address), Rc::clone(&before.counters));
        let endpoint = Endpoint::new(address, counters, failures);
        endpoint.unreachable.set(before.unreachable.get());
        endpoint.refused_datagrams.set(before.refused_datagrams.get());
        before.idle.retire();
        Rc::new(endpoint)
    };
    before.iter().map(endpoint).collect()
}

impl Endpoint {
    fn new(address: Address, counters: Rc<EndpointCells>, failures: &Rc<Failures>) -> Endpoint {
        Endpoint {
            address: Rc::new(address),
            counters,
            in_use: Cell::new(0),
            unreachable: Cell::new(None),
            refused_datagrams: Cell::new(None),
            failures: Rc::clone(failures),
            idle: IdleConnections::default(),
        }
    }

    /// Counts a failure.
    pub fn note_failure(&self, reason: Reason) {
        self.counters.endpoint.add_failure(reason.kind());
        self.failures.note(&self.address, reason);
    }

    /// Connections and sessions of this worker that use it at present.
    pub fn in_use(&self) -> u32 {
        self.in_use.get()
    }

    /// The standing for one purpose. `now` may lie before the last attempt.
    pub(super) fn standing(&self, wanted: Use, now: Instant) -> Standing {
        let is_recent = |when: Instant| now.saturating_duration_since(when) < LEFT_OUT;
        let refused = self.refused_datagrams.get().filter(|_| wanted == Use::Datagrams);
        match self.unreachable.get() {
            Some(when) if is_recent(when) => Standing::Bad,
            _ if refused.is_some_and(is_recent) => Standing::Bad,
            Some(_) => Standing::Doubtful,
            // An older refusal of datagrams does not count: the server may have been restarted.
            None => Standing::Good,
        }
    }

    /// Notes that the endpoint refused datagrams.
    pub(super) fn set_refused_datagrams(&self) {
        self.refused_datagrams.set(Some(now()));
    }

    /// Notes that it was connected to.
    pub(super) fn set_connected(&self) {
        self.set_reachable(true);
        self.counters.endpoint.set_up();
    }

    /// Notes whether an attempt could reach the endpoint.
    pub(super) fn set_reachable(&self, reachable: bool) {
        self.unreachable.set((!reachable).then(now));
    }

    /// Moves the known failures into the past, by more than the time for which they count.
    #[cfg(test)]
    pub(super) fn age(&self) {
        let earlier = |when: Instant| when.checked_sub(2 * LEFT_OUT);
        for when in [&self.unreachable, &self.refused_datagrams] {
            when.set(when.get().and_then(earlier));
        }
    }
}

/// An endpoint that a connection or a session uses. Dropping it ends the use.
pub struct InUse(Rc<Endpoint>);

impl InUse {
    /// Counts one more use.
    pub fn new(endpoint: Rc<Endpoint>) -> InUse {
        endpoint.in_use.set(endpoint.in_use.get() + 1);
        endpoint.counters.endpoint.uses.begin();
        InUse(endpoint)
    }
}

impl Deref for InUse {
    type Target = Endpoint;

    fn deref(&self) -> &Endpoint {
        &self.0
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.in_use.set(self.0.in_use.get() - 1);
        self.0.counters.endpoint.uses.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_that_leave_a_list_are_retired_and_others_stay() {
        let failures = Rc::default();
        let [one, two] = [1, 2].map(|port| Address::Ip(([127, 0, 0, 1], port).into()));
        let list = |addresses: &[Address]| Endpoints::unshared(addresses, 1);
        let first = replace(&[], &list(&[one, two.clone(), two.clone()]), 0, &failures);
        let second = replace(&first, &list(&[two]), 0, &failures);
        // The second address had two objects.
        let are_retired = |list: &[Rc<Endpoint>]| {
            Vec::from_iter(list.iter().map(|endpoint| endpoint.idle.is_retired()))
        };
        assert_eq!(are_retired(&first), [true, true, false]);
        let third = inherit(&second, &failures);
        assert_eq!((are_retired(&second), are_retired(&third)), (vec![true], vec![false]));
    }
}
