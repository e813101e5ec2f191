//! An upgrade that comes to nothing: the answer is plain HTTP, and no later byte of the client goes
//! upstream.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::{
    Blackhole, HttpClient, Ringgate, SHORT, SOON, SWITCHING, Setup, UPGRADE, Upstream, bytes,
    expect_closed, expect_end, expect_reset, expect_silence, free_port, read_until, reset,
    send_slowly, site, stream_site,
};

/// A site, its upstream, and a client whose upgrade the upstream has read.
struct Asked {
    gate: Ringgate,
    client: HttpClient,
    upstream: TcpStream,
}

fn ask(route: &str) -> Asked {
    let backend = Upstream::listen();
    let gate = Ringgate::start(&stream_site(backend.address(), route));
    let mut client = HttpClient::connect(gate.address("web"));
    client.send(UPGRADE);
    let mut upstream = backend.accept();
    assert_eq!(read_until(&mut upstream, b"\r\n\r\n"), UPGRADE.as_bytes());
    Asked { gate, client, upstream }
}

/// Nothing more arrives at the upstream until its connection ends.
#[track_caller]
fn expect_nothing_more(upstream: &mut TcpStream) {
    expect_closed(upstream);
}

#[test]
fn an_answer_other_than_101_is_relayed_and_the_connection_closed() {
    let answers = [
        ("with a length", "403 Forbidden", "Content-Length: 6\r\n\r\nno way", "no way"),
        ("without a body", "404 Not Found", "Content-Length: 0\r\n\r\n", ""),
        (
            "chunked",
            "403 Forbidden",
            "Transfer-Encoding: chunked\r\n\r\n3\r\nno \r\n3\r\nway\r\n0\r\n\r\n",
            "no way",
        ),
        ("a redirect", "302 Found", "Location: /x\r\nContent-Length: 0\r\n\r\n", ""),
        ("a success", "200 OK", "Content-Length: 2\r\n\r\nok", "ok"),
    ];
    for (name, status, rest, body) in answers {
        eprintln!("case: {name}");
        let Asked { gate, mut client, mut upstream } = ask("early_data = false");
        // Held back until a 101 that does not come.
        client.send("GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
        upstream.write_all(format!("HTTP/1.1 {status}\r\n{rest}").as_bytes()).unwrap();
        let response = client.response();
        assert_eq!(response.status.to_string(), status[..3], "{name}");
        assert_eq!(String::from_utf8_lossy(&response.body), body, "{name}");
        // What the client says now goes nowhere; writing may fail already.
        let _ = client.stream.write_all(b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
        expect_nothing_more(&mut upstream);
        expect_closed(&mut client.stream);
        assert_eq!(gate.record().number("status").to_string(), status[..3], "{name}");
    }
}

#[test]
fn an_answer_until_the_end_of_the_connection_is_relayed_whole() {
    let Asked { gate, mut client, mut upstream } = ask("");
    client.send("GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
    let body = bytes(1, 1024 * 1024);
    std::thread::scope(|scope| {
        let sent = &body;
        scope.spawn(move || {
            upstream.write_all(b"HTTP/1.1 403 Forbidden\r\nServer: x\r\n\r\n").unwrap();
            upstream.write_all(sent).unwrap();
            upstream.shutdown(std::net::Shutdown::Write).unwrap();
            expect_nothing_more(&mut upstream);
        });
        let response = client.response();
        assert_eq!(response.status, 403);
        assert!(response.body == body, "the body is not what was sent");
    });
    assert_eq!(gate.record().number("status"), 403);
}

#[test]
fn a_large_answer_with_a_length_is_relayed_whole() {
    let Asked { gate: _gate, mut client, mut upstream } = ask("");
    let body = bytes(1, 4 * 1024 * 1024);
    let head = format!("HTTP/1.1 403 Forbidden\r\nContent-Length: {}\r\n\r\n", body.len());
    std::thread::scope(|scope| {
        let sent = &body;
        scope.spawn(move || {
            upstream.write_all(&[head.as_bytes(), sent].concat()).unwrap();
            expect_nothing_more(&mut upstream);
        });
        let response = client.response();
        assert!(response.body == body, "the body is not what was sent");
        client.expect_end();
    });
}

#[test]
fn nothing_behind_the_answer_reaches_the_client() {
    let Asked { gate: _gate, mut client, mut upstream } = ask("");
    let answer = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nnoHTTP/1.1 200 OK\r\n\r\n";
    upstream.write_all(answer).unwrap();
    assert_eq!(client.response().body, b"no");
    client.expect_end();
}

#[test]
fn an_upstream_that_leaves_without_an_answer_is_502() {
    for (name, said) in [("nothing", ""), ("half a head", "HTTP/1.1 101 Switching Pro")] {
        for by_reset in [false, true] {
            eprintln!("case: {name}, by reset: {by_reset}");
            let Asked { gate, mut client, mut upstream } = ask("");
            upstream.write_all(said.as_bytes()).unwrap();
            if by_reset {
                reset(upstream);
            } else {
                drop(upstream);
            }
            assert_eq!(client.response().status, 502);
            client.expect_end();
            assert_eq!(gate.record().number("status"), 502);
        }
    }
}

#[test]
fn a_response_head_that_makes_no_sense_is_502() {
    let heads = [
        ("another protocol", "SSH-2.0-OpenSSH_9.2\r\n\r\n"),
        ("no protocol", "\0\x01\x02\x03\r\n\r\n"),
        ("no status", "HTTP/1.1 \r\n\r\n"),
        ("a status of two digits", "HTTP/1.1 99 X\r\n\r\n"),
        ("a status of words", "HTTP/1.1 abc X\r\n\r\n"),
        ("a line that is no field", "HTTP/1.1 101 X\r\nwhat\r\n\r\n"),
        ("obs-fold", "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n"),
        ("two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
        ("a signed length", "HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\na"),
    ];
    for (name, head) in heads {
        eprintln!("case: {name}");
        let Asked { gate, mut client, mut upstream } = ask("");
        upstream.write_all(head.as_bytes()).unwrap();
        let response = client.response();
        assert_eq!(response.status, 502, "{name}: {}", response.head);
        client.expect_end();
        let record = gate.record();
        assert_eq!((record.number("status"), record.end()), (502, "bad_response"), "{name}");
    }
}

#[test]
fn an_upstream_that_cannot_begin_an_answer_is_502_at_once() {
    const INTERIM: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
    let words: [&[u8]; 20] = [
        b"S",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"220 mail.example ESMTP\r\n",
        b"{}",
        b"\0",
        b"\0\0\x12\x04\0\0\0\0\0",
        b"\x15\x03\x01\0\x02\x02\x0a",
        b"http/1.1 101 X",
        b"HTTP/2",
        b"HTTP/1.x",
        b"HTTP/1.2",
        b"HTTP/1.1\t",
        b"HTTP/1.1  101",
        b"HTTP/1.1 x",
        b"HTTP/1.1 99 ",
        b"HTTP/1.1 1010",
        b"HTTP/1.1 101\t",
        b" HTTP/1.1 101 X",
        b"\rX",
        b"\r\n\r\nSSH-2.0-OpenSSH_9.2\r\n",
    ];
    for driver in ["io_uring", "epoll"] {
        let backend = Upstream::listen();
        let config = stream_site(backend.address(), "early_data = true");
        let server = format!("driver = \"{driver}\"");
        let gate = Setup { config, server, ..Setup::default() }.start();
        let mut served = 0;
        for word in words {
            let behind_interim = [INTERIM, word].concat();
            let (first, last) = word.split_at(word.len() - 1);
            let cases =
                [vec![word], vec![first, last], vec![&behind_interim[..]], vec![INTERIM, word]];
            for parts in cases {
                let shown = word.escape_ascii();
                let mut client = HttpClient::connect(gate.address("web"));
                client.send([UPGRADE.as_bytes(), b"payload"].concat());
                let mut upstream = backend.accept();
                assert_eq!(read_until(&mut upstream, b"payload").len(), UPGRADE.len() + 7);
                // It says no more, and it does not end either.
                send_slowly(&mut upstream, &parts);
                let response = client.response();
                assert_eq!(response.status, 502, "{driver}, {shown}");
                client.expect_end();
                served += 1;
                let record = gate.records(served).pop().unwrap();
                assert_eq!(record.end(), "bad_response", "{driver}, {shown}");
            }
        }
    }
}

#[test]
fn empty_lines_before_an_answer_are_skipped() {
    let answer = ["\r\n\r\n", SWITCHING].concat();
    for cut in 1..24 {
        let Asked { gate: _gate, mut client, mut upstream } = ask("");
        let (first, second) = answer.as_bytes().split_at(cut);
        send_slowly(&mut upstream, &[first, second]);
        assert_eq!(client.response().head, SWITCHING, "cut at {cut}");
    }
}

#[test]
fn a_response_head_without_end_is_502() {
    let Asked { gate, mut client, mut upstream } = ask("");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            upstream.write_all(b"HTTP/1.1 101 Switching Protocols\r\n").unwrap();
            let field = format!("X: {}\r\n", "y".repeat(1000));
            while upstream.write_all(field.as_bytes()).is_ok() {}
        });
        assert_eq!(client.response().status, 502);
        client.expect_end();
    });
    assert_eq!(gate.record().end(), "bad_response");
}

