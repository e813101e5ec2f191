//! Starting programs and ending exactly those.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};

use crate::{usage, while_doing};

const START_LIMIT: Duration = Duration::from_secs(10);
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// `nobody`, on every distribution.
const UNPRIVILEGED: &str = "65534";

/// A program to be started.
pub(super) struct Launch<'a> {
    pub(super) name: String,
    pub(super) command: Vec<OsString>,
    /// As taskset(1) writes it.
    pub(super) cpus: String,
    /// Run without privileges, when there are any to be given up.
    pub(super) unprivileged: bool,
    /// Where its output goes.
    pub(super) directory: &'a Path,
    /// It has started when all of them accept.
    pub(super) ready: Vec<SocketAddr>,
}

/// A running program. Dropping it ends it.
pub(super) struct Process {
    name: String,
    child: Child,
}

impl Process {
    /// Starts the program and waits until it accepts on every address.
    pub(super) fn start(launch: Launch<'_>) -> io::Result<Self> {
        let name = launch.name;
        let log = launch.directory.join(format!("{}.log", name.replace([' ', ','], "-")));
        let output = File::create(&log)?;
        // setpriv has the kernel end the program when this one dies, however it dies; setpriv and
        // taskset both become the program, which therefore has the pid of the child.
        let mut command = Command::new("setpriv");
        if launch.unprivileged && rustix::process::geteuid().is_root() {
            command.args(["--reuid", UNPRIVILEGED, "--regid", UNPRIVILEGED, "--clear-groups"]);
            command.args(["--inh-caps=-all", "--bounding-set=-all"]);
        }
        let child = command
            .args(["--pdeathsig", "TERM", "taskset", "-c", &launch.cpus])
            .args(launch.command)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .map_err(while_doing("cannot run setpriv (package util-linux)"))?;
        let mut process = Self { name, child };
        let accepts = usage::wait_until(START_LIMIT, || {
            if let Some(status) = process.child.try_wait()? {
                let message = format!("{} ended at once, {status}\n{}", process.name, tail(&log));
                return Err(io::Error::other(message));
            }
            Ok(launch.ready.iter().all(|address| TcpStream::connect(address).is_ok()))
        })?;
        if accepts {
            return Ok(process);
        }
        let (name, ready) = (&process.name, &launch.ready);
        Err(io::Error::other(format!("{name} does not accept on {ready:?}\n{}", tail(&log))))
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The process that does the work of a program that has exactly one child.
    pub(super) fn only_child(&self) -> io::Result<u32> {
        let mut children = Vec::new();
        usage::wait_until(START_LIMIT, || {
            children = children_of(self.pid())?;
            Ok(children.len() == 1)
        })?;
        match children[..] {
            [worker] => Ok(worker),
            _ => {
                let message = format!("{} has {} workers, not one", self.name, children.len());
                Err(io::Error::other(message))
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(pid) = Pid::from_raw(self.child.id() as i32) {
            // It may have ended by itself; `try_wait` below tells.
            let _ = rustix::process::kill_process(pid, Signal::TERM);
        }
        let ended = usage::wait_until(STOP_LIMIT, || Ok(self.child.try_wait()?.is_some()));
        if !matches!(ended, Ok(true)) {
            eprintln!("ringgate-bench: {} did not end when asked; killing it", self.name);
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn children_of(parent: u32) -> io::Result<Vec<u32>> {
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        // A process may end while the list is read.
        if usage::parent_of(pid).is_ok_and(|its_parent| its_parent == parent) {
            children.push(pid);
        }
    }
    Ok(children)
}

/// What a program said last.
fn tail(log: &PathBuf) -> String {
    let said = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = said.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}

/// First line of what the program says about itself, on either stream.
pub(super) fn version(program: &Path, flag: &str) -> io::Result<String> {
    let output = Command::new(program)
        .arg(flag)
        .stdin(Stdio::null())
        .output()
        .map_err(while_doing(format!("cannot run {}", program.display())))?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    Ok(line.trim().to_string())
}
