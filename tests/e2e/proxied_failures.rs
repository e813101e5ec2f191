//! What clients get when backends, or other clients, fail in the middle of something.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{
    Authority, Blackhole, HttpClient, LONG, Ringgate, SHORT, SOON, TlsClient, Upstream, VERSIONS,
    bytes, expect_reset, expect_silence, free_port, jam, over_each_driver, proxied, reset,
    slow_reader, tls_settings, wait_for,
};

const GET: &str = "GET /a HTTP/1.1\r\nHost: own.test\r\n\r\n";
const MIB: usize = 1024 * 1024;

fn to(upstream: &Upstream, route: &str) -> String {
    proxied(&format!("\"{}\"", upstream.address()), "", route, "")
}

/// A POST with this framing and without a body.
fn post(framing: &str) -> String {
    format!("POST /a HTTP/1.1\r\nHost: own.test\r\n{framing}\r\n\r\n")
}

#[test]
fn a_backend_that_dies_in_the_middle_of_a_body_is_not_a_clean_end() {
    let upstream = Upstream::listen();
    over_each_driver(&to(&upstream, ""), |gate| {
        for (number, framing) in
            ["Content-Length: 100000", "Transfer-Encoding: chunked"].into_iter().enumerate()
        {
            for is_reset in [false, true] {
                let mut client = HttpClient::connect(gate.address("web"));
                client.send(GET);
                let mut backend = upstream.backend();
                backend.request();
                let data = "x".repeat(20_000);
                let begun = if number == 0 { data } else { format!("4e20\r\n{data}\r\n") };
                backend.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n{begun}"));
                client.head_only();
                client.take(begun.len());
                if is_reset {
                    reset(backend.stream)
                } else {
                    drop(backend)
                }
                expect_reset(&mut client.stream);
                let records = gate.records_where(2 * number + usize::from(is_reset) + 1, |_| true);
                let record = records.last().unwrap();
                let end = if is_reset { "upstream_reset" } else { "upstream" };
                assert_eq!((record.end(), record.number("status")), (end, 200), "{record:?}");
            }
        }
    });
}

#[test]
fn a_reset_backend_is_not_the_end_of_a_body_that_ends_with_its_connection() {
    let upstream = Upstream::listen();
    over_each_driver(&to(&upstream, ""), |gate| {
        for version in ["1.0", "1.1"] {
            let mut client = HttpClient::connect(gate.address("web"));
            client.send(GET.replacen("1.1", version, 1));
            let mut backend = upstream.backend();
            backend.request();
            backend.send("HTTP/1.1 200 OK\r\n\r\nhello");
            client.head_only();
            // The end of a chunk comes with the next one.
            let begun: &[u8] = if version == "1.0" { b"hello" } else { b"5\r\nhello" };
            client.expect_bytes(begun);
            reset(backend.stream);
            expect_reset(&mut client.stream);
        }
    });
}

#[test]
fn over_tls_a_broken_body_ends_without_a_close_notify() {
    let authority = Authority::new("authority");
    let rule = authority.signs(&["site.test"]).rule(&[], "");
    let upstream = Upstream::listen();
    let config = proxied(&format!("\"{}\"", upstream.address()), &rule, "", "");
    let settings = tls_settings(&authority, VERSIONS[1]).into();
    over_each_driver(&config, |gate| {
        for framing in ["Content-Length: 10", "Transfer-Encoding: chunked"] {
            let client = TlsClient::connect(gate.address("web"), &settings, "site.test");
            let mut client = HttpClient::over(client);
            client.send(GET);
            let mut backend = upstream.backend();
            backend.request();
            backend.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n5\r\n"));
            client.head_only();
            drop(backend);
            let mut rest = Vec::new();
            let error = client.stream.read_to_end(&mut rest).expect_err(framing);
            let kinds = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset];
            assert!(kinds.contains(&error.kind()), "{error}");
        }
    });
}

