//! The ringgate command: runs the command line and returns the exit code.

use std::process::ExitCode;

use ringgate::cli;

fn main() -> ExitCode {
    match cli::parse() {
        Ok(cli) => cli::run(cli),
        Err(code) => code,
    }
}
