//! Diagnostics about endpoints that fail: at most one line a second for each endpoint, for any
//! number of connections, workers and attempts.
//!
//! Workers count failures and send the counts over a bounded channel. A separate thread sums them
//! and logs, so that a slow log delays no worker, no look-up and no signal.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::mpsc::{
    Receiver, RecvTimeoutError, SyncSender, TryRecvError, channel, sync_channel,
};
use std::thread;
use std::time::{Duration, Instant};

use crate::cluster::{Reason, Report};
use crate::error::Error;
use crate::sys::{self, Address};

/// The length of the channel. When it is full, workers keep their counts.
const QUEUE: usize = 1024;
/// The time between two lines about one endpoint.
const INTERVAL: Duration = Duration::from_secs(1);
/// The same for an unreachable endpoint. Such endpoints mostly stay unreachable, for example an
/// IPv6 address on a machine without IPv6.
const UNREACHABLE_INTERVAL: Duration = Duration::from_secs(60);
/// How long the end waits for the last lines. A worker that did not end keeps the channel open.
const PATIENCE: Duration = Duration::from_millis(250);
/// The interval at which the range of local ports is read again. Only a connect to a port in that
/// range can end up connected to itself.
const PORTS_REFRESH: Duration = Duration::from_secs(5);

/// The thread that logs failures.
pub(super) struct Failures {
    reports: SyncSender<Report>,
    ended: Receiver<Infallible>,
}

impl Failures {
    /// Starts the thread.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub(super) fn start() -> Result<Failures, Error> {
        let (reports, received) = sync_channel(QUEUE);
        let (alive, ended) = channel();
        thread::Builder::new()
            .name("endpoints".to_owned())
            .spawn(move || {
                let _alive = alive;
                follow(&received, |line| line.write());
            })
            .map_err(|error| Error::start("cannot start a thread", error, ""))?;
        tokio::spawn(follow_local_ports());
        Ok(Failures { reports, ended })
    }

    /// The channel's sender, for a worker.
    pub(super) fn reports(&self) -> SyncSender<Report> {
        self.reports.clone()
    }

    /// Waits until all reports are logged. Must be called after the workers have ended.
    pub(super) fn finish(self) {
        drop(self.reports);
        let _ = self.ended.recv_timeout(PATIENCE);
    }
}

async fn follow_local_ports() {
    loop {
        sys::refresh_local_ports();
        tokio::time::sleep(PORTS_REFRESH).await;
    }
}

/// One line about one endpoint.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    cluster: Arc<str>,
    endpoint: Address,
    /// Each reason once, in order of arrival.
    reasons: Vec<Reason>,
    failures: u64,
}

impl Line {
    fn write(&self) {
        let (cluster, endpoint) = (&self.cluster, &self.endpoint);
        let reasons: Vec<String> = self.reasons.iter().map(Reason::to_string).collect();
        let (reason, failures) = (reasons.join("; "), self.failures);
        tracing::warn!(%cluster, %endpoint, reason, failures, "endpoint failed");
    }
}

/// Sums reports and logs them, until every worker has ended.
fn follow(reports: &Receiver<Report>, log: impl Fn(Line)) {
    let mut failing = Failing::default();
    let mut next = None;
    loop {
        // With no line due later, only a report wakes this thread.
        let first = match next {
            Some(due) => {
                let patience = Instant::saturating_duration_since(&due, Instant::now());
                reports.recv_timeout(patience)
            }
            None => reports.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        let mut ended = first == Err(RecvTimeoutError::Disconnected);
        first.into_iter().for_each(|report| failing.add(report));
        loop {
            match reports.try_recv() {
                Ok(report) => failing.add(report),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    ended = true;
                    break;
                }
            }
        }
        failing.due(Instant::now(), ended).into_iter().for_each(&log);
        if ended {
            return;
        }
        next = failing.next();
    }
}

/// The failures since the last line of each endpoint, and the time of that line.
#[derive(Default)]
struct Failing {
    endpoints: HashMap<(Arc<str>, Address), State>,
}

#[derive(Default)]
struct State {
    /// The reasons of the failures since the last line.
    reasons: Vec<Reason>,
    failures: u64,
    logged: Option<Instant>,
    /// The minimum time to the next line.
    quiet: Duration,
}

impl State {
    fn due(&self) -> Option<Instant> {
        self.logged.map(|logged| logged + self.quiet)
    }
}

impl Failing {
    fn add(&mut self, report: Report) {
        let Report { cluster, endpoint, reason, failures } = report;
        let state = self.endpoints.entry((cluster, endpoint)).or_default();
        if !state.reasons.contains(&reason) {
            state.reasons.push(reason);
        }
        state.failures += failures;
        if !reason.is_unreachable() {
            state.quiet = INTERVAL;
        }
    }

