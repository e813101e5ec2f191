//! What an upgrade names: the client's list of protocols, and the one that the upstream chose.
//!
//! A server that reads `Upgrade` in another way than ringgate could switch to a protocol that
//! ringgate does not know, HTTP/2 for one, and serve requests past every route.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::Command;

use crate::support::{
    HttpClient, Process, Ringgate, SHORT, SWITCHING, Setup, UPGRADE, Upstream, bytes, direct,
    expect_closed, free_port, proxied, read_until, require, run, site, stream_site, wait_listening,
};

const DRIVERS: [&str; 2] = ["io_uring", "epoll"];
const EARLY: [&str; 2] = ["early_data = false", "early_data = true"];

fn start(driver: &str, route: &str) -> (Ringgate, Upstream) {
    let upstream = Upstream::listen();
    let config = stream_site(upstream.address(), route);
    let server = format!("driver = \"{driver}\"");
    (Setup { config, server, ..Setup::default() }.start(), upstream)
}

/// The handshake with these lines in place of its `Upgrade`.
fn upgrade_with(lines: &str) -> String {
    assert!(UPGRADE.contains("Upgrade: websocket\r\n"));
    UPGRADE.replacen("Upgrade: websocket\r\n", lines, 1)
}

#[test]
fn every_list_with_websocket_goes_on_as_websocket_alone() {
    let lists = [
        "Upgrade: websocket, h2c\r\n",
        "Upgrade: h2c, websocket\r\n",
        "Upgrade: websocket\r\nUpgrade: h2c\r\n",
        "Upgrade: h2c\r\nUpgrade: websocket\r\n",
        "upgrade: h2c\r\nUPGRADE:TLS/1.0 ,\tWebSocket\r\nX-Y: z\r\nUpgrade: a/1,b\r\n",
        "Upgrade: websocket\r\nUpgrade: WebSocket\r\n",
        "Upgrade: websocket/13, websocket\r\n",
        "Upgrade: ,websocket\r\n",
        "Upgrade: websocket ,, \r\n",
        "Upgrade:\r\nUpgrade: websocket\r\n",
        "Upgrade: websocket\r\nUpgrade:\r\n",
        "Upgrade: \"a, websocket, b\"\r\n",
    ];
    for (driver, early_data) in
        DRIVERS.iter().flat_map(|&driver| EARLY.map(|early| (driver, early)))
    {
        let (gate, upstream) = start(driver, early_data);
        for list in lists {
            let mut client = HttpClient::connect(gate.address("web"));
            let body = bytes(1, 1400);
            let length = "Content-Length: 1400\r\n\r\n";
            let head = upgrade_with(list).replacen("\r\n\r\n", &format!("\r\n{length}"), 1);
            client.send([head.as_bytes(), &body].concat());
            let mut behind = upstream.accept();
            let between = if list.contains("X-Y") { "X-Y: z\r\n" } else { "" };
            let head = upgrade_with(&format!("Upgrade: websocket\r\n{between}"));
            let head = head.replacen("\r\n\r\n", &format!("\r\n{length}"), 1);
            let mut received = vec![0; head.len() + body.len()];
            behind.read_exact(&mut received).unwrap();
            assert_eq!(String::from_utf8_lossy(&received[..head.len()]), head, "{list:?}");
            assert!(received[head.len()..] == body, "{list:?}: the body");

            behind.write_all(SWITCHING.as_bytes()).unwrap();
            assert_eq!(client.response().status, 101, "{list:?}");
            client.send("through");
            assert_eq!(read_until(&mut behind, b"through"), b"through", "{list:?}");
        }
    }
}

#[test]
fn a_list_without_websocket_is_no_upgrade() {
    let lists = [
        "Upgrade: h2c\r\n",
        "Upgrade: h2c, TLS/1.0\r\n",
        "Upgrade: h2c\r\nUpgrade: TLS/1.0\r\n",
        "Upgrade: websocket/13\r\n",
        "Upgrade: websocket;v=13\r\n",
        "Upgrade: websocket h2c\r\n",
        "Upgrade: \"websocket\"\r\n",
        "Upgrade: web, socket\r\n",
        "Upgrade: web\r\nUpgrade: socket\r\n",
        "Upgrade: \r\n",
        "Upgrade: ,\r\n",
    ];
    let (gate, upstream) = start("auto", "early_data = true");
    for list in lists {
        let mut client = HttpClient::connect(gate.address("web"));
        client.send(upgrade_with(list));
        assert_eq!(client.response().status, 301, "{list:?}");
        assert!(upstream.try_accept().is_none(), "{list:?} has reached the upstream");
    }
}

