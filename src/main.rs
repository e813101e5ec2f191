//! The ringgate command: from the command line to an exit code.

use std::process::ExitCode;

use clap::Parser;
use ringgate::cli::{self, Cli};

fn main() -> ExitCode {
    cli::run(Cli::parse())
}
