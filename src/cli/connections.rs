//! `ringgate connections` and `ringgate close`: what is open in a running process, and the end of
//! one connection.

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::ask::{Asked, order, shown};
use super::print;
use super::text::{size, table, time};
use crate::error::Error;

/// Which connections are listed.
#[derive(Debug, Args)]
pub(super) struct Listing {
    #[command(flatten)]
    asked: Asked,
    /// Print the response of the admin endpoint, which is JSON.
    #[arg(long)]
    json: bool,
    /// The most that are listed.
    #[arg(
        short = 'n',
        long,
        value_name = "N",
        default_value_t = 100,
        value_parser = clap::value_parser!(u16).range(1..=10_000)
    )]
    limit: u16,
    /// Which of them come first.
    #[arg(long, value_enum, default_value_t = Sort::Bytes)]
    sort: Sort,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Sort {
    /// Those that have moved the most bytes.
    Bytes,
    /// Those that were accepted last.
    Newest,
    /// Those that were accepted first.
    Oldest,
}

/// Which connection is closed.
#[derive(Debug, Args)]
pub(super) struct Closing {
    /// Its id, as `ringgate connections` shows it.
    id: String,
    #[command(flatten)]
    asked: Asked,
    /// Print the response of the admin endpoint, which is JSON.
    #[arg(long)]
    json: bool,
}

/// Lists open connections.
pub(super) fn list(listing: &Listing) -> Result<(), Error> {
    let sort = match listing.sort {
        Sort::Bytes => "bytes",
        Sort::Newest => "newest",
        Sort::Oldest => "oldest",
    };
    let path = format!("/connections?limit={}&sort={sort}", listing.limit);
    match shown(&listing.asked, &path, "connections", listing.json)? {
        Some(value) => print(&as_text(&value)),
        None => Ok(()),
    }
}

/// Closes one.
pub(super) fn close(closing: &Closing) -> Result<(), Error> {
    let is_id = |one: char| one.is_ascii_digit() || one == '-';
    if closing.id.is_empty() || !closing.id.chars().all(is_id) {
        let advice = "`ringgate connections` shows the ids";
        return Err(Error::usage("this is not the id of a connection", &*closing.id, advice));
    }
    order(&closing.asked, &format!("/connections/{}/close", closing.id), closing.json)
}

fn as_text(value: &Value) -> String {
    let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let seconds = |value: &Value| value.as_f64().map_or_else(|| "-".into(), |s| time(s as u64));
    let head = [
        "ID", "LISTENER", "CLIENT", "PROTOCOL", "KIND", "CLUSTER", "ENDPOINT", "AGE", "IDLE", "UP",
        "DOWN",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    let all = value["connections"].as_array().map_or(&[][..], |all| all);
    for one in all {
        rows.push([
            word(&one["id"]),
            word(&one["listener"]),
            word(&one["client"]),
            word(&one["protocol"]),
            word(&one["kind"]),
            word(&one["cluster"]),
            word(&one["endpoint"]),
            seconds(&one["age_seconds"]),
            seconds(&one["idle_seconds"]),
            size(number(&one["bytes_up"])),
            size(number(&one["bytes_down"])),
        ]);
    }
    let total = number(&value["total"]);
    format!("{}{} of {total} open connections\n", table(&rows, 7), all.len())
}
