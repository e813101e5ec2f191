//! No descriptor is left: clients wait, open connections go on, and service goes on at once when
//! there are descriptors again.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::{DRIVERS, RELIEF, Traffic, costs_little, limit_descriptors};
use crate::support::{EVERY_WAY, Echo, Ringgate, SHORT, Setup, Upstream, l4, require, wait_for};

/// Between two rounds of the connection that is open.
const PAUSE: Duration = Duration::from_millis(100);

/// A second listener, whose upstream answers by itself.
fn beside(echo: &Echo) -> String {
    l4(echo.address(), "", "").replace("ingress", "beside").replace("backend", "echo")
}

/// A client of that listener that has sent a byte.
struct Client {
    stream: TcpStream,
    is_reset: bool,
}

#[track_caller]
fn clients(gate: &Ringgate, count: usize) -> Vec<Client> {
    let client = |_| {
        let mut stream = gate.connect("beside");
        // The kernel reports a reset once: to the write, or to the read.
        let is_reset = stream.write_all(b"x").is_err();
        stream.set_nonblocking(true).unwrap();
        Client { stream, is_reset }
    };
    (0..count).map(client).collect()
}

impl Client {
    /// True when its answer has come, or it was reset.
    fn is_done(&mut self) -> bool {
        match self.stream.read(&mut [0]) {
            _ if self.is_reset => {}
            Ok(1) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => self.is_reset = true,
            other => panic!("instead of an answer: {other:?}"),
        }
        true
    }
}

/// Closes each client that has its answer, and counts those that were reset instead. Each answer
/// comes soon after the one before.
#[track_caller]
fn answered(mut clients: Vec<Client>) -> usize {
    let (mut reset, mut last) = (0, Instant::now());
    while !clients.is_empty() {
        let done = wait_for("the next answer", SHORT, || {
            let done: Vec<Client> = clients.extract_if(.., Client::is_done).collect();
            (!done.is_empty()).then_some(done)
        });
        reset += done.iter().filter(|client| client.is_reset).count();
        assert!(last.elapsed() < RELIEF, "{} left after {:?}", clients.len(), last.elapsed());
        last = Instant::now();
    }
    reset
}

/// So many clients may be accepted by two workers before they know that there is no descriptor for
/// the socket to the upstream. A ring has eight accepts in flight, which take their descriptors by
/// the limit of the moment when they began.
fn most_reset(driver: &str) -> usize {
    if driver == "io_uring" { 2 * 8 } else { 2 }
}

#[test]
fn a_limit_that_is_lowered_while_it_runs_makes_new_clients_wait() {
    for way in EVERY_WAY {
        let (backend, other) = (Upstream::listen(), Echo::start());
        let gate = way.start_with(&backend, &beside(&other));
        let open = Traffic::between(way.connect(&gate, &backend), PAUSE);
        open.moves();
        limit_descriptors(&gate, Some(gate.descriptors() as u64));
        let waiting = clients(&gate, 40);
        let line = gate.line_with("no descriptors are left");
        assert!(line.contains("Too many open files") && line.contains(" file_limit="), "{line}");
        costs_little(&gate, &open);

        limit_descriptors(&gate, None);
        let reset = answered(waiting);
        assert!(reset <= most_reset(way.driver), "{reset} were reset");
        open.end();
    }
}

#[test]
fn clients_that_wait_for_descriptors_are_served_when_others_leave() {
    for way in EVERY_WAY {
        let (backend, other) = (Upstream::listen(), Echo::start());
        let gate = way.start_with(&backend, &beside(&other));
        let open = Traffic::between(way.connect(&gate, &backend), PAUSE);
        let mut leaving = clients(&gate, 40);
        for client in &mut leaving {
            wait_for("they are served", SHORT, || client.is_done().then_some(()));
        }
        open.moves();
        limit_descriptors(&gate, Some(gate.descriptors() as u64));
        let waiting = clients(&gate, 40);
        gate.line_with("no descriptors are left");
        costs_little(&gate, &open);

        drop(leaving);
        let reset = answered(waiting);
        assert!(reset <= most_reset(way.driver), "{reset} were reset");
        open.end();
    }
}

#[test]
fn a_limit_that_is_low_from_the_start_makes_clients_wait_at_no_cost() {
    let echo = Echo::start();
    for driver in DRIVERS {
        let backend = Upstream::listen();
        let config = l4(backend.address(), "", "") + &beside(&echo);
        let server = format!("driver = \"{driver}\"");
        let mut few = require("prlimit");
        few.arg("--nofile=128:128");
        let gate = Setup { config, server, through: Some(few), ..Setup::default() }.start();
        let ends = (gate.connect("ingress"), backend.accept());
        let open = Traffic::between(ends, PAUSE);
        let waiting = clients(&gate, 100);
        gate.line_with("the limit of open files is reached");
        costs_little(&gate, &open);
        // Each one that leaves makes room for another.
        assert_eq!(answered(waiting), 0, "{driver}");
        open.end();
    }
}
