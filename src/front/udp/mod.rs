//! UDP: datagrams of each client go to one endpoint, from a socket of their own, and what comes
//! back there goes to the client, from the address that it had sent to.
//!
//! A session is a client and the address of ours that it sends to. It lasts until it has been
//! silent for the idle timeout, or until a listener has so many that the one that was silent for
//! the longest has to make room. Which worker has it is the kernel's choice by the client's address
//! (SO_REUSEPORT), and stays.

mod runs;
mod table;

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket as StdSocket};
use std::rc::Rc;

use super::context::{Context, Moment, describe_tried};
use crate::cluster::Tried;
use crate::config::{ClusterId, Protocol};
use crate::observe::access_log::{End, Record, Relay};
use crate::sys::{Address, Batch, ConnectError, Errno, Offload, UdpSocket};
use crate::timers::ticks;
use runs::send_joined;
use table::Table;

/// A listener on one worker.
pub struct Udp {
    context: Rc<Context>,
    /// Position in the configuration.
    listener: usize,
    cluster: ClusterId,
    /// Ticks of silence.
    idle: u32,
    sockets: Vec<UdpSocket>,
    table: RefCell<Table<Key, Session>>,
    /// Set when the worker drains: the tasks of the sockets then return.
    ended: Cell<bool>,
    /// One has made room already for those who came together: its descriptor is free a turn later.
    made_room: Cell<bool>,
    room: Rc<Room>,
}

/// What all listeners of a worker use in turns.
struct Room {
    batch: RefCell<Batch>,
    joined: RefCell<Vec<u8>>,
    /// Of the sockets to endpoints.
    offload: Rc<Offload>,
}

/// What makes a session.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    client: SocketAddr,
    /// Position in [`Udp::sockets`].
    socket: usize,
    /// Where the client sends to; none: the kernel does not say, or nobody can answer from there.
    local: Option<IpAddr>,
}

struct Session {
    key: Key,
    client: Address,
    upstream: UdpSocket,
    to: SocketAddr,
    endpoint: Rc<Address>,
    tried: RefCell<Tried>,
    start: Moment,
    bytes_up: Cell<u64>,
    bytes_down: Cell<u64>,
    ended: Cell<bool>,
}

/// Begins to serve the UDP sockets of a worker, each given with the position of its listener.
///
/// # Errors
/// The runtime or the kernel cannot use a socket.
pub fn start_udp(
    context: &Rc<Context>,
    sockets: Vec<(usize, StdSocket)>,
    workers: usize,
) -> io::Result<Vec<Rc<Udp>>> {
    if sockets.is_empty() {
        return Ok(Vec::new());
    }
    let room = Rc::new(Room {
        batch: RefCell::new(Batch::new()),
        joined: RefCell::default(),
        offload: Offload::new()?,
    });
    let mut by_listener: Vec<(usize, Vec<UdpSocket>)> = Vec::new();
    for (listener, socket) in sockets {
        let socket = UdpSocket::bound(socket)?;
        match by_listener.iter_mut().find(|(other, _)| *other == listener) {
            Some((_, sockets)) => sockets.push(socket),
            None => by_listener.push((listener, vec![socket])),
        }
    }
    let start = |(listener, sockets)| Udp::start(context, listener, sockets, &room, workers);
    Ok(by_listener.into_iter().filter_map(start).collect())
}

impl Udp {
    fn start(
        context: &Rc<Context>,
        listener: usize,
        sockets: Vec<UdpSocket>,
        room: &Rc<Room>,
        workers: usize,
    ) -> Option<Rc<Udp>> {
        let Protocol::Udp(udp) = &context.config.listeners[listener].protocol else { return None };
        let listener = Rc::new(Udp {
            context: Rc::clone(context),
            listener,
            cluster: udp.cluster,
            idle: ticks(udp.idle_timeout),
            table: RefCell::new(Table::new(udp.max_sessions.div_ceil(workers))),
            sockets,
            ended: Cell::new(false),
            made_room: Cell::new(false),
            room: Rc::clone(room),
        });
        for index in 0..listener.sockets.len() {
            monoio::spawn(Rc::clone(&listener).receive(index));
        }
        Some(listener)
    }

    /// Ends sessions that were silent for too long. Called once a tick.
    pub fn tick(&self) {
        let now = self.context.timers.now();
        loop {
            // Not borrowed while it ends.
            let idle = self.table.borrow_mut().take_idle(now, self.idle);
            let Some(session) = idle else { return };
            self.end(&session, End::Idle);
        }
    }

    /// Ends all sessions and closes the sockets: the worker drains. Nothing says when a session is
    /// over, and as long as a socket were bound, another process could not take over its clients.
    pub fn end_all(&self) {
        self.ended.set(true);
        self.sockets.iter().for_each(UdpSocket::end);
        loop {
            let oldest = self.table.borrow_mut().take_oldest();
            let Some(session) = oldest else { return };
            self.end(&session, End::Drain);
        }
    }

    /// Takes what clients send to one socket.
    async fn receive(self: Rc<Self>, index: usize) {
        let turns = self.context.pool.turns();
        loop {
            self.sockets[index].readable().await;
            if self.ended.get() {
                return;
            }
            // An error is about a datagram that was sent (ICMP), and is over with that.
            let received = self.sockets[index].receive(&mut self.room.batch.borrow_mut());
            if received.is_ok() {
                self.forward(index);
            }
            if turns.take() {
                turns.give_way().await;
            }
        }
    }

