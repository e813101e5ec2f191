//! Diagnostics on stderr, by `[log]` or RINGGATE_LOG.

use tracing_subscriber::EnvFilter;

use crate::config::Log;
use crate::error::Error;

/// The environment variable that overrides `log.level`; it takes a level or directives as
/// `info,ringgate::control=debug`.
const VARIABLE: &str = "RINGGATE_LOG";

/// Begins to write diagnostics. To be called once.
///
/// # Errors
/// RINGGATE_LOG has a value that means nothing.
pub fn init(log: &Log) -> Result<(), Error> {
    let filter = match std::env::var(VARIABLE) {
        Ok(directives) if !directives.is_empty() => parse(&directives)?,
        // The resolver tells of every query that fails; what follows from it is told here.
        _ => EnvFilter::new(format!("{},hickory_resolver=error,hickory_net=error", log.level)),
    };
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // By default it would print, and so panic, when stderr is full or closed: traffic is worth
        // more than a line about it.
        .log_internal_errors(false);
    // A second call, which only a test would make, leaves the first in place.
    let _ = if log.json {
        subscriber.json().with_target(false).try_init()
    } else {
        subscriber.with_ansi(false).with_target(false).try_init()
    };
    Ok(())
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
