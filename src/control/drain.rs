//! The drain: what is open ends by itself until `drain_timeout`, then the workers reset what is
//! left. The log says how much that is, and of which listeners.

use std::cmp::Reverse;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, interval_at, sleep, timeout};

use super::roster::Roster;
use super::serving::Serving;
use super::signals::Signals;
use super::takeover::{Heir, Reporter, Reports};
use super::{counted, further_end};
use crate::observe::counters::{Open, Registry};
use crate::worker::Command;

/// How long workers that must stop may take to write their last records.
const RECORD_TIME: Duration = Duration::from_secs(3);
/// The least time between two lines about what is left.
const PROGRESS: Duration = Duration::from_secs(5);
/// The same if nothing has changed.
const NO_PROGRESS: Duration = Duration::from_secs(60);
/// The time between two reports to a successor.
const REPORT: Duration = Duration::from_secs(1);
/// The most listeners that a line names.
const MAX_NAMED: usize = 10;

/// Logs that the drain begins, and what is open.
pub(super) fn announce(counters: &Registry, signal: &str, drain_timeout: Duration) {
    let Open { connections, tunnels, sessions } = Left::of(counters).all;
    tracing::info!(
        %signal, ?drain_timeout, connections, tunnels, udp_sessions = sessions,
        "no new connections are accepted; open ones may continue until drain_timeout"
    );
}

/// The same after a take-over.
pub(super) fn announce_taken_over(counters: &Registry, successor: u32, drain_timeout: Duration) {
    let Open { connections, tunnels, sessions } = Left::of(counters).all;
    tracing::info!(
        successor,
        ?drain_timeout,
        connections,
        tunnels,
        udp_sessions = sessions,
        "taken over: new connections go to the successor; open ones may continue here until \
         drain_timeout"
    );
}

/// How a drain has ended.
#[derive(Default)]
pub(super) struct Drained {
    /// How many connections and sessions were cut off.
    pub(super) cut_off: u64,
    /// Whether a signal has asked for the end at once.
    pub(super) at_once: bool,
}

/// Lets the workers end by themselves until the limit, then stops them.
pub(super) async fn run(
    limit: Duration,
    serving: &mut Serving,
    signals: &mut Signals,
    heir: &mut Heir,
) -> Drained {
    let Serving { crew, writer, counters, manager, reports, reporter, facts, .. } = serving;
    let asked = async {
        loop {
            let signal = further_end(signals, writer).await;
            if !heir.takes(signal, manager) {
                return signal;
            }
        }
    };
    let further = tokio::select! {
        () = crew.ended() => return Drained::default(),
        () = report_progress(limit, counters) => return Drained::default(),
        () = report_counters(counters, &facts.roster, reports, reporter) => {
            return Drained::default();
        }
        () = sleep(limit) => None,
        signal = asked => Some(signal),
    };
    let left = Left::of(counters);
    let Open { connections, tunnels, sessions } = left.all;
    if let Some(signal) = further {
        tracing::warn!(
            %signal, connections, tunnels, udp_sessions = sessions, left = left.text,
            "a further signal: stopping at once and resetting what is left"
        );
    } else {
        tracing::warn!(
            connections,
            tunnels,
            udp_sessions = sessions,
            left = left.text,
            "drain_timeout has expired: resetting what is left"
        );
    }
    crew.tell(&Command::Stop);
    let _ = timeout(RECORD_TIME, crew.ended()).await;
    Drained { cut_off: left.all.all(), at_once: further.is_some() }
}

/// Tells the successor what this process counts. A predecessor of this one may still report, too.
/// Never returns.
async fn report_counters(
    counters: &Registry,
    roster: &Roster,
    reports: &mut Reports,
    reporter: &mut Option<Reporter>,
) {
    let mut times = interval(REPORT);
    times.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            counted = reports.next() => roster.take(&counted, counters),
            _ = times.tick() => {
                if let Some(reporter) = reporter {
                    reporter.report(roster.counted(counters));
                }
            }
        }
    }
}

