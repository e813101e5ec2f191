//! Made-up results for the tests of the report.

use std::collections::BTreeMap;

use super::results::{
    Balance, Contender, Generator, Latency, Machine, Rest, Results, Sample, Settings, Weighing,
    Workload,
};
use super::targets::Verdict;

const ROUNDS: u16 = 5;

/// A run that measured nothing.
pub(crate) fn nothing() -> Results {
    Results {
        machine: Machine {
            cpu: "Example CPU 2.0 GHz".to_string(),
            cpus: 2,
            memory_bytes: 8 << 30,
            kernel: "Linux 6.12.0".to_string(),
            congestion_control: "cubic".to_string(),
            user: "root".to_string(),
            date: "2030-01-31".to_string(),
        },
        settings: Settings {
            quick: true,
            rounds: ROUNDS,
            seconds: 3.0,
            warmup: 0.5,
            send: "copy".to_string(),
            command: "scripts/bench".to_string(),
            proxy_cpu: 0,
            load_cpu: 1,
        },
        versions: BTreeMap::new(),
        samples: Vec::new(),
        weights: Vec::new(),
        balance: Vec::new(),
        failures: Vec::new(),
    }
}

pub(crate) fn sample(workload: Workload, contender: Contender, round: u16, rate: f64) -> Sample {
    Sample {
        workload,
        contender,
        round,
        rate,
        cost: Some(0.98 / rate),
        busy: Some(0.98),
        load_busy: 0.6,
        latency: None,
        beside: None,
    }
}

pub(crate) fn latency(p50: f64, p99: f64, p999: f64) -> Latency {
    Latency { p50, p99, p999 }
}

pub(crate) fn weighing(contender: Contender, rest: Rest, connections: u16) -> Weighing {
    let (anonymous, descriptors) = weight(contender, rest, connections);
    let rss = anonymous + (4 << 20);
    Weighing { contender, rest, connections, closed: false, anonymous, rss, descriptors }
}

/// Bytes and descriptors.
fn weight(contender: Contender, rest: Rest, connections: u16) -> (u64, u64) {
    let (base, each) = match contender {
        Contender::Ringgate | Contender::RinggateTwo | Contender::RinggateUser => (6, 2600),
        Contender::Nginx => (3, 34_000),
        Contender::Haproxy => (24, 17_500),
        Contender::Envoy => (38, 61_000),
        _ => (1, 500),
    };
    let descriptors = if rest == Rest::KeepAlive { 1 } else { 2 };
    (
        (base << 20) + u64::from(connections) * each / descriptors,
        20 + u64::from(connections) * descriptors,
    )
}

pub(crate) fn verdicts() -> Vec<Verdict> {
    let verdict = |target: &str, met, measured: &str, margin| Verdict {
        target: target.to_string(),
        met,
        measured: measured.to_string(),
        margin,
    };
    vec![
        verdict("bulk up, 16: rate at least 1.5", true, "1.68 (1.61–1.74), nginx", 12.0),
        verdict("301 keep-alive, 64: cost at most 1", false, "1.08 (1.02–1.11), HAProxy", -8.0),
    ]
}

/// Every workload and contender, with figures that scatter a little.
pub(crate) fn full() -> Results {
    let mut results = nothing();
    results.settings.quick = false;
    for (contender, version) in [
        (Contender::Ringgate, "ringgate 0.1.0"),
        (Contender::Nginx, "nginx/1.26.2"),
        (Contender::Haproxy, "HAProxy 3.1.1"),
        (Contender::Envoy, "envoy 1.32.0"),
    ] {
        results.versions.insert(contender, version.to_string());
    }
    for workload in workloads() {
        for round in 1..=ROUNDS {
            for contender in contenders(workload) {
                results.samples.push(plausible(workload, contender, round));
            }
        }
    }
    add_weights(&mut results);
    for trial in 0..5 {
        let cpu_seconds = vec![1.0, 1.1, 0.9, 1.0 + f64::from(trial) / 10.0];
        results.balance.push(Balance { flows: 256, cpu_seconds });
    }
    results
}

