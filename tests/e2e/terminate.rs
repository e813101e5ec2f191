//! A tunnel that ends here: what its clients are told, what the cluster gets, and that nobody else
//! learns that there is one.

use std::io::{Read, Write};
use std::process::Command;
use std::time::Duration;

use crate::support::{
    Echo, HttpClient, Named, Ringgate, SHORT, Setup, UPGRADE, Upstream, bytes, connect, direct,
    expect_closed, expect_end, expect_silence, free_port, read_until, run, send_slowly,
    stream_site, wait_for,
};

const TERMINATE: &str = "tunnel = \"terminate\"";
/// simple-obfs names no version.
const OBFS: &str = "GET /stream HTTP/1.1\r\nHost: live.example.test\r\nUser-Agent: curl/7.64.1\r\n\
    Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: u6rNfYxG7a9kYGCCb1ZbTg==\r\n";
const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
/// A close with code 1000, as a client masks it, and as a server does not.
const CLIENT_CLOSE: [u8; 8] = [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8];
const SERVER_CLOSE: [u8; 4] = [0x88, 0x02, 0x03, 0xe8];

fn start(route: &str) -> (Ringgate, Upstream) {
    let upstream = Upstream::listen();
    let gate = Ringgate::start(&stream_site(upstream.address(), &format!("{TERMINATE}\n{route}")));
    (gate, upstream)
}

/// A frame of a client, with a mask that is not all zeroes.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let key = [1, 2, 3, 0xf0];
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..=125 => frame.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&key);
    frame.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

#[test]
fn obfs_is_answered_at_once_and_raw_bytes_from_there_on() {
    let (gate, upstream) = start("");
    let mut client = HttpClient::connect(gate.address("web"));
    let payload = bytes(1, 3_000_000);
    client.send([OBFS.as_bytes(), b"Content-Length: 1400\r\n\r\n", &payload[..1400]].concat());
    let response = client.response();
    assert_eq!(response.status, 101);
    assert_eq!(response.field("upgrade"), Some("websocket"));
    assert_eq!(response.field("connection"), Some("Upgrade"));
    // RFC 6455 section 1.3, computed by another implementation.
    assert_eq!(response.field("sec-websocket-accept"), Some("G1GTJoekf87+CU0OUekyMH60LhE="));
    assert!(response.field("date").is_some() && response.field("content-length").is_none());

    let mut behind = upstream.accept();
    std::thread::scope(|scope| {
        let mut sending = client.stream.try_clone().unwrap();
        scope.spawn(move || sending.write_all(&bytes(1, 3_000_000)[1400..]).unwrap());
        let mut received = vec![0; payload.len()];
        behind.read_exact(&mut received).unwrap();
        assert!(received == payload, "the upstream's bytes are not what was sent");
    });
    behind.write_all(b"raw answer").unwrap();
    drop(behind);
    let mut answer = String::new();
    client.stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "raw answer");
    drop(client);
    let record = gate.record();
    assert_eq!((record.number("status"), record.text("route")), (101, "/stream"));
    assert_eq!((record.number("bytes_up"), record.number("bytes_down")), (3_000_000, 10));
    assert_eq!((record.text("relay"), record.end()), ("splice", "upstream"));
}

#[test]
fn obfs_may_come_without_a_length_and_cut_anywhere() {
    let (gate, upstream) = start("");
    let request = [OBFS.as_bytes(), b"\r\npayload"].concat();
    for cut in (1..request.len()).step_by(7) {
        let mut client = connect(gate.address("web"));
        send_slowly(&mut client, &[&request[..cut], &request[cut..]]);
        let mut received = [0; 7];
        upstream.accept().read_exact(&mut received).unwrap();
        assert_eq!(&received, b"payload", "cut at {cut}");
    }
}

