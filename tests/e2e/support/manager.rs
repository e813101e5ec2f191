//! A service manager that runs ringgate as a service: `manager.py`.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::{LONG, Process, SHORT, require, ringgate_command, wait_for};

/// A running manager with its service; both end with its guard.
pub(crate) struct Manager {
    process: Process,
    dir: TempDir,
}

impl Manager {
    /// Starts the service, and waits until it is ready.
    #[track_caller]
    pub(crate) fn start(options: &Value, server: &str, config: &str) -> Manager {
        let manager = Manager::spawn(options, server, config, None);
        manager.process.line_with("ready workers=", LONG);
        manager
    }

    /// The same without the wait. `through` is a command that runs what stands behind it.
    #[track_caller]
    pub(crate) fn spawn(
        options: &Value,
        server: &str,
        config: &str,
        through: Option<Command>,
    ) -> Manager {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ringgate.toml");
        fs::write(&file, text(server, config)).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/manager.py");
        let mut command = require("python3");
        command.arg(script).arg(options.to_string());
        if let Some(through) = through {
            command.arg(through.get_program()).args(through.get_args());
        }
        let service = ringgate_command(&["run", "-c", file.to_str().unwrap()]);
        command.arg(service.get_program()).args(service.get_args());
        command.env_remove("RINGGATE_LOG").env("NO_COLOR", "1").current_dir(dir.path());
        command.stdin(Stdio::piped());
        Manager { process: Process::spawn_with_input(command), dir }
    }

    /// Replaces the configuration in the file.
    #[track_caller]
    pub(crate) fn rewrite(&self, server: &str, config: &str) {
        fs::write(self.dir.path().join("ringgate.toml"), text(server, config)).unwrap();
    }

    /// Sends a signal to the service.
    #[track_caller]
    pub(crate) fn signal(&mut self, signal: Signal) {
        self.process.write(format!("kill {}\n", signal.as_raw()).as_bytes());
    }

    /// Sends the manager a line: "hear", "deafen", "lose" or "find".
    #[track_caller]
    pub(crate) fn tell(&mut self, line: &str) {
        self.process.write(format!("{line}\n").as_bytes());
    }

    /// Where the service that was started last has its files in /proc.
    #[track_caller]
    pub(crate) fn proc(&self) -> PathBuf {
        self.line_with("started ");
        let lines = self.process.lines();
        let last = lines.iter().rev().find_map(|line| line.strip_prefix("started "));
        Path::new("/proc").join(last.unwrap().trim())
    }

    /// Does not start the service again when it has ended.
    #[track_caller]
    pub(crate) fn stop(&mut self) {
        self.process.write(b"stop\n");
    }

    /// Ends the service, as `systemctl stop` does, and does not start it again.
    #[track_caller]
    pub(crate) fn end(&mut self) {
        self.process.write(b"end\n");
    }

    /// The first line with this.
    #[track_caller]
    pub(crate) fn line_with(&self, part: &str) -> String {
        self.process.line_with(part, SHORT)
    }

    /// How many lines with this there are so far.
    pub(crate) fn count(&self, part: &str) -> usize {
        self.process.lines().iter().filter(|line| line.contains(part)).count()
    }

    /// Waits until there are so many lines with this.
    #[track_caller]
    pub(crate) fn wait_count(&self, part: &str, count: usize) {
        let what = format!("{count} lines with {part:?}");
        wait_for(&what, LONG, || (self.count(part) >= count).then_some(()));
    }

    /// Where the listener with this name listens.
    #[track_caller]
    pub(crate) fn address(&self, listener: &str) -> SocketAddr {
        let line = self.line_with(&format!("listening name={listener} "));
        line.split_once("address=").unwrap().1.trim().parse().unwrap()
    }

    /// Waits until manager and service have ended, which they do after [`Manager::stop`].
    #[track_caller]
    pub(crate) fn wait_exit(&mut self, limit: Duration) {
        assert!(self.process.wait_exit(limit).success());
    }
}

fn text(server: &str, config: &str) -> String {
    format!("[server]\n{server}\n{config}")
}
