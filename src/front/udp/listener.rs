//! The UDP listeners of a worker, and what a reload changes of them.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
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
use crate::sys::{Batch, Connected, Offload, Shares, SpareDescriptor, UdpSocket};
use crate::timers::ticks;

/// Sockets that are started or stopped before a yield: less than a millisecond's work.
const IN_A_ROW: usize = 16;

/// A UDP socket of one worker.
#[derive(Clone)]
pub struct Datagrams {
    /// The name of the listener.
    pub listener: Arc<str>,
    /// Bound. Other processes may have it, too.
    pub socket: Arc<StdSocket>,
    /// For the runtime. Empty if the worker has the socket already.
    pub spare: SpareDescriptor,
    /// The offload of the socket. The worker makes it if it is `None` and the socket is new.
    pub offload: Option<Arc<Offload>>,
}

/// The UDP listeners of one worker.
pub struct UdpListeners {
    context: Rc<Context>,
    workers: usize,
    /// `None` before the first listener: a batch takes 2 MiB, and workers without UDP need none.
    buffers: Option<Rc<Buffers>>,
    /// Whether they may receive. Set by the first [`UdpListeners::resume`].
    has_begun: bool,
    connected: Rc<Connected>,
    all: Vec<Rc<Udp>>,
}

/// A listener, and the sockets that it is to have.
struct Wanted {
    listener: Rc<Listener>,
    service: Rc<Service>,
    sockets: Vec<Datagrams>,
}

/// Sockets that go to another listener, with their descriptors.
type Moved = HashMap<*const StdSocket, Rc<UdpSocket>>;

/// To which listener each socket goes, by its position.
type GoesTo = HashMap<*const StdSocket, usize>;