#[test]
fn a_websocket_is_payload_on_one_side_and_frames_on_the_other() {
    let (gate, upstream) = start("");
    let mut client = HttpClient::connect(gate.address("web"));
    // The first frames may be behind the head already.
    client.send([UPGRADE.as_bytes(), &frame(0x02, b"one "), &frame(0x80, b"two ")].concat());
    let response = client.response();
    assert_eq!(response.status, 101);
    assert_eq!(response.field("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(response.field("sec-websocket-protocol"), None);
    let mut behind = upstream.accept();
    client.send([frame(0x89, b"alive?"), frame(0x82, b"three")].concat());
    assert_eq!(read_until(&mut behind, b"three"), b"one two three");
    let mut pong = [0; 8];
    client.stream.read_exact(&mut pong).unwrap();
    assert_eq!(&pong, b"\x8a\x06alive?");

    behind.write_all(b"answer").unwrap();
    let mut framed = [0; 8];
    client.stream.read_exact(&mut framed).unwrap();
    assert_eq!(&framed, b"\x82\x06answer");

    client.send(CLIENT_CLOSE);
    let mut rest = Vec::new();
    client.stream.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, SERVER_CLOSE);
    expect_end(&mut behind);
    drop(client);
    let record = gate.record();
    assert_eq!((record.number("status"), record.end()), (101, "client"));
    assert_eq!(record.number("bytes_up"), 13);
    assert_eq!(record.text("relay"), "copy");
}

#[test]
fn the_end_of_the_upstream_is_told_when_everything_before_it_was_read() {
    let (gate, upstream) = start("");
    let mut client = HttpClient::connect(gate.address("web"));
    client.send(UPGRADE);
    client.response();
    let mut behind = upstream.accept();
    behind.write_all(b"the last").unwrap();
    drop(behind);
    let mut last = [0; 12];
    client.stream.read_exact(&mut last).unwrap();
    assert_eq!(&last, b"\x82\x08the last\x89\x00");
    // It waits for the answer, answers what is asked meanwhile, and then gives the client a while.
    expect_silence(&mut client.stream, Duration::from_millis(2500));
    client.send(frame(0x89, b"?"));
    let mut pong = [0; 3];
    client.stream.read_exact(&mut pong).unwrap();
    assert_eq!(&pong, b"\x8a\x01?");
    client.send(frame(0x8a, b""));
    expect_silence(&mut client.stream, Duration::from_millis(1500));
    let mut close = [0; 4];
    client.stream.read_exact(&mut close).unwrap();
    assert_eq!(close, SERVER_CLOSE);
    client.send(CLIENT_CLOSE);
    expect_end(&mut client.stream);
    assert_eq!(gate.record().end(), "upstream");
}

#[test]
fn a_client_that_leaves_before_it_is_told_the_end_holds_nothing_up() {
    for leave in [&CLIENT_CLOSE[..], b""] {
        let (gate, upstream) = start("");
        let mut client = HttpClient::connect(gate.address("web"));
        client.send(UPGRADE);
        client.response();
        drop(upstream.accept());
        let mut ping = [0; 2];
        client.stream.read_exact(&mut ping).unwrap();
        assert_eq!(&ping, b"\x89\x00");
        client.send(leave);
        client.stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        client.stream.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, SERVER_CLOSE);
        gate.record();
    }
}

#[test]
fn an_upstream_that_breaks_during_an_upload_is_a_reset_and_nothing_is_left() {
    // With what was not read the upstream's end is a reset; with nothing unread it shows as one as
    // soon as more is sent.
    for unread in [true, false] {
        let (gate, upstream) = start("");
        let sockets = gate.sockets();
        let mut client = HttpClient::connect(gate.address("web"));
        client.send(UPGRADE);
        client.response();
        let mut behind = upstream.accept();
        client.send(frame(0x82, b"first"));
        assert_eq!(read_until(&mut behind, b"first"), b"first");
        if unread {
            client.send(frame(0x82, &[7; 5000]));
            behind.peek(&mut [0; 10]).unwrap();
        }
        drop(behind);
        // The client goes on, and never answers a ping.
        let chunk = frame(0x82, &[8; 10_000]);
        wait_for("the client is cut off", SHORT, || client.stream.write_all(&chunk).err());
        wait_for("its sockets are closed", SHORT, || (gate.sockets() <= sockets).then_some(()));
        assert_eq!(gate.record().end(), "upstream_reset", "unread: {unread}");
    }
}

/// A WebSocket handshake with these lines behind its own.
fn websocket_with(fields: &str) -> String {
    UPGRADE.replacen("\r\n\r\n", &format!("\r\n{fields}\r\n"), 1)
}

#[test]
fn early_data_in_the_protocol_field_comes_first_and_is_sent_back() {
    // 34 bytes, the least that a Shadowsocks client begins with, and more.
    for (field, length) in [
        ("_-hlbGxvIGVsbG8gZWxsbyBlbGxvIGVsbG8gZWxsbyBlbA", 34),
        ("_-hlbGxvIGVsbG8gZWxsbyBlbGxvIGVsbG8gZWxsbyBlbGxvIQ==", 37),
    ] {
        let (gate, upstream) = start("");
        let mut client = HttpClient::connect(gate.address("web"));
        client.send(websocket_with(&format!("Sec-WebSocket-Protocol: {field}\r\n")));
        assert_eq!(client.response().field("sec-websocket-protocol"), Some(field));
        client.send(frame(0x82, b" and more"));
        let received = read_until(&mut upstream.accept(), b"more");
        assert!(received.starts_with(b"\xff\xe8ello ello "), "{}", received.escape_ascii());
        assert_eq!(received.len(), length + b" and more".len());
    }
}

