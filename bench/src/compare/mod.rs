//! ringgate and nginx side by side, in one interleaved run.
//!
//! The machine may be busy with other things, so single figures mean little: every round measures
//! both proxies right after each other, in alternating order, and the ratios are taken within the
//! round. The proxies share one CPU in turns; load and sinks share another.

mod measure;
mod report;
mod servers;

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;

use crate::idle;
use crate::sink::{self, Manner};
use crate::{usage, while_doing};
use measure::{Sample, Work};
use servers::{Ports, Servers};

/// The sinks end by themselves after this time, whatever happens to the run.
const RUN_LIMIT: Duration = Duration::from_secs(3600);

#[derive(Args)]
pub(crate) struct Arguments {
    /// The proxy under test; default: the program `ringgate` beside this one
    #[arg(long)]
    ringgate: Option<PathBuf>,
    #[arg(long, default_value = "/usr/sbin/nginx")]
    nginx: PathBuf,
    /// nginx's module for L4
    #[arg(long, default_value = "/usr/lib/nginx/modules/ngx_stream_module.so")]
    stream_module: PathBuf,
    /// nginx's buffer for bulk, per connection and direction
    #[arg(long, default_value = "1m")]
    nginx_buffer: String,
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,
    /// Length of one measurement
    #[arg(long, default_value = "3", value_parser = crate::parse_seconds)]
    seconds: Duration,
    /// Idle connections held through each proxy
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u16).range(1..=8000))]
    pairs: u16,
    /// CPU that the proxies run on, in turns
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=63))]
    proxy_cpu: u16,
    /// CPU that load and sinks run on
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(0..=63))]
    load_cpu: u16,
    /// Measure only work whose name contains this, for example L4 or stream
    #[arg(long)]
    only: Option<String>,
    /// Read the bytes at the receiving end instead of having the kernel drop them
    #[arg(long)]
    copy: bool,
    /// Print one JSON object instead of the table
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Proxy {
    Ringgate,
    Nginx,
}

pub(crate) const PROXIES: [Proxy; 2] = [Proxy::Ringgate, Proxy::Nginx];

/// All that was measured: one sample per work, proxy and round.
pub(crate) struct Results {
    pub(crate) samples: Vec<(Work, Proxy, Sample)>,
    pub(crate) idle: Vec<(Proxy, idle::Outcome)>,
}

pub(crate) fn main(arguments: &Arguments) -> io::Result<()> {
    usage::raise_file_limit()?;
    usage::pin(arguments.load_cpu.into())?;

    // 1. The sinks, on this process's CPU.
    let ports = Ports::choose()?;
    start_sink(ports.sink, false, arguments.copy)?;
    start_sink(ports.upgrade_sink, true, arguments.copy)?;

    // 2. The proxies; whatever way this function is left, they end with `servers`.
    let servers = Servers::start(arguments, &ports)?;
    eprintln!("{}", servers.versions);

    // 3. Idle memory first: a proxy that has carried load has free memory to hide growth in.
    let mut results = Results { samples: Vec::new(), idle: Vec::new() };
    for proxy in PROXIES {
        eprintln!("idle pairs: {proxy:?}");
        results.idle.push((proxy, measure::idle(arguments, &servers, &ports, proxy)?));
    }

    // 4. The rounds, with the order turned in every other one.
    let works: Vec<Work> =
        measure::WORKS.into_iter().filter(|work| wanted(arguments, *work)).collect();
    for round in 1..=arguments.rounds {
        for &work in &works {
            let mut order = PROXIES;
            if round % 2 == 0 {
                order.reverse();
            }
            for proxy in order {
                let sample = measure::measure(arguments, &servers, &ports, proxy, work)
                    .map_err(while_doing(format!("{} through {proxy:?}", work.name())))?;
                let line = report::progress(work, &sample);
                eprintln!("round {round} of {}: {proxy:?} {line}", arguments.rounds);
                results.samples.push((work, proxy, sample));
            }
        }
    }

    // 5. The proxies end before the figures are told.
    let versions = servers.versions.clone();
    drop(servers);
    if arguments.json {
        println!("{}", report::json(&versions, &results));
    } else {
        report::print(&versions, arguments.rounds, arguments.seconds, &results);
    }
    Ok(())
}

fn wanted(arguments: &Arguments, work: Work) -> bool {
    arguments.only.as_ref().is_none_or(|part| work.name().contains(part.as_str()))
}

fn start_sink(port: u16, upgrade: bool, copy: bool) -> io::Result<()> {
    let listener = sink::listen(([127, 0, 0, 1], port).into())?;
    let manner = Manner { upgrade, discard: sink::discard(copy) };
    std::thread::spawn(move || {
        if let Err(error) = sink::serve(listener, manner, Instant::now() + RUN_LIMIT) {
            eprintln!("ringgate-bench: the sink failed: {error}");
        }
    });
    Ok(())
}
