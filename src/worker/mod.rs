//! A worker: one pinned thread with its own runtime, listeners and context. It takes no locks. It
//! shares only counts of connections with other workers, and hands connections over to them. The
//! control plane sends it [`Command`]s, which it reads once a tick.

mod accept;
mod balance;
mod driver;
mod pulse;

use std::io;
use std::net::{TcpListener, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender};
use std::time::{Duration, Instant};

use core_affinity::CoreId;

use crate::cluster::Report;
use crate::error::Error;
use crate::front::{self, Context, Layout, Shortage, Udp};
use crate::relay::{BUDGET, Pool};
use crate::sched::{Outbox, Yielder};
use crate::sys::{Address, Shares};
use crate::timers::{TICK, ticks};
use accept::Acceptor;
pub use balance::{Balance, Inbox};
pub use driver::{Plan, Running, Trial};
pub use pulse::Pulse;

/// The time for connections that were ended by force to write their records.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// The time in which a client must send something if it was accepted before a drain and has sent
/// nothing yet.
const GRACE: Duration = Duration::from_secs(1);

/// A command of the control plane to a worker.
#[derive(Clone, Debug)]
pub enum Command {
    /// Sets the endpoints of a cluster.
    Endpoints {
        /// The name of the cluster.
        cluster: Arc<str>,
        /// All endpoints of the cluster.
        addresses: Arc<[Address]>,
    },
    /// Accept nothing new, end idle connections and all UDP sessions, and return when the other
    /// connections have ended.
    Drain,
    /// End all connections and return.
    Stop,
}

/// A listening socket of one worker.
pub struct Socket {
    /// The name of the listener.
    pub listener: Arc<str>,
    /// Bound and listening. All workers have the same socket of a Unix path.
    pub socket: TcpListener,
    /// Whether it is a Unix socket. The runtime cannot return the addresses of its clients.
    pub unix: bool,
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
    /// Its UDP sockets, each with the name of its listener.
    pub datagrams: Vec<(Arc<str>, UdpSocket)>,
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
    /// Gets one message: how the worker runs, or why it does not.
    pub started: Sender<Result<Running, Error>>,
}

/// Runs a worker on the calling thread until a command ends it.
pub fn run(setup: Setup) {
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
        runtime.run(|running, outbox| serve(setup, running, outbox));
    }
    pulse.end();
}

/// The life of a worker inside its runtime.
async fn serve(setup: Setup, running: Running, outbox: Option<Outbox>) {
    let Setup { index, layout, failures, shares, balance, .. } = setup;
    let outbox = outbox.map(Outbox::start);
    let yielder = match Yielder::start() {
        Ok(yielder) => yielder,
        Err(error) => {
            let error = Error::start("cannot make a pair of sockets", error, "");
            let _ = setup.started.send(Err(error));
            return;
        }
    };
    // What all connections of this worker share.
    let pool = Pool::new(shares.pipes, BUDGET, outbox, yielder);
    let load = Arc::clone(balance.load());
    let shortage = setup.shortage;
    let context = Rc::new(Context::new(&layout, index, pool, load, shortage));
    // The writer of the access log ends when the last reference to its sinks is dropped.
    drop(layout);
    // The endpoints that are known at the start, before the first connection needs them.
    for command in setup.commands.try_iter() {
        obey(&context, &mut Vec::new(), &[], command);
    }
    let (inbox, sockets) = (setup.inbox, setup.sockets);
    let acceptors = accept::start(&context, balance, inbox, sockets, running, shares.accepts);
    let mut acceptors = match acceptors {
        Ok(acceptors) => acceptors,
        Err(error) => {
            let error = Error::start("cannot use a listening socket", error, "");
            let _ = setup.started.send(Err(error));
            return;
        }
    };
    let udp = match front::start_udp(&context, setup.datagrams, setup.workers, &shares) {
        Ok(udp) => udp,
        Err(error) => {
            let error = Error::start("cannot use a UDP socket", error, "");
            let _ = setup.started.send(Err(error));
            return;
        }
    };
    let _ = setup.started.send(Ok(running));
    drop(setup.started);

    // The tick at which the drain began, and the time of the command to stop.
    let (mut draining, mut stop): (Option<u32>, Option<Instant>) = (None, None);
    while stop.is_none_or(|stop| stop.elapsed() < LAST_WORDS) {
        monoio::time::sleep(TICK).await;
        setup.pulse.beat();
        context.timers.tick();
        udp.iter().for_each(|udp| udp.tick());
        context.update_date();
        context.recorder.flush();
        context.generation.borrow().report_failures(&failures);
        // Checked before the commands: the task of a connection that is accepted by the command to
        // drain has not started yet.
        let drained = context.draining.get()
            && context.load.open() == 0
            && udp.iter().all(|udp| udp.is_drained());
        for command in setup.commands.try_iter() {
            if matches!(command, Command::Stop) {
                stop = Some(Instant::now());
            }
            obey(&context, &mut acceptors, &udp, command);
        }
        if context.draining.get() && draining.is_none() {
            draining = Some(context.timers.now());
        }
        if let Some(begun) = draining {
            // Repeated at each tick, because a worker that had not read the command yet may have
            // handed a connection over.
            let passed = context.timers.now().wrapping_sub(begun);
            context.timers.drain(passed >= ticks(GRACE));
        }
        if stop.is_some() {
            // Repeated at each tick, because a connection may just have gone on to its next stage.
            context.timers.end_all();
        }
        if drained && context.load.close() {
            break;
        }
    }
    // If a second signal came early, there may be UDP sessions left.
    udp.iter().for_each(|udp| udp.end_rest());
    context.generation.borrow().report_failures(&failures);
    context.recorder.close();
}

fn obey(
    context: &Rc<Context>,
    acceptors: &mut Vec<Rc<Acceptor>>,
    udp: &[Rc<Udp>],
    command: Command,
) {
    match command {
        Command::Endpoints { cluster, addresses } => {
            context.generation.borrow().set_endpoints(&cluster, &addresses);
        }
        Command::Drain | Command::Stop => {
            if !context.draining.replace(true) {
                // The last task of each acceptor and UDP listener closes its sockets. So another
                // process can bind the addresses while this one drains. The ring, which the kernel
                // tears down after the end of the process, holds none of the sockets.
                acceptors.drain(..).for_each(|acceptor| acceptor.stop());
                udp.iter().for_each(Udp::drain);
            }
        }
    }
}
