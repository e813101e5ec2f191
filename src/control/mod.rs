//! The control plane: the main thread and the tasks on its own small runtime. It binds, resolves,
//! starts the workers, waits for signals and writes logs. It sends values to workers and never
//! touches a connection.

pub mod acme;
mod admin;
mod certificates;
mod changed;
mod crew;
mod dns;
mod drain;
mod endpoints;
mod logging;
mod manager;
mod memory;
mod once;
mod orders;
mod paint;
mod panics;
mod reading;
mod report;
mod rings;
mod roster;
mod serving;
mod signals;
mod sockets;
mod steering;
mod stored;
mod takeover;
mod watch;

use std::cell::Cell;
use std::pin::pin;
use std::sync::Arc;

pub use admin::{Endpoint, Reply};
pub use logging::{Logging, init as start_diagnostics, report_error};
pub use manager::Environment;
pub use paint::for_stderr;
pub use reading::{Source, warn_of};
pub use takeover::Predecessor;

use crate::config::Config;
use crate::error::Error;
use crate::observe::access_log::Writer;
use crate::sys::{self, Needs};
use crate::worker::Command;
use admin::{Order, Phase, ReplyTo, Undone, What};
use drain::Drained;
use manager::Manager;
use roster::Steer;
use serving::{Given, Serving};
use signals::{Signal, Signals};
use takeover::{Heir, Link, Outcome, TakeOver, Taken, pass_on};
use watch::Watch;

/// Runs ringgate by a configuration that was read from `source`, until a signal ends it.
/// `environment` is what the service manager has said. Takes the sockets of a predecessor over, if
/// there is one.
///
/// # Errors
/// It cannot start, because a port, a file or a ring is refused.
pub fn run(
    config: Config,
    source: Source,
    environment: Environment,
    predecessor: Option<Predecessor>,
    logging: &Logging,
) -> Result<(), Error> {
    let file_limit = sys::raise_file_limit();
    let cpus = crew::worker_cpus(&config.server.workers)?;
    // Before the runtime, which panics where there are no descriptors for it.
    enough_descriptors(file_limit, &config.needs(cpus.len()))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::start("cannot start the control plane", error, ""))?;
    let has_turn = Cell::new(false);
    let start = async {
        let (manager, handed) = Manager::start(environment);
        let link = predecessor.map(Link::open).transpose()?;
        let given = Given { manager, handed, link, has_turn: &has_turn };
        Serving::start(config, source, cpus, file_limit, given).await
    };
    let result = runtime.block_on(live(start, &has_turn, logging));
    // Without waiting for a thread that reads a file: its file system may hang.
    runtime.shutdown_background();
    result
}

async fn live(
    start: impl Future<Output = Result<Serving, Error>>,
    has_turn: &Cell<bool>,
    logging: &Logging,
) -> Result<(), Error> {
    // 1. Start to serve. Signals come first, so that none is lost.
    let mut signals =
        Signals::listen().map_err(|error| Error::start("cannot listen for signals", error, ""))?;
    sys::release_signals();
    let Some(mut serving) = started(start, has_turn, &mut signals).await? else { return Ok(()) };
    let mut watch = serving.crew.watch(serving.running);
    let mut take_over = TakeOver::default();

    // 2. Wait for the signal that ends the process, and handle the others.
    let ended = until_end(&mut serving, &mut signals, &mut watch, &mut take_over, logging).await;
    let mut ending = ended?;

    // 3. Go on accepting for a while, if that is wanted.
    let shortage = serving.crew.shortage();
    let layout = Arc::clone(&serving.layout);
    let report = || report::of(&layout, &shortage);
    let mut heir;
    (ending, heir) = after_take_over(ending, take_over).await;
    if let (Ending::Signal(signal), Some(delay)) = (&ending, serving.config.server.drain_delay) {
        tracing::info!(
            %signal, drain_delay = ?delay,
            "connections are accepted until drain_delay is over; the process ends after that"
        );
        serving.manager.stopping("Accepting connections until drain_delay is over");
        serving.admin.ends(Phase::EndingSoon);
        serving.crew.tell(&Command::DrainSoon);
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            further = further_end(&mut signals, &serving.writer) => {
                ending = Ending::Signal(further);
            }
            error = watch.until_one_fails(report) => return Err(error),
        }
    }

    // 4. Drain and end.
    serving.admin.ends(Phase::Draining);
    let drain_timeout = serving.config.server.drain_timeout;
    let command = match ending {
        Ending::Signal(signal) => {
            drain::announce(&serving.counters, signal, drain_timeout);
            let status = "Draining: open connections may continue until drain_timeout";
            serving.manager.stopping(status);
            // A stored socket would take connections that no process accepts.
            serving.manager.store_nothing().await;
            // The workers still accept, so no other process has taken the paths over.
            serving.sockets.close();
            Command::Drain
        }
        Ending::TakenOver(taken) => {
            drain::announce_taken_over(&serving.counters, taken.successor, drain_timeout);
            serving.reporter = taken.reporter;
            serving.report();
            serving.leave();
            Command::Leave
        }
    };
    watch.let_end();
    serving.crew.tell(&command);
    let Drained { cut_off, at_once } = tokio::select! {
        drained = drain::run(drain_timeout, &mut serving, &mut signals, &mut heir) => drained,
        error = watch.until_one_fails(report) => {
            finish(&serving.manager, &mut signals, heir).await;
            return Err(error);
        }
    };
    drop(layout);
    let manager = serving.manager.clone();
    serving.report();
    serving.end();
    if at_once {
        manager.flush().await;
    } else {
        finish(&manager, &mut signals, heir).await;
    }
    tracing::info!(cut_off, "ended");
    Ok(())
}

