//! The datagrams of a session: from the client to the endpoint, and replies on their way back.
//!
//! When an endpoint refuses a datagram (ICMP), the kernel reports it to the next call on the
//! socket. This error ends a session without a reply, and the client's datagrams go to the next
//! endpoint. A session with a reply keeps its endpoint, which may just be starting again.

use std::rc::Rc;

use super::join::send_joined;
use super::{Key, Session, Udp};
use crate::observe::live::Direction;
use crate::sys::is_unreachable;

impl Udp {
    /// Sends datagrams of one client to its endpoint. If the endpoint has refused earlier ones, and
    /// has never replied, what was not sent goes to the next endpoint.
    pub(super) fn send_to_endpoint(self: &Rc<Self>, key: &Key, bytes: &[u8], segment: usize) {
        let Some(session) = self.session(key) else { return };
        if session.has_reply.get() {
            return self.send_with_retry(&session, bytes, segment);
        }
        let upstream = &session.upstream;
        match upstream.socket.try_send(upstream.address, None, bytes, segment) {
            Ok(lost) => session.count_sent(Direction::Up, bytes.len(), lost * segment),
            Err(refusal) => {
                let tried = bytes.len() - refusal.rest.len();
                session.count_sent(Direction::Up, tried, refusal.lost * segment);
                self.end_refused(&session, refusal.errno);
                if let Some(next) = self.session(key) {
                    self.send_with_retry(&next, refusal.rest, segment);
                }
            }
        }
    }

    /// Sends datagrams to the endpoint of a session. A datagram whose send returns an error about
    /// an earlier one is sent a second time.
    fn send_with_retry(&self, session: &Session, bytes: &[u8], segment: usize) {
        let upstream = &session.upstream;
        let (lost, error) = upstream.socket.send(upstream.address, None, bytes, segment);
        session.count_sent(Direction::Up, bytes.len(), lost * segment);
        if let Some(errno) = error
            && !session.has_reply.get()
        {
            self.end_refused(session, errno);
        }
    }

    /// Receives replies and sends them to the client, until the session ends.
    pub(super) async fn forward_replies(self: Rc<Self>, session: Rc<Session>) {
        let yielder = self.context.pool.yielder();
        loop {
            session.upstream.socket.readable().await;
            if session.is_ended.get() {
                return;
            }
            let received = session.upstream.socket.receive(&mut self.buffers.batch.borrow_mut());
            match received {
                Ok(_) => self.send_to_client(&session),
                Err(errno) if is_unreachable(errno) && !session.has_reply.get() => {
                    return self.end_refused(&session, errno);
                }
                Err(_) => {}
            }
            if yielder.should_yield() {
                yielder.yield_now().await;
            }
        }
    }

    /// Sends the replies that were just received to the client.
    fn send_to_client(&self, session: &Session) {
        let Key { client, socket, local } = session.key;
        session.has_reply.set(true);
        self.sessions.borrow_mut().mark_replied(&session.key, self.context.timers.now());
        let sockets = self.sockets.borrow();
        // `None` if the worker drains: this session is about to end.
        let Some(Some(socket)) = sockets.get(socket) else { return };
        let batch = self.buffers.batch.borrow();
        let items = batch.iter().map(|received| ((), received.bytes, received.segment));
        send_joined(items, &mut self.buffers.joined.borrow_mut(), |(), bytes, segment| {
            // A socket that serves many peers does not report the errors of one of them.
            let (lost, _) = socket.socket.send(client, local, bytes, segment);
            session.count_sent(Direction::Down, bytes.len(), lost * segment);
        });
    }
}

impl Session {
    /// Adds the bytes that were sent. `lost` is too large if a shorter last datagram was lost, so
    /// the subtraction saturates.
    fn count_sent(&self, direction: Direction, bytes: usize, lost: usize) {
        let sent = bytes.saturating_sub(lost) as u64;
        let count = match direction {
            Direction::Up => &self.bytes_up,
            Direction::Down => &self.bytes_down,
        };
        count.set(count.get() + sent);
        self.current.listener.counters.count_bytes(direction, sent);
    }
}
