//! What ringgate itself ends before its time does not look whole: the peers see a reset.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::{
    EVERY_WAY, HttpClient, Relayed, Ringgate, SHORT, Setup, UPGRADE, Upstream, expect_end,
    expect_reset, jam, read_until, site, wait_for,
};

const BOTH: [&str; 2] = ["io_uring", "epoll"];

/// Sends without an end, as a server in the middle of a long response does.
fn sends_on(mut stream: TcpStream) -> thread::JoinHandle<()> {
    thread::spawn(move || while stream.write_all(&[b'x'; 64 * 1024]).is_ok() {})
}

/// Reads to the end, which must be a reset.
#[track_caller]
fn expect_cut(stream: &mut TcpStream, what: &str) {
    let result = std::io::copy(stream, &mut std::io::sink());
    let error = result.expect_err(&format!("{what}: a clean end"));
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{what}: {error}");
}

#[test]
fn a_transfer_that_the_drain_timeout_ends_does_not_look_whole() {
    for way in EVERY_WAY {
        let Relayed { mut gate, mut client, upstream } = way.open_draining("400ms");
        let sending = sends_on(upstream);
        gate.signal(Signal::TERM);
        expect_cut(&mut client, &format!("{way:?}"));
        sending.join().unwrap();
        assert_eq!(gate.wait_exit(SHORT).code(), Some(0), "{way:?}");
        assert_eq!(gate.record().end(), "drain", "{way:?}");
    }
}

#[test]
fn a_transfer_that_a_second_sigterm_ends_does_not_look_whole() {
    for way in EVERY_WAY {
        let Relayed { mut gate, mut client, upstream } = way.open();
        let address = gate.address(if way.tunnel { "web" } else { "ingress" });
        let sending = sends_on(upstream);
        gate.signal(Signal::TERM);
        wait_for("new connections are refused", SHORT, || TcpStream::connect(address).err());
        gate.signal(Signal::TERM);
        expect_cut(&mut client, &format!("{way:?}"));
        sending.join().unwrap();
        assert_eq!(gate.wait_exit(SHORT).code(), Some(0), "{way:?}");
    }
}

#[test]
fn an_upload_that_the_drain_timeout_ends_does_not_look_whole() {
    for way in EVERY_WAY {
        let Relayed { gate, client, mut upstream } = way.open_draining("400ms");
        let sending = sends_on(client);
        gate.signal(Signal::TERM);
        expect_cut(&mut upstream, &format!("{way:?}"));
        sending.join().unwrap();
    }
}

#[test]
fn bytes_that_are_in_between_at_the_idle_timeout_do_not_get_lost_unnoticed() {
    for way in EVERY_WAY {
        let Relayed { gate, mut client, mut upstream } = way.open_with("3s", "1m");
        // The client does not read, so that bytes wait in ringgate, and then nothing moves.
        jam(&mut upstream);
        assert_eq!(gate.record().end(), "idle", "{way:?}");
        expect_cut(&mut client, &format!("{way:?}"));
    }
}

#[test]
fn an_idle_connection_with_nothing_in_between_ends_in_order() {
    for way in EVERY_WAY {
        let Relayed { gate, mut client, mut upstream } = way.open_with("300ms", "1m");
        expect_end(&mut client);
        expect_end(&mut upstream);
        assert_eq!(gate.record().end(), "idle", "{way:?}");
    }
}

#[test]
fn the_silence_of_an_upstream_after_the_clients_end_does_not_pass_for_its_end() {
    for way in EVERY_WAY {
        let Relayed { gate, mut client, mut upstream } = way.open_with("1h", "300ms");
        client.shutdown(std::net::Shutdown::Write).unwrap();
        expect_end(&mut upstream);
        expect_reset(&mut client);
        assert_eq!(gate.record().end(), "half_closed_timeout", "{way:?}");
    }
}

/// Asks for an upgrade; the upstream refuses, and sends a body that only the end of the connection
/// ends.
fn refused_upgrade(driver: &str, idle: &str, server: &str) -> (Ringgate, HttpClient, TcpStream) {
    let backend = Upstream::listen();
    let endpoint = format!("\"{}\"", backend.address());
    let route = format!("path = \"/stream\"\nidle_timeout = \"{idle}\"");
    let server = format!("driver = \"{driver}\"\n{server}");
    let gate =
        Setup { config: site(&endpoint, "", &route, ""), server, ..Setup::default() }.start();
    let mut client = HttpClient::connect(gate.address("web"));
    client.send(UPGRADE);
    let mut upstream = backend.accept();
    read_until(&mut upstream, b"\r\n\r\n");
    upstream.write_all(b"HTTP/1.1 403 Forbidden\r\n\r\nhalf of it").unwrap();
    assert_eq!(client.head_only().status, 403);
    (gate, client, upstream)
}

