//! Errors that end a run. Each one says where and what failed and how to fix it, and has an exit
//! code.
//!
//! An error keeps its cause as its source. `Display` shows the error alone, as is usual for errors
//! with a source; [`chain`], [`Error::to_text`] and [`Error::to_line`] add the causes.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::process::ExitCode;
use std::{fmt, io};

use rustix::io::Errno;

/// What helps where a file or a socket is refused for want of descriptors, whatever else could be
/// wrong with it.
const RAISE_THE_LIMIT: &str = "the limit of open files is reached: raise it (LimitNOFILE= in a \
                               systemd unit, `ulimit -n NUMBER` in a shell)";

/// The advice for an error of the system that has nothing to do with what was asked for: there are
/// no descriptors left (EMFILE). `None` for any other error.
pub(crate) fn general_advice(cause: &(dyn StdError + 'static)) -> Option<&'static str> {
    let mut next = Some(cause);
    while let Some(error) = next {
        let system = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
        if system == Some(libc::EMFILE) || error.downcast_ref() == Some(&Errno::MFILE) {
            return Some(RAISE_THE_LIMIT);
        }
        next = error.source();
    }
    None
}

/// Why ringgate stops or does not start.
#[derive(Debug)]
pub enum Error {
    /// The configuration is wrong; the text of the inner error lists everything found. Exit code 64
    /// (EX_USAGE of sysexits.h).
    Configuration(Box<dyn StdError + Send + Sync>),
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
        source: Box<dyn StdError + Send + Sync>,
        /// How to fix it; empty if there is no advice.
        advice: Cow<'static, str>,
    },
    /// A command cannot be carried out as it is given: it names no process that answers. Exit code
    /// 2.
    Usage {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: Box<dyn StdError + Send + Sync>,
        /// How to fix it; empty if there is no advice.
        advice: Cow<'static, str>,
    },
}

impl Error {
    /// Makes an [`Error::Start`]. Where no descriptors are left, the advice is to raise the limit.
    pub fn start(
        what: impl Into<String>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
        advice: impl Into<Cow<'static, str>>,
    ) -> Self {
        let source = source.into();
        let advice = general_advice(&*source).map_or_else(|| advice.into(), Cow::Borrowed);
        Error::Start { what: what.into(), source, advice }
    }

    /// Makes an [`Error::Usage`].
    pub fn usage(
        what: impl Into<String>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
        advice: impl Into<Cow<'static, str>>,
    ) -> Self {
        Error::Usage { what: what.into(), source: source.into(), advice: advice.into() }
    }

    /// Returns how to fix the error. `None` if there is no advice, or if it is a part of the text.
    pub fn advice(&self) -> Option<&str> {
        match self {
            Error::Start { advice, .. } | Error::Usage { advice, .. } => {
                (!advice.is_empty()).then_some(advice)
            }
            Error::Environment { advice, .. } => Some(advice),
            Error::Configuration(_) => None,
        }
    }

    /// Returns the error, its causes and the advice as text for a terminal, without a final line
    /// feed.
    pub fn to_text(&self) -> String {
        if let Error::Configuration(errors) = self {
            return errors.to_string();
        }
        let advice = self.advice().map(|advice| format!("\n  = {advice}")).unwrap_or_default();
        format!("error: {}{advice}", chain(self))
    }

    /// Returns the error, its causes and the advice as one line for the diagnostics.
    pub fn to_line(&self) -> String {
        if let Error::Configuration(errors) = self {
            return errors.to_string().replace('\n', " ");
        }
        let advice = self.advice().map(|advice| format!("; {advice}")).unwrap_or_default();
        format!("{}{advice}", chain(self))
    }

    /// Returns the exit code of the process.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Error::Configuration(_) | Error::Environment { .. } => ExitCode::from(64),
            Error::Start { .. } => ExitCode::FAILURE,
            Error::Usage { .. } => ExitCode::from(2),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Configuration(errors) => errors.fmt(f),
            Error::Environment { what, .. }
            | Error::Start { what, .. }
            | Error::Usage { what, .. } => f.write_str(what),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            // The text of this error is that of the inner one, so its source is, too.
            Error::Configuration(errors) => errors.source(),
            Error::Environment { .. } => None,
            Error::Start { source, .. } | Error::Usage { source, .. } => Some(&**source),
        }
    }
}

/// Returns the texts of an error and of its causes, separated by colons.
pub fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let added = cause.to_string();
        // Some errors repeat the text of their source.
        if !text.ends_with(&added) {
            text = format!("{text}: {added}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io;
    use std::net::TcpListener;

    use super::*;

    /// The io::Error in the chain of causes.
    fn io_cause(error: &Error) -> &io::Error {
        let mut source = error.source();
        while let Some(cause) = source {
            if let Some(error) = cause.downcast_ref() {
                return error;
            }
            source = cause.source();
        }
        panic!("no cause is an io::Error")
    }

    #[test]
    fn the_error_of_a_port_in_use_is_the_source() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let refused = TcpListener::bind(taken.local_addr().unwrap()).unwrap_err();
        let text = refused.to_string();
        let error = Error::start("cannot listen", refused, "choose another port");
        assert_eq!(io_cause(&error).kind(), io::ErrorKind::AddrInUse);
        assert_eq!(error.to_string(), "cannot listen");
        assert_eq!(
            error.to_text(),
            format!("error: cannot listen: {text}\n  = choose another port")
        );
        assert_eq!(error.to_line(), format!("cannot listen: {text}; choose another port"));
    }

    #[test]
    fn an_error_without_advice_ends_with_its_cause() {
        let error = Error::start("cannot start", File::open("/no/such/file").unwrap_err(), "");
        assert_eq!(io_cause(&error).kind(), io::ErrorKind::NotFound);
        assert!(error.to_text().ends_with("(os error 2)"), "{}", error.to_text());
        assert_eq!(
            Error::start("cannot run", "it has ended", "").to_line(),
            "cannot run: it has ended"
        );
    }

    /// An error that repeats the text of its source.
    #[derive(Debug)]
    struct Repeats(io::Error);

    impl fmt::Display for Repeats {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "the query failed: {}", self.0)
        }
    }

    impl StdError for Repeats {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn a_cause_is_shown_once() {
        let error = Error::start("cannot ask", Repeats(io::Error::other("refused")), "");
        assert_eq!(chain(&error), "cannot ask: the query failed: refused");
    }
}
