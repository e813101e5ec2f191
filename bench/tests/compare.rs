//! How a comparison begins and ends: what it refuses at once, and what it leaves behind.

#![expect(clippy::unwrap_used, reason = "a failed expectation is how a test fails")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// `compare` with programs that say nothing of their versions, and with only the floor to measure.
fn compare(arguments: &[&str]) -> Command {
    // A shell that starts the tests in the background makes them ignore SIGINT (bash(1)), and what
    // is ignored is inherited.
    let mut command = Command::new("env");
    command.args(["--default-signal=INT", env!("CARGO_BIN_EXE_ringgate-bench")]);
    command.arg("compare").args(arguments);
    for program in ["--ringgate", "--nginx", "--haproxy", "--caddy", "--v2ray-plugin"] {
        command.args([program, "/bin/true"]);
    }
    for contender in ["ringgate", "nginx", "HAProxy", "Caddy", "direct"] {
        command.args(["--without", contender]);
    }
    command
}

#[test]
fn work_that_does_not_exist_is_an_error_that_lists_what_does() {
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().to_str().unwrap();
    let run = compare(&["--only", "bulk sideways", "--output", output]).output().unwrap();
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(!run.status.success() && said.contains("bulk sideways"), "{said}");
    assert!(said.contains("bulk up, 16") && said.contains("idle L4 pairs"), "{said}");
}

#[test]
fn an_output_that_cannot_be_written_is_an_error_before_anything_is_measured() {
    let run = compare(&["--output", "/dev/null/results"]).output().unwrap();
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(!run.status.success() && said.contains("/dev/null/results"), "{said}");
    // What it measures is said first.
    assert!(!said.lines().any(|line| line.starts_with("1/")), "{said}");
}

#[test]
fn a_signal_ends_it_and_the_proxies_it_started() {
    for signal in [Signal::INT, Signal::TERM] {
        let directory = tempfile::tempdir().unwrap();
        let output = directory.path().to_str().unwrap();
        let only = ["--only", "bulk up, 16", "--rounds", "100", "--output", output];
        let mut run = compare(&only).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(run.stderr.take().unwrap()).lines();
        let first = said.find(|line| line.as_ref().is_ok_and(|line| line.starts_with("1/")));
        assert!(first.is_some(), "it measures");
        let pid = run.id();
        let children = children(pid);
        assert_eq!(children.len(), 1, "the floor is a process of its own");
        kill_process(Pid::from_child(&run), signal).unwrap();
        assert_eq!(run.wait().unwrap().signal(), Some(signal.as_raw()));
        wait_for_the_end_of(children[0]);
    }
}

#[expect(clippy::disallowed_methods, reason = "a look at a condition, again and again")]
fn wait_for_the_end_of(pid: u32) {
    let start = Instant::now();
    while runs(pid) {
        assert!(start.elapsed() < Duration::from_secs(5), "the process goes on");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The processes that any thread of a process has started.
fn children(pid: u32) -> Vec<u32> {
    let mut children = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let text = fs::read_to_string(task.unwrap().path().join("children")).unwrap();
        children.extend(text.split_ascii_whitespace().map(|child| child.parse::<u32>().unwrap()));
    }
    children
}

/// False also of one that has ended and that nobody has asked about yet.
fn runs(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z')))
}