    /// Passes on what was received from clients.
    fn forward(self: &Rc<Self>, index: usize) {
        self.made_room.set(false);
        let batch = self.room.batch.borrow();
        // Nobody can be answered at port 0.
        let answerable = batch.iter().filter(|received| received.from.port() != 0);
        let items = answerable.map(|received| {
            let local = received.to.filter(can_answer_from);
            let key = Key { client: received.from, socket: index, local };
            (key, received.bytes, received.segment)
        });
        send_joined(items, &mut self.room.joined.borrow_mut(), |key, bytes, segment| {
            let Some(session) = self.session(&key) else { return };
            let lost = session.upstream.send(session.to, None, bytes, segment);
            add(&session.bytes_up, bytes.len(), lost * segment);
        });
    }

    /// The session of a client; a new one where there is none. None: there cannot be one.
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
        let evicted = self.table.borrow_mut().insert(*key, Rc::clone(&session), now);
        if let Some(evicted) = evicted {
            self.end(&evicted, End::Evicted);
        }
        monoio::spawn(Rc::clone(self).answer(Rc::clone(&session)));
        Some(session)
    }

    /// Opens a session with the endpoint whose turn it is. If connecting fails, the next one is
    /// tried at once, so that the session's first datagram is not lost.
    fn connect(&self, key: &Key, start: Moment) -> Result<Session, (End, Tried)> {
        let mut candidates = self.context.clusters[self.cluster.0].candidates();
        let mut end = End::NoEndpoint;
        while let Some(endpoint) = candidates.next() {
            // The configuration has refused paths.
            let Address::Ip(to) = *endpoint else { break };
            let error = match UdpSocket::connected(to, &self.room.offload) {
                Ok(upstream) => {
                    return Ok(Session {
                        key: *key,
                        client: Address::Ip(key.client),
                        upstream,
                        to,
                        endpoint,
                        tried: RefCell::new(candidates.connected()),
                        start,
                        bytes_up: Cell::new(0),
                        bytes_down: Cell::new(0),
                        ended: Cell::new(false),
                    });
                }
                Err(error) => error,
            };
            candidates.failed(endpoint, error.into());
            end = End::ConnectFailed;
            // As with too many sessions the oldest makes room, for the next datagram.
            if matches!(error, ConnectError::Local(_)) {
                if !self.made_room.replace(true) {
                    let oldest = self.table.borrow_mut().take_oldest();
                    oldest.iter().for_each(|oldest| self.end(oldest, End::Evicted));
                }
                end = End::Local;
                break;
            }
        }
        Err((end, candidates.given_up()))
    }

    /// Takes what comes back for one client.
    async fn answer(self: Rc<Self>, session: Rc<Session>) {
        let turns = self.context.pool.turns();
        loop {
            session.upstream.readable().await;
            if session.ended.get() {
                return;
            }
            let received = session.upstream.receive(&mut self.room.batch.borrow_mut());
            match received {
                Ok(_) => self.pass_back(&session),
                // Nobody is there, and never was: the client's next datagram goes elsewhere.
                Err(Errno::CONNREFUSED) if session.bytes_down.get() == 0 => {
                    self.table.borrow_mut().remove(&session.key);
                    self.refused(&session, Errno::CONNREFUSED);
                    return self.end(&session, End::ConnectFailed);
                }
                Err(_) => {}
            }
            if turns.take() {
                turns.give_way().await;
            }
        }
    }

    fn pass_back(&self, session: &Session) {
        let Key { client, socket, local } = session.key;
        let now = self.context.timers.now();
        self.table.borrow_mut().touch(&session.key, now);
        let batch = self.room.batch.borrow();
        let items = batch.iter().map(|received| ((), received.bytes, received.segment));
        send_joined(items, &mut self.room.joined.borrow_mut(), |(), bytes, segment| {
            let lost = self.sockets[socket].send(client, local, bytes, segment);
            add(&session.bytes_down, bytes.len(), lost * segment);
        });
    }

    /// Counts the failure of a session's endpoint.
    fn refused(&self, session: &Session, errno: Errno) {
        let reason = ConnectError::Refused(errno).into();
        self.context.clusters[self.cluster.0].failed(&session.endpoint, reason);
        session.tried.borrow_mut().failed.push(Rc::clone(&session.endpoint));
    }

    /// Ends a session that is in the table no more.
    fn end(&self, session: &Session, end: End) {
        session.ended.set(true);
        session.upstream.end();
        let tried = session.tried.borrow();
        self.record(&session.client, session.start, |record| {
            describe_tried(&tried, record);
            record.endpoint = Some(&session.endpoint);
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
        self.context.record(self.listener, client, start, |record| {
            record.protocol = "udp";
            record.cluster = Some(&self.context.config.clusters[self.cluster.0].name);
            fill(record);
        });
    }
}

/// Nobody sends from the address of many.
fn can_answer_from(local: &IpAddr) -> bool {
    let broadcast = matches!(local, IpAddr::V4(v4) if v4.is_broadcast());
    !local.is_multicast() && !broadcast
}

/// Counts what was sent; of a last datagram that was shorter and lost too much is taken off.
fn add(count: &Cell<u64>, bytes: usize, lost: usize) {
    count.set(count.get() + bytes.saturating_sub(lost) as u64);
}
