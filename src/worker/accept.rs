//! Accepts connections: several accepts are in flight for each socket. Each connection gets a task
//! of its own, on this worker or on one that has clearly fewer connections.
//!
//! An acceptor can be paused, so that another process accepts from the same socket, and it can be
//! stopped. Both cancel the accepts in flight. The socket is never shut down (shutdown(2)), because
//! that would end it for the other process as well. An accept that completes although it is being
//! cancelled has its connection, which is served.

mod all;
mod failures;

pub(super) use all::Acceptors;

use std::cell::{Cell, RefCell};
use std::io;
use std::net::TcpListener as StdListener;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use monoio::io::Canceller;
use monoio::net::TcpListener;

use super::Socket;
use super::balance::{Balance, HandedOver};
use crate::front::{self, Accepted, Context, Listener, Permit};
use crate::sched::StopFlag;
use crate::sys::{self, Address, Errno, Stream};

/// The most accepts in a row over epoll.
const BATCH: u32 = 64;
/// The pause after a failed accept, and between two checks whether another worker has room for a
/// connection. Connections wait in the accept queue meanwhile. Without the pause the loop would
/// only spin.
const BACK_OFF: Duration = Duration::from_millis(100);
/// The pause after a wake-up without a connection.
const AFTER_NOTHING: Duration = Duration::from_millis(1);

/// The most connections that an accept queue has: one more than the longest backlog (listen(2)).
const LONGEST_QUEUE: u32 = 65_536;

/// A listening socket and the tasks that accept from it. It is identified by its socket; the name
/// of its listener may change.
pub(super) struct Acceptor {
    context: Rc<Context>,
    balance: Rc<Balance>,
    /// The listener of the connections that it accepts.
    listener: RefCell<Rc<Listener>>,
    /// `None` when it is closed. A task holds the descriptors only while it accepts, and not while
    /// an accepted connection waits: after a stop the address is free at once.
    open: RefCell<Option<Rc<Open>>>,
    /// Whether accepts are in the ring; otherwise one task waits until the socket is ready.
    in_ring: bool,
    /// The number of tasks that accept, and how many there are to be.
    tasks: Cell<usize>,
    most_tasks: usize,
    /// Accepts in the ring.
    in_flight: Cell<usize>,
    /// Set while it is paused or stopped.
    paused: StopFlag,
    /// Cancels the accepts in the ring.
    canceller: RefCell<Canceller>,
    /// Whether it is to be closed when no accept is in flight any more.
    is_stopping: Cell<bool>,
    /// Connections that wait, as they were last added to [`Shortage`](crate::front::Shortage).
    waiting: Cell<usize>,
    /// When `waiting` was last counted.
    looked: Cell<Option<Instant>>,
    /// Accepted connections that wait for a [`Permit`].
    held: Cell<usize>,
    /// The task whose accept failed last (see `failures`).
    retrying: Cell<usize>,
}

/// The descriptors of a socket.
struct Open {
    socket: Arc<StdListener>,
    /// A duplicate, which the runtime closes.
    runtime: TcpListener,
}

/// Which worker serves a connection, with its permit.
enum Destination {
    ThisWorker(Permit),
    OtherWorker(usize, Permit),
}

