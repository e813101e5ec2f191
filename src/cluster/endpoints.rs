//! The endpoints of one cluster on one worker, with what connecting has shown of each.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::sys::Address;

/// How long an endpoint that was unreachable, or refused datagrams, is left out. Connections try
/// one that was unreachable again after that, each at most one such endpoint.
const LEFT_OUT: Duration = Duration::from_secs(1);

pub(super) struct Endpoint {
    pub(super) address: Rc<Address>,
    /// When it was last found unreachable from this machine; none: it was reachable since, or was
    /// never tried.
    unreachable: Cell<Option<Instant>>,
    /// When it last refused datagrams; none: never. Nothing follows from that for connections.
    refused_datagrams: Cell<Option<Instant>>,
}

/// What an endpoint is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    Connection,
    Datagrams,
}

/// Whether an endpoint is worth a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing is known against it.
    Good,
    /// It was unreachable a while ago.
    Doubtful,
    /// It has just been unreachable, or refused what is wanted.
    Bad,
}

/// Now.
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

/// Endpoints with these addresses; those that there are already keep their standing.
pub(super) fn replace(before: &[Endpoint], addresses: &[Address]) -> Rc<[Endpoint]> {
    let known: HashMap<&Address, &Endpoint> =
        before.iter().map(|endpoint| (&*endpoint.address, endpoint)).collect();
    let endpoint = |address: &Address| {
        let known = known.get(address);
        Endpoint {
            address: Rc::new(address.clone()),
            unreachable: Cell::new(known.and_then(|known| known.unreachable.get())),
            refused_datagrams: Cell::new(known.and_then(|known| known.refused_datagrams.get())),
        }
    };
    addresses.iter().map(endpoint).collect()
}

impl Endpoint {
    /// `now` may lie before the last attempt.
    pub(super) fn standing(&self, wanted: Use, now: Instant) -> Standing {
        let is_recent = |when: Instant| now.saturating_duration_since(when) < LEFT_OUT;
        let refused = self.refused_datagrams.get().filter(|_| wanted == Use::Datagrams);
        match self.unreachable.get() {
            Some(when) if is_recent(when) => Standing::Bad,
            _ if refused.is_some_and(is_recent) => Standing::Bad,
            Some(_) => Standing::Doubtful,
            // A refusal says nothing about what comes a second later: servers are started again.
            None => Standing::Good,
        }
    }

    /// Notes that it refused datagrams.
    pub(super) fn set_refused_datagrams(&self) {
        self.refused_datagrams.set(Some(now()));
    }

    /// Notes the result of an attempt.
    pub(super) fn set_reachable(&self, reachable: bool) {
        self.unreachable.set((!reachable).then(now));
    }

    /// As if what is known had been found out earlier, by more than the time that it counts.
    #[cfg(test)]
    pub(super) fn age(&self) {
        let earlier = |when: Instant| when.checked_sub(2 * LEFT_OUT);
        for when in [&self.unreachable, &self.refused_datagrams] {
            when.set(when.get().and_then(earlier));
        }
    }
}
