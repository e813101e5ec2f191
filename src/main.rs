//! The ringgate command: from the command line to an exit code.

use std::process::ExitCode;

use ringgate::cli;

fn main() -> ExitCode {
    match cli::parse() {
        Ok(cli) => cli::run(cli),
        Err(code) => code,
    }
}