#[test]
fn malformed_chunks_of_a_backend_break_the_body() {
    let upstream = Upstream::listen();
    over_each_driver(&to(&upstream, ""), |gate| {
        for (number, chunk) in ["x\r\n", "5\r\nhelloX", "-1\r\n", "5 \r\nhello\r\n", "5\nhello\r\n"]
            .into_iter()
            .enumerate()
        {
            let mut client = HttpClient::connect(gate.address("web"));
            client.send(GET);
            let mut backend = upstream.backend();
            backend.request();
            backend.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
            client.head_only();
            client.expect_bytes(b"3\r\nabc\r\n");
            backend.send(chunk);
            let mut rest = Vec::new();
            let read = client.stream.read_to_end(&mut rest);
            assert!(read.is_err(), "{chunk:?}: {}", rest.escape_ascii());
            let records = gate.records(number + 1);
            assert_eq!(records[number].end(), "bad_response", "{chunk:?}");
        }
    });
}

#[test]
fn an_endpoint_that_refuses_is_passed_over() {
    let (refusing, upstream) = (free_port(), Upstream::listen());
    let endpoints = format!("\"{}\", \"{}\"", refusing.address(), upstream.address());
    over_each_driver(&proxied(&endpoints, "", "", ""), |gate| {
        for number in 1..=4 {
            let mut client = HttpClient::connect(gate.address("web"));
            client.send(format!("{}body", post("Content-Length: 4")));
            let mut backend = upstream.backend();
            assert_eq!(backend.request().body, b"body");
            backend.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\na");
            assert_eq!(client.response().body, b"a");
            gate.records(number);
        }
        let records = gate.records(4);
        let failed: Vec<_> = records.iter().filter(|one| one.number("attempts") > 1).collect();
        assert!(!failed.is_empty(), "{records:#?}");
        assert_eq!(failed[0].list("failed_endpoints"), [refusing.address().to_string()]);
        assert_eq!(failed[0].text("endpoint"), upstream.address().to_string());
    });
}

#[test]
fn without_an_endpoint_the_answer_is_a_502_and_a_client_goes_on() {
    let endpoints = format!("\"{}\", \"{}\"", free_port().address(), free_port().address());
    over_each_driver(&proxied(&endpoints, "", "", ""), |gate| {
        let mut client = HttpClient::connect(gate.address("web"));
        for _ in 0..3 {
            client.send(GET);
            let response = client.response();
            assert!(matches!(response.status, 502 | 503), "{}", response.head);
        }
        client.send(GET.replacen("/a", "/moved", 1));
        assert_eq!(client.response().status, 301);
        let records = gate.records(4);
        assert_eq!(records[0].end(), "connect_failed");
        assert_eq!(records[0].list("failed_endpoints").len(), 2, "{:?}", records[0]);
    });
}

#[test]
fn an_endpoint_that_does_not_accept_is_a_504() {
    let hole = Blackhole::new();
    let cluster = "connect_timeout = \"300ms\"";
    over_each_driver(&proxied(&format!("\"{}\"", hole.address()), "", "", cluster), |gate| {
        let mut client = HttpClient::connect(gate.address("web"));
        client.send(GET);
        let response = client.response();
        assert_eq!(response.status, 504, "{}", response.head);
        assert_eq!(gate.record().end(), "connect_timeout");
    });
}

#[test]
fn a_silent_backend_is_a_504_after_the_time_of_the_route() {
    let upstream = Upstream::listen();
    over_each_driver(&to(&upstream, "timeout = \"500ms\""), |gate| {
        let with_body = format!("{}body", post("Content-Length: 4"));
        let chunked = format!("{}4\r\nbody\r\n0\r\n\r\n", post("Transfer-Encoding: chunked"));
        for (number, request) in [GET, &with_body, &chunked].into_iter().enumerate() {
            let start = Instant::now();
            let mut client = HttpClient::connect(gate.address("web"));
            client.send(request);
            let mut backend = upstream.backend();
            backend.request();
            // Half a head is none.
            backend.send("HTTP/1.1 200 OK\r\n");
            let response = client.response();
            assert_eq!(response.status, 504, "{request}: {}", response.head);
            assert!(start.elapsed() > Duration::from_millis(450), "{:?}", start.elapsed());
            assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
            backend.expect_end();
            let records = gate.records(number + 1);
            assert_eq!(records[number].end(), "response_timeout", "{:?}", records[number]);
        }
    });
}

