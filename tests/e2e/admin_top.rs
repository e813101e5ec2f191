//! `ringgate top` in a real terminal of 80 columns and 24 lines, which tmux makes.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::{Pid, Signal, kill_process};

use crate::admin::admin;
use crate::reload::{cluster, start, tcp};
use crate::support::{Echo, LONG, Process, SHORT, connect, free_port, require, run, wait_for};

/// A terminal with a shell that runs a command, and then says how that has ended and what the
/// terminal does with what is typed.
struct Terminal {
    _server: Process,
    directory: tempfile::TempDir,
}

impl Terminal {
    #[track_caller]
    fn start(environment: &str, own: SocketAddr) -> Terminal {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("tmux");
        let mut server = require("tmux");
        // In the foreground, so that it ends with its guard.
        server.args(["-D", "-f", "/dev/null", "-S"]).arg(&socket).env("LC_ALL", "C.UTF-8");
        let terminal = Terminal { _server: Process::spawn(server), directory };
        wait_for("tmux listens", SHORT, || socket.exists().then_some(()));
        let shell = format!(
            "{environment} {} top --admin {own}; echo \"code $?\"; stty -a; exec cat",
            env!("CARGO_BIN_EXE_ringgate")
        );
        let started =
            run(terminal.tmux().args(["new-session", "-d", "-x", "80", "-y", "24"]).arg(shell));
        assert!(started.status.success(), "{started:?}");
        terminal
    }

    fn tmux(&self) -> Command {
        let mut tmux = require("tmux");
        tmux.arg("-S").arg(self.directory.path().join("tmux")).env_remove("TMUX");
        tmux
    }

    /// The lines of the screen. With `-e` also its colors.
    fn screen(&self, more: &[&str]) -> String {
        let shown = run(self.tmux().args(["capture-pane", "-p"]).args(more));
        String::from_utf8(shown.stdout).unwrap()
    }

    /// Waits until the screen has this, and returns the line with it.
    #[track_caller]
    fn shows(&self, part: &str) -> String {
        let mut last = String::new();
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_for(&format!("the screen shows {part:?}"), LONG, || {
                last = self.screen(&[]);
                last.lines().find(|line| line.contains(part)).map(str::to_owned)
            })
        }));
        found.unwrap_or_else(|_| panic!("no {part:?} in\n{last}"))
    }

    fn press(&self, keys: &[&str]) {
        assert!(run(self.tmux().arg("send-keys").args(keys)).status.success());
    }

    /// The program that the shell runs.
    fn program(&self) -> Pid {
        let shell = run(self.tmux().args(["display", "-p", "#{pane_pid}"]));
        let shell = String::from_utf8(shell.stdout).unwrap().trim().to_owned();
        let children = fs::read_to_string(format!("/proc/{shell}/task/{shell}/children")).unwrap();
        Pid::from_raw(children.split_whitespace().next().unwrap().parse().unwrap()).unwrap()
    }

    /// Makes sure that it has ended so, and left the terminal as it was.
    #[track_caller]
    fn has_ended(&self) {
        self.shows("code 0");
        let flags = self.shows("icanon");
        assert!(!flags.contains("-icanon") && !flags.contains("-echo "), "{flags}");
        let screen = self.screen(&[]);
        assert!(!screen.contains("q quit"), "{screen}");
    }
}

/// Moves bytes until it is told to stop.
fn load(address: SocketAddr, is_over: &AtomicBool) {
    let mut tunnel: TcpStream = connect(address);
    let block = vec![7; 10_000];
    while !is_over.load(Ordering::Relaxed) {
        tunnel.write_all(&block).unwrap();
        tunnel.read_exact(&mut vec![0; 10_000]).unwrap();
    }
}

#[test]
fn numbers_move_and_keys_work() {
    let echo = Echo::start();
    let [own, raw] = [(); 2].map(|()| free_port().address());
    let config = admin(own) + &tcp("raw", raw, "c") + &cluster("c", echo.address());
    let gate = start(&config, "io_uring");
    let terminal = Terminal::start("", own);
    terminal.shows("serving for");
    terminal.shows("DOWN/sv");
    assert!(terminal.shows("raw").ends_with("0 B"));
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| load(raw, &is_over));
        // A panic must let that thread end.
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_for("rates", LONG, || {
                let row = terminal.shows("raw");
                (!row.ends_with(" 0 B") && row.contains("iB")).then_some(())
            });
            assert!(terminal.shows("open: 1 connections").contains("1 of them tunnels"));
            terminal.press(&["2"]);
            assert!(terminal.shows("relay").contains("127.0.0.1"));
            terminal.press(&["4"]);
            terminal.shows("WORKERv");
            terminal.press(&["r"]);
            terminal.shows("WORKER^");
            terminal.press(&["Right"]);
            terminal.shows("CONNS^");
            terminal.press(&["BTab", "BTab", "BTab"]);
            terminal.shows("DOWN/sv");
            terminal.press(&["?"]);
            terminal.shows("reverse the order");
            terminal.press(&["x", "Space"]);
            terminal.shows("paused");
            let screen = terminal.screen(&[]);
            assert!(!screen.contains("reverse the order"), "{screen}");
            terminal.press(&["Space"]);
            terminal.shows("q quit");
        }));
        is_over.store(true, Ordering::Relaxed);
        checked.unwrap();
    });

    // It waits for the next process.
    drop(gate);
    assert!(terminal.shows("no answer for").contains("trying again"));
    let _gate = start(&config, "epoll");
    terminal.shows("q quit");
    terminal.shows("epoll");
    terminal.press(&["q"]);
    terminal.has_ended();
}

#[test]
fn a_signal_ends_it_and_leaves_the_terminal_as_it_was() {
    let own = free_port().address();
    // Nothing answers.
    let terminal = Terminal::start("", own);
    terminal.shows("no answer for");
    kill_process(terminal.program(), Signal::TERM).unwrap();
    terminal.has_ended();
}

#[test]
fn colors_are_left_out_where_they_are_not_wanted() {
    let own = free_port().address();
    let colored = Terminal::start("", own);
    colored.shows("no answer for");
    let plain = Terminal::start("NO_COLOR=1", own);
    plain.shows("no answer for");
    let is_red = |terminal: &Terminal| {
        let screen = terminal.screen(&["-e"]);
        screen.contains("31m") || screen.contains("38;5;1m")
    };
    assert_eq!([&colored, &plain].map(is_red), [true, false]);
}

#[test]
fn without_a_terminal_it_says_what_else_there_is() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringgate"));
    let output = run(command.args(["top", "--admin", "127.0.0.1:1"]));
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("ringgate status"), "{text}");
}

#[test]
fn it_ends_with_its_terminal() {
    // The kernel sends SIGHUP to the processes of the terminal's session alone.
    for session in ["", "setsid"] {
        let terminal = Terminal::start(session, free_port().address());
        terminal.shows("no answer for");
        let program = terminal.program();
        // As when the connection to a remote shell breaks.
        drop(terminal);
        ends(program);
    }
}

#[track_caller]
fn ends(program: Pid) {
    wait_for("it has ended", SHORT, || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", program.as_raw_nonzero()));
        // Nothing may wait for it any more.
        stat.map_or(true, |stat| stat.contains(") Z ")).then_some(())
    });
}
