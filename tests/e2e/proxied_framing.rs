//! Bodies of proxied requests and answers, byte by byte: chunks, ends, versions, pipelines, interim
//! answers.

use std::time::Duration;

use crate::support::{
    HttpClient, Upstream, bytes, expect_silence, over_each_driver, proxied, read_until, send_slowly,
};

const GET: &str = "GET /a HTTP/1.1\r\nHost: own.test\r\n\r\n";
const OLD: &str = "GET /a HTTP/1.0\r\nHost: own.test\r\n\r\n";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

fn to(upstream: &Upstream) -> String {
    proxied(&format!("\"{}\"", upstream.address()), "", "", "")
}

#[test]
fn chunks_of_an_answer_arrive_in_canonical_form() {
    let upstream = Upstream::listen();
    let sent = [
        "0005;name=value;other=\"a;b\"\r\nhello\r\n",
        "A\r\n, world...\r\n0001; x\r\n!\r\n",
        "000;last\r\nX-Trailer: a\r\nContent-Length: 7\r\n\r\n",
    ];
    over_each_driver(&to(&upstream), |gate| {
        for is_slow in [false, true] {
            let mut client = HttpClient::connect(gate.address("web"));
            client.send(GET);
            let mut backend = upstream.backend();
            backend.request();
            let whole = format!("{CHUNKED}{}", sent.concat());
            if is_slow {
                let parts: Vec<_> = whole.as_bytes().chunks(7).collect();
                send_slowly(&mut backend.stream, &parts);
            } else {
                backend.send(whole);
            }
            let head = client.head_only();
            assert_eq!(head.field("transfer-encoding"), Some("chunked"), "{}", head.head);
            assert_eq!(head.field("content-length"), None, "{}", head.head);
            let mut all = Vec::new();
            while !all.ends_with(b"0\r\n\r\n") {
                let line = client.line();
                let size = usize::from_str_radix(&line, 16).unwrap();
                assert_eq!(format!("{size:x}"), line.to_lowercase(), "a chunk size");
                all.extend_from_slice(format!("{size:x}\r\n").as_bytes());
                all.extend_from_slice(&client.take(size + 2));
            }
            let text = String::from_utf8(all).unwrap();
            let data: String = text.split("\r\n").skip(1).step_by(2).collect();
            assert_eq!(data, "hello, world...!", "{text:?}");
            // The connections of both sides go on.
            client.send(GET);
            backend.request();
            backend.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\na");
            assert_eq!(client.response().body, b"a");
        }
    });
}

#[test]
fn chunks_of_a_request_arrive_in_canonical_form() {
    let upstream = Upstream::listen();
    let head = "POST /a HTTP/1.1\r\nHost: own.test\r\nTransfer-Encoding: chunked\r\n\
                Trailer: X-Trailer\r\n\r\n";
    let body = "000B;ext=\"v\"\r\nhello world\r\n1;a\r\n!\r\n0;end\r\n\
                X-Trailer: a\r\nTransfer-Encoding: gzip\r\n\r\n";
    over_each_driver(&to(&upstream), |gate| {
        let mut client = HttpClient::connect(gate.address("web"));
        let mut backend = None;
        for is_slow in [false, true] {
            let whole = format!("{head}{body}{GET}");
            if is_slow {
                let parts: Vec<_> = whole.as_bytes().chunks(5).collect();
                send_slowly(&mut client.stream, &parts);
            } else {
                client.send(whole);
            }
            let backend = backend.get_or_insert_with(|| upstream.backend());
            let request = backend.request();
            assert_eq!(request.field("trailer"), None, "{}", request.head);
            assert_eq!(String::from_utf8_lossy(&request.body), "hello world!");
            backend.answer("one");
            assert_eq!(client.response().body, b"one");
            assert_eq!(backend.request().asks(), "GET /a");
            backend.answer("two");
            assert_eq!(client.response().body, b"two");
        }
    });
}

#[test]
fn an_answer_that_ends_with_its_connection_becomes_chunks() {
    let upstream = Upstream::listen();
    over_each_driver(&to(&upstream), |gate| {
        let mut client = HttpClient::connect(gate.address("web"));
        for head in ["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.0 200 OK\r\n\r\n"] {
            for count in [0, 1, 500_000] {
                client.send(GET);
                let mut backend = upstream.backend();
                backend.request();
                backend.send(head);
                backend.send(bytes(1, count));
                drop(backend);
                let response = client.response();
                assert_eq!(response.field("transfer-encoding"), Some("chunked"));
                assert_eq!(response.field("connection"), None, "{}", response.head);
                assert!(response.body == bytes(1, count), "{count}: other bytes");
            }
        }
    });
}

