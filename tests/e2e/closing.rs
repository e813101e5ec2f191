//! A response arrives whole although its client has sent more than was read (RFC 9112 section 9.6).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{
    HttpClient, LONG, Ringgate, SHORT, Setup, UPGRADE, Upstream, bytes, expect_end, holds_for,
    obfs_hello, read_until, slow_reader, stream_site, wait_for,
};

const BOTH: [&str; 2] = ["io_uring", "epoll"];
const MIB: usize = 1024 * 1024;

fn page(driver: &str, listener: &str) -> Ringgate {
    let page = "x".repeat(MIB - 1);
    let config = format!(
        "[[listener]]\nname = \"web\"\nlisten = \"127.0.0.1:0\"\nprotocol = \"http\"\n\
         {listener}\n[[listener.host]]\n[[listener.host.route]]\nprefix = \"/\"\n\
         respond = {{ body = \"{page}\" }}\n"
    );
    Setup { config, server: format!("driver = \"{driver}\""), ..Setup::default() }.start()
}

#[test]
fn a_page_is_not_lost_to_bytes_behind_the_last_request() {
    for driver in BOTH {
        let gate = page(driver, "");
        let pipelined = "GET /next HTTP/1.1\r\nHost: a\r\n\r\n";
        for (request, behind) in [
            ("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "\r\n"),
            ("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", pipelined),
            ("GET / HTTP/1.0\r\n\r\n", "\r\n"),
            ("POST / HTTP/1.0\r\nContent-Length: 4\r\n\r\nbody", pipelined),
        ] {
            let mut client = HttpClient::over(slow_reader(gate.address("web")));
            client.send(request);
            // In a segment of its own, which arrives when the request is answered.
            read_until(&mut client.stream, b"HTTP/1.1 200");
            client.send(behind);
            let mut rest = Vec::new();
            let read = client.stream.read_to_end(&mut rest);
            let whole = rest.len() > MIB - 64 * 1024 && rest.ends_with(b"xxx");
            assert!(read.is_ok() && whole, "{driver}, {behind:?}: {read:?} of {}", rest.len());
        }
    }
}

#[test]
fn a_408_is_not_lost_to_the_rest_of_the_head() {
    for driver in BOTH {
        let gate = page(driver, "head_timeout = \"2s\"");
        let mut client = HttpClient::connect(gate.address("web"));
        client.send("GET / HTTP/1.1\r\nHo");
        assert_eq!(gate.record().end(), "head_timeout");
        // The answer is there and not read yet.
        client.send("st: a\r\n\r\n");
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.response().status, 408, "{driver}");
        client.expect_end();
    }
}

/// An upgrade whose upstream has read it.
fn asked(driver: &str) -> (Ringgate, HttpClient, TcpStream) {
    let backend = Upstream::listen();
    let config = stream_site(backend.address(), "");
    let gate =
        Setup { config, server: format!("driver = \"{driver}\""), ..Setup::default() }.start();
    let mut client = HttpClient::over(slow_reader(gate.address("web")));
    client.send(UPGRADE);
    let mut upstream = backend.accept();
    read_until(&mut upstream, b"\r\n\r\n");
    (gate, client, upstream)
}

#[test]
fn a_refused_upgrade_is_not_lost_to_bytes_behind_it() {
    for driver in BOTH {
        let (gate, mut client, mut upstream) = asked(driver);
        let body = bytes(4, MIB);
        let head = format!("HTTP/1.1 403 No\r\nContent-Length: {MIB}\r\n\r\n");
        upstream.write_all(&[head.as_bytes(), &body].concat()).unwrap();
        assert_eq!(client.head_only().status, 403, "{driver}");
        // All of it is in the sockets.
        client.expect_bytes(&body[..MIB / 2]);
        client.send("more");
        client.expect_bytes(&body[MIB / 2..]);
        client.expect_end();
        assert_eq!(gate.record().end(), "done", "{driver}");
    }
}

#[test]
fn a_502_is_not_lost_to_bytes_behind_the_upgrade() {
    for driver in BOTH {
        let (gate, mut client, upstream) = asked(driver);
        drop(upstream);
        assert_eq!(gate.record().number("status"), 502, "{driver}");
        // The answer is there and not read yet.
        client.send("more");
        client.send("and more");
        assert_eq!(client.response().status, 502, "{driver}");
        client.expect_end();
    }
}