#[test]
fn a_real_subprotocol_is_no_payload_and_none_is_agreed_on() {
    let names = [
        "chat",
        "mqtt",
        "ocpp1.6",
        "graphql-ws",
        "binary",
        "aGk=",
        "chat, superchat",
        "v1-stomp\r\nSec-WebSocket-Protocol: chat",
        "",
        // 33 bytes: one less than a Shadowsocks client begins with.
        "YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFh",
    ];
    for driver in ["io_uring", "epoll"] {
        let upstream = Upstream::listen();
        let config = stream_site(upstream.address(), TERMINATE);
        let server = format!("driver = \"{driver}\"");
        let gate = Setup { config, server, ..Setup::default() }.start();
        for name in names {
            let mut client = HttpClient::connect(gate.address("web"));
            client.send(websocket_with(&format!("Sec-WebSocket-Protocol: {name}\r\n")));
            let response = client.response();
            assert_eq!(response.status, 101, "{name}");
            // RFC 6455 section 4.2.2: a server that takes none of them sends no such field.
            assert_eq!(response.field("sec-websocket-protocol"), None, "{name}");
            client.send(frame(0x82, b"payload"));
            let received = read_until(&mut upstream.accept(), b"payload");
            assert_eq!(received, b"payload", "{driver}, {name}");
        }
    }
}

#[test]
fn what_breaks_the_protocol_is_told_and_the_upstream_hears_an_end() {
    let cases: [(&[u8], u16); 4] = [
        (b"\x82\x02no", 1002),
        (&frame(0xc2, b"reserved"), 1002),
        (&frame(0x89, &[0; 126]), 1002),
        (&frame(0x81, b"text"), 1003),
    ];
    for (bad, code) in cases {
        let (gate, upstream) = start("");
        let mut client = HttpClient::connect(gate.address("web"));
        client.send(UPGRADE);
        client.response();
        // Much more behind it does not make the kernel swallow the close.
        client.send([&frame(0x82, b"good"), bad, &vec![0xaa; 100_000]].concat());
        let mut behind = upstream.accept();
        assert_eq!(read_until(&mut behind, b"good"), b"good");
        expect_end(&mut behind);
        let mut rest = Vec::new();
        client.stream.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, [&[0x88, 2][..], &code.to_be_bytes()].concat());
        drop(client);
        assert_eq!(gate.record().end(), "bad_request");
    }
}

#[test]
fn a_client_that_pings_and_does_not_read_is_owed_no_more_than_one_answer() {
    let (gate, upstream) = start("");
    let mut client = HttpClient::connect(gate.address("web"));
    client.send(UPGRADE);
    client.response();
    let mut behind = upstream.accept();
    let before = gate.anonymous_kib();
    let ping = frame(0x89, &[7; 125]).repeat(8_000);
    for _ in 0..20 {
        client.send(&ping);
    }
    client.send(frame(0x82, b"after all"));
    assert_eq!(read_until(&mut behind, b"after all"), b"after all");
    let grown = gate.anonymous_kib().saturating_sub(before);
    assert!(grown < 4096, "{grown} KiB for pings");
    let mut pong = [0; 127];
    client.stream.read_exact(&mut pong).unwrap();
    assert_eq!(pong[..3], [0x8a, 125, 7]);
}

#[test]
fn a_websocket_stays_while_its_client_is_silent() {
    let (gate, upstream) = start("");
    let mut client = HttpClient::connect(gate.address("web"));
    client.send(UPGRADE);
    client.response();
    let mut behind = upstream.accept();
    expect_silence(&mut behind, Duration::from_millis(300));
    expect_silence(&mut client.stream, Duration::from_millis(300));
    // One that goes without a close has gone all the same.
    drop(client);
    expect_closed(&mut behind);
}

#[test]
fn a_well_kept_client_library_has_nothing_to_complain_of() {
    let (echo, name) = (Echo::start(), Named::start("name"));
    let start = |upstream| Ringgate::start(&stream_site(upstream, TERMINATE));
    let (echoes, names) = (start(echo.address()), start(name.address()));
    let url = |gate: &Ringgate| format!("ws://{}/stream", gate.address("web"));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/websocket.py");
    // The interpreter that the package belongs to, whatever stands first in PATH.
    let mut python = direct(Command::new("/usr/bin/python3"));
    let output = run(python.args([script, &url(&echoes), &url(&names)]));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "apt-get install python3-websockets? {said}");
}

#[test]
fn an_upstream_that_cannot_be_reached_is_a_reset() {
    let gate = Ringgate::start(&stream_site(free_port().address(), TERMINATE));
    let mut client = HttpClient::connect(gate.address("web"));
    client.send(UPGRADE);
    assert_eq!(client.head_only().status, 101);
    expect_closed(&mut client.stream);
    let record = gate.record();
    assert_eq!((record.number("status"), record.end()), (101, "connect_failed"));
}

