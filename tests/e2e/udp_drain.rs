//! The end of many UDP sessions at SIGTERM: each has a record, and what else the worker serves goes
//! on meanwhile.
//!
//! The tests take thousands of ports, so that each has a network of its own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, SystemTime};

use rustix::process::Signal;

use crate::support::{
    Echo, LONG, Record, Ringgate, SHORT, Setup, allow_descriptors, inside_namespace, l4, wait_for,
};

const BOTH: [&str; 2] = ["io_uring", "epoll"];
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// One worker with a udp listener `dns`, whose endpoint never answers, and the L4 listener
/// `ingress`. So many clients have a session; they are returned too.
fn with_sessions(driver: &str, silent: SocketAddr, count: usize) -> (Ringgate, Vec<UdpSocket>) {
    allow_descriptors(count as u64 + 1000);
    let udp = format!(
        "[[listener]]\nname = \"dns\"\nlisten = \"127.0.0.1:0\"\nprotocol = \"udp\"\n\
         cluster = \"servers\"\n[cluster.servers]\nendpoints = [\"{silent}\"]\n"
    );
    let config = udp + &l4(Echo::start().address(), "", "");
    let server = format!("driver = \"{driver}\"\nworkers = 1");
    let gate = Setup { config, server, ..Setup::default() }.start();
    let (to, before) = (gate.address("dns"), gate.sockets());
    let mut clients = Vec::new();
    while clients.len() < count {
        for _ in 0..100 {
            let client = UdpSocket::bind("127.0.0.1:0").unwrap();
            client.connect(to).unwrap();
            client.send(b"x").unwrap();
            clients.push(client);
        }
        wait_for("their sessions", SHORT, || {
            (gate.sockets() >= before + clients.len()).then_some(())
        });
    }
    (gate, clients)
}

#[track_caller]
fn round_trip(stream: &mut TcpStream) {
    stream.write_all(b"x").unwrap();
    stream.read_exact(&mut [0]).unwrap();
}

/// Now, in milliseconds of the day.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    since.as_millis() as u64 % DAY_MS
}

/// When what a record is about ended, in milliseconds of the day.
fn ended(record: &Record) -> u64 {
    // 2026-01-02T03:04:05.678Z
    let time = record.text("start").split_once('T').unwrap().1.trim_end_matches('Z');
    let numbers: Vec<u64> = time.split([':', '.']).map(|part| part.parse().unwrap()).collect();
    let start = ((numbers[0] * 60 + numbers[1]) * 60 + numbers[2]) * 1000 + numbers[3];
    start + record.number("duration_ms")
}

/// Records of sessions that ended with the drain.
fn drained(gate: &Ringgate) -> Vec<Record> {
    gate.records_where(0, |record| record.text("protocol") == "udp" && record.end() == "drain")
}

#[test]
fn the_end_of_many_sessions_lets_connections_go_on() {
    if !inside_namespace("udp_drain::the_end_of_many_sessions_lets_connections_go_on") {
        return;
    }
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    for driver in BOTH {
        // On a busy machine the client may have no turn meanwhile. A worker that ended all sessions
        // in one go would never give it an answer, however often that is tried.
        let mut tried = (0..5).map(|_| round_trips_meanwhile(driver, &silent));
        assert!(tried.any(|meanwhile| meanwhile >= 5), "not over {driver}");
    }
}

/// How often a connection is answered from the end of the first of many sessions to that of the
/// last.
fn round_trips_meanwhile(driver: &str, silent: &UdpSocket) -> usize {
    let (mut gate, clients) = with_sessions(driver, silent.local_addr().unwrap(), 5000);
    let mut stream = gate.connect("ingress");
    round_trip(&mut stream);
    let begin = now();
    gate.signal(Signal::TERM);
    let mut trips = Vec::new();
    wait_for("the sessions' sockets are closed", LONG, || {
        for _ in 0..200 {
            round_trip(&mut stream);
            trips.push(now());
        }
        (gate.sockets() < clients.len()).then_some(())
    });
    drop(stream);
    assert_eq!(gate.wait_exit(SHORT).code(), Some(0));

    let records = drained(&gate);
    assert_eq!(records.len(), clients.len(), "over {driver}");
    // Relative to the signal: the day may have ended meanwhile.
    let after = |time: u64| (time + DAY_MS - begin) % DAY_MS;
    let ends = records.iter().map(|record| after(ended(record)));
    // Times in a record are exact to 2 ms.
    let (first, last) = (ends.clone().min().unwrap() + 3, ends.max().unwrap() - 3);
    trips.iter().filter(|&&time| (first..last).contains(&after(time))).count()
}

#[test]
fn a_second_signal_leaves_no_session_without_a_record() {
    if !inside_namespace("udp_drain::a_second_signal_leaves_no_session_without_a_record") {
        return;
    }
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    for driver in BOTH {
        let (mut gate, clients) = with_sessions(driver, silent.local_addr().unwrap(), 1000);
        // It does not end by itself.
        let mut stream = gate.connect("ingress");
        round_trip(&mut stream);
        gate.signal(Signal::TERM);
        gate.line_with("no new connections");
        gate.signal(Signal::TERM);
        assert_eq!(gate.wait_exit(Duration::from_secs(5)).code(), Some(0));
        assert_eq!(drained(&gate).len(), clients.len(), "over {driver}");
    }
}
