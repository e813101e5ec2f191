//! An upgrade that the upstream grants: what reaches it, when, and what comes back.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::support::{
    HttpClient, Ringgate, SWITCHING, UPGRADE, Upstream, bytes, connect, expect_end, expect_silence,
    read_until, send_slowly, stream_site,
};

/// A site with an upgrade route to an upstream of the test's own.
fn start(route: &str) -> (Ringgate, Upstream) {
    let upstream = Upstream::listen();
    let gate = Ringgate::start(&stream_site(upstream.address(), route));
    (gate, upstream)
}

/// What a simple-obfs client sends first: a head that says how long the payload behind it is.
fn obfs_head(length: usize) -> String {
    format!(
        "GET /stream HTTP/1.1\r\nHost: live.example.test\r\nUser-Agent: curl/7.64.1\r\n\
         Upgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: u6rNfYxG7a9kYGCCb1ZbTg==\r\nContent-Length: {length}\r\n\r\n"
    )
}

/// What one read gives.
#[track_caller]
fn one_read(stream: &mut TcpStream) -> Vec<u8> {
    let mut buffer = vec![0; 128 * 1024];
    let count = stream.read(&mut buffer).unwrap();
    buffer.truncate(count);
    buffer
}

#[test]
fn the_head_and_the_first_payload_arrive_in_one_read() {
    for early_data in ["early_data = true", "early_data = false"] {
        for length in [1, 1400, 2048] {
            let (gate, upstream) = start(early_data);
            let request = [obfs_head(length).as_bytes(), &bytes(1, length)].concat();
            let mut client = connect(gate.address("web"));
            client.write_all(&request).unwrap();
            assert!(one_read(&mut upstream.accept()) == request, "{early_data}, {length} bytes");
        }
    }
}

#[test]
fn the_first_payload_may_come_in_pieces() {
    for early_data in ["early_data = true", "early_data = false"] {
        let (gate, upstream) = start(early_data);
        let head = obfs_head(1400);
        let payload = bytes(1, 1400);
        for cut in [0, 1, 700, 1399] {
            let mut client = connect(gate.address("web"));
            let first = [head.as_bytes(), &payload[..cut]].concat();
            send_slowly(&mut client, &[&first, &payload[cut..]]);
            let mut behind = upstream.accept();
            let mut received = vec![0; head.len() + payload.len()];
            behind.read_exact(&mut received).unwrap();
            assert!(received == [head.as_bytes(), &payload].concat(), "{early_data}, cut {cut}");
        }
    }
}

#[test]
fn with_early_data_later_bytes_arrive_before_the_101() {
    let (gate, upstream) = start("early_data = true");
    let payload = bytes(1, 300 * 1024);
    let (first, later) = payload.split_at(1400);
    let mut client = connect(gate.address("web"));
    let head = obfs_head(first.len());
    client.write_all(&[head.as_bytes(), first].concat()).unwrap();
    let mut behind = upstream.accept();
    std::thread::scope(|scope| {
        let mut sending = client.try_clone().unwrap();
        scope.spawn(move || sending.write_all(later).unwrap());
        let mut received = vec![0; head.len() + payload.len()];
        behind.read_exact(&mut received).unwrap();
        assert!(received[head.len()..] == payload, "the payload is not what was sent");
    });
    behind.write_all(SWITCHING.as_bytes()).unwrap();
    assert_eq!(one_read(&mut client), SWITCHING.as_bytes());
}

#[test]
fn with_early_data_a_head_without_length_passes_what_follows() {
    let (gate, upstream) = start("early_data = true");
    let mut client = connect(gate.address("web"));
    client.write_all(&[UPGRADE.as_bytes(), b"payload"].concat()).unwrap();
    let mut behind = upstream.accept();
    let mut received = vec![0; UPGRADE.len() + 7];
    behind.read_exact(&mut received).unwrap();
    assert_eq!(received, [UPGRADE.as_bytes(), b"payload"].concat());
}

#[test]
fn without_early_data_bytes_behind_the_body_wait_for_the_101() {
    let (gate, upstream) = start("early_data = false");
    for (head, body) in [(obfs_head(5), "hello"), (UPGRADE.to_owned(), "")] {
        let mut client = connect(gate.address("web"));
        client.write_all(format!("{head}{body}GET /smuggled HTTP/1.1\r\n\r\n").as_bytes()).unwrap();
        let mut behind = upstream.accept();
        assert_eq!(one_read(&mut behind), format!("{head}{body}").as_bytes());
        client.write_all(b"even more").unwrap();
        expect_silence(&mut behind, Duration::from_millis(200));

        behind.write_all(SWITCHING.as_bytes()).unwrap();
        assert_eq!(one_read(&mut client), SWITCHING.as_bytes());
        let held = read_until(&mut behind, b"even more");
        assert_eq!(held, b"GET /smuggled HTTP/1.1\r\n\r\neven more");
    }
}

#[test]
fn without_early_data_what_is_held_is_bounded_but_not_lost() {
    let (gate, upstream) = start("early_data = false");
    let before = gate.anonymous_kib();
    let payload = bytes(1, 16 * 1024 * 1024);
    let mut client = connect(gate.address("web"));
    client.write_all(UPGRADE.as_bytes()).unwrap();
    let mut behind = upstream.accept();
    assert_eq!(one_read(&mut behind), UPGRADE.as_bytes());
    std::thread::scope(|scope| {
        let mut sending = client.try_clone().unwrap();
        let all = &payload;
        scope.spawn(move || sending.write_all(all).unwrap());
        expect_silence(&mut behind, Duration::from_millis(300));
        let now = gate.anonymous_kib();
        assert!(now < before + 4 * 1024, "{before} KiB before, {now} KiB now");
        behind.write_all(SWITCHING.as_bytes()).unwrap();
        let mut received = vec![0; payload.len()];
        behind.read_exact(&mut received).unwrap();
        assert!(received == payload, "the payload is not what was sent");
    });
}

