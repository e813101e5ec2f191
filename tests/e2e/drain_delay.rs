//! The time from the first signal until connections are refused (`server.drain_delay`): clients are
//! served as before, and hear that their connections end.

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::SendRequest;
use rustix::process::Signal;

use crate::support::{
    Authority, Backend, Echo, HttpClient, Ringgate, SHORT, SOON, Setup, TlsClient, UdpEcho,
    Upstream, connect_http2, expect_reset, expect_silence, free_port, http2_settings, l4, proxied,
    stream_site, wait_for, waiting,
};

const BOTH: [&str; 2] = ["io_uring", "epoll"];
const NAME: &str = "site.test";
const GET: &str = "GET /a HTTP/1.1\r\nHost: live.example.test\r\n\r\n";
/// Types of frames (RFC 9113 sections 6.1 and 6.8).
pub(crate) const DATA: u8 = 0;
pub(crate) const GOAWAY: u8 = 7;

/// One worker, so that what one connection has seen is true for the next one.
fn start(driver: &str, config: String, more: &str) -> Ringgate {
    let server = format!("workers = 1\ndriver = \"{driver}\"\n{more}");
    Setup { config, server, ..Setup::default() }.start()
}

/// A connection between two requests.
#[track_caller]
fn at_rest(gate: &Ringgate) -> HttpClient {
    let mut client = HttpClient::connect(gate.address("web"));
    client.send(GET);
    let response = client.response();
    assert_eq!((response.status, response.field("connection")), (301, None));
    client
}

#[track_caller]
fn round_trip(stream: &mut TcpStream) {
    stream.write_all(b"x").unwrap();
    stream.read_exact(&mut [0]).unwrap();
}

#[track_caller]
fn refused(gate: &Ringgate, listener: &str) {
    let address = gate.address(listener);
    wait_for("new connections are refused", SHORT, || TcpStream::connect(address).err());
}

#[test]
fn clients_are_served_and_hear_that_their_connections_end() {
    for driver in BOTH {
        let (echo, udp) = (Echo::start(), UdpEcho::start("a"));
        let udp = format!(
            "[[listener]]\nname = \"dns\"\nlisten = \"127.0.0.1:0\"\nprotocol = \"udp\"\n\
             cluster = \"servers\"\n[cluster.servers]\nendpoints = [\"{}\"]\n",
            udp.address()
        );
        let config = udp + &l4(echo.address(), "", "") + &stream_site(free_port().address(), "");
        let delay = "drain_delay = \"1h\"\ndrain_timeout = \"1h\"";
        let mut gate = start(driver, config, delay);
        let (mut idle, mut tunnel) = (at_rest(&gate), gate.connect("ingress"));
        round_trip(&mut tunnel);
        let mut silent = HttpClient::connect(gate.address("web"));

        gate.signal(Signal::TERM);
        idle.expect_end();
        for _ in 0..3 {
            let mut client = HttpClient::connect(gate.address("web"));
            client.send(GET);
            let response = client.response();
            assert_eq!((response.status, response.field("connection")), (301, Some("close")));
            client.expect_end();
        }
        // A drain would give it a second.
        expect_silence(&mut silent.stream, Duration::from_millis(1500));
        silent.send(GET);
        assert_eq!(silent.response().field("connection"), Some("close"));
        let mut new_tunnel = gate.connect("ingress");
        round_trip(&mut new_tunnel);
        round_trip(&mut tunnel);
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(SHORT)).unwrap();
        client.send_to(b"x", gate.address("dns")).unwrap();
        client.recv(&mut [0; 64]).unwrap();

        // The second signal ends the delay, and a further one the drain.
        gate.signal(Signal::INT);
        refused(&gate, "web");
        refused(&gate, "ingress");
        round_trip(&mut tunnel);
        round_trip(&mut new_tunnel);
        gate.signal(Signal::TERM);
        assert_eq!(gate.wait_exit(SOON).code(), Some(0), "over {driver}");
        expect_reset(&mut tunnel);
    }
}

#[test]
fn after_the_delay_connections_are_refused_and_tunnels_live_until_the_timeout() {
    for driver in BOTH {
        let config = l4(Echo::start().address(), "", "");
        let times = "drain_delay = \"600ms\"\ndrain_timeout = \"800ms\"";
        let mut gate = start(driver, config, times);
        let mut tunnel = gate.connect("ingress");
        round_trip(&mut tunnel);
        let begin = Instant::now();
        gate.signal(Signal::QUIT);
        gate.line_with("connections are accepted until drain_delay is over");
        round_trip(&mut gate.connect("ingress"));
        refused(&gate, "ingress");
        let delay = begin.elapsed();
        assert!(delay >= Duration::from_millis(600), "{driver}: {delay:?}");
        round_trip(&mut tunnel);
        expect_reset(&mut tunnel);
        let whole = begin.elapsed();
        assert!(whole >= Duration::from_millis(1400), "{driver}: {whole:?}");
        assert_eq!(gate.wait_exit(SHORT).code(), Some(0), "{driver}");
    }
}

