//! Where ringgate listens and connects to besides 127.0.0.1, and how many it lets in.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Instant;

use crate::support::{
    Echo, HttpClient, Named, Ringgate, SHORT, Setup, expect_closed, free_port, l4, stream_site,
    wait_for,
};

#[test]
fn several_listeners_with_several_addresses() {
    let (a, b) = (Named::start("a"), Named::start("b"));
    let first = l4(a.address(), "", "").replace("ingress", "first");
    let second = l4(b.address(), "", "").replace("backend", "other");
    let gate = Ringgate::start(&format!("{first}{second}"));
    for (listener, name) in [("first", "a"), ("ingress", "b"), ("first", "a")] {
        let mut said = String::new();
        gate.connect(listener).read_to_string(&mut said).unwrap();
        assert_eq!(said, name);
    }
    let listeners: Vec<String> =
        gate.records(3).iter().map(|record| record.text("listener").to_owned()).collect();
    assert_eq!(listeners.iter().filter(|name| *name == "first").count(), 2, "{listeners:?}");
}

#[test]
fn ipv6_on_both_sides() {
    let Ok(listener) = TcpListener::bind("[::1]:0") else {
        panic!("this test needs an IPv6 loopback address: sysctl net.ipv6.conf.lo.disable_ipv6=0");
    };
    let backend = Named::on(listener, "six");
    let config = l4(backend.address(), "", "").replace("127.0.0.1:0", "[::1]:0");
    let gate = Ringgate::start(&config);
    let mut said = String::new();
    gate.connect("ingress").read_to_string(&mut said).unwrap();
    assert_eq!(said, "six");
    assert!(gate.record().text("client").starts_with("[::1]:"), "{:?}", gate.record());
}

#[test]
fn unix_sockets_on_both_sides() {
    for driver in ["io_uring", "epoll"] {
        let dir = tempfile::tempdir().unwrap();
        let (front, back) = (dir.path().join("front"), dir.path().join("back"));
        let listener = UnixListener::bind(&back).unwrap();
        let nowhere = free_port().address();
        let config = l4(nowhere, "", "")
            .replace("127.0.0.1:0", &format!("unix:{}", front.display()))
            .replace(&nowhere.to_string(), &format!("unix:{}", back.display()));
        let server = format!("driver = \"{driver}\"");
        let mut gate = Setup { config, server, ..Setup::default() }.start();
        for _ in 0..6 {
            let mut client = UnixStream::connect(&front).unwrap();
            client.set_read_timeout(Some(SHORT)).unwrap();
            client.write_all(b"hello").unwrap();
            let (mut upstream, _) = listener.accept().unwrap();
            upstream.read_exact(&mut [0; 5]).unwrap();
            upstream.write_all(b"world").unwrap();
            let mut said = [0; 5];
            client.read_exact(&mut said).unwrap();
            assert_eq!(&said, b"world");
        }
        gate.records(6);
        gate.signal(rustix::process::Signal::TERM);
        assert_eq!(gate.wait_exit(SHORT).code(), Some(0));
        assert!(!front.exists(), "the socket file is left behind");
    }
}

#[test]
fn over_max_connections_a_client_is_closed_and_those_inside_stay() {
    let echo = Echo::start();
    let gate = Ringgate::start(&l4(echo.address(), "max_connections = 3", ""));
    let mut inside: Vec<_> = (0..3).map(|_| gate.connect("ingress")).collect();
    for client in &mut inside {
        client.write_all(b"x").unwrap();
        client.read_exact(&mut [0]).unwrap();
    }
    expect_closed(&mut gate.connect("ingress"));
    gate.records_where(1, |record| record.end() == "overflow");
    for client in &mut inside {
        client.write_all(b"x").unwrap();
        client.read_exact(&mut [0]).unwrap();
    }
    inside.pop();
    wait_for("a place is free", SHORT, || {
        let mut client = gate.connect("ingress");
        client.write_all(b"x").and_then(|()| client.read_exact(&mut [0])).ok()
    });
}

#[test]
fn over_max_connections_it_says_how_many_were_reset_once_a_second() {
    let echo = Echo::start();
    let gate = Ringgate::start(&l4(echo.address(), "max_connections = 2", ""));
    let mut inside: Vec<_> = (0..2).map(|_| gate.connect("ingress")).collect();
    for client in &mut inside {
        client.write_all(b"x").unwrap();
        client.read_exact(&mut [0]).unwrap();
    }
    let said = || {
        let mut lines = gate.lines();
        lines.retain(|line| line.contains("connections beyond max_connections"));
        lines
    };
    let begin = Instant::now();
    let mut outside = 0;
    wait_for("it says so three times", SHORT, || {
        expect_closed(&mut gate.connect("ingress"));
        outside += 1;
        (said().len() >= 3).then_some(())
    });
    let (count, seconds) = (said().len(), begin.elapsed().as_secs() as usize);
    assert!(count <= seconds + 2, "{count} lines in {seconds} s");
    let number =
        |line: &String| -> usize { line.split_once(" reset=").unwrap().1.parse().unwrap() };
    wait_for("all are counted", SHORT, || {
        (said().iter().map(number).sum::<usize>() == outside).then_some(())
    });
    for line in said() {
        assert!(line.contains("WARN"), "{line}");
        assert!(line.contains(" listener=ingress max_connections=2 reset="), "{line}");
    }
    let records = gate.records_where(outside, |record| record.end() == "overflow");
    assert_eq!(records.len(), outside);
}

#[test]
fn the_site_over_epoll() {
    let config = stream_site(free_port().address(), "");
    let server = "driver = \"epoll\"".to_owned();
    let gate = Setup { config, server, ..Setup::default() }.start();
    for _ in 0..10 {
        let mut client = HttpClient::connect(gate.address("web"));
        client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n".repeat(3));
        for _ in 0..3 {
            assert_eq!(client.response().status, 301);
        }
    }
    gate.records(30);
}
