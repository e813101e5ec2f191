//! The workers as the control plane sees them: it starts them, sends them commands and waits for
//! their end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use core_affinity::CoreId;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::endpoints::Failures;
use super::rings;
use super::watch::Watch;
use crate::config::{Driver, Workers};
use crate::error::Error;
use crate::front::{Layout, Shortage};
use crate::sys::Shares;
use crate::worker::{self, Balance, Command, Datagrams, Gate, Pulse, Running, Setup, Socket};

/// How long workers may take for a command. They read commands once a tick.
const APPLY: Duration = Duration::from_secs(10);
/// The time between two looks whether they have carried it out.
const APPLY_CHECK: Duration = Duration::from_millis(10);

/// All workers.
pub(super) struct Crew {
    commands: Vec<Sender<Command>>,
    /// Closed when the last worker has ended.
    ended: UnboundedReceiver<()>,
    alive: Option<UnboundedSender<()>>,
    pulses: Vec<Arc<Pulse>>,
    shortage: Arc<Shortage>,
}

/// A worker that is not started yet.
pub(super) struct PendingWorker {
    cpu: Option<CoreId>,
    commands: Receiver<Command>,
    pub(super) streams: Vec<Socket>,
    pub(super) datagrams: Vec<Datagrams>,
}

/// Workers that have all that they need, and do not serve yet. Dropping this ends them.
pub(super) struct Started {
    /// How they run.
    pub(super) running: Running,
    gates: Vec<Sender<()>>,
    serving: Receiver<()>,
}

/// Returns the CPU of each worker. `None` if the CPUs of this process are not known.
///
/// # Errors
/// The configuration names a CPU that this process may not use.
pub(super) fn worker_cpus(workers: &Workers) -> Result<Vec<Option<CoreId>>, Error> {
    let cpus = core_affinity::get_core_ids().unwrap_or_default();
    if cpus.is_empty() {
        let count = if let Workers::Count(count) = workers { *count } else { 1 };
        return Ok(vec![None; count]);
    }
    match workers {
        Workers::Auto => Ok(cpus.into_iter().map(Some).collect()),
        Workers::Count(count) => Ok(cpus.iter().cycle().take(*count).copied().map(Some).collect()),
        Workers::Cpus(ids) => {
            let find = |id: &usize| match cpus.iter().find(|cpu| cpu.id == *id) {
                Some(cpu) => Ok(Some(*cpu)),
                None => Err(Error::start(
                    format!("cannot run a worker on CPU {id} (server.workers)"),
                    "this process may not use it",
                    "`taskset -cp PID` or `nproc` shows the CPUs it may use; CPUs count from 0",
                )),
            };
            ids.iter().map(find).collect()
        }
    }
}

impl Started {
    /// Lets the workers serve, and waits until they do.
    ///
    /// # Errors
    /// A worker has ended.
    pub(super) async fn serve(self) -> Result<Running, Error> {
        let Started { running, gates, serving } = self;
        for gate in &gates {
            gate.send(()).map_err(|_| ended_early())?;
        }
        let count = gates.len();
        let served = tokio::task::spawn_blocking(move || serving.iter().take(count).count());
        match served.await {
            Ok(served) if served == count => Ok(running),
            _ => Err(ended_early()),
        }
    }
}

fn ended_early() -> Error {
    Error::start("cannot start the workers", "they ended early", "")
}

impl Crew {
    /// Makes one worker for each CPU. Commands may be sent at once; a worker finds them when it
    /// starts.
    pub(super) fn new(cpus: Vec<Option<CoreId>>) -> (Crew, Vec<PendingWorker>) {
        let (alive, ended) = unbounded_channel();
        let (mut senders, mut pending) = (Vec::new(), Vec::new());
        for cpu in cpus {
            let (sender, commands) = channel();
            senders.push(sender);
            let (streams, datagrams) = (Vec::new(), Vec::new());
            pending.push(PendingWorker { cpu, commands, streams, datagrams });
        }
        let crew = Crew {
            pulses: senders.iter().map(|_| Arc::default()).collect(),
            commands: senders,
            ended,
            alive: Some(alive),
            shortage: Arc::default(),
        };
        (crew, pending)
    }

    /// The number of workers.
    pub(super) fn len(&self) -> usize {
        self.commands.len()
    }

    /// The senders of commands, for tasks that send some of their own.
    pub(super) fn commands(&self) -> Vec<Sender<Command>> {
        self.commands.clone()
    }

