//! Connections to one endpoint that wait for their next request (RFC 9112 section 9.3).
//!
//! The one that was used last is taken first: the others then reach their time limit, so that their
//! number follows the load. Endpoints close idle connections, too, and not at a good moment: a
//! connection that has become readable while it was idle is dead, whatever it would say.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::sys::SocketOptions;
use crate::transport::Transport;

/// Counts the idle connections of one worker to all endpoints.
pub struct IdleQuota {
    open: Cell<usize>,
    /// The worker's share of the descriptors.
    max: Cell<usize>,
}

/// A connection that is counted. Dropping it ends the count.
struct Permit(Rc<IdleQuota>);

impl IdleQuota {
    /// Makes a quota of at most `max` connections.
    pub fn new(max: usize) -> Rc<IdleQuota> {
        Rc::new(IdleQuota { open: Cell::new(0), max: Cell::new(max) })
    }

    /// The idle connections at present.
    pub fn open(&self) -> usize {
        self.open.get()
    }

    /// Changes the quota. Connections beyond it stay until they are used or too old.
    pub fn set_max(&self, max: usize) {
        self.max.set(max);
    }

    fn permit(self: &Rc<Self>) -> Option<Permit> {
        if self.open.get() >= self.max.get() {
            return None;
        }
        self.open.set(self.open.get() + 1);
        Some(Permit(Rc::clone(self)))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
    }
}

/// The idle connections of one worker to one endpoint.
#[derive(Default)]
pub(super) struct IdleConnections {
    all: RefCell<Vec<Idle>>,
    /// Whether no cluster has the endpoint any more.
    is_retired: Cell<bool>,
}

struct Idle {
    transport: Transport,
    /// The options that it was opened with.
    options: SocketOptions,
    /// The tick in which it became idle.
    since: u32,
    _permit: Permit,
}

impl IdleConnections {
    /// Takes the connection with these options that was used last and is still alive.
    pub(super) fn take(&self, options: &SocketOptions) -> Option<Transport> {
        let mut idle = self.all.borrow_mut();
        loop {
            let position = idle.iter().rposition(|one| one.options == *options)?;
            let one = idle.remove(position);
            // What it says now was said to no request, and the next one must not get it.
            if !one.transport.has_input() {
                return Some(one.transport);
            }
        }
    }

    /// Keeps a connection, unless there are `most` already, or no more are within the quota, or the
    /// endpoint is retired.
    pub(super) fn keep(
        &self,
        transport: Transport,
        options: &SocketOptions,
        now: u32,
        most: usize,
        quota: &Rc<IdleQuota>,
    ) {
        let mut idle = self.all.borrow_mut();
        if !self.is_retired.get()
            && idle.len() < most
            && let Some(permit) = quota.permit()
        {
            idle.push(Idle { transport, options: *options, since: now, _permit: permit });
        }
    }

    /// Closes all.
    pub(super) fn close(&self) {
        // Dropped while nothing is borrowed.
        let idle = self.all.take();
        drop(idle);
    }

    /// Closes all, and keeps none any more: nothing would take or sweep them. Connections that use
    /// the endpoint keep it alive, maybe for days.
    pub(super) fn retire(&self) {
        self.is_retired.set(true);
        self.close();
    }

    /// Whether the cluster has dropped the endpoint.
    pub(super) fn is_retired(&self) -> bool {
        self.is_retired.get()
    }

