//! Tables of numbers, and rates between two responses of the admin endpoint.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use serde_json::Value;

use super::feed::Sample;
use crate::cli::text::{size, time};

/// Sums of bytes that are kept for the small plot.
const HISTORY: usize = 200;

/// What is shown of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum View {
    #[default]
    Listeners,
    Connections,
    Endpoints,
    Workers,
}

impl View {
    /// All views, in the order of their keys.
    pub(super) const ALL: [View; 4] =
        [View::Listeners, View::Connections, View::Endpoints, View::Workers];

    /// The name in the line of all views.
    pub(super) fn name(self) -> &'static str {
        match self {
            View::Listeners => "listeners",
            View::Connections => "connections",
            View::Endpoints => "endpoints",
            View::Workers => "workers",
        }
    }

    /// The one that comes so many places later.
    pub(super) fn next(self, places: usize) -> View {
        View::ALL[(self as usize + places) % View::ALL.len()]
    }

    /// The columns, each with its width, and whether it is to the right. One of width 0 takes what
    /// is left.
    pub(super) fn columns(self) -> &'static [(&'static str, u16, bool)] {
        match self {
            View::Listeners => &[
                ("LISTENER", 0, false),
                ("CONNS", 7, true),
                ("TUNNELS", 7, true),
                ("SESSIONS", 8, true),
                ("NEW/s", 8, true),
                ("UP/s", 10, true),
                ("DOWN/s", 10, true),
            ],
            View::Connections => &[
                ("ID", 13, false),
                ("LISTENER", 8, false),
                ("CLIENT", 15, false),
                ("KIND", 8, false),
                ("AGE", 8, true),
                ("UP/s", 9, true),
                ("DOWN/s", 10, true),
                ("ENDPOINT", 0, false),
            ],
            View::Endpoints => &[
                ("ENDPOINT", 0, false),
                ("CLUSTER", 9, false),
                ("STATE", 9, false),
                ("OPEN", 6, true),
                ("NEW/s", 6, true),
                ("UP/s", 9, true),
                ("DOWN/s", 10, true),
            ],
            View::Workers => {
                &[("WORKER", 8, true), ("CONNS", 9, true), ("SESSIONS", 9, true), ("CPU", 8, true)]
            }
        }
    }

    /// The column by which it is sorted at first.
    pub(super) fn first_sort(self) -> usize {
        match self {
            View::Listeners | View::Connections | View::Endpoints => 6,
            View::Workers => 0,
        }
    }
}

/// A value as it is shown, and what it is sorted by.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell {
    Text(String),
    Number(f64, String),
}

impl Cell {
    fn count(value: u64) -> Cell {
        Cell::Number(value as f64, value.to_string())
    }

    fn rate(value: f64) -> Cell {
        let shown = if value < 10.0 { format!("{value:.1}") } else { format!("{value:.0}") };
        Cell::Number(value, shown)
    }

    fn size(value: f64) -> Cell {
        Cell::Number(value, size(value as u64))
    }

    fn text(value: &Value) -> Cell {
        Cell::Text(value.as_str().unwrap_or("-").to_owned())
    }

    /// The text.
    pub(super) fn shown(&self) -> &str {
        match self {
            Cell::Text(text) | Cell::Number(_, text) => text,
        }
    }
}

/// What is known of the process.
#[derive(Default)]
pub(super) struct Model {
    last: Option<Sample>,
    before: Option<Sample>,
    /// Since when nothing answers, and why.
    gone: Option<(Instant, String)>,
    history: VecDeque<u64>,
}

impl Model {
    /// Adds a response.
    pub(super) fn add(&mut self, sample: Sample) {
        self.gone = None;
        let started = |sample: &Sample| sample.stats["process"]["started_seconds"].as_f64();
        // The counters of another process begin again.
        let is_same = |last: &Sample| started(last) == started(&sample);
        self.before = self.last.take().filter(is_same);
        self.last = Some(sample);
        if self.before.is_some() {
            let moved = self.rate_of_all("bytes_up") + self.rate_of_all("bytes_down");
            self.history.push_back(moved as u64);
            if self.history.len() > HISTORY {
                self.history.pop_front();
            }
        }
    }

