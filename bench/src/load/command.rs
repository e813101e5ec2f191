//! The loads as subcommands: the arguments, the set-up and the report that all have in common.

use std::io;

use clap::Args;
use serde_json::{Map, Value, json};

use super::Outcome;
use super::dial::Target;
use crate::usage;

#[derive(Args)]
pub(crate) struct Arguments<L: Args> {
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(flatten)]
    pub(crate) load: L,
}

/// What a load counts, and so how its rate and its cost are told.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Byte,
    /// Something that is counted one by one; the name is plural.
    Each(&'static str),
}

/// Names and values in the order in which they are told.
pub(crate) type Figures = Vec<(&'static str, Value)>;

/// Sets up, runs the load and reports.
pub(crate) fn main<L: Args>(
    arguments: &Arguments<L>,
    unit: Unit,
    run: impl FnOnce(&Target, &L) -> io::Result<Outcome>,
) -> io::Result<()> {
    let Arguments { target, load } = arguments;
    prepare(target)?;
    let outcome = run(target, load)?;
    print(target.json, &figures(&outcome, unit));
    Ok(())
}

/// What every subcommand does before its load runs.
pub(crate) fn prepare(target: &Target) -> io::Result<()> {
    if let Some(cpu) = target.cpu {
        usage::pin(cpu)?;
    }
    usage::raise_file_limit()?;
    Ok(())
}

pub(crate) fn figures(outcome: &Outcome, unit: Unit) -> Figures {
    let mut figures = match unit {
        Unit::Byte => vec![
            ("gbit_per_s", json!(outcome.gbit_per_s())),
            ("cpu_seconds_per_gb", json!(outcome.cpu_seconds_per_gb())),
            ("bytes", json!(outcome.units)),
        ],
        Unit::Each(name) => vec![
            ("per_second", json!(outcome.per_second())),
            ("cpu_seconds_per_million", json!(outcome.cpu_seconds_per_million())),
            (name, json!(outcome.units)),
        ],
    };
    figures.push(("seconds", json!(outcome.seconds)));
    figures.push(("cpu_seconds", json!(outcome.cpu_seconds)));
    figures.push(("load_cpu_seconds", json!(outcome.load_cpu_seconds)));
    if let Some(latency) = &outcome.latency {
        for (name, share) in [("p50_us", 0.5), ("p99_us", 0.99), ("p999_us", 0.999)] {
            figures.push((name, json!(latency.quantile_us(share))));
        }
    }
    figures
}

/// One JSON object, or one line of text without what is unknown.
pub(crate) fn print(json: bool, figures: &Figures) {
    if json {
        println!("{}", object(figures));
        return;
    }
    let known = figures.iter().filter(|(_, value)| !value.is_null());
    let words: Vec<String> = known.map(|(name, value)| format!("{name} {}", text(value))).collect();
    println!("{}", words.join(", "));
}

pub(crate) fn object(figures: &Figures) -> Value {
    let entries = figures.iter().map(|(name, value)| ((*name).to_string(), value.clone()));
    Value::Object(entries.collect::<Map<_, _>>())
}

fn text(value: &Value) -> String {
    match value.as_f64() {
        Some(number) if value.is_f64() => format!("{number:.3}"),
        _ => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_rate_and_cost_in_the_units_of_the_load() {
        let outcome = Outcome {
            units: 2_000_000_000,
            seconds: 2.0,
            cpu_seconds: Some(0.5),
            load_cpu_seconds: 1.0,
            latency: None,
        };
        let told = object(&figures(&outcome, Unit::Byte));
        assert_eq!((&told["gbit_per_s"], &told["cpu_seconds_per_gb"]), (&json!(8.0), &json!(0.25)));
        let told = object(&figures(&outcome, Unit::Each("requests")));
        assert_eq!(told["per_second"], json!(1e9));
        assert_eq!(told["requests"], json!(2_000_000_000u64));
        assert_eq!(text(&json!(1.23456)), "1.235");
    }
}
