//! The comparison: every workload through ringgate and its peers, in one interleaved run.
//!
//! The machine may be busy with other things, so single figures mean little. Every round measures
//! all contenders of a workload right after each other, forwards in odd rounds and backwards in
//! even ones, and ratios are taken within the round. The proxies share one CPU in turns; load and
//! servers share another.
//!
//! Where bulk is spliced the kernel has two states on loopback, and which of them a sample meets
//! decides more than the proxy does: about 73 Gbit/s at 0.108 CPU-s/GB with the load's CPU full, or
//! 56 at 0.14 with a third of it idle. In the second one ss(8) shows the load waiting for the
//! receiver's window for 99 % of the time. The likely reason: the acknowledgements that the proxy's
//! reads cause on its CPU then make the kernel send the load's next segments there, too. How soon
//! the window fills depends on the receive buffer, which grows by the kernel's own measure of how a
//! connection began: with 32 MiB of `tcp_rmem` one through plain L4 got 24 MiB of it, and one
//! behind a handshake 5, for the same calls of the proxy. With the 6 MiB that Linux has by default
//! tunnel and plain L4 are the same.

mod balance;
mod contender;
#[cfg(test)]
mod example;
mod generators;
mod machine;
mod markdown;
mod measure;
mod memory;
mod names;
mod plan;
mod plots;
mod process;
mod results;
mod rows;
mod servers;
mod site;
mod statistics;
mod table;
mod targets;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use clap::Args;

use crate::load::idle;
use crate::load::source::Send;
use crate::{certificate, usage, while_doing};
use contender::{Programs, Running, Setup};
use measure::Manner;
use plan::Plan;
use results::{Contender, Kit, Rest, Results, Sample, Settings, Weighing};

const ROUNDS: u16 = 5;
/// How the work is called that is not a workload.
const BALANCE: &str = "balance of 4 workers";

#[derive(Args)]
pub(crate) struct Arguments {
    /// One row for each target, within 8 minutes
    #[arg(long)]
    quick: bool,
    /// Rounds; ratios are taken within one. Without --quick twice as many for what has a target
    #[arg(long, default_value_t = ROUNDS, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,
    /// Length of one timed interval; default: 1, or 0.4 with --quick
    #[arg(long, value_parser = crate::parse_seconds)]
    seconds: Option<Duration>,
    /// Only work whose name contains this, for example "bulk down", "idle" or "balance"
    #[arg(long)]
    only: Option<String>,
    /// Leave out contenders whose name contains this
    #[arg(long)]
    without: Vec<String>,
    /// How bulk is sent
    #[arg(long, value_enum, default_value = "pages")]
    send: Send,
    /// Where results.json, report.md and the plots go
    #[arg(long)]
    output: PathBuf,
    /// CPU that the proxies run on, in turns
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=63))]
    proxy_cpu: u16,
    /// CPU that load and servers run on
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(0..=63))]
    load_cpu: u16,
    /// The proxy under test; default: the program `ringgate` beside this one
    #[arg(long)]
    ringgate: Option<PathBuf>,
    #[arg(long, default_value = "/usr/sbin/nginx")]
    nginx: PathBuf,
    /// nginx's module for L4
    #[arg(long, default_value = "/usr/lib/nginx/modules/ngx_stream_module.so")]
    stream_module: PathBuf,
    #[arg(long, default_value = "/usr/sbin/haproxy")]
    haproxy: PathBuf,
    /// v2ray-plugin
    #[arg(long, default_value = "/usr/bin/ss-v2ray-plugin")]
    v2ray_plugin: PathBuf,
    /// OpenSSL's program, whose s_time makes handshakes
    #[arg(long, default_value = "/usr/bin/openssl")]
    openssl: PathBuf,
    #[arg(long, default_value = "/usr/bin/hey")]
    hey: PathBuf,
    #[arg(long, default_value = "/usr/bin/wrk")]
    wrk: PathBuf,
    /// nghttp2's generator of HTTP/2
    #[arg(long, default_value = "/usr/bin/h2load")]
    h2load: PathBuf,
    #[arg(long, default_value = "/usr/bin/caddy")]
    caddy: PathBuf,
    /// Envoy; without it the comparison is one without Envoy
    #[arg(long)]
    envoy: Option<PathBuf>,
}