#[test]
fn a_client_of_http_1_0_gets_no_chunks() {
    let upstream = Upstream::listen();
    over_each_driver(&to(&upstream), |gate| {
        for (answer, closes) in [
            (format!("{CHUNKED}3;x\r\nabc\r\n3\r\ndef\r\n0\r\nX: a\r\n\r\n"), false),
            ("HTTP/1.1 200 OK\r\n\r\nabcdef".to_owned(), true),
            ("HTTP/1.0 200 OK\r\n\r\nabcdef".to_owned(), true),
        ] {
            let mut client = HttpClient::connect(gate.address("web"));
            client.send(OLD.replacen("\r\n\r\n", "\r\nConnection: keep-alive\r\n\r\n", 1));
            let mut backend = upstream.backend();
            assert_eq!(backend.request().asks(), "GET /a");
            backend.send(&answer);
            if closes {
                drop(backend);
            } else {
                // Not used by the next round.
                backend.stream.shutdown(std::net::Shutdown::Write).unwrap();
            }
            let head = client.head_only();
            assert_eq!(head.field("transfer-encoding"), None, "{answer}: {}", head.head);
            assert_eq!(head.field("connection"), Some("close"), "{answer}: {}", head.head);
            assert_eq!(client.rest(), b"abcdef", "{answer}");
        }
    });
}

#[test]
fn a_client_of_http_1_0_keeps_its_connection_if_it_asks_for_that() {
    let upstream = Upstream::listen();
    over_each_driver(&to(&upstream), |gate| {
        let mut client = HttpClient::connect(gate.address("web"));
        let mut backend = None;
        for _ in 0..3 {
            client.send(OLD.replacen("\r\n\r\n", "\r\nConnection: keep-alive\r\n\r\n", 1));
            let backend = backend.get_or_insert_with(|| upstream.backend());
            backend.request();
            backend.answer("a");
            let response = client.response();
            assert_eq!(response.field("connection"), Some("keep-alive"), "{}", response.head);
        }
        client.send(OLD);
        let mut backend = backend.unwrap();
        backend.request();
        backend.answer("b");
        let response = client.response();
        assert_eq!((response.field("connection"), &*response.body), (Some("close"), &b"b"[..]));
        client.expect_end();
    });
}

