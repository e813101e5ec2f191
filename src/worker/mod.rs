//! A worker: one pinned thread with its own runtime, listeners and context. It takes no locks. It
//! shares counters, the configuration and Unix sockets with other workers, and hands connections
//! over to them. The
//! control plane sends it [`Command`]s, which it reads once a tick.

mod accept;
mod balance;
mod driver;
mod levels;
mod open;
mod pulse;

use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender};
use std::time::{Duration, Instant};

use core_affinity::CoreId;

use crate::cluster::Report;
use crate::error::{Error, chain};
pub use crate::front::Datagrams;
use crate::front::{
    Challenges, Context, LAST_REQUESTS, Layout, Origin, Shortage, Udp, UdpListeners,
};
use crate::observe::endpoints::Endpoints;
use crate::proto::tls::{Identity, TicketKeys};
use crate::relay::Pool;
use crate::sched::{BUDGET, Outbox, Yielder};
use crate::sys::{Shares, SpareDescriptor};
use crate::timers::{TICK, ticks};
use accept::Acceptors;
pub use balance::{Balance, Inbox};
pub use driver::{Plan, Running, Trial};
pub use levels::{Level, Levels};
pub use open::{Listed, Place, Question};
pub use pulse::{Life, Pulse};

/// The time for connections that were ended by force to write their records.
const RECORD_TIME: Duration = Duration::from_secs(1);
/// The time in which a client must send something if it was accepted before a drain and has sent
/// nothing yet.
const GRACE: Duration = Duration::from_secs(1);

/// The pause between two checks whether accepts are cancelled.
const CANCEL_PAUSE: Duration = Duration::from_millis(1);

/// A command of the control plane to a worker.
#[derive(Clone)]
pub enum Command {
    /// Sets the endpoints of a cluster.
    Endpoints {
        /// The name of the cluster.
        cluster: Arc<str>,
        /// All endpoints of the cluster.
        endpoints: Arc<Endpoints>,
    },
    /// Replaces an identity, in every rule that has it.
    Certificate {
        /// Where it comes from.
        origin: Origin,
        /// What is there now.
        identity: Identity,
    },
    /// Replaces the keys of session tickets.
    TicketKeys(Arc<TicketKeys>),
    /// Replaces the challenges of certificate authorities that are answered.
    Challenges {
        /// All of them.
        challenges: Arc<Challenges>,
        /// Each worker adds 1 when it answers them.
        published: Arc<AtomicUsize>,
    },
    /// Accept no connections and receive no datagrams of clients, because another process does so
    /// on the same sockets. Each worker adds 1 to the number when it has stopped.
    Pause(Arc<AtomicUsize>),
    /// Accept and receive again after a pause, and from sockets that did not listen before.
    Resume,
    /// Serves by another configuration from now on. Its sockets follow by [`Command::Sockets`],
    /// when all workers know the new listeners: they hand connections over to each other.
    Layout {
        /// The listeners and clusters.
        layout: Arc<Layout>,
        /// The listening sockets of the worker that stay, with the names of their listeners. They
        /// change at the same moment, because a name may mean another listener now.
        kept: Vec<(Arc<TcpListener>, Arc<str>)>,
        /// The descriptors that the worker may have open at once, by their use.
        shares: Shares,
        /// Each worker adds 1 when it serves by it.
        applied: Arc<AtomicUsize>,
    },
    /// Serves these sockets from now on, and no others. Those that it serves already stay as they
    /// are; only their listeners may have other names.
    Sockets {
        /// All listening sockets of the worker.
        streams: Vec<Socket>,
        /// All of its UDP sockets.
        datagrams: Vec<Datagrams>,
        /// Each worker adds 1 when it serves them.
        applied: Arc<AtomicUsize>,
    },
    /// Confirms the commands before this one: each worker adds 1.
    Confirm(Arc<AtomicUsize>),
    /// Answers a question about its open connections.
    Connections(Question),
    /// Goes on accepting, but ends idle connections, and lets each response say that its
    /// connection ends. A drain follows.
    DrainSoon,
    /// Accept nothing new, end idle connections and all UDP sessions, and return when the other
    /// connections have ended. After a pause the accept queues are left to the other process.
    Drain,
    /// The same, because another process accepts. Connections between two requests have
    /// [`LAST_REQUESTS`] for one more.
    Leave,
    /// End all connections and return.
    Stop,
}