/// Serves an accepted connection on this worker. Without a listener, which was removed a while ago,
/// it is reset.
fn serve(
    context: &Rc<Context>,
    listener: Option<&Rc<Listener>>,
    stream: io::Result<Stream>,
    address: Address,
    permit: Permit,
) {
    let Some(listener) = listener else {
        if let Ok(stream) = stream {
            stream.reset_on_close();
        }
        if let Some(more) = context.unusable.pass() {
            tracing::warn!(
                error = "its listener was removed a while ago",
                more,
                "an accepted connection cannot be used"
            );
        }
        drop(permit);
        return context.waiting_accepts.wake_front();
    };
    match stream {
        Ok(stream) => {
            if let Some(conn) = Accepted::admit(context, listener, stream, address, permit) {
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
    /// Makes a paused one. Nothing about the socket changes before [`Acceptor::resume`].
    fn new(
        context: &Rc<Context>,
        balance: &Rc<Balance>,
        listener: Rc<Listener>,
        Socket { socket, unix, spare, .. }: Socket,
        accepts: usize,
    ) -> io::Result<Rc<Self>> {
        // The socket of a Unix path is shared by the workers, and another worker may accept first
        // after the same wake-up.
        let in_ring = accepts > 0 && !unix;
        let runtime = TcpListener::from_std(spare.take(&*socket)?.into())?;
        let acceptor = Rc::new(Acceptor {
            context: Rc::clone(context),
            balance: Rc::clone(balance),
            listener: RefCell::new(listener),
            open: RefCell::new(Some(Rc::new(Open { socket, runtime }))),
            in_ring,
            tasks: Cell::new(0),
            // Several accepts in flight complete by one system call. Under a steady load one
            // wake-up finds several connections anyway; there 1, 8 and 32 in flight cost the same
            // (0.97 to 1.03 of the CPU for a connection, paired medians of 9 rounds).
            most_tasks: if in_ring { accepts } else { 1 },
            in_flight: Cell::new(0),
            paused: StopFlag::default(),
            canceller: RefCell::default(),
            is_stopping: Cell::new(false),
            waiting: Cell::new(0),
            looked: Cell::new(None),
            held: Cell::new(0),
            retrying: Cell::new(0),
        });
        acceptor.paused.set();
        Ok(acceptor)
    }

    /// What identifies its socket. `None` if it is closed.
    fn socket(&self) -> Option<*const StdListener> {
        self.open.borrow().as_ref().map(|open| Arc::as_ptr(&open.socket))
    }

    /// Cancels the accepts in flight and begins no other. The accept queue stays as it is.
    pub(super) fn pause(&self) {
        self.paused.set();
        let canceller = self.canceller.take().cancel();
        self.canceller.replace(canceller);
    }

    /// Returns true when a paused acceptor has no accept in flight any more.
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.get() == 0
    }

    /// Returns true as long as a pause has accepts to cancel.
    pub(super) fn is_pausing(&self) -> bool {
        self.paused.is_set() && !self.is_idle()
    }

    /// Accepts, from the start or after a pause. Does nothing if it accepts already, or if the
    /// socket does not listen yet.
    ///
    /// # Errors
    /// As fcntl(2); practically never.
    pub(super) fn resume(self: &Rc<Self>) -> io::Result<()> {
        let Some(open) = self.open().filter(|_| !self.is_stopping.get()) else { return Ok(()) };
        if !self.paused.is_set() || !sys::listens(&open.socket) {
            return Ok(());
        }
        // On a non-blocking socket an accept through the ring returns EAGAIN instead of waiting;
        // readiness needs a non-blocking socket. Another process may have changed the flag, which
        // belongs to the socket and not to the descriptor (fcntl(2)).
        open.socket.set_nonblocking(!self.in_ring)?;
        self.paused.clear();
        while self.tasks.get() < self.most_tasks {
            let task = self.tasks.replace(self.tasks.get() + 1);
            let acceptor = Rc::clone(self);
            monoio::spawn(async move {
                if acceptor.in_ring {
                    acceptor.accept_in_ring(task).await;
                } else {
                    acceptor.accept_ready().await;
                }
                acceptor.tasks.set(acceptor.tasks.get() - 1);
            });
        }
        Ok(())
    }

    /// Serves the connections of the accept queue, which a close would drop, and closes the
    /// socket. That of a paused acceptor is only closed, because another process accepts from it.
    pub(super) fn stop(&self) {
        if !self.paused.is_set() {
            self.serve_queue();
            self.pause();
            self.is_stopping.set(true);
            self.close_if_idle();
        } else if !self.is_stopping.get() {
            self.close();
        }
    }

    /// Returns true from a stop on, unless it was paused before that: then it is closed at once.
    fn is_stopping(&self) -> bool {
        self.is_stopping.get()
    }

    /// Returns true when a stopped acceptor has closed its socket and accepts nothing more.
    pub(super) fn is_closed(&self) -> bool {
        self.open.borrow().is_none()
    }

    /// Closes a stopped socket once no accept is in flight. The queue is served again, because
    /// clients may have connected meanwhile.
    fn close_if_idle(&self) {
        if self.is_stopping.get() && self.is_idle() {
            self.serve_queue();
            self.close();
        }
    }

    fn close(&self) {
        self.open.take();
        // Its queue does not count any more.
        self.set_waiting(self.held.get());
    }

    /// Serves the connections of the accept queue.
    fn serve_queue(&self) {
        let Some(open) = self.open() else { return };
        let _ = open.socket.set_nonblocking(true);
        // The loop is limited to a full queue. Clients that connect meanwhile could otherwise keep
        // the worker here.
        for _ in 0..LONGEST_QUEUE {
            if !self.has_room() {
                break;
            }
            let Ok((fd, address)) = sys::try_accept(&open.socket) else { break };
            self.serve_or_hand_over(fd, address);
        }
    }

    /// The descriptors; `None` if the socket is closed.
    fn open(&self) -> Option<Rc<Open>> {
        self.open.borrow().clone()
    }

    /// The descriptors, as long as the acceptor is neither paused nor stopped.
    fn accepting(&self) -> Option<Rc<Open>> {
        if self.paused.is_set() { None } else { self.open() }
    }

    async fn accept_in_ring(&self, task: usize) {
        loop {
            self.wait_for_descriptors(task).await;
            let Some(open) = self.accepting() else { return };
            let cancel = self.canceller.borrow().handle();
            self.in_flight.set(self.in_flight.get() + 1);
            let accepted = open.runtime.cancelable_accept(cancel).await;
            self.in_flight.set(self.in_flight.get() - 1);
            drop(open);
            match accepted {
                Ok((stream, address)) => {
                    let (stream, address) = (Stream::accepted(stream), Address::Ip(address));
                    // Accepts that already wait come first.
                    let may_go_first = self.context.waiting_accepts.is_empty();
                    let at_once = if may_go_first { self.destination() } else { None };
                    let Some(destination) = at_once else {
                        self.close_if_idle();
                        let destination = self.wait_for_destination().await;
                        self.serve_at(destination, stream, address);
                        continue;
                    };
                    self.serve_at(destination, stream, address);
                    self.close_if_idle();
                }
                Err(_) if self.paused.is_set() => self.close_if_idle(),
                // It was resumed before this accept was cancelled.
                Err(error) if error.raw_os_error() == Some(libc::ECANCELED) => {}
                Err(error) => {
                    self.retrying.set(task);
                    self.failed(&error).await;
                }
            }
        }
    }

    fn serve_at(&self, destination: Destination, stream: Stream, address: Address) {
        match destination {
            Destination::OtherWorker(to, permit) => {
                self.hand_over(to, permit, stream.into_fd(), address);
            }
            Destination::ThisWorker(permit) => self.serve(Ok(stream), address, permit),
        }
    }

    async fn accept_ready(&self) {
        while let Some(open) = self.accepting() {
            match self.paused.unless_set(open.runtime.readable(false)).await {
                None => return,
                Some(Ok(())) => self.accept_batch(open).await,
                Some(Err(error)) => self.failed(&error).await,
            }
        }
    }

    /// Accepts the connections of a socket that is ready.
    async fn accept_batch(&self, open: Rc<Open>) {
        for accepted in 0..BATCH {
            let _ = self.paused.unless_set(self.wait_for_descriptors(0)).await;
            if !self.context.waiting_accepts.is_empty() || !self.has_room() {
                let _ = self.paused.unless_set(self.wait_for_room()).await;
            }
            // Checked before each accept, because the queue belongs to another process then.
            if self.paused.is_set() {
                return;
            }
            match sys::try_accept(&open.socket) {
                Ok((fd, address)) => self.serve_or_hand_over(fd, address),
                Err(Errno::AGAIN) if accepted > 0 => return,
                // Another worker accepted first.
                Err(Errno::AGAIN) => return monoio::time::sleep(AFTER_NOTHING).await,
                Err(errno) => self.failed(&errno.into()).await,
            }
        }
        // Yields, so that the tasks of the accepted connections and all others run first.
        drop(open);
        self.context.pool.yielder().yield_now().await;
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

    fn hand_over(&self, to: usize, permit: Permit, fd: OwnedFd, address: Address) {
        let listener = self.listener.borrow().id();
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
        serve(&self.context, Some(&self.listener.borrow()), stream, address, permit);
    }
}
