//! The table, the claims and the JSON of a comparison.

use std::time::Duration;

use serde_json::{Value, json};

use super::measure::{Sample, WORKS, Work};
use super::{Proxy, Results};

/// Under this share of its CPU a proxy was waiting for the load.
const BUSY: f64 = 0.9;
const BULK_CLAIM: f64 = 1.5;
const IDLE_CLAIM_BYTES: f64 = 4096.0;
const REDIRECT_CLAIM: f64 = 1.0;

/// ringgate at one work against nginx at the same or another one.
const PAIRS: [(Work, Work); 8] = [
    (Work::L4Up, Work::L4Up),
    (Work::L4Down, Work::L4Down),
    (Work::StreamUp, Work::L4Up),
    (Work::StreamDown, Work::L4Down),
    (Work::StreamUp, Work::StreamUp),
    (Work::StreamDown, Work::StreamDown),
    (Work::Redirects, Work::Redirects),
    (Work::RoundTrips, Work::RoundTrips),
];

/// One line on stderr while the run goes on.
pub(crate) fn progress(work: Work, sample: &Sample) -> String {
    let (rate, cost, busy) = (sample.rate, sample.cost, sample.busy * 100.0);
    let (rate_unit, cost_unit) = (work.rate_unit(), work.cost_unit());
    format!("{}: {rate:.2} {rate_unit}, {cost:.3} {cost_unit}, {busy:.0} % busy", work.name())
}

pub(crate) fn print(versions: &str, rounds: u16, seconds: Duration, results: &Results) {
    println!("{versions}; {rounds} rounds of {:.1} s", seconds.as_secs_f64());
    println!("Medians (lowest to highest); ratios are ringgate over nginx within one round.\n");
    println!(
        "{:<34} {:<24} {:<24} {:<20} {:<20}",
        "work", "ringgate", "nginx", "ratio of rates", "ratio of CPU cost"
    );
    for (ours, theirs) in PAIRS {
        let Some(pair) = Pair::of(results, ours, theirs) else { continue };
        println!(
            "{:<34} {:<24} {:<24} {:<20} {:<20}",
            pair.title(),
            rates(&pair.ringgate, ours),
            rates(&pair.nginx, theirs),
            Spread::of(&pair.rate_ratios()).text(2),
            Spread::of(&pair.cost_ratios()).text(2),
        );
        println!(
            "{:<34} {:<24} {:<24}",
            "",
            costs(&pair.ringgate, ours),
            costs(&pair.nginx, theirs)
        );
    }
    for (proxy, idle) in &results.idle {
        let dirty = idle.private_dirty_per_connection();
        println!(
            "idle L4 pair, {} of them: {proxy:?} {:.0} B anonymous, {} private dirty, \
             {:.2} descriptors each",
            idle.connections,
            idle.anonymous_per_connection(),
            dirty.map_or("unknown".to_string(), |bytes| format!("{bytes:.0} B")),
            idle.descriptors_per_connection(),
        );
    }
    println!();
    for claim in claims(results) {
        let verdict = if claim.met { "met   " } else { "MISSED" };
        println!("{verdict} {}: {}", claim.text, claim.measured);
    }
    print_waiting(results);
}

/// Says where a proxy waited for the load: its throughput could have been higher there.
fn print_waiting(results: &Results) {
    for work in WORKS {
        for proxy in super::PROXIES {
            let busy: Vec<f64> = samples(results, work, proxy).iter().map(|s| s.busy).collect();
            if busy.is_empty() {
                continue;
            }
            let busy = Spread::of(&busy).median;
            if busy < BUSY {
                println!(
                    "note   {}: {proxy:?} used {:.0} % of its CPU: the limit was the load, \
                     or another process; compare the CPU cost",
                    work.name(),
                    busy * 100.0
                );
            }
        }
    }
}

pub(crate) fn json(versions: &str, results: &Results) -> Value {
    let samples: Vec<Value> = results
        .samples
        .iter()
        .map(|(work, proxy, sample)| {
            json!({
                "work": work.name(),
                "proxy": format!("{proxy:?}").to_lowercase(),
                "rate": sample.rate,
                "rate_unit": work.rate_unit(),
                "cost": sample.cost,
                "cost_unit": work.cost_unit(),
                "busy": sample.busy,
            })
        })
        .collect();
    let idle: Vec<Value> = results
        .idle
        .iter()
        .map(|(proxy, idle)| {
            json!({
                "proxy": format!("{proxy:?}").to_lowercase(),
                "pairs": idle.connections,
                "rss_anon_bytes_per_pair": idle.anonymous_per_connection(),
                "private_dirty_bytes_per_pair": idle.private_dirty_per_connection(),
                "descriptors_per_pair": idle.descriptors_per_connection(),
            })
        })
        .collect();
    let claims: Vec<Value> = claims(results)
        .iter()
        .map(|claim| json!({ "claim": claim.text, "met": claim.met, "measured": claim.measured }))
        .collect();
    json!({ "versions": versions, "samples": samples, "idle": idle, "claims": claims })
}

struct Claim {
    text: String,
    met: bool,
    measured: String,
}

