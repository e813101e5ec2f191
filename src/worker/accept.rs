//! Accepts connections: several accepts are in flight for each socket. Each connection gets a task
//! of its own, on this worker or on one that has clearly fewer connections.

use std::cell::Cell;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use monoio::net::TcpListener;

use super::balance::{Balance, HandedOver, Inbox};
use super::{Running, Socket};
use crate::config::Driver;
use crate::front::{self, Accepted, Context, Listener, Permit};
use crate::sys::{self, Address, Errno, Stream};

/// The most accepts in a row over epoll.
const BATCH: u32 = 64;
/// The pause after a failed accept, and between two checks whether another worker has room for a
/// connection. Connections wait in the accept queue meanwhile. Without the pause the loop would
/// only spin.
const BACK_OFF: Duration = Duration::from_millis(100);
/// The pause after a wake-up without a connection.
const AFTER_NOTHING: Duration = Duration::from_millis(1);

/// A listening socket and the tasks that accept from it.
pub(super) struct Acceptor {
    context: Rc<Context>,
    balance: Rc<Balance>,
    socket: Socket,
    runtime: TcpListener,
    /// Connections that wait, as they were last added to [`Shortage`](crate::front::Shortage).
    waiting: Cell<usize>,
    /// When `waiting` was last counted.
    looked: Cell<Option<Instant>>,
    /// Accepted connections that wait for a [`Permit`].
    held: Cell<usize>,
}

/// Which worker serves a connection, with its permit.
enum Destination {
    ThisWorker(Permit),
    OtherWorker(usize, Permit),
}

/// Starts to accept connections, and to serve those that other workers hand over.
///
/// # Errors
/// The runtime cannot use a socket.
pub(super) fn start(
    context: &Rc<Context>,
    balance: Balance,
    inbox: Inbox,
    sockets: Vec<Socket>,
    running: Running,
    accepts: usize,
) -> io::Result<Vec<Rc<Acceptor>>> {
    let inbox_context = Rc::clone(context);
    inbox.open(move |conn| {
        let HandedOver { listener, fd, address, permit } = conn;
        serve(&inbox_context, &listener, Stream::from_fd(fd), address, permit);
    })?;
    let balance = Rc::new(balance);
    let ring = running.driver == Driver::IoUring;
    let in_flight = if ring { accepts } else { 0 };
    let start = |socket| Acceptor::start(context, &balance, socket, in_flight);
    sockets.into_iter().map(start).collect()
}