#[test]
fn a_tunnel_that_ends_here_takes_websocket_alone_as_a_value() {
    let (gate, upstream) = start("auto", "tunnel = \"terminate\"");
    let lists = [
        "Upgrade: websocket, h2c\r\n",
        "Upgrade: websocket\r\nUpgrade: h2c\r\n",
        "Upgrade: h2c\r\nUpgrade: websocket\r\n",
        "Upgrade: websocket,\r\n",
        "Upgrade: websocket\r\nUpgrade: websocket\r\n",
    ];
    for list in lists {
        let mut client = HttpClient::connect(gate.address("web"));
        client.send(upgrade_with(list));
        assert_eq!(client.response().status, 301, "{list:?}");
        assert!(upstream.try_accept().is_none(), "{list:?} has reached the upstream");
    }
    let mut client = HttpClient::connect(gate.address("web"));
    client.send(upgrade_with("UPGRADE:\tWebSocket\r\n"));
    assert_eq!(client.response().status, 101);
}

#[test]
fn curl_cannot_bring_http_2_past_the_routes() {
    let (gate, upstream) = start("auto", "early_data = true");
    let url = format!("http://{}/stream", gate.address("web"));
    let curl = |more: &[&str]| {
        let mut curl = require("curl");
        curl.args(["-q", "-sS", "-m", "10", "-o", "/dev/null", "-w", "%{http_code}", "--http2"]);
        curl.args(more).arg(&url);
        curl
    };
    let output = run(&mut curl(&[]));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "301", "h2c alone: {output:?}");

    // With a field of its own curl sends its `Upgrade: h2c` as another line.
    let fields = ["-H", "Upgrade: websocket", "-H", "Connection: Upgrade, HTTP2-Settings"];
    let _curl = Process::spawn(curl(&fields));
    let mut behind = upstream.accept();
    let received = read_until(&mut behind, b"\r\n\r\n");
    let received = String::from_utf8_lossy(&received).to_ascii_lowercase();
    let named: Vec<&str> =
        received.lines().filter_map(|line| line.strip_prefix("upgrade:")).collect();
    assert_eq!(named, [" websocket"], "{received}");
    behind.write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n").unwrap();
    expect_closed(&mut behind);
    assert_eq!(
        gate.records_where(1, |record| record.number("status") != 301)[0].end(),
        "bad_response"
    );
}

/// What an upstream answers with these fields.
fn switching(fields: &str) -> String {
    format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n")
}

#[test]
fn a_101_to_anything_but_websocket_is_502() {
    let fields = [
        "Connection: Upgrade\r\nUpgrade: h2c\r\n",
        "Upgrade: websocket, h2c\r\n",
        "Upgrade: h2c, websocket\r\n",
        "Upgrade: websocket\r\nUpgrade: h2c\r\n",
        "Upgrade: h2c\r\nUpgrade: websocket\r\n",
        "Upgrade: websocket/13\r\n",
        "Upgrade: websockets\r\n",
        "Upgrade:\r\n",
        "Upgrade: ,\r\n",
    ];
    for (driver, early_data) in
        DRIVERS.iter().flat_map(|&driver| EARLY.map(|early| (driver, early)))
    {
        let (gate, upstream) = start(driver, early_data);
        for (index, fields) in fields.iter().enumerate() {
            let mut client = HttpClient::connect(gate.address("web"));
            client.send(UPGRADE);
            let mut behind = upstream.accept();
            read_until(&mut behind, b"\r\n\r\n");
            behind.write_all(format!("{}PRI * HTTP/2.0", switching(fields)).as_bytes()).unwrap();
            let response = client.response();
            assert_eq!(response.status, 502, "{driver}, {early_data}, {fields:?}");
            client.expect_end();
            expect_closed(&mut behind);
            let record = gate.records(index + 1).pop().unwrap();
            assert_eq!(
                (record.number("status"), record.end()),
                (502, "bad_response"),
                "{fields:?}"
            );
        }
    }
}

