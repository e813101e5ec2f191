//! The endpoints of one cluster on one worker, with what connecting has shown of each.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::sys::Address;

/// How long an endpoint that was unreachable is left out. Connections try it again after that, each
/// at most one such endpoint.
const LEFT_OUT: Duration = Duration::from_secs(1);

pub(super) struct Endpoint {
    pub(super) address: Rc<Address>,
    /// When it was last found unreachable from this machine; none: it was reachable since, or was
    /// never tried.
    unreachable: Cell<Option<Instant>>,
}

/// Whether an endpoint is worth a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing is known against it.
    Good,
    /// It was unreachable a while ago.
    Doubtful,
    /// It has just been unreachable.
    Unreachable,
}

/// Endpoints with these addresses; those that there are already keep their standing.
pub(super) fn replace(before: &[Endpoint], addresses: &[Address]) -> Rc<[Endpoint]> {
    let known: HashMap<&Address, &Endpoint> =
        before.iter().map(|endpoint| (&*endpoint.address, endpoint)).collect();
    let endpoint = |address: &Address| Endpoint {
        address: Rc::new(address.clone()),
        unreachable: Cell::new(known.get(address).and_then(|known| known.unreachable.get())),
    };
    addresses.iter().map(endpoint).collect()
}

impl Endpoint {
    /// `now` may lie before the last attempt.
    pub(super) fn standing(&self, now: Instant) -> Standing {
        match self.unreachable.get() {
            None => Standing::Good,
            Some(when) if now.saturating_duration_since(when) < LEFT_OUT => Standing::Unreachable,
            Some(_) => Standing::Doubtful,
        }
    }

    /// Notes the result of an attempt.
    pub(super) fn set_reachable(&self, reachable: bool) {
        self.unreachable.set((!reachable).then(Instant::now));
    }

    /// As if what is known had been found out earlier, by more than the time that it counts.
    #[cfg(test)]
    pub(super) fn age(&self) {
        let earlier = |when: Instant| when.checked_sub(2 * LEFT_OUT);
        self.unreachable.set(self.unreachable.get().and_then(earlier));
    }
}