    /// Notes that nothing answers.
    pub(super) fn lose(&mut self, why: String) {
        let since = self.gone.as_ref().map_or_else(Instant::now, |(since, _)| *since);
        self.gone = Some((since, why));
    }

    /// Why there is nothing new to show.
    pub(super) fn trouble(&self) -> Option<String> {
        let (since, why) = self.gone.as_ref()?;
        let seconds = since.elapsed().as_secs();
        Some(format!("no answer for {}: {why}; trying again", time(seconds)))
    }

    /// Bytes of all listeners in a second, the last ones at the end.
    pub(super) fn history(&self) -> &VecDeque<u64> {
        &self.history
    }

    /// Lines about the process as a whole.
    pub(super) fn summary(&self) -> [String; 3] {
        let Some(Sample { stats, .. }) = &self.last else {
            return ["ringgate".to_owned(), String::new(), String::new()];
        };
        let process = &stats["process"];
        let number = |value: &Value| value.as_u64().unwrap_or_default();
        let open = |kind: &str| self.listeners().map(|one| number(&one[kind]["open"])).sum::<u64>();
        let new = self.rate_of(|one| number(&one["connections"]["total"]))
            + self.rate_of(|one| number(&one["sessions"]["total"]));
        let cpu = 100.0
            * self.rate(process["cpu_seconds"].as_f64(), |before| {
                before["process"]["cpu_seconds"].as_f64()
            });
        [
            format!(
                "ringgate {}  {} for {}  {}  {} reloads",
                stats["version"].as_str().unwrap_or_default(),
                stats["state"].as_str().unwrap_or_default(),
                time(number(&stats["uptime_seconds"])),
                stats["driver"].as_str().unwrap_or_default(),
                number(&stats["reloads"]),
            ),
            format!(
                "up {}/s  down {}/s  new {new:.0}/s  CPU {cpu:.0} %  memory {}  fds {}",
                size(self.rate_of_all("bytes_up") as u64),
                size(self.rate_of_all("bytes_down") as u64),
                size(number(&process["resident_bytes"])),
                number(&process["open_descriptors"]),
            ),
            format!(
                "open: {} connections, {} of them tunnels; {} sessions",
                open("connections"),
                open("tunnels"),
                open("sessions"),
            ),
        ]
    }

    /// The rows of a view. `None` if they are not known.
    pub(super) fn rows(&self, view: View) -> Option<Vec<Vec<Cell>>> {
        let last = self.last.as_ref()?;
        match view {
            View::Listeners => Some(self.listener_rows()),
            View::Workers => Some(self.worker_rows()),
            View::Connections | View::Endpoints => {
                let (_, now) = last.more.as_ref().filter(|(of, _)| *of == view)?;
                let before = self.before.as_ref().and_then(|sample| sample.more.as_ref());
                let before = before.filter(|(of, _)| *of == view).map(|(_, before)| before);
                Some(match view {
                    View::Connections => self.connection_rows(now, before),
                    _ => self.endpoint_rows(now, before),
                })
            }
        }
    }

    fn listeners(&self) -> impl Iterator<Item = &Value> {
        self.last.iter().flat_map(|sample| list(&sample.stats["listeners"]))
    }

    fn listener_rows(&self) -> Vec<Vec<Cell>> {
        let before: HashMap<&str, &Value> = self
            .before
            .iter()
            .flat_map(|sample| list(&sample.stats["listeners"]))
            .filter_map(|one| Some((one["name"].as_str()?, one)))
            .collect();
        let row = |one: &Value| {
            let open = |kind: &str| Cell::count(one[kind]["open"].as_u64().unwrap_or_default());
            let earlier = one["name"].as_str().and_then(|name| before.get(name));
            let rate = |of: &dyn Fn(&Value) -> Option<f64>| {
                self.rate(of(one), |_| earlier.and_then(|one| of(one)))
            };
            let total = |one: &Value| {
                Some(one["connections"]["total"].as_f64()? + one["sessions"]["total"].as_f64()?)
            };
            vec![
                Cell::text(&one["name"]),
                open("connections"),
                open("tunnels"),
                open("sessions"),
                Cell::rate(rate(&total)),
                Cell::size(rate(&|one| one["bytes_up"].as_f64())),
                Cell::size(rate(&|one| one["bytes_down"].as_f64())),
            ]
        };
        self.listeners().map(row).collect()
    }

