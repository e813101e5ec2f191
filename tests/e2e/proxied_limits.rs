//! Requests and answers that are refused: too large, malformed, ambiguous.

use crate::support::{HttpClient, Upstream, bytes, over_each_driver, proxied};

const GET: &str = "GET /a HTTP/1.1\r\nHost: own.test\r\n\r\n";

fn to(upstream: &Upstream, route: &str) -> String {
    proxied(&format!("\"{}\"", upstream.address()), "", route, "")
}

fn post(framing: &str) -> String {
    format!("POST /a HTTP/1.1\r\nHost: own.test\r\n{framing}\r\n\r\n")
}

#[test]
fn a_body_that_announces_too_much_is_a_413_and_reaches_no_backend() {
    let upstream = Upstream::listen();
    over_each_driver(&to(&upstream, "max_body = \"1KiB\""), |gate| {
        for framing in ["Content-Length: 1025", "Content-Length: 1025\r\nExpect: 100-continue"] {
            let mut client = HttpClient::connect(gate.address("web"));
            client.send(post(framing));
            let response = client.response();
            assert_eq!(response.status, 413, "{}", response.head);
            assert_eq!(response.field("connection"), Some("close"), "{}", response.head);
            client.expect_end();
        }
        assert!(upstream.try_accept().is_none(), "something reached the backend");
        for record in gate.records(2) {
            assert_eq!((record.end(), record.text("reason")), ("bad_request", "body_too_large"));
            assert!(!record.text("route").is_empty() && !record.text("cluster").is_empty());
        }
    });
}

#[test]
fn a_body_of_just_the_allowed_length_is_passed_on() {
    let upstream = Upstream::listen();
    over_each_driver(&to(&upstream, "max_body = \"1KiB\""), |gate| {
        let mut client = HttpClient::connect(gate.address("web"));
        let mut backend = None;
        let body = bytes(1, 1024);
        for framing in ["Content-Length: 1024", "Transfer-Encoding: chunked"] {
            client.send(post(framing));
            if framing.starts_with('C') {
                client.send(&body);
            } else {
                for part in body.chunks(100) {
                    client.send(format!("{:x}\r\n", part.len()));
                    client.send(part);
                    client.send("\r\n");
                }
                client.send("0\r\n\r\n");
            }
            let backend = backend.get_or_insert_with(|| upstream.backend());
            assert!(backend.request().body == body, "{framing}: other bytes");
            backend.answer("a");
            assert_eq!(client.response().body, b"a");
        }
    });
}

#[test]
fn chunks_are_counted_and_too_many_are_a_413() {
    let upstream = Upstream::listen();
    over_each_driver(&to(&upstream, "max_body = \"1KiB\""), |gate| {
        let single = format!("401\r\n{}\r\n0\r\n\r\n", "x".repeat(1025));
        let many = "1\r\nx\r\n".repeat(1025);
        let announced = "fffffffffff\r\nxxx";
        let bodies: [&str; 3] = [&single, &many, announced];
        for (number, body) in bodies.into_iter().enumerate() {
            let mut client = HttpClient::connect(gate.address("web"));
            client.send(format!("{}{body}", post("Transfer-Encoding: chunked")));
            let mut backend = upstream.backend();
            let response = client.response();
            assert_eq!(response.status, 413, "{number}: {}", response.head);
            client.expect_end();
            let rest = backend.rest();
            assert!(!rest.ends_with(b"0\r\n\r\n"), "{number}: a part was given as the whole");
            let record = gate.records(number + 1).remove(number);
            assert_eq!((record.number("status"), record.text("reason")), (413, "body_too_large"));
        }
    });
}

