//! A worker: one pinned thread with its own runtime, listeners and context. It takes no locks; all
//! it shares with other workers are counts of connections, and connections that are handed over.
//! The control plane reaches it by [`Command`]s, which it looks for once a tick.

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
use crate::config::Config;
use crate::error::Error;
use crate::front::{self, Context, Gate, Shortage, Udp};
use crate::observe::access_log::Recorder;
use crate::relay::{BUDGET, Pool};
use crate::sys::{Address, Outbox, Shares, Turns};
use crate::timers::{TICK, ticks};
use accept::Acceptor;
pub use balance::{Balance, Inbox};
pub use driver::{Plan, Running, Trial};
pub use pulse::Pulse;

/// How long connections that were ended by force get to write their records.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// What a client that was accepted before a drain, and has sent nothing yet, gets to send
/// something.
const GRACE: Duration = Duration::from_secs(1);

/// What the control plane tells a worker.
#[derive(Clone, Debug)]
pub enum Command {
    /// A cluster has these endpoints now.
    Endpoints {
        /// Position in the configuration.
        cluster: usize,
        /// All of them.
        addresses: Arc<[Address]>,
    },
    /// Accept nothing new, end what is idle and all UDP sessions, return when the rest has ended.
    Drain,
    /// End everything and return.
    Stop,
}

/// A listening socket of one worker.
pub struct Socket {
    /// Position in the configuration.
    pub listener: usize,
    /// Bound and listening. Of a Unix path all workers have the same one.
    pub socket: TcpListener,
    /// Its family has no addresses that the runtime could return.
    pub unix: bool,
    /// The listener's limit of connections, over all workers.
    pub gate: Option<Arc<Gate>>,
}

/// All a worker needs.
pub struct Setup {
    /// 0 to the number of workers - 1.
    pub index: usize,
    /// Where it runs; none: anywhere.
    pub cpu: Option<CoreId>,
    /// The configuration.
    pub config: Arc<Config>,
    /// Its listening sockets.
    pub sockets: Vec<Socket>,
    /// Its UDP sockets, each with its listener's position in the configuration.
    pub datagrams: Vec<(usize, UdpSocket)>,
    /// How many workers there are.
    pub workers: usize,
    /// Where its records go.
    pub recorder: Recorder,
    /// Where it reports endpoints that fail.
    pub failures: SyncSender<Report>,
    /// Descriptors it may have open at once, and for what.
    pub shares: Shares,
    /// What all workers could not serve.
    pub shortage: Arc<Shortage>,
    /// Its part in the balance over all workers.
    pub balance: Balance,
    /// What the others hand over to it.
    pub inbox: Inbox,
    /// From the control plane; endpoints known at the start come first.
    pub commands: Receiver<Command>,
    /// What to build the runtime by, one after the other. It runs by the last one.
    pub plans: Receiver<Trial>,
    /// Told for each of them how that went.
    pub built: Sender<io::Result<()>>,
    /// Shows that the worker goes on.
    pub pulse: Arc<Pulse>,
    /// Told once how the worker runs, or why it does not.
    pub started: Sender<Result<Running, Error>>,
}

/// Runs a worker on the calling thread until it is told to end.
pub fn run(setup: Setup) {
    // Pinned before the ring is made: its memory is then local, and one thread alone submits to it.
    if let Some(cpu) = setup.cpu
        && !core_affinity::set_for_current(cpu)
    {
        tracing::warn!(worker = setup.index, cpu = cpu.id, "a worker cannot be pinned to its CPU");
    }
    let pulse = Arc::clone(&setup.pulse);
    pulse.start();
    // None: the control plane ends the process, as it was told why this has failed.
    if let Some(runtime) = driver::build(&setup.plans, &setup.built) {
        runtime.run(|running, outbox| serve(setup, running, outbox));
    }
    pulse.end();
}

/// The life of a worker inside its runtime.
async fn serve(setup: Setup, running: Running, outbox: Option<Outbox>) {
    let Setup { index, config, recorder, failures, shares, balance, .. } = setup;
    let outbox = outbox.map(Outbox::start);
    let turns = match Turns::start() {
        Ok(turns) => turns,
        Err(error) => {
            let error = Error::start("cannot make a pair of sockets", error, "");
            let _ = setup.started.send(Err(error));
            return;
        }
    };
    let pool = Pool::new(shares.pipes, BUDGET, outbox, turns);
    let load = Arc::clone(balance.load());
    let shortage = setup.shortage;
    let context = Rc::new(Context::new(config, recorder, index, pool, load, shortage));
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

    // The tick at which the drain began, and when the end.
    let (mut draining, mut stop): (Option<u32>, Option<Instant>) = (None, None);
    while stop.is_none_or(|stop| stop.elapsed() < LAST_WORDS) {
        monoio::time::sleep(TICK).await;
        setup.pulse.beat();
        context.timers.tick();
        udp.iter().for_each(|udp| udp.tick());
        context.update_date();
        context.flush_records();
        context.report_failures(&failures);
        // A connection that was accepted as the word to drain came still has its task to start.
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
            // Again at each tick: one may have been handed over by a worker that had not heard yet.
            let passed = context.timers.now().wrapping_sub(begun);
            context.timers.drain(passed >= ticks(GRACE));
        }
        if stop.is_some() {
            // Again at each tick: a connection may just have gone on to its next stage.
            context.timers.end_all();
        }
        if drained && context.load.close() {
            break;
        }
    }
    // After a second signal that came early there may be some.
    udp.iter().for_each(|udp| udp.end_rest());
    context.flush_records();
    context.report_failures(&failures);
    drop(context.recorder.take());
}

fn obey(
    context: &Rc<Context>,
    acceptors: &mut Vec<Rc<Acceptor>>,
    udp: &[Rc<Udp>],
    command: Command,
) {
    match command {
        Command::Endpoints { cluster, addresses } => {
            context.clusters[cluster].set_endpoints(&addresses);
        }
        Command::Drain | Command::Stop => {
            if !context.draining.replace(true) {
                // The last task of each closes its sockets. So another process can bind the
                // addresses while this one drains, and the ring, which the kernel tears down after
                // the end of the process, holds none of them.
                acceptors.drain(..).for_each(|acceptor| acceptor.stop());
                udp.iter().for_each(Udp::drain);
            }
        }
    }
}
