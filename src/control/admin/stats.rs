//! The numbers as values: sums over all workers, and what the system says about the process.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use rustix::param::{clock_ticks_per_second, page_size};
use serde::Serialize;

use super::certificates::{self, Certificate};
use super::clusters::{self, Cluster};
use super::view::View;
use crate::config::{TlsAction, TlsRule};
use crate::observe::counters::{Counters, Gauge};
use crate::observe::histogram::Times;
use crate::observe::outcome::{Copied, End, Relay};
use crate::worker::{Life, Pulse};

/// What `/stats` shows.
#[derive(Serialize)]
pub(super) struct Stats<'v> {
    version: &'static str,
    commit: &'static str,
    state: &'static str,
    driver: &'static str,
    uptime_seconds: u64,
    reloads: u64,
    process: Process,
    workers: Vec<Worker>,
    listeners: Vec<Listener<'v>>,
    clusters: Vec<Cluster>,
    certificates: Vec<Certificate>,
}

/// All numbers.
pub(super) fn of(view: &View) -> Stats<'_> {
    Stats {
        version: env!("CARGO_PKG_VERSION"),
        commit: env!("RINGGATE_COMMIT"),
        state: view.phase.as_str(),
        driver: view.facts.running.driver_name(),
        uptime_seconds: view.facts.begun.elapsed().as_secs(),
        reloads: view.reloads,
        process: Process::now(),
        workers: workers(view),
        listeners: listeners(view),
        clusters: clusters::all(view, false),
        certificates: certificates::all(view),
    }
}

/// The process as the system sees it (proc(5)).
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Process {
    pub(super) cpu_seconds: f64,
    pub(super) resident_bytes: u64,
    pub(super) open_descriptors: usize,
    pub(super) started_seconds: f64,
}

impl Process {
    /// What it is now. What the system does not say is 0.
    pub(super) fn now() -> Process {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // proc(5): the name, in brackets, may have spaces.
        let fields = stat.rsplit_once(") ").map(|(_, fields)| fields).unwrap_or_default();
        let fields: Vec<u64> =
            fields.split(' ').map(|field| field.trim().parse().unwrap_or_default()).collect();
        // Counted from the state, which is field 3: utime 14, stime 15, starttime 22, rss 24.
        let field = |number: usize| fields.get(number - 3).copied().unwrap_or_default();
        let ticks = clock_ticks_per_second() as f64;
        Process {
            cpu_seconds: (field(14) + field(15)) as f64 / ticks,
            resident_bytes: field(24) * page_size() as u64,
            open_descriptors: open_descriptors(),
            started_seconds: booted().map_or(0.0, |booted| booted + field(22) as f64 / ticks),
        }
    }
}

/// How many descriptors are open. Since Linux 6.2 the size of the directory is their number
/// (proc_pid_fd(5)). Before it is 0, and the directory is listed, which takes long if there are
/// many.
fn open_descriptors() -> usize {
    const DIRECTORY: &str = "/proc/self/fd";
    let size = fs::metadata(DIRECTORY).map_or(0, |metadata| metadata.len());
    match usize::try_from(size) {
        // The directory itself is open meanwhile.
        Ok(0) => fs::read_dir(DIRECTORY).map_or(0, |all| all.count().saturating_sub(1)),
        Ok(size) => size,
        Err(_) => usize::MAX,
    }
}

/// When the machine was started, in seconds since 1970.
fn booted() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// One worker.
#[derive(Serialize)]
pub(super) struct Worker {
    pub(super) connections: u64,
    pub(super) sessions: u64,
    pub(super) cpu_seconds: f64,
    pub(super) ticks: u32,
    pub(super) places: u64,
    pub(super) max_places: u64,
    pub(super) pipes: u64,
    pub(super) max_pipes: u64,
    pub(super) kept_bytes: u64,
    pub(super) idle_upstreams: u64,
    pub(super) removed_listeners: u64,
}

/// All workers, in their order.
pub(super) fn workers(view: &View) -> Vec<Worker> {
    let worker = |(index, pulse): (usize, &Arc<Pulse>)| {
        let cells = view.listeners.iter().filter_map(|(_, cells)| cells.get(index));
        let (connections, sessions) = cells.fold((0, 0), |(connections, sessions), cell| {
            (connections + cell.connections.open(), sessions + cell.sessions.open())
        });
        let (cpu_seconds, ticks) = match pulse.life() {
            Life::Running { used, ticks } => (used.as_secs_f64(), ticks),
            Life::Ended | Life::Gone => (0.0, 0),
        };
        let level = pulse.levels.level();
        Worker {
            connections,
            sessions,
            cpu_seconds,
            ticks,
            places: level.places,
            max_places: level.max_places,
            pipes: level.pipes,
            max_pipes: level.max_pipes,
            kept_bytes: level.kept_bytes,
            idle_upstreams: level.idle_upstreams,
            removed_listeners: level.removed_listeners,
        }
    };
    view.facts.pulses.iter().enumerate().map(worker).collect()
}