    /// Starts all workers and waits until each has all that it needs. They do not serve before
    /// [`Started::serve`].
    ///
    /// # Errors
    /// The error of the first worker that cannot start.
    pub(super) async fn start(
        &mut self,
        pending: Vec<PendingWorker>,
        driver: Driver,
        layout: &Arc<Layout>,
        failures: &Failures,
        shares: Shares,
    ) -> Result<Started, Error> {
        let (started, reports) = channel();
        let (built, results) = channel();
        let (passed, serving) = channel();
        let (mut plans, mut gates) = (Vec::new(), Vec::new());
        let balances = Balance::for_workers(self.len(), shares.connections)
            .map_err(|error| Error::start("cannot connect the workers", error, ""))?;
        for ((index, worker), (balance, inbox)) in pending.into_iter().enumerate().zip(balances) {
            let (plan, own_plans) = channel();
            plans.push(plan);
            let (gate, opened) = channel();
            gates.push(gate);
            let gate = Gate { opened, passed: passed.clone() };
            let setup = Setup {
                index,
                cpu: worker.cpu,
                layout: Arc::clone(layout),
                sockets: worker.streams,
                datagrams: worker.datagrams,
                workers: self.len(),
                failures: failures.reports(),
                shares,
                balance,
                inbox,
                shortage: Arc::clone(&self.shortage),
                commands: worker.commands,
                plans: own_plans,
                built: built.clone(),
                pulse: Arc::clone(&self.pulses[index]),
                started: started.clone(),
            };
            // Dropped with the thread: after the last one `ended` is closed.
            let alive = self.alive.clone();
            thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn(move || {
                    worker::run(setup, gate);
                    drop(alive);
                })
                .map_err(|error| Error::start("cannot start a thread", error, ""))?;
        }
        // From here on only the workers hold senders, so the receivers notice their end.
        self.alive = None;
        drop((built, started, passed));
        let running = tokio::task::spawn_blocking(move || {
            rings::agree(driver, &plans, &results)?;
            let count = plans.len();
            // Lets the workers run.
            drop(plans);
            // Each worker reports once: how it runs, or why it does not.
            reports.iter().take(count).collect::<Result<Vec<_>, _>>()
        });
        let running = running.await.map_err(|_| ended_early())??;
        let running = running.first().copied().filter(|_| running.len() == gates.len());
        Ok(Started { running: running.ok_or_else(ended_early)?, gates, serving })
    }

    /// Makes the watch that looks after the workers while they run.
    pub(super) fn watch(&self, running: Running) -> Watch {
        Watch::new(self.pulses.clone(), running)
    }

    /// The workers' ticks.
    pub(super) fn pulses(&self) -> Vec<Arc<Pulse>> {
        self.pulses.clone()
    }

    /// The counts of what the workers could not serve.
    pub(super) fn shortage(&self) -> Arc<Shortage> {
        Arc::clone(&self.shortage)
    }

    /// Sends a command to every worker.
    pub(super) fn tell(&self, command: &Command) {
        for worker in &self.commands {
            // An error means that the worker has ended.
            let _ = worker.send(command.clone());
        }
    }

    /// Sends each worker a command of its own, by its index.
    pub(super) fn tell_each(&self, mut command: impl FnMut(usize) -> Command) {
        for (index, worker) in self.commands.iter().enumerate() {
            // An error means that the worker has ended.
            let _ = worker.send(command(index));
        }
    }

    /// Waits until each worker has counted that it has carried out a command, or for [`APPLY`].
    /// Returns whether all have; a worker that has ended or hangs is found elsewhere.
    pub(super) async fn all_have(&self, applied: &AtomicUsize) -> bool {
        let have = all_have(applied, self.len(), APPLY).await;
        if !have {
            tracing::warn!("a worker has not carried out a change yet");
        }
        have
    }

    /// Waits until the last worker has ended.
    pub(super) async fn ended(&mut self) {
        while self.ended.recv().await.is_some() {}
    }
}

/// Waits until this `count` of workers have carried out a command, for `limit` at most.
async fn all_have(applied: &AtomicUsize, count: usize, limit: Duration) -> bool {
    let begun = Instant::now();
    while applied.load(Ordering::Acquire) < count {
        if begun.elapsed() >= limit {
            return false;
        }
        tokio::time::sleep(APPLY_CHECK).await;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_command_that_a_worker_has_not_carried_out_in_time_is_known() {
        let applied = AtomicUsize::new(1);
        assert!(!all_have(&applied, 2, APPLY_CHECK).await);
        let (all, ()) = tokio::join!(all_have(&applied, 2, APPLY), async {
            applied.fetch_add(1, Ordering::Release);
        });
        assert!(all);
    }
}
