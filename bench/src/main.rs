//! The load program of ringgate.
//!
//! It makes the traffic that the proxy is measured with: bulk bytes both ways, small round trips
//! and idle connections, against a sink of its own. Every thread of it runs one epoll loop and may
//! be pinned to a CPU, so that load and proxy share nothing but the kernel. `compare` puts ringgate
//! and its peers side by side in one interleaved run. Every loop here is bounded in count and in
//! time.

mod backend;
mod certificate;
mod floor;
mod load;
mod ports;
mod sink;
mod suite;
mod usage;

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use load::command::{self, Arguments, Unit};
use load::{bulk, churn, echo, handshakes, idle, keepalive, mixed, transfers};

/// Moves bytes through a proxy and says what they cost.
#[derive(Parser)]
#[command(name = "ringgate-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The server behind the proxy: discards, sends or echoes, as each connection asks
    Sink(sink::Arguments),
    /// Moves bulk bytes through a proxy, up or down
    Bulk(Arguments<bulk::Load>),
    /// Sends small messages back and forth and measures each round trip
    Echo(Arguments<echo::Load>),
    /// Makes connections for one exchange each
    Churn(Arguments<churn::Load>),
    /// Makes connections for one TLS handshake each, full or resumed
    Handshakes(Arguments<handshakes::Load>),
    /// Sends HTTP requests on connections that stay open
    Keepalive(Arguments<keepalive::Load>),
    /// Moves large bodies by HTTP/1.1, up or down
    Transfers(Arguments<transfers::Load>),
    /// Sends small messages while bulk goes the same way
    Mixed(mixed::Arguments),
    /// Opens connections that then do nothing, and weighs the proxy that holds them
    Idle(Arguments<idle::Load>),
    /// The least that a proxy can do: what others are compared with
    Floor(floor::Arguments),
    /// Runs ringgate and its peers side by side and says which targets hold
    Compare(suite::Arguments),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Sink(arguments) => sink::main(&arguments),
        Command::Bulk(arguments) => command::main(&arguments, Unit::Byte, bulk::run),
        Command::Echo(arguments) => command::main(&arguments, Unit::Each("round_trips"), echo::run),
        Command::Churn(arguments) => {
            command::main(&arguments, Unit::Each("connections"), churn::run)
        }
        Command::Handshakes(arguments) => {
            command::main(&arguments, Unit::Each("handshakes"), handshakes::run)
        }
        Command::Keepalive(arguments) => {
            command::main(&arguments, Unit::Each("requests"), keepalive::run)
        }
        Command::Transfers(arguments) => command::main(&arguments, Unit::Byte, transfers::run),
        Command::Mixed(arguments) => mixed::main(&arguments),
        Command::Floor(arguments) => floor::main(&arguments),
        Command::Idle(arguments) => idle::main(&arguments),
        Command::Compare(arguments) => suite::main(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringgate-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Reads a number of seconds from the command line: more than nothing, at most a day.
fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("{text} is not a number of seconds"))?;
    if seconds > 0.0 && seconds <= 86_400.0 {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err("must be more than 0 and at most 86400 seconds".to_string())
    }
}

/// Puts what was being done in front of an error, so that its reader knows where to look.
fn while_doing(what: impl std::fmt::Display) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{what}: {error}"))
}