    fn worker_rows(&self) -> Vec<Vec<Cell>> {
        let Some(last) = &self.last else { return Vec::new() };
        let row = |(index, one): (usize, &Value)| {
            let used = |stats: &Value| stats["workers"][index]["cpu_seconds"].as_f64();
            let cpu = 100.0 * self.rate(used(&last.stats), used);
            vec![
                Cell::count(index as u64),
                Cell::count(one["connections"].as_u64().unwrap_or_default()),
                Cell::count(one["sessions"].as_u64().unwrap_or_default()),
                Cell::Number(cpu, format!("{cpu:.0} %")),
            ]
        };
        list(&last.stats["workers"]).enumerate().map(row).collect()
    }

    fn connection_rows(&self, now: &Value, before: Option<&Value>) -> Vec<Vec<Cell>> {
        let all = before.into_iter().flat_map(|before| list(&before["connections"]));
        let before: HashMap<&str, &Value> =
            all.filter_map(|one| Some((one["id"].as_str()?, one))).collect();
        let row = |one: &Value| {
            let earlier = one["id"].as_str().and_then(|id| before.get(id));
            let rate = |field: &str| {
                self.rate(one[field].as_f64(), |_| earlier.and_then(|one| one[field].as_f64()))
            };
            let age = one["age_seconds"].as_f64().unwrap_or_default();
            // The address is enough: of many connections the ports say nothing.
            let client = one["client"].as_str().unwrap_or("-");
            let client = client.rsplit_once(':').map_or(client, |(address, _)| address);
            vec![
                Cell::text(&one["id"]),
                Cell::text(&one["listener"]),
                Cell::Text(client.to_owned()),
                Cell::text(&one["kind"]),
                Cell::Number(age, time(age as u64)),
                Cell::size(rate("bytes_up")),
                Cell::size(rate("bytes_down")),
                Cell::text(&one["endpoint"]),
            ]
        };
        list(&now["connections"]).map(row).collect()
    }

    fn endpoint_rows(&self, now: &Value, before: Option<&Value>) -> Vec<Vec<Cell>> {
        let before: HashMap<(&str, &str), &Value> =
            before.into_iter().flat_map(endpoints).map(|(of, at, one)| ((of, at), one)).collect();
        let row = |(cluster, address, one): (&str, &str, &Value)| {
            let earlier = before.get(&(cluster, address));
            let rate = |of: &dyn Fn(&Value) -> Option<f64>| {
                self.rate(of(one), |_| earlier.and_then(|one| of(one)))
            };
            vec![
                Cell::Text(address.to_owned()),
                Cell::Text(cluster.to_owned()),
                Cell::text(&one["state"]),
                Cell::count(one["connections"]["open"].as_u64().unwrap_or_default()),
                Cell::rate(rate(&|one| one["connections"]["total"].as_f64())),
                Cell::size(rate(&|one| one["bytes_up"].as_f64())),
                Cell::size(rate(&|one| one["bytes_down"].as_f64())),
            ]
        };
        endpoints(now).map(row).collect()
    }

    /// What a number has grown by in a second. `before` finds it in the earlier response; without
    /// one it is 0.
    fn rate(&self, now: Option<f64>, before: impl Fn(&Value) -> Option<f64>) -> f64 {
        let (Some(last), Some(earlier)) = (&self.last, &self.before) else { return 0.0 };
        let seconds = last.at.saturating_duration_since(earlier.at).as_secs_f64();
        match (now, before(&earlier.stats)) {
            (Some(now), Some(before)) if seconds > 0.0 => (now - before).max(0.0) / seconds,
            _ => 0.0,
        }
    }

