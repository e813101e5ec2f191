//! Receives what clients send, and forwards it by session. Each socket of clients has a task for
//! it.

use std::net::IpAddr;
use std::rc::Rc;

use super::join::send_joined;
use super::{ClientSocket, Key, Udp};

impl Udp {
    /// Stops receiving what clients send. Sessions go on: their replies are sent.
    pub fn pause(&self) {
        self.sockets.borrow().iter().flatten().for_each(|socket| socket.stopped.set());
    }

    /// Receives what clients send, from the start or after a pause.
    pub(super) fn resume(self: &Rc<Self>) {
        self.has_begun.set(true);
        for (index, socket) in self.sockets.borrow().iter().enumerate() {
            if let Some(socket) = socket {
                self.receive_from(index, socket);
            }
        }
    }

    /// The same for one socket.
    pub(super) fn receive_from(self: &Rc<Self>, index: usize, socket: &Rc<ClientSocket>) {
        socket.stopped.clear();
        // After a short pause the task may still be there.
        if !socket.has_task.replace(true) {
            monoio::spawn(Rc::clone(self).receive(index, Rc::clone(socket)));
        }
    }

    /// Receives what clients send to one socket, until that is stopped.
    async fn receive(self: Rc<Self>, index: usize, client: Rc<ClientSocket>) {
        let yielder = self.context.pool.yielder();
        let ClientSocket { socket, stopped, has_task, .. } = &*client;
        loop {
            if stopped.unless_set(socket.readable()).await.is_none() {
                has_task.set(false);
                return;
            }
            // An error is about a datagram that was sent earlier (ICMP). Reporting it clears it.
            let received = socket.receive(&mut self.buffers.batch.borrow_mut());
            if received.is_ok() {
                self.forward_batch(index);
            }
            // Yield also after sessions have ended, so that their tasks close the sockets.
            if yielder.should_yield() || self.has_closing_sockets.replace(false) {
                yielder.yield_now().await;
            }
        }
    }

    /// Forwards what was received from clients.
    fn forward_batch(self: &Rc<Self>, socket: usize) {
        let batch = self.buffers.batch.borrow();
        // Nothing can be sent to port 0, so there could be no reply.
        let valid = batch.iter().filter(|received| received.from.port() != 0);
        let items = valid.map(|received| {
            let local = received.to.filter(can_send_from);
            let key = Key { client: received.from, socket, local };
            (key, received.bytes, received.segment)
        });
        send_joined(items, &mut self.buffers.joined.borrow_mut(), |key, bytes, segment| {
            self.send_to_endpoint(&key, bytes, segment);
        });
    }
}

/// Returns false for multicast and broadcast addresses, which cannot be source addresses.
fn can_send_from(local: &IpAddr) -> bool {
    let broadcast = matches!(local, IpAddr::V4(v4) if v4.is_broadcast());
    !local.is_multicast() && !broadcast
}
