//! Limits of HTTP that a reload changes while connections are open: from the next request on, a
//! connection has the new ones.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use crate::drain_delay::{DATA, begin_http2, frame_of, request_frame};
use crate::reload::{page, start};
use crate::support::{
    Authority, HttpClient, Pair, SOON, TlsClient, connect_http2, expect_silence, free_port,
    http2_settings, waiting,
};

const BOTH: [&str; 2] = ["io_uring", "epoll"];
const NAME: &str = "site.test";
const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// A site with and without TLS, with this line in its listener.
fn site(address: SocketAddr, pair: &Pair, line: &str) -> String {
    page("web", address, "page")
        .replace("\"http\"", &format!("\"http\"\n{line}"))
        .replace("[[listener.host]]\n", &format!("{}\n[[listener.host]]\n", pair.rule(&[NAME], "")))
}

/// A connection of each version, which has had a request before the reload and one after it. Each
/// came in one segment and was answered at once.
fn after_a_reload(driver: &str, before: &str, after: &str, test: fn(HttpClient, TlsClient)) {
    let (authority, address) = (Authority::new("authority"), free_port().address());
    let pair = authority.signs(&[NAME]);
    let line = |time: &str| format!("keepalive_timeout = \"{time}\"");
    let gate = start(&site(address, &pair, &line(before)), driver);
    let mut one = HttpClient::connect(address);
    let mut two = TlsClient::connect(address, &http2_settings(&authority), NAME);
    one.send(GET);
    assert_eq!(one.response().body, b"page");
    begin_http2(&mut two);
    assert_eq!(frame_of(&mut two, DATA), b"page");
    gate.reload(&site(address, &pair, &line(after)));
    one.send(GET);
    assert_eq!(one.response().body, b"page", "over {driver}");
    two.send(request_frame(3));
    assert_eq!(frame_of(&mut two, DATA), b"page", "over {driver}");
    test(one, two);
}

fn over_both(before: &'static str, after: &'static str, test: fn(HttpClient, TlsClient)) {
    thread::scope(|scope| {
        for driver in BOTH {
            scope.spawn(move || after_a_reload(driver, before, after, test));
        }
    });
}

/// Only connections whose requests had to wait took a new `keepalive_timeout`.
#[test]
fn an_open_connection_has_a_shorter_keepalive_timeout_from_its_next_request_on() {
    over_both("1h", "1s", |mut one, mut two| {
        one.stream.set_read_timeout(Some(SOON)).unwrap();
        one.expect_end();
        two.socket.set_read_timeout(Some(SOON)).unwrap();
        two.rest();
    });
}

#[test]
fn an_open_connection_has_a_longer_keepalive_timeout_from_its_next_request_on() {
    over_both("5s", "1h", |mut one, mut two| {
        expect_silence(&mut one.stream, Duration::from_secs(6));
        one.send(GET);
        assert_eq!(one.response().status, 200);
        two.send(request_frame(5));
        assert_eq!(frame_of(&mut two, DATA), b"page");
    });
}

/// The `h2` crate has the limit with which the connection began.
#[test]
fn a_head_of_http_2_is_refused_by_a_limit_that_was_lowered_after_the_connection_began() {
    let authority = Authority::new("authority");
    let (pair, settings) = (authority.signs(&[NAME]), http2_settings(&authority));
    for driver in BOTH {
        let address = free_port().address();
        let gate = start(&site(address, &pair, "max_head = \"16KiB\""), driver);
        let client = connect_http2(address, &settings, NAME, &h2::client::Builder::new());
        let status = || {
            let request =
                http::Request::get(format!("https://{NAME}/")).header("x", "x".repeat(2000));
            waiting(async {
                let mut client = client.clone().ready().await.unwrap();
                let (response, _) = client.send_request(request.body(()).unwrap(), true).unwrap();
                response.await.unwrap().status().as_u16()
            })
        };
        assert_eq!(status(), 200, "over {driver}");
        gate.reload(&site(address, &pair, "max_head = \"1KiB\""));
        assert_eq!(status(), 431, "over {driver}");
        gate.reload(&site(address, &pair, "max_head = \"4KiB\""));
        assert_eq!(status(), 200, "over {driver}");
    }
}
