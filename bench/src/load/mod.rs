//! The loads: each makes one kind of traffic for a time and says what it measured.

pub(crate) mod bulk;
pub(crate) mod churn;
pub(crate) mod command;
pub(crate) mod datagrams;
pub(crate) mod dial;
pub(crate) mod echo;
mod exchange;
pub(crate) mod handshakes;
pub(crate) mod histogram;
pub(crate) mod http;
pub(crate) mod idle;
pub(crate) mod keepalive;
pub(crate) mod mixed;
pub(crate) mod poller;
pub(crate) mod source;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod tls;
pub(crate) mod transfers;
pub(crate) mod wire;

use std::io;
use std::time::Instant;

use crate::usage;
use dial::Target;
use histogram::Histogram;

/// What one timed run measured.
pub(crate) struct Outcome {
    /// Bytes, round trips, connections or requests.
    pub(crate) units: u64,
    /// Length of the timed interval.
    pub(crate) seconds: f64,
    /// CPU time of the watched processes in the interval, all their threads.
    pub(crate) cpu_seconds: Option<f64>,
    /// CPU time of this process in the interval, all its threads.
    pub(crate) load_cpu_seconds: f64,
    pub(crate) latency: Option<Histogram>,
}

impl Outcome {
    pub(crate) fn per_second(&self) -> f64 {
        self.units as f64 / self.seconds
    }

    pub(crate) fn gbit_per_s(&self) -> f64 {
        self.per_second() * 8.0 / 1e9
    }

    pub(crate) fn cpu_seconds_per_million(&self) -> Option<f64> {
        self.cpu_seconds.map(|cpu| cpu / (self.units as f64 / 1e6))
    }

    pub(crate) fn cpu_seconds_per_gb(&self) -> Option<f64> {
        self.cpu_seconds.map(|cpu| cpu / (self.units as f64 / 1e9))
    }
}

/// What the clocks said when a timed interval began.
struct Meter {
    pids: Vec<u32>,
    cpu_seconds: Option<f64>,
    load_cpu_seconds: f64,
    start: Instant,
}

impl Meter {
    fn start(target: &Target) -> io::Result<Self> {
        Ok(Self {
            pids: target.pids.clone(),
            cpu_seconds: usage::cpu_seconds_of(&target.pids)?,
            load_cpu_seconds: usage::own_cpu_seconds(),
            start: Instant::now(),
        })
    }

    /// Ends the interval; a run in which nothing happened is an error.
    fn stop(self, units: u64, latency: Option<Histogram>) -> io::Result<Outcome> {
        let seconds = self.start.elapsed().as_secs_f64();
        let load_cpu_seconds = usage::own_cpu_seconds() - self.load_cpu_seconds;
        let cpu_seconds = usage::cpu_seconds_of(&self.pids)?;
        let cpu_seconds = cpu_seconds.zip(self.cpu_seconds).map(|(after, before)| after - before);
        if units == 0 {
            return Err(io::Error::other(format!("nothing came through in {seconds:.2} s")));
        }
        Ok(Outcome { units, seconds, cpu_seconds, load_cpu_seconds, latency })
    }
}
