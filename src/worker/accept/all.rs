//! All acceptors of a worker, and what a reload changes of them.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::TcpListener as StdListener;
use std::rc::Rc;
use std::sync::Arc;

use super::super::balance::{Balance, HandedOver, Inbox};
use super::super::{Running, Socket};
use super::{Acceptor, serve};
use crate::config::Driver;
use crate::front::Context;
use crate::sys::Stream;

/// Sockets that are started or stopped before a yield: less than a millisecond's work.
const IN_A_ROW: usize = 16;

/// The acceptors of a worker.
pub(in crate::worker) struct Acceptors {
    context: Rc<Context>,
    balance: Rc<Balance>,
    is_ring: bool,
    /// Whether they may accept. Set by the first [`Acceptors::resume`].
    has_begun: bool,
    all: Vec<Rc<Acceptor>>,
    /// Whether some of them are stopped.
    some_stop: bool,
}

impl Acceptors {
    /// Begins to serve the connections that other workers hand over. There are no acceptors yet.
    ///
    /// # Errors
    /// The runtime cannot use the socket pair that wakes the worker.
    pub(in crate::worker) fn start(
        context: &Rc<Context>,
        balance: Balance,
        inbox: Inbox,
        running: Running,
    ) -> io::Result<Acceptors> {
        let inbox_context = Rc::clone(context);
        inbox.open(move |conn| {
            let HandedOver { listener, fd, address, permit } = conn;
            let listener = inbox_context.generation.borrow().listener_by_id(listener).cloned();
            serve(&inbox_context, listener.as_ref(), Stream::from_fd(fd), address, permit);
        })?;
        let is_ring = running.driver == Driver::IoUring;
        let (context, balance) = (Rc::clone(context), Rc::new(balance));
        Ok(Acceptors {
            context,
            balance,
            is_ring,
            has_begun: false,
            all: Vec::new(),
            some_stop: false,
        })
    }

    /// Those that accept, and those that are stopped and not closed yet.
    pub(in crate::worker) fn iter(&self) -> impl Iterator<Item = &Rc<Acceptor>> {
        self.all.iter()
    }

    /// Forgets those that are closed. Each keeps its listener, which must end with its last
    /// connection. Called once a tick.
    pub(in crate::worker) fn sweep(&mut self) {
        if self.some_stop {
            self.all.retain(|acceptor| !acceptor.is_closed());
            self.some_stop = self.all.iter().any(|acceptor| acceptor.is_stopping());
        }
    }

    /// Accepts, from the start or after a pause.
    pub(in crate::worker) fn resume(&mut self) {
        self.has_begun = true;
        // An error is that of fcntl(2), which does not happen on an open socket.
        self.all.iter().for_each(|acceptor| drop(acceptor.resume()));
    }

    /// Gives the sockets that stay the listeners of a new configuration, by name. Those that are
    /// not in the list go, and serve what waits in them by the listener that they had. Other
    /// workers may not know the new listeners yet, so nothing is handed over until
    /// [`Acceptors::apply`].
    pub(in crate::worker) fn rename(&self, kept: &[(Arc<StdListener>, Arc<str>)]) {
        self.balance.hold(true);
        let names: HashMap<_, _> =
            kept.iter().map(|(socket, name)| (Arc::as_ptr(socket), name)).collect();
        let generation = self.context.generation.borrow();
        for acceptor in &self.all {
            let name = acceptor.socket().and_then(|socket| names.get(&socket).copied());
            if let Some(listener) = name.and_then(|name| generation.listener(name)) {
                acceptor.listener.replace(Rc::clone(listener));
            }
        }
    }

    /// Accepts from these sockets and no others. Those that are there already keep their accepts in
    /// flight. New ones get `accepts` of them, after the first [`Acceptors::resume`]. Between some
    /// sockets and the next ones the other tasks of the worker run.
    ///
    /// # Errors
    /// The runtime cannot use a socket. The others are served.
    pub(in crate::worker) async fn apply(
        &mut self,
        sockets: Vec<Socket>,
        accepts: usize,
    ) -> io::Result<()> {
        self.balance.hold(false);
        let wanted: HashSet<_> = sockets.iter().map(|one| Arc::as_ptr(&one.socket)).collect();
        let mut known = HashSet::new();
        let mut count = 0;
        for acceptor in &self.all {
            match acceptor.socket().filter(|socket| wanted.contains(socket)) {
                Some(socket) => drop(known.insert(socket)),
                None => {
                    self.some_stop = true;
                    acceptor.stop();
                    self.yield_after(&mut count).await;
                }
            }
        }
        let in_flight = if self.is_ring { accepts } else { 0 };
        let mut result = Ok(());
        for socket in sockets {
            if known.contains(&Arc::as_ptr(&socket.socket)) {
                continue;
            }
            let listener = self.context.generation.borrow().listener(&socket.listener).cloned();
            let Some(listener) = listener else { continue };
            let (context, balance) = (&self.context, &self.balance);
            match Acceptor::new(context, balance, listener, socket, in_flight) {
                Ok(acceptor) => {
                    if self.has_begun {
                        result = result.and(acceptor.resume());
                    }
                    self.all.push(acceptor);
                }
                Err(error) => result = Err(error),
            }
            self.yield_after(&mut count).await;
        }
        result
    }

    /// Lets the other tasks run after each [`IN_A_ROW`] sockets.
    async fn yield_after(&self, count: &mut usize) {
        *count += 1;
        if (*count).is_multiple_of(IN_A_ROW) {
            self.context.pool.yielder().yield_now().await;
        }
    }
}