#[test]
fn an_upstream_that_never_answers_is_504() {
    let Asked { gate, mut client, mut upstream } = ask("idle_timeout = \"300ms\"");
    let start = Instant::now();
    assert_eq!(client.response().status, 504);
    client.expect_end();
    expect_closed(&mut upstream);
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    let record = gate.record();
    assert_eq!((record.number("status"), record.end()), (504, "response_timeout"));
}

#[test]
fn a_refusing_upstream_is_502() {
    let refusing = free_port();
    let gate = Ringgate::start(&stream_site(refusing.address(), ""));
    let mut client = HttpClient::connect(gate.address("web"));
    client.send(UPGRADE);
    assert_eq!(client.response().status, 502);
    client.expect_end();
    let record = gate.record();
    assert_eq!((record.number("status"), record.end()), (502, "connect_failed"));
}

#[test]
fn an_upstream_that_drops_syns_is_504() {
    let blackhole = Blackhole::new();
    let endpoint = format!("\"{}\"", blackhole.address());
    let cluster = "connect_timeout = \"200ms\"\nconnect_attempts = 1";
    let gate = Ringgate::start(&site(&endpoint, "", "path = \"/stream\"", cluster));
    let mut client = HttpClient::connect(gate.address("web"));
    let start = Instant::now();
    client.send(UPGRADE);
    assert_eq!(client.response().status, 504);
    client.expect_end();
    let passed = start.elapsed();
    assert!(passed > Duration::from_millis(150), "after {passed:?}");
    assert!(passed < SOON, "after {passed:?}");
    let record = gate.record();
    assert_eq!((record.number("status"), record.end()), (504, "connect_timeout"));
}