pub(crate) fn main(arguments: &Arguments) -> io::Result<()> {
    usage::raise_file_limit()?;
    usage::pin(arguments.proxy_cpu.into())?;
    usage::pin(arguments.load_cpu.into())?;
    if arguments.proxy_cpu == arguments.load_cpu {
        return Err(io::Error::other("--proxy-cpu and --load-cpu must be two CPUs"));
    }
    let plan = arguments.plan()?;
    // Not after half an hour.
    fs::create_dir_all(&arguments.output)
        .and_then(|()| tempfile::tempfile_in(&arguments.output))
        .map_err(while_doing(format!("cannot write to {}", arguments.output.display())))?;
    let manner = arguments.manner();

    // 1. The servers, on this process's CPU.
    let servers = servers::start(manner.send)?;
    let directory = tempfile::Builder::new()
        .prefix("ringgate-bench-")
        .permissions(fs::Permissions::from_mode(0o755))
        .tempdir()?;
    let setup = Setup {
        programs: arguments.programs()?,
        servers,
        proxy_cpu: arguments.proxy_cpu,
        load_cpu: arguments.load_cpu,
        directory: directory.path().to_owned(),
        certificate: certificate::write(directory.path())?,
        root: site::write(directory.path())?,
    };
    let mut results = Results {
        machine: machine::describe()?,
        settings: arguments.settings(manner),
        versions: versions(&setup.programs)?,
        samples: Vec::new(),
        weights: Vec::new(),
        balance: Vec::new(),
        failures: Vec::new(),
    };

    // 2. What went well before an error is told, too.
    let outcome = measure_all(&plan, &setup, manner, &mut results);
    if !(results.samples.is_empty() && results.weights.is_empty() && results.balance.is_empty()) {
        report(&arguments.output, &results)?;
    }
    outcome
}

fn measure_all(
    plan: &Plan,
    setup: &Setup,
    manner: Manner,
    results: &mut Results,
) -> io::Result<()> {
    // 1. Memory: of fresh processes, as one that has carried load has free memory to hide growth
    //    in.
    for &contender in &plan.weighed {
        for (rest, steps) in &plan.rests {
            let running = Running::start(contender, rest.kit(), setup)?;
            eprintln!("{contender}: {rest}, {steps:?}");
            let weights = weigh(&running, *rest, steps)
                .map_err(while_doing(format!("{rest} of {contender}")))?;
            results.weights.extend(weights);
        }
    }

    // 2. The rounds.
    compare(plan, setup, manner, results)?;

    // 3. The balance over workers.
    if plan.balance_trials > 0 {
        let running = Running::start(Contender::RinggateFour, Kit::Plain, setup)?;
        for trial in 1..=plan.balance_trials {
            eprintln!("{BALANCE}: trial {trial} of {}", plan.balance_trials);
            results.balance.push(balance::trial(&running)?);
        }
    }
    Ok(())
}

impl Arguments {
    fn plan(&self) -> io::Result<Plan> {
        let mut plan = if self.quick { Plan::quick() } else { Plan::full() };
        if let Some(part) = &self.only {
            let names = plan.names();
            if !names.iter().any(|name| name.contains(part.as_str())) {
                let message = format!("no work is called {part}; there is:\n{}", names.join("\n"));
                return Err(io::Error::other(message));
            }
            let wanted = |name: String| name.contains(part.as_str());
            plan.comparisons.retain(|(workload, _)| wanted(workload.to_string()));
            plan.rests.retain(|(rest, _)| wanted(rest.to_string()));
            if !wanted(BALANCE.to_string()) {
                plan.balance_trials = 0;
            }
        }
        let stays = |contender: &Contender| {
            let name = contender.to_string();
            let envoy = *contender == Contender::Envoy && self.envoy.is_none();
            !envoy && !self.without.iter().any(|part| name.contains(part.as_str()))
        };
        plan.weighed.retain(stays);
        for (_, contenders) in &mut plan.comparisons {
            contenders.retain(stays);
        }
        plan.comparisons.retain(|(_, contenders)| !contenders.is_empty());
        Ok(plan)
    }

    /// What was asked for, as it is to be asked for again.
    fn command(&self) -> String {
        let mut command = "scripts/bench".to_string();
        if self.quick {
            command.push_str(" --quick");
        }
        if let Some(part) = &self.only {
            command.push_str(&format!(" --only '{part}'"));
        }
        if self.rounds != ROUNDS {
            command.push_str(&format!(" --rounds {}", self.rounds));
        }
        if let Some(seconds) = self.seconds {
            command.push_str(&format!(" --seconds {}", seconds.as_secs_f64()));
        }
        self.without.iter().for_each(|part| command.push_str(&format!(" --without '{part}'")));
        if self.send != Send::Pages {
            command.push_str(&format!(" --send {}", self.send_name()));
        }
        command
    }

    fn send_name(&self) -> String {
        format!("{:?}", self.send).to_lowercase()
    }

    fn manner(&self) -> Manner {
        let (seconds, warmup) = if self.quick { (400, 150) } else { (1000, 300) };
        Manner {
            seconds: self.seconds.unwrap_or(Duration::from_millis(seconds)),
            warmup: Duration::from_millis(warmup),
            send: self.send,
        }
    }

    fn settings(&self, manner: Manner) -> Settings {
        Settings {
            quick: self.quick,
            rounds: self.rounds,
            seconds: manner.seconds.as_secs_f64(),
            warmup: manner.warmup.as_secs_f64(),
            send: self.send_name(),
            command: self.command(),
            proxy_cpu: self.proxy_cpu,
            load_cpu: self.load_cpu,
        }
    }

