//! Ends sessions: after silence, to make room for others, because the endpoint refuses, or because
//! the worker drains. Each session gets its access record here, also one that could not be opened.

use std::rc::Rc;

use super::{Current, Key, Session, Udp};
use crate::front::moment::Moment;
use crate::observe::outcome::{End, Outcome, Relay};
use crate::sys::{Address, ConnectError, Errno};

/// Sessions that are ended before a yield: about a millisecond's work.
const DRAIN_BATCH: usize = 100;

impl Udp {
    /// Ends sessions that were silent for too long. Called once a tick.
    pub fn tick(&self) {
        let now = self.context.timers.now();
        loop {
            let idle = self.sessions.borrow_mut().pop_idle(now, self.idle_limits.get());
            let Some(session) = idle else { return };
            self.end(&session, End::Idle);
        }
    }

    /// Ends the session that is first to be evicted.
    pub(super) fn evict_one(&self) {
        self.end_oldest(1, End::Evicted);
    }

    /// Ends the sessions beyond a limit that a reload has lowered. Their sockets count until they
    /// are closed, so new clients would find none. Between two batches it serves its other tasks.
    pub(super) async fn end_excess(self: Rc<Self>) {
        while self.sessions.borrow().is_over() {
            for _ in 0..DRAIN_BATCH {
                if !self.sessions.borrow().is_over() {
                    return;
                }
                self.evict_one();
            }
            self.context.pool.yielder().yield_now().await;
        }
    }

    /// Ends a session without a reply whose endpoint cannot be reached. The client's next datagram
    /// goes to another endpoint.
    pub(super) fn end_refused(&self, session: &Session, errno: Errno) {
        let endpoint = &session.upstream.endpoint;
        session.current.cluster.refused_datagrams(endpoint, ConnectError::Refused(errno).into());
        session.tried.borrow_mut().failed.push(Rc::clone(&endpoint.address));
        self.sessions.borrow_mut().remove(&session.key);
        self.end(session, End::ConnectFailed);
    }

    /// Ends a session whose task has panicked: no replies would be forwarded any more.
    pub(super) fn end_panicked(&self, session: &Session) {
        // A session that has ended is not in the table, where the client may have another one.
        if !session.is_ended.get() {
            self.sessions.borrow_mut().remove(&session.key);
            self.end(session, End::Local);
        }
    }

    /// Closes the sockets and starts ending all sessions, because the worker drains. UDP has no end
    /// of a session, and another process cannot take over clients while a socket is bound.
    pub fn drain(self: &Rc<Self>) {
        // Ends the task that receives from the socket, which then closes it.
        self.sockets.take().iter().flatten().for_each(|socket| socket.stopped.set());
        monoio::spawn(Rc::clone(self).end_in_batches());
    }

    /// Ends the sessions of clients that send to sockets which were removed, by their places. There
    /// are no new ones.
    pub(super) async fn end_of_places(self: Rc<Self>, places: Vec<usize>) {
        let last = places.iter().max().map_or(0, |last| last + 1);
        let mut is_removed = vec![false; last];
        places.iter().for_each(|&place| is_removed[place] = true);
        let is_removed = |key: &Key| is_removed.get(key.socket) == Some(&true);
        let keys = self.sessions.borrow().keys_where(is_removed);
        for keys in keys.chunks(DRAIN_BATCH) {
            for key in keys {
                // It may have ended meanwhile.
                let session = self.sessions.borrow_mut().remove(key);
                session.iter().for_each(|session| self.end(session, End::Drain));
            }
            self.context.pool.yielder().yield_now().await;
        }
        self.free_places.borrow_mut().extend(places);
    }

    /// Returns true when the worker drains and all sessions have ended.
    pub fn is_drained(&self) -> bool {
        self.context.draining.get() && self.sessions.borrow().is_empty()
    }

    /// Ends all sessions of a worker that drains. Between two batches it serves its other tasks.
    async fn end_in_batches(self: Rc<Self>) {
        while self.end_oldest(DRAIN_BATCH, End::Drain) {
            self.context.pool.yielder().yield_now().await;
        }
    }

    /// Ends the remaining sessions at once, because the worker returns.
    pub fn end_rest(&self) {
        self.end_oldest(usize::MAX, End::Drain);
    }

    /// Ends up to `count` sessions, in the order in which they are evicted. Returns true when there
    /// may be more.
    fn end_oldest(&self, count: usize, end: End) -> bool {
        for _ in 0..count {
            let oldest = self.sessions.borrow_mut().pop_oldest();
            let Some(session) = oldest else { return false };
            self.end(&session, end);
        }
        true
    }

    /// Ends a session that has been removed from the table. Its task then closes its socket.
    fn end(&self, session: &Session, end: End) {
        session.is_ended.set(true);
        session.upstream.socket.end();
        self.has_closing_sockets.set(true);
        let mut outcome = Outcome {
            endpoint: Some(Rc::clone(&session.upstream.endpoint.address)),
            used: Some(Rc::clone(&session.upstream.endpoint.counters)),
            bytes_up: session.bytes_up.get(),
            bytes_down: session.bytes_down.get(),
            counted: [session.bytes_up.get(), session.bytes_down.get()],
            relay: Relay::Copy,
            ..Outcome::new(end)
        };
        session.tried.take().note(&mut outcome);
        session.current.record(&session.client, session.start, &outcome);
        session.current.listener.counters.sessions.end();
    }
}

impl Current {
    /// Counts an outcome and writes its access record.
    pub(super) fn record(&self, client: &Address, start: Moment, outcome: &Outcome) {
        self.listener.record(client, start, outcome, |record| {
            record.protocol = "udp";
            record.cluster = Some(self.cluster.name());
        });
    }
}
