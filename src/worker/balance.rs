//! Keeps the numbers of connections on all workers even.
//!
//! The kernel spreads new connections over the SO_REUSEPORT sockets by a hash, which does not know
//! how long connections last. Of 50 flows over 4 workers the busiest worker had 1.27 (1.05–1.43)
//! times its share, for as long as they lasted. With this module it has 1.11 (1.05–1.14). A worker
//! that accepts a connection while it has clearly more than another hands it over: the descriptor
//! goes through a queue without locks, and a byte through a socket pair wakes the other worker.
//! With more connections the hash is more even, and the difference that is tolerated is larger:
//! with thousands of connections none is handed over.
//!
//! Connections are counted, not work: a worker with few but busy ones gets new ones, too.
//!
//! The worker that hands a connection over counts it for the receiver at once, so that a burst does
//! not overshoot. A receiver that is about to end then either gets the connection before it checks
//! its load for the last time (`Load::close`), or has closed its load and refuses the permit.

use std::cell::Cell;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::mpsc::{Receiver, Sender, channel};

use crate::front::{Load, Permit};
use crate::sys::{Address, Stream};

/// A worker hands over if it has this many connections more than another, ...
const SLACK: usize = 2;
/// ... plus 1/`SLACK_PART` of the other's number.
const SLACK_PART: usize = 8;
/// The most workers that are compared for one connection. The next one starts one worker further.
const LOOKS: usize = 8;

/// A connection on its way to another worker.
pub(super) struct Handed {
    /// The name of the listener.
    pub(super) listener: Arc<str>,
    pub(super) fd: OwnedFd,
    pub(super) address: Address,
    /// A permit of the worker that receives the connection.
    pub(super) permit: Permit,
}

/// The part of a worker that the others use.
struct Desk {
    load: Arc<Load>,
    queue: Sender<Handed>,
    /// A byte that is written here wakes the worker.
    bell: UnixStream,
    /// Whether a byte is in the socket pair already.
    rung: AtomicBool,
}

/// One worker's view of all workers.
pub struct Balance {
    desks: Arc<[Desk]>,
    index: usize,
    /// Where the next comparison begins.
    next: Cell<usize>,
}

/// Receives the connections that are handed over to one worker.
pub struct Inbox {
    desks: Arc<[Desk]>,
    index: usize,
    queue: Receiver<Handed>,
    /// The end of the socket pair from which the worker reads.
    bell: UnixStream,
}

impl Balance {
    /// Makes a `Balance` and an `Inbox` for each worker, in their order. Each worker may have `max`
    /// connections at one time.
    ///
    /// # Errors
    /// EMFILE or ENFILE from socketpair(2).
    pub fn for_workers(count: usize, max: usize) -> io::Result<Vec<(Balance, Inbox)>> {
        let (mut desks, mut ends) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let (bell, rope) = UnixStream::pair()?;
            bell.set_nonblocking(true)?;
            rope.set_nonblocking(true)?;
            let (sender, queue) = channel();
            let rung = AtomicBool::new(false);
            let load = Arc::new(Load::new(max));
            desks.push(Desk { load, queue: sender, bell: rope, rung });
            ends.push((queue, bell));
        }
        let desks: Arc<[Desk]> = desks.into();
        let pair = |(index, (queue, bell))| {
            let balance = Balance { desks: Arc::clone(&desks), index, next: Cell::new(0) };
            (balance, Inbox { desks: Arc::clone(&desks), index, queue, bell })
        };
        Ok(ends.into_iter().enumerate().map(pair).collect())
    }

    /// The connections of this worker.
    pub(super) fn load(&self) -> &Arc<Load> {
        &self.desks[self.index].load
    }

    /// Returns a permit of another worker that has clearly fewer connections; `None` if there is
    /// none.
    pub(super) fn elsewhere(&self) -> Option<(usize, Permit)> {
        let (count, others) = (self.desks.len(), self.desks.len() - 1);
        if others == 0 {
            return None;
        }
        let first = self.next.get();
        self.next.set((first + 1) % others);
        // Counted from the worker after this one, so that this one is skipped.
        let looked_at = (0..others.min(LOOKS)).map(|look| self.index + 1 + (first + look) % others);
        let open = |index: usize| self.desks[index].load.open();
        let least = looked_at.map(|index| index % count).min_by_key(|&index| open(index))?;
        if open(self.index) < open(least) + open(least) / SLACK_PART + SLACK {
            return None;
        }
        Some((least, Load::permit(&self.desks[least].load)?))
    }

    /// Returns true if another worker may have one more connection.
    pub(super) fn has_room(&self) -> bool {
        let others = self.desks.iter().enumerate().filter(|(index, _)| *index != self.index);
        others.into_iter().any(|(_, desk)| !desk.load.is_full())
    }

    /// Returns a permit of any other worker that may have one more connection. Used if this worker
    /// has as many as it may have.
    pub(super) fn anywhere(&self) -> Option<(usize, Permit)> {
        let count = self.desks.len();
        let others = (1..count).map(|step| (self.index + step) % count);
        let mut with_room = others.filter(|&index| !self.desks[index].load.is_full());
        with_room.find_map(|index| Some((index, Load::permit(&self.desks[index].load)?)))
    }

    /// Hands a connection over to another worker.
    ///
    /// # Errors
    /// The other worker has ended. The error returns the connection.
    pub(super) fn hand_over(&self, to: usize, handed: Handed) -> Result<(), Handed> {
        let desk = &self.desks[to];
        desk.queue.send(handed).map_err(|refused| refused.0)?;
        fence(Ordering::SeqCst);
        if !desk.rung.swap(true, Ordering::SeqCst) {
            // The socket pair holds one byte at most, so it is never full.
            let _ = (&desk.bell).write(&[0]);
        }
        Ok(())
    }
}

