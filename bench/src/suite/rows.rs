//! The tables of the report as cells of text: the terminal and the Markdown file show the same.

use super::results::{Contender, Rest, Results, Workload};
use super::statistics::{Figure, Spread};
use super::targets::Verdict;

/// What is written in front of every table of workloads.
pub(crate) const READING: &str =
    "Figures are medians (lowest–highest); ratios are ringgate over the other within one round.";

/// A table. A cell of nothing is a figure that the run does not have.
pub(crate) struct Table {
    pub(crate) title: String,
    pub(crate) header: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
}

impl Table {
    fn new(title: impl ToString, header: &[&str], rows: Vec<Vec<String>>) -> Self {
        let header = header.iter().map(ToString::to_string).collect();
        Self { title: title.to_string(), header, rows }.without_empty_columns()
    }

    /// Bulk has no latency, and a run of ringgate alone no ratios: such columns say nothing.
    fn without_empty_columns(mut self) -> Self {
        for column in (0..self.header.len()).rev() {
            if self.rows.iter().all(|row| row[column].is_empty()) {
                self.header.remove(column);
                self.rows.iter_mut().for_each(|row| drop(row.remove(column)));
            }
        }
        self
    }
}

/// Where and how the run was made, a line each.
pub(crate) fn circumstances(results: &Results) -> Vec<String> {
    let (machine, settings) = (&results.machine, &results.settings);
    let memory = machine.memory_bytes as f64 / f64::from(1 << 30);
    let mut lines = vec![
        format!(
            "{}, {} CPUs, {memory:.1} GiB, {} with {}, as {}, {}",
            machine.cpu,
            machine.cpus,
            machine.kernel,
            machine.congestion_control,
            machine.user,
            machine.date
        ),
        format!(
            "{}{} × {} s after {} s of warm-up, bulk sent by {}; proxy on CPU {}, load on CPU {}",
            counted(settings.rounds.into(), "round"),
            if settings.quick { "" } else { " (twice that for what has a target)" },
            settings.seconds,
            settings.warmup,
            settings.send,
            settings.proxy_cpu,
            settings.load_cpu
        ),
    ];
    lines.extend(results.failures.iter().map(|failure| format!("Failed: {failure}")));
    if settings.quick {
        lines.push("A quick run: fewer workloads, shorter intervals, rougher figures.".to_string());
    }
    lines
}

/// `name: what it says of its version`, a line each.
pub(crate) fn versions(results: &Results) -> Vec<String> {
    let versions = results.versions.iter();
    versions.map(|(contender, version)| format!("{contender}: {}", version.trim())).collect()
}

/// Everyone who was measured at one workload.
pub(crate) fn workload(results: &Results, workload: Workload) -> Table {
    let units = workload.units();
    let header = [
        "contender",
        units.rate,
        units.cost,
        "p50",
        "p99",
        "p99.9",
        "bulk Gbit/s",
        "rate ratio",
        "cost ratio",
        "busy",
        "load",
    ];
    let contenders = results.contenders(workload).into_iter();
    let rows = contenders.map(|contender| row(results, workload, contender)).collect();
    Table::new(workload, &header, rows)
}

fn row(results: &Results, workload: Workload, contender: Contender) -> Vec<String> {
    let units = workload.units();
    let spread = |figure| results.spread(workload, contender, figure);
    let ratio = |figure| match contender {
        Contender::Ringgate => None,
        _ => results.ratio(figure, (workload, Contender::Ringgate), (workload, contender)),
    };
    // The tails of latency scatter: their spreads would fill the line, and are in the plots.
    let latency = |figure| text(spread(figure), |spread| number(spread.median));
    let rounds = || results.of(workload, contender);
    vec![
        contender.to_string(),
        text(spread(Figure::Rate), |spread| spread_text(spread.scaled(units.rate_factor))),
        text(spread(Figure::Cost), |spread| spread_text(spread.scaled(units.cost_factor))),
        latency(Figure::P50),
        latency(Figure::P99),
        latency(Figure::P999),
        text(spread(Figure::Beside), |spread| spread_text(spread.scaled(8e-9))),
        text(ratio(Figure::Rate), |spread| spread.text(2)),
        text(ratio(Figure::Cost), |spread| spread.text(2)),
        share(rounds().filter_map(|sample| sample.busy)),
        share(rounds().map(|sample| sample.load_busy)),
    ]
}

