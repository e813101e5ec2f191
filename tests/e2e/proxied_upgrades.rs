//! Upgrades to WebSocket on routes that pass requests on: the limits of the route are theirs.

use std::time::Instant;

use crate::support::{HttpClient, SOON, SWITCHING, Upstream, over_each_driver, proxied};

/// A request that upgrades, with these lines.
fn upgrade(lines: &str) -> String {
    format!(
        "GET /a HTTP/1.1\r\nHost: own.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
         {lines}\r\n"
    )
}

#[test]
fn the_body_of_an_upgrade_is_limited_like_any_other() {
    let upstream = Upstream::listen();
    let config = proxied(&format!("\"{}\"", upstream.address()), "", "max_body = \"1KiB\"", "");
    over_each_driver(&config, |gate| {
        let mut client = HttpClient::connect(gate.address("web"));
        client.send(upgrade("Content-Length: 1025\r\n"));
        let response = client.response();
        assert_eq!(response.status, 413, "{}", response.head);
        client.expect_end();
        assert!(upstream.try_accept().is_none(), "something has reached the backend");
        let record = gate.record();
        assert_eq!((record.end(), record.text("reason")), ("bad_request", "body_too_large"));

        let mut client = HttpClient::connect(gate.address("web"));
        let body = "x".repeat(1024);
        client.send(upgrade("Content-Length: 1024\r\n") + &body);
        let mut backend = upstream.backend();
        assert_eq!(backend.request().body, body.as_bytes());
    });
}

#[test]
fn a_silent_websocket_ends_after_the_idle_timeout_of_its_route() {
    let upstream = Upstream::listen();
    let endpoint = format!("\"{}\"", upstream.address());
    over_each_driver(&proxied(&endpoint, "", "idle_timeout = \"500ms\"", ""), |gate| {
        let start = Instant::now();
        let mut client = HttpClient::connect(gate.address("web"));
        client.send(upgrade(""));
        let mut backend = upstream.backend();
        backend.request();
        backend.send(SWITCHING);
        assert_eq!(client.response().status, 101);
        client.expect_end();
        assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
        let record = gate.record();
        assert_eq!((record.end(), record.number("status")), ("idle", 101), "{record:?}");
    });
}

#[test]
fn an_upgrade_that_is_not_answered_is_a_504_after_the_time_of_its_route() {
    let upstream = Upstream::listen();
    let endpoint = format!("\"{}\"", upstream.address());
    over_each_driver(&proxied(&endpoint, "", "timeout = \"500ms\"", ""), |gate| {
        let start = Instant::now();
        let mut client = HttpClient::connect(gate.address("web"));
        client.send(upgrade(""));
        let mut backend = upstream.backend();
        backend.request();
        assert_eq!(client.response().status, 504);
        assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
        assert_eq!(gate.record().end(), "response_timeout");
    });
}