impl Inbox {
    /// Calls `serve` for each connection that is handed over, as long as the worker lives.
    ///
    /// # Errors
    /// The runtime's error if it cannot register the socket pair (epoll only).
    pub(super) fn open(self, serve: impl Fn(Handed) + 'static) -> io::Result<()> {
        let Inbox { desks, index, queue, bell } = self;
        let bell = Stream::from_fd(bell.into())?;
        monoio::spawn(async move {
            loop {
                bell.readable().await;
                // The result does not matter, since the queue is checked in any case.
                let _ = bell.recv(&mut [0]);
                // Before the check: what is queued after it must write a byte again.
                desks[index].rung.swap(false, Ordering::SeqCst);
                fence(Ordering::SeqCst);
                queue.try_iter().for_each(&serve);
            }
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 2000;

    /// Makes workers with these numbers of connections.
    fn workers(open: &[usize]) -> (Vec<Balance>, Vec<Permit>) {
        let (all, _): (Vec<Balance>, Vec<Inbox>) =
            Balance::for_workers(open.len(), MAX).unwrap().into_iter().unzip();
        let mut places = Vec::new();
        for (worker, &open) in all.iter().zip(open) {
            places.extend((0..open).map(|_| Load::permit(worker.load()).unwrap()));
        }
        (all, places)
    }

    fn goes_to(worker: &Balance) -> Option<usize> {
        worker.elsewhere().map(|(to, _)| to)
    }

    #[test]
    fn a_connection_goes_to_the_worker_with_clearly_fewer() {
        let (all, _places) = workers(&[3, 1, 2, 2]);
        assert_eq!(goes_to(&all[0]), Some(1));
        assert_eq!([1, 2, 3].map(|index| goes_to(&all[index])), [None; 3]);
        assert_eq!(goes_to(&workers(&[5]).0[0]), None);
    }

    #[test]
    fn with_many_connections_a_few_more_are_no_reason() {
        let (all, _places) = workers(&[1000, 900]);
        assert_eq!(goes_to(&all[0]), None);
        let (all, _places) = workers(&[1100, 900]);
        assert_eq!(goes_to(&all[0]), Some(1));
    }

    #[test]
    fn what_is_handed_over_counts_at_once() {
        let (all, _places) = workers(&[10, 0]);
        let mut taken = Vec::new();
        while let Some((to, place)) = all[0].elsewhere() {
            assert_eq!(to, 1);
            taken.push(place);
        }
        assert_eq!((taken.len(), all[1].load().open()), (8, 8));
        drop(taken);
        assert_eq!(all[1].load().open(), 0);
    }

    #[test]
    fn a_worker_that_has_ended_gets_nothing() {
        let (all, _places) = workers(&[10, 0]);
        assert!(all[1].load().close(), "it has no connection");
        assert_eq!(goes_to(&all[0]), None);
        assert!(!all[0].load().close(), "it has ten");
    }

    #[test]
    fn a_worker_with_as_many_as_it_may_have_gives_the_next_to_any_other() {
        let (all, mut places) = workers(&[MAX, MAX - 1, MAX]);
        assert!(all[0].load().is_full() && !all[1].load().is_full());
        let found = all[0].anywhere().unwrap();
        assert_eq!(found.0, 1);
        assert!(all[0].anywhere().is_none());
        assert!(Load::permit(all[0].load()).is_none());
        // A failed attempt to take a place is not counted.
        places.truncate(MAX - 1);
        assert!(Load::permit(all[0].load()).is_some());
        assert!(Load::permit_beyond_limit(all[1].load()).is_some());
    }

    #[test]
    fn many_workers_are_all_found_in_time() {
        let mut open = [10; 40];
        open[25] = 0;
        let (all, _places) = workers(&open);
        assert!((0..40).any(|_| goes_to(&all[0]) == Some(25)));
    }
}