/// Waits until the process serves. Returns `None` if a signal has ended it before.
async fn started(
    start: impl Future<Output = Result<Serving, Error>>,
    has_turn: &Cell<bool>,
    signals: &mut Signals,
) -> Result<Option<Serving>, Error> {
    let mut start = pin!(start);
    let signal = tokio::select! {
        serving = &mut start => return serving.map(Some),
        signal = signals.ending(|| ()) => signal,
    };
    if has_turn.get() {
        // Clients of the predecessor are served already, so that there must be a drain.
        signals.end_later(signal);
        return start.await.map(Some);
    }
    tracing::info!(%signal, "ended before the start was complete");
    Ok(None)
}

/// Gives a take-over in progress up. If the successor serves already, the paths of Unix sockets are
/// its own, and a signal that has come before that was known is for it, too.
async fn after_take_over(ending: Ending, take_over: TakeOver) -> (Ending, Heir) {
    match (take_over.give_up().await, ending) {
        (Some(taken), Ending::Signal(signal)) => {
            pass_on(signal, taken.successor);
            (Ending::TakenOver(taken), Heir(None))
        }
        (_, Ending::TakenOver(taken)) => {
            let heir = Heir(Some(taken.successor));
            (Ending::TakenOver(taken), heir)
        }
        (None, ending) => (ending, Heir(None)),
    }
}

/// Waits until the service manager knows what it must before the process ends, or until a signal.
async fn finish(manager: &Manager, signals: &mut Signals, mut heir: Heir) {
    let asked = async {
        loop {
            let signal = signals.ending(|| ()).await;
            if !heir.takes(signal, manager) {
                return signal;
            }
        }
    };
    tokio::select! {
        () = manager.finish() => {}
        signal = asked => tracing::warn!(%signal, "a further signal: ending at once"),
    }
}

/// Waits for the end of serving, and handles the other signals.
///
/// # Errors
/// A worker has failed for good.
async fn until_end(
    serving: &mut Serving,
    signals: &mut Signals,
    watch: &mut Watch,
    take_over: &mut TakeOver,
    logging: &Logging,
) -> Result<Ending, Error> {
    let shortage = serving.crew.shortage();
    loop {
        let layout = Arc::clone(&serving.layout);
        let report = || report::of(&layout, &shortage);
        let (what, reply) = tokio::select! {
            // One that has come before the end of a take-over was known is for the service.
            biased;
            signal = signals.next() => (What::Signal(signal), None),
            outcome = take_over.ends() => match outcome {
                Outcome::Succeeded(taken) => return Ok(Ending::TakenOver(taken)),
                Outcome::Failed { must_reload: true } => (What::Signal(Signal::Reload), None),
                Outcome::Failed { must_reload: false } => continue,
            },
            counted = serving.reports.next() => {
                serving.facts.roster.take(&counted, &serving.counters);
                continue;
            }
            Order { what, reply } = serving.admin.next_order() => (what, Some(reply)),
            error = watch.until_one_fails(report) => return Err(error),
        };
        let is_order = reply.is_some();
        let text = match at_once(what, is_order, serving, take_over, logging) {
            Next::Reload(text) => text,
            Next::End(name) => {
                answer(reply, Ok(()));
                return Ok(Ending::Signal(name));
            }
            Next::Done(result) => {
                answer(reply, result);
                continue;
            }
            Next::Steer(cluster, steer) => tokio::select! {
                result = serving.steer(&cluster, &steer) => {
                    answer(reply, result);
                    continue;
                }
                error = watch.until_one_fails(report) => return Err(error),
            },
        };
        serving.manager.reloading();
        let logs = serving.writer.reopener();
        let prepared = tokio::select! {
            prepared = serving.prepare_and_store(text) => prepared,
            name = signals.ending(|| logs.reopen()) => return Ok(Ending::Signal(name)),
            error = watch.until_one_fails(report) => return Err(error),
        };
        match prepared {
            // What the workers have begun to take they get whole. Signals wait for it.
            Ok(prepared) => tokio::select! {
                // Listeners that it has removed are looked at for the last time.
                is_applied = serving.commit(prepared, logging) => {
                    report();
                    serving.manager.ready();
                    answer(reply, if is_applied { Ok(()) } else { Err(Undone::Late) });
                }
                error = watch.until_one_fails(report) => return Err(error),
            },
            Err(error) => {
                serving.forget_refused();
                logging.report_unchanged(&error);
                serving.manager.ready_unchanged();
                answer(reply, Err(error.to_text().into()));
            }
        }
    }
}

