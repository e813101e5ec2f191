//! Signals of the process (signal(7)): SIGTERM, SIGINT and SIGQUIT end it, SIGHUP reads the
//! configuration again, SIGUSR1 reopens logs, SIGUSR2 starts the program again and gives its
//! sockets to it. The signals of [`unused`] would end the process by default. They are logged and
//! have no other effect, because a wrong signal must not close every connection.
//!
//! SIGKILL and SIGSTOP cannot be handled. The signals of a fault (SIGSEGV, SIGABRT, SIGTRAP,
//! SIGSYS, …) and SIGXCPU, which enforces a limit on purpose, keep their default. SIGPIPE is
//! ignored by the Rust runtime.

use std::io;

use tokio::signal::unix::{self, SignalKind, signal};

/// What a signal asks for.
pub(super) enum Signal {
    /// Read the configuration again.
    Reload,
    /// Close log files and open them again by name.
    Reopen,
    /// Start the program again, and give the sockets to the new process.
    TakeOver,
    /// End the process. The value is the signal's name.
    End(&'static str),
}

/// The signals that the process listens for.
pub(super) struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    quit: unix::Signal,
    reload: unix::Signal,
    reopen: unix::Signal,
    take_over: unix::Signal,
    /// Whether these have arrived and were not handled yet.
    must_reload: bool,
    must_reopen: bool,
    must_take_over: bool,
    must_end: Option<&'static str>,
}

impl Signals {
    /// Installs the handlers. Must be called on the runtime.
    pub(super) fn listen() -> io::Result<Self> {
        let signals = Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            reload: signal(SignalKind::hangup())?,
            reopen: signal(SignalKind::user_defined1())?,
            take_over: signal(SignalKind::user_defined2())?,
            must_reload: false,
            must_reopen: false,
            must_take_over: false,
            must_end: None,
        };
        // The handler stays installed without a receiver. With a handler, a write beyond
        // RLIMIT_FSIZE fails with EFBIG instead of ending the process, and the log loses records.
        drop(signal(SignalKind::from_raw(libc::SIGXFSZ))?);
        for (number, name) in unused() {
            let received = signal(SignalKind::from_raw(number))?;
            tokio::spawn(log_each(received, name));
        }
        Ok(signals)
    }

    /// Waits for the next signal. May be dropped at any time.
    pub(super) async fn next(&mut self) -> Signal {
        if std::mem::take(&mut self.must_reopen) {
            return Signal::Reopen;
        }
        if std::mem::take(&mut self.must_reload) {
            return Signal::Reload;
        }
        if std::mem::take(&mut self.must_take_over) {
            return Signal::TakeOver;
        }
        if let Some(name) = self.must_end.take() {
            return Signal::End(name);
        }
        tokio::select! {
            _ = self.terminate.recv() => Signal::End("SIGTERM"),
            _ = self.interrupt.recv() => Signal::End("SIGINT"),
            _ = self.quit.recv() => Signal::End("SIGQUIT"),
            _ = self.reload.recv() => Signal::Reload,
            _ = self.reopen.recv() => Signal::Reopen,
            _ = self.take_over.recv() => Signal::TakeOver,
        }
    }

    /// Makes [`Signals::next`] return a signal that asks for the end.
    pub(super) fn end_later(&mut self, name: &'static str) {
        self.must_end = Some(name);
    }

    /// Waits for a signal that asks for the end, and returns its name. [`Signals::next`] returns
    /// those that arrive meanwhile; `reopen` is called at once, too, because a tool that rotates
    /// logs does not wait long. May be dropped at any time.
    pub(super) async fn ending(&mut self, reopen: impl Fn()) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.quit.recv() => return "SIGQUIT",
                _ = self.reload.recv() => self.must_reload = true,
                _ = self.reopen.recv() => {
                    reopen();
                    self.must_reopen = true;
                }
                _ = self.take_over.recv() => self.must_take_over = true,
            }
        }
    }
}

/// Signals that end a process by default and have no use here, and their names.
fn unused() -> Vec<(libc::c_int, String)> {
    let named = [
        (libc::SIGALRM, "SIGALRM"),
        (libc::SIGVTALRM, "SIGVTALRM"),
        (libc::SIGPROF, "SIGPROF"),
        (libc::SIGIO, "SIGIO"),
        (libc::SIGPWR, "SIGPWR"),
        (libc::SIGSTKFLT, "SIGSTKFLT"),
    ];
    let named = named.map(|(number, name)| (number, name.to_owned()));
    let first = libc::SIGRTMIN();
    let real_time = (first..=libc::SIGRTMAX()).map(|number| match number - first {
        0 => (number, "SIGRTMIN".to_owned()),
        offset => (number, format!("SIGRTMIN+{offset}")),
    });
    named.into_iter().chain(real_time).collect()
}

/// Logs a signal each time that it arrives.
async fn log_each(mut received: unix::Signal, signal: String) {
    while received.recv().await.is_some() {
        tracing::warn!(
            %signal,
            "the signal has no effect: SIGTERM drains and stops, SIGHUP reads the configuration \
             again, SIGUSR1 reopens log files, SIGUSR2 replaces the process without a gap"
        );
    }
}
