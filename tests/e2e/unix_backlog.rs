//! Unix endpoints whose accept queue is full: connections wait for a place, as TCP's do.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::net::listen;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::{Echo, Record, Ringgate, SHORT, SOON, Setup, expect_closed, holds_for, l4};

/// A listener `ingress` to a Unix socket, and a listener `other` to a TCP server.
struct Site {
    listener: UnixListener,
    gate: Ringgate,
    _dir: TempDir,
}

fn start(driver: &str, cluster: &str) -> Site {
    let (dir, echo) = (tempfile::tempdir().unwrap(), Echo::start());
    let path = dir.path().join("backend.sock");
    let listener = UnixListener::bind(&path).unwrap();
    // The queue then holds two.
    listen(listener.as_fd(), 1).unwrap();
    let config = format!("{}{}", to_unix(&path, cluster), other(&echo));
    let server = format!("workers = 1\ndriver = \"{driver}\"");
    let gate = Setup { config, server, ..Setup::default() }.start();
    Site { listener, gate, _dir: dir }
}

fn to_unix(path: &Path, cluster: &str) -> String {
    let nowhere = ([127, 0, 0, 1], 1).into();
    l4(nowhere, "", cluster).replace("127.0.0.1:1\"", &format!("unix:{}\"", path.display()))
}

fn other(echo: &Echo) -> String {
    l4(echo.address(), "", "").replace("ingress", "other").replace("backend", "echo")
}

fn answers(gate: &Ringgate) {
    let mut client = gate.connect("other");
    client.write_all(b"here").unwrap();
    client.read_exact(&mut [0; 4]).unwrap();
}

#[test]
fn a_hundred_at_once_are_all_served() {
    for driver in ["io_uring", "epoll"] {
        let Site { listener, gate, _dir } = start(driver, "connect_timeout = \"1m\"");
        let clients: Vec<TcpStream> = (0..100).map(|_| gate.connect("ingress")).collect();
        let before = gate.cpu_time();
        // The worker neither waits for the queue nor asks for it all the time. In a debug build the
        // other clients and the tries that there are take a third of a CPU.
        let start = Instant::now();
        holds_for("the worker serves others", Duration::from_millis(600), || {
            answers(&gate);
            true
        });
        let (cpu, time) = (gate.cpu_time() - before, start.elapsed());
        assert!(cpu < time * 2 / 3, "{driver}: {cpu:?} of CPU in {time:?}");
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                // A client that leaves early is for the test to notice.
                let _ = stream.write_all(b"served");
            }
        });
        for (index, mut client) in clients.into_iter().enumerate() {
            let mut served = String::new();
            let read = client.read_to_string(&mut served);
            assert_eq!((served.as_str(), read.is_ok()), ("served", true), "{driver}: {index}");
        }
        let served = gate.records_where(100, |record| record.text("cluster") == "backend");
        assert!(served.iter().all(|record| record.number("attempts") == 1), "{served:?}");
    }
}

#[test]
fn a_queue_that_stays_full_is_given_up_in_time_and_logged() {
    for driver in ["io_uring", "epoll"] {
        let cluster = "connect_attempts = 1\nconnect_timeout = \"300ms\"";
        let site = start(driver, cluster);
        let waiting: Vec<TcpStream> = (0..2).map(|_| site.gate.connect("ingress")).collect();
        holds_for("they are in the queue", Duration::from_millis(400), || {
            site.gate.lines().iter().all(|line| !line.contains("endpoint failed"))
        });
        let start = Instant::now();
        expect_closed(&mut site.gate.connect("ingress"));
        let passed = start.elapsed();
        assert!(passed >= Duration::from_millis(300), "{driver}: after {passed:?}");
        assert!(passed < SOON, "{driver}: after {passed:?}");
        let record = site.gate.record();
        assert_eq!((record.end(), record.number("attempts")), ("connect_timeout", 1));
        site.gate.line_with("accept queue full");
        drop(waiting);
    }
}

#[test]
fn a_second_signal_ends_those_that_wait() {
    for driver in ["io_uring", "epoll"] {
        let mut site = start(driver, "connect_timeout = \"1h\"");
        let clients: Vec<TcpStream> = (0..10).map(|_| site.gate.connect("ingress")).collect();
        answers(&site.gate);
        site.gate.signal(Signal::TERM);
        site.gate.line_with("SIGTERM");
        site.gate.signal(Signal::TERM);
        assert_eq!(site.gate.wait_exit(SHORT).code(), Some(0));
        let ended = site.gate.records_where(10, |record| record.text("listener") == "ingress");
        let cut_off = |record: &Record| (record.end(), record.number("attempts")) == ("drain", 1);
        assert!(ended.iter().all(cut_off), "{driver}: {ended:?}");
        drop(clients);
    }
}
