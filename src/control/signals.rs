//! Signals of the process (signal(7)): SIGTERM and SIGINT end it, SIGUSR1 reopens logs.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

/// What a signal asks for.
pub(super) enum Signal {
    /// Close log files and open them again by name.
    Reopen,
    /// End; the signal's name.
    End(&'static str),
}

/// The signals that are listened for.
pub(super) struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    reopen: tokio::signal::unix::Signal,
}

impl Signals {
    /// From now on these signals do what they are meant to, and nothing else.
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reopen: signal(SignalKind::user_defined1())?,
        })
    }

    /// The next signal.
    pub(super) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::End("SIGTERM"),
            _ = self.interrupt.recv() => Signal::End("SIGINT"),
            _ = self.reopen.recv() => Signal::Reopen,
        }
    }

    /// The name of the next signal that asks for the end.
    pub(super) async fn ending(&mut self) -> &'static str {
        loop {
            if let Signal::End(name) = self.next().await {
                return name;
            }
        }
    }
}
