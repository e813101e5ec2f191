//! Commands that ask a running process, by its admin endpoint.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use serde_json::Value;

use super::print;
use crate::config;
use crate::control::Endpoint;
use crate::error::Error;

/// Which process is asked.
#[derive(Debug, Args)]
pub(super) struct Asked {
    /// The address of its admin endpoint: `IP:port` or `unix:/path`.
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "RINGGATE_ADMIN",
        default_value = "unix:/run/ringgate/admin.sock"
    )]
    admin: String,
    /// The file of its token, if it needs one.
    #[arg(long, value_name = "FILE", env = "RINGGATE_ADMIN_TOKEN_FILE")]
    token_file: Option<PathBuf>,
}

impl Asked {
    fn endpoint(&self) -> Result<Endpoint, Error> {
        let address = config::admin_address(&self.admin)
            .map_err(|(what, note)| Error::start("cannot ask the admin endpoint", what, note))?;
        Endpoint::new(address, self.token_file.as_deref())
    }
}

/// Gives an order, and prints its result.
pub(super) fn order(asked: &Asked, path: &str) -> Result<(), Error> {
    let reply = asked.endpoint()?.ask(path, true)?;
    let value: Value = serde_json::from_str(&reply.body).unwrap_or_default();
    if reply.is_success {
        return print(&format!("{}\n", value["result"].as_str().unwrap_or("done")));
    }
    Err(refused(&value, &reply.body))
}

/// Prints what the process does.
pub(super) fn status(asked: &Asked, is_json: bool) -> Result<(), Error> {
    let reply = asked.endpoint()?.ask("/stats", false)?;
    let value: Value = serde_json::from_str(&reply.body).unwrap_or_default();
    if !reply.is_success {
        return Err(refused(&value, &reply.body));
    }
    if is_json {
        print(&reply.body)?;
    } else {
        print(&as_text(&value))?;
    }
    match value["state"].as_str() {
        Some("serving") => Ok(()),
        state => {
            Err(Error::start("the process is about to end", state.unwrap_or("?").to_owned(), ""))
        }
    }
}

fn refused(value: &Value, body: &str) -> Error {
    let why = value["error"].as_str().unwrap_or(body).trim();
    let why = why.strip_prefix("error: ").unwrap_or(why);
    Error::start("ringgate has refused it", why.to_owned(), "")
}

/// The numbers for people.
fn as_text(stats: &Value) -> String {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let process = &stats["process"];
    let mut text = format!(
        "ringgate {} ({}): {} for {}, driver {}, {} reloads\n\
         memory {}, CPU {:.1} s, {} descriptors\n\n",
        word(&stats["version"]),
        word(&stats["commit"]),
        word(&stats["state"]),
        time(number(&stats["uptime_seconds"])),
        word(&stats["driver"]),
        number(&stats["reloads"]),
        size(number(&process["resident_bytes"])),
        process["cpu_seconds"].as_f64().unwrap_or_default(),
        number(&process["open_descriptors"]),
    );
    let head = ["LISTENER", "CONNECTIONS", "TUNNELS", "SESSIONS", "TOTAL", "UP", "DOWN"];
    let mut rows = vec![head.map(str::to_owned)];
    for one in stats["listeners"].as_array().into_iter().flatten() {
        let open = |kind: &str| number(&one[kind]["open"]);
        let total = number(&one["connections"]["total"]) + number(&one["sessions"]["total"]);
        rows.push([
            word(&one["name"]),
            open("connections").to_string(),
            open("tunnels").to_string(),
            open("sessions").to_string(),
            total.to_string(),
            size(number(&one["bytes_up"])),
            size(number(&one["bytes_down"])),
        ]);
    }
    text += &table(&rows);
    let certificates: Vec<[String; 3]> = stats["certificates"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|one| {
            let names = one["names"].as_array().into_iter().flatten().map(word);
            let names: Vec<String> = names.collect();
            [word(&one["file"]), days_left(number(&one["not_after"])), names.join(" ")]
        })
        .collect();
    if !certificates.is_empty() {
        let head = ["CERTIFICATE", "DAYS LEFT", "NAMES"].map(str::to_owned);
        let rows: Vec<[String; 3]> = std::iter::once(head).chain(certificates).collect();
        text += "\n";
        text += &table(&rows);
    }
    text
}

/// Columns of one width each: the first one to the left, the others to the right.
fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..N).map(|column| width(column).unwrap_or_default()).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text += "\n";
    }
    text
}

/// A size with its unit: `512 B`, `1.5 MiB`.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// A time with its two largest units: `3 d 4 h`.
fn time(seconds: u64) -> String {
    let parts = [
        (seconds / 86400, "d"),
        (seconds / 3600 % 24, "h"),
        (seconds / 60 % 60, "min"),
        (seconds % 60, "s"),
    ];
    let first = parts.iter().position(|(value, _)| *value > 0).unwrap_or(3);
    let shown = parts[first..].iter().take(2).map(|(value, unit)| format!("{value} {unit}"));
    shown.collect::<Vec<_>>().join(" ")
}

/// Whole days until a time, which is in seconds since 1970; negative when it is over.
fn days_left(until: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    let left = i128::from(until) - i128::from(now);
    left.div_euclid(86400).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_have_the_units_that_are_read_best() {
        assert_eq!(size(512), "512 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(u64::MAX), "16384.0 PiB");
        assert_eq!(time(0), "0 s");
        assert_eq!(time(61), "1 min 1 s");
        assert_eq!(time(3 * 86400 + 4 * 3600), "3 d 4 h");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["NAME", "N"], ["a", "1000"]].map(|row| row.map(str::to_owned));
        assert_eq!(table(&rows), "NAME     N\na     1000\n");
    }
}
