//! Taking one sample: a load against a contender.

use std::io;
use std::time::Duration;

use super::contender::{Ports, Programs, Running, local};
use super::results::{Contender, Generator, Kit, Latency, Sample, Workload};
use super::{generators, servers, site};
use crate::certificate::HOST;
use crate::load;
use crate::load::bulk::Direction;
use crate::load::churn::Kind;
use crate::load::dial::Target;
use crate::load::source::Send;

/// How long, and how.
#[derive(Clone, Copy)]
pub(super) struct Manner {
    pub(super) seconds: Duration,
    pub(super) warmup: Duration,
    pub(super) send: Send,
}

/// A target at one of the contender's ports.
pub(super) fn target(running: &Running, port: impl Fn(&Ports) -> u16) -> Target {
    Target {
        connect: local(port(&running.ports)),
        path: None,
        framed: false,
        host: HOST.to_string(),
        tls: running.certificate.clone(),
        pids: running.pids.clone(),
        cpu: None,
        json: false,
    }
}

/// Runs the workload once.
pub(super) fn sample(
    running: &Running,
    programs: &Programs,
    workload: Workload,
    manner: Manner,
    round: u16,
) -> io::Result<Sample> {
    let (outcome, beside) = run(running, programs, workload, manner)?;
    let cpu = outcome.cpu_seconds;
    // What bulk costs cannot be told from what the messages beside it cost.
    let own = cpu.filter(|_| beside.is_none());
    let latency = outcome.latency.map(|latency| Latency {
        p50: latency.quantile_us(0.5),
        p99: latency.quantile_us(0.99),
        p999: latency.quantile_us(0.999),
    });
    Ok(Sample {
        workload,
        contender: running.contender,
        round,
        rate: outcome.units as f64 / outcome.seconds,
        cost: own.map(|cpu| cpu / outcome.units as f64),
        busy: cpu.map(|cpu| cpu / outcome.seconds),
        load_busy: outcome.load_cpu_seconds / outcome.seconds,
        latency,
        beside: beside.map(|bytes| bytes as f64 / outcome.seconds),
    })
}

/// What was measured, and the bytes of the bulk beside it.
fn run(
    running: &Running,
    programs: &Programs,
    workload: Workload,
    manner: Manner,
) -> io::Result<(load::Outcome, Option<u64>)> {
    if workload.kit() == Kit::Site {
        return site::run(running, programs, workload, manner);
    }
    let l4 = target(running, |ports| ports.bulk);
    let small = target(running, |ports| ports.small);
    let web = target(running, |ports| ports.web);
    let tunnel = Target { path: Some("/stream".into()), ..target(running, |ports| ports.stream) };
    let obfs = match running.contender {
        Contender::RinggateL4 => l4.clone(),
        _ => Target { path: Some("/obfs".into()), ..web.clone() },
    };
    let framed = Target { path: Some("/framed".into()), framed: true, ..web.clone() };
    let wss = Target { framed: true, ..tunnel.clone() };
    if workload.generator() != Generator::Own {
        return Ok((generators::run(programs, &small, &web, workload, manner.seconds)?, None));
    }
    let outcome = match workload {
        Workload::BulkUp { connections } | Workload::TlsUp { connections } => {
            bulk(&l4, Direction::Up, connections, manner)
        }
        Workload::BulkDown { connections } | Workload::TlsDown { connections } => {
            bulk(&l4, Direction::Down, connections, manner)
        }
        Workload::StreamUp { connections } => bulk(&tunnel, Direction::Up, connections, manner),
        Workload::StreamDown { connections } => bulk(&tunnel, Direction::Down, connections, manner),
        Workload::ObfsUp { connections } => bulk(&obfs, Direction::Up, connections, manner),
        Workload::ObfsDown { connections } => bulk(&obfs, Direction::Down, connections, manner),
        Workload::WebSocketUp { connections } => bulk(&framed, Direction::Up, connections, manner),
        Workload::WebSocketDown { connections } => {
            bulk(&framed, Direction::Down, connections, manner)
        }
        Workload::WssUp { connections } => bulk(&wss, Direction::Up, connections, manner),
        Workload::WssDown { connections } => bulk(&wss, Direction::Down, connections, manner),
        Workload::RoundTrips { connections, size }
        | Workload::TlsRoundTrips { connections, size } => echo(&small, connections, size, manner),
        Workload::StreamRoundTrips { connections, size } => {
            echo(&tunnel, connections, size, manner)
        }
        Workload::Churn { connections } => {
            churn(&small, connections, Kind::Echo { size: 100 }, manner)
        }
        Workload::RedirectsOnce { connections } => churn(&web, connections, Kind::Redirect, manner),
        Workload::Handshakes { connections, .. } => handshakes(&small, connections, false, manner),
        Workload::Resumptions { connections, .. } => handshakes(&small, connections, true, manner),
        Workload::Redirects { connections } | Workload::TlsRedirects { connections, .. } => {
            let Manner { seconds, warmup, .. } = manner;
            let request = load::http::Request::redirect();
            let load = load::keepalive::Load { request, connections, seconds, warmup };
            load::keepalive::run(&web, &load)
        }
        Workload::Datagrams { clients, size, burst } => {
            let Manner { seconds, warmup, .. } = manner;
            let load = load::datagrams::Load { clients, size, burst, seconds, warmup };
            load::datagrams::run(&target(running, |ports| ports.udp), &load)
        }
        Workload::Mixed { bulk, small: connections } => {
            let Manner { seconds, warmup, send } = manner;
            let load =
                load::mixed::Load { bulk, small: connections, size: 100, send, seconds, warmup };
            let outcome = load::mixed::run(&small, &l4, &load)?;
            return Ok((outcome.small, Some(outcome.bulk_bytes)));
        }
        // Above.
        Workload::SiteAnswers { .. }
        | Workload::SiteUploads { .. }
        | Workload::SiteFiles { .. }
        | Workload::SiteStreams { .. }
        | Workload::SiteMixed { .. } => Err(io::Error::other("a workload of the site")),
    };
    Ok((outcome?, None))
}

fn bulk(
    target: &Target,
    direction: Direction,
    connections: u16,
    manner: Manner,
) -> io::Result<load::Outcome> {
    let Manner { seconds, warmup, send } = manner;
    let load = load::bulk::Load {
        direction,
        connections,
        seconds,
        warmup,
        bytes: None,
        send,
        copy: false,
    };
    load::bulk::run_counting(target, &load, Some(&servers::ARRIVED))
}

fn echo(target: &Target, connections: u16, size: u16, manner: Manner) -> io::Result<load::Outcome> {
    let Manner { seconds, warmup, .. } = manner;
    load::echo::run(target, &load::echo::Load { connections, size, seconds, warmup })
}

fn churn(
    target: &Target,
    connections: u16,
    kind: Kind,
    manner: Manner,
) -> io::Result<load::Outcome> {
    let Manner { seconds, warmup, .. } = manner;
    load::churn::run(target, &load::churn::Load { connections, kind, seconds, warmup })
}

fn handshakes(
    target: &Target,
    connections: u16,
    resumed: bool,
    manner: Manner,
) -> io::Result<load::Outcome> {
    let Manner { seconds, warmup, .. } = manner;
    load::handshakes::run(target, &load::handshakes::Load { connections, resumed, seconds, warmup })
}
