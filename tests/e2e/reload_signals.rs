//! Signals that come while something else is in progress: a reload, a take-over.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Signal, kill_process};

use crate::admin::{admin, asks, stats};
use crate::reload::{cluster, echoes, page, start, tcp};
use crate::support::{
    Echo, LONG, Process, Ringgate, SHORT, Setup, free_port, require, ringgate_command, wait_for,
    with_deadlines,
};
use crate::takeover::{Chain, has_ended};

/// A pipe in the place of the configuration: reading it waits for a writer.
pub(crate) fn put_pipe(file: &Path) {
    let pipe = file.with_extension("pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    fs::rename(pipe, file).unwrap();
}

#[test]
fn logs_are_reopened_while_a_reload_waits_for_its_file() {
    let echo = Echo::start();
    let address = free_port().address();
    let config = tcp("relay", address, "c") + &cluster("c", echo.address());
    let gate = start(&config, "io_uring");
    let text = fs::read_to_string(gate.config_file()).unwrap();
    put_pipe(&gate.config_file());
    gate.signal(Signal::HUP);
    // The process reads when this returns.
    let mut pipe = fs::OpenOptions::new().write(true).open(gate.config_file()).unwrap();
    pipe.write_all(b"# the rest follows\n").unwrap();
    let log = gate.access_log();
    fs::rename(&log, log.with_extension("old")).unwrap();
    gate.signal(Signal::USR1);
    wait_for("the log is opened again", SHORT, || {
        echoes(&mut with_deadlines(TcpStream::connect(address).unwrap()), 1);
        log.exists().then_some(())
    });
    let reloaded = || gate.lines().iter().any(|line| line.contains("reloaded"));
    assert!(!reloaded(), "the pipe is open");
    pipe.write_all(text.as_bytes()).unwrap();
    drop(pipe);
    wait_for("the reload", SHORT, || reloaded().then_some(()));
}

#[test]
fn a_reload_during_a_take_over_that_fails_follows_it() {
    let (chain, _, _dir) = Chain::serving("io_uring", 1);
    // It waits for this file.
    let go = chain.gate.access_log().with_file_name("go");
    let wait = format!("until [ -e {} ]; do sleep 0.1; done", go.display());
    chain.replace_program(&format!("{wait}; exit 1"));
    chain.ask();
    chain.gate.line_with("starting the successor");
    chain.gate.signal(Signal::HUP);
    chain.gate.line_with("SIGHUP has its effect after it");
    assert_eq!(chain.count("reloaded"), 0);
    fs::write(go, "").unwrap();
    chain.gate.line_with("the take-over has failed");
    chain.gate.line_with("reloaded");
}

#[test]
fn an_order_to_reload_during_a_take_over_is_refused_and_not_done_later() {
    let [own, web] = [(); 2].map(|()| free_port().address());
    let config = admin(own) + &page("web", web, "a");
    // By a link that the test can replace.
    let through = Some(require("env"));
    let chain = Chain::start(Setup { config, through, ..Setup::default() });
    let go = chain.gate.access_log().with_file_name("go");
    let wait = format!("until [ -e {} ]; do sleep 0.1; done", go.display());
    chain.replace_program(&format!("{wait}; exit 1"));
    chain.ask();
    chain.gate.line_with("starting the successor");
    let (status, text) = asks(own, "POST /reload", "Content-Length: 0\r\n");
    assert!(status == 422 && text.contains("again"), "{status}: {text}");
    fs::write(go, "").unwrap();
    chain.gate.line_with("the take-over has failed");
    // Orders run one after the other.
    assert_eq!(asks(own, "POST /reload", "Content-Length: 0\r\n").0, 200);
    assert_eq!(stats(own)["reloads"], 1);
    assert_eq!(chain.count("SIGHUP has its effect"), 0);
}

#[test]
fn a_reload_during_a_take_over_is_that_of_the_successor() {
    let (mut chain, _, _dir) = Chain::serving("io_uring", 1);
    let program = chain.gate.access_log().with_file_name("real");
    fs::rename(program.with_file_name("ringgate"), &program).unwrap();
    let go = program.with_file_name("go");
    let wait = format!("until [ -e {} ]; do sleep 0.1; done", go.display());
    chain.replace_program(&format!("{wait}; exec {} \"$@\"", program.display()));
    chain.ask();
    chain.gate.line_with("starting the successor");
    chain.gate.signal(Signal::HUP);
    chain.gate.line_with("SIGHUP has its effect after it");
    fs::write(go, "").unwrap();
    let before = chain.succeeds();
    wait_for("the first one ends", SHORT, || has_ended(before).then_some(()));
    chain.gate.line_with("reloaded");
}

/// The packet that ends the take-over and the signal that ends the process are there at once. The
/// signal is passed on, and this successor ignores it.
#[test]
fn a_signal_at_the_end_of_a_take_over_does_not_kill_the_successor() {
    for _ in 0..3 {
        let (mut chain, path, _dir) = Chain::serving("io_uring", 1);
        let script = "import os, signal, socket; \
                      s = socket.socket(fileno = int(os.environ[\"RINGGATE_TAKEOVER\"])); \
                      signal.signal(signal.SIGTERM, signal.SIG_IGN); \
                      s.setblocking(True); s.send(b\"hello\"); s.send(b\"ready\"); \
                      s.recvmsg(65536, 4096); \
                      s.recv(65536); p = os.getppid(); os.kill(p, signal.SIGSTOP); \
                      s.send(b\"accepting\"); \
                      os.kill(p, signal.SIGTERM); os.kill(p, signal.SIGCONT); signal.pause()";
        chain.replace_program(&format!("exec python3 -c '{script}'"));
        let first = chain.gate.pid();
        chain.ask();
        chain.succeeds();
        wait_for("the first one ends", SHORT, || has_ended(first).then_some(()));
        let successor = chain.current;
        assert!(!has_ended(successor), "it was killed");
        assert!(path.exists(), "the path is the successor's");
        kill_process(successor, Signal::KILL).unwrap();
    }
}

/// A gate with one listener, which does not open this log: open(2) takes a minute, as on a file
/// system that does not answer. It is being opened by a reload.
fn opening(address: SocketAddr, log: &Path) -> (Ringgate, Echo) {
    let echo = Echo::start();
    let config = tcp("relay", address, "c") + &cluster("c", echo.address());
    let mut strace = require("strace");
    strace.args(["-D", "-f", "-q", "-o", "/dev/null", "-P"]).arg(log);
    strace.args(["-e", "inject=openat:delay_exit=60000000"]);
    let server = "driver = \"io_uring\"".to_owned();
    let through = Some(strace);
    let setup = Setup { config, server, through, ..Setup::default() };
    let gate = setup.start();
    let text = fs::read_to_string(gate.config_file()).unwrap();
    let own_log = format!("access_log = {{ path = {log:?} }}\nprotocol");
    fs::write(gate.config_file(), text.replacen("protocol", &own_log, 1)).unwrap();
    gate.signal(Signal::HUP);
    wait_for("the log is being opened", SHORT, || log.exists().then_some(()));
    (gate, echo)
}

#[test]
fn a_log_that_does_not_open_holds_no_signal_up() {
    let (address, dir) = (free_port().address(), tempfile::tempdir().unwrap());
    let (gate, _echo) = opening(address, &dir.path().join("access.log"));
    echoes(&mut with_deadlines(TcpStream::connect(address).unwrap()), 1);
    gate.signal(Signal::TERM);
    // strace keeps what is left of the process until the call returns.
    gate.line_with("ended cut_off=0");
}

/// They would end a process that has no handlers yet.
#[test]
fn signals_that_come_before_the_configuration_is_read_wait() {
    let echo = Echo::start();
    let address = free_port().address();
    let config = tcp("relay", address, "c") + &cluster("c", echo.address());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ringgate.toml");
    put_pipe(&file);
    let mut command = ringgate_command(&["run", "-c"]);
    command.arg(&file);
    let process = Process::spawn(command);
    // The process reads when this returns.
    let mut pipe = fs::OpenOptions::new().write(true).open(&file).unwrap();
    process.signal(Signal::HUP);
    process.signal(Signal::USR1);
    let regular = file.with_extension("new");
    fs::write(&regular, &config).unwrap();
    fs::rename(regular, &file).unwrap();
    pipe.write_all(config.as_bytes()).unwrap();
    drop(pipe);
    process.line_with("ready", SHORT);
    process.line_with("reloaded", SHORT);
    echoes(&mut with_deadlines(TcpStream::connect(address).unwrap()), 1);
}

#[test]
fn a_log_that_does_not_open_takes_one_thread_however_many_signals_come() {
    let (address, dir) = (free_port().address(), tempfile::tempdir().unwrap());
    let (gate, _echo) = opening(address, &dir.path().join("access.log"));
    let is_said = |part: &str| gate.lines().iter().any(|line| line.contains(part)).then_some(());
    wait_for("it is given up", LONG, || is_said("it took longer than 30 s"));
    let threads =
        || fs::read_dir(format!("/proc/{}/task", gate.pid().as_raw_nonzero())).unwrap().count();
    let before = threads();
    gate.signal(Signal::HUP);
    gate.line_with("an earlier reload still reads its files");
    assert!(threads() <= before);
    echoes(&mut with_deadlines(TcpStream::connect(address).unwrap()), 1);
    gate.signal(Signal::TERM);
    gate.line_with("ended cut_off=0");
}