/// What connections that rest so cost everyone who was weighed.
pub(crate) fn memory(results: &Results, rest: Rest) -> Table {
    let steps: Vec<u16> = results.steps(rest).into_iter().filter(|&step| step > 0).collect();
    let held: Vec<String> = steps.iter().map(|step| format!("each of {step}")).collect();
    let mut header = vec!["contender", "without any"];
    header.extend(held.iter().map(String::as_str));
    header.push("left after closing");
    let rows = results.weighed(rest).into_iter().map(|contender| {
        let empty = results.holding(contender, rest, 0);
        let mut row =
            vec![contender.to_string(), text(empty, |weighing| size(weighing.anonymous as f64))];
        row.extend(steps.iter().map(|&step| {
            text(results.growth_each(contender, rest, step), |each| {
                format!("{:.0} B, {:.2} fds", each.bytes, each.descriptors)
            })
        }));
        row.push(text(results.growth_left(contender, rest), |left| {
            format!("{}, {} fds", size(left.bytes), left.descriptors)
        }));
        row
    });
    let rows = rows.collect();
    Table::new(rest, &header, rows)
}

/// How evenly flows lay on workers.
pub(crate) fn balance(results: &Results) -> Table {
    let mut kinds: Vec<(u16, usize)> =
        results.balance.iter().map(|trial| (trial.flows, trial.cpu_seconds.len())).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let rows = kinds.into_iter().map(|(flows, workers)| {
        let trials = results.balance.iter();
        let alike =
            trials.filter(|trial| (trial.flows, trial.cpu_seconds.len()) == (flows, workers));
        let peaks: Vec<f64> = alike.filter_map(|trial| peak(&trial.cpu_seconds)).collect();
        let peak = text(Spread::of(&peaks), |spread| spread.text(2));
        vec![flows.to_string(), workers.to_string(), peaks.len().to_string(), peak]
    });
    let rows = rows.collect();
    let header = ["flows", "workers", "trials", "CPU seconds of the busiest over the mean"];
    Table::new("Balance between workers", &header, rows)
}

/// The busiest over the mean; none of workers that did nothing.
fn peak(cpu_seconds: &[f64]) -> Option<f64> {
    let mean = cpu_seconds.iter().sum::<f64>() / cpu_seconds.len() as f64;
    let busiest = cpu_seconds.iter().copied().reduce(f64::max)?;
    (mean > 0.0).then(|| busiest / mean)
}

pub(crate) fn targets(verdicts: &[Verdict]) -> Table {
    let rows = verdicts.iter().map(|verdict| {
        let word = if verdict.met { "met" } else { "MISSED" };
        let (target, measured) = (verdict.target.clone(), verdict.measured.clone());
        vec![word.to_string(), margin(verdict.margin), target, measured]
    });
    let rows = rows.collect();
    Table::new("Targets", &["", "margin", "target", "measured"], rows)
}

/// A small margin keeps a digit, so that a miss by little does not read as none.
fn margin(margin: f64) -> String {
    let digits = usize::from(margin.abs() < 1.0);
    format!("{margin:+.digits$} %")
}

fn text<T>(value: Option<T>, write: impl FnOnce(T) -> String) -> String {
    value.map(write).unwrap_or_default()
}

/// Three significant digits, as long as that takes no more than four behind the point.
fn digits(value: f64) -> usize {
    match value.abs() {
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        0.1.. => 3,
        _ => 4,
    }
}

fn number(value: f64) -> String {
    format!("{value:.0$}", digits(value))
}

fn spread_text(spread: Spread) -> String {
    spread.text(digits(spread.median))
}

/// The median of shares of one CPU.
fn share(values: impl Iterator<Item = f64>) -> String {
    text(Spread::of(&values.collect::<Vec<f64>>()), |spread| {
        format!("{:.0} %", spread.median * 100.0)
    })
}

fn size(bytes: f64) -> String {
    let (kib, mib) = (1024.0, 1024.0 * 1024.0);
    if bytes.abs() >= mib {
        format!("{:.1} MiB", bytes / mib)
    } else {
        format!("{:.0} KiB", bytes / kib)
    }
}

