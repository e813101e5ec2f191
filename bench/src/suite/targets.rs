//! The project's targets, judged on the medians of the paired ratios of one run.
//!
//! "The best peer" is the one that leaves the smallest lead: a target holds when it holds against
//! every peer that was tuned for the same work. What peers can do for bulk with settings that
//! nobody runs for other work is judged beside it.

use super::plan::DATAGRAMS;
use super::results::{Contender, Generator, Rest, Results, Sample, Workload};
use super::site;
use super::statistics::{Figure, Spread};

/// Peers whose tuning is that of one configuration for all work.
const PEERS: [Contender; 4] =
    [Contender::Nginx, Contender::Haproxy, Contender::Envoy, Contender::Caddy];

/// One target and how the run did.
pub(crate) struct Verdict {
    pub(crate) target: String,
    pub(crate) met: bool,
    /// The figure, its spread, and against whom.
    pub(crate) measured: String,
    /// How much better (positive) or worse than asked, in per cent of what was asked.
    pub(crate) margin: f64,
}

/// Whether more or less is asked for.
#[derive(Clone, Copy)]
enum Wanted {
    AtLeast(f64),
    AtMost(f64),
}

impl Wanted {
    fn met(self, value: f64) -> bool {
        match self {
            Wanted::AtLeast(bound) => value >= bound,
            Wanted::AtMost(bound) => value <= bound,
        }
    }

    fn margin(self, value: f64) -> f64 {
        match self {
            Wanted::AtLeast(bound) => (value / bound - 1.0) * 100.0,
            Wanted::AtMost(bound) => (1.0 - value / bound) * 100.0,
        }
    }

    fn text(self) -> String {
        match self {
            Wanted::AtLeast(bound) => format!("at least {}", short(bound)),
            Wanted::AtMost(bound) => format!("at most {}", short(bound)),
        }
    }

    /// Whether the first leaves less room than the second.
    fn is_harder(self, first: f64, second: f64) -> bool {
        self.margin(first) < self.margin(second)
    }
}

/// A bound with two digits at most behind the point.
fn short(bound: f64) -> f64 {
    (bound * 100.0).round() / 100.0
}

/// A paired figure of ours against several others.
struct Paired<'a> {
    what: &'a str,
    figure: Figure,
    work: Workload,
    others: &'a [Contender],
    wanted: Wanted,
}

const BULK: u16 = 16;
const SMALL: u16 = 64;

