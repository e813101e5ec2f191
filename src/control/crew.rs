//! The workers as the control plane sees them: started, told, waited for.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use core_affinity::CoreId;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::bind::Bound;
use super::endpoints::Failures;
use crate::config::{Config, Workers};
use crate::error::Error;
use crate::observe::access_log::Writer;
use crate::worker::{self, Balance, Command, Running, Setup};

/// Pipes that one worker may have open at most. Clients that do not read may fill them all, with 1
/// MiB each.
const MAX_PIPES: u64 = 512;

/// All workers.
pub(super) struct Crew {
    commands: Vec<Sender<Command>>,
    /// Closed when the last worker has ended.
    ended: UnboundedReceiver<()>,
    alive: Option<UnboundedSender<()>>,
}

/// A worker that is not started yet.
pub(super) struct Seat {
    cpu: Option<CoreId>,
    commands: Receiver<Command>,
}

/// Where workers run.
///
/// # Errors
/// A CPU that this process may not use.
pub(super) fn places(workers: &Workers) -> Result<Vec<Option<CoreId>>, Error> {
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

impl Crew {
    /// One seat for each place. Commands may be given at once; a worker finds them when it starts.
    pub(super) fn new(places: Vec<Option<CoreId>>) -> (Crew, Vec<Seat>) {
        let (alive, ended) = unbounded_channel();
        let (mut senders, mut seats) = (Vec::new(), Vec::new());
        for cpu in places {
            let (sender, commands) = channel();
            senders.push(sender);
            seats.push(Seat { cpu, commands });
        }
        (Crew { commands: senders, ended, alive: Some(alive) }, seats)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.commands.len()
    }

    /// For tasks that tell workers something by themselves.
    pub(super) fn commands(&self) -> Vec<Sender<Command>> {
        self.commands.clone()
    }

    /// Starts all and waits until each runs.
    ///
    /// # Errors
    /// The first worker that cannot.
    pub(super) async fn start(
        &mut self,
        seats: Vec<Seat>,
        config: &Arc<Config>,
        bound: &mut Bound,
        writer: &Writer,
        failures: &Failures,
        file_limit: u64,
    ) -> Result<Running, Error> {
        // Half of the descriptors for pipes at most, two for each.
        let max_pipes = (file_limit / 4 / self.len() as u64).min(MAX_PIPES) as usize;
        let (started, reports) = channel();
        let balances = Balance::for_workers(self.len())
            .map_err(|error| Error::start("cannot connect the workers", error, ""))?;
        for ((index, seat), (balance, inbox)) in seats.into_iter().enumerate().zip(balances) {
            let setup = Setup {
                index,
                cpu: seat.cpu,
                config: Arc::clone(config),
                sockets: bound.take(index),
                datagrams: bound.take_datagrams(index),
                workers: self.len(),
                recorder: writer.recorder(),
                failures: failures.reports(),
                max_pipes,
                balance,
                inbox,
                commands: seat.commands,
                started: started.clone(),
            };
            let alive = self.alive.clone();
            thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn(move || {
                    worker::run(setup);
                    drop(alive);
                })
                .map_err(|error| Error::start("cannot start a thread", error, ""))?;
        }
        self.alive = None;
        // Each reports once: how it runs, or why it does not.
        let count = self.len();
        let reports =
            tokio::task::spawn_blocking(move || reports.iter().take(count).collect::<Vec<_>>());
        let mut running = None;
        for report in reports.await.unwrap_or_default() {
            running = Some(report?);
        }
        running.ok_or_else(|| Error::start("cannot start the workers", "they ended early", ""))
    }

    /// Tells every worker.
    pub(super) fn tell(&self, command: &Command) {
        for worker in &self.commands {
            // A worker that has ended needs no telling.
            let _ = worker.send(command.clone());
        }
    }

    /// Waits until the last worker has ended.
    pub(super) async fn ended(&mut self) {
        while self.ended.recv().await.is_some() {}
    }
}
