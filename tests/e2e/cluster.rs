//! Clusters: which endpoint a connection gets, and what happens when it does not answer.

use std::io::Read;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::support::{Blackhole, Named, Ringgate, SOON, Setup, expect_closed, free_port, l4};

/// An L4 listener in front of several endpoints.
fn config(endpoints: &[SocketAddr], cluster: &str) -> String {
    let (first, more) = endpoints.split_first().expect("a cluster has endpoints");
    let all: String = more.iter().map(|address| format!(", \"{address}\"")).collect();
    let one = format!("endpoints = [\"{first}\"]");
    let config = l4(*first, "", cluster);
    assert!(config.contains(&one));
    config.replace(&one, &format!("endpoints = [\"{first}\"{all}]"))
}

fn name_of_who_answers(gate: &Ringgate) -> String {
    let mut name = String::new();
    gate.connect("ingress").read_to_string(&mut name).unwrap();
    name
}

#[test]
fn round_robin_is_even() {
    let backends = [Named::start("a"), Named::start("b"), Named::start("c")];
    let addresses = backends.each_ref().map(Named::address);
    for workers in [1, 2] {
        let server = format!("workers = {workers}");
        let gate = Setup { config: config(&addresses, ""), server, ..Setup::default() }.start();
        let before = backends.each_ref().map(Named::served);
        for _ in 0..30 {
            assert_ne!(name_of_who_answers(&gate), "");
        }
        for (backend, before) in backends.iter().zip(before) {
            let served = backend.served() - before;
            // Each worker goes round by itself.
            assert!(served.abs_diff(10) < workers, "{workers} workers: {served} of 30 at one");
        }
    }
}

#[test]
fn no_client_sees_a_failure_while_one_endpoint_of_three_answers() {
    let (refusing, blackhole, alive) = (free_port(), Blackhole::new(), Named::start("alive"));
    let addresses = [refusing.address(), blackhole.address(), alive.address()];
    let cluster = "connect_attempts = 3\nconnect_timeout = \"200ms\"";
    let gate = Ringgate::start(&config(&addresses, cluster));
    for _ in 0..12 {
        assert_eq!(name_of_who_answers(&gate), "alive");
    }
    for record in gate.records(12) {
        assert_eq!(record.text("endpoint"), alive.address().to_string());
    }
}

#[test]
fn a_refused_connection_is_closed_and_logged() {
    let refusing = free_port();
    let gate = Ringgate::start(&l4(refusing.address(), "", ""));
    expect_closed(&mut gate.connect("ingress"));
    assert_eq!(gate.record().end(), "connect_failed");
}

#[test]
fn a_connection_that_nobody_answers_is_closed_in_time_and_logged() {
    let blackhole = Blackhole::new();
    let cluster = "connect_attempts = 1\nconnect_timeout = \"200ms\"";
    let gate = Ringgate::start(&l4(blackhole.address(), "", cluster));
    let start = Instant::now();
    expect_closed(&mut gate.connect("ingress"));
    let passed = start.elapsed();
    assert!(passed > Duration::from_millis(150), "after {passed:?}");
    assert!(passed < SOON, "after {passed:?}");
    assert_eq!(gate.record().end(), "connect_timeout");
}

#[test]
fn attempts_are_counted() {
    let (refusing, blackhole, alive) = (free_port(), Blackhole::new(), Named::start("alive"));
    let addresses = [refusing.address(), blackhole.address(), alive.address()];
    let cluster = "connect_attempts = 1\nconnect_timeout = \"200ms\"";
    let config = config(&addresses, cluster);
    let server = "workers = 1".to_owned();
    let gate = Setup { config, server, ..Setup::default() }.start();
    let names: Vec<String> = (0..6)
        .map(|_| {
            let mut name = Vec::new();
            // A failure may be told by a reset.
            let _ = gate.connect("ingress").read_to_end(&mut name);
            String::from_utf8(name).unwrap()
        })
        .collect();
    let answered = names.iter().filter(|name| *name == "alive").count();
    assert_eq!(answered, 2, "one attempt each, a third of the endpoints alive: {names:?}");
}
