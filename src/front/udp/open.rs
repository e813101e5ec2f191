//! Opens sessions: connects a socket to the next endpoint of the round robin.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::{Key, Session, Udp, Upstream};
use crate::cluster::{Candidates, InUse};
use crate::front::moment::Moment;
use crate::observe::outcome::{End, Outcome};
use crate::sched::catch_panic;
use crate::sys::{Address, ConnectError, Errno, UdpSocket};

impl Udp {
    /// Returns the session of a client and marks it as used, or opens a new one. `None` if none can
    /// be opened.
    pub(super) fn session(self: &Rc<Self>, key: &Key) -> Option<Rc<Session>> {
        let now = self.context.timers.now();
        if let Some(session) = self.sessions.borrow_mut().touch(key, now) {
            return Some(Rc::clone(session));
        }
        if self.context.draining.get() {
            return None;
        }
        self.open(key, now)
    }

    /// Opens a session and starts the task that forwards its replies.
    fn open(self: &Rc<Self>, key: &Key, now: u32) -> Option<Rc<Session>> {
        let (client, start) = (Address::Ip(key.client), Moment::now());
        let current = self.current.borrow().clone();
        let mut candidates = current.cluster.candidates_for_session();
        let upstream = match self.connect(&mut candidates) {
            Ok(upstream) => upstream,
            Err(end) => {
                let tried = candidates.given_up();
                let mut outcome = Outcome::new(end);
                outcome.endpoint = tried.last.clone();
                tried.note(&mut outcome);
                current.record(&client, start, &outcome);
                return None;
            }
        };
        let session = Rc::new(Session {
            key: *key,
            client,
            upstream,
            tried: RefCell::new(candidates.connected()),
            current: current.clone(),
            start,
            bytes_up: Cell::new(0),
            bytes_down: Cell::new(0),
            has_reply: Cell::new(false),
            is_ended: Cell::new(false),
        });
        // Only after connecting: a session that cannot be opened must not evict another.
        // More than one if a reload has lowered the limit.
        while self.sessions.borrow().is_full() {
            self.evict_one();
        }
        self.sessions.borrow_mut().insert(*key, Rc::clone(&session), now);
        session.current.listener.counters.sessions.begin();
        let (udp, forwarded) = (Rc::clone(self), Rc::clone(&session));
        monoio::spawn(async move {
            let forwarding = Rc::clone(&udp).forward_replies(Rc::clone(&forwarded));
            if catch_panic(forwarding).await.is_err() {
                udp.end_panicked(&forwarded);
            }
        });
        Some(session)
    }

    /// Connects a socket to the next candidate. If that fails, the following one is tried without a
    /// wait, so that the session's first datagram is not lost. The error goes into the record.
    fn connect(&self, candidates: &mut Candidates<'_>) -> Result<Upstream, End> {
        // Sockets of ended sessions that are still open may use the quota up. With so many new
        // clients at one time, the datagrams of some are dropped.
        let permit = self.quota.borrow().acquire();
        let Some(permit) = permit else {
            // Of a limit that was lowered only a part may have been given back by now.
            if self.sessions.borrow().is_over() {
                self.evict_one();
            }
            return Err(End::Local);
        };
        let mut end = End::NoEndpoint;
        while let Some(endpoint) = candidates.next() {
            // The configuration refuses endpoints with a path.
            let Address::Ip(address) = *endpoint.address else { break };
            let error = match UdpSocket::connected(address, &self.connected) {
                Ok(socket) => {
                    let endpoint = InUse::new(endpoint);
                    return Ok(Upstream { socket, address, endpoint, _permit: permit });
                }
                Err(error) => error,
            };
            candidates.failed(&endpoint, error.into());
            if let ConnectError::Local(errno) = error {
                self.lacks_socket(errno);
                return Err(End::Local);
            }
            end = End::ConnectFailed;
        }
        Err(end)
    }

    /// Called when no socket can be made for a new session: one session is evicted, as when
    /// the table is full, so that the next datagram finds a socket.
    fn lacks_socket(&self, errno: Errno) {
        self.context.shortage.no_socket(errno);
        self.context.shortage.dropped();
        if !self.has_closing_sockets.get() {
            self.evict_one();
        }
    }
}
