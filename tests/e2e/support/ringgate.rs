//! The real binary, started with a configuration of the test's own.

use std::fs::{self, Permissions};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use serde_json::Value;
use tempfile::TempDir;

use super::{LONG, Process, SHORT, connect, require, run, wait_for};

/// What a reload says at its end.
const RELOADED: &str = " reloaded ";
const REFUSED: &str = "the new configuration is not used";

/// How ringgate is started.
#[derive(Default)]
pub(crate) struct Setup {
    /// Listeners and clusters.
    pub(crate) config: String,
    /// Lines of the `[server]` table; two workers unless they say otherwise.
    pub(crate) server: String,
    /// Environment variables.
    pub(crate) env: Vec<(&'static str, String)>,
    /// A command that runs what stands behind it in its own place: `setpriv …`, `prlimit …`.
    pub(crate) through: Option<Command>,
}

/// A running ringgate; ends with its guard.
pub(crate) struct Ringgate {
    process: Process,
    dir: TempDir,
    /// As in [`Setup`].
    server: String,
}

/// `ringgate` with these arguments and a quiet environment.
pub(crate) fn ringgate_command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringgate"));
    command.args(arguments).env_remove("RINGGATE_LOG").env("NO_COLOR", "1");
    command
}

impl Ringgate {
    /// Starts with these listeners and clusters, two workers and an access log of its own.
    #[track_caller]
    pub(crate) fn start(config: &str) -> Self {
        Setup { config: config.to_owned(), ..Setup::default() }.start()
    }

    /// Where the listener with this name listens.
    #[track_caller]
    pub(crate) fn address(&self, listener: &str) -> SocketAddr {
        let line = self.process.line_with(&format!("listening name={listener} "), SHORT);
        let (_, address) = line.split_once("address=").expect("the line names the address");
        let address = address.split_ascii_whitespace().next().expect("the address is not empty");
        address.parse().unwrap_or_else(|error| panic!("{address}: {error}"))
    }

    /// A connection to the listener, with deadlines on both directions.
    #[track_caller]
    pub(crate) fn connect(&self, listener: &str) -> TcpStream {
        connect(self.address(listener))
    }

    /// The access log once it has `count` records; fails when there are more.
    #[track_caller]
    pub(crate) fn records(&self, count: usize) -> Vec<Record> {
        let records = wait_for(&format!("{count} records"), SHORT, || {
            let records = read_records(&self.access_log());
            (records.len() >= count).then_some(records)
        });
        assert_eq!(records.len(), count, "records: {records:#?}");
        records
    }

    /// The only record there is.
    #[track_caller]
    pub(crate) fn record(&self) -> Record {
        self.records(1).remove(0)
    }

    /// The records that `wanted` accepts, among any number of others, once there are `count`.
    #[track_caller]
    pub(crate) fn records_where(
        &self,
        count: usize,
        wanted: impl Fn(&Record) -> bool,
    ) -> Vec<Record> {
        wait_for(&format!("{count} records"), SHORT, || {
            let mut records = read_records(&self.access_log());
            records.retain(&wanted);
            (records.len() >= count).then_some(records)
        })
    }

    /// Changes listeners and clusters, and waits until they are used.
    #[track_caller]
    pub(crate) fn reload(&self, config: &str) {
        let line = self.try_reload(config);
        assert!(line.contains(RELOADED), "{line}");
    }

    /// The same, with the line that says what has become of it.
    #[track_caller]
    pub(crate) fn try_reload(&self, config: &str) -> String {
        let results = || {
            let mut lines = self.lines();
            lines.retain(|line| line.contains(RELOADED) || line.contains(REFUSED));
            lines
        };
        let before = results().len();
        fs::write(self.config_file(), text(&self.server, config, self.dir.path())).unwrap();
        self.signal(Signal::HUP);
        wait_for("the end of a reload", LONG, || results().into_iter().nth(before))
    }

    pub(crate) fn config_file(&self) -> PathBuf {
        self.dir.path().join("ringgate.toml")
    }

    pub(crate) fn access_log(&self) -> PathBuf {
        self.dir.path().join("access.log")
    }

