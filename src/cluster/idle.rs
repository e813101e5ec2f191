//! Connections to one endpoint that wait for their next request (RFC 9112 section 9.3).
//!
//! The one that was used last is taken first: the others then reach their time limit, so that their
//! number follows the load. Endpoints close idle connections, too, and not at a good moment: a
//! connection that has become readable while it was idle is dead, whatever it would say.

use std::cell::RefCell;

use crate::sys::SocketOptions;
use crate::transport::Transport;

/// The idle connections of one worker to one endpoint.
#[derive(Default)]
pub(super) struct IdleConnections(RefCell<Vec<Idle>>);

struct Idle {
    transport: Transport,
    /// The options that it was opened with.
    options: SocketOptions,
    /// The tick in which it became idle.
    since: u32,
}

impl IdleConnections {
    /// Takes the connection with these options that was used last and is still alive.
    pub(super) fn take(&self, options: &SocketOptions) -> Option<Transport> {
        let mut idle = self.0.borrow_mut();
        loop {
            let position = idle.iter().rposition(|one| one.options == *options)?;
            let one = idle.remove(position);
            // What it says now was said to no request, and the next one must not get it.
            if !one.transport.has_input() {
                return Some(one.transport);
            }
        }
    }

    /// Keeps a connection, unless there are `most` already.
    pub(super) fn keep(
        &self,
        transport: Transport,
        options: &SocketOptions,
        now: u32,
        most: usize,
    ) {
        let mut idle = self.0.borrow_mut();
        if idle.len() < most {
            idle.push(Idle { transport, options: *options, since: now });
        }
    }

    /// Closes all.
    pub(super) fn close(&self) {
        // Dropped while nothing is borrowed.
        let idle = self.0.take();
        drop(idle);
    }

    /// Closes those that are dead, or were idle for more than `limit` ticks.
    pub(super) fn sweep(&self, now: u32, limit: u32) {
        let is_alive =
            |one: &Idle| now.wrapping_sub(one.since) <= limit && !one.transport.has_input();
        self.0.borrow_mut().retain(is_alive);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::rc::Rc;

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
            let idle = IdleConnections::default();
            let ((first, _one), (second, _two)) = (connection(), connection());
            idle.keep(first.clone(), &OPTIONS, 0, 2);
            idle.keep(second.clone(), &OPTIONS, 0, 2);
            let (third, _three) = connection();
            idle.keep(third, &OPTIONS, 0, 2);
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
            let idle = IdleConnections::default();
            let ((alive, _peer), (closed, gone), (talks, mut peer)) =
                (connection(), connection(), connection());
            for one in [&alive, &closed, &talks] {
                idle.keep(one.clone(), &OPTIONS, 0, 9);
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
            let idle = IdleConnections::default();
            let ((old, _one), (young, _two), (dead, gone)) =
                (connection(), connection(), connection());
            idle.keep(old, &OPTIONS, u32::MAX - 5, 9);
            idle.keep(young.clone(), &OPTIONS, 3, 9);
            idle.keep(dead, &OPTIONS, 4, 9);
            drop(gone);
            // The ticks wrap around.
            idle.sweep(5, 9);
            assert!(is_same(idle.take(&OPTIONS), &young));
            assert!(idle.take(&OPTIONS).is_none());
        });
    }
}
