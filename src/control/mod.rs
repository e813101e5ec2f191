//! The control plane: the main thread and the tasks on its own small runtime. It binds, resolves,
//! starts the workers, waits for signals and writes logs. It sends values to workers and never
//! touches a connection.

pub mod acme;
mod certificates;
mod crew;
mod dns;
mod endpoints;
mod logging;
mod orders;
mod paint;
mod rings;
mod signals;
mod sockets;
mod watch;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use core_affinity::CoreId;

pub use logging::{init as start_diagnostics, report_error};
pub use paint::for_stderr;

use crate::config::{AccessLog, Config, LogPath};
use crate::error::Error;
use crate::files::{self, Threads};
use crate::front::{self, Layout, Report, Resources, Shortage};
use crate::observe::access_log::{Target, Writer};
use crate::proto::tls::Authorities;
use crate::sys::{self, Errno, Needs, Shares};
use crate::worker::Command;
use crew::Crew;
use dns::Dns;
use endpoints::Failures;
use signals::Signals;
use sockets::{Inherited, Sockets};

/// How long the start waits for the first DNS answers.
const FIRST_ANSWERS: Duration = Duration::from_secs(5);
/// How long workers that must stop may take to write their last records.
const RECORD_TIME: Duration = Duration::from_secs(3);

/// Runs ringgate until a signal ends it.
///
/// # Errors
/// It cannot start, because a port, a file or a ring is refused.
pub fn run(config: Config) -> Result<(), Error> {
    let file_limit = sys::raise_file_limit();
    let cpus = crew::worker_cpus(&config.server.workers)?;
    // Before the runtime, which panics where there are no descriptors for it.
    enough_descriptors(file_limit, &config.needs(cpus.len()))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::start("cannot start the control plane", error, ""))?;
    let result = runtime.block_on(live(Arc::new(config), cpus, file_limit));
    // Without waiting for a thread that reads a file: its file system may hang.
    runtime.shutdown_background();
    result
}

/// Starts the threads that read files, if a route serves some, and makes sure that their
/// directories can be opened. Blocks for as long as that takes.
fn threads_for_files(config: &Config) -> Result<Option<Threads>, Error> {
    for files in config.files() {
        files::probe(&files.root)?;
    }
    let start =
        || Threads::start().map_err(|error| Error::start("cannot start a thread", error, ""));
    config.files().next().map(|_| start()).transpose()
}

async fn live(
    config: Arc<Config>,
    cpus: Vec<Option<CoreId>>,
    file_limit: u64,
) -> Result<(), Error> {
    // 1. Take first what may be refused: signals, ports, files.
    let mut signals =
        Signals::listen().map_err(|error| Error::start("cannot listen for signals", error, ""))?;
    let mut sockets = tokio::select! {
        sockets = Sockets::open(&config, cpus.len(), Inherited::default()) => sockets?,
        signal = signals.ending(None) => return ended_early(signal),
    };
    let mut writer = Writer::start()?;
    let system = config.needs_system_authorities().then(Authorities::system).transpose();
    let system = system.map_err(|error| {
        let advice = "install them (package ca-certificates), or name a file by `ca`";
        Error::start("cannot check the certificates of clusters with TLS", error, advice)
    })?;
    let files = threads_for_files(&config)?;
    let open = |log: &AccessLog| writer.open(&target(&log.path));
    let resources = Resources { system, files, ..Resources::default() };
    let layout = Arc::new(Layout::new(&config, resources, &HashMap::new(), open)?);
    let failures = Failures::start()?;

    let acme = orders::open(&config)?;

    // 2. Resolve the endpoints. Workers find these commands when they start.
    let (mut crew, pending) = Crew::new(cpus);
    if let Some(acme) = &acme {
        orders::send_stored(acme, &crew.commands());
    }
    let mut dns = dns::start(&config, &crew)?;
    tokio::select! {
        () = first_answers(&mut dns) => {}
        signal = signals.ending(Some(&writer)) => return ended_early(signal),
    }

    // 3. Start the workers.
    let shares = Shares::of(file_limit, &config.needs(crew.len()));
    let running =
        crew.start(pending, config.server.driver, &layout, &sockets, &failures, shares).await?;
    sockets.announce();
    tracing::info!(
        workers = crew.len(),
        driver = %running.driver_name(),
        ring_size = running.ring_size,
        file_limit,
        connection_limit = crew.len() * shares.connections,
        udp_session_limit = front::udp_session_limit(&config, crew.len(), &shares),
        "ready"
    );

    // 4. Wait for a signal, drain and end.
    let (mut watch, shortage) = (crew.watch(running), crew.shortage());
    let keys = Arc::clone(&layout.ticket_keys);
    tokio::spawn(certificates::follow(Arc::clone(&config), keys, crew.commands()));
    if let Some(acme) = acme {
        tokio::spawn(orders::follow(acme, crew.commands()));
    }
    let report = || {
        report_shortage(&layout, &shortage);
        report_refused(&layout);
    };
    let failed = watch.until_one_fails(report);
    let signal = tokio::select! {
        signal = signals.ending(Some(&writer)) => signal,
        error = failed => return Err(error),
    };
    let drain_timeout = config.server.drain_timeout;
    tracing::info!(
        %signal, ?drain_timeout,
        "no new connections are accepted; open ones may continue until drain_timeout"
    );
    // The workers still accept, so no other process has taken the paths over.
    sockets.close();
    crew.tell(&Command::Drain);
    tokio::select! {
        () = drain(drain_timeout, &mut crew, &mut signals, &writer) => {}
        error = watch.until_one_fails(report) => return Err(error),
    }
    failures.finish();
    drop(layout);
    writer.close();
    tracing::info!("ended");
    Ok(())
}