#[test]
fn a_backend_that_does_not_read_the_body_is_a_504_too() {
    let upstream = Upstream::listen();
    // Longer than the client takes to fill all buffers: after the 504 it would be read again.
    over_each_driver(&to(&upstream, "timeout = \"3s\""), |gate| {
        let mut client = HttpClient::connect(gate.address("web"));
        client.send(post(&format!("Content-Length: {}", 1u64 << 40)));
        let _backend = upstream.accept();
        jam(&mut client.stream);
        // The client is not to blame: it would go on sending.
        let status = {
            let mut part = [0; 12];
            client.stream.read_exact(&mut part).unwrap();
            String::from_utf8_lossy(&part[9..]).into_owned()
        };
        assert_eq!(status, "504", "{:?}", gate.record());
    });
}

#[test]
fn a_client_whose_body_does_not_come_gets_a_408() {
    let upstream = Upstream::listen();
    over_each_driver(&to(&upstream, "timeout = \"500ms\""), |gate| {
        for framing in ["Content-Length: 10", "Transfer-Encoding: chunked"] {
            let mut client = HttpClient::connect(gate.address("web"));
            client.send(format!("{}5\r\nhe", post(framing)));
            let mut backend = upstream.backend();
            backend.head();
            let response = client.response();
            assert_eq!(response.status, 408, "{framing}: {}", response.head);
            client.expect_end();
            // The backend must not take a part for the whole.
            let rest = backend.rest();
            assert!(!rest.ends_with(b"0\r\n\r\n"), "{}", rest.escape_ascii());
        }
        for record in gate.records(2) {
            assert_eq!((record.number("status"), record.text("reason")), (408, "slow_body"));
            assert_eq!(record.end(), "body_timeout");
        }
    });
}

#[test]
fn a_body_that_comes_slowly_but_comes_is_waited_for() {
    let upstream = Upstream::listen();
    over_each_driver(&to(&upstream, "timeout = \"1s\"\nidle_timeout = \"1s\""), |gate| {
        let mut client = HttpClient::connect(gate.address("web"));
        client.send(post("Content-Length: 8"));
        let mut backend = upstream.backend();
        backend.head();
        for _ in 0..8 {
            expect_silence(&mut client.stream, Duration::from_millis(300));
            client.send("x");
            backend.take(1);
        }
        backend.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n");
        client.head_only();
        for _ in 0..8 {
            expect_silence(&mut client.stream, Duration::from_millis(300));
            backend.send("y");
            client.expect_bytes(b"y");
        }
        assert_eq!(gate.record().end(), "done");
    });
}

#[test]
fn a_backend_that_pauses_too_long_in_its_body_breaks_it() {
    let upstream = Upstream::listen();
    over_each_driver(&to(&upstream, "idle_timeout = \"500ms\""), |gate| {
        let mut client = HttpClient::connect(gate.address("web"));
        client.send(GET);
        let mut backend = upstream.backend();
        backend.request();
        backend.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf");
        client.head_only();
        client.expect_bytes(b"half");
        expect_reset(&mut client.stream);
        assert_eq!(gate.record().end(), "idle");
    });
}

#[test]
fn a_client_that_leaves_ends_what_it_has_asked_for() {
    let upstream = Upstream::listen();
    over_each_driver(&to(&upstream, ""), |gate| {
        // In the middle of its body: the part is not the whole.
        for framing in ["Content-Length: 10", "Transfer-Encoding: chunked"] {
            for way in ["close", "shutdown", "reset"] {
                let mut client = HttpClient::connect(gate.address("web"));
                client.send(format!("{}5\r\nhe", post(framing)));
                let mut backend = upstream.backend();
                let head = backend.head();
                backend.take(5);
                match way {
                    "close" => drop(client),
                    "reset" => reset(client.stream),
                    _ => client.stream.shutdown(Shutdown::Write).unwrap(),
                }
                let rest = backend.rest();
                assert!(!rest.ends_with(b"0\r\n\r\n"), "{way}: {} {head:?}", rest.escape_ascii());
            }
        }
        // In the middle of a long answer, and while it waits for one.
        for has_begun in [true, false] {
            let mut client = HttpClient::connect(gate.address("web"));
            client.send(GET);
            let mut backend = upstream.backend();
            backend.request();
            if has_begun {
                backend.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 1u64 << 40));
                client.head_only();
            }
            reset(client.stream);
            backend.stream.set_write_timeout(Some(LONG)).unwrap();
            wait_for("the backend's connection is over", SHORT, || {
                if has_begun {
                    backend.stream.write_all(&[0; 64 * 1024]).is_err().then_some(())
                } else {
                    backend.rest().is_empty().then_some(())
                }
            });
        }
        let records = gate.records(8);
        let ends: Vec<_> = records.iter().map(|record| record.end()).collect();
        assert!(ends.iter().all(|end| matches!(*end, "client" | "client_reset")), "{ends:?}");
    });
}