/// `1 round`, `5 rounds`.
pub(crate) fn counted(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::super::example;
    use super::super::results::Balance;
    use super::*;

    const BULK: Workload = Workload::BulkUp { connections: 16 };

    /// ringgate and nginx at bulk, rates in bytes a second and costs in CPU seconds a byte.
    fn duel() -> Results {
        let mut results = example::nothing();
        for (round, ours, theirs) in [(1, 6e9, 3e9), (2, 8e9, 2e9), (3, 5e9, 5e9)] {
            for (contender, rate, cost) in
                [(Contender::Nginx, theirs, 4e-10), (Contender::Ringgate, ours, 1e-10)]
            {
                let mut sample = example::sample(BULK, contender, round, rate);
                sample.cost = Some(cost);
                results.samples.push(sample);
            }
        }
        results
    }

    #[test]
    fn ratios_are_paired_within_rounds_and_stand_at_the_others() {
        let table = workload(&duel(), BULK);
        let header =
            ["contender", "Gbit/s", "CPU-s/GB", "rate ratio", "cost ratio", "busy", "load"];
        assert_eq!(table.header, header);
        let ours = ["ringgate", "48.0 (40.0–64.0)", "0.100 (0.100–0.100)", "", "", "98 %", "60 %"];
        assert_eq!(table.rows[0], ours);
        assert_eq!(table.rows[1][3..5], ["2.00 (1.00–4.00)", "0.25 (0.25–0.25)"]);
    }

    #[test]
    fn what_was_not_measured_has_no_column() {
        let mut results = example::nothing();
        let mut sample = example::sample(BULK, Contender::Direct, 1, 1e9);
        (sample.cost, sample.busy) = (None, None);
        results.samples.push(sample);
        let table = workload(&results, BULK);
        assert_eq!(table.header, ["contender", "Gbit/s", "load"]);
        assert_eq!(table.rows, [["direct, no proxy", "8.00 (8.00–8.00)", "60 %"]]);
        assert!(memory(&results, Rest::Pairs).rows.is_empty());
        assert!(balance(&results).rows.is_empty());
    }

    #[test]
    fn latency_is_written_in_microseconds() {
        let work = Workload::RoundTrips { connections: 1, size: 100 };
        let mut results = example::nothing();
        let mut sample = example::sample(work, Contender::Ringgate, 1, 2e5);
        sample.latency = Some(example::latency(9.871, 55.5, 1234.5));
        results.samples.push(sample);
        let table = workload(&results, work);
        assert_eq!(table.header[3..6], ["p50", "p99", "p99.9"]);
        assert_eq!(table.rows[0][3..6], ["9.87", "55.5", "1234"]);
    }

    #[test]
    fn memory_is_told_for_each_connection() {
        let mut results = example::nothing();
        for (connections, closed, anonymous, descriptors) in
            [(0, false, 1 << 20, 20), (1000, false, (1 << 20) + 2_500_000, 4020), (0, true, 0, 21)]
        {
            let mut weighing = example::weighing(Contender::Haproxy, Rest::KeepAlive, connections);
            (weighing.closed, weighing.anonymous) = (closed, anonymous);
            weighing.descriptors = descriptors;
            results.weights.push(weighing);
        }
        let table = memory(&results, Rest::KeepAlive);
        assert_eq!(table.header[1..], ["without any", "each of 1000", "left after closing"]);
        let cells = ["HAProxy", "1.0 MiB", "2500 B, 4.00 fds", "-1.0 MiB, 1 fds"];
        assert_eq!(table.rows, [cells]);
    }

    #[test]
    fn balance_is_the_median_of_the_busiest_over_the_mean() {
        let mut results = example::nothing();
        for cpu_seconds in [[1.0, 1.0], [3.0, 1.0], [1.2, 0.8], [0.0, 0.0]] {
            results.balance.push(Balance { flows: 64, cpu_seconds: cpu_seconds.to_vec() });
        }
        assert_eq!(balance(&results).rows, [["64", "2", "3", "1.20 (1.00–1.50)"]]);
    }

    #[test]
    fn small_margins_keep_a_digit() {
        assert_eq!(margin(12.34), "+12 %");
        assert_eq!(margin(-8.0), "-8 %");
        assert_eq!(margin(-0.26), "-0.3 %");
    }
}