#[test]
fn every_spelling_of_a_101_to_websocket_is_one() {
    let fields = [
        "Connection: Upgrade\r\nUpgrade: websocket\r\n",
        "upgrade:WebSocket\r\n",
        "UPGRADE: \tWEBSOCKET\r\n",
        "Upgrade: websocket,\r\n",
        "Upgrade: websocket\r\nUpgrade: WebSocket\r\n",
    ];
    for (driver, early_data) in
        DRIVERS.iter().flat_map(|&driver| EARLY.map(|early| (driver, early)))
    {
        let (gate, upstream) = start(driver, early_data);
        for fields in fields {
            let mut client = HttpClient::connect(gate.address("web"));
            client.send(UPGRADE);
            let mut behind = upstream.accept();
            read_until(&mut behind, b"\r\n\r\n");
            behind.write_all(switching(fields).as_bytes()).unwrap();
            // As it came.
            assert_eq!(client.response().head, switching(fields), "{driver}, {early_data}");
            client.send("through");
            assert_eq!(read_until(&mut behind, b"through"), b"through", "{fields:?}");
        }
    }
}

#[test]
fn a_101_without_upgrade_is_enough_with_early_data_alone() {
    let heads = ["HTTP/1.1 101\r\n\r\n", "HTTP/1.1 101 \r\n\r\n", "HTTP/1.1 101 X\r\nA:b\r\n\r\n"];
    for (driver, early_data) in
        DRIVERS.iter().flat_map(|&driver| EARLY.map(|early| (driver, early)))
    {
        let (gate, upstream) = start(driver, early_data);
        for head in heads {
            let mut client = HttpClient::connect(gate.address("web"));
            client.send(UPGRADE);
            let mut behind = upstream.accept();
            read_until(&mut behind, b"\r\n\r\n");
            behind.write_all(head.as_bytes()).unwrap();
            if early_data == "early_data = true" {
                assert_eq!(client.response().head, head, "{driver}");
                client.send("through");
                assert_eq!(read_until(&mut behind, b"through"), b"through", "{driver}");
            } else {
                assert_eq!(client.response().status, 502, "{driver}, {head:?}");
                client.expect_end();
                expect_closed(&mut behind);
            }
        }
    }
}

/// The interpreter that the package of websockets belongs to, whatever stands first in PATH.
fn python(arguments: &[&str]) -> Command {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/websocket_forwarded.py");
    let mut python = direct(Command::new("/usr/bin/python3"));
    python.arg(script).args(arguments);
    python
}

/// nginx that passes WebSockets on to `upstream`, as its documentation says.
fn nginx(upstream: &str, dir: &std::path::Path) -> (SocketAddr, Process) {
    let port = free_port();
    let config = format!(
        "daemon off; pid nginx.pid; error_log stderr; events {{ }}\n\
         http {{ access_log off; server {{ listen 127.0.0.1:{};\n\
         location / {{ proxy_pass http://{upstream}; proxy_http_version 1.1;\n\
         proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; }} }} }}\n",
        port.number()
    );
    std::fs::write(dir.join("nginx.conf"), config).unwrap();
    let mut nginx = require("nginx");
    nginx.arg("-p").arg(dir).args(["-c", "nginx.conf"]);
    let process = Process::spawn(nginx);
    wait_listening(port.number());
    (port.address(), process)
}

#[test]
fn a_websocket_server_is_reached_directly_and_through_nginx() {
    let server = Process::spawn(python(&["serve"]));
    let line = server.line_with("listening on ", SHORT);
    let direct = line.rsplit(' ').next().unwrap().to_owned();
    let dir = tempfile::tempdir().unwrap();
    let (through_nginx, _nginx) = nginx(&direct, dir.path());
    for upstream in [direct, through_nginx.to_string()] {
        let endpoints = format!("\"{upstream}\"");
        // A route for upgrades, and one that passes every request on.
        for config in [site(&endpoints, "", "prefix = \"/\"", ""), proxied(&endpoints, "", "", "")]
        {
            let gate = Ringgate::start(&config);
            let url = format!("ws://{}/stream", gate.address("web"));
            let output = run(&mut python(&["ask", &url]));
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "apt-get install python3-websockets? {said}");
            let records = gate.records(2);
            assert!(records.iter().all(|record| record.number("status") == 101), "{records:?}");
        }
    }
}