#[test]
fn accept_narrows_what_is_answered() {
    for (accept, obfs, websocket) in [("obfs", 101, 301), ("websocket", 301, 101)] {
        let (gate, _upstream) = start(&format!("accept = [\"{accept}\"]"));
        let status = |request: &str| {
            let mut client = HttpClient::connect(gate.address("web"));
            client.send(request);
            client.response().status
        };
        assert_eq!(status(&format!("{OBFS}\r\n")), obfs, "obfs, {accept}");
        assert_eq!(status(UPGRADE), websocket, "websocket, {accept}");
    }
}

/// Requests that are almost a handshake, with the path to be put in.
fn probes() -> Vec<(&'static str, String)> {
    let head = |method: &str, version: &str, fields: &str| {
        format!("{method} PATH HTTP/{version}\r\nHost: live.example.test\r\n{fields}\r\n")
    };
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    let version = "Sec-WebSocket-Version: 13\r\n";
    let get = |fields: &[&str]| head("GET", "1.1", &fields.concat());
    vec![
        ("a visitor", get(&[])),
        ("no key", get(&[upgrade, version])),
        ("no key, no version", get(&[upgrade])),
        ("a short key", get(&[upgrade, version, "Sec-WebSocket-Key: dGhlIHNhbXBsZQ==\r\n"])),
        ("a key that is none", get(&[upgrade, "Sec-WebSocket-Key: x\r\n"])),
        ("an empty key", get(&[upgrade, version, "Sec-WebSocket-Key:\r\n"])),
        ("two keys", get(&[upgrade, version, KEY, KEY])),
        ("another version", get(&[upgrade, KEY, "Sec-WebSocket-Version: 12\r\n"])),
        ("an empty version", get(&[upgrade, KEY, "Sec-WebSocket-Version:\r\n"])),
        ("two versions", get(&[upgrade, version, version, KEY])),
        ("no Connection", get(&["Upgrade: websocket\r\n", version, KEY])),
        ("no Upgrade", get(&["Connection: Upgrade\r\n", version, KEY])),
        ("another protocol", get(&["Connection: Upgrade\r\nUpgrade: h2c\r\n", version, KEY])),
        ("a websocket with a body", get(&[upgrade, version, KEY, "Content-Length: 3\r\n"]) + "abc"),
        ("who waits for a 100", get(&[upgrade, KEY, "Expect: 100-continue\r\n"])),
        ("POST", head("POST", "1.1", &[upgrade, version, KEY, "Content-Length: 0\r\n"].concat())),
        ("HEAD", head("HEAD", "1.1", &[upgrade, version, KEY].concat())),
        ("HTTP/1.0", head("GET", "1.0", &[upgrade, version, KEY].concat())),
        ("chunks", get(&[upgrade, version, KEY, "Transfer-Encoding: chunked\r\n"]) + "0\r\n\r\n"),
        ("no request at all", "nonsense\r\n\r\n".to_owned()),
    ]
}

#[test]
fn a_prober_cannot_tell_the_path_from_any_other() {
    let (gate, upstream) = start("");
    // The date aside, which may be another second, and the path, which a redirect repeats.
    let everything = |request: &str, path: &str| {
        let mut client = connect(gate.address("web"));
        client.write_all(request.replace("PATH", path).as_bytes()).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        let lines = answer.lines().filter(|line| !line.starts_with("Date: "));
        lines.map(|line| format!("{}\n", line.replace(path, "PATH"))).collect::<String>()
    };
    for (name, request) in probes() {
        let answer = everything(&request, "/stream");
        assert_eq!(answer, everything(&request, "/kitten"), "{name}");
        assert!(!answer.is_empty() && !answer.contains("101"), "{name}: {answer}");
    }
    assert!(upstream.try_accept().is_none(), "a probe has reached the upstream");
    gate.records(2 * probes().len());
}

#[test]
fn garbage_behind_a_handshake_is_the_upstreams_affair() {
    let (gate, upstream) = start("");
    let mut client = HttpClient::connect(gate.address("web"));
    client.send(format!("{OBFS}\r\n"));
    assert_eq!(client.response().status, 101);
    client.send(bytes(9, 5000));
    let mut behind = upstream.accept();
    let mut garbage = vec![0; 5000];
    behind.read_exact(&mut garbage).unwrap();
    assert!(garbage == bytes(9, 5000));
    // It is neither cut before the upstream does so, nor kept after it did.
    expect_silence(&mut client.stream, Duration::from_millis(300));
    drop(behind);
    expect_end(&mut client.stream);
    drop(client);
    assert_eq!(gate.record().end(), "upstream");
}
