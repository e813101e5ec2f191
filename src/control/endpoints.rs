//! Diagnostics about endpoints that fail: at most one line a second for each endpoint, for any
//! number of connections, workers and attempts.
//!
//! Workers count failures and send the counts over a bounded channel. A separate thread sums them
//! and logs, so that a slow log delays no worker, no look-up and no signal.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, channel, sync_channel};
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
const FINISH_LIMIT: Duration = Duration::from_millis(250);
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
                log_reports(&received, |line| line.write());
            })
            .map_err(|error| Error::start("cannot start a thread", error, ""))?;
        tokio::spawn(refresh_local_ports());
        Ok(Failures { reports, ended })
    }

    /// The channel's sender, for a worker.
    pub(super) fn reports(&self) -> SyncSender<Report> {
        self.reports.clone()
    }

    /// Waits until all reports are logged. Must be called after the workers have ended.
    pub(super) fn finish(self) {
        drop(self.reports);
        let _ = self.ended.recv_timeout(FINISH_LIMIT);
    }
}

async fn refresh_local_ports() {
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
fn log_reports(reports: &Receiver<Report>, log: impl Fn(Line)) {
    let mut summary = Summary::default();
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
        let ended = first == Err(RecvTimeoutError::Disconnected);
        first.into_iter().chain(reports.try_iter()).for_each(|report| summary.add(report));
        summary.take_due(Instant::now(), ended).into_iter().for_each(&log);
        if ended {
            return;
        }
        next = summary.next();
    }
}

/// The failures since the last line of each endpoint, and the time of that line.
#[derive(Default)]
struct Summary {
    endpoints: HashMap<(Arc<str>, Address), EndpointFailures>,
}

#[derive(Default)]
struct EndpointFailures {
    /// The reasons of the failures since the last line.
    reasons: Vec<Reason>,
    failures: u64,
    logged: Option<Instant>,
    /// The minimum time to the next line.
    quiet: Duration,
}

impl EndpointFailures {
    fn due(&self) -> Option<Instant> {
        self.logged.map(|logged| logged + self.quiet)
    }
}

impl Summary {
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
    fn take_due(&mut self, now: Instant, ended: bool) -> Vec<Line> {
        let mut lines = Vec::new();
        for ((cluster, endpoint), state) in &mut self.endpoints {
            if state.failures > 0 && (ended || state.due().is_none_or(|due| due <= now)) {
                let EndpointFailures { reasons, failures, logged, quiet } = state;
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
        self.endpoints.values().filter_map(EndpointFailures::due).min()
    }
}

#[cfg(test)]
mod tests;