#[test]
fn malformed_chunks_of_a_client_are_a_400() {
    let upstream = Upstream::listen();
    over_each_driver(&to(&upstream, ""), |gate| {
        for (number, chunk) in [
            "x\r\n",
            "5\r\nhelloX",
            "5\r\nhello\n",
            "-1\r\n",
            "+1\r\na\r\n",
            "0x1\r\na\r\n",
            "5 \r\nhello\r\n",
            " 5\r\nhello\r\n",
            "5\nhello\r\n",
            "5;\nhello\r\n",
            "\r\n5\r\nhello\r\n",
            "ffffffffffffffffff\r\n",
            "0\r\nA: b\n\r\n",
        ]
        .into_iter()
        .enumerate()
        {
            let mut client = HttpClient::connect(gate.address("web"));
            client.send(format!("{}3\r\nabc\r\n{chunk}", post("Transfer-Encoding: chunked")));
            let mut backend = upstream.backend();
            let response = client.response();
            assert_eq!(response.status, 400, "{chunk:?}: {}", response.head);
            client.expect_end();
            let rest = backend.rest();
            assert!(!rest.ends_with(b"0\r\n\r\n"), "{chunk:?}: {}", rest.escape_ascii());
            let record = gate.records(number + 1).remove(number);
            assert_eq!((record.number("status"), record.end()), (400, "bad_request"), "{chunk:?}");
            assert_eq!(record.text("reason"), "bad_chunks", "{record:?}");
        }
    });
}

#[test]
fn malformed_answers_are_a_502() {
    let upstream = Upstream::listen();
    let large = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(70_000));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(2000));
    let cases = [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\
         Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\
         Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\
         Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nA: b\r\n folded\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok",
        "HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        "HTTP/1.1 200 OK\r\nA: b\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nA: b\rc\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nA: b\0c\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nno colon\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\n: b\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 99 Low\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        "HTTP/1.1 100 Continue\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "SSH-2.0-OpenSSH_9.2\r\n",
        &large,
        &many,
    ];
    over_each_driver(&to(&upstream, ""), |gate| {
        for (number, answer) in cases.into_iter().enumerate() {
            let shown = &answer[..answer.len().min(100)];
            let mut client = HttpClient::connect(gate.address("web"));
            client.send(GET);
            let mut backend = upstream.backend();
            backend.request();
            // Ringgate may have closed already.
            let _ = std::io::Write::write_all(&mut backend.stream, answer.as_bytes());
            let response = client.response();
            assert_eq!(response.status, 502, "{shown:?}: {}", response.head);
            assert!(!response.body.ends_with(b"ok"), "{shown:?}");
            assert_eq!(backend.rest(), b"", "{shown:?}");
            let record = gate.records(number + 1).remove(number);
            assert_eq!((record.end(), record.number("status")), ("bad_response", 502), "{shown:?}");
        }
    });
}

#[test]
fn the_same_length_twice_is_one_length() {
    let upstream = Upstream::listen();
    over_each_driver(&to(&upstream, ""), |gate| {
        let mut client = HttpClient::connect(gate.address("web"));
        client.send(GET);
        let mut backend = upstream.backend();
        backend.request();
        backend.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok");
        let response = client.response();
        match response.status {
            200 => assert_eq!(response.fields("content-length").count(), 1, "{}", response.head),
            status => assert_eq!(status, 502),
        }
    });
}

#[test]
fn answers_without_bodies_have_none_whatever_they_announce() {
    let upstream = Upstream::listen();
    over_each_driver(&to(&upstream, ""), |gate| {
        let mut client = HttpClient::connect(gate.address("web"));
        let mut backend = None;
        let head = GET.replacen("GET", "HEAD", 1);
        for (request, answer, length) in [
            (
                GET,
                "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: \"a\"\r\n\r\n",
                Some("5"),
            ),
            (GET, "HTTP/1.1 204 No Content\r\n\r\n", None),
            (&head, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Some("5")),
            (&head, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", None),
            (&head, "HTTP/1.1 200 OK\r\n\r\n", None),
        ] {
            client.send(request);
            let backend = backend.get_or_insert_with(|| upstream.backend());
            backend.request();
            backend.send(answer);
            let response = client.head_only();
            assert_eq!(response.field("content-length"), length, "{}", response.head);
            assert_eq!(response.field("transfer-encoding"), None, "{}", response.head);
        }
        client.send(GET);
        let mut backend = backend.unwrap();
        backend.request();
        backend.answer("a");
        assert_eq!(client.response().body, b"a");
    });
}