/// Serves an accepted connection on this worker, by the listener of this name in the present
/// generation.
fn serve(
    context: &Rc<Context>,
    listener: &str,
    stream: io::Result<Stream>,
    address: Address,
    permit: Permit,
) {
    let listener = context.generation.borrow().listener(listener).cloned();
    let Some(listener) = listener else {
        // This generation has no such listener: the connection is closed.
        drop(permit);
        return context.waiting_accepts.wake_front();
    };
    match stream {
        Ok(stream) => {
            if let Some(conn) = Accepted::admit(context, &listener, stream, address, permit) {
                front::spawn(conn);
            }
        }
        Err(error) => {
            if let Some(more) = context.unusable.pass() {
                let listener = listener.name();
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
        in_flight: usize,
    ) -> io::Result<Rc<Self>> {
        // On a non-blocking socket an accept through the ring returns EAGAIN instead of waiting;
        // epoll needs a non-blocking socket. The socket of a Unix path is shared by the workers and
        // is also non-blocking, because another worker may accept first after the same wake-up.
        let in_ring = in_flight > 0 && !socket.unix;
        socket.socket.set_nonblocking(!in_ring)?;
        let runtime = TcpListener::from_std(socket.socket.try_clone()?)?;
        let (context, balance) = (Rc::clone(context), Rc::clone(balance));
        let (waiting, looked, held) = (Cell::new(0), Cell::new(None), Cell::new(0));
        let acceptor = Acceptor { context, balance, socket, runtime, waiting, looked, held };
        let acceptor = Rc::new(acceptor);
        // Several accepts in flight complete by one system call. Under a steady load one wake-up
        // finds several connections anyway; there 1, 8 and 32 in flight cost the same (0.97 to 1.03
        // of the CPU for a connection, paired medians of 9 rounds).
        for _ in 0..if in_ring { in_flight } else { 1 } {
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

    /// Serves the connections of the accept queue, which a close would drop, and ends the tasks.
    pub(super) fn stop(&self) {
        let _ = self.socket.socket.set_nonblocking(true);
        // The loop is limited to a full queue, which has one connection more than the backlog
        // (listen(2)). Clients that connect meanwhile could otherwise keep the worker here.
        let listener = self.listener();
        let backlog = listener.map_or(0, |listener| listener.options().backlog);
        for _ in 0..=backlog {
            if self.context.load.is_full() {
                break;
            }
            let Ok((fd, address)) = sys::try_accept(&self.socket.socket) else { break };
            self.serve_or_hand_over(fd, address);
        }
        // Ends the accepts in flight. The socket of a Unix path is shared by all workers, which
        // stop at the same command.
        sys::stop_listening(&self.socket.socket);
    }

    async fn accept_in_ring(&self) {
        loop {
            match self.runtime.accept().await {
                Ok((stream, address)) => {
                    let (stream, address) = (Stream::accepted(stream), Address::Ip(address));
                    // Accepts that already wait come first.
                    let may_go_first = self.context.waiting_accepts.is_empty();
                    let at_once = if may_go_first { self.destination() } else { None };
                    let destination = match at_once {
                        Some(destination) => destination,
                        None => self.wait_for_destination().await,
                    };
                    match destination {
                        Destination::OtherWorker(to, permit) => {
                            self.hand_over(to, permit, stream.into_fd(), address);
                        }
                        Destination::ThisWorker(permit) => self.serve(Ok(stream), address, permit),
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
                    // Yields, so that the tasks of the accepted connections and all others run
                    // first.
                    self.context.pool.yielder().yield_now().await;
                    break;
                }
                if !self.context.waiting_accepts.is_empty() || !self.has_room() {
                    self.wait_for_room().await;
                }
                match sys::try_accept(&self.socket.socket) {
                    Ok((fd, address)) => {
                        accepted += 1;
                        self.serve_or_hand_over(fd, address);
                    }
                    Err(Errno::AGAIN) if accepted > 0 => break,
                    // Another worker accepted first, or has stopped the shared socket already. A
                    // stopped socket is always ready and has no connections.
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

    /// Serves an accepted connection for which there was room before the accept.
    fn serve_or_hand_over(&self, fd: OwnedFd, address: Address) {
        match self.destination() {
            Some(Destination::OtherWorker(to, permit)) => self.hand_over(to, permit, fd, address),
            Some(Destination::ThisWorker(permit)) => {
                self.serve(Stream::from_fd(fd), address, permit);
            }
            // A connection that was handed over meanwhile has got the last permit.
            None => self.serve_in_any_case(fd, address),
        }
    }

    /// Returns which worker can serve a connection; `None` if all are full.
    ///
    /// A worker that drains keeps its connections and hands none over.
    fn destination(&self) -> Option<Destination> {
        let this = || self.context.load.permit().map(Destination::ThisWorker);
        let other = |(index, permit)| Destination::OtherWorker(index, permit);
        if self.context.draining.get() {
            return this();
        }
        let destination = self.balance.least_loaded().map(other).or_else(this);
        let destination = destination.or_else(|| self.balance.next_with_room().map(other))?;
        // One connection fewer waits. The next check counts them again.
        self.set_waiting(self.waiting.get().saturating_sub(1));
        Some(destination)
    }

    /// Returns true if a worker may have room for one more connection.
    fn has_room(&self) -> bool {
        !self.context.load.is_full() || !self.context.draining.get() && self.balance.has_room()
    }

    /// Waits until a worker can serve an accepted connection.
    async fn wait_for_destination(&self) -> Destination {
        self.held.set(self.held.get() + 1);
        let destination = self.wait_in_queue(|| self.destination()).await;
        self.held.set(self.held.get() - 1);
        destination
    }

    /// Waits until a worker may have room for one more connection.
    async fn wait_for_room(&self) {
        self.wait_in_queue(|| self.has_room().then_some(())).await;
    }

    /// Waits behind all accepts of this worker that wait already, until `find` returns something.
    /// `find` is called when a connection of this worker has ended, and after each pause, because
    /// one of another worker may have ended.
    async fn wait_in_queue<T>(&self, find: impl Fn() -> Option<T>) -> T {
        let ticket = self.context.waiting_accepts.join();
        loop {
            if ticket.is_front()
                && let Some(found) = find()
            {
                return found;
            }
            self.look_at_queue();
            if self.waiting.get() > 0 {
                self.context.shortage.full();
            }
            let _ = monoio::time::timeout(BACK_OFF, ticket.woken()).await;
        }
    }

    /// Counts the connections that wait, unless the last count was less than [`BACK_OFF`] ago.
    fn look_at_queue(&self) {
        if self.looked.get().is_none_or(|looked| looked.elapsed() >= BACK_OFF) {
            self.looked.set(Some(Instant::now()));
            self.set_waiting(sys::accept_queue_length(&self.socket.socket) + self.held.get());
        }
    }

    fn set_waiting(&self, now: usize) {
        let before = self.waiting.replace(now);
        if before != now {
            self.context.shortage.waits(before, now);
        }
    }

    fn hand_over(&self, to: usize, permit: Permit, fd: OwnedFd, address: Address) {
        let listener = Arc::clone(&self.socket.listener);
        let conn = HandedOver { listener, fd, address, permit };
        if let Err(HandedOver { fd, address, .. }) = self.balance.hand_over(to, conn) {
            self.serve_in_any_case(fd, address);
        }
    }

    /// Serves a connection even if the worker has as many as it may have.
    fn serve_in_any_case(&self, fd: OwnedFd, address: Address) {
        // `None`: the worker has ended, and no task would run any more.
        let Some(permit) = self.context.load.permit_beyond_limit() else { return };
        self.serve(Stream::from_fd(fd), address, permit);
    }

    fn serve(&self, stream: io::Result<Stream>, address: Address, permit: Permit) {
        serve(&self.context, &self.socket.listener, stream, address, permit);
    }

    /// The listener in the present generation.
    fn listener(&self) -> Option<Rc<Listener>> {
        self.context.generation.borrow().listener(&self.socket.listener).cloned()
    }

    /// Handles a failed accept. The accept loop goes on until the worker ends.
    async fn failed(&self, error: &io::Error) {
        // The connection was aborted before the accept (accept(2)). Others may wait, so there is no
        // pause.
        if error.kind() == io::ErrorKind::ConnectionAborted {
            return;
        }
        self.look_at_queue();
        if let Some(listener) = self.listener() {
            listener.admission.accept_failed(error);
        }
        monoio::time::sleep(BACK_OFF).await;
    }
}