    pub(crate) fn pid(&self) -> Pid {
        self.process.pid()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Does `meanwhile` while it stands still: what comes is all there when it looks again.
    #[track_caller]
    pub(crate) fn frozen<T>(&self, meanwhile: impl FnOnce() -> T) -> T {
        wait_for("every thread waits", SHORT, || self.every_thread_is('S').then_some(()));
        self.signal(Signal::STOP);
        wait_for("every thread stands still", SHORT, || self.every_thread_is('T').then_some(()));
        let result = meanwhile();
        self.signal(Signal::CONT);
        result
    }

    fn every_thread_is(&self, state: char) -> bool {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid().as_raw_nonzero())).unwrap();
        tasks.flatten().all(|task| {
            let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            // proc(5): the state stands behind the name in parentheses.
            stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(state))
        })
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    #[track_caller]
    pub(crate) fn wait_exit(&mut self, limit: Duration) -> ExitStatus {
        self.process.wait_exit(limit)
    }

    #[track_caller]
    pub(crate) fn line_with(&self, part: &str) -> String {
        self.process.line_with(part, SHORT)
    }

    /// Every line so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.process.lines()
    }

    /// CPU time of all its threads so far, to 10 ms.
    pub(crate) fn cpu_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid().as_raw_nonzero()));
        let stat = stat.unwrap();
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        // proc(5): utime and stime are fields 14 and 15, in hundredths of a second (USER_HZ).
        let ticks = fields.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().unwrap());
        Duration::from_millis(10 * ticks.sum::<u64>())
    }

    /// Memory of its own (heap and stacks, not the binary), in KiB.
    pub(crate) fn anonymous_kib(&self) -> u64 {
        let status = format!("/proc/{}/status", self.pid().as_raw_nonzero());
        let status = fs::read_to_string(status).unwrap();
        let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
        line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// How many descriptors it has open.
    pub(crate) fn descriptors(&self) -> usize {
        self.open_files().count()
    }

    /// How many of them are sockets.
    pub(crate) fn sockets(&self) -> usize {
        self.open_files().filter(|target| target.to_string_lossy().starts_with("socket:")).count()
    }

    fn open_files(&self) -> impl Iterator<Item = PathBuf> {
        let files = fs::read_dir(format!("/proc/{}/fd", self.pid().as_raw_nonzero())).unwrap();
        // One may be gone before it is asked about.
        files.map(|file| fs::read_link(file.unwrap().path()).unwrap_or_default())
    }
}

/// The whole file.
fn text(server: &str, config: &str, dir: &Path) -> String {
    let workers = if server.contains("workers") { "" } else { "workers = 2" };
    // A test may have a log of its own.
    let log = dir.join("access.log");
    let log = format!("[access_log]\npath = {log:?}\nformat = \"json\"\n");
    let log = if config.contains("[access_log]") { "" } else { &log };
    format!("[server]\n{workers}\n{server}\n{log}{config}")
}

impl Setup {
    /// Starts and waits until it is ready.
    #[track_caller]
    pub(crate) fn start(self) -> Ringgate {
        let gate = self.spawn();
        gate.process.line_with("ready workers=", LONG);
        gate
    }

    /// Starts and does not wait.
    #[track_caller]
    pub(crate) fn spawn(mut self) -> Ringgate {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("ringgate.toml");
        fs::write(&config, self.text(dir.path())).unwrap();
        let arguments = ["run", "-c", config.to_str().unwrap()];
        let mut command = ringgate_command(&arguments);
        if let Some(mut through) = self.through.take() {
            // The wrapper may take rights away: what it starts must be able to reach all this
            // without them.
            fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
            let binary = dir.path().join("ringgate");
            if fs::hard_link(env!("CARGO_BIN_EXE_ringgate"), &binary).is_err() {
                // Another file system. Copied by a process of its own: a descriptor that writes to
                // the file would be inherited by whatever another test starts at that moment, and a
                // file that is open for writing cannot be started (ETXTBSY).
                run(require("cp").arg(env!("CARGO_BIN_EXE_ringgate")).arg(&binary));
            }
            through.arg(binary).args(arguments).env_remove("RINGGATE_LOG").env("NO_COLOR", "1");
            command = through;
        }
        command.envs(self.env).current_dir(dir.path());
        Ringgate { process: Process::spawn(command), dir, server: self.server }
    }

    fn text(&self, dir: &Path) -> String {
        text(&self.server, &self.config, dir)
    }
}

/// One line of the access log.
#[derive(Debug)]
pub(crate) struct Record(Value);

impl Record {
    /// A field that is text; empty when the record does not have it.
    pub(crate) fn text(&self, field: &str) -> &str {
        self.0[field].as_str().unwrap_or_default()
    }

    /// A field that is a number.
    #[track_caller]
    pub(crate) fn number(&self, field: &str) -> u64 {
        let value = &self.0[field];
        value.as_u64().unwrap_or_else(|| panic!("{field} is {value} in {self:?}"))
    }

    /// A field that is a list of texts.
    #[track_caller]
    pub(crate) fn list(&self, field: &str) -> Vec<&str> {
        let list = self.0[field].as_array().unwrap_or_else(|| panic!("no {field} in {self:?}"));
        list.iter().filter_map(Value::as_str).collect()
    }

    /// What it says about TLS that ends in ringgate.
    #[track_caller]
    pub(crate) fn tls(&self) -> Record {
        assert!(self.has_tls(), "no TLS in {self:?}");
        Record(self.0["tls"].clone())
    }

    /// Whether it says something about that.
    pub(crate) fn has_tls(&self) -> bool {
        self.0["tls"].is_object()
    }

    /// A field that is true or false; `None` when the record does not have it.
    pub(crate) fn flag(&self, field: &str) -> Option<bool> {
        self.0[field].as_bool()
    }

    /// Who closed or what failed.
    pub(crate) fn end(&self) -> &str {
        self.text("end")
    }
}

/// The whole lines of a JSON access log; none when the file is not there yet.
fn read_records(file: &Path) -> Vec<Record> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in {line}"));
    whole.lines().map(|line| Record(parse(line))).collect()
}