/// Logs what is left from time to time. Never returns.
async fn report_progress(limit: Duration, counters: &Registry) {
    let begun = Instant::now();
    let mut times = interval_at(Instant::now() + PROGRESS, PROGRESS);
    times.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last: Option<(Open, Instant)> = None;
    loop {
        let now = times.tick().await;
        let left = Left::of(counters);
        let is_known = |(open, at): (Open, Instant)| open == left.all && now < at + NO_PROGRESS;
        if left.all == Open::default() || last.is_some_and(is_known) {
            continue;
        }
        last = Some((left.all, now));
        let Open { connections, tunnels, sessions } = left.all;
        let ends_in_s = limit.saturating_sub(now.duration_since(begun)).as_secs();
        tracing::info!(
            connections,
            tunnels,
            udp_sessions = sessions,
            left = left.text,
            ends_in_s,
            "draining"
        );
    }
}

/// What is open.
struct Left {
    all: Open,
    /// The same for each listener: `web: 3 tunnels, 1 connection; dns: 4 UDP sessions`.
    text: String,
}

impl Left {
    fn of(counters: &Registry) -> Left {
        let mut listeners: Vec<(&str, Open)> =
            counters.open().filter(|(_, open)| open.all() > 0).collect();
        let mut all = Open::default();
        listeners.iter().for_each(|(_, open)| all += *open);
        // The sort is stable: listeners with as many keep the order of their names.
        listeners.sort_by_key(|(_, open)| Reverse(open.all()));
        let others = listeners.len().saturating_sub(MAX_NAMED);
        listeners.truncate(MAX_NAMED);
        let mut parts: Vec<String> =
            listeners.iter().map(|(name, open)| format!("{name}: {}", kinds(*open))).collect();
        if others > 0 {
            parts.push(format!("and {}", counted(others, "more listener", "more listeners")));
        }
        Left { all, text: parts.join("; ") }
    }
}

/// Names those kinds of which there are some.
fn kinds(open: Open) -> String {
    let Open { connections, tunnels, sessions } = open;
    let kinds = [
        (tunnels, "tunnel", "tunnels"),
        (connections, "connection", "connections"),
        (sessions, "UDP session", "UDP sessions"),
    ];
    let some = kinds.into_iter().filter(|(count, ..)| *count > 0);
    let texts = some.map(|(count, one, many)| counted(count as usize, one, many));
    texts.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn registry(listeners: impl Iterator<Item = (String, Open)>) -> Registry {
        let mut registry = Registry::new(2);
        for (name, open) in listeners {
            let cells = registry.of(&Arc::from(name));
            (0..open.connections + open.tunnels).for_each(|_| cells[0].connections.begin());
            (0..open.tunnels).for_each(|_| cells[0].tunnels.begin());
            (0..open.sessions).for_each(|_| cells[1].sessions.begin());
        }
        registry
    }

    #[test]
    fn listeners_are_named_with_what_is_open_those_with_most_first() {
        let web = Open { connections: 1, tunnels: 3, sessions: 0 };
        let dns = Open { sessions: 5, ..Open::default() };
        let listeners = [("idle", Open::default()), ("web", web), ("dns", dns)];
        let listeners = listeners.map(|(name, open)| (name.to_owned(), open));
        let left = Left::of(&registry(listeners.into_iter()));
        assert_eq!(left.text, "dns: 5 UDP sessions; web: 3 tunnels, 1 connection");
        assert_eq!(left.all, Open { connections: 1, tunnels: 3, sessions: 5 });
    }

    #[test]
    fn a_line_names_a_bounded_number_of_listeners() {
        let one = Open { tunnels: 1, ..Open::default() };
        let left = Left::of(&registry((10..30).map(|port| (format!("port{port}"), one))));
        assert_eq!(left.all.tunnels, 20);
        assert!(left.text.starts_with("port10: 1 tunnel; port11: 1 tunnel; "), "{}", left.text);
        assert!(left.text.ends_with("port19: 1 tunnel; and 10 more listeners"), "{}", left.text);
    }
}