#[test]
fn a_client_that_ends_its_side_still_gets_its_answer() {
    let upstream = Upstream::listen();
    over_each_driver(&to(&upstream, ""), |gate| {
        let mut client = HttpClient::connect(gate.address("web"));
        client.send(GET);
        client.stream.shutdown(Shutdown::Write).unwrap();
        let mut backend = upstream.backend();
        backend.request();
        backend.answer("answer");
        assert_eq!(client.response().body, b"answer");
        client.expect_end();
        assert_eq!(gate.record().end(), "done");
    });
}

#[test]
fn a_client_that_ends_its_side_while_its_backend_is_silent_has_left() {
    let upstream = Upstream::listen();
    over_each_driver(&to(&upstream, ""), |gate| {
        for has_begun in [false, true] {
            let mut client = HttpClient::connect(gate.address("web"));
            client.send(GET);
            let mut backend = upstream.backend();
            backend.request();
            if has_begun {
                backend.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf");
                client.head_only();
                client.expect_bytes(b"half");
            }
            client.stream.shutdown(Shutdown::Write).unwrap();
            // `timeout` and `idle_timeout` are a minute.
            expect_reset(&mut client.stream);
            assert_eq!(backend.rest(), b"");
        }
        for record in gate.records(2) {
            assert_eq!((record.end(), record.text("cluster")), ("client", "app"), "{record:?}");
        }
    });
}

#[test]
fn a_slow_reader_loses_nothing() {
    let upstream = Upstream::listen();
    over_each_driver(&to(&upstream, ""), |gate| {
        for framing in ["length", "chunks"] {
            let content = bytes(5, 4 * MIB);
            let mut client = HttpClient::over(slow_reader(gate.address("web")));
            client.send(GET.replacen("\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1));
            let mut backend = upstream.backend();
            backend.request();
            if framing == "length" {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", content.len());
                backend.send(head);
                backend.send(&content);
            } else {
                backend.send("HTTP/1.1 200 OK\r\n\r\n");
                backend.send(&content);
            }
            // All of it is on its way when the backend goes.
            drop(backend);
            assert!(client.response().body == content, "{framing}: other bytes");
            client.expect_end();
        }
    });
}

#[test]
fn an_exchange_that_runs_when_a_drain_begins_ends_whole() {
    let upstream = Upstream::listen();
    over_each_driver(&to(&upstream, ""), |mut gate| {
        let start = |gate: &Ringgate| {
            let mut client = HttpClient::connect(gate.address("web"));
            client.send(GET);
            let mut backend = upstream.backend();
            backend.request();
            (client, backend)
        };
        let (mut waiting, mut slow) = start(&gate);
        let (mut reading, mut half) = start(&gate);
        let (mut idle, mut done) = start(&gate);
        done.answer("done");
        idle.response();
        half.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 2 * MIB));
        reading.head_only();

        gate.signal(Signal::TERM);
        gate.line_with("SIGTERM");
        // A connection between two requests ends at once, and so do those that nothing uses.
        idle.expect_end();
        done.expect_end();
        slow.answer("slow");
        let response = waiting.response();
        assert_eq!((response.field("connection"), &*response.body), (Some("close"), &b"slow"[..]));
        waiting.expect_end();
        let content = bytes(1, 2 * MIB);
        half.send(&content);
        assert!(reading.take(content.len()) == content, "other bytes");
        drop((waiting, idle, reading));
        assert_eq!(gate.wait_exit(SHORT).code(), Some(0));
        assert!(gate.records(3).iter().all(|record| record.end() == "done"));
    });
}