/// The targets that this run can judge.
pub(crate) fn judge(results: &Results) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    let up = Workload::BulkUp { connections: BULK };
    let down = Workload::BulkDown { connections: BULK };
    let streams =
        [Workload::StreamUp { connections: BULK }, Workload::StreamDown { connections: BULK }];
    let mut judge = |paired: &Paired<'_>| verdicts.extend(paired.judge(results));

    for bulk in [up, down] {
        judge(&against_peers("throughput", Figure::Rate, bulk, Wanted::AtLeast(1.8)));
        judge(&against_peers("CPU per byte", Figure::Cost, bulk, Wanted::AtMost(0.5)));
        for (what, figure, wanted) in [
            ("throughput", Figure::Rate, Wanted::AtLeast(1.8)),
            ("CPU per byte", Figure::Cost, Wanted::AtMost(0.5)),
        ] {
            for others in [&[Contender::NginxHuge], &[Contender::HaproxySplice]] {
                judge(&against_one(what, figure, bulk, others, wanted));
            }
        }
    }
    for stream in streams {
        for (what, figure, wanted) in [
            ("throughput", Figure::Rate, Wanted::AtLeast(0.95)),
            ("CPU per byte", Figure::Cost, Wanted::AtMost(1.05)),
        ] {
            judge(&against_one(what, figure, stream, &[Contender::RinggateL4], wanted));
        }
        judge(&against_peers("throughput", Figure::Rate, stream, Wanted::AtLeast(1.8)));
        judge(&against_splicing("throughput", Figure::Rate, stream, Wanted::AtLeast(1.8)));
    }
    for obfs in [Workload::ObfsUp { connections: BULK }, Workload::ObfsDown { connections: BULK }] {
        for (what, figure, wanted) in [
            ("throughput", Figure::Rate, Wanted::AtLeast(0.95)),
            ("CPU per byte", Figure::Cost, Wanted::AtMost(1.05)),
        ] {
            judge(&against_one(what, figure, obfs, &[Contender::RinggateL4], wanted));
        }
    }
    for framed in
        [Workload::WebSocketUp { connections: BULK }, Workload::WebSocketDown { connections: BULK }]
    {
        let (what, figure, wanted) = ("CPU per byte", Figure::Cost, Wanted::AtMost(0.5));
        judge(&against_one(what, figure, framed, &[Contender::V2ray], wanted));
    }
    let round_trips = Workload::RoundTrips { connections: SMALL, size: 100 };
    judge(&against_peers("CPU per message", Figure::Cost, round_trips, Wanted::AtMost(0.95)));
    judge(&against_peers("p99", Figure::P99, round_trips, Wanted::AtMost(1.0)));
    let churn = Workload::Churn { connections: SMALL };
    judge(&against_peers("CPU per connection", Figure::Cost, churn, Wanted::AtMost(0.9)));
    let redirects = Workload::Redirects { connections: SMALL };
    judge(&against_peers("requests", Figure::Rate, redirects, Wanted::AtLeast(1.2)));
    judge(&against_peers("CPU per request", Figure::Cost, redirects, Wanted::AtMost(0.85)));
    for datagrams in DATAGRAMS {
        let wanted = Wanted::AtMost(1.0 / 1.5);
        judge(&against_peers("CPU per datagram", Figure::Cost, datagrams, wanted));
    }
    for paired in tls().iter().chain(&site()) {
        judge(paired);
    }
    let mixed = Workload::Mixed { bulk: BULK, small: SMALL };
    judge(&against_peers("p99", Figure::P99, mixed, Wanted::AtMost(0.7)));
    judge(&against_splicing("p99", Figure::P99, mixed, Wanted::AtMost(0.7)));
    for bulk in [up, down] {
        let (what, figure, others) = ("CPU per byte", Figure::Cost, &[Contender::Floor][..]);
        let wanted = Wanted::AtMost(1.1);
        judge(&against_one(what, figure, bulk, others, wanted));
    }
    verdicts.extend(weigh(results, Rest::Pairs, 2048.0, 2.0));
    verdicts.extend(weigh(results, Rest::KeepAlive, 1024.0, 1.0));
    verdicts.extend(weigh(results, Rest::Tls, 6144.0, 2.0));
    verdicts
}

/// TLS ended by the proxy. What a second generator measures has the target of the first.
fn tls() -> Vec<Paired<'static>> {
    use Generator::{Hey, Own, STime};
    let mut targets = Vec::new();
    for bulk in [Workload::TlsUp { connections: BULK }, Workload::TlsDown { connections: BULK }] {
        targets.push(against_peers("throughput", Figure::Rate, bulk, Wanted::AtLeast(1.25)));
        targets.push(against_peers("CPU per byte", Figure::Cost, bulk, Wanted::AtMost(0.8)));
        let huge = &[Contender::NginxHuge];
        targets.push(against_one("CPU per byte", Figure::Cost, bulk, huge, Wanted::AtMost(0.8)));
    }
    for handshakes in [
        Workload::Handshakes { connections: SMALL, by: Own },
        Workload::Handshakes { connections: 1, by: STime },
        Workload::Handshakes { connections: SMALL, by: Hey },
        Workload::Resumptions { connections: SMALL, by: Own },
        Workload::Resumptions { connections: 1, by: STime },
    ] {
        let wanted = Wanted::AtMost(0.65);
        targets.push(against_peers("CPU per handshake", Figure::Cost, handshakes, wanted));
    }
    let round_trips = Workload::TlsRoundTrips { connections: SMALL, size: 100 };
    targets.push(against_peers("CPU per message", Figure::Cost, round_trips, Wanted::AtMost(0.85)));
    for wss in [Workload::WssUp { connections: BULK }, Workload::WssDown { connections: BULK }] {
        let (figure, both) = (Figure::Cost, &[Contender::NginxV2ray]);
        targets.push(against_one("CPU per byte", figure, wss, both, Wanted::AtMost(0.35)));
    }
    targets
}