    fn programs(&self) -> io::Result<Programs> {
        let ringgate = match &self.ringgate {
            Some(path) => path.clone(),
            None => std::env::current_exe()?.with_file_name("ringgate"),
        };
        Ok(Programs {
            ringgate,
            nginx: self.nginx.clone(),
            stream_module: self.stream_module.clone(),
            haproxy: self.haproxy.clone(),
            envoy: self.envoy.clone(),
            v2ray: self.v2ray_plugin.clone(),
            openssl: self.openssl.clone(),
            hey: self.hey.clone(),
            wrk: self.wrk.clone(),
            h2load: self.h2load.clone(),
            caddy: self.caddy.clone(),
        })
    }
}

fn versions(programs: &Programs) -> io::Result<BTreeMap<Contender, String>> {
    let mut versions = BTreeMap::new();
    use Contender::{Caddy, Envoy, Haproxy, Nginx, Ringgate, V2ray};
    for contender in [Ringgate, Nginx, Haproxy, Envoy, Caddy, V2ray] {
        if let Some(version) = contender::describe(contender, programs)? {
            eprintln!("{version}");
            versions.insert(contender, version);
        }
    }
    Ok(versions)
}

fn weigh(running: &Running, rest: Rest, steps: &[u16]) -> io::Result<Vec<Weighing>> {
    let pid = running.only_pid()?;
    let (target, touch) = match rest {
        Rest::Pairs | Rest::Tls => {
            (measure::target(running, |ports| ports.small), idle::Touch::Echo)
        }
        Rest::KeepAlive => (measure::target(running, |ports| ports.web), idle::Touch::Http),
    };
    let load = idle::Load { touch, steps: steps.to_vec() };
    let weights = idle::run(&target, pid, &load)?;
    let weighing = |weight: idle::Weight| Weighing {
        contender: running.contender,
        rest,
        connections: weight.connections,
        closed: weight.closed,
        anonymous: weight.anonymous,
        rss: weight.rss,
        descriptors: weight.descriptors,
    };
    Ok(weights.into_iter().map(weighing).collect())
}

/// Workload by workload, and each of them round by round.
fn compare(plan: &Plan, setup: &Setup, manner: Manner, results: &mut Results) -> io::Result<()> {
    // A contender that the next workload does not need would take turns on the CPU meanwhile.
    let mut running: Vec<Running> = Vec::new();
    for (workload, contenders) in &plan.comparisons {
        let kit = workload.kit();
        running.retain(|running| running.kit == kit && contenders.contains(&running.contender));
        if workload.is_mixed() {
            // The latency of the small messages is to be the proxy's. Nothing else comes after it.
            servers::BULK_GIVES_WAY.store(true, Ordering::Relaxed);
        }
        for &contender in contenders {
            if !running.iter().any(|running| running.contender == contender) {
                running.push(Running::start(contender, kit, setup)?);
            }
        }
        let settings = &results.settings;
        let rounds = Plan::rounds(*workload, settings.rounds, settings.quick);
        for round in 1..=rounds {
            let mut order = contenders.clone();
            order.rotate_left(usize::from(round - 1) % contenders.len());
            if round % 2 == 0 {
                order.reverse();
            }
            for contender in order {
                let Some(running) = running.iter().find(|one| one.contender == contender) else {
                    continue;
                };
                let sample = measure::sample(running, &setup.programs, *workload, manner, round)
                    .map_err(while_doing(format!("{workload} through {contender}, round {round}")));
                let sample = match sample {
                    Ok(sample) => sample,
                    // A peer that fails under a load is a result, too; that we do is an error.
                    Err(failure) if contender.is_peer() => {
                        eprintln!("{failure}");
                        results.failures.push(failure.to_string());
                        continue;
                    }
                    Err(error) => return Err(error),
                };
                progress(&sample, rounds);
                results.samples.push(sample);
            }
        }
    }
    Ok(())
}

fn report(directory: &Path, results: &Results) -> io::Result<()> {
    fs::create_dir_all(directory).map_err(while_doing(directory.display()))?;
    plots::remove(directory)?;
    let verdicts = targets::judge(results);
    fs::write(directory.join("results.json"), serde_json::to_string_pretty(results)? + "\n")?;
    fs::write(directory.join("report.md"), markdown::text(results, &verdicts))?;
    plots::write(results, directory)?;
    table::print(results, &verdicts);
    println!("\nreport.md, results.json and plots are in {}", directory.display());
    Ok(())
}

/// One line while the run goes on.
fn progress(sample: &Sample, rounds: u16) {
    let units = sample.workload.units();
    let (workload, contender, round) = (sample.workload, sample.contender, sample.round);
    let rate = sample.rate * units.rate_factor;
    eprint!("{round}/{rounds} {workload}: {contender} {rate:.2} {}", units.rate);
    if let Some(cost) = sample.cost {
        eprint!(", {:.3} {}", cost * units.cost_factor, units.cost);
    }
    if let Some(latency) = sample.latency {
        eprint!(", p99 {:.0} us", latency.p99);
    }
    eprintln!();
}
