//! Signals of the process (signal(7)): SIGTERM and SIGINT end it, SIGUSR1 reopens logs, SIGHUP,
//! which by default would end it, does nothing yet.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

use crate::observe::access_log::Writer;

/// What a signal asks for.
enum Signal {
    /// Close log files and open them again by name.
    Reopen,
    /// Take the configuration in anew.
    Reload,
    /// End; the signal's name.
    End(&'static str),
}

/// The signals that are listened for.
pub(super) struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    reopen: tokio::signal::unix::Signal,
    reload: tokio::signal::unix::Signal,
}

impl Signals {
    /// From now on these signals do what they are meant to, and nothing else.
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reopen: signal(SignalKind::user_defined1())?,
            reload: signal(SignalKind::hangup())?,
        })
    }

    /// The next signal.
    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::End("SIGTERM"),
            _ = self.interrupt.recv() => Signal::End("SIGINT"),
            _ = self.reopen.recv() => Signal::Reopen,
            _ = self.reload.recv() => Signal::Reload,
        }
    }

    /// The name of the next signal that asks for the end. The others do their work meanwhile.
    pub(super) async fn ending(&mut self, writer: &Writer) -> &'static str {
        loop {
            match self.next().await {
                Signal::End(name) => return name,
                Signal::Reopen => writer.reopen(),
                Signal::Reload => tracing::warn!(
                    "SIGHUP: nothing changed; restart to use a new configuration (SIGUSR1 reopens \
                     log files)"
                ),
            }
        }
    }
}