    /// Closes those that are dead, or were idle for more than `limit` ticks.
    pub(super) fn sweep(&self, now: u32, limit: u32) {
        let is_alive =
            |one: &Idle| now.wrapping_sub(one.since) <= limit && !one.transport.has_input();
        self.all.borrow_mut().retain(is_alive);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::sys::Stream;

    fn connection() -> (Transport, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (Transport::Plain(Rc::new(Stream::from_fd(ours.into()).unwrap())), theirs)
    }

    fn in_runtime(test: impl FnOnce()) {
        let mut runtime = monoio::RuntimeBuilder::<monoio::LegacyDriver>::new().build().unwrap();
        runtime.block_on(async { test() });
    }

    const OPTIONS: SocketOptions = SocketOptions {
        backlog: 1,
        nodelay: true,
        keepalive: None,
        user_timeout: None,
        fast_open: false,
    };

    fn is_same(taken: Option<Transport>, one: &Transport) -> bool {
        taken.is_some_and(|taken| Rc::ptr_eq(taken.socket(), one.socket()))
    }

    #[test]
    fn the_last_one_is_taken_first_and_one_with_other_options_never() {
        in_runtime(|| {
            let (idle, quota) = (IdleConnections::default(), IdleQuota::new(9));
            let ((first, _one), (second, _two)) = (connection(), connection());
            idle.keep(first.clone(), &OPTIONS, 0, 2, &quota);
            idle.keep(second.clone(), &OPTIONS, 0, 2, &quota);
            let (third, _three) = connection();
            idle.keep(third, &OPTIONS, 0, 2, &quota);
            let other = SocketOptions { nodelay: false, ..OPTIONS };
            assert!(idle.take(&other).is_none());
            assert!(is_same(idle.take(&OPTIONS), &second));
            assert!(is_same(idle.take(&OPTIONS), &first));
            assert!(idle.take(&OPTIONS).is_none());
        });
    }

    #[test]
    fn one_that_the_endpoint_has_closed_or_written_to_is_not_taken() {
        in_runtime(|| {
            let (idle, quota) = (IdleConnections::default(), IdleQuota::new(9));
            let ((alive, _peer), (closed, gone), (talks, mut peer)) =
                (connection(), connection(), connection());
            for one in [&alive, &closed, &talks] {
                idle.keep(one.clone(), &OPTIONS, 0, 9, &quota);
            }
            drop(gone);
            peer.write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n").unwrap();
            assert!(is_same(idle.take(&OPTIONS), &alive));
            assert!(idle.take(&OPTIONS).is_none());
        });
    }

    #[test]
    fn the_sweep_closes_the_old_and_the_dead() {
        in_runtime(|| {
            let (idle, quota) = (IdleConnections::default(), IdleQuota::new(9));
            let ((old, _one), (young, _two), (dead, gone)) =
                (connection(), connection(), connection());
            idle.keep(old, &OPTIONS, u32::MAX - 5, 9, &quota);
            idle.keep(young.clone(), &OPTIONS, 3, 9, &quota);
            idle.keep(dead, &OPTIONS, 4, 9, &quota);
            drop(gone);
            // The ticks wrap around.
            idle.sweep(5, 9);
            assert!(is_same(idle.take(&OPTIONS), &young));
            assert!(idle.take(&OPTIONS).is_none());
        });
    }

    #[test]
    fn a_retired_endpoint_keeps_none() {
        in_runtime(|| {
            let (idle, quota) = (IdleConnections::default(), IdleQuota::new(9));
            let ((first, _one), (second, _two)) = (connection(), connection());
            idle.keep(first, &OPTIONS, 0, 9, &quota);
            idle.retire();
            idle.keep(second, &OPTIONS, 0, 9, &quota);
            assert!(idle.take(&OPTIONS).is_none());
            assert_eq!(quota.open.get(), 0);
        });
    }

    #[test]
    fn no_more_are_kept_than_the_worker_may_have() {
        in_runtime(|| {
            let (quota, pools) = (IdleQuota::new(2), [(); 2].map(|()| IdleConnections::default()));
            let connections: Vec<_> = (0..3).map(|_| connection()).collect();
            for (number, (transport, _)) in connections.iter().enumerate() {
                pools[number % 2].keep(transport.clone(), &OPTIONS, 0, 9, &quota);
            }
            assert_eq!(pools.each_ref().map(|pool| pool.all.borrow().len()), [1, 1]);
            // One that is taken, closed or too old makes room.
            assert!(pools[0].take(&OPTIONS).is_some());
            pools[1].close();
            for (transport, _) in &connections {
                pools[1].keep(transport.clone(), &OPTIONS, 0, 9, &quota);
            }
            assert_eq!(pools[1].all.borrow().len(), 2);
            pools[1].sweep(9, 1);
            assert_eq!(quota.open.get(), 0);
        });
    }
}
