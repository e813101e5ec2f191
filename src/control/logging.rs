//! Diagnostics on stderr, by `[log]` or RINGGATE_LOG, and what a panic leaves there.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::Write;
use std::panic::PanicHookInfo;
use std::sync::Arc;

use tracing_subscriber::EnvFilter;

use super::paint;
use crate::config::Log;
use crate::error::Error;
use crate::observe::diagnostics::Diagnostics;

/// The environment variable that overrides `log.level`; it takes a level or directives as
/// `info,ringgate::control=debug`.
const VARIABLE: &str = "RINGGATE_LOG";

/// Begins to write diagnostics. To be called once.
///
/// # Errors
/// RINGGATE_LOG has a value that means nothing, or no thread is to be had.
pub fn init(log: &Log) -> Result<Diagnostics, Error> {
    let filter = match std::env::var(VARIABLE) {
        Ok(directives) if !directives.is_empty() => parse(&directives)?,
        // The resolver tells of every query that fails; what follows from it is told here.
        _ => EnvFilter::new(format!("{},hickory_resolver=error,hickory_net=error", log.level)),
    };
    let diagnostics = Diagnostics::start(|lost| {
        tracing::warn!(lost, "diagnostics were lost: stderr did not take them");
    })
    .map_err(|error| Error::start("cannot write diagnostics", error, ""))?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_writer(Arc::clone(diagnostics.queue()))
        // By default it would print, and so block or panic, where formatting fails.
        .log_internal_errors(false);
    // A second call, which only a test would make, leaves the first in place.
    let _ = if log.json {
        subscriber.json().with_ansi(false).try_init()
    } else {
        subscriber.with_ansi(paint::stderr_shows_colour()).try_init()
    };
    let of_panics = diagnostics.clone();
    std::panic::set_hook(Box::new(move |panic| {
        report_panic(&of_panics, panic);
        // A worker that panics must not leave its listening sockets behind: they would swallow
        // their share of the clients. In release builds panics abort by themselves.
        std::process::abort();
    }));
    Ok(diagnostics)
}

/// The standard hook writes to stderr itself, and a worker that waits for that would not end.
fn report_panic(diagnostics: &Diagnostics, panic: &PanicHookInfo<'_>) {
    let payload = panic.payload();
    let text = payload.downcast_ref::<&str>().copied();
    let message =
        text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or_default();
    let location = panic.location().map(ToString::to_string).unwrap_or_default();
    let current = std::thread::current();
    let thread = current.name().unwrap_or_default();
    // Captured where RUST_BACKTRACE asks for it.
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then_some(backtrace);
    let backtrace = backtrace.as_ref().map(tracing::field::display);
    if tracing::enabled!(tracing::Level::ERROR) {
        tracing::error!(%thread, %location, panic = %message, backtrace, "panicked");
    } else {
        let text = format!("{thread} panicked at {location}: {message}\n");
        let _ = (&**diagnostics.queue()).write_all(text.as_bytes());
    }
    diagnostics.flush();
}

fn parse(directives: &str) -> Result<EnvFilter, Error> {
    // A word that is no level would be taken for a target, and silence everything else.
    let levels = ["error", "warn", "info", "debug", "trace", "off"];
    let known = |directive: &str| {
        let level = directive.rsplit('=').next().unwrap_or_default();
        levels.iter().any(|name| level.eq_ignore_ascii_case(name))
    };
    let filter = EnvFilter::try_new(directives).ok();
    filter.filter(|_| directives.split(',').all(known)).ok_or_else(|| {
        Error::Configuration(format!(
            "error: {VARIABLE} cannot be \"{directives}\"\n  = write error, warn, info, debug, \
             trace or off, or directives such as info,ringgate::control=debug"
        ))
    })
}
