//! UDP: each client's datagrams go to one endpoint, from a socket of their own. Datagrams from the
//! endpoint go to the client, from the local address that the client had sent to.
//!
//! A session is a client and the local address that it sends to. It ends after the idle timeout
//! without a datagram. A session without a datagram from its endpoint ends after [`UNANSWERED`] at
//! most. The kernel chooses the worker by the client's address (SO_REUSEPORT), and the choice does
//! not change.
//!
//! A listener has a share of the worker's descriptors for UDP ([`Shares::sessions`]). When that is
//! used up, or there are `max_sessions` sessions, a new session takes the place of the one that was
//! silent for the longest. Sessions without a datagram from their endpoint go first. The socket of
//! an ended session is closed only when its task has run, so a part of the share is set aside for
//! such sockets.

mod rooms;
mod runs;
mod table;

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket as StdSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::accepted::{Moment, describe_tried};
use super::context::Context;
use super::generation::Listener;
use crate::cluster::{Cluster, InUse, Tried};
use crate::config::Protocol;
use crate::observe::access_log::{End, Record, Relay};
use crate::sys::{
    Address, Batch, ConnectError, Connected, Errno, Shares, UdpSocket, is_unreachable,
};
use crate::timers::ticks;
pub use rooms::udp_session_limit;
use rooms::{Open, Sockets, rooms};
use runs::send_joined;
use table::{Idle, Table};

/// A session without a datagram from its endpoint ends after this time of silence, or after the
/// idle timeout if that is shorter. Services that answer do so within seconds; datagrams from
/// forged addresses never have an answer.
const UNANSWERED: Duration = Duration::from_secs(30);

/// Sessions that a drain ends in one turn: about a millisecond's work. Between two turns the worker
/// serves its other tasks.
const ENDED_TOGETHER: usize = 100;

/// A listener on one worker.
pub struct Udp {
    context: Rc<Context>,
    listener: Rc<Listener>,
    cluster: Rc<Cluster>,
    idle: Idle,
    /// Empty while the worker drains. The task that receives from a socket holds it, too.
    sockets: RefCell<Vec<Rc<UdpSocket>>>,
    table: RefCell<Table<Key, Session>>,
    /// Set when the worker drains: the tasks of the listener's sockets then return.
    ended: Cell<bool>,
    /// Counts the sockets to endpoints, including those of sessions that have ended.
    open: Sockets,
    /// Set when a session ends, until the receiving task yields: the session's task can then close
    /// its socket.
    closing: Cell<bool>,
    room: Rc<Room>,
}

/// Scratch buffers and shared state of sockets, for all listeners of a worker.
struct Room {
    batch: RefCell<Batch>,
    joined: RefCell<Vec<u8>>,
    /// Shared by the sockets to endpoints.
    connected: Connected,
}

/// What identifies a session.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    client: SocketAddr,
    /// Position in [`Udp::sockets`].
    socket: usize,
    /// The address that the client sends to. `None` if the kernel does not tell it, or if it cannot
    /// be a source address.
    local: Option<IpAddr>,
}

struct Session {
    key: Key,
    client: Address,
    upstream: UdpSocket,
    to: SocketAddr,
    endpoint: InUse,
    tried: RefCell<Tried>,
    start: Moment,
    bytes_up: Cell<u64>,
    bytes_down: Cell<u64>,
    /// The endpoint has sent a datagram.
    answered: Cell<bool>,
    ended: Cell<bool>,
    _open: Open,
}