/// A site: a backend, files, HTTP/2. What a second generator measures has the target of the first.
fn site() -> Vec<Paired<'static>> {
    use Generator::{H2load, Hey, Own, Wrk};
    let mut targets = Vec::new();
    let mut judge = |what, figure, work, wanted| {
        targets.push(against_peers(what, figure, work, wanted));
    };
    let (small, large, connections) = (site::SMALL, site::LARGE, SMALL);
    for by in [Own, Wrk] {
        let each = "CPU per request";
        for (tls, most) in [(false, 0.8), (true, 0.75)] {
            let work = Workload::SiteAnswers { connections, size: small, tls, by };
            judge(each, Figure::Cost, work, Wanted::AtMost(most));
        }
        let (connections, tls) = (BULK, false);
        for work in [
            Workload::SiteAnswers { connections, size: large, tls, by },
            Workload::SiteUploads { connections, size: large, by },
        ] {
            judge("throughput", Figure::Rate, work, Wanted::AtLeast(1.6));
            judge("CPU per byte", Figure::Cost, work, Wanted::AtMost(0.5));
        }
        let work = Workload::SiteFiles { connections: SMALL, size: small, tls, by };
        judge(each, Figure::Cost, work, Wanted::AtMost(0.85));
        for (tls, most) in [(false, 1.0), (true, 0.85)] {
            let work = Workload::SiteFiles { connections, size: large, tls, by };
            judge("CPU per byte", Figure::Cost, work, Wanted::AtMost(most));
        }
    }
    for (connections, by) in [(BULK, H2load), (1, Hey)] {
        let work = Workload::SiteStreams { connections, streams: 10, by };
        judge("CPU per request", Figure::Cost, work, Wanted::AtMost(0.85));
    }
    let work = Workload::SiteMixed { large: BULK, small: SMALL };
    judge("p99", Figure::P99, work, Wanted::AtMost(0.7));
    // What HAProxy does where it splices every byte is judged beside it.
    for by in [Own, Wrk] {
        for work in [
            Workload::SiteAnswers { connections: BULK, size: large, tls: false, by },
            Workload::SiteUploads { connections: BULK, size: large, by },
        ] {
            let (rate, cost) = (Wanted::AtLeast(1.6), Wanted::AtMost(0.5));
            targets.push(against_splicing("throughput", Figure::Rate, work, rate));
            targets.push(against_splicing("CPU per byte", Figure::Cost, work, cost));
        }
    }
    targets.push(against_splicing("p99", Figure::P99, work, Wanted::AtMost(0.7)));
    targets
}

fn against_peers(what: &str, figure: Figure, work: Workload, wanted: Wanted) -> Paired<'_> {
    Paired { what, figure, work, others: &PEERS, wanted }
}

fn against_splicing(what: &str, figure: Figure, work: Workload, wanted: Wanted) -> Paired<'_> {
    against_one(what, figure, work, &[Contender::HaproxySplice], wanted)
}

fn against_one<'a>(
    what: &'a str,
    figure: Figure,
    work: Workload,
    others: &'a [Contender],
    wanted: Wanted,
) -> Paired<'a> {
    Paired { what, figure, work, others, wanted }
}

impl Paired<'_> {
    /// None when the run has not measured it against anyone.
    fn judge(&self, results: &Results) -> Option<Verdict> {
        let ours = (self.work, Contender::Ringgate);
        let mut hardest: Option<(Contender, Spread)> = None;
        for &other in self.others {
            let ratio = results.ratio(self.figure, ours, (self.work, other));
            let Some(ratio) = ratio.filter(|ratio| ratio.median.is_finite()) else { continue };
            let harder = |hardest: (Contender, Spread)| {
                self.wanted.is_harder(ratio.median, hardest.1.median)
            };
            if hardest.is_none_or(harder) {
                hardest = Some((other, ratio));
            }
        }
        let (other, ratio) = hardest?;
        let whom = match self.others.len() {
            1 => other.to_string(),
            _ => "the best peer".to_string(),
        };
        let Paired { what, work, wanted, .. } = self;
        Some(Verdict {
            target: format!("{work}: {what} {} × {whom}", wanted.text()),
            met: wanted.met(ratio.median),
            measured: match self.others.len() {
                1 => ratio.text(2),
                _ => format!("{} × {other}", ratio.text(2)),
            } + &self.limit(results),
            margin: wanted.margin(ratio.median),
        })
    }
}

