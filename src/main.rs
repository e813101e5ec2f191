//! The ringgate command: from the command line to an exit code.

use std::process::ExitCode;

use clap::Parser;
use ringgate::cli::{self, Cli};

fn main() -> ExitCode {
    // A worker that panics must not leave its listening sockets behind: they would swallow their
    // share of the clients. In release builds panics abort by themselves.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
    cli::run(Cli::parse())
}