/// A listening socket of one worker.
#[derive(Clone)]
pub struct Socket {
    /// The name of the listener.
    pub listener: Arc<str>,
    /// Bound and listening. Other workers may have the same socket, as that of a Unix path, and so
    /// may other processes. So it is never shut down.
    pub socket: Arc<TcpListener>,
    /// Whether it is a Unix socket. The runtime cannot return the addresses of its clients.
    pub unix: bool,
    /// For the runtime. Empty if the worker has the socket already.
    pub spare: SpareDescriptor,
}

/// All that a worker needs.
pub struct Setup {
    /// From 0 to the number of workers - 1.
    pub index: usize,
    /// The CPU that it is pinned to; `None` if it may run on any.
    pub cpu: Option<CoreId>,
    /// The listeners and clusters that it builds its objects from.
    pub layout: Arc<Layout>,
    /// Its listening sockets.
    pub sockets: Vec<Socket>,
    /// Its UDP sockets.
    pub datagrams: Vec<Datagrams>,
    /// How many workers there are.
    pub workers: usize,
    /// Where it sends reports of endpoints that fail.
    pub failures: SyncSender<Report>,
    /// The descriptors that it may have open at once, by their use.
    pub shares: Shares,
    /// Counts what the workers could not serve; shared by all.
    pub shortage: Arc<Shortage>,
    /// Its part in balancing connections over all workers.
    pub balance: Balance,
    /// Receives the connections that other workers hand over.
    pub inbox: Inbox,
    /// Commands of the control plane. The endpoints that are known at the start come first.
    pub commands: Receiver<Command>,
    /// The plans by which to build the runtime, one after the other. The worker runs by the last
    /// one.
    pub plans: Receiver<Trial>,
    /// Gets the result of each plan.
    pub built: Sender<io::Result<()>>,
    /// Counts the worker's ticks for the control plane.
    pub pulse: Arc<Pulse>,
    /// Gets one message when nothing can be refused any more: how the worker runs, or why it does
    /// not.
    pub started: Sender<Result<Running, Error>>,
}

/// What a worker waits for when it has all that it needs. Until then another process may serve its
/// sockets.
pub struct Gate {
    /// One message lets the worker serve. If the sender is dropped instead, the worker returns.
    pub opened: Receiver<()>,
    /// Gets one message when the worker serves.
    pub passed: Sender<()>,
}

/// Runs a worker on the calling thread until a command ends it.
pub fn run(setup: Setup, gate: Gate) {
    // Pinned before the ring is made, so that the ring's memory is local. A single thread submits
    // to the ring.
    if let Some(cpu) = setup.cpu
        && !core_affinity::set_for_current(cpu)
    {
        tracing::warn!(worker = setup.index, cpu = cpu.id, "a worker cannot be pinned to its CPU");
    }
    let pulse = Arc::clone(&setup.pulse);
    pulse.start();
    // `None`: the control plane has received the error, and ends the process.
    if let Some(runtime) = driver::build(&setup.plans, &setup.built) {
        runtime.run(|running, outbox| serve(setup, gate, running, outbox));
    }
    pulse.end();
}

/// The life of a worker inside its runtime.
async fn serve(setup: Setup, gate: Gate, running: Running, outbox: Option<Outbox>) {
    let started = setup.started.clone();
    let mut worker = match Worker::start(setup, running, outbox).await {
        Ok(worker) => worker,
        Err(error) => {
            let _ = started.send(Err(error));
            return;
        }
    };
    let _ = started.send(Ok(running));
    drop(started);
    // There is nothing to do before, so that it can block.
    if gate.opened.recv().is_err() {
        return;
    }
    worker.resume();
    let _ = gate.passed.send(());
    drop(gate);

    let mut stop: Option<Instant> = None;
    while stop.is_none_or(|stop| stop.elapsed() < RECORD_TIME) {
        monoio::time::sleep(TICK).await;
        worker.tick();
        // Checked before the commands: the task of a connection that is accepted by the command to
        // drain has not started yet.
        let is_drained = worker.is_drained();
        while let Ok(command) = worker.commands.try_recv() {
            if matches!(command, Command::Stop) {
                stop = Some(Instant::now());
            }
            worker.handle(command).await;
        }
        worker.end_what_drains();
        if stop.is_some() {
            // Repeated at each tick, because a connection may just have gone on to its next stage.
            worker.context.timers.end_all();
        }
        if is_drained && worker.context.load.close() {
            break;
        }
    }
    worker.finish();
}