/// Under this share of its CPU a proxy was waiting for the load.
const WAITING: f64 = 0.9;

impl Paired<'_> {
    /// A word on throughput that says more of the load than of the proxy.
    fn limit(&self, results: &Results) -> String {
        let busy = |sample: &Sample| sample.busy;
        let busy: Vec<f64> = results.of(self.work, Contender::Ringgate).filter_map(busy).collect();
        match Spread::of(&busy) {
            Some(busy) if self.figure == Figure::Rate && busy.median < WAITING => {
                format!(
                    "; limited by the load, ringgate used {:.0} % of its CPU",
                    busy.median * 100.0
                )
            }
            _ => String::new(),
        }
    }
}

/// Memory and descriptors of a resting connection, at the largest number of them.
fn weigh(results: &Results, rest: Rest, most_bytes: f64, most_descriptors: f64) -> Vec<Verdict> {
    let most = results.steps(rest).last().copied().unwrap_or(0);
    let Some(growth) = results.growth_each(Contender::Ringgate, rest, most) else {
        return Vec::new();
    };
    let verdict = |what: &str, wanted: Wanted, value: f64, digits: usize| Verdict {
        target: format!("{most} {rest}: {what} {} each", wanted.text()),
        met: wanted.met(value),
        measured: format!("{value:.digits$}"),
        margin: wanted.margin(value),
    };
    // Descriptors of the process's own that come and go are not the connections'.
    let descriptors = (growth.descriptors * 100.0).round() / 100.0;
    vec![
        verdict("bytes", Wanted::AtMost(most_bytes), growth.bytes, 0),
        verdict("descriptors", Wanted::AtMost(most_descriptors), descriptors, 2),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::example;
    use super::super::results::Weighing;
    use super::*;

    fn sample(contender: Contender, round: u16, rate: f64, cost: f64) -> Sample {
        Sample {
            workload: Workload::BulkUp { connections: BULK },
            contender,
            round,
            rate,
            cost: Some(cost),
            busy: Some(1.0),
            load_busy: 0.5,
            latency: None,
            beside: None,
        }
    }

    #[test]
    fn the_hardest_peer_and_the_median_of_paired_ratios_decide() {
        let mut results = example::nothing();
        // Ratios to nginx are 2, 2 and 4; to HAProxy 1.9, 1 and 4.
        for (round, ours, nginx, haproxy) in
            [(1, 19.0, 9.5, 10.0), (2, 10.0, 5.0, 10.0), (3, 40.0, 10.0, 10.0)]
        {
            results.samples.push(sample(Contender::Ringgate, round, ours, 0.4));
            results.samples.push(sample(Contender::Nginx, round, nginx, 1.0));
            results.samples.push(sample(Contender::Haproxy, round, haproxy, 0.7));
        }
        let verdicts = judge(&results);
        assert_eq!(verdicts.len(), 2, "throughput and CPU cost of one workload");
        assert!(verdicts[0].met && verdicts[0].measured == "1.90 (1.00–4.00) × HAProxy");
        assert!((verdicts[0].margin - 5.6).abs() < 0.1);
        for sample in &mut results.samples {
            sample.busy = Some(0.4);
        }
        assert!(judge(&results)[0].measured.ends_with("ringgate used 40 % of its CPU"));
        assert!(!verdicts[1].met && verdicts[1].measured.ends_with("× HAProxy"));
        assert!((verdicts[1].margin + 14.3).abs() < 0.1);
    }

    #[test]
    fn connections_are_weighed_at_the_largest_step_without_what_was_there_before() {
        let mut results = example::nothing();
        for (connections, closed, anonymous, descriptors) in
            [(0, false, 1_000_000, 20), (1000, false, 3_000_000, 2020), (1000, true, 9, 20)]
        {
            results.weights.push(Weighing {
                contender: Contender::Ringgate,
                rest: Rest::Pairs,
                connections,
                closed,
                anonymous,
                rss: 0,
                descriptors,
            });
        }
        let verdicts = judge(&results);
        assert_eq!(verdicts.len(), 2);
        assert!(verdicts[0].met && verdicts[0].measured == "2000");
        assert!(verdicts[1].met && verdicts[1].measured == "2.00");
    }
}
