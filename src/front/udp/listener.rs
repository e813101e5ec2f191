//! The UDP listeners of a worker, and what a reload changes of them.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::UdpSocket as StdSocket;
use std::rc::Rc;
use std::sync::Arc;

use super::quota::{SocketQuota, max_sessions_of_worker, socket_quotas};
use super::table::{IdleLimits, Table};
use super::{Buffers, ClientSocket, Current, NO_REPLY_TIMEOUT, Udp};
use crate::config;
use crate::front::context::Context;
use crate::front::listener::Listener;
use crate::front::service::Service;
use crate::sched::StopFlag;
use crate::sys::{Batch, Connected, Shares, UdpSocket};
use crate::timers::ticks;

/// The UDP listeners of one worker.
pub struct UdpListeners {
    context: Rc<Context>,
    workers: usize,
    /// `None` before the first socket: a batch takes 2 MiB, and workers without UDP need none.
    tools: Option<Tools>,
    /// Whether they may receive. Set by the first [`UdpListeners::resume`].
    has_begun: bool,
    all: Vec<Rc<Udp>>,
}

/// What all listeners of a worker share.
struct Tools {
    buffers: Rc<Buffers>,
    connected: Rc<Connected>,
}

/// A listener, and the sockets that it is to have.
struct Wanted {
    listener: Rc<Listener>,
    service: Rc<Service>,
    sockets: Vec<Arc<StdSocket>>,
}

impl UdpListeners {
    /// Makes the listeners of one of `workers` workers; none so far.
    pub fn new(context: &Rc<Context>, workers: usize) -> UdpListeners {
        let (context, all) = (Rc::clone(context), Vec::new());
        UdpListeners { context, workers, tools: None, has_begun: false, all }
    }

    /// All listeners.
    pub fn iter(&self) -> impl Iterator<Item = &Rc<Udp>> {
        self.all.iter()
    }

    /// Receives what clients send, from the start or after a pause.
    pub fn resume(&mut self) {
        self.has_begun = true;
        self.all.iter().for_each(Udp::resume);
    }

    /// Serves these sockets from now on, each by the listener with its name. All sessions together
    /// get [`Shares::sessions`] descriptors. A socket that is served already keeps its sessions,
    /// whatever the name of its listener was; the sessions of one that is not in the list end.
    /// Nothing is received before the first [`UdpListeners::resume`].
    ///
    /// # Errors
    /// The runtime or the kernel refuses a socket. Sockets before it are served.
    pub fn apply(
        &mut self,
        sockets: Vec<(Arc<str>, Arc<StdSocket>)>,
        shares: &Shares,
    ) -> io::Result<()> {
        let wanted = self.by_listener(sockets);
        let max_sessions = wanted.iter().filter_map(|wanted| wanted.service.udp());
        let max_sessions = max_sessions.map(|config| max_sessions_of_worker(config, self.workers));
        let quotas = socket_quotas(shares.sessions, &max_sessions.collect::<Vec<_>>());
        // First of all, so that a socket that goes to another listener has no other task.
        let is_wanted = |socket: &Arc<StdSocket>| {
            let listeners = |udp: &Rc<Udp>| wanted.iter().find(|wanted| udp.has_any(wanted));
            let mut owners = self.all.iter().filter(|udp| udp.has(socket));
            let goes_to = owners.next().and_then(listeners);
            goes_to.is_some_and(|wanted| contains(&wanted.sockets, socket))
        };
        self.all.iter().for_each(|udp| udp.retain(is_wanted));
        let mut before = std::mem::take(&mut self.all);
        let mut result = Ok(());
        for (wanted, quota) in wanted.into_iter().zip(quotas) {
            let kept = before.iter().position(|udp| udp.has_any(&wanted));
            let udp = match kept {
                Some(position) => Ok(before.swap_remove(position)),
                None => self.make(&wanted, &quota),
            };
            let applied = udp.and_then(|udp| {
                let applied = udp.apply(wanted, quota);
                if self.has_begun {
                    udp.resume();
                }
                self.all.push(udp);
                applied
            });
            result = result.and(applied);
        }
        before.iter().for_each(Udp::drain);
        result
    }

    /// Groups sockets by their listener.
    fn by_listener(&self, sockets: Vec<(Arc<str>, Arc<StdSocket>)>) -> Vec<Wanted> {
        let generation = self.context.generation.borrow();
        let mut all: Vec<Wanted> = Vec::new();
        for (name, socket) in sockets {
            let Some(listener) = generation.listener(&name) else { continue };
            let service = listener.service().filter(|service| service.udp().is_some());
            let Some(service) = service else { continue };
            match all.iter_mut().find(|wanted| Rc::ptr_eq(&wanted.listener, listener)) {
                Some(wanted) => wanted.sockets.push(socket),
                None => {
                    let (listener, sockets) = (Rc::clone(listener), vec![socket]);
                    all.push(Wanted { listener, service, sockets });
                }
            }
        }
        all
    }