/// A worker that runs.
struct Worker {
    /// What all of its connections share.
    context: Rc<Context>,
    acceptors: Acceptors,
    udp: UdpListeners,
    shares: Shares,
    /// The tick at which the drain began.
    drain_begun: Option<u32>,
    /// Whether another process accepts in its place.
    is_taken_over: bool,
    commands: Receiver<Command>,
    failures: SyncSender<Report>,
    pulse: Arc<Pulse>,
}

impl Worker {
    /// Makes all that it needs. It neither accepts nor receives before [`Worker::resume`].
    ///
    /// # Errors
    /// A resource or a socket is refused.
    async fn start(
        setup: Setup,
        running: Running,
        outbox: Option<Outbox>,
    ) -> Result<Worker, Error> {
        let Setup { index, layout, shares, balance, inbox, .. } = setup;
        let outbox = outbox.map(Outbox::start);
        let yielder = Yielder::start()
            .map_err(|error| Error::start("cannot make a pair of sockets", error, ""))?;
        let pool = Pool::new(shares.pipes, BUDGET, outbox, yielder);
        let load = Arc::clone(balance.load());
        let context = Context::new(&layout, index, pool, load, setup.shortage, shares.idle)
            .map_err(|error| Error::start("cannot make a pair of sockets", error, ""))?;
        let context = Rc::new(context);
        // The writer of the access log ends when the last reference to its sinks is dropped.
        drop(layout);
        let acceptors = Acceptors::start(&context, balance, inbox, running)
            .map_err(|error| Error::start("cannot use a pair of sockets", error, ""))?;
        let udp = UdpListeners::start(&context, setup.workers)
            .map_err(|error| Error::start("cannot receive UDP", error, ""))?;
        let mut worker = Worker {
            acceptors,
            udp,
            context,
            shares,
            drain_begun: None,
            is_taken_over: false,
            commands: setup.commands,
            failures: setup.failures,
            pulse: setup.pulse,
        };
        // The endpoints that are known at the start, before the first connection needs them.
        while let Ok(command) = worker.commands.try_recv() {
            worker.handle(command).await;
        }
        worker.set_sockets(setup.sockets, setup.datagrams).await?;
        Ok(worker)
    }

    fn tick(&mut self) {
        self.pulse.beat();
        self.context.timers.tick();
        self.udp.iter().for_each(|udp| udp.tick());
        self.acceptors.sweep();
        self.context.update_date();
        self.context.recorder.flush();
        let mut generation = self.context.generation.borrow_mut();
        generation.report_failures(&self.failures);
        generation.sweep(&self.context.timers);
        let pool = &self.context.pool;
        let (pipes, max_pipes) = pool.pipes();
        let load = &self.context.load;
        self.pulse.levels.set(Level {
            places: load.open() as u64,
            max_places: load.max() as u64,
            pipes: pipes as u64,
            max_pipes: max_pipes as u64,
            kept_bytes: pool.memory().kept() as u64,
            idle_upstreams: self.context.idle_upstreams() as u64,
            removed_listeners: generation.removed() as u64,
        });
    }

    fn is_drained(&self) -> bool {
        self.context.draining.get()
            && self.context.load.open() == 0
            && self.acceptors.iter().all(|acceptor| acceptor.is_closed())
            && self.udp.iter().all(|udp| udp.is_drained())
    }

