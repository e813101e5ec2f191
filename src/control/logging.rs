//! Diagnostics on stderr, configured by `[log]` or RINGGATE_LOG.

use std::error::Error as _;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use super::{paint, panics};
use crate::config::Log;
use crate::error::{Error, chain};
use crate::observe::diagnostics::{Diagnostics, Queue};

/// The environment variable that overrides `log.level`. It takes a level, or directives such as
/// `info,ringgate::control=debug`.
const VARIABLE: &str = "RINGGATE_LOG";

/// The target of the event that ends the process. It is written at every level, also at `off`.
pub(super) const ENDING: &str = "ringgate::ending";

/// The layer that writes events. A reload replaces it.
type Events = Box<dyn Layer<Registry> + Send + Sync>;

/// Diagnostics that are being written.
pub struct Logging {
    diagnostics: Diagnostics,
    /// `None` if a subscriber was installed before; only a test does that.
    events: Option<reload::Handle<Events, Registry>>,
    is_json: AtomicBool,
}

impl Logging {
    /// The queue on the way to stderr.
    pub fn queue(&self) -> &Arc<Queue> {
        self.diagnostics.queue()
    }

    /// Waits until everything in the queue is written, but not for long.
    pub fn flush(&self) {
        self.diagnostics.flush();
    }

    /// Returns true if diagnostics are JSON.
    pub fn is_json(&self) -> bool {
        self.is_json.load(Ordering::Relaxed)
    }

    /// Reports why a reload has changed nothing: the errors of a configuration as `ringgate check`
    /// shows them.
    pub(super) fn report_unchanged(&self, error: &Error) {
        match error {
            Error::Configuration(errors) if self.is_json() => {
                tracing::error!(
                    error = %errors,
                    "the new configuration is not used: it has errors"
                );
            }
            Error::Configuration(_) => {
                report_error(error, false, &**self.queue());
                tracing::error!("the new configuration is not used: it has errors");
            }
            _ => {
                let (what, advice) = (error.to_string(), error.advice());
                let cause = error.source().map(chain);
                tracing::error!(what, error = cause, advice, "the new configuration is not used");
            }
        }
    }

    /// Writes diagnostics of this level, until the next [`Logging::reload`].
    pub(super) fn set_level(&self, level: &str) {
        let Some(events) = &self.events else { return };
        let events_of = layer(self.is_json(), &of_level(level), Arc::clone(self.queue()));
        // An error means that there is no subscriber any more.
        let _ = events.reload(events_of);
    }

    /// Writes diagnostics by another configuration from now on. RINGGATE_LOG goes on to override
    /// the level.
    pub(super) fn reload(&self, log: &Log) {
        let Some(events) = &self.events else { return };
        // The value of RINGGATE_LOG was valid at the start.
        let Ok(directives) = directives(log) else { return };
        // An error means that there is no subscriber any more.
        let _ = events.reload(layer(log.json, &directives, Arc::clone(self.queue())));
        self.is_json.store(log.json, Ordering::Relaxed);
    }
}

/// Starts writing diagnostics. Must be called once.
///
/// # Errors
/// RINGGATE_LOG has an invalid value, or a thread cannot be started. After that [`report_error`]
/// can still write the error, but nothing else is written.
pub fn init(log: &Log) -> Result<Logging, Error> {
    let started = directives(log).and_then(|directives| {
        let report = |lost| {
            tracing::warn!(
                lost,
                "diagnostics were lost: stderr did not accept \
                                                  them"
            )
        };
        let diagnostics = Diagnostics::start(report);
        let error = |error| Error::start("cannot write diagnostics", error, "");
        Ok((directives, diagnostics.map_err(error)?))
    });
    let (directives, diagnostics) = match started {
        Ok(started) => started,
        Err(error) => {
            subscribe(log, "off", io::stderr);
            return Err(error);
        }
    };
    let events = subscribe(log, &directives, Arc::clone(diagnostics.queue()));
    panics::install_hook(diagnostics.clone());
    Ok(Logging { diagnostics, events, is_json: AtomicBool::new(log.json) })
}

/// The directives of RINGGATE_LOG, or those that follow from the configuration.
fn directives(log: &Log) -> Result<String, Error> {
    match std::env::var(VARIABLE) {
        Ok(directives) if !directives.is_empty() => checked(directives),
        _ => Ok(of_level(&log.level)),
    }
}

/// The directives for a level. The resolver logs every failed query; this process logs what follows
/// from them instead.
fn of_level(level: &str) -> String {
    format!("{level},hickory_resolver=error,hickory_net=error")
}

/// Installs a subscriber that writes the events which the (valid) directives let through. Returns
/// the handle of its layer.
fn subscribe<W>(log: &Log, directives: &str, writer: W) -> Option<reload::Handle<Events, Registry>>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let (events, handle) = reload::Layer::new(layer(log.json, directives, writer));
    // Only a test would call this twice; the first subscriber then stays.
    tracing_subscriber::registry().with(events).try_init().ok()?;
    Some(handle)
}

fn layer<W>(is_json: bool, directives: &str, writer: W) -> Events
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = EnvFilter::new(format!("{directives},{ENDING}=error"));
    let events = tracing_subscriber::fmt::layer()
        .with_target(false)
        .with_writer(writer)
        // By default an error of formatting is printed to stderr, which could block or panic.
        .log_internal_errors(false);
    if is_json {
        filter.and_then(events.json().with_ansi(false)).boxed()
    } else {
        filter.and_then(events.with_ansi(paint::stderr_shows_colour())).boxed()
    }
}

/// Writes the error that ends the process: as an event if diagnostics are JSON, else as text.
pub fn report_error(error: &Error, json: bool, mut stderr: impl Write) {
    // The errors of a configuration are excerpts of it, which have no form as an event.
    if json && !matches!(error, Error::Configuration(_)) {
        let (message, advice) = (error.to_string(), error.advice());
        let cause = error.source().map(chain);
        tracing::error!(target: ENDING, message, error = cause, advice);
    } else {
        let text = paint::for_stderr(&format!("{}\n", error.to_text()));
        // A full disk or a closed pipe must not turn an error into a crash.
        let _ = stderr.write_all(text.as_bytes());
    }
}

/// Returns the directives if they are valid.
fn checked(directives: String) -> Result<String, Error> {
    // A word that is not a level would count as a target, and silence everything else.
    let levels = ["error", "warn", "info", "debug", "trace", "off"];
    let known = |directive: &str| {
        let level = directive.rsplit('=').next().unwrap_or_default();
        levels.iter().any(|name| level.eq_ignore_ascii_case(name))
    };
    if EnvFilter::try_new(&directives).is_ok() && directives.split(',').all(known) {
        return Ok(directives);
    }
    Err(Error::Environment {
        what: format!("{VARIABLE} cannot be \"{directives}\""),
        advice: "write error, warn, info, debug, trace or off, or directives such as \
                 info,ringgate::control=debug",
    })
}
