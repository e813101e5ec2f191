//! Errors that end a run. Each one says where and what failed and how to fix it, and has an exit
//! code.

use std::borrow::Cow;
use std::fmt;
use std::process::ExitCode;

/// Why ringgate stops or does not start.
#[derive(Debug)]
pub enum Error {
    /// The configuration is wrong; the text lists everything found. Exit code 64 (EX_USAGE of
    /// sysexits.h).
    Configuration(String),
    /// An environment variable has an invalid value. Exit code 64.
    Environment {
        /// What is wrong.
        what: String,
        /// How to fix it.
        advice: &'static str,
    },
    /// This machine refused a port, a ring, a file or another resource. Exit code 1.
    Start {
        /// What was tried.
        what: String,
        /// Why it failed.
        cause: String,
        /// Who can fix it, and how; empty if there is no advice.
        advice: Cow<'static, str>,
    },
}

impl Error {
    /// Makes an [`Error::Start`].
    pub fn start(
        what: impl Into<String>,
        cause: impl fmt::Display,
        advice: impl Into<Cow<'static, str>>,
    ) -> Self {
        Error::Start { what: what.into(), cause: cause.to_string(), advice: advice.into() }
    }

    /// Returns the error as one line for the diagnostics.
    pub fn in_one_line(&self) -> String {
        match self {
            Error::Start { what, cause, advice } if advice.is_empty() => format!("{what}: {cause}"),
            Error::Start { what, cause, advice } => format!("{what}: {cause}; {advice}"),
            Error::Environment { what, advice } => format!("{what}; {advice}"),
            Error::Configuration(text) => text.trim_end().replace('\n', " "),
        }
    }

    /// Returns the exit code of the process.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Error::Configuration(_) | Error::Environment { .. } => ExitCode::from(64),
            Error::Start { .. } => ExitCode::FAILURE,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Configuration(text) => f.write_str(text.trim_end()),
            Error::Environment { what, advice } => write!(f, "error: {what}\n  = {advice}"),
            Error::Start { what, cause, advice } => {
                write!(f, "error: {what}: {cause}")?;
                if advice.is_empty() { Ok(()) } else { write!(f, "\n  = {advice}") }
            }
        }
    }
}

impl std::error::Error for Error {}