fn add_weights(results: &mut Results) {
    for rest in Rest::ALL {
        for contender in PROXIES {
            let steps = [0, 1000, 5000, 9000];
            results.weights.extend(steps.map(|step| weighing(contender, rest, step)));
            let mut closed = weighing(contender, rest, 0);
            (closed.closed, closed.anonymous) = (true, closed.anonymous + (1 << 20));
            results.weights.push(closed);
        }
    }
}

const PROXIES: [Contender; 5] =
    [Contender::Ringgate, Contender::Nginx, Contender::Haproxy, Contender::Envoy, Contender::Floor];

fn workloads() -> Vec<Workload> {
    let mut workloads = Vec::new();
    for connections in [1, 16, 256] {
        workloads.push(Workload::BulkUp { connections });
        workloads.push(Workload::BulkDown { connections });
    }
    for size in [100, 4096, 16384] {
        for connections in [1, 64, 512] {
            workloads.push(Workload::RoundTrips { connections, size });
        }
    }
    workloads.extend([
        Workload::Churn { connections: 64 },
        Workload::Redirects { connections: 64 },
        Workload::RedirectsOnce { connections: 64 },
        Workload::StreamUp { connections: 16 },
        Workload::StreamDown { connections: 16 },
        Workload::StreamRoundTrips { connections: 64, size: 100 },
        Workload::ObfsUp { connections: 16 },
        Workload::ObfsDown { connections: 16 },
        Workload::WebSocketUp { connections: 16 },
        Workload::WebSocketDown { connections: 16 },
        Workload::TlsUp { connections: 16 },
        Workload::TlsDown { connections: 16 },
        Workload::TlsRoundTrips { connections: 64, size: 100 },
        Workload::Handshakes { connections: 64, by: Generator::Own },
        Workload::Resumptions { connections: 64, by: Generator::Own },
        Workload::Resumptions { connections: 1, by: Generator::STime },
        Workload::TlsRedirects { connections: 64, by: Generator::Wrk },
        Workload::WssUp { connections: 16 },
        Workload::WssDown { connections: 16 },
        Workload::Datagrams { clients: 64, size: 300, burst: 1 },
        Workload::Datagrams { clients: 4, size: 1350, burst: 16 },
        Workload::Mixed { bulk: 16, small: 64 },
    ]);
    workloads.extend(site());
    workloads
}

fn site() -> Vec<Workload> {
    let (small, large, tls) = (1024, 10 << 20, true);
    let (by, wrk) = (Generator::Own, Generator::Wrk);
    vec![
        Workload::SiteAnswers { connections: 64, size: small, tls, by },
        Workload::SiteAnswers { connections: 16, size: large, tls: false, by: wrk },
        Workload::SiteUploads { connections: 16, size: large, by },
        Workload::SiteFiles { connections: 64, size: small, tls: false, by },
        Workload::SiteFiles { connections: 16, size: large, tls, by },
        Workload::SiteStreams { connections: 16, streams: 10, by: Generator::H2load },
        Workload::SiteMixed { large: 16, small: 64 },
    ]
}

fn contenders(workload: Workload) -> Vec<Contender> {
    let mut contenders = PROXIES.to_vec();
    match workload {
        Workload::BulkUp { connections } | Workload::BulkDown { connections } => {
            contenders.extend([Contender::NginxHuge, Contender::Direct]);
            if connections == 16 {
                contenders.extend([Contender::RinggateTwo, Contender::RinggateUser]);
            }
        }
        Workload::RoundTrips { .. } | Workload::Mixed { .. } => {}
        Workload::SiteFiles { .. } => {
            contenders = vec![Contender::Ringgate, Contender::Nginx, Contender::Caddy];
        }
        Workload::WebSocketUp { .. } | Workload::WebSocketDown { .. } => {
            contenders = vec![Contender::Ringgate, Contender::V2ray];
        }
        Workload::WssUp { .. } | Workload::WssDown { .. } => {
            contenders = vec![Contender::Ringgate, Contender::NginxV2ray];
        }
        _ => contenders.retain(|contender| *contender != Contender::Floor),
    }
    contenders
}