/// Waits for the first DNS answers for [`FIRST_ANSWERS`] at most.
async fn first_answers(dns: &mut Dns) {
    if tokio::time::timeout(FIRST_ANSWERS, dns.first_answers()).await.is_err() {
        let names = dns.missing();
        tracing::warn!(names, "no answer from DNS yet: starting without these names");
    }
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

fn ended_early(signal: &str) -> Result<(), Error> {
    tracing::info!(%signal, "ended before the start was complete");
    Ok(())
}

/// Reports what the workers could not serve for lack of descriptors or local ports.
fn report_shortage(layout: &Layout, shortage: &Shortage) {
    let mut accept_failed = None;
    for listener in &layout.listeners {
        if let Some(errno) = listener.admission.take_accept_error() {
            accept_failed = Some((Arc::clone(&listener.config.name), errno));
        }
    }
    let Some(report) = shortage.report(accept_failed) else { return };
    let Report { waiting, reset, answered, dropped, connect_error, accept_failed } = report;
    let file_limit = sys::file_limit();
    if accept_failed.is_none() && connect_error.is_none() && reset + answered + dropped == 0 {
        tracing::warn!(
            waiting,
            file_limit,
            "the limit of open files is reached: new connections wait in the backlog until others \
             end. Raise the limit (LimitNOFILE= in a systemd unit, `ulimit -n NUMBER` in a shell)"
        );
        return;
    }
    // connect(2) fails with these errors if no local port is left: EAGAIN is that of UDP.
    let no_ports = [Some(Errno::ADDRNOTAVAIL), Some(Errno::AGAIN)].contains(&connect_error);
    if no_ports && accept_failed.is_none() {
        tracing::warn!(
            waiting,
            reset,
            answered,
            dropped,
            connect_error = connect_error.map(tracing::field::display),
            "no local ports are left for upstreams: clients are reset, get a 502 (answered) or \
             lose a datagram (dropped). Widen net.ipv4.ip_local_port_range or add endpoints (TCP)"
        );
        return;
    }
    let (listener, error) = accept_failed.unzip();
    let error = error.map(tracing::field::display);
    tracing::warn!(
        waiting,
        reset,
        answered,
        dropped,
        listener = listener.as_deref(),
        error,
        connect_error = connect_error.map(tracing::field::display),
        file_limit,
        "no descriptors are left: clients wait in the backlog, or are reset, get a 502 (answered) \
         or lose a datagram (dropped), because there is no socket to their upstream. Raise the \
         limit of open files (LimitNOFILE= in a systemd unit, `ulimit -n NUMBER` in a shell)"
    );
}

/// Reports the connections beyond the limits of their listeners.
fn report_refused(layout: &Layout) {
    for listener in &layout.listeners {
        let (config, reset) = (&listener.config, listener.admission.take_refused());
        if reset > 0 {
            tracing::warn!(
                listener = %config.name,
                max_connections = config.max_connections,
                reset,
                "connections beyond max_connections were reset"
            );
        }
    }
}

/// Lets the workers end by themselves until the limit, then stops them.
async fn drain(limit: Duration, crew: &mut Crew, signals: &mut Signals, writer: &Writer) {
    tokio::select! {
        () = crew.ended() => return,
        () = tokio::time::sleep(limit) => {
            tracing::warn!("drain_timeout has expired: closing the connections that are left");
        }
        signal = signals.ending(Some(writer)) => {
            tracing::warn!(%signal, "a second signal: stopping at once");
        }
    }
    crew.tell(&Command::Stop);
    let _ = tokio::time::timeout(RECORD_TIME, crew.ended()).await;
}

fn target(path: &LogPath) -> Target {
    match path {
        LogPath::Stdout => Target::Stdout,
        LogPath::Stderr => Target::Stderr,
        LogPath::File(path) => Target::File(path.clone()),
    }
}