    /// The lines that are due; all of them if the workers have ended. Forgets endpoints without new
    /// failures.
    fn due(&mut self, now: Instant, ended: bool) -> Vec<Line> {
        let mut lines = Vec::new();
        for ((cluster, endpoint), state) in &mut self.endpoints {
            if state.failures > 0 && (ended || state.due().is_none_or(|due| due <= now)) {
                let State { reasons, failures, logged, quiet } = state;
                *logged = Some(now);
                let unreachable = reasons.iter().all(|reason| reason.is_unreachable());
                *quiet = if unreachable { UNREACHABLE_INTERVAL } else { INTERVAL };
                let (reasons, failures) = (std::mem::take(reasons), std::mem::take(failures));
                lines.push(Line {
                    cluster: Arc::clone(cluster),
                    endpoint: endpoint.clone(),
                    reasons,
                    failures,
                });
            }
        }
        self.endpoints.retain(|_, state| state.due().is_none_or(|due| due > now));
        lines
    }

    /// When the next line or removal is due.
    fn next(&self) -> Option<Instant> {
        self.endpoints.values().filter_map(State::due).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{ConnectError, Errno};

    const REFUSED: Reason = Reason::System(ConnectError::Refused(Errno::CONNREFUSED));
    const NO_ROUTE: Reason = Reason::System(ConnectError::Unreachable(Errno::NETUNREACH));

    fn report(port: u16, reason: Reason, failures: u64) -> Report {
        let endpoint = Address::Ip(([10, 0, 0, 1], port).into());
        Report { cluster: Arc::from("c"), endpoint, reason, failures }
    }

    fn line(port: u16, reasons: &[Reason], failures: u64) -> Line {
        let Report { cluster, endpoint, .. } = report(port, REFUSED, failures);
        Line { cluster, endpoint, reasons: reasons.to_vec(), failures }
    }

    #[test]
    fn the_first_failure_is_logged_at_once_and_then_one_line_a_second() {
        let (mut failing, start) = (Failing::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        failing.add(report(1, REFUSED, 1));
        assert_eq!(failing.due(at(0), false), [line(1, &[REFUSED], 1)]);
        // The reports of two workers.
        failing.add(report(1, REFUSED, 5));
        failing.add(report(1, Reason::TimedOut, 2));
        assert_eq!(failing.due(at(900), false), []);
        assert_eq!(failing.next(), Some(at(1000)));
        assert_eq!(failing.due(at(1000), false), [line(1, &[REFUSED, Reason::TimedOut], 7)]);
        assert_eq!(failing.due(at(5000), false), []);
        assert_eq!(failing.next(), None, "it is forgotten");
        failing.add(report(1, REFUSED, 1));
        assert_eq!(failing.due(at(5001), false), [line(1, &[REFUSED], 1)]);
    }

    #[test]
    fn each_endpoint_has_lines_of_its_own() {
        let (mut failing, now) = (Failing::default(), Instant::now());
        failing.add(report(1, REFUSED, 1));
        failing.add(report(2, REFUSED, 4));
        let mut lines = failing.due(now, false);
        lines.sort_by_key(|line| line.failures);
        assert_eq!(lines, [line(1, &[REFUSED], 1), line(2, &[REFUSED], 4)]);
    }

    #[test]
    fn an_unreachable_endpoint_is_logged_once_a_minute() {
        let (mut failing, start) = (Failing::default(), Instant::now());
        failing.add(report(1, NO_ROUTE, 1));
        assert_eq!(failing.due(start, false).len(), 1);
        failing.add(report(1, NO_ROUTE, 1));
        assert_eq!(failing.due(start + Duration::from_secs(59), false), []);
        assert_eq!(failing.due(start + Duration::from_secs(60), false), [line(1, &[NO_ROUTE], 1)]);
        // Another reason has the short interval.
        failing.add(report(1, REFUSED, 1));
        assert_eq!(failing.due(start + Duration::from_secs(61), false), [line(1, &[REFUSED], 1)]);
    }

    #[test]
    fn remaining_failures_are_logged_at_the_end() {
        let (reports, received) = sync_channel(10);
        let (said, hear) = channel();
        let teller = thread::spawn(move || follow(&received, |line| said.send(line).unwrap()));
        reports.send(report(1, REFUSED, 1)).unwrap();
        let deadline = Duration::from_secs(20);
        assert_eq!(hear.recv_timeout(deadline).unwrap(), line(1, &[REFUSED], 1));
        reports.send(report(1, REFUSED, 3)).unwrap();
        drop(reports);
        assert_eq!(hear.recv_timeout(deadline).unwrap(), line(1, &[REFUSED], 3));
        teller.join().unwrap();
    }
}
