//! Counters go on over take-overs: a process tells its successor what it counts, until it ends.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use rustix::process::{Signal, kill_process};
use serde_json::Value;

use crate::admin::{admin, asks, listener, metric};
use crate::reload::{cluster, page, tcp};
use crate::support::{Echo, HttpClient, LONG, SHORT, Setup, connect, free_port, wait_for};
use crate::takeover::{Chain, echoes, has_ended};

/// What the process that has the address shows, if one has it now.
fn shown(own: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(own).ok()?;
    stream.set_read_timeout(Some(SHORT)).ok()?;
    let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text.split_once("\r\n\r\n")?.1.to_owned())
}

/// Waits until a listener has this many connections begun and open, and has moved this many bytes
/// each way.
#[track_caller]
fn counts(own: SocketAddr, name: &str, expected: [u64; 3]) {
    let mut last = None;
    let what = format!("{name} counts {expected:?}");
    wait_for(&what, LONG, || {
        let stats: Value = serde_json::from_str(&shown(own, "/stats")?).ok()?;
        let one = listener(&stats, name);
        let number = |value: &Value| value.as_u64().unwrap();
        let all = [
            number(&one["connections"]["total"]),
            number(&one["connections"]["open"]),
            number(&one["bytes_up"]),
        ];
        let is_back = |last: [u64; 3]| all[0] < last[0] || all[2] < last[2];
        assert!(!last.is_some_and(is_back), "{last:?}, then {all:?}");
        // The first report may be on its way.
        last = (all[0] > 0).then_some(all);
        (all == expected).then_some(())
    });
}

#[test]
fn counters_of_the_service_go_on_over_take_overs() {
    for driver in ["io_uring", "epoll"] {
        let echo = Echo::start();
        let [own, raw, web] = [(); 3].map(|()| free_port().address());
        let config = admin(own)
            + &tcp("raw", raw, "c")
            + &page("web", web, "hello")
            + &cluster("c", echo.address());
        let server = format!("driver = \"{driver}\"\ndrain_timeout = \"10m\"");
        let mut chain = Chain::start(Setup { config, server, ..Setup::default() });
        let mut visitor = HttpClient::connect(web);
        for _ in 0..3 {
            visitor.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(visitor.response().status, 200);
        }
        drop(visitor);
        let mut tunnel = connect(raw);
        echoes(&mut tunnel);
        counts(own, "raw", [1, 1, 5]);

        // The tunnel is in the first process: what is open is not counted twice.
        let first = chain.take_over();
        counts(own, "raw", [1, 0, 5]);
        echoes(&mut tunnel);
        counts(own, "raw", [1, 0, 10]);
        let mut second = connect(raw);
        echoes(&mut second);
        counts(own, "raw", [2, 1, 15]);

        // Through the second process, which drains, too.
        chain.take_over();
        echoes(&mut tunnel);
        echoes(&mut second);
        counts(own, "raw", [2, 0, 25]);
        drop(tunnel);
        wait_for("the first process ends", LONG, || has_ended(first).then_some(()));
        drop(second);
        counts(own, "raw", [2, 0, 25]);
        wait_for("all ends are counted", LONG, || {
            let stats: Value = serde_json::from_str(&shown(own, "/stats")?).ok()?;
            let ends: u64 = listener(&stats, "raw")["ends"]
                .as_object()
                .unwrap()
                .values()
                .map(|count| count.as_u64().unwrap())
                .sum();
            (ends == 2).then_some(())
        });
        let clusters: Value = serde_json::from_str(&shown(own, "/clusters").unwrap()).unwrap();
        let c = &clusters["clusters"][0];
        assert_eq!((&c["connections"]["total"], &c["bytes_up"]), (&2.into(), &25.into()), "{c:#}");
        assert_eq!(c["connect"]["count"], 2, "{c:#}");
        let (status, metrics) = asks(own, "GET /metrics", "");
        assert_eq!(status, 200);
        let value = |name: &str| metric(&metrics, name);
        assert_eq!(value("ringgate_host_requests_total{listener=\"web\",host=\"*\"}"), 3.0);
        chain.end();
    }
}

#[test]
fn a_predecessor_that_is_killed_leaves_what_it_has_reported() {
    let echo = Echo::start();
    let [own, raw] = [(); 2].map(|()| free_port().address());
    let config = admin(own) + &tcp("raw", raw, "c") + &cluster("c", echo.address());
    let server = "drain_timeout = \"10m\"".to_owned();
    let mut chain = Chain::start(Setup { config, server, ..Setup::default() });
    let mut tunnel = connect(raw);
    echoes(&mut tunnel);
    let first = chain.take_over();
    counts(own, "raw", [1, 0, 5]);
    kill_process(first, Signal::KILL).unwrap();
    wait_for("it has ended", LONG, || has_ended(first).then_some(()));
    echoes(&mut connect(raw));
    wait_for("the own ones are added", LONG, || {
        let stats: Value = serde_json::from_str(&shown(own, "/stats")?).ok()?;
        (listener(&stats, "raw")["bytes_up"] == 10).then_some(())
    });
    chain.take_over();
    wait_for("and go on", LONG, || {
        let stats: Value = serde_json::from_str(&shown(own, "/stats")?).ok()?;
        (listener(&stats, "raw")["bytes_up"] == 10).then_some(())
    });
    chain.end();
}
