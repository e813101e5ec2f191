//! Commands that ask a running process, by its admin endpoint.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use serde_json::Value;

use super::print;
use super::text::{lines, size, table, time};
use crate::config;
use crate::control::{Endpoint, Reply};
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
    pub(super) fn endpoint(&self) -> Result<Endpoint, Error> {
        let address = config::admin_address(&self.admin)
            .map_err(|(what, note)| Error::usage("cannot ask the admin endpoint", what, note))?;
        Endpoint::new(address, self.token_file.as_deref())
    }
}

/// A command that needs no more than the process that it is for.
#[derive(Debug, Args)]
pub(super) struct Simple {
    #[command(flatten)]
    pub(super) asked: Asked,
    /// Print the response of the admin endpoint, which is JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// Gives an order, and prints its result.
pub(super) fn order(asked: &Asked, path: &str, is_json: bool) -> Result<(), Error> {
    let reply = asked.endpoint()?.ask(path, true)?;
    let value = value_of(asked, &reply, "result", is_json)?;
    if is_json {
        return Ok(());
    }
    print(&format!("{}\n", lines(value["result"].as_str().unwrap_or_default())))
}

/// Asks for something whose responses have this `key`. With `is_json` it is printed as it is;
/// otherwise it is returned.
pub(super) fn shown(
    asked: &Asked,
    path: &str,
    key: &str,
    is_json: bool,
) -> Result<Option<Value>, Error> {
    let value = value_of(asked, &asked.endpoint()?.ask(path, false)?, key, is_json)?;
    Ok(Some(value).filter(|_| !is_json))
}

/// The value of a response. With `is_json` it is printed, too, which is also done with an error.
///
/// # Errors
/// The endpoint has refused it; or something else answers, whose responses have no `key`.
fn value_of(asked: &Asked, reply: &Reply, key: &str, is_json: bool) -> Result<Value, Error> {
    let value: Value = serde_json::from_str(&reply.body).unwrap_or_default();
    let key = if reply.is_success { key } else { "error" };
    if !value[key].is_string() && !value[key].is_array() {
        return Err(Error::usage(
            format!("cannot ask the admin endpoint {}", asked.admin),
            "something else answers at this address",
            "--admin names another one: that of `listen` in [admin]",
        ));
    }
    if is_json {
        print(&reply.body)?;
    }
    if reply.is_success { Ok(value) } else { Err(refused(&value)) }
}

/// Prints what the process does.
pub(super) fn status(simple: &Simple) -> Result<(), Error> {
    let reply = simple.asked.endpoint()?.ask("/stats", false)?;
    let value = value_of(&simple.asked, &reply, "state", simple.json)?;
    if !simple.json {
        print(&as_text(&value))?;
    }
    match value["state"].as_str() {
        Some("serving") => Ok(()),
        state => {
            Err(Error::start("the process is about to end", lines(state.unwrap_or_default()), ""))
        }
    }
}

fn refused(value: &Value) -> Error {
    let why = value["error"].as_str().unwrap_or_default().trim();
    let why = why.strip_prefix("error: ").unwrap_or(why);
    Error::start("ringgate has refused it", lines(why), "")
}

/// The numbers for people.
fn as_text(stats: &Value) -> String {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let shown = |value: &Value| lines(&word(value));
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let process = &stats["process"];
    let mut text = format!(
        "ringgate {} ({}): {} for {}, driver {}, {} reloads\n\
         memory {}, CPU {:.1} s, {} descriptors\n\n",
        shown(&stats["version"]),
        shown(&stats["commit"]),
        shown(&stats["state"]),
        time(number(&stats["uptime_seconds"])),
        shown(&stats["driver"]),
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
    text += &table(&rows, 1);
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
        text += &table(&rows, 1);
    }
    text
}

/// Whole days until a time, which is in seconds since 1970; negative when it is over.
fn days_left(until: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    let left = i128::from(until) - i128::from(now);
    left.div_euclid(86400).to_string()
}