#[test]
fn a_response_without_a_length_that_the_idle_timeout_ends_does_not_look_whole() {
    for driver in BOTH {
        let (gate, mut client, _upstream) = refused_upgrade(driver, "300ms", "");
        expect_cut(&mut client.stream, driver);
        assert_eq!(gate.record().end(), "idle", "{driver}");
    }
}

#[test]
fn a_response_without_a_length_that_the_drain_timeout_ends_does_not_look_whole() {
    for driver in BOTH {
        let drain = "drain_timeout = \"400ms\"";
        let (gate, mut client, upstream) = refused_upgrade(driver, "1h", drain);
        let sending = sends_on(upstream);
        gate.signal(Signal::TERM);
        expect_cut(&mut client.stream, driver);
        sending.join().unwrap();
        assert_eq!(gate.record().end(), "drain", "{driver}");
    }
}

#[test]
fn a_page_that_its_client_does_not_read_in_time_does_not_look_whole() {
    for driver in BOTH {
        let page = "x".repeat(500_000);
        let config = format!(
            "[[listener]]\nname = \"web\"\nlisten = \"127.0.0.1:0\"\nprotocol = \"http\"\n\
             keepalive_timeout = \"300ms\"\n[[listener.host]]\n[[listener.host.route]]\n\
             prefix = \"/\"\nrespond = {{ body = \"{page}\" }}\n"
        );
        let server = format!("driver = \"{driver}\"");
        let gate = Setup { config, server, ..Setup::default() }.start();
        let before = gate.descriptors();
        let mut client = HttpClient::connect(gate.address("web"));
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(40));
        wait_for("it is accepted", SHORT, || (gate.descriptors() > before).then_some(()));
        wait_for("it is let go", SHORT, || (gate.descriptors() <= before).then_some(()));
        expect_cut(&mut client.stream, driver);
    }
}

#[test]
fn the_reset_of_a_client_that_does_not_read_reaches_an_upstream_that_does_not_either() {
    for way in EVERY_WAY {
        let Relayed { gate, mut client, mut upstream } = way.open();
        jam(&mut upstream);
        jam(&mut client);
        crate::support::reset(client);
        let mut rest = Vec::new();
        upstream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        assert!(upstream.read_to_end(&mut rest).is_err(), "{way:?}: a clean end");
        assert_eq!(gate.record().end(), "client_reset", "{way:?}");
    }
}

#[test]
fn the_reset_of_an_upstream_that_does_not_read_reaches_a_client_that_does_not_either() {
    for way in EVERY_WAY {
        let Relayed { gate, mut client, mut upstream } = way.open();
        jam(&mut client);
        jam(&mut upstream);
        crate::support::reset(upstream);
        assert_eq!(gate.record().end(), "upstream_reset", "{way:?}");
        expect_cut(&mut client, &format!("{way:?}"));
    }
}

#[test]
fn an_upstream_that_takes_longer_to_connect_than_the_idle_timeout_is_used() {
    for driver in BOTH {
        let (blackhole, backend) = (crate::support::Blackhole::new(), Upstream::listen());
        let endpoints = format!("\"{}\", \"{}\"", blackhole.address(), backend.address());
        let route = "path = \"/stream\"\nidle_timeout = \"2s\"";
        let cluster = "connect_timeout = \"3s\"\nconnect_attempts = 2";
        let server = format!("driver = \"{driver}\"\nworkers = 1");
        let config = site(&endpoints, "", route, cluster);
        let gate = Setup { config, server, ..Setup::default() }.start();
        // One of two begins with the endpoint that does not answer.
        for _ in 0..2 {
            let mut client = HttpClient::connect(gate.address("web"));
            client.send(UPGRADE);
            let mut upstream = backend.accept();
            read_until(&mut upstream, b"\r\n\r\n");
            upstream.write_all(crate::support::SWITCHING.as_bytes()).unwrap();
            assert_eq!(client.response().status, 101, "{driver}");
            client.send("x");
            upstream.read_exact(&mut [0]).unwrap();
        }
    }
}