#[test]
fn a_client_that_breaks_off_before_the_answer_ends_the_request() {
    for route in ["early_data = false", "early_data = true"] {
        let Asked { gate, client, mut upstream } = ask(route);
        reset(client.stream);
        expect_reset(&mut upstream);
        assert_eq!(gate.record().end(), "client_reset", "{route}");
    }
}

#[test]
fn a_client_that_breaks_off_behind_bytes_that_wait_ends_the_request() {
    let Asked { gate, mut client, mut upstream } = ask("early_data = false");
    client.send(bytes(1, 100_000));
    expect_silence(&mut upstream, Duration::from_millis(100));
    reset(client.stream);
    expect_reset(&mut upstream);
    assert_eq!(gate.record().end(), "client_reset");
}

#[test]
fn the_end_of_a_client_before_the_answer_is_passed_on() {
    for route in ["early_data = false", "early_data = true"] {
        let Asked { gate, client, mut upstream } = ask(route);
        client.stream.shutdown(std::net::Shutdown::Write).unwrap();
        expect_end(&mut upstream);
        drop(upstream);
        gate.record();
    }
}

#[test]
fn a_failed_upgrade_leaves_nothing_behind_for_the_next() {
    let backend = Upstream::listen();
    let gate = Ringgate::start(&stream_site(backend.address(), ""));
    for _ in 0..3 {
        let mut client = HttpClient::connect(gate.address("web"));
        client.send(UPGRADE);
        let mut upstream = backend.accept();
        read_until(&mut upstream, b"\r\n\r\n");
        upstream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").unwrap();
        assert_eq!(client.response().status, 403);
        // A connection that was asked to upgrade is never used again.
        let mut rest = Vec::new();
        upstream.set_read_timeout(Some(SHORT)).unwrap();
        upstream.read_to_end(&mut rest).unwrap_or_default();
        assert!(rest.is_empty(), "{:?}", String::from_utf8_lossy(&rest));
    }
    gate.records(3);
}

#[test]
fn heads_before_the_answer_count_towards_its_limit() {
    let interim = format!("HTTP/1.1 103 Early Hints\r\nLink: {}\r\n\r\n", "x".repeat(40_000));
    for (count, status) in [(1, 101), (2, 502)] {
        let Asked { gate, mut client, mut upstream } = ask("");
        // Too many end the connection, perhaps before this is written.
        let _ = upstream.write_all((interim.repeat(count) + SWITCHING).as_bytes());
        assert_eq!(client.response().status, status, "{count} before it");
        if status == 502 {
            assert_eq!(gate.record().end(), "bad_response");
        }
    }
}

#[test]
fn an_upstream_that_never_comes_to_the_point_is_a_502() {
    const INTERIM: &str = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n";
    for (count, status) in [(16, 101), (17, 502)] {
        for at_once in [true, false] {
            let Asked { gate, mut client, mut upstream } = ask("");
            let parts = vec![INTERIM.as_bytes(); count];
            if at_once {
                upstream.write_all(&parts.concat()).unwrap();
            } else {
                send_slowly(&mut upstream, &parts);
            }
            // Too many end the connection, perhaps before this is written.
            let written = upstream.write_all(SWITCHING.as_bytes());
            assert_eq!(client.response().status, status, "{count} before it");
            if status == 101 {
                written.unwrap();
                client.send("more");
                assert_eq!(read_until(&mut upstream, b"more"), b"more");
            } else {
                client.expect_end();
                expect_closed(&mut upstream);
                assert_eq!(gate.record().end(), "bad_response");
            }
        }
    }
}