/// Starts serving the UDP sockets of a worker. Each comes with the name of its listener. All
/// their sessions together get [`Shares::sessions`] descriptors.
///
/// # Errors
/// The runtime or the kernel refuses a socket.
pub fn start_udp(
    context: &Rc<Context>,
    sockets: Vec<(Arc<str>, StdSocket)>,
    workers: usize,
    shares: &Shares,
) -> io::Result<Vec<Rc<Udp>>> {
    if sockets.is_empty() {
        return Ok(Vec::new());
    }
    let room = Rc::new(Room {
        batch: RefCell::new(Batch::new()),
        joined: RefCell::default(),
        connected: Connected::start()?,
    });
    let generation = context.generation.borrow();
    let mut by_listener: Vec<(&Rc<Listener>, Vec<UdpSocket>)> = Vec::new();
    for (name, socket) in sockets {
        let Some(listener) = generation.listener(&name) else { continue };
        let socket = UdpSocket::bound(socket)?;
        match by_listener.iter_mut().find(|(other, _)| Rc::ptr_eq(other, listener)) {
            Some((_, sockets)) => sockets.push(socket),
            None => by_listener.push((listener, vec![socket])),
        }
    }
    let max_sessions = |(listener, _): &(&Rc<Listener>, Vec<UdpSocket>)| {
        let Protocol::Udp(udp) = &listener.config.protocol else { return 0 };
        udp.max_sessions.div_ceil(workers)
    };
    let wanted: Vec<usize> = by_listener.iter().map(max_sessions).collect();
    let rooms = rooms(shares.sessions, &wanted);
    let start = |((listener, sockets), open)| Udp::start(context, listener, sockets, &room, open);
    Ok(by_listener.into_iter().zip(rooms).filter_map(start).collect())
}

impl Udp {
    fn start(
        context: &Rc<Context>,
        listener: &Rc<Listener>,
        sockets: Vec<UdpSocket>,
        room: &Rc<Room>,
        open: Sockets,
    ) -> Option<Rc<Udp>> {
        let Protocol::Udp(udp) = &listener.config.protocol else { return None };
        let listener = Rc::new(Udp {
            context: Rc::clone(context),
            listener: Rc::clone(listener),
            cluster: Rc::clone(listener.cluster(&udp.cluster)),
            idle: Idle {
                unanswered: ticks(udp.idle_timeout.min(UNANSWERED)),
                answered: ticks(udp.idle_timeout),
            },
            table: RefCell::new(Table::new(open.max_sessions())),
            sockets: RefCell::new(sockets.into_iter().map(Rc::new).collect()),
            ended: Cell::new(false),
            open,
            closing: Cell::new(false),
            room: Rc::clone(room),
        });
        for (index, socket) in listener.sockets.borrow().iter().enumerate() {
            monoio::spawn(Rc::clone(&listener).receive(index, Rc::clone(socket)));
        }
        Some(listener)
    }

    /// Ends sessions that were silent for too long. Called once a tick.
    pub fn tick(&self) {
        let now = self.context.timers.now();
        loop {
            // A statement of its own, so that the table is not borrowed while the session ends.
            let idle = self.table.borrow_mut().take_idle(now, self.idle);
            let Some(session) = idle else { return };
            self.end(&session, End::Idle);
        }
    }

    /// Closes the sockets and starts ending all sessions, because the worker drains. UDP has no end
    /// of a session, and another process cannot take over clients while a socket is bound.
    pub fn drain(self: &Rc<Self>) {
        self.ended.set(true);
        // Wakes the task that receives from the socket, which then closes it.
        self.sockets.take().iter().for_each(|socket| socket.end());
        monoio::spawn(Rc::clone(self).end_in_turns());
    }

    /// Returns true when all sessions have ended.
    pub fn is_drained(&self) -> bool {
        self.ended.get() && self.table.borrow().is_empty()
    }

    async fn end_in_turns(self: Rc<Self>) {
        while self.end_oldest(ENDED_TOGETHER) {
            self.context.pool.yielder().yield_now().await;
        }
    }

    /// Ends the remaining sessions at once, because the worker returns.
    pub fn end_rest(&self) {
        self.end_oldest(usize::MAX);
    }

    /// Ends up to `count` sessions, in the order in which they make room. Returns true when there
    /// may be more.
    fn end_oldest(&self, count: usize) -> bool {
        for _ in 0..count {
            // A statement of its own, so that the table is not borrowed while the session ends.
            let oldest = self.table.borrow_mut().take_oldest();
            let Some(session) = oldest else { return false };
            self.end(&session, End::Drain);
        }
        true
    }

    /// Receives what clients send to one socket.
    async fn receive(self: Rc<Self>, index: usize, socket: Rc<UdpSocket>) {
        let yielder = self.context.pool.yielder();
        loop {
            socket.readable().await;
            if self.ended.get() {
                return;
            }
            // An error is about a datagram that was sent earlier (ICMP). Reporting it clears it.
            let received = socket.receive(&mut self.room.batch.borrow_mut());
            if received.is_ok() {
                self.forward(index);
            }
            // Yield also after sessions have ended, so that their tasks close the sockets.
            if yielder.should_yield() || self.closing.replace(false) {
                yielder.yield_now().await;
            }
        }
    }

