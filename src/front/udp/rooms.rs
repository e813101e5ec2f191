//! The descriptors for UDP sessions: the part of each listener, and how many of it are in use.

use std::cell::Cell;
use std::rc::Rc;

use crate::config::{Config, Protocol};
use crate::sys::{CLOSING_SESSIONS, Shares};

/// One in this many of a listener's descriptors is set aside for sockets of ended sessions, or all
/// that its sessions cannot use. [`CLOSING_SESSIONS`] is the upper limit.
const CLOSING_PART: usize = 4;

/// Counts the sockets of one listener's sessions until they are closed.
pub(super) struct Sockets {
    open: Rc<Cell<usize>>,
    max: usize,
    max_sessions: usize,
}

/// One counted socket. Dropping it ends the count.
pub(super) struct Open(Rc<Cell<usize>>);

/// The most sessions that all workers together can have at one time, over all UDP listeners.
pub fn udp_session_limit(config: &Config, workers: usize, shares: &Shares) -> usize {
    let wanted = config.listeners.iter().filter_map(|listener| match &listener.protocol {
        Protocol::Udp(udp) => Some(udp.max_sessions.div_ceil(workers)),
        _ => None,
    });
    let rooms = rooms(shares.sessions, &wanted.collect::<Vec<_>>());
    workers * rooms.iter().map(Sockets::max_sessions).sum::<usize>()
}

/// Divides `descriptors` among listeners. `max_sessions` has the limit of each.
pub(super) fn rooms(descriptors: usize, max_sessions: &[usize]) -> Vec<Sockets> {
    let wanted: Vec<usize> = max_sessions.iter().map(|max| max + CLOSING_SESSIONS).collect();
    let parts = parts(descriptors, &wanted);
    parts.into_iter().zip(max_sessions).map(|(part, &max)| Sockets::new(part, max)).collect()
}

/// Divides a total into equal parts, none larger than wanted. The rest goes to the other parts.
fn parts(total: usize, wanted: &[usize]) -> Vec<usize> {
    let mut parts = vec![0; wanted.len()];
    let (mut left, mut open) = (total, wanted.len());
    let mut by_wish: Vec<usize> = (0..wanted.len()).collect();
    by_wish.sort_by_key(|&index| wanted[index]);
    for index in by_wish {
        parts[index] = wanted[index].min(left / open);
        left -= parts[index];
        open -= 1;
    }
    parts
}

impl Sockets {
    fn new(part: usize, max_sessions: usize) -> Sockets {
        let spare = part.saturating_sub(max_sessions);
        let closing = (part / CLOSING_PART).max(spare).clamp(1, CLOSING_SESSIONS);
        let max_sessions = max_sessions.min(part.saturating_sub(closing)).max(1);
        Sockets { open: Rc::default(), max: max_sessions + closing, max_sessions }
    }

    /// The most sessions at one time.
    pub(super) fn max_sessions(&self) -> usize {
        self.max_sessions
    }

    /// Counts one more socket until the result is dropped. `None` if the limit is reached.
    pub(super) fn take(&self) -> Option<Open> {
        let open = self.open.get();
        (open < self.max).then(|| {
            self.open.set(open + 1);
            Open(Rc::clone(&self.open))
        })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_one_listener_does_not_want_the_others_get() {
        assert_eq!(parts(100, &[1000, 1000]), [50, 50]);
        assert_eq!(parts(100, &[1000, 10, 1000]), [45, 10, 45]);
        assert_eq!(parts(100, &[20, 30]), [20, 30]);
        assert_eq!(parts(2, &[5, 5, 5]).iter().sum::<usize>(), 2);
    }

    #[test]
    fn sockets_count_until_they_are_closed() {
        let [room] = &rooms(40, &[1000])[..] else { panic!("one listener, one room") };
        assert_eq!(room.max_sessions(), 30);
        let [small] = &rooms(1000, &[10])[..] else { panic!("one listener, one room") };
        assert_eq!((small.max_sessions(), small.max), (10, 10 + CLOSING_SESSIONS));
        let mut open: Vec<Open> = std::iter::from_fn(|| room.take()).collect();
        assert_eq!(open.len(), 40);
        open.pop();
        assert!(room.take().is_some());
    }

    proptest! {
        #[test]
        fn no_more_is_shared_out_than_there_is(
            total in 0usize..10_000,
            wanted in proptest::collection::vec(1usize..5_000, 1..20),
        ) {
            let parts = parts(total, &wanted);
            let sum: usize = parts.iter().sum();
            prop_assert_eq!(sum, total.min(wanted.iter().sum()));
            prop_assert!(parts.iter().zip(&wanted).all(|(part, wanted)| part <= wanted));
        }
    }
}