#[test]
fn a_client_that_reads_after_its_long_body_gets_the_response() {
    const BODY: usize = 20 * MIB;
    for driver in BOTH {
        let gate = page(driver, "");
        let mut client = HttpClient::connect(gate.address("web"));
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {BODY}\r\n\r\n"));
        let sent = (0..BODY / MIB).try_for_each(|_| client.stream.write_all(&[b'x'; MIB]));
        assert!(sent.is_ok(), "{driver}: {sent:?}");
        assert_eq!(client.response().status, 200, "{driver}");
        client.expect_end();
    }
}

#[test]
fn a_client_that_sends_a_little_now_and_then_is_let_go_after_30_seconds() {
    std::thread::scope(|scope| {
        for driver in BOTH {
            scope.spawn(move || {
                let gate = page(driver, "");
                let before = gate.sockets();
                let mut client = HttpClient::connect(gate.address("web"));
                client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
                assert_eq!(client.response().status, 200);
                let begun = Instant::now();
                wait_for("it is let go", LONG, || {
                    let _ = client.stream.write(b"x");
                    (gate.sockets() <= before).then_some(())
                });
                let passed = begun.elapsed();
                // Longer than a client that is silent.
                assert!(passed > Duration::from_secs(20), "{driver}: {passed:?}");
            });
        }
    });
}

/// A client at rest that has not read all of its page, when the process begins to drain.
fn draining(driver: &str) -> (Ringgate, HttpClient) {
    let gate = page(driver, "");
    let mut client = HttpClient::over(slow_reader(gate.address("web")));
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    // The rest is in the sockets: the connection is at rest.
    assert_eq!(client.head_only().status, 200);
    client.expect_bytes(&[b'x'; MIB / 2]);
    gate.signal(Signal::TERM);
    (gate, client)
}

#[test]
fn a_page_is_not_lost_to_requests_that_meet_the_drain() {
    for driver in BOTH {
        let (mut gate, mut client) = draining(driver);
        wait_for("new connections are refused", SHORT, || {
            TcpStream::connect(gate.address("web")).err()
        });
        // For longer than the silence that a drain waits for.
        for _ in 0..25 {
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            holds_for("a pause", Duration::from_millis(60), || true);
        }
        client.expect_bytes(&[b'x'; MIB / 2 - 1]);
        // The first of them may have arrived before the connection was ended.
        let rest = String::from_utf8(client.rest()).unwrap();
        let is_last = || rest.contains("\r\nConnection: close\r\n") && rest.ends_with("xxx");
        assert!(rest.is_empty() || is_last(), "{driver}: {} bytes", rest.len());
        assert!(rest.matches("HTTP/1.1 200").count() <= 1, "{driver}");
        drop(client);
        assert_eq!(gate.wait_exit(SHORT).code(), Some(0), "{driver}");
    }
}

#[test]
fn a_client_that_does_not_close_holds_up_a_drain_for_a_second() {
    for driver in BOTH {
        let (mut gate, _client) = draining(driver);
        let begun = Instant::now();
        assert_eq!(gate.wait_exit(SHORT).code(), Some(0), "{driver}");
        let passed = begun.elapsed();
        assert!(passed < Duration::from_millis(4500), "{driver}: {passed:?}");
    }
}

#[test]
fn the_last_bytes_of_an_upstream_are_not_lost_to_garbage_behind_simple_obfs_tls() {
    for driver in BOTH {
        let backend = Upstream::listen();
        let site = stream_site(backend.address(), "").replacen(
            "[cluster",
            "[[listener.tls]]\nnames = [\"cdn.example.test\"]\nsimple_obfs = true\n\
             cluster = \"shadowsocks\"\n[cluster",
            1,
        );
        let server = format!("driver = \"{driver}\"");
        let gate = Setup { config: site, server, ..Setup::default() }.start();
        let mut client = slow_reader(gate.address("web"));
        client.write_all(&obfs_hello("cdn.example.test", b"payload")).unwrap();
        let mut upstream = backend.accept();
        assert_eq!(read_until(&mut upstream, b"payload"), b"payload");
        client.write_all(b"this is no record").unwrap();
        // The flow to the upstream ends there.
        expect_end(&mut upstream);
        client.write_all(&[b'?'; 1000]).unwrap();
        let sent = bytes(3, MIB);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                upstream.write_all(&sent).unwrap();
                drop(upstream);
            });
            let mut received = Vec::new();
            let read = client.read_to_end(&mut received);
            assert!(read.is_ok(), "{driver}: {read:?} after {} bytes", received.len());
            assert!(received.len() > MIB, "{driver}: {} bytes", received.len());
        });
        assert_eq!(gate.record().end(), "bad_request", "{driver}");
    }
}
