//! Reads a configuration, and opens what it names. All of this may block: a file system may not
//! answer. A reload reads on a thread of its own, so that the control plane goes on.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::once;
use super::orders::{self, Orders};
use super::serving::Serving;
use crate::config::{self, AccessLog, Config, LogPath, Warning};
use crate::error::Error;
use crate::files::{self, Threads};
use crate::observe::access_log::{Opening, Sink, Target, Writer};
use crate::proto::tls::Authorities;

/// How long a reload waits for the configuration and the files that it names.
const READ_WITHIN: Duration = Duration::from_secs(30);

/// Where a configuration comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// It is built in.
    Example,
    /// Standard input, which cannot be read a second time.
    Stdin,
    /// A file.
    File(PathBuf),
}

/// What was read for a configuration, which may have blocked for long.
pub(super) struct Read {
    pub(super) config: Config,
    pub(super) system: Option<Authorities>,
    pub(super) files: Option<Threads>,
    pub(super) opened: orders::Opened,
    pub(super) logs: Opening,
    /// The keys that differ and cannot change.
    pub(super) fixed: Vec<&'static str>,
}

impl Serving {
    /// Reads the configuration again, or takes this `text` for it, and opens what is new of what it
    /// names.
    ///
    /// # Errors
    /// It is not valid, or a file is refused or does not come in time, or the one before it has not
    /// come yet: a thread waits for each, and there may be no end to it.
    pub(super) async fn read(&mut self, text: Option<Arc<str>>) -> Result<Read, Error> {
        let failed = |error: &dyn fmt::Display, advice| {
            Err(Error::start("cannot read the configuration again", error.to_string(), advice))
        };
        let advice = "a file system or a disk does not answer: `cat` of the file shows it";
        if self.reading.as_ref().is_some_and(|reading| !reading.is_finished()) {
            return failed(&"an earlier reload still reads its files", advice);
        }
        let (source, before) = (self.source.clone(), Arc::clone(&self.config));
        let (system, files) = (self.layout.system.clone(), self.layout.files.clone());
        let orders = self.orders.settings().cloned();
        let logs = self.writer.opening();
        let (thread, reading) = once::run("reload", move || {
            let mut config = match text {
                Some(text) => source.take(&text)?,
                None => source.read_again()?,
            };
            let fixed = keep_what_is_fixed(&mut config, &before);
            config.share_with(&before);
            let system = system_authorities(&config, system)?;
            let files = threads_for_files(&config, files)?;
            let opened = Orders::open(&config, orders.as_ref())?;
            let logs = opened_logs(&config, logs)?;
            Ok(Read { config, system, files, opened, logs, fixed })
        })?;
        self.reading = Some(thread);
        let read = tokio::time::timeout(READ_WITHIN, reading).await;
        let Ok(read) = read else { return failed(&"it took longer than 30 s", advice) };
        // The thread is about to end, and does not hold up the next reload until it has.
        self.reading = None;
        read.unwrap_or_else(|_| failed(&"the thread that reads it has ended", ""))
    }
}

impl Source {
    /// Takes a text for that of the file. May block: the text names other files.
    fn take(&self, text: &str) -> Result<Config, Error> {
        let path = self.file()?;
        config::load_text(path, text).map_err(|errors| Error::Configuration(errors.into()))
    }

    /// The file.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn file(&self) -> Result<&Path, Error> {
        let why = match self {
            Source::File(path) => return Ok(path),
            Source::Example => "it is the built-in example",
            Source::Stdin => "it came from standard input",
        };
        let advice = "start ringgate with `--config FILE`";
        Err(Error::start("the configuration has no file", why, advice))
    }

    /// Reads the configuration again. May block.
    fn read_again(&self) -> Result<Config, Error> {
        let refuse = |cause| {
            let advice = "start ringgate with `--config FILE`";
            Err(Error::start("cannot read the configuration again", cause, advice))
        };
        match self {
            Source::File(path) => {
                config::load(path).map_err(|errors| Error::Configuration(errors.into()))
            }
            Source::Example => refuse("it is the built-in example"),
            Source::Stdin => refuse("it came from standard input"),
        }
    }
}

/// Says what is valid but probably unintended.
pub fn warn_of(config: &Config) {
    for Warning { what, file, line, column, advice } in config.warnings.each() {
        tracing::warn!(message = what, file, line, column, advice);
    }
}

/// Restores the settings that a running process cannot change. Returns the keys of those that
/// differ.
fn keep_what_is_fixed(config: &mut Config, before: &Config) -> Vec<&'static str> {
    let is_other = [
        ("server.workers", config.server.workers != before.server.workers),
        ("server.driver", config.server.driver != before.server.driver),
    ];
    config.server.workers = before.server.workers.clone();
    config.server.driver = before.server.driver;
    is_other.into_iter().filter(|(_, is_other)| *is_other).map(|(key, _)| key).collect()
}

/// The authorities of this machine, if a cluster needs them: the same object as before if they have
/// not changed. May block.
pub(super) fn system_authorities(
    config: &Config,
    before: Option<Authorities>,
) -> Result<Option<Authorities>, Error> {
    if !config.needs_system_authorities() {
        return Ok(None);
    }
    let system = Authorities::system().map_err(|error| {
        let advice = "install them (package ca-certificates), or name a file by `ca`";
        Error::start("cannot check the certificates of clusters with TLS", error, advice)
    })?;
    Ok(Some(before.filter(|before| *before == system).unwrap_or(system)))
}

/// The threads that read files, if a route serves some. Makes sure that their directories can be
/// opened. Blocks for as long as that takes.
pub(super) fn threads_for_files(
    config: &Config,
    known: Option<Threads>,
) -> Result<Option<Threads>, Error> {
    for files in config.files() {
        files::probe(&files.root)?;
    }
    if config.files().next().is_none() || known.is_some() {
        return Ok(known);
    }
    Threads::start().map(Some).map_err(|error| Error::start("cannot start a thread", error, ""))
}

/// Opens the access logs of all listeners. May block.
pub(super) fn opened_logs(config: &Config, mut logs: Opening) -> Result<Opening, Error> {
    for log in config.listeners.iter().filter_map(|listener| listener.access_log.as_deref()) {
        logs.open(&target(&log.path))?;
    }
    Ok(logs)
}

/// Returns the sink of each access log that was opened.
pub(super) fn sinks(
    writer: &mut Writer,
    mut logs: Opening,
) -> impl FnMut(&AccessLog) -> Result<Arc<Sink>, Error> {
    move |log| writer.sink(&target(&log.path), &mut logs)
}

fn target(path: &LogPath) -> Target {
    match path {
        LogPath::Stdout => Target::Stdout,
        LogPath::Stderr => Target::Stderr,
        LogPath::File(path) => Target::File(path.clone()),
    }
}
