//! Accepting: several accepts in flight for each socket, every connection a task of its own, on
//! this worker or on one that has clearly fewer.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use monoio::net::TcpListener;

use super::balance::{Balance, Handed, Inbox};
use super::{Running, Socket};
use crate::config::Driver;
use crate::front::{self, Accepted, Context, Gate, Place};
use crate::observe::diagnostics::Throttle;
use crate::sys::{self, Address, Errno, Stream};

/// Accepts in flight on one socket of the ring: so many connections arrive with one system call.
/// Under a steady load, where one wake-up finds several anyway, 1, 8 and 32 cost the same (0.97 to
/// 1.03 of the CPU for a connection, paired medians of 9 rounds).
const IN_FLIGHT: usize = 8;
/// Accepts in a row over epoll.
const BATCH: u32 = 64;
/// The pause after a failed accept. Connections wait in the queue meanwhile; trying at once would
/// only spin.
const BACK_OFF: Duration = Duration::from_millis(100);
/// The pause after a wake-up that brought nobody.
const AFTER_NOTHING: Duration = Duration::from_millis(1);

/// A listening socket and the tasks that accept from it.
pub(super) struct Acceptor {
    context: Rc<Context>,
    balance: Rc<Balance>,
    socket: Socket,
    runtime: TcpListener,
    failures: Throttle,
}

/// Begins to accept, and to serve what other workers hand over.
///
/// # Errors
/// The runtime cannot use a socket.
pub(super) fn start(
    context: &Rc<Context>,
    balance: Balance,
    inbox: Inbox,
    sockets: Vec<Socket>,
    running: Running,
) -> io::Result<Vec<Rc<Acceptor>>> {
    let for_handed = Rc::clone(context);
    inbox.open(move |handed| {
        let Handed { listener, gate, fd, address, place } = handed;
        serve(&for_handed, listener, gate.as_ref(), Stream::from_fd(fd), address, place);
    })?;
    let balance = Rc::new(balance);
    let ring = running.driver == Driver::IoUring;
    let start = |socket| Acceptor::start(context, &balance, socket, ring);
    sockets.into_iter().map(start).collect()
}

/// Serves a connection on this worker.
fn serve(
    context: &Rc<Context>,
    listener: usize,
    gate: Option<&Arc<Gate>>,
    stream: io::Result<Stream>,
    address: Address,
    place: Place,
) {
    match stream {
        Ok(stream) => {
            if let Some(conn) = Accepted::admit(context, listener, gate, stream, address, place) {
                front::spawn(conn);
            }
        }
        Err(error) => {
            if let Some(more) = context.unusable.pass() {
                let listener = &context.config.listeners[listener].name;
                tracing::warn!(%listener, %error, more, "an accepted connection cannot be used");
            }
        }
    }
}

impl Acceptor {
    fn start(
        context: &Rc<Context>,
        balance: &Rc<Balance>,
        socket: Socket,
        ring: bool,
    ) -> io::Result<Rc<Self>> {
        // The ring answers EAGAIN on a non-blocking socket instead of waiting; epoll needs one.
        // Workers share the socket of a Unix path, so another may be faster after the same wake-up.
        let in_ring = ring && !socket.unix;
        socket.socket.set_nonblocking(!in_ring)?;
        let runtime = TcpListener::from_std(socket.socket.try_clone()?)?;
        let (context, balance) = (Rc::clone(context), Rc::clone(balance));
        let failures = Throttle::default();
        let acceptor = Rc::new(Acceptor { context, balance, socket, runtime, failures });
        for _ in 0..if in_ring { IN_FLIGHT } else { 1 } {
            let acceptor = Rc::clone(&acceptor);
            monoio::spawn(async move {
                if in_ring {
                    acceptor.accept_in_ring().await
                } else {
                    acceptor.accept_ready().await
                }
            });
        }
        Ok(acceptor)
    }