    fn rate_of_all(&self, field: &str) -> f64 {
        self.rate_of(|one| one[field].as_u64().unwrap_or_default())
    }

    /// The rate of a sum over all listeners.
    fn rate_of(&self, of: impl Fn(&Value) -> u64) -> f64 {
        let sum = |stats: &Value| list(&stats["listeners"]).map(&of).sum::<u64>() as f64;
        self.rate(self.last.as_ref().map(|last| sum(&last.stats)), |before| Some(sum(before)))
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// The endpoints of all clusters, each with the name of its cluster and its address.
fn endpoints(value: &Value) -> impl Iterator<Item = (&str, &str, &Value)> {
    list(&value["clusters"]).flat_map(|cluster| {
        let name = cluster["name"].as_str().unwrap_or_default();
        list(&cluster["endpoints"])
            .map(move |one| (name, one["address"].as_str().unwrap_or_default(), one))
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn sample(at: Instant, started: f64, bytes: u64) -> Sample {
        let counts = json!({ "total": bytes / 100, "open": 1 });
        let listener = json!({
            "name": "web", "connections": counts, "tunnels": counts, "sessions": counts,
            "bytes_up": bytes, "bytes_down": 2 * bytes,
        });
        let stats = json!({
            "process": { "started_seconds": started, "cpu_seconds": bytes as f64 / 1e4 },
            "workers": [{ "connections": 1, "sessions": 0, "cpu_seconds": bytes as f64 / 1e4 }],
            "listeners": [listener],
        });
        let connections = json!({ "connections": [{
            "id": "0-1", "listener": "web", "client": "10.0.0.1:50", "bytes_up": bytes,
            "bytes_down": 0, "age_seconds": 61.5,
        }] });
        Sample { at, stats, more: Some((View::Connections, connections)) }
    }

    fn shown(model: &Model, view: View) -> Vec<String> {
        let rows = model.rows(view).expect("it is known");
        rows[0].iter().map(|cell| cell.shown().to_owned()).collect()
    }

    #[test]
    fn rates_are_those_between_two_responses_of_one_process() {
        let (mut model, begun) = (Model::default(), Instant::now());
        assert!(model.rows(View::Listeners).is_none());
        model.add(sample(begun, 1.0, 1000));
        assert_eq!(shown(&model, View::Listeners)[4..], ["0.0", "0 B", "0 B"]);
        model.add(sample(begun + Duration::from_secs(2), 1.0, 5096));
        assert_eq!(
            shown(&model, View::Listeners),
            ["web", "1", "1", "1", "40", "2.0 KiB", "4.0 KiB"]
        );
        let row = shown(&model, View::Connections);
        assert_eq!(row, ["0-1", "web", "10.0.0.1", "-", "1 min 1 s", "2.0 KiB", "0 B", "-"]);
        assert_eq!(shown(&model, View::Workers), ["0", "1", "0", "20 %"]);
        assert!(model.rows(View::Endpoints).is_none());
        // Another process has the same address now.
        model.add(sample(begun + Duration::from_secs(3), 2.0, 50));
        assert_eq!(shown(&model, View::Listeners)[4..], ["0.0", "0 B", "0 B"]);
        assert_eq!(model.history().len(), 1);
    }

    #[test]
    fn what_is_gone_comes_back() {
        let mut model = Model::default();
        model.lose("refused".to_owned());
        assert!(model.trouble().is_some_and(|text| text.contains("refused")));
        model.add(sample(Instant::now(), 1.0, 1));
        assert_eq!(model.trouble(), None);
    }

    #[test]
    fn every_view_fits_into_80_columns() {
        for view in View::ALL {
            assert!(view.first_sort() < view.columns().len());
            let width: u16 = view.columns().iter().map(|(_, width, _)| width + 1).sum();
            // The endpoint of a connection needs a wider terminal.
            let most = if view == View::Connections { 80 } else { 74 };
            assert!(width <= most, "{} needs {width} columns", view.name());
        }
    }
}
