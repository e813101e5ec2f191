//! Connections to backends that wait for their next request, and what the backend does to them
//! meanwhile.

use std::net::Shutdown;
use std::time::Duration;

use crate::support::{
    Backend, HttpClient, Ringgate, SHORT, Upstream, close_and_arrive, expect_silence, free_port,
    holds_for, is_acknowledged, over_each_driver, proxied, reset, wait_for,
};

const GET: &str = "GET /a HTTP/1.1\r\nHost: own.test\r\n\r\n";
const POST: &str = "POST /a HTTP/1.1\r\nHost: own.test\r\nContent-Length: 2\r\n\r\nhi";
const EMPTY_POST: &str = "POST /a HTTP/1.1\r\nHost: own.test\r\nContent-Length: 0\r\n\r\n";

fn to(upstream: &Upstream, cluster: &str) -> String {
    proxied(&format!("\"{}\"", upstream.address()), "", "", cluster)
}

/// A client, and the backend's connection after one exchange with this answer.
#[track_caller]
fn after(gate: &Ringgate, upstream: &Upstream, answer: &str) -> (HttpClient, Backend) {
    let mut client = HttpClient::connect(gate.address("web"));
    client.send(GET);
    let mut backend = upstream.backend();
    backend.request();
    backend.send(answer);
    client.response();
    (client, backend)
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn a_connection_is_used_again_after_answers_with_a_clear_end() {
    let upstream = Upstream::listen();
    over_each_driver(&to(&upstream, ""), |gate| {
        let (mut client, mut backend) = after(&gate, &upstream, OK);
        for answer in [
            OK,
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 204 No Content\r\n\r\n",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
            "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 2\r\n\r\nno",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Trailer: a\r\n\r\n",
            "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na",
            "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
        ] {
            client.send(GET);
            assert_eq!(backend.request().asks(), "GET /a", "behind {answer}");
            backend.send(answer);
            if answer.contains(" 103 ") {
                assert_eq!(client.head_only().status, 103);
            }
            let status = answer.rfind("HTTP/1.").unwrap() + 9;
            assert_eq!(client.response().status.to_string(), answer[status..status + 3]);
        }
        client.send(GET);
        backend.request();
        assert!(upstream.try_accept().is_none(), "another connection");
    });
}

#[test]
fn a_connection_is_not_used_again_when_its_next_bytes_are_not_those_of_an_answer() {
    let upstream = Upstream::listen();
    over_each_driver(&to(&upstream, ""), |gate| {
        for answer in [
            "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
            "HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 2\r\n\r\nok",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok+",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n+",
            "HTTP/1.1 204 No Content\r\n\r\n+",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 1\r\n\r\n+",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\
             Content-Length: 6\r\n\r\nforged",
            "HTTP/1.1 204 No Content\r\nContent-Length: 1\r\n\r\n",
        ] {
            let (mut client, mut backend) = after(&gate, &upstream, answer);
            let rest = backend.rest();
            assert!(rest.is_empty(), "{answer}: {}", rest.escape_ascii());
            client.send(GET);
            let mut next = upstream.backend();
            assert_eq!(next.request().asks(), "GET /a", "{answer}");
            next.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nnext");
            assert_eq!(client.response().body, b"next", "{answer}");
        }
    });
}

#[test]
fn a_response_that_no_request_asked_for_is_given_to_no_client() {
    const FORGED: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged";
    let upstream = Upstream::listen();
    over_each_driver(&to(&upstream, ""), |gate| {
        for round in 0..20 {
            let (mut client, mut backend) = after(&gate, &upstream, OK);
            // It has arrived before the next request does.
            backend.send(FORGED);
            wait_for("it arrives", SHORT, || is_acknowledged(&backend.stream).then_some(()));
            client.send(GET);
            let mut next = upstream.backend();
            next.request();
            next.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nnext");
            assert_eq!(client.response().body, b"next", "round {round}");
        }
    });
}

#[test]
fn an_idle_connection_that_the_backend_has_closed_costs_no_request() {
    let upstream = Upstream::listen();
    over_each_driver(&to(&upstream, ""), |gate| {
        for (round, request) in [GET, POST, EMPTY_POST].into_iter().cycle().take(18).enumerate() {
            let (mut client, backend) = after(&gate, &upstream, OK);
            // It has closed before the next request is there.
            close_and_arrive(backend.stream, round % 2 == 1);
            client.send(request);
            let mut next = upstream.backend();
            next.request();
            next.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nnext");
            assert_eq!(client.response().body, b"next", "round {round}: {request}");
        }
    });
}

/// The backend closes when the next request is already with it: nothing tells whether it was acted
/// upon.
#[test]
fn a_request_that_a_used_connection_has_lost_is_repeated_if_it_may_be() {
    let upstream = Upstream::listen();
    let get = |method: &str| GET.replacen("GET", method, 1);
    over_each_driver(&to(&upstream, ""), |gate| {
        for (request, is_repeated) in [
            (get("GET"), true),
            (get("HEAD"), true),
            (get("DELETE"), true),
            (get("OPTIONS"), true),
            (EMPTY_POST.to_owned(), false),
            (POST.to_owned(), false),
            (get("PATCH"), false),
            (get("UNKNOWN"), false),
            (POST.replacen("POST", "PUT", 1), false),
        ] {
            for is_reset in [false, true] {
                let (mut client, mut backend) = after(&gate, &upstream, OK);
                client.send(&request);
                backend.request();
                if is_reset {
                    reset(backend.stream);
                } else {
                    drop(backend);
                }
                if is_repeated {
                    let mut next = upstream.backend();
                    assert_eq!(
                        next.request().head.lines().next(),
                        Some(&*format!("{} /a HTTP/1.1", request.split(' ').next().unwrap()))
                    );
                    next.send("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
                    assert_eq!(client.response().status, 204, "{request}");
                } else {
                    let response = client.response();
                    assert_eq!(response.status, 502, "{request}: {}", response.head);
                    assert!(upstream.try_accept().is_none(), "{request} was repeated");
                }
            }
        }
    });
}

#[test]
fn a_request_is_repeated_once_and_only_when_no_byte_of_an_answer_came() {
    let upstream = Upstream::listen();
    over_each_driver(&to(&upstream, ""), |gate| {
        // Once: the second connection is a new one, and its end is that of the request.
        let (mut client, mut backend) = after(&gate, &upstream, OK);
        client.send(GET);
        backend.request();
        drop(backend);
        let mut second = upstream.backend();
        second.request();
        drop(second);
        assert_eq!(client.response().status, 502);
        assert!(upstream.try_accept().is_none(), "a third attempt");

        // A part of an answer.
        for part in ["H", "HTTP/1.1 200 OK\r\nContent-", "HTTP/1.1 103 Early Hints\r\n\r\n"] {
            let (mut client, mut backend) = after(&gate, &upstream, OK);
            client.send(GET);
            backend.request();
            backend.send(part);
            backend.stream.shutdown(Shutdown::Write).unwrap();
            if part.contains(" 103 ") {
                assert_eq!(client.head_only().status, 103);
            }
            assert_eq!(client.response().status, 502, "{part}");
            assert!(upstream.try_accept().is_none(), "{part}: repeated");
        }
    });
}

#[test]
fn a_new_connection_that_is_closed_without_an_answer_is_a_502() {
    let upstream = Upstream::listen();
    over_each_driver(&to(&upstream, "keepalive_connections = \"off\""), |gate| {
        for request in [GET, POST] {
            let mut client = HttpClient::connect(gate.address("web"));
            client.send(request);
            let mut backend = upstream.backend();
            backend.request();
            drop(backend);
            let response = client.response();
            assert_eq!(response.status, 502, "{}", response.head);
            assert!(upstream.try_accept().is_none(), "{request} was repeated");
            // The client's connection stays in use.
            client.send(GET);
            let mut backend = upstream.backend();
            backend.request();
            backend.answer("b");
            assert_eq!(client.response().body, b"b");
            backend.expect_end();
        }
    });
}

#[test]
fn idle_connections_are_bounded_in_number_and_time() {
    let upstream = Upstream::listen();
    let cluster = "keepalive_connections = 2\nkeepalive_timeout = \"3s\"";
    over_each_driver(&to(&upstream, cluster), |gate| {
        let mut pairs: Vec<_> = (0..4)
            .map(|_| {
                let mut client = HttpClient::connect(gate.address("web"));
                client.send(GET);
                let mut backend = upstream.backend();
                backend.request();
                (client, backend)
            })
            .collect();
        for (client, backend) in &mut pairs {
            backend.answer("a");
            client.response();
        }
        // The first two are kept, for a while.
        for (_, backend) in &mut pairs[2..] {
            backend.expect_end();
        }
        for (_, backend) in &mut pairs[..2] {
            expect_silence(&mut backend.stream, Duration::from_millis(300));
        }
        for (_, backend) in &mut pairs[..2] {
            backend.expect_end();
        }
    });
}

#[test]
fn a_connection_that_is_used_stays_alive() {
    let upstream = Upstream::listen();
    over_each_driver(&to(&upstream, "keepalive_timeout = \"2s\""), |gate| {
        let (mut client, mut backend) = after(&gate, &upstream, OK);
        for _ in 0..4 {
            holds_for("no other connection", Duration::from_millis(800), || {
                upstream.try_accept().is_none()
            });
            client.send(GET);
            backend.request();
            backend.send(OK);
            client.response();
        }
    });
}

#[test]
fn nothing_is_left_of_connections_after_their_clients_have_gone() {
    let upstream = Upstream::listen();
    over_each_driver(&to(&upstream, "keepalive_connections = \"off\""), |gate| {
        let before = gate.sockets();
        for _ in 0..20 {
            let (client, mut backend) = after(&gate, &upstream, OK);
            backend.expect_end();
            drop(client);
        }
        wait_for("every socket is closed", SHORT, || (gate.sockets() == before).then_some(()));
    });
}

#[test]
fn a_connection_keeps_the_options_that_it_was_opened_with() {
    let (upstream, address) = (Upstream::listen(), free_port().address());
    let config = |option: &str| {
        proxied(&format!("\"{}\"", upstream.address()), option, "", "")
            .replace("127.0.0.1:0", &address.to_string())
    };
    over_each_driver(&config(""), |gate| {
        let mut client = HttpClient::connect(address);
        client.send(GET);
        let mut old = upstream.backend();
        old.request();
        // The options change while it waits for the response.
        gate.reload(&config("user_timeout = \"2m\""));
        old.send(OK);
        client.response();
        client.send(GET);
        let mut new = upstream.backend();
        new.request();
        new.send(OK);
        client.response();
        // The options of before lead to the connection of before.
        gate.reload(&config(""));
        client.send(GET);
        old.request();
        old.send(OK);
        client.response();
        assert!(upstream.try_accept().is_none(), "another connection");
    });
}
