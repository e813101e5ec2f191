//! Keeps the numbers of connections on all workers even.
//!
//! The kernel spreads new connections over the SO_REUSEPORT sockets by a hash, which does not know
//! how long connections last. Of 50 flows over 4 workers the busiest worker had 1.27 (1.05–1.43)
//! times its share, for as long as they lasted. With this module it has 1.11 (1.05–1.14). A worker
//! that accepts a connection while it has clearly more than another hands it over: the descriptor
//! goes through a mailbox without locks, and a byte through a socket pair wakes the other worker.
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
/// The most workers that are compared for one connection. The next comparison starts one worker
/// further.
const MAX_COMPARED: usize = 8;

/// A connection on its way to another worker.
pub(super) struct HandedOver {
    /// The id of the listener. The other worker may serve by another configuration at this moment,
    /// in which the name means another one.
    pub(super) listener: u64,
    pub(super) fd: OwnedFd,
    pub(super) address: Address,
    /// A permit of the worker that receives the connection.
    pub(super) permit: Permit,
}

/// The part of a worker that all workers use.
struct Peer {
    load: Arc<Load>,
    mailbox: Sender<HandedOver>,
    /// A byte that is written here wakes the worker.
    wake_up: UnixStream,
    /// Whether a byte is in the socket pair already.
    is_woken: AtomicBool,
}

/// One worker's view of all workers.
pub struct Balance {
    /// All workers, this one included.
    peers: Arc<[Peer]>,
    /// The position of this worker among them.
    index: usize,
    /// Where the next comparison begins.
    next: Cell<usize>,
    /// Whether no connection may be handed over at present.
    is_held: Cell<bool>,
}

/// Receives the connections that are handed over to one worker.
pub struct Inbox {
    peers: Arc<[Peer]>,
    index: usize,
    mailbox: Receiver<HandedOver>,
    /// The end of the socket pair from which the worker reads.
    wake_up: UnixStream,
}

impl Balance {
    /// Makes a `Balance` and an `Inbox` for each worker, in their order. Each worker may have `max`
    /// connections at one time.
    ///
    /// # Errors
    /// EMFILE or ENFILE from socketpair(2).
    pub fn for_workers(count: usize, max: usize) -> io::Result<Vec<(Balance, Inbox)>> {
        let (mut peers, mut receivers) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let (write_end, read_end) = UnixStream::pair()?;
            write_end.set_nonblocking(true)?;
            read_end.set_nonblocking(true)?;
            let (mailbox, receiver) = channel();
            let is_woken = AtomicBool::new(false);
            let load = Arc::new(Load::new(max));
            peers.push(Peer { load, mailbox, wake_up: write_end, is_woken });
            receivers.push((receiver, read_end));
        }
        let peers: Arc<[Peer]> = peers.into();
        let pair = |(index, (mailbox, wake_up))| {
            let (next, is_held) = (Cell::new(0), Cell::new(false));
            let balance = Balance { peers: Arc::clone(&peers), index, next, is_held };
            (balance, Inbox { peers: Arc::clone(&peers), index, mailbox, wake_up })
        };
        Ok(receivers.into_iter().enumerate().map(pair).collect())
    }

    /// The connections of this worker.
    pub(super) fn load(&self) -> &Arc<Load> {
        &self.peers[self.index].load
    }

    /// Returns the index and a permit of the least loaded worker among some others; `None` if it
    /// does not have clearly fewer connections than this worker.
    pub(super) fn least_loaded(&self) -> Option<(usize, Permit)> {
        let (count, others) = (self.peers.len(), self.peers.len() - 1);
        if others == 0 || self.is_held.get() {
            return None;
        }
        let first = self.next.get();
        self.next.set((first + 1) % others);
        // Counted from the worker after this one, so that this one is skipped.
        let compared = (0..others.min(MAX_COMPARED))
            .map(|step| (self.index + 1 + (first + step) % others) % count);
        let open = |index: usize| self.peers[index].load.open();
        let least = compared.min_by_key(|&index| open(index))?;
        if open(self.index) < open(least) + open(least) / SLACK_PART + SLACK {
            return None;
        }
        Some((least, Load::permit(&self.peers[least].load)?))
    }

    /// Returns true if another worker may have one more connection.
    pub(super) fn has_room(&self) -> bool {
        let mut others = self.peers.iter().enumerate().filter(|(index, _)| *index != self.index);
        !self.is_held.get() && others.any(|(_, peer)| !peer.load.is_full())
    }

    /// Hands nothing over from now on, or does so again.
    pub(super) fn hold(&self, is_held: bool) {
        self.is_held.set(is_held);
    }

    /// Returns the index and a permit of the next worker that is not full. Used if this worker is
    /// full.
    pub(super) fn next_with_room(&self) -> Option<(usize, Permit)> {
        let count = if self.is_held.get() { 0 } else { self.peers.len() };
        let others = (1..count).map(|step| (self.index + step) % count);
        let mut with_room = others.filter(|&index| !self.peers[index].load.is_full());
        with_room.find_map(|index| Some((index, Load::permit(&self.peers[index].load)?)))
    }

    /// Hands a connection over to another worker.
    ///
    /// # Errors
    /// The other worker has ended. The error returns the connection.
    pub(super) fn hand_over(&self, to: usize, conn: HandedOver) -> Result<(), HandedOver> {
        let peer = &self.peers[to];
        peer.mailbox.send(conn).map_err(|refused| refused.0)?;
        fence(Ordering::SeqCst);
        if !peer.is_woken.swap(true, Ordering::SeqCst) {
            // The socket pair holds one byte at most, so it is never full.
            let _ = (&peer.wake_up).write(&[0]);
        }
        Ok(())
    }
}

