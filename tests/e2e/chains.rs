//! What all this is for: a browser's bytes through real Shadowsocks clients, ringgate, and real
//! servers.
//!
//! ss-local and ss-server look for a free port for their plugin and let it go before the plugin
//! binds it. Tests with a plugin have a network of their own, where no other test takes it.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use crate::support::{
    Echo, HttpClient, Ringgate, Socks, Web, bytes, connect, inside_namespace, l4, obfs_server,
    read_until, site, ss_server, stream_site,
};

pub(crate) const MIB: usize = 1024 * 1024;

#[test]
fn plain_shadowsocks_through_l4_is_spliced_and_byte_exact() {
    let server = ss_server(None);
    let web = Web::start();
    let gate = Ringgate::start(&l4(server.address(), "", ""));
    let socks = Socks::start(gate.address("ingress"), None);

    socks.downloads(&web, 20 * MIB);
    socks.uploads(&web, 20 * MIB);

    let records = gate.records(2);
    assert!(records.iter().all(|record| record.text("relay") == "splice"), "{records:?}");
    assert!(records[0].number("bytes_down") > 20 * MIB as u64, "{records:?}");
    assert!(records[1].number("bytes_up") > 20 * MIB as u64, "{records:?}");
}

#[test]
fn v2ray_plugin_through_stream_while_the_site_answers() {
    if !inside_namespace("chains::v2ray_plugin_through_stream_while_the_site_answers") {
        return;
    }
    let server = ss_server(Some("server;path=/stream;mux=0"));
    let gate = Ringgate::start(&stream_site(server.address(), ""));
    let options = "path=/stream;host=live.example.test;mux=0";
    let socks = Socks::start(gate.address("web"), Some(("ss-v2ray-plugin", options)));

    four_transfers(&socks, gate.address("web"));

    all_tunnels_ended_well(&gate);
}

#[test]
fn simple_obfs_through_a_stock_server_needs_early_data() {
    if !inside_namespace("chains::simple_obfs_through_a_stock_server_needs_early_data") {
        return;
    }
    let shadowsocks = ss_server(None);
    let server = obfs_server(shadowsocks.address(), &[]);
    // Debian's obfs-local asks for the path / whatever it is told.
    let route = "path = \"/\"\nearly_data = true";
    let gate = Ringgate::start(&site(&format!("\"{}\"", server.address()), "", route, ""));
    let options = "obfs=http;obfs-host=live.example.test";
    let socks = Socks::start(gate.address("web"), Some(("obfs-local", options)));

    four_transfers(&socks, gate.address("web"));

    all_tunnels_ended_well(&gate);
}

#[test]
fn simple_obfs_through_a_reverse_proxy_server_works_without_early_data() {
    if !inside_namespace(
        "chains::simple_obfs_through_a_reverse_proxy_server_works_without_early_data",
    ) {
        return;
    }
    let shadowsocks = ss_server(None);
    let server = obfs_server(shadowsocks.address(), &["--reverse_proxy"]);
    let route = "path = \"/\"\nearly_data = false";
    let gate = Ringgate::start(&site(&format!("\"{}\"", server.address()), "", route, ""));
    let options = "obfs=http;obfs-host=live.example.test";
    let socks = Socks::start(gate.address("web"), Some(("obfs-local", options)));

    four_transfers(&socks, gate.address("web"));

    all_tunnels_ended_well(&gate);
}

#[test]
fn newer_simple_obfs_client_asks_for_stream() {
    let echo = Echo::start();
    let server = obfs_server(echo.address(), &[]);
    let gate = Ringgate::start(&stream_site(server.address(), "early_data = true"));
    let payload = bytes(1, 300 * 1024);
    let (first, later) = payload.split_at(1400);

    let mut client = connect(gate.address("web"));
    let head = format!(
        "GET /stream HTTP/1.1\r\nHost: live.example.test\r\nUser-Agent: curl/7.64.1\r\n\
         Upgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: u6rNfYxG7a9kYGCCb1ZbTg==\r\nContent-Length: {}\r\n\r\n",
        first.len()
    );
    client.write_all(&[head.as_bytes(), first].concat()).unwrap();
    std::thread::scope(|scope| {
        let mut sending = client.try_clone().unwrap();
        scope.spawn(move || sending.write_all(later).unwrap());

        let answer = read_until(&mut client, b"\r\n\r\n");
        assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&answer));
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        let mut echoed = answer[end..].to_vec();
        let have = echoed.len();
        echoed.resize(payload.len(), 0);
        client.read_exact(&mut echoed[have..]).unwrap();
        assert!(echoed == payload, "the echo is not what was sent");
    });
}

/// What a page load is made of: something small, a download, and uploads around and far over what
/// fits a buffer. Meanwhile the site on the same port answers those who just look at it.
pub(crate) fn four_transfers(socks: &Socks, front: SocketAddr) {
    let web = Web::start();
    let (stop, stopped) = channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            loop {
                the_site_redirects(front);
                match stopped.recv_timeout(Duration::from_millis(50)) {
                    Err(RecvTimeoutError::Timeout) => {}
                    _ => return,
                }
            }
        });
        socks.downloads(&web, 1000);
        socks.downloads(&web, 20 * MIB);
        socks.uploads(&web, 300 * 1024);
        socks.uploads(&web, 20 * MIB);
        drop(stop);
    });
}

fn the_site_redirects(front: SocketAddr) {
    let mut client = HttpClient::connect(front);
    client.send("GET /news/today?page=2 HTTP/1.1\r\nHost: live.example.test\r\n\r\n");
    let response = client.response();
    assert_eq!(response.status, 301);
    assert_eq!(response.field("location"), Some("https://www.example.test/news/today?page=2"));
}

fn all_tunnels_ended_well(gate: &Ringgate) {
    let tunnels = gate.records_where(4, |record| record.text("route") != "/*");
    for record in tunnels {
        assert_eq!(record.number("status"), 101, "{record:?}");
        // Real parts end a connection with a reset when they leave bytes unread.
        let end = record.end();
        assert!(end.starts_with("client") || end.starts_with("upstream"), "{record:?}");
    }
}