    /// Forwards what was received from clients.
    fn forward(self: &Rc<Self>, index: usize) {
        let batch = self.room.batch.borrow();
        // Port 0 cannot be answered.
        let answerable = batch.iter().filter(|received| received.from.port() != 0);
        let items = answerable.map(|received| {
            let local = received.to.filter(can_answer_from);
            let key = Key { client: received.from, socket: index, local };
            (key, received.bytes, received.segment)
        });
        send_joined(items, &mut self.room.joined.borrow_mut(), |key, bytes, segment| {
            self.pass_on(&key, bytes, segment);
        });
    }

    /// Forwards datagrams of one client. If its endpoint has never answered, the send may report
    /// that the endpoint refused earlier ones. The session then ends, and what was not sent goes to
    /// the next endpoint.
    fn pass_on(self: &Rc<Self>, key: &Key, bytes: &[u8], segment: usize) {
        let Some(mut session) = self.session(key) else { return };
        let mut rest = bytes;
        if !session.answered.get() {
            match session.upstream.try_send(session.to, None, bytes, segment) {
                Ok(lost) => return add(&session.bytes_up, bytes.len(), lost * segment),
                Err(refusal) => {
                    let errno = refusal.errno;
                    rest = refusal.rest;
                    let tried = bytes.len() - rest.len();
                    add(&session.bytes_up, tried, refusal.lost * segment);
                    self.give_up(&session, errno);
                    let Some(next) = self.session(key) else { return };
                    session = next;
                }
            }
        }
        // `send` repeats a datagram that meets an error about an earlier one.
        let (lost, told) = session.upstream.send(session.to, None, rest, segment);
        add(&session.bytes_up, rest.len(), lost * segment);
        if let Some(errno) = told.filter(|_| !session.answered.get()) {
            self.give_up(&session, errno);
        }
    }

    /// Ends a session whose endpoint cannot be reached and has never answered. The client's next
    /// datagram goes to another endpoint.
    fn give_up(&self, session: &Session, errno: Errno) {
        self.table.borrow_mut().remove(&session.key);
        self.refused(session, errno);
        self.end(session, End::ConnectFailed);
    }

    /// Returns the session of a client, or a new one. `None` if no session can be made.
    fn session(self: &Rc<Self>, key: &Key) -> Option<Rc<Session>> {
        let now = self.context.timers.now();
        if let Some(session) = self.table.borrow_mut().touch(key, now) {
            return Some(Rc::clone(session));
        }
        if self.context.draining.get() {
            return None;
        }
        let start = Moment::now();
        let session = match self.connect(key, start) {
            Ok(session) => Rc::new(session),
            Err((end, tried)) => {
                let client = Address::Ip(key.client);
                self.record(&client, start, |record| {
                    describe_tried(&tried, record);
                    record.endpoint = tried.last.as_deref();
                    record.end = end;
                });
                return None;
            }
        };
        // Only after connecting: a session that cannot be opened must not end another.
        let full = self.table.borrow().is_full();
        if full {
            self.make_room();
        }
        self.table.borrow_mut().insert(*key, Rc::clone(&session), now);
        monoio::spawn(Rc::clone(self).answer(Rc::clone(&session)));
        Some(session)
    }

    /// Ends the session that is first to make room.
    fn make_room(&self) {
        let spared = self.table.borrow_mut().take_oldest();
        if let Some(spared) = spared {
            self.end(&spared, End::Evicted);
        }
    }

