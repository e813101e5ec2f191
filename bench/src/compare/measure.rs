//! The kinds of work that are compared, and how one sample of each is taken.

use std::io;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::servers::{Ports, Servers};
use super::{Arguments, Proxy};
use crate::bulk::{self, Direction};
use crate::dial::Target;
use crate::{echo, idle, usage, while_doing};

const BULK_CONNECTIONS: u16 = 16;
const SMALL_CONNECTIONS: u16 = 64;
const SMALL_SIZE: u16 = 100;
const WARMUP: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Work {
    L4Up,
    L4Down,
    StreamUp,
    StreamDown,
    Redirects,
    RoundTrips,
}

pub(crate) const WORKS: [Work; 6] =
    [Work::L4Up, Work::L4Down, Work::StreamUp, Work::StreamDown, Work::Redirects, Work::RoundTrips];

impl Work {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::L4Up => "bulk L4 up",
            Self::L4Down => "bulk L4 down",
            Self::StreamUp => "bulk /stream up",
            Self::StreamDown => "bulk /stream down",
            Self::Redirects => "301, 64 connections",
            Self::RoundTrips => "100 B round trips, 64 connections",
        }
    }

    /// What `Sample::rate` counts.
    pub(crate) fn rate_unit(self) -> &'static str {
        match self {
            Self::L4Up | Self::L4Down | Self::StreamUp | Self::StreamDown => "Gbit/s",
            Self::Redirects | Self::RoundTrips => "k/s",
        }
    }

    /// What `Sample::cost` counts.
    pub(crate) fn cost_unit(self) -> &'static str {
        match self {
            Self::L4Up | Self::L4Down | Self::StreamUp | Self::StreamDown => "CPU-s/GB",
            Self::Redirects | Self::RoundTrips => "CPU-s/M",
        }
    }
}

/// One measurement of one proxy at one kind of work.
#[derive(Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) rate: f64,
    /// CPU seconds of the proxy per unit of work.
    pub(crate) cost: f64,
    /// The share of its CPU that the proxy used: well under 1, the load was the limit and not it.
    pub(crate) busy: f64,
}

pub(crate) fn measure(
    arguments: &Arguments,
    servers: &Servers,
    ports: &Ports,
    proxy: Proxy,
    work: Work,
) -> io::Result<Sample> {
    let pid = servers.pid(proxy);
    match work {
        Work::L4Up => bulk(arguments, target(ports.l4(proxy), None, pid), Direction::Up),
        Work::L4Down => bulk(arguments, target(ports.l4(proxy), None, pid), Direction::Down),
        Work::StreamUp => bulk(arguments, stream_target(ports, proxy, pid), Direction::Up),
        Work::StreamDown => bulk(arguments, stream_target(ports, proxy, pid), Direction::Down),
        Work::Redirects => redirects(arguments, ports.web(proxy), pid),
        Work::RoundTrips => round_trips(arguments, target(ports.l4(proxy), None, pid)),
    }
}

/// Idle pairs, each of which has carried one byte there and back.
pub(crate) fn idle(
    arguments: &Arguments,
    servers: &Servers,
    ports: &Ports,
    proxy: Proxy,
) -> io::Result<idle::Outcome> {
    let pid = servers.pid(proxy);
    let load = idle::Load { connections: arguments.pairs, touch: idle::Touch::Echo };
    idle::run(&target(ports.idle(proxy), None, pid), &load, pid)
}

fn stream_target(ports: &Ports, proxy: Proxy, pid: u32) -> Target {
    target(ports.web(proxy), Some("/stream".to_string()), pid)
}

fn target(connect: SocketAddr, path: Option<String>, pid: u32) -> Target {
    let host = "live.example.com".to_string();
    Target { connect, path, host, pid: Some(pid), cpu: None, json: false }
}

fn bulk(arguments: &Arguments, target: Target, direction: Direction) -> io::Result<Sample> {
    let load = bulk::Load {
        direction,
        connections: BULK_CONNECTIONS,
        seconds: arguments.seconds,
        warmup: WARMUP,
        bytes: None,
        copy: arguments.copy,
    };
    let outcome = bulk::run(&target, &load)?;
    let cpu = outcome.cpu_seconds.unwrap_or_default();
    Ok(Sample {
        rate: outcome.gbit_per_s(),
        cost: outcome.cpu_seconds_per_gb().unwrap_or_default(),
        busy: cpu / outcome.seconds,
    })
}

fn round_trips(arguments: &Arguments, target: Target) -> io::Result<Sample> {
    let load = echo::Load {
        connections: SMALL_CONNECTIONS,
        size: SMALL_SIZE,
        seconds: arguments.seconds,
        warmup: WARMUP,
    };
    let outcome = echo::run(&target, &load)?;
    let cpu = outcome.cpu_seconds.unwrap_or_default();
    Ok(Sample {
        rate: outcome.per_second() / 1e3,
        cost: outcome.cpu_seconds_per_million().unwrap_or_default(),
        busy: cpu / outcome.seconds,
    })
}

/// wrk runs on this thread's CPU, which it inherits.
fn redirects(arguments: &Arguments, web: SocketAddr, pid: u32) -> io::Result<Sample> {
    let seconds = arguments.seconds.as_secs().max(1);
    let before = usage::cpu_seconds(pid)?;
    let start = Instant::now();
    let output = Command::new("wrk")
        .args(["-c64", "-t1", &format!("-d{seconds}s"), &format!("http://{web}/some/path?x=1")])
        .stdin(Stdio::null())
        .output()
        .map_err(while_doing("cannot run wrk"))?;
    let (elapsed, cpu) = (start.elapsed().as_secs_f64(), usage::cpu_seconds(pid)? - before);
    let text = String::from_utf8_lossy(&output.stdout);
    let run = WrkRun::read(&text)
        .ok_or_else(|| io::Error::other(format!("cannot read what wrk said:\n{text}")))?;
    // An answer in error costs a proxy less than the answer that was asked for.
    if run.errors {
        return Err(io::Error::other(format!("wrk saw errors:\n{text}")));
    }
    Ok(Sample { rate: run.per_second / 1e3, cost: cpu / (run.requests / 1e6), busy: cpu / elapsed })
}

struct WrkRun {
    requests: f64,
    per_second: f64,
    errors: bool,
}

impl WrkRun {
    fn read(text: &str) -> Option<Self> {
        let count = text.lines().find(|line| line.contains(" requests in "))?;
        let rate = text.lines().find_map(|line| line.strip_prefix("Requests/sec:"))?;
        Some(Self {
            requests: count.split_ascii_whitespace().next()?.parse().ok()?,
            per_second: rate.trim().parse().ok()?,
            errors: text.contains("Socket errors:") || text.contains("Non-2xx or 3xx"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_of_wrk_are_found_and_its_errors_noticed() {
        let text = "Running 3s test @ http://127.0.0.1:1/\n  1 threads and 64 connections\n  \
                    176829 requests in 3.01s, 62.90MB read\nRequests/sec:  58684.24\n";
        let run = WrkRun::read(text).unwrap();
        assert!((run.requests, run.per_second, run.errors) == (176_829.0, 58_684.24, false));
        let text = format!("{text}  Non-2xx or 3xx responses: 4\n");
        assert!(WrkRun::read(&text).unwrap().errors);
        assert!(WrkRun::read("unable to connect").is_none());
    }
}
