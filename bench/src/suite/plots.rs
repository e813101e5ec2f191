//! The plots of the report: what is in each. How they are drawn is in [`draw`].

mod draw;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::names::bytes;
use super::results::{Contender, Rest, Results, Workload};
use super::statistics::{Figure, Spread};
use crate::while_doing;

/// Connections whose round trips are looked at where none were made beside bulk.
const SMALL: u16 = 64;

/// One file: panels side by side under one title and one legend.
pub(crate) struct Plot {
    pub(crate) file: &'static str,
    pub(crate) title: &'static str,
    /// What is up, which way is better, and what the marks are.
    note: String,
    x: &'static str,
    y: &'static str,
    marks: Marks,
    /// Whether all panels have the same scale, where they can be compared.
    shared: bool,
    panels: Vec<Panel>,
}

#[derive(Clone, Copy, PartialEq)]
enum Marks {
    /// From zero.
    Bars,
    /// On a logarithmic scale.
    Points,
    /// On a logarithmic scale, over a number.
    Lines,
}

struct Panel {
    title: String,
    groups: Vec<Group>,
}

impl Panel {
    /// Groups stand one after another, whatever they are called.
    fn in_order(title: &str, groups: impl Iterator<Item = (String, Values)>) -> Self {
        let groups = groups.filter(|(_, values)| !values.is_empty()).enumerate();
        let groups = groups
            .map(|(place, (label, values))| Group { at: place as f64, label, values })
            .collect();
        Self { title: title.to_string(), groups }
    }
}

/// The contenders at one place of the x axis.
struct Group {
    at: f64,
    label: String,
    values: Values,
}

type Values = Vec<(Contender, Spread)>;

/// Writes every plot that the run has figures for.
pub(crate) fn write(results: &Results, directory: &Path) -> io::Result<Vec<PathBuf>> {
    let write_one = |plot: Plot| {
        let path = directory.join(plot.file);
        let doing = || format!("cannot write {}", path.display());
        let svg = draw::svg(&plot)
            .map_err(|error| while_doing(doing())(io::Error::other(error.to_string())))?;
        fs::write(&path, svg).map_err(while_doing(doing()))?;
        Ok(path)
    };
    all(results).into_iter().map(write_one).collect()
}

/// Removes the plots of an earlier run: those that this one does not write would tell of that one.
pub(crate) fn remove(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "svg") {
            fs::remove_file(&path).map_err(while_doing(path.display()))?;
        }
    }
    Ok(())
}

/// The plots that this run has figures for.
pub(crate) fn all(results: &Results) -> Vec<Plot> {
    let mut plots = vec![
        bulk(results),
        round_trips(results),
        latency(results),
        connections(results),
        memory(results),
    ];
    for plot in &mut plots {
        plot.panels.retain(|panel| !panel.groups.is_empty());
    }
    plots.retain(|plot| !plot.panels.is_empty());
    plots
}

fn bulk(results: &Results) -> Plot {
    // Gigabytes for a CPU second instead of CPU seconds for a byte.
    let inverse = |cost: Spread| Spread {
        median: 1e-9 / cost.median,
        low: 1e-9 / cost.high,
        high: 1e-9 / cost.low,
    };
    let up = |workload| match workload {
        Workload::BulkUp { connections } => Some(connections.to_string()),
        _ => None,
    };
    let down = |workload| match workload {
        Workload::BulkDown { connections } => Some(connections.to_string()),
        _ => None,
    };
    Plot {
        file: "bulk.svg",
        title: "Bulk at L4: what a CPU second of the proxy moves",
        note: note("Higher is better.", "Bars"),
        x: "connections",
        y: "GB per CPU second",
        marks: Marks::Bars,
        shared: true,
        panels: vec![
            by_workload(results, "up, client to server", up, inverse),
            by_workload(results, "down, server to client", down, inverse),
        ],
    }
}

fn round_trips(results: &Results) -> Plot {
    let mut sizes: Vec<u16> = results.workloads().into_iter().filter_map(size).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let panel = |wanted: u16| {
        let pick = |workload| match workload {
            Workload::RoundTrips { connections, size } if size == wanted => {
                Some(connections.to_string())
            }
            _ => None,
        };
        by_workload(results, &bytes(wanted.into()), pick, |cost| cost.scaled(1e6))
    };
    Plot {
        file: "round-trips.svg",
        title: "Round trips at L4: what one costs the proxy",
        note: note("Lower is better.", "Bars"),
        x: "connections",
        y: "CPU µs per round trip",
        marks: Marks::Bars,
        shared: true,
        panels: sizes.into_iter().map(panel).collect(),
    }
}

fn size(workload: Workload) -> Option<u16> {
    match workload {
        Workload::RoundTrips { size, .. } => Some(size),
        _ => None,
    }
}

fn latency(results: &Results) -> Plot {
    let mixed = results.workloads().into_iter().find_map(|workload| match workload {
        Workload::Mixed { bulk, small } => Some((bulk, small, workload)),
        _ => None,
    });
    let connections = mixed.map_or(SMALL, |(_, small, _)| small);
    let alone = Workload::RoundTrips { connections, size: 100 };
    let mut panels = vec![quantiles(results, "alone", alone)];
    if let Some((bulk, _, workload)) = mixed {
        panels.push(quantiles(results, &format!("beside {bulk} bulk flows"), workload));
    }
    Plot {
        file: "latency.svg",
        title: "100 B round trips, alone and beside bulk on the same worker",
        note: note("Lower is better; logarithmic scale.", "Points"),
        x: "quantile",
        y: "round trip time, µs",
        marks: Marks::Points,
        shared: true,
        panels,
    }
}