impl UdpListeners {
    /// Makes the listeners of one of `workers` workers; none so far. Must be called on the worker's
    /// thread, inside its runtime.
    ///
    /// # Errors
    /// As [`Connected::start`].
    pub fn start(context: &Rc<Context>, workers: usize) -> io::Result<UdpListeners> {
        let (context, connected) = (Rc::clone(context), Rc::new(Connected::start()?));
        let (buffers, all) = (None, Vec::new());
        Ok(UdpListeners { context, workers, buffers, has_begun: false, connected, all })
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
    /// Between some sockets and the next ones the other tasks of the worker run. Nothing is
    /// received before the first [`UdpListeners::resume`].
    ///
    /// # Errors
    /// The runtime or the kernel refuses a socket. The others are served.
    pub async fn apply(&mut self, sockets: Vec<Datagrams>, shares: &Shares) -> io::Result<()> {
        let wanted = self.by_listener(sockets);
        let max_sessions = wanted.iter().filter_map(|wanted| wanted.service.udp());
        let max_sessions = max_sessions.map(|config| max_sessions_of_worker(config, self.workers));
        let quotas = socket_quotas(shares.sessions, &max_sessions.collect::<Vec<_>>());

        // 1. A listener goes on as the first one that gets any of its sockets.
        let sockets = wanted.iter().enumerate();
        let goes_to: GoesTo = sockets
            .flat_map(|(index, wanted)| wanted.sockets.iter().map(move |one| (one.key(), index)))
            .collect();
        let mut going_on: HashMap<usize, Rc<Udp>> = HashMap::new();
        let mut ending = Vec::new();
        for udp in std::mem::take(&mut self.all) {
            match udp.own_sockets().iter().filter_map(|key| goes_to.get(key)).min() {
                Some(&index) if !going_on.contains_key(&index) => {
                    going_on.insert(index, udp);
                }
                _ => ending.push(udp),
            }
        }

        // 2. Sockets that a listener does not keep. They come first, so that one that goes to
        // another listener has no other task.
        let mut moved = Moved::new();
        for (&index, udp) in &going_on {
            udp.retain(Some(index), &goes_to, &mut moved).await;
        }
        for udp in &ending {
            udp.retain(None, &goes_to, &mut moved).await;
            udp.drain();
        }

        // 3. New sockets.
        let mut result = Ok(());
        for (index, (wanted, quota)) in wanted.into_iter().zip(quotas).enumerate() {
            let udp = match going_on.remove(&index) {
                Some(udp) => udp,
                None => self.make(&wanted, &quota),
            };
            self.all.push(Rc::clone(&udp));
            let applied = udp.apply(wanted, quota, &mut moved).await;
            if self.has_begun {
                udp.resume();
            }
            result = result.and(applied);
        }
        result
    }

    /// Groups sockets by their listener.
    fn by_listener(&self, sockets: Vec<Datagrams>) -> Vec<Wanted> {
        let generation = self.context.generation.borrow();
        let mut all: Vec<Wanted> = Vec::new();
        let mut places: HashMap<*const Listener, usize> = HashMap::new();
        for socket in sockets {
            let Some(listener) = generation.listener(&socket.listener) else { continue };
            if let Some(&place) = places.get(&Rc::as_ptr(listener)) {
                all[place].sockets.push(socket);
                continue;
            }
            let service = listener.service().filter(|service| service.udp().is_some());
            let Some(service) = service else { continue };
            places.insert(Rc::as_ptr(listener), all.len());
            all.push(Wanted { listener: Rc::clone(listener), service, sockets: vec![socket] });
        }
        all
    }

    /// Makes a listener without sockets.
    fn make(&mut self, wanted: &Wanted, quota: &SocketQuota) -> Rc<Udp> {
        let buffers = self.buffers.get_or_insert_with(|| {
            let batch = RefCell::new(Batch::new());
            Rc::new(Buffers { batch, joined: RefCell::default() })
        });
        Rc::new(Udp {
            context: Rc::clone(&self.context),
            current: RefCell::new(wanted.current()),
            idle_limits: Cell::new(wanted.idle_limits()),
            sockets: RefCell::default(),
            free_places: RefCell::default(),
            has_begun: Cell::default(),
            sessions: RefCell::new(Table::new(quota.max_sessions())),
            quota: RefCell::new(SocketQuota::default()),
            has_closing_sockets: Cell::new(false),
            buffers: Rc::clone(buffers),
            connected: Rc::clone(&self.connected),
        })
    }
}

impl Datagrams {
    /// What identifies the socket.
    fn key(&self) -> *const StdSocket {
        Arc::as_ptr(&self.socket)
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
    async fn apply(
        self: &Rc<Self>,
        wanted: Wanted,
        quota: SocketQuota,
        moved: &mut Moved,
    ) -> io::Result<()> {
        self.current.replace(wanted.current());
        self.idle_limits.set(wanted.idle_limits());
        self.sessions.borrow_mut().set_max(quota.max_sessions());
        let quota = self.quota.borrow().replaced_by(quota);
        self.quota.replace(quota);
        if self.sessions.borrow().is_over() {
            monoio::spawn(Rc::clone(self).end_excess());
        }
        let own = self.own_sockets();
        let new = wanted.sockets.into_iter().filter(|socket| !own.contains(&socket.key()));
        let mut result = Ok(());
        for (count, socket) in new.enumerate() {
            match ClientSocket::new(socket, moved) {
                Ok(socket) => self.place(socket),
                Err(error) => result = Err(error),
            }
            self.yield_after(count).await;
        }
        result
    }

    /// Lets the other tasks run after each [`IN_A_ROW`] sockets.
    async fn yield_after(&self, count: usize) {
        if count % IN_A_ROW == IN_A_ROW - 1 {
            self.context.pool.yielder().yield_now().await;
        }
    }

    /// Adds a socket. Receives from it if this listener has begun to receive.
    fn place(self: &Rc<Self>, socket: Rc<ClientSocket>) {
        let mut sockets = self.sockets.borrow_mut();
        let place = match self.free_places.borrow_mut().pop() {
            Some(free) => free,
            None => {
                sockets.push(None);
                sockets.len() - 1
            }
        };
        if self.has_begun.get() {
            self.receive_from(place, &socket);
        }
        sockets[place] = Some(socket);
    }

    /// What identifies its sockets.
    fn own_sockets(&self) -> HashSet<*const StdSocket> {
        self.sockets.borrow().iter().flatten().map(|own| Arc::as_ptr(&own.shared)).collect()
    }

    /// Keeps the sockets that go to the listener at this position. Closes the others, unless they
    /// are moved, and ends their sessions.
    async fn retain(self: &Rc<Self>, own: Option<usize>, goes_to: &GoesTo, moved: &mut Moved) {
        let mut removed = Vec::new();
        for (place, socket) in self.sockets.borrow_mut().iter_mut().enumerate() {
            let Some(key) = socket.as_ref().map(|socket| Arc::as_ptr(&socket.shared)) else {
                continue;
            };
            let next = goes_to.get(&key).copied();
            if next.is_some() && next == own {
                continue;
            }
            if let Some(socket) = socket.take() {
                if next.is_some() {
                    moved.insert(key, Rc::clone(&socket.socket));
                }
                removed.push((place, socket));
            }
        }
        if removed.is_empty() {
            return;
        }
        let places = removed.iter().map(|(place, _)| *place).collect();
        for (count, (_, socket)) in removed.into_iter().enumerate() {
            // Ends the task that receives from the socket, which then closes it.
            socket.stopped.set();
            drop(socket);
            self.yield_after(count).await;
        }
        monoio::spawn(Rc::clone(self).end_of_places(places));
    }
}

impl ClientSocket {
    fn new(datagrams: Datagrams, moved: &mut Moved) -> io::Result<Rc<ClientSocket>> {
        let socket = match moved.remove(&datagrams.key()) {
            Some(socket) => socket,
            None => {
                let offload = match datagrams.offload {
                    Some(offload) => offload,
                    None => Offload::of(&datagrams.socket)?,
                };
                let own = datagrams.spare.take(&*datagrams.socket)?;
                Rc::new(UdpSocket::bound(own.into(), offload)?)
            }
        };
        let (stopped, has_task) = (StopFlag::default(), Cell::new(false));
        Ok(Rc::new(ClientSocket { socket, shared: datagrams.socket, stopped, has_task }))
    }
}