/// What a cluster answers is passed on with the word that the connection ends, too, and the
/// connection to the cluster is kept.
#[test]
fn responses_of_clusters_say_that_the_connection_ends() {
    for driver in BOTH {
        let upstream = Upstream::listen();
        let config = proxied(&format!("\"{}\"", upstream.address()), "", "", "");
        let gate = start(driver, config, "drain_delay = \"1h\"");
        let mut client = HttpClient::connect(gate.address("web"));
        client.send(GET);
        let mut backend = upstream.backend();
        backend.request();
        gate.signal(Signal::TERM);
        gate.line_with("drain_delay");
        let mut idle = HttpClient::connect(gate.address("web"));
        idle.send("GET /moved HTTP/1.1\r\nHost: a\r\n\r\n");
        // If the worker has not read the command yet, it ends this connection when it does.
        idle.response();
        idle.expect_end();
        backend.answer("ok");
        let response = client.response();
        assert_eq!((&response.body[..], response.field("connection")), (&b"ok"[..], Some("close")));
        client.expect_end();
        let mut next = HttpClient::connect(gate.address("web"));
        next.send(GET);
        backend.request();
        backend.answer("again");
        assert_eq!(next.response().body, b"again");
    }
}

fn get(client: &mut SendRequest<Bytes>) -> h2::client::ResponseFuture {
    let request = http::Request::get(format!("https://{NAME}/a")).body(()).unwrap();
    client.send_request(request, true).unwrap().0
}

/// GET, https, / and :authority (RFC 7541 appendix A) on a stream.
pub(crate) fn request_frame(stream: u8) -> Vec<u8> {
    let head = [&[0x82, 0x87, 0x84, 0x41, NAME.len() as u8][..], NAME.as_bytes()].concat();
    [&[0, 0, head.len() as u8, 1, 5, 0, 0, 0, stream], &head[..]].concat()
}

/// Sends the preface, empty SETTINGS (RFC 9113 section 3.4) and a request.
pub(crate) fn begin_http2(client: &mut TlsClient) {
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00");
    client.send(request_frame(1));
}

/// Reads up to the next frame of this type, and returns its payload.
#[track_caller]
pub(crate) fn frame_of(client: &mut TlsClient, wanted: u8) -> Vec<u8> {
    loop {
        let (kind, payload) = client.http2_frame();
        if kind == wanted {
            return payload;
        }
    }
}

#[test]
fn http_2_connections_get_a_goaway_and_requests_on_their_way_are_served() {
    let (authority, upstream) = (Authority::new("authority"), Upstream::listen());
    let rule = authority.signs(&[NAME]).rule(&[NAME], "");
    let config = proxied(&format!("\"{}\"", upstream.address()), &rule, "", "");
    let settings = http2_settings(&authority);
    for driver in BOTH {
        let mut gate = start(driver, config.clone(), "drain_delay = \"1h\"");
        let connect = || TlsClient::connect(gate.address("web"), &settings, NAME);
        let (mut idle, mut busy) = (connect(), connect());
        begin_http2(&mut idle);
        let mut backend = Backend::over(upstream.accept());
        backend.head();
        backend.answer("idle");
        frame_of(&mut idle, DATA);
        begin_http2(&mut busy);
        backend.head();
        gate.signal(Signal::TERM);
        for client in [&mut idle, &mut busy] {
            // All streams are still accepted: the last one has the greatest number that there is.
            let last = frame_of(client, GOAWAY);
            assert_eq!(last[..8], [0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0], "over {driver}");
        }
        backend.answer("busy");
        assert_eq!(frame_of(&mut busy, DATA), b"busy", "over {driver}");
        idle.send(request_frame(3));
        backend.head();
        backend.answer("again");
        assert_eq!(frame_of(&mut idle, DATA), b"again", "over {driver}");

        // A client that connects now gets its first request answered, however late that comes.
        let mut late =
            connect_http2(gate.address("web"), &settings, NAME, &h2::client::Builder::new());
        let mut first = HttpClient::connect(gate.address("web"));
        expect_silence(&mut first.stream, Duration::from_millis(1500));
        let response = get(&mut late);
        backend.head();
        backend.answer("late");
        waiting(async { assert_eq!(response.await.unwrap().status(), 200, "over {driver}") });
        // With the GOAWAY no further request can be sent.
        wait_for("a GOAWAY", SHORT, || waiting(late.clone().ready()).err());
        drop((idle, busy, late, first));
        gate.signal(Signal::TERM);
        assert_eq!(gate.wait_exit(SOON).code(), Some(0), "over {driver}");
    }
}