/// What follows from a signal or an order.
enum Next {
    /// It is done, or refused.
    Done(Result<(), Undone>),
    /// The process ends, by the name of what has asked for it.
    End(&'static str),
    /// Other endpoints for this cluster.
    Steer(String, Steer),
    /// A reload, by this text if the file is not to be read.
    Reload(Option<Arc<str>>),
}

/// Does what needs no wait. `is_order` means that a client of the admin endpoint gets the result.
fn at_once(
    what: What,
    is_order: bool,
    serving: &mut Serving,
    take_over: &mut TakeOver,
    logging: &Logging,
) -> Next {
    const IN_PROGRESS: &str = "a take-over is in progress, and the new process reads the \
                               configuration: try again after it";
    let refuse = |why: &str| Next::Done(Err(why.to_owned().into()));
    match what {
        What::Signal(Signal::End(name)) => return Next::End(name),
        What::Signal(Signal::Reopen) => serving.writer.reopen(),
        What::Signal(Signal::Reload) if take_over.is_in_progress() => {
            // An order that is refused has no effect later.
            if !is_order {
                take_over.reload_later();
            }
            return refuse(IN_PROGRESS);
        }
        What::Configure(_) if take_over.is_in_progress() => return refuse(IN_PROGRESS),
        What::Steer { .. } if take_over.is_in_progress() => {
            return refuse("a take-over is in progress: try again after it");
        }
        What::Steer { cluster, steer } => return Next::Steer(cluster, steer),
        What::Signal(Signal::Reload) => return Next::Reload(None),
        What::Configure(text) => return Next::Reload(Some(text.into())),
        What::Signal(Signal::TakeOver) => {
            let started = take_over.start(serving);
            return Next::Done(started.map_err(|why| why.to_owned().into()));
        }
        What::SetLevel(level) => {
            let report = || tracing::info!(level, "diagnostics have another level");
            // Once, at the level that shows it.
            let is_shown = tracing::enabled!(tracing::Level::INFO);
            is_shown.then(report);
            logging.set_level(level);
            (!is_shown).then(report);
        }
    }
    Next::Done(Ok(()))
}

/// Tells a client of the admin endpoint what its order has done.
fn answer(reply: Option<ReplyTo>, result: Result<(), Undone>) {
    if let Some(reply) = reply {
        reply.send(result);
    }
}

/// Why a process begins to end.
enum Ending {
    /// A signal, by its name.
    Signal(&'static str),
    /// Another process serves in its place.
    TakenOver(Taken),
}

/// # Errors
/// The limit of open files is so low that connections would wait for ever.
fn enough_descriptors(file_limit: u64, needs: &Needs) -> Result<(), Error> {
    let least = needs.least_limit();
    if file_limit >= least {
        return Ok(());
    }
    let workers = counted(needs.workers, "worker", "workers");
    let addresses = counted(needs.stream_sockets + needs.udp_sockets, "address", "addresses");
    let cause = format!("{file_limit}; {workers} and {addresses} need at least {least}");
    let advice = format!(
        "raise it (LimitNOFILE={least} in a systemd unit; `ulimit -n {least}` in a shell, as root \
         if `ulimit -Hn`, the hard limit, is lower), or have fewer workers or addresses"
    );
    Err(Error::start("the limit of open files is too low", cause, advice))
}

/// Formats a number of things: `1 worker`, `2 workers`.
fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Waits for a further signal that asks for the end, and returns its name. Handles the others.
async fn further_end(signals: &mut Signals, writer: &Writer) -> &'static str {
    loop {
        match signals.next().await {
            Signal::End(name) => return name,
            Signal::Reopen => writer.reopen(),
            Signal::Reload => {
                tracing::warn!("SIGHUP has no effect: the process is about to end");
            }
            Signal::TakeOver => {
                tracing::warn!(reason = "the process is about to end", "no take-over");
            }
        }
    }
}
