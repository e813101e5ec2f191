//! The endpoints of one cluster on one worker, with what earlier attempts have shown of each.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::sys::Address;

/// How long an endpoint is avoided after it was unreachable or refused datagrams. After that each
/// connection tries at most one endpoint that was unreachable.
const LEFT_OUT: Duration = Duration::from_secs(1);

pub(super) struct Endpoint {
    pub(super) address: Rc<Address>,
    /// When it was last found unreachable from this machine. `None` if it was reachable since, or
    /// was never tried.
    unreachable: Cell<Option<Instant>>,
    /// When it last refused datagrams. `None` if never. Connections ignore this.
    refused_datagrams: Cell<Option<Instant>>,
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

/// Makes endpoints with these addresses. Those that were there before keep their standing.
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