    /// Opens a session with the next endpoint of the round robin. If connecting fails, the
    /// following one is tried at once, so that the session's first datagram is not lost.
    fn connect(&self, key: &Key, start: Moment) -> Result<Session, (End, Tried)> {
        let mut candidates = self.cluster.candidates_for_session();
        // Sockets of ended sessions that are still open may use the share up. With so many new
        // clients at one time, the datagrams of some are dropped.
        let Some(open) = self.open.take() else { return Err((End::Local, candidates.given_up())) };
        let mut end = End::NoEndpoint;
        while let Some(endpoint) = candidates.next() {
            // The configuration refuses endpoints with a path.
            let Address::Ip(to) = *endpoint.address else { break };
            let error = match UdpSocket::connected(to, &self.room.connected) {
                Ok(upstream) => {
                    return Ok(Session {
                        key: *key,
                        client: Address::Ip(key.client),
                        upstream,
                        to,
                        endpoint: InUse::new(endpoint),
                        tried: RefCell::new(candidates.connected()),
                        start,
                        bytes_up: Cell::new(0),
                        bytes_down: Cell::new(0),
                        answered: Cell::new(false),
                        ended: Cell::new(false),
                        _open: open,
                    });
                }
                Err(error) => error,
            };
            candidates.failed(&endpoint, error.into());
            end = End::ConnectFailed;
            if let ConnectError::Local(errno) = error {
                self.context.shortage.no_socket(errno);
                self.context.shortage.dropped();
                // End one session, as when the table is full, so that the next datagram finds a
                // socket.
                if !self.closing.get() {
                    self.make_room();
                }
                end = End::Local;
                break;
            }
        }
        Err((end, candidates.given_up()))
    }

    /// Receives what the endpoint sends to one client.
    async fn answer(self: Rc<Self>, session: Rc<Session>) {
        let yielder = self.context.pool.yielder();
        loop {
            session.upstream.readable().await;
            if session.ended.get() {
                return;
            }
            let received = session.upstream.receive(&mut self.room.batch.borrow_mut());
            match received {
                Ok(_) => self.pass_back(&session),
                Err(errno) if is_unreachable(errno) && !session.answered.get() => {
                    return self.give_up(&session, errno);
                }
                Err(_) => {}
            }
            if yielder.should_yield() {
                yielder.yield_now().await;
            }
        }
    }

    fn pass_back(&self, session: &Session) {
        let Key { client, socket, local } = session.key;
        let now = self.context.timers.now();
        session.answered.set(true);
        self.table.borrow_mut().answered(&session.key, now);
        let sockets = self.sockets.borrow();
        // `None` if the worker drains: this session is about to end.
        let Some(socket) = sockets.get(socket) else { return };
        let batch = self.room.batch.borrow();
        let items = batch.iter().map(|received| ((), received.bytes, received.segment));
        send_joined(items, &mut self.room.joined.borrow_mut(), |(), bytes, segment| {
            // A socket that serves many peers does not report the errors of one of them.
            let (lost, _) = socket.send(client, local, bytes, segment);
            add(&session.bytes_down, bytes.len(), lost * segment);
        });
    }

    /// Counts a failure of the session's endpoint.
    fn refused(&self, session: &Session, errno: Errno) {
        let reason = ConnectError::Refused(errno).into();
        self.cluster.refused_datagrams(&session.endpoint, reason);
        session.tried.borrow_mut().failed.push(Rc::clone(&session.endpoint.address));
    }

    /// Ends a session that has been taken out of the table.
    fn end(&self, session: &Session, end: End) {
        session.ended.set(true);
        session.upstream.end();
        self.closing.set(true);
        let tried = session.tried.borrow();
        self.record(&session.client, session.start, |record| {
            describe_tried(&tried, record);
            record.endpoint = Some(&session.endpoint.address);
            (record.bytes_up, record.bytes_down) =
                (session.bytes_up.get(), session.bytes_down.get());
            record.relay = Relay::Copy;
            record.end = end;
        });
    }

    fn record<'a>(
        &'a self,
        client: &'a Address,
        start: Moment,
        fill: impl FnOnce(&mut Record<'a>),
    ) {
        self.listener.record(client, start, |record| {
            record.protocol = "udp";
            record.cluster = Some(self.cluster.name());
            fill(record);
        });
    }
}

/// Returns false for multicast and broadcast addresses, which cannot be source addresses.
fn can_answer_from(local: &IpAddr) -> bool {
    let broadcast = matches!(local, IpAddr::V4(v4) if v4.is_broadcast());
    !local.is_multicast() && !broadcast
}

/// Adds the bytes that were sent. `lost` is too large if a shorter last datagram was lost, so the
/// subtraction saturates.
fn add(count: &Cell<u64>, bytes: usize, lost: usize) {
    count.set(count.get() + bytes.saturating_sub(lost) as u64);
}