    /// Takes what is in the accept queue, which closing would drop, and ends the tasks.
    pub(super) fn stop(&self) {
        let _ = self.socket.socket.set_nonblocking(true);
        // Clients that connect meanwhile must not keep the worker here: a full queue is enough. It
        // has one more than the backlog (listen(2)).
        let backlog = self.context.config.listeners[self.socket.listener].backlog;
        for _ in 0..=backlog {
            let Ok((fd, address)) = sys::accept_now(&self.socket.socket) else { break };
            self.take(fd, address);
        }
        // Ends the accepts in flight. The socket of a Unix path is shared by all workers, which
        // stop at the same word.
        sys::stop_listening(&self.socket.socket);
    }

    async fn accept_in_ring(&self) {
        loop {
            match self.runtime.accept().await {
                Ok((stream, address)) => {
                    let (stream, address) = (Stream::accepted(stream), Address::Ip(address));
                    match self.elsewhere() {
                        Some((to, place)) => self.hand_over(to, place, stream.into_fd(), address),
                        None => self.serve(Ok(stream), address),
                    }
                }
                Err(_) if self.context.draining.get() => return,
                Err(error) => self.failed(&error).await,
            }
        }
    }

    async fn accept_ready(&self) {
        while !self.context.draining.get() {
            if let Err(error) = self.runtime.readable(false).await {
                self.failed(&error).await;
                continue;
            }
            let mut accepted = 0;
            loop {
                if accepted == BATCH {
                    // Those that were accepted, and all others, have their turn before the rest.
                    self.context.pool.turns().give_way().await;
                    break;
                }
                match sys::accept_now(&self.socket.socket) {
                    Ok((fd, address)) => {
                        accepted += 1;
                        self.take(fd, address);
                    }
                    Err(Errno::AGAIN) if accepted > 0 => break,
                    // Another worker was faster; or it has stopped the socket already, which is
                    // then ready for good and has nobody to accept.
                    Err(Errno::AGAIN) => {
                        monoio::time::sleep(AFTER_NOTHING).await;
                        break;
                    }
                    Err(_) if self.context.draining.get() => return,
                    Err(errno) => self.failed(&errno.into()).await,
                }
            }
        }
    }

    fn take(&self, fd: OwnedFd, address: Address) {
        match self.elsewhere() {
            Some((to, place)) => self.hand_over(to, place, fd, address),
            None => self.serve(Stream::from_fd(fd), address),
        }
    }

    /// Whoever is on the way to the end keeps what it has, and so do the others.
    fn elsewhere(&self) -> Option<(usize, Place)> {
        if self.context.draining.get() { None } else { self.balance.elsewhere() }
    }

    fn hand_over(&self, to: usize, place: Place, fd: OwnedFd, address: Address) {
        let (listener, gate) = (self.socket.listener, self.socket.gate.clone());
        let handed = Handed { listener, gate, fd, address, place };
        if let Err(Handed { fd, address, .. }) = self.balance.hand_over(to, handed) {
            self.serve(Stream::from_fd(fd), address);
        }
    }

    fn serve(&self, stream: io::Result<Stream>, address: Address) {
        // None: the worker has ended, and nobody runs what would be served.
        let Some(place) = self.context.load.take_place() else { return };
        let Socket { listener, gate, .. } = &self.socket;
        serve(&self.context, *listener, gate.as_ref(), stream, address, place);
    }

    /// Nothing ends an accept loop but the end of the worker.
    async fn failed(&self, error: &io::Error) {
        // The client gave up while it waited; that says nothing about the next one (accept(2)).
        if error.raw_os_error() == Some(libc::ECONNABORTED) {
            return;
        }
        if let Some(more) = self.failures.pass() {
            let listener = &self.context.config.listeners[self.socket.listener].name;
            tracing::warn!(
                %listener, %error, more,
                "cannot accept; connections wait. Out of descriptors? Raise the limit of open \
                 files (LimitNOFILE= in a systemd unit, `ulimit -Hn`)"
            );
        }
        monoio::time::sleep(BACK_OFF).await;
    }
}
