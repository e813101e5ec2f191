//! Even numbers of connections on all workers.
//!
//! The kernel spreads new connections over the SO_REUSEPORT sockets by a hash, which knows nothing
//! of what lasts: of 50 flows over 4 workers, the busiest worker had 1.27 (1.05–1.43) times its
//! share, for as long as they lasted; now it has 1.11 (1.05–1.14). A worker that accepts while it
//! has clearly more connections than another hands the new one over: the descriptor goes through a
//! queue without locks, and a byte through a socket pair wakes the other. The larger the numbers,
//! the less the hash is off, and the more may be missing: with thousands of connections nothing is
//! handed over.
//!
//! What is counted is connections, not work: a worker with few but busy ones gets new ones, too.
//!
//! Whoever hands over counts the connection for the receiver at once, so that a burst does not
//! overshoot, and so that a worker that is about to end either gets it before it looks for the last
//! time or refuses to be counted.

use std::cell::Cell;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::mpsc::{Receiver, Sender, channel};

use crate::front::{Gate, Load, Place};
use crate::sys::{Address, Stream};

/// A worker that has so many more than another hands over, ...
const SLACK: usize = 2;
/// ... beside this part of what the other one has.
const SLACK_PART: usize = 8;
/// Others that are looked at for one connection; the next one goes on with the others.
const LOOKS: usize = 8;

/// A connection on its way to another worker.
pub(super) struct Handed {
    /// Position in the configuration.
    pub(super) listener: usize,
    pub(super) gate: Option<Arc<Gate>>,
    pub(super) fd: OwnedFd,
    pub(super) address: Address,
    /// Taken on the worker that it goes to.
    pub(super) place: Place,
}

/// What the others see of a worker.
struct Desk {
    load: Arc<Load>,
    queue: Sender<Handed>,
    bell: UnixStream,
    /// A byte is in the bell already.
    rung: AtomicBool,
}

/// One worker's view of all.
pub struct Balance {
    desks: Arc<[Desk]>,
    index: usize,
    /// Where the next look begins.
    next: Cell<usize>,
}

/// What is handed over to one worker.
pub struct Inbox {
    desks: Arc<[Desk]>,
    index: usize,
    queue: Receiver<Handed>,
    bell: UnixStream,
}

impl Balance {
    /// A pair for each worker, in their order. Each may have `max` connections at one time.
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

    /// A place on another worker that has clearly fewer connections, where there is one.
    pub(super) fn elsewhere(&self) -> Option<(usize, Place)> {
        let (count, others) = (self.desks.len(), self.desks.len() - 1);
        if others == 0 {
            return None;
        }
        let first = self.next.get();
        self.next.set((first + 1) % others);
        // Counted from the worker behind this one, so that this one is left out.
        let looked_at = (0..others.min(LOOKS)).map(|look| self.index + 1 + (first + look) % others);
        let open = |index: usize| self.desks[index].load.open();
        let least = looked_at.map(|index| index % count).min_by_key(|&index| open(index))?;
        if open(self.index) < open(least) + open(least) / SLACK_PART + SLACK {
            return None;
        }
        Some((least, Load::take_place(&self.desks[least].load)?))
    }

    /// Another worker may have one more connection.
    pub(super) fn has_room(&self) -> bool {
        let others = self.desks.iter().enumerate().filter(|(index, _)| *index != self.index);
        others.into_iter().any(|(_, desk)| !desk.load.is_full())
    }

    /// A place on any other worker that may have one more connection: this one has as many as it
    /// may have.
    pub(super) fn anywhere(&self) -> Option<(usize, Place)> {
        let count = self.desks.len();
        let others = (1..count).map(|step| (self.index + step) % count);
        let mut with_room = others.filter(|&index| !self.desks[index].load.is_full());
        with_room.find_map(|index| Some((index, Load::take_place(&self.desks[index].load)?)))
    }

    /// Hands a connection over.
    ///
    /// # Errors
    /// The other worker is gone: the connection comes back.
    pub(super) fn hand_over(&self, to: usize, handed: Handed) -> Result<(), Handed> {
        let desk = &self.desks[to];
        desk.queue.send(handed).map_err(|refused| refused.0)?;
        fence(Ordering::SeqCst);
        if !desk.rung.swap(true, Ordering::SeqCst) {
            // There is one byte in it at most, so that it is never full.
            let _ = (&desk.bell).write(&[0]);
        }
        Ok(())
    }
}

impl Inbox {
    /// Gives `serve` what is handed over, as long as the worker lives.
    ///
    /// # Errors
    /// The runtime's, when it cannot register the bell (epoll only).
    pub(super) fn open(self, serve: impl Fn(Handed) + 'static) -> io::Result<()> {
        let Inbox { desks, index, queue, bell } = self;
        let bell = Stream::from_fd(bell.into())?;
        monoio::spawn(async move {
            loop {
                bell.readable().await;
                // Whatever it says: the queue is looked into.
                let _ = bell.recv(&mut [0]);
                // Before the look: what is put there behind it rings again.
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

    /// Workers with so many connections each.
    fn workers(open: &[usize]) -> (Vec<Balance>, Vec<Place>) {
        let (all, _): (Vec<Balance>, Vec<Inbox>) =
            Balance::for_workers(open.len(), MAX).unwrap().into_iter().unzip();
        let mut places = Vec::new();
        for (worker, &open) in all.iter().zip(open) {
            places.extend((0..open).map(|_| Load::take_place(worker.load()).unwrap()));
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
        assert!(Load::take_place(all[0].load()).is_none());
        // A place that could not be had is not counted.
        places.truncate(MAX - 1);
        assert!(Load::take_place(all[0].load()).is_some());
        assert!(Load::force_place(all[1].load()).is_some());
    }

    #[test]
    fn many_workers_are_all_found_in_time() {
        let mut open = [10; 40];
        open[25] = 0;
        let (all, _places) = workers(&open);
        assert!((0..40).any(|_| goes_to(&all[0]) == Some(25)));
    }
}
