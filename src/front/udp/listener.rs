//! The UDP listeners of a worker. Each of their sockets has a task that receives what clients send
//! and forwards it by session.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, UdpSocket as StdSocket};
use std::rc::Rc;
use std::sync::Arc;

use super::join::send_joined;
use super::quota::{SocketQuota, max_sessions_of_worker, socket_quotas};
use super::table::{IdleLimits, Table};
use super::{Buffers, ClientSocket, Key, NO_REPLY_TIMEOUT, Udp};
use crate::front::context::Context;
use crate::front::generation::Generation;
use crate::front::listener::Listener;
use crate::front::service::Service;
use crate::sched::StopFlag;
use crate::sys::{Batch, Connected, Shares, UdpSocket};
use crate::timers::ticks;

/// A listener with its sockets, before it starts.
struct Bound {
    listener: Rc<Listener>,
    service: Rc<Service>,
    sockets: Vec<UdpSocket>,
}

/// Starts serving the UDP sockets of a worker. Each comes with the name of its listener. All
/// their sessions together get [`Shares::sessions`] descriptors.
///
/// # Errors
/// The runtime or the kernel refuses a socket.
pub fn start_udp(
    context: &Rc<Context>,
    sockets: Vec<(Arc<str>, Arc<StdSocket>)>,
    workers: usize,
    shares: &Shares,
) -> io::Result<Vec<Rc<Udp>>> {
    // The batch takes 2 MiB, and workers without UDP do not need it.
    if sockets.is_empty() {
        return Ok(Vec::new());
    }
    let batch = RefCell::new(Batch::new());
    let buffers = Rc::new(Buffers { batch, joined: RefCell::default() });
    let connected = Rc::new(Connected::start()?);
    let generation = context.generation.borrow();
    let bound = by_listener(&generation, sockets)?;
    let max_sessions = bound.iter().filter_map(|bound| bound.service.udp());
    let max_sessions = max_sessions.map(|config| max_sessions_of_worker(config, workers));
    let quotas = socket_quotas(shares.sessions, &max_sessions.collect::<Vec<_>>());
    let start = |(bound, quota)| Udp::start(context, bound, quota, &buffers, &connected);
    Ok(bound.into_iter().zip(quotas).filter_map(start).collect())
}

/// Groups sockets by their listener.
fn by_listener(
    generation: &Generation,
    sockets: Vec<(Arc<str>, Arc<StdSocket>)>,
) -> io::Result<Vec<Bound>> {
    let mut all: Vec<Bound> = Vec::new();
    for (name, socket) in sockets {
        let Some(listener) = generation.listener(&name) else { continue };
        let Some(service) = listener.service().filter(|service| service.udp().is_some()) else {
            continue;
        };
        // The runtime closes its own duplicate.
        let socket = UdpSocket::bound(socket.try_clone()?)?;
        match all.iter_mut().find(|bound| Rc::ptr_eq(&bound.listener, listener)) {
            Some(bound) => bound.sockets.push(socket),
            None => {
                let (listener, sockets) = (Rc::clone(listener), vec![socket]);
                all.push(Bound { listener, service, sockets });
            }
        }
    }
    Ok(all)
}

impl Udp {
    fn start(
        context: &Rc<Context>,
        bound: Bound,
        quota: SocketQuota,
        buffers: &Rc<Buffers>,
        connected: &Rc<Connected>,
    ) -> Option<Rc<Udp>> {
        let Bound { listener, service, sockets } = bound;
        let config = service.udp()?;
        let idle_limits = IdleLimits {
            no_reply: ticks(config.idle_timeout.min(NO_REPLY_TIMEOUT)),
            replied: ticks(config.idle_timeout),
        };
        let udp = Rc::new(Udp {
            context: Rc::clone(context),
            listener,
            cluster: Rc::clone(service.cluster(&config.cluster)),
            idle_limits,
            sockets: RefCell::new(sockets.into_iter().map(ClientSocket::new).collect()),
            sessions: RefCell::new(Table::new(quota.max_sessions())),
            quota,
            has_closing_sockets: Cell::new(false),
            buffers: Rc::clone(buffers),
            connected: Rc::clone(connected),
        });
        udp.resume();
        Some(udp)
    }

    /// Stops receiving what clients send. Sessions go on: their replies are sent.
    pub fn pause(&self) {
        self.sockets.borrow().iter().for_each(|socket| socket.stopped.set());
    }

    /// Receives what clients send, from the start or after a pause.
    pub fn resume(self: &Rc<Self>) {
        for (index, socket) in self.sockets.borrow().iter().enumerate() {
            socket.stopped.clear();
            // After a short pause the task may still be there.
            if !socket.has_task.replace(true) {
                monoio::spawn(Rc::clone(self).receive(index, Rc::clone(socket)));
            }
        }
    }

    /// Receives what clients send to one socket, until that is stopped.
    async fn receive(self: Rc<Self>, index: usize, client: Rc<ClientSocket>) {
        let yielder = self.context.pool.yielder();
        let ClientSocket { socket, stopped, has_task } = &*client;
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

impl ClientSocket {
    fn new(socket: UdpSocket) -> Rc<ClientSocket> {
        let (stopped, has_task) = (StopFlag::default(), Cell::new(false));
        Rc::new(ClientSocket { socket, stopped, has_task })
    }
}

/// Returns false for multicast and broadcast addresses, which cannot be source addresses.
fn can_send_from(local: &IpAddr) -> bool {
    let broadcast = matches!(local, IpAddr::V4(v4) if v4.is_broadcast());
    !local.is_multicast() && !broadcast
}