#[test]
fn a_100_before_the_101_is_swallowed() {
    let (gate, upstream) = start("");
    for fields in ["\r\n", "Server: x\r\n\r\n"] {
        let mut client = connect(gate.address("web"));
        client.write_all(UPGRADE.as_bytes()).unwrap();
        let mut behind = upstream.accept();
        read_until(&mut behind, b"\r\n\r\n");
        let interim = format!("HTTP/1.1 100 Continue\r\n{fields}");
        behind.write_all(format!("{interim}{SWITCHING}payload").as_bytes()).unwrap();
        let mut received = vec![0; SWITCHING.len() + 7];
        client.read_exact(&mut received).unwrap();
        assert_eq!(received, [SWITCHING.as_bytes(), b"payload"].concat());

        let mut client = connect(gate.address("web"));
        client.write_all(UPGRADE.as_bytes()).unwrap();
        let mut behind = upstream.accept();
        read_until(&mut behind, b"\r\n\r\n");
        send_slowly(&mut behind, &[interim.as_bytes(), interim.as_bytes(), SWITCHING.as_bytes()]);
        assert_eq!(one_read(&mut client), SWITCHING.as_bytes());
    }
}

#[test]
fn a_101_cut_anywhere_reaches_the_client_in_one_read() {
    let (gate, upstream) = start("");
    for cut in 1..SWITCHING.len() {
        let mut client = connect(gate.address("web"));
        client.write_all(UPGRADE.as_bytes()).unwrap();
        let mut behind = upstream.accept();
        read_until(&mut behind, b"\r\n\r\n");
        let (first, second) = SWITCHING.as_bytes().split_at(cut);
        send_slowly(&mut behind, &[first, second]);
        assert_eq!(one_read(&mut client), SWITCHING.as_bytes(), "cut at {cut}");
    }
}

#[test]
fn payload_glued_to_the_101_arrives() {
    let (gate, upstream) = start("");
    for length in [1, 1000, 60_000, 1_000_000] {
        let mut client = connect(gate.address("web"));
        client.write_all(UPGRADE.as_bytes()).unwrap();
        let mut behind = upstream.accept();
        read_until(&mut behind, b"\r\n\r\n");
        let all = [SWITCHING.as_bytes(), &bytes(1, length)].concat();
        let sent = all.clone();
        std::thread::scope(|scope| {
            scope.spawn(move || behind.write_all(&sent).unwrap());
            let mut received = Vec::new();
            let read = client.read_to_end(&mut received);
            let whole = read.is_ok() && received == all;
            assert!(whole, "{read:?} and {} of {} bytes", received.len(), all.len());
        });
    }
}

#[test]
fn every_spelling_of_an_upgrade_is_one() {
    let (gate, upstream) = start("");
    let with = |from: &str, to: &str| {
        assert!(UPGRADE.contains(from));
        UPGRADE.replacen(from, to, 1)
    };
    let requests = [
        with("Connection: Upgrade", "Connection: upgrade"),
        with("Connection: Upgrade", "connection:UPGRADE"),
        with("Connection: Upgrade", "Connection: keep-alive, Upgrade"),
        with("Connection: Upgrade", "Connection: upgrade,keep-alive"),
        with("Connection: Upgrade", "Connection: keep-alive\r\nConnection: Upgrade"),
        with("Connection: Upgrade", "Connection: Upgrade\r\nConnection: keep-alive"),
        with("Upgrade: websocket", "Upgrade: WebSocket"),
        with("Upgrade: websocket", "UPGRADE:\twebsocket "),
        with("Sec-WebSocket-Version: 13\r\n", ""),
        with("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""),
        with("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbX-sZSBub25j_Q"),
        with("/stream", "/stream?ed=2048"),
        with("/stream", "/stream?"),
        with("Host: live.example.test", "Host: live.example.test:8080"),
    ];
    for request in requests {
        let mut client = HttpClient::connect(gate.address("web"));
        client.send(&request);
        let mut behind = upstream.accept();
        let received = read_until(&mut behind, b"\r\n\r\n");
        assert_eq!(String::from_utf8_lossy(&received), request);
        behind.write_all(SWITCHING.as_bytes()).unwrap();
        assert_eq!(client.response().status, 101);
    }
}

#[test]
fn a_tunnel_has_one_record_and_it_is_complete() {
    let (gate, upstream) = start("");
    let mut client = connect(gate.address("web"));
    client.write_all(UPGRADE.as_bytes()).unwrap();
    let mut behind = upstream.accept();
    read_until(&mut behind, b"\r\n\r\n");
    behind.write_all(SWITCHING.as_bytes()).unwrap();
    assert_eq!(one_read(&mut client), SWITCHING.as_bytes());
    let from = client.local_addr().unwrap().to_string();
    drop(client);
    expect_end(&mut behind);
    drop(behind);

    let record = gate.record();
    let fields = [
        ("listener", "web"),
        ("protocol", "HTTP/1.1"),
        ("client", from.as_str()),
        ("method", "GET"),
        ("host", "live.example.test"),
        ("path", "/stream"),
        ("route", "/stream"),
        ("cluster", "shadowsocks"),
        ("endpoint", &upstream.address().to_string()),
        ("end", "client"),
    ];
    for (field, value) in fields {
        assert_eq!(record.text(field), value, "{field} in {record:?}");
    }
    assert_eq!(record.number("status"), 101);
    record.number("duration_ms");
    record.number("connect_ms");
    let start = record.text("start");
    assert!(start.len() == 24 && start.ends_with('Z') && start.contains('T'), "start is {start}");
}