    /// Makes a listener without sockets.
    fn make(&mut self, wanted: &Wanted, quota: &SocketQuota) -> io::Result<Rc<Udp>> {
        let tools = match &mut self.tools {
            Some(tools) => tools,
            none => none.insert(Tools::start()?),
        };
        Ok(Rc::new(Udp {
            context: Rc::clone(&self.context),
            current: RefCell::new(wanted.current()),
            idle_limits: Cell::new(wanted.idle_limits()),
            sockets: RefCell::default(),
            free_places: RefCell::default(),
            sessions: RefCell::new(Table::new(quota.max_sessions())),
            quota: RefCell::new(SocketQuota::default()),
            has_closing_sockets: Cell::new(false),
            buffers: Rc::clone(&tools.buffers),
            connected: Rc::clone(&tools.connected),
        }))
    }
}

impl Tools {
    fn start() -> io::Result<Tools> {
        let batch = RefCell::new(Batch::new());
        let buffers = Rc::new(Buffers { batch, joined: RefCell::default() });
        Ok(Tools { buffers, connected: Rc::new(Connected::start()?) })
    }
}

impl Wanted {
    fn config(&self) -> &config::Udp {
        self.service.udp().expect("only listeners of UDP are wanted")
    }

    fn current(&self) -> Current {
        let cluster = Rc::clone(self.service.cluster(&self.config().cluster));
        Current { listener: Rc::clone(&self.listener), cluster }
    }

    fn idle_limits(&self) -> IdleLimits {
        let idle_timeout = self.config().idle_timeout;
        IdleLimits {
            no_reply: ticks(idle_timeout.min(NO_REPLY_TIMEOUT)),
            replied: ticks(idle_timeout),
        }
    }
}

impl Udp {
    /// Takes over what is wanted. Sessions go on as they have begun.
    fn apply(self: &Rc<Self>, wanted: Wanted, quota: SocketQuota) -> io::Result<()> {
        self.current.replace(wanted.current());
        self.idle_limits.set(wanted.idle_limits());
        self.sessions.borrow_mut().set_max(quota.max_sessions());
        let quota = self.quota.borrow().replaced_by(quota);
        self.quota.replace(quota);
        if self.sessions.borrow().is_over() {
            monoio::spawn(Rc::clone(self).end_excess());
        }
        let mut result = Ok(());
        for socket in wanted.sockets {
            if self.has(&socket) {
                continue;
            }
            match ClientSocket::new(socket) {
                Ok(socket) => self.place(socket),
                Err(error) => result = Err(error),
            }
        }
        result
    }

    /// Adds a socket.
    fn place(&self, socket: Rc<ClientSocket>) {
        let mut sockets = self.sockets.borrow_mut();
        match self.free_places.borrow_mut().pop() {
            Some(free) => sockets[free] = Some(socket),
            None => sockets.push(Some(socket)),
        }
    }

    fn has(&self, socket: &Arc<StdSocket>) -> bool {
        let sockets = self.sockets.borrow();
        sockets.iter().flatten().any(|own| Arc::ptr_eq(&own.shared, socket))
    }

    fn has_any(&self, wanted: &Wanted) -> bool {
        wanted.sockets.iter().any(|socket| self.has(socket))
    }

    /// Closes the sockets that are not wanted any more, and ends their sessions.
    fn retain(self: &Rc<Self>, is_wanted: impl Fn(&Arc<StdSocket>) -> bool) {
        let sockets = self.sockets.borrow().clone();
        for (place, socket) in sockets.iter().enumerate() {
            if let Some(socket) = socket.as_ref().filter(|socket| !is_wanted(&socket.shared)) {
                self.sockets.borrow_mut()[place] = None;
                // Ends the task that receives from the socket, which then closes it.
                socket.stopped.set();
                monoio::spawn(Rc::clone(self).end_of_socket(place));
            }
        }
    }
}

impl ClientSocket {
    fn new(shared: Arc<StdSocket>) -> io::Result<Rc<ClientSocket>> {
        // The runtime closes its own duplicate.
        let socket = UdpSocket::bound(shared.try_clone()?)?;
        let (stopped, has_task) = (StopFlag::default(), Cell::new(false));
        Ok(Rc::new(ClientSocket { socket, shared, stopped, has_task }))
    }
}

fn contains(sockets: &[Arc<StdSocket>], socket: &Arc<StdSocket>) -> bool {
    sockets.iter().any(|one| Arc::ptr_eq(one, socket))
}