fn quantiles(results: &Results, title: &str, workload: Workload) -> Panel {
    let figures = [("p50", Figure::P50), ("p99", Figure::P99), ("p99.9", Figure::P999)];
    let groups = figures
        .map(|(label, figure)| (label.to_string(), values(results, workload, figure, |us| us)));
    Panel::in_order(title, groups.into_iter())
}

fn connections(results: &Results) -> Plot {
    let panel = |wanted: fn(Workload) -> Option<u16>, title| {
        let pick = |workload| wanted(workload).map(|connections| connections.to_string());
        by_workload(results, title, pick, |cost| cost.scaled(1e6))
    };
    let churn = |workload| match workload {
        Workload::Churn { connections } => Some(connections),
        _ => None,
    };
    let kept = |workload| match workload {
        Workload::Redirects { connections } => Some(connections),
        _ => None,
    };
    let once = |workload| match workload {
        Workload::RedirectsOnce { connections } => Some(connections),
        _ => None,
    };
    Plot {
        file: "connections.svg",
        title: "Short connections and 301s: what one costs the proxy",
        note: note("Lower is better; a scale for each.", "Bars"),
        x: "connections at a time",
        y: "CPU µs each",
        marks: Marks::Bars,
        shared: false,
        panels: vec![
            panel(churn, "connect, 100 B, close"),
            panel(once, "301 on a connection each"),
            panel(kept, "301 on kept connections"),
        ],
    }
}

fn memory(results: &Results) -> Plot {
    let group = |rest, step| {
        let mib = |contender| {
            let bytes = results.holding(contender, rest, step)?.anonymous;
            let mib = bytes as f64 / f64::from(1 << 20);
            Some((contender, Spread { median: mib, low: mib, high: mib }))
        };
        let values = results.weighed(rest).into_iter().filter_map(mib).collect();
        Group { at: step.into(), label: step.to_string(), values }
    };
    let panel = |rest: Rest| {
        let groups = results.steps(rest).into_iter().map(|step| group(rest, step)).collect();
        Panel { title: rest.to_string(), groups }
    };
    Plot {
        file: "memory.svg",
        title: "Memory of a proxy that holds idle connections",
        note: "Lower is better; logarithmic scale. Anonymous memory in RAM: heap and stacks."
            .to_string(),
        x: "idle connections",
        y: "MiB",
        marks: Marks::Lines,
        shared: true,
        panels: Rest::ALL.map(panel).into(),
    }
}

fn note(better: &str, marks: &str) -> String {
    format!("{better} {marks}: median of the rounds; whiskers: lowest to highest.")
}

/// CPU costs at the workloads that `label` has a label for, each a group.
fn by_workload(
    results: &Results,
    title: &str,
    label: impl Fn(Workload) -> Option<String>,
    convert: fn(Spread) -> Spread,
) -> Panel {
    let mut workloads = results.workloads();
    workloads.sort();
    let groups = workloads.into_iter().filter_map(|workload| {
        Some((label(workload)?, values(results, workload, Figure::Cost, convert)))
    });
    Panel::in_order(title, groups)
}

fn values(
    results: &Results,
    workload: Workload,
    figure: Figure,
    convert: impl Fn(Spread) -> Spread,
) -> Values {
    let value = |contender| {
        let spread = convert(results.spread(workload, contender, figure)?);
        // A cost of nothing, in an interval shorter than the clock's tick, has no inverse.
        let finite = [spread.low, spread.median, spread.high].iter().all(|value| value.is_finite());
        finite.then_some((contender, spread))
    };
    results.contenders(workload).into_iter().filter_map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::super::example;
    use super::*;

    #[test]
    fn a_full_run_has_all_plots_with_everyone_in_their_legends() {
        let directory = tempfile::tempdir().unwrap();
        let results = example::full();
        let paths = write(&results, directory.path()).unwrap();
        assert_eq!(paths.len(), 5);
        for path in paths {
            let svg = fs::read_to_string(&path).unwrap();
            assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{path:?}");
            assert!(svg.len() < 60_000, "{path:?} has {} B", svg.len());
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{path:?}");
            for contender in ["ringgate", "nginx", "HAProxy", "Envoy"] {
                assert!(svg.lines().any(|line| line == contender), "{contender} not in {path:?}");
            }
        }
    }

    #[test]
    fn what_was_not_measured_is_not_plotted() {
        let directory = tempfile::tempdir().unwrap();
        assert!(write(&example::nothing(), directory.path()).unwrap().is_empty());

        let mut results = example::nothing();
        let workload = Workload::BulkDown { connections: 16 };
        let mut sample = example::sample(workload, Contender::Ringgate, 1, 1e9);
        results.samples.push(sample.clone());
        sample.contender = Contender::Nginx;
        sample.cost = Some(0.0);
        results.samples.push(sample);
        let plots = all(&results);
        assert_eq!(plots.len(), 1);
        assert_eq!(plots[0].panels.len(), 1);
        assert_eq!(plots[0].panels[0].groups[0].values.len(), 1, "nginx's cost has no inverse");
        assert_eq!(write(&results, directory.path()).unwrap().len(), 1);
    }

    #[test]
    fn no_figure_is_too_small_to_draw() {
        let mut results = example::nothing();
        let workload = Workload::Churn { connections: 1 };
        let mut sample = example::sample(workload, Contender::Ringgate, 1, 1.0);
        sample.cost = Some(0.0);
        results.samples.push(sample);
        let mut weighing = example::weighing(Contender::Ringgate, Rest::Pairs, 0);
        weighing.anonymous = 0;
        results.weights.push(weighing);
        for plot in all(&results) {
            let svg = draw::svg(&plot).unwrap();
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{}", plot.file);
        }
    }
}