/// The claims that this run can judge.
fn claims(results: &Results) -> Vec<Claim> {
    let mut claims = Vec::new();
    for (ours, theirs) in &PAIRS[..4] {
        let Some(pair) = Pair::of(results, *ours, *theirs) else { continue };
        let ratio = Spread::of(&pair.rate_ratios());
        claims.push(Claim {
            text: format!("{} at least {BULK_CLAIM} × nginx stream", ours.name()),
            met: ratio.median >= BULK_CLAIM,
            measured: format!("{} ×", ratio.text(2)),
        });
    }
    for (_, idle) in results.idle.iter().filter(|(proxy, _)| *proxy == Proxy::Ringgate) {
        let bytes = idle.anonymous_per_connection();
        claims.push(Claim {
            text: format!("idle L4 pair at most {IDLE_CLAIM_BYTES} B"),
            met: bytes <= IDLE_CLAIM_BYTES,
            measured: format!("{bytes:.0} B"),
        });
    }
    if let Some(pair) = Pair::of(results, Work::Redirects, Work::Redirects) {
        // Requests per CPU second are the inverse of the cost.
        let per_cpu: Vec<f64> = pair.cost_ratios().iter().map(|ratio| 1.0 / ratio).collect();
        let ratio = Spread::of(&per_cpu);
        claims.push(Claim {
            text: "301s per CPU second at least those of nginx".to_string(),
            met: ratio.median >= REDIRECT_CLAIM,
            measured: format!("{} ×", ratio.text(2)),
        });
    }
    claims
}

/// The samples of both proxies, round by round.
struct Pair {
    ours: Work,
    theirs: Work,
    ringgate: Vec<Sample>,
    nginx: Vec<Sample>,
}

impl Pair {
    /// None when this run did not measure both.
    fn of(results: &Results, ours: Work, theirs: Work) -> Option<Self> {
        let ringgate = samples(results, ours, Proxy::Ringgate);
        let nginx = samples(results, theirs, Proxy::Nginx);
        let complete = !ringgate.is_empty() && ringgate.len() == nginx.len();
        complete.then_some(Self { ours, theirs, ringgate, nginx })
    }

    fn title(&self) -> String {
        match self.ours == self.theirs {
            true if matches!(self.ours, Work::StreamUp | Work::StreamDown) => {
                format!("{}, both http", self.ours.name())
            }
            true => self.ours.name().to_string(),
            false => format!("{}, nginx L4", self.ours.name()),
        }
    }

    fn rate_ratios(&self) -> Vec<f64> {
        self.ringgate
            .iter()
            .zip(&self.nginx)
            .map(|(ours, theirs)| ours.rate / theirs.rate)
            .collect()
    }

    fn cost_ratios(&self) -> Vec<f64> {
        self.ringgate
            .iter()
            .zip(&self.nginx)
            .map(|(ours, theirs)| ours.cost / theirs.cost)
            .collect()
    }
}

fn samples(results: &Results, work: Work, proxy: Proxy) -> Vec<Sample> {
    let matching = results.samples.iter().filter(|(w, p, _)| *w == work && *p == proxy);
    matching.map(|(_, _, sample)| *sample).collect()
}

fn rates(samples: &[Sample], work: Work) -> String {
    let rates: Vec<f64> = samples.iter().map(|sample| sample.rate).collect();
    format!("{} {}", Spread::of(&rates).text(1), work.rate_unit())
}

fn costs(samples: &[Sample], work: Work) -> String {
    let costs: Vec<f64> = samples.iter().map(|sample| sample.cost).collect();
    format!("{} {}", Spread::of(&costs).text(2), work.cost_unit())
}

struct Spread {
    median: f64,
    low: f64,
    high: f64,
}

impl Spread {
    /// Of at least one value.
    fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (half, last) = (sorted.len() / 2, sorted.len() - 1);
        let median = if sorted.len() % 2 == 1 {
            sorted[half]
        } else {
            (sorted[half - 1] + sorted[half]) / 2.0
        };
        Self { median, low: sorted[0], high: sorted[last] }
    }

    fn text(&self, digits: usize) -> String {
        let Self { median, low, high } = self;
        format!("{median:.digits$} ({low:.digits$}–{high:.digits$})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_judged_by_the_median_of_the_ratios_within_rounds() {
        let sample = |rate, cost| Sample { rate, cost, busy: 1.0 };
        let mut results = Results { samples: Vec::new(), idle: Vec::new() };
        for (ours, theirs) in [(16.0, 10.0), (30.0, 10.0), (14.0, 10.0)] {
            results.samples.push((Work::L4Up, Proxy::Ringgate, sample(ours, 0.4)));
            results.samples.push((Work::L4Up, Proxy::Nginx, sample(theirs, 0.8)));
        }
        let judged = claims(&results);
        assert_eq!(judged.len(), 1);
        assert!(judged[0].met && judged[0].measured == "1.60 (1.40–3.00) ×");

        results.samples[0].2.rate = 10.0;
        assert!(!claims(&results)[0].met, "14 of 10 is the median now");
    }
}
