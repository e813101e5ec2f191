//! Diagnostics on stderr, by `[log]` or RINGGATE_LOG.

use tracing_subscriber::EnvFilter;

use crate::config::Log;

/// The environment variable that overrides `log.level`; it takes a level or directives as
/// `info,ringgate::control=debug`.
const VARIABLE: &str = "RINGGATE_LOG";

/// Begins to write diagnostics. To be called once.
pub fn init(log: &Log) {
    let filter = match std::env::var(VARIABLE) {
        Ok(directives) if !directives.is_empty() => EnvFilter::new(directives),
        // The resolver tells of every query that fails; what follows from it is told here.
        _ => EnvFilter::new(format!("{},hickory_resolver=error,hickory_net=error", log.level)),
    };
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second call, which only a test would make, leaves the first in place.
    let _ = if log.json {
        subscriber.json().with_target(false).try_init()
    } else {
        subscriber.with_ansi(false).with_target(false).try_init()
    };
}