    async fn handle(&mut self, command: Command) {
        match command {
            Command::Endpoints { cluster, endpoints } => {
                self.context.generation.borrow().set_endpoints(&cluster, &endpoints);
            }
            Command::Certificate { origin, identity } => {
                self.context.generation.borrow().set_identity(&origin, &identity);
            }
            Command::TicketKeys(keys) => {
                self.context.generation.borrow_mut().set_ticket_keys(keys);
            }
            Command::Challenges { challenges, published } => {
                *self.context.challenges.borrow_mut() = challenges;
                published.fetch_add(1, Ordering::Release);
            }
            Command::Layout { layout, kept, shares, applied } => {
                self.set_layout(&layout, shares);
                self.acceptors.rename(&kept);
                // The control plane frees what only this layout has.
                drop(layout);
                applied.fetch_add(1, Ordering::Release);
            }
            Command::Sockets { streams, datagrams, applied } => {
                if let Err(error) = self.set_sockets(streams, datagrams).await {
                    tracing::error!(
                        error = %chain(&error),
                        "a worker cannot serve a socket of the new configuration: reload again \
                         when the cause is gone"
                    );
                }
                applied.fetch_add(1, Ordering::Release);
            }
            Command::Confirm(confirmed) => {
                confirmed.fetch_add(1, Ordering::Release);
            }
            Command::Connections(question) => open::answer(question, &self.context),
            Command::Pause(paused) => self.pause(paused),
            Command::Resume => self.resume(),
            Command::DrainSoon => self.context.closing.set(true),
            Command::Drain | Command::Leave | Command::Stop => {
                self.is_taken_over |= matches!(command, Command::Leave);
                self.context.closing.set(true);
                if !self.context.draining.replace(true) {
                    // Acceptors and UDP listeners close their sockets as soon as nothing is in
                    // flight. So another process can bind the addresses while this one drains. The
                    // ring, which the kernel tears down after the end of the process, holds none of
                    // the sockets.
                    self.acceptors.iter().for_each(|acceptor| acceptor.stop());
                    self.udp.iter().for_each(Udp::drain);
                    self.context.generation.borrow().close_idle();
                }
            }
        }
    }

    /// Serves by another configuration.
    fn set_layout(&mut self, layout: &Layout, shares: Shares) {
        self.shares = shares;
        self.context.set_shares(&shares);
        self.context.apply(layout);
    }

    /// Serves these sockets and no others. With many of them the other tasks of the worker run in
    /// between; the next command waits.
    ///
    /// # Errors
    /// The runtime cannot use a socket. The others are served.
    async fn set_sockets(
        &mut self,
        streams: Vec<Socket>,
        datagrams: Vec<Datagrams>,
    ) -> Result<(), Error> {
        // A worker that drains has closed its sockets.
        if self.context.draining.get() {
            return Ok(());
        }
        let accepting = self.acceptors.apply(streams, self.shares.accepts).await;
        let receiving = self.udp.apply(datagrams, &self.shares).await;
        accepting.map_err(|error| Error::start("cannot use a listening socket", error, ""))?;
        receiving.map_err(|error| Error::start("cannot use a UDP socket", error, ""))
    }

    /// Stops to accept and to receive. UDP sockets are not read any more from here on; accepts in
    /// flight are cancelled within moments.
    fn pause(&self, paused: Arc<AtomicUsize>) {
        self.acceptors.iter().for_each(|acceptor| acceptor.pause());
        self.udp.iter().for_each(|udp| udp.pause());
        let acceptors: Vec<_> = self.acceptors.iter().cloned().collect();
        monoio::spawn(async move {
            // A resume ends the pause, too.
            while acceptors.iter().any(|acceptor| acceptor.is_pausing()) {
                monoio::time::sleep(CANCEL_PAUSE).await;
            }
            paused.fetch_add(1, Ordering::Release);
        });
    }

    /// Accepts and receives, from the start or after a pause.
    fn resume(&mut self) {
        self.acceptors.resume();
        self.udp.resume();
    }

    /// Ends connections that a drain ends. Repeated at each tick, because a worker that had not
    /// read the command yet may have handed a connection over.
    fn end_what_drains(&mut self) {
        if !self.context.closing.get() {
            return;
        }
        let timers = &self.context.timers;
        // New connections are accepted until the drain begins. They have sent nothing, too.
        let grace_is_over = self.context.draining.get() && {
            let begun = *self.drain_begun.get_or_insert(timers.now());
            timers.now().wrapping_sub(begun) >= ticks(GRACE)
        };
        let begun = self.drain_begun.filter(|_| self.is_taken_over);
        let idle_is_over =
            begun.is_none_or(|begun| timers.now().wrapping_sub(begun) >= ticks(LAST_REQUESTS));
        timers.drain(grace_is_over, idle_is_over);
    }

    fn finish(&self) {
        // If a second signal came early, there may be UDP sessions left.
        self.udp.iter().for_each(|udp| udp.end_rest());
        self.context.generation.borrow().report_failures(&self.failures);
        self.context.recorder.close();
    }
}
