//! Children that die with their guard, and whose words are shown when a test fails.

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::wait_for;

/// A running child with everything it starts itself (Shadowsocks' plugins), in a process group of
/// its own.
pub(crate) struct Process {
    name: String,
    child: Child,
    exited: Option<ExitStatus>,
    received: Receiver<String>,
    seen: RefCell<Vec<String>>,
}

impl Process {
    #[track_caller]
    pub(crate) fn spawn(mut command: Command) -> Self {
        command.stdin(Stdio::null());
        Self::spawn_with_input(command)
    }

    /// Starts a program that reads what the command says.
    #[track_caller]
    pub(crate) fn spawn_with_input(mut command: Command) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
        let (sender, received) = channel();
        forward_lines(child.stdout.take().unwrap(), sender.clone());
        forward_lines(child.stderr.take().unwrap(), sender);
        Process { name, child, exited: None, received, seen: RefCell::default() }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Writes to a program that was started with a pipe as its input.
    #[track_caller]
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.child.stdin.as_mut().unwrap().write_all(bytes).unwrap();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// The first line with `part`, of those already there or still to come. Fails when the child
    /// says nothing of the kind in time or ends before.
    #[track_caller]
    pub(crate) fn line_with(&self, part: &str, limit: Duration) -> String {
        if let Some(line) = self.lines().into_iter().find(|line| line.contains(part)) {
            return line;
        }
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = match self.received.recv_timeout(left) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("{}: no line with {part:?} within {limit:?}", self.name)
                }
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("{} ended without a line with {part:?}", self.name)
                }
            };
            self.seen.borrow_mut().push(line.clone());
            if line.contains(part) {
                return line;
            }
        }
    }

    /// Every line so far, of stdout and stderr.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut seen = self.seen.borrow_mut();
        seen.extend(self.received.try_iter());
        seen.clone()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        if self.exited.is_none() {
            self.exited = self.child.try_wait().unwrap();
        }
        self.exited.is_none()
    }

    /// Waits for the child to end by itself, and for the last of what it has said: the threads that
    /// read it may be behind.
    #[track_caller]
    pub(crate) fn wait_exit(&mut self, limit: Duration) -> ExitStatus {
        wait_for(&format!("{} ends", self.name), limit, || (!self.is_running()).then_some(()));
        let next = || self.received.recv_timeout(limit).ok();
        self.seen.borrow_mut().extend(std::iter::from_fn(next));
        self.exited.expect("it ended")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_running() {
            // The group still has its leader, so the id is still ours.
            let _ = kill_process_group(self.pid(), Signal::KILL);
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- what {} said", self.name);
            self.lines().iter().for_each(|line| eprintln!("{line}"));
        }
    }
}

fn forward_lines(pipe: impl Read + Send + 'static, lines: Sender<String>) {
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n') {
            let Ok(line) = line else { return };
            if lines.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
        }
    });
}

/// Runs a command to its end.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> Output {
    let name = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The command for a program that the tests cannot do without. It fails the test, and says what to
/// install, when the program is missing: a test that passes because its peer is missing proves
/// nothing.
#[track_caller]
pub(crate) fn require(program: &str) -> Command {
    let package = match program {
        "ss-server" | "ss-local" => "shadowsocks-libev",
        "obfs-server" | "obfs-local" => "simple-obfs",
        "ss-v2ray-plugin" => "shadowsocks-v2ray-plugin",
        "dnsmasq" => "dnsmasq-base",
        "unshare" | "setpriv" | "prlimit" | "mount" | "umount" => "util-linux",
        "ip" => "iproute2",
        "pebble-challtestsrv" => "pebble",
        "sh" => "dash",
        "promtool" => "prometheus",
        "cp" | "mkfifo" => "coreutils",
        other => other,
    };
    let path = std::env::var("PATH").unwrap_or_default();
    let folders = path.split(':').chain(["/usr/sbin", "/sbin"]);
    let found = folders.map(|folder| Path::new(folder).join(program)).find(|file| file.is_file());
    match found {
        Some(file) => direct(Command::new(file)),
        None => panic!("this test needs {program}: apt-get install {package}"),
    }
}

/// The virtual environment into which `scripts/test` installs what comes from PyPI.
pub(crate) fn python_home() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("python")
}

/// The same command without the proxies that this machine's environment names, and without the
/// hosts that it keeps from them: curl and Python's clients would obey both.
pub(crate) fn direct(mut command: Command) -> Command {
    for variable in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
        command.env_remove(variable).env_remove(variable.to_uppercase());
    }
    command
}

/// A shell that lowers a limit and becomes what it is told to without any right where this
/// test has them all. Each is a user of its own then: the kernel counts locked memory by user, and
/// frees what a ring has locked only a while after its process has ended.
pub(crate) fn as_ordinary_user(limit: &str) -> Command {
    as_user(new_user(), limit)
}

/// A user that no other test is.
pub(crate) fn new_user() -> u32 {
    static USERS: AtomicU32 = AtomicU32::new(0);
    1_000_000 + std::process::id() * 100 + USERS.fetch_add(1, Ordering::Relaxed) % 100
}

/// As [`as_ordinary_user`], but this one.
pub(crate) fn as_user(user: u32, limit: &str) -> Command {
    let mut command = require("sh");
    if rustix::process::geteuid().is_root() {
        command = require("setpriv");
        command.args([format!("--reuid={user}"), format!("--regid={user}")]);
        command.arg("--clear-groups");
        command.args(["--inh-caps=-all", "--bounding-set=-all", "--"]);
        command.arg(require("sh").get_program());
    }
    command.args(["-c", &format!("{limit} && exec \"$0\" \"$@\"")]);
    command
}