/// How many have begun, and how many are open.
#[derive(Clone, Copy, Default, Serialize)]
pub(super) struct Counts {
    pub(super) total: u64,
    pub(super) open: u64,
}

/// Handshakes of one kind.
#[derive(Serialize)]
pub(super) struct Handshakes {
    pub(super) version: &'static str,
    pub(super) is_resumed: bool,
    pub(super) count: u64,
}

/// One listener, over all workers.
#[derive(Serialize)]
pub(super) struct Listener<'v> {
    pub(super) name: &'v str,
    pub(super) connections: Counts,
    pub(super) tunnels: Counts,
    pub(super) sessions: Counts,
    pub(super) bytes_up: u64,
    pub(super) bytes_down: u64,
    /// By what ended them; only those that there were.
    pub(super) ends: BTreeMap<&'static str, u64>,
    /// Of all kinds if the listener ends TLS, otherwise only of those that there were. A rate needs
    /// a series that begins with 0.
    pub(super) handshakes: Vec<Handshakes>,
    pub(super) failed_handshakes: u64,
    /// Bytes by how they were moved.
    pub(super) relayed: BTreeMap<&'static str, Relayed>,
    /// Relays that were not spliced, by the reason.
    pub(super) copied: BTreeMap<&'static str, u64>,
    #[serde(skip)]
    pub(super) handshake: Times,
}

/// Bytes that were moved in one way.
#[derive(Clone, Copy, Serialize)]
pub(super) struct Relayed {
    pub(super) up: u64,
    pub(super) down: u64,
}

/// All listeners, in the order of their names.
pub(super) fn listeners(view: &View) -> Vec<Listener<'_>> {
    let ends_tls = |name: &str| {
        let mut all = view.config.listeners.iter().filter(|listener| &*listener.name == name);
        let ends = |rule: &Arc<TlsRule>| matches!(rule.action, TlsAction::End(_));
        all.any(|listener| listener.tls_rules().iter().any(ends))
    };
    view.listeners.iter().map(|(name, cells)| Listener::of(name, cells, ends_tls(name))).collect()
}

impl<'v> Listener<'v> {
    fn of(name: &'v str, cells: &[Arc<Counters>], ends_tls: bool) -> Listener<'v> {
        let sum = |number: &dyn Fn(&Counters) -> u64| cells.iter().map(|one| number(one)).sum();
        let counts = |gauge: fn(&Counters) -> &Gauge| Counts {
            total: sum(&|one| gauge(one).begun()),
            open: sum(&|one| gauge(one).open()),
        };
        let ends = End::ALL.into_iter().map(|end| (end.as_str(), sum(&|one| one.ended_by(end))));
        let kinds = [("1.2", false), ("1.2", true), ("1.3", false), ("1.3", true)];
        let handshakes = kinds.map(|(version, is_resumed)| Handshakes {
            version,
            is_resumed,
            count: sum(&|one| one.tls.done(version, is_resumed)),
        });
        Listener {
            name,
            connections: counts(|one| &one.connections),
            tunnels: counts(|one| &one.tunnels),
            sessions: counts(|one| &one.sessions),
            bytes_up: sum(&|one| one.bytes().0),
            bytes_down: sum(&|one| one.bytes().1),
            ends: ends.filter(|(_, count)| *count > 0).collect(),
            handshakes: handshakes.into_iter().filter(|one| ends_tls || one.count > 0).collect(),
            failed_handshakes: sum(&|one| one.tls.failed()),
            relayed: Relay::ALL
                .into_iter()
                .map(|relay| {
                    let up = sum(&|one| one.relayed_by(relay).0);
                    let down = sum(&|one| one.relayed_by(relay).1);
                    (relay.as_str(), Relayed { up, down })
                })
                .collect(),
            copied: Copied::ALL
                .into_iter()
                .map(|copied| (copied.as_str(), sum(&|one| one.copied_for(copied))))
                .collect(),
            handshake: cells.iter().fold(Times::default(), |mut times, one| {
                times += one.tls.times();
                times
            }),
        }
    }
}