impl Inbox {
    /// Calls `serve` for each connection that is handed over, as long as the worker lives.
    ///
    /// # Errors
    /// The runtime's error if it cannot register the socket pair (epoll only).
    pub(super) fn open(self, serve: impl Fn(HandedOver) + 'static) -> io::Result<()> {
        let Inbox { peers, index, mailbox, wake_up } = self;
        let wake_up = Stream::from_fd(wake_up.into())?;
        monoio::spawn(async move {
            loop {
                wake_up.readable().await;
                // The result does not matter, since the mailbox is checked in any case.
                let _ = wake_up.recv(&mut [0]);
                // Before the check: a connection that arrives after it must cause another wake-up.
                peers[index].is_woken.swap(false, Ordering::SeqCst);
                fence(Ordering::SeqCst);
                mailbox.try_iter().for_each(&serve);
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
        let mut permits = Vec::new();
        for (worker, &open) in all.iter().zip(open) {
            permits.extend((0..open).map(|_| Load::permit(worker.load()).unwrap()));
        }
        (all, permits)
    }

    fn goes_to(worker: &Balance) -> Option<usize> {
        worker.least_loaded().map(|(to, _)| to)
    }

    #[test]
    fn a_connection_goes_to_the_worker_with_clearly_fewer() {
        let (all, _permits) = workers(&[3, 1, 2, 2]);
        assert_eq!(goes_to(&all[0]), Some(1));
        assert_eq!([1, 2, 3].map(|index| goes_to(&all[index])), [None; 3]);
        assert_eq!(goes_to(&workers(&[5]).0[0]), None);
    }

    #[test]
    fn with_many_connections_a_few_more_are_no_reason() {
        let (all, _permits) = workers(&[1000, 900]);
        assert_eq!(goes_to(&all[0]), None);
        let (all, _permits) = workers(&[1100, 900]);
        assert_eq!(goes_to(&all[0]), Some(1));
    }

    #[test]
    fn what_is_handed_over_counts_at_once() {
        let (all, _permits) = workers(&[10, 0]);
        let mut taken = Vec::new();
        while let Some((to, permit)) = all[0].least_loaded() {
            assert_eq!(to, 1);
            taken.push(permit);
        }
        assert_eq!((taken.len(), all[1].load().open()), (8, 8));
        drop(taken);
        assert_eq!(all[1].load().open(), 0);
    }

    #[test]
    fn a_worker_that_has_ended_gets_nothing() {
        let (all, _permits) = workers(&[10, 0]);
        assert!(all[1].load().close(), "it has no connection");
        assert_eq!(goes_to(&all[0]), None);
        assert!(!all[0].load().close(), "it has ten");
    }

    #[test]
    fn a_full_worker_gives_the_next_connection_to_any_other() {
        let (all, mut permits) = workers(&[MAX, MAX - 1, MAX]);
        assert!(all[0].load().is_full() && !all[1].load().is_full());
        let found = all[0].next_with_room().unwrap();
        assert_eq!(found.0, 1);
        assert!(all[0].next_with_room().is_none());
        assert!(Load::permit(all[0].load()).is_none());
        // A failed attempt to get a permit is not counted.
        permits.truncate(MAX - 1);
        assert!(Load::permit(all[0].load()).is_some());
        assert!(Load::permit_beyond_limit(all[1].load()).is_some());
    }

    #[test]
    fn many_workers_are_all_found_in_time() {
        let mut open = [10; 40];
        open[25] = 0;
        let (all, _permits) = workers(&open);
        assert!((0..40).any(|_| goes_to(&all[0]) == Some(25)));
    }
}