#[test]
fn a_client_that_asks_for_it_gets_its_connection_closed() {
    let upstream = Upstream::listen();
    over_each_driver(&to(&upstream), |gate| {
        let mut client = HttpClient::connect(gate.address("web"));
        client.send(GET.replacen("\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1));
        let mut backend = upstream.backend();
        assert_eq!(backend.request().field("connection"), None);
        backend.answer("a");
        assert_eq!(client.response().field("connection"), Some("close"));
        client.expect_end();
        // That is between the client and ringgate.
        let mut client = HttpClient::connect(gate.address("web"));
        client.send(GET);
        backend.request();
        backend.answer("b");
        assert_eq!(client.response().body, b"b");
    });
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let upstream = Upstream::listen();
    let post = "POST /post HTTP/1.1\r\nHost: own.test\r\nContent-Length: 4\r\n\r\nbody";
    let chunked = "PUT /put HTTP/1.1\r\nHost: own.test\r\nTransfer-Encoding: chunked\r\n\r\n\
                   3\r\nput\r\n0\r\n\r\n";
    let moved = "GET /moved HTTP/1.1\r\nHost: own.test\r\n\r\n";
    let all = [GET, post, moved, chunked, GET, moved, moved, post, chunked, moved, GET];
    over_each_driver(&to(&upstream), |gate| {
        for is_slow in [false, true] {
            let mut client = HttpClient::connect(gate.address("web"));
            let whole = all.concat();
            if is_slow {
                let parts: Vec<_> = whole.as_bytes().chunks(29).collect();
                send_slowly(&mut client.stream, &parts);
            } else {
                client.send(whole);
            }
            let mut backend = None;
            for (number, request) in all.iter().enumerate() {
                if *request == moved {
                    assert_eq!(client.response().status, 301, "{number}");
                    continue;
                }
                let backend = backend.get_or_insert_with(|| upstream.backend());
                let arrived = backend.request();
                assert!(request.starts_with(arrived.asks()), "{number}: {}", arrived.head);
                let body = match arrived.asks() {
                    "POST /post" => "body",
                    "PUT /put" => "put",
                    _ => "",
                };
                assert_eq!(arrived.body, body.as_bytes(), "{number}");
                backend.answer(&format!("{number}"));
                assert_eq!(client.response().body, format!("{number}").as_bytes());
            }
            client.stream.shutdown(std::net::Shutdown::Write).unwrap();
            client.expect_end();
            // Not used by the next round.
            drop(backend);
        }
    });
}

#[test]
fn what_follows_a_chunked_request_survives_the_failure_of_its_exchange() {
    let upstream = Upstream::listen();
    let chunked = "PUT /put HTTP/1.1\r\nHost: own.test\r\nTransfer-Encoding: chunked\r\n\r\n\
                   3\r\nput\r\n0\r\n\r\n";
    over_each_driver(&to(&upstream), |gate| {
        for cut in [0, 10, GET.len()] {
            let mut client = HttpClient::connect(gate.address("web"));
            client.send(format!("{chunked}{}", &GET[..cut]));
            let mut backend = upstream.backend();
            assert_eq!(backend.request().body, b"put");
            drop(backend);
            let response = client.response();
            assert_eq!(response.status, 502);
            if response.field("connection") == Some("close") {
                client.expect_end();
                continue;
            }
            client.send(&GET[cut..]);
            let mut backend = upstream.backend();
            assert_eq!(backend.request().asks(), "GET /a", "cut at {cut}");
            backend.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\na");
            assert_eq!(client.response().body, b"a");
        }
    });
}

#[test]
fn interim_answers_are_passed_on_but_not_to_http_1_0() {
    let upstream = Upstream::listen();
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n";
    over_each_driver(&to(&upstream), |gate| {
        let mut client = HttpClient::connect(gate.address("web"));
        client.send(GET);
        let mut backend = upstream.backend();
        backend.request();
        for _ in 0..2 {
            // It comes at once: nothing waits for the final answer.
            backend.send(hints);
            let interim = client.head_only();
            assert_eq!(interim.status, 103);
            assert_eq!(interim.field("link"), Some("</a.css>; rel=preload"));
            assert_eq!(interim.field("date"), None, "{}", interim.head);
        }
        // A 100 that no request waits for is dropped, 102 is not.
        backend.send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n");
        assert_eq!(client.head_only().status, 102);
        backend.answer("a");
        assert_eq!(client.response().body, b"a");

        let mut client = HttpClient::connect(gate.address("web"));
        client.send(OLD);
        backend.request();
        backend.send(hints);
        backend.answer("b");
        assert_eq!(client.response().body, b"b");
    });
}

const EXPECTING: &str = "POST /a HTTP/1.1\r\nHost: own.test\r\nExpect: 100-continue\r\n";

#[test]
fn a_client_that_waits_gets_the_100_of_the_backend() {
    let upstream = Upstream::listen();
    over_each_driver(&to(&upstream), |gate| {
        for (framing, body) in [
            ("Content-Length: 4\r\n", "body"),
            ("Transfer-Encoding: chunked\r\n", "4\r\nbody\r\n0\r\n\r\n"),
        ] {
            let mut client = HttpClient::connect(gate.address("web"));
            client.send(format!("{EXPECTING}{framing}\r\n"));
            let mut backend = upstream.backend();
            let head = backend.head();
            assert_eq!(head.field("expect"), Some("100-continue"), "{}", head.head);
            expect_silence(&mut client.stream, Duration::from_millis(200));
            backend.send("HTTP/1.1 100 Continue\r\n\r\n");
            assert_eq!(client.head_only().head, "HTTP/1.1 100 Continue\r\n\r\n");
            client.send(body);
            let arrived = match head.field("content-length") {
                Some(_) => backend.take(4),
                None => backend.chunks(),
            };
            assert_eq!(arrived, b"body");
            backend.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\na");
            assert_eq!(client.response().body, b"a");
        }
    });
}

#[test]
fn a_client_that_waits_gets_a_refusal_at_once_and_its_connection_is_closed() {
    let upstream = Upstream::listen();
    over_each_driver(&to(&upstream), |gate| {
        for status in ["417 Expectation Failed", "413 Content Too Large"] {
            let mut client = HttpClient::connect(gate.address("web"));
            client.send(format!("{EXPECTING}Content-Length: 5000000\r\n\r\n"));
            let mut backend = upstream.backend();
            backend.head();
            backend.send(format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nno"));
            let response = client.response();
            assert_eq!(response.status.to_string(), status[..3]);
            assert_eq!(response.body, b"no");
            // The body may come or not: what comes next would be ambiguous.
            assert_eq!(response.field("connection"), Some("close"), "{}", response.head);
            client.send(GET);
            client.expect_end();
            // The backend may not wait for the body of this request, and gets no other one.
            assert_eq!(backend.rest(), b"");
        }
    });
}

#[test]
fn an_expectation_that_is_unknown_is_a_417_and_reaches_no_backend() {
    let upstream = Upstream::listen();
    over_each_driver(&to(&upstream), |gate| {
        let mut client = HttpClient::connect(gate.address("web"));
        client.send(format!(
            "{}Content-Length: 4\r\n\r\nbody",
            EXPECTING.replacen("100-continue", "something", 1)
        ));
        assert_eq!(client.response().status, 417);
        client.expect_end();
        assert!(upstream.try_accept().is_none());
    });
}

#[test]
fn an_early_answer_is_passed_on_while_the_body_is_still_coming() {
    let upstream = Upstream::listen();
    over_each_driver(&to(&upstream), |gate| {
        for framing in ["Content-Length: 100000", "Transfer-Encoding: chunked"] {
            let mut client = HttpClient::connect(gate.address("web"));
            client.send(format!("POST /a HTTP/1.1\r\nHost: own.test\r\n{framing}\r\n\r\n"));
            let (piece, left) = match framing {
                "Content-Length: 100000" => ("x".repeat(50_000), "x".repeat(50_000)),
                _ => ("5\r\nhello\r\n".to_owned(), "0\r\n\r\n".to_owned()),
            };
            client.send(piece);
            let mut backend = upstream.backend();
            backend.head();
            backend.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
            let response = client.response();
            assert_eq!((response.status, &*response.body), (403, &b"no"[..]), "{framing}");
            let mut all = left.into_bytes();
            all.extend_from_slice(GET.as_bytes());
            client.send(all);
            // Either the rest of the body is dropped and the next request served, or this ends.
            if response.field("connection") == Some("close") {
                client.expect_end();
            } else {
                let mut next = upstream.backend();
                assert_eq!(next.request().asks(), "GET /a", "{framing}");
                next.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\na");
                assert_eq!(client.response().body, b"a");
            }
            // The connection with half a request is not used for another.
            drop(backend.rest());
        }
    });
}

/// What is left of the body is read and dropped up to 256 KiB.
#[test]
fn an_early_answer_announces_the_close_if_the_rest_of_the_body_is_not_read() {
    let upstream = Upstream::listen();
    over_each_driver(&to(&upstream), |gate| {
        for (length, has_close) in [(200_000, false), (10_000_000, true)] {
            let mut client = HttpClient::connect(gate.address("web"));
            client.send(format!(
                "POST /a HTTP/1.1\r\nHost: own.test\r\nContent-Length: {length}\r\n\r\nbody"
            ));
            let mut backend = upstream.backend();
            backend.head();
            backend.take(4);
            backend.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno");
            let response = client.response();
            let close = has_close.then_some("close");
            assert_eq!(response.field("connection"), close, "{length}: {}", response.head);
        }
    });
}

/// Of a body that has nearly arrived the rest is read, however long it was.
#[test]
fn an_early_answer_to_a_long_body_that_is_nearly_over_keeps_the_connection() {
    let upstream = Upstream::listen();
    over_each_driver(&to(&upstream), |gate| {
        let mut client = HttpClient::connect(gate.address("web"));
        client.send("POST /a HTTP/1.1\r\nHost: own.test\r\nContent-Length: 400000\r\n\r\n");
        let mut backend = upstream.backend();
        backend.head();
        client.send("x".repeat(300_000));
        backend.take(300_000);
        backend.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno");
        let response = client.response();
        assert_eq!(response.field("connection"), None, "{}", response.head);
        client.send("x".repeat(100_000) + &GET.replacen("/a", "/b", 1));
        let mut next = upstream.backend();
        assert_eq!(next.request().asks(), "GET /b");
        next.answer("b");
        assert_eq!(client.response().body, b"b");
    });
}

#[test]
fn an_answer_is_passed_on_while_it_comes_and_beside_the_body_of_its_request() {
    let upstream = Upstream::listen();
    over_each_driver(&to(&upstream), |gate| {
        let mut client = HttpClient::connect(gate.address("web"));
        client.send(
            "POST /a HTTP/1.1\r\nHost: own.test\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n",
        );
        let mut backend = upstream.backend();
        backend.head();
        assert_eq!(backend.chunk().as_deref(), Some(&b"a"[..]));
        backend.send(CHUNKED);
        read_until(&mut client.stream, b"\r\n\r\n");
        for letter in ["b", "c", "d"] {
            client.send(format!("1\r\n{letter}\r\n"));
            assert_eq!(backend.chunk().as_deref(), Some(letter.as_bytes()));
            backend.send(format!("1;x\r\n{letter}\r\n"));
            client.expect_bytes(format!("1\r\n{letter}\r\n").as_bytes());
        }
        client.send("0\r\n\r\n");
        assert_eq!(backend.chunk(), None);
        backend.send("0\r\n\r\n");
        client.expect_bytes(b"0\r\n\r\n");
        // Its head has said so, because the end of the chunks was not known then.
        client.expect_end();
    });
}