fn plausible(workload: Workload, contender: Contender, round: u16) -> Sample {
    let speed = match contender {
        Contender::Ringgate | Contender::RinggateTwo => 1.7,
        Contender::RinggateUser => 1.3,
        Contender::Nginx => 1.0,
        Contender::NginxHuge => 1.15,
        Contender::Haproxy => 1.25,
        Contender::Envoy => 0.45,
        Contender::V2ray | Contender::NginxV2ray | Contender::Caddy => 0.3,
        Contender::Floor => 1.9,
        _ => 3.0,
    };
    // Rounds 1 to 5 scatter from -4 % to +4 %, and each contender with a phase of its own.
    let scatter = 0.96 + 0.02 * f64::from((round + contender as u16 * 2) % ROUNDS);
    let rate = unit_rate(workload) * speed * scatter;
    let mut sample = sample(workload, contender, round, rate);
    if contender == Contender::Direct {
        (sample.cost, sample.busy) = (None, None);
    }
    sample.latency = tail(workload, rate, scatter);
    sample
}

fn unit_rate(workload: Workload) -> f64 {
    match workload {
        Workload::BulkUp { connections } | Workload::BulkDown { connections } => {
            4.5e9 / (1.0 + f64::from(connections) / 400.0)
        }
        Workload::StreamUp { .. }
        | Workload::StreamDown { .. }
        | Workload::ObfsUp { .. }
        | Workload::ObfsDown { .. } => 3.9e9,
        Workload::WebSocketUp { .. } | Workload::WebSocketDown { .. } => 1.2e9,
        Workload::TlsUp { .. } | Workload::TlsDown { .. } => 1.5e9,
        Workload::WssUp { .. } | Workload::WssDown { .. } => 0.7e9,
        Workload::Handshakes { .. } | Workload::Resumptions { .. } => 2.5e3,
        Workload::TlsRedirects { .. } => 5e4,
        Workload::Datagrams { .. } => 2.5e5,
        Workload::RoundTrips { connections, size }
        | Workload::TlsRoundTrips { connections, size }
        | Workload::StreamRoundTrips { connections, size } => {
            let batching = if connections == 1 { 0.5 } else { 1.0 };
            batching * 1.6e5 / (1.0 + f64::from(size) / 2e4)
        }
        Workload::Churn { .. } => 2.1e4,
        Workload::Redirects { .. } => 2.4e5,
        Workload::RedirectsOnce { .. } => 2.3e4,
        Workload::Mixed { .. } | Workload::SiteMixed { .. } => 2.2e4,
        Workload::SiteAnswers { .. } | Workload::SiteFiles { .. } if workload.is_bulk() => 3e9,
        Workload::SiteUploads { .. } => 3e9,
        Workload::SiteAnswers { .. } | Workload::SiteFiles { .. } => 7e4,
        Workload::SiteStreams { .. } => 1.5e5,
    }
}

/// Every connection has one round trip under way, so that the time of one follows from the rate.
fn tail(workload: Workload, rate: f64, scatter: f64) -> Option<Latency> {
    let connections = match workload {
        Workload::RoundTrips { connections, .. }
        | Workload::TlsRoundTrips { connections, .. }
        | Workload::StreamRoundTrips { connections, .. }
        | Workload::Mixed { small: connections, .. }
        | Workload::SiteMixed { small: connections, .. } => connections,
        _ => return None,
    };
    let mean = f64::from(connections) / rate * 1e6;
    Some(latency(mean * 0.9, mean * 1.8 * scatter.powi(4), mean * 4.5 * scatter.powi(9)))
}
