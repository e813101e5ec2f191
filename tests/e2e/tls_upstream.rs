//! TLS to the endpoints of a cluster: real servers, certificates that are not accepted, endpoints
//! that speak something else.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::sync::Arc;

use crate::chains::four_transfers;
use crate::support::{
    Authority, Echo, HttpClient, Kind, Pair, Process, Ringgate, SHORT, Setup, Socks, TlsSite,
    bytes, connect, expect_reset, free_port, inside_namespace, require, site, ss_server,
    wait_listening,
};

const NAME: &str = "site.test";
const MIB: usize = 1024 * 1024;

/// An L4 listener whose cluster has TLS; `tls` are the keys of its table.
fn l4_to(endpoint: impl std::fmt::Display, tls: &str) -> String {
    format!(
        "[[listener]]\nname = \"l4\"\nlisten = \"127.0.0.1:0\"\nprotocol = \"tcp\"\n\
         cluster = \"c\"\nhalf_closed_timeout = \"20s\"\n\
         [cluster.c]\nendpoints = [\"{endpoint}\"]\n{tls}\n"
    )
}

/// The keys of a cluster that trusts this authority.
fn trusting(authority: &Authority) -> String {
    format!("tls = {{ server_name = \"{NAME}\", ca = {:?} }}", authority.file())
}

/// `openssl s_server` that sends each line back reversed; ends with its guard.
fn openssl_server(pair: &Pair, arguments: &[&str]) -> (Process, String) {
    let port = free_port();
    let mut server = require("openssl");
    let address = format!("127.0.0.1:{}", port.number());
    server.args(["s_server", "-rev", "-accept", &address]);
    server.arg("-cert").arg(&pair.certificate).arg("-key").arg(&pair.key).args(arguments);
    let process = Process::spawn(server);
    wait_listening(port.number());
    (process, address)
}

#[test]
fn a_plain_client_reaches_a_real_tls_server() {
    let authority = Authority::new("authority");
    let server = TlsSite::with(&authority.signs(&[NAME]), NAME, "page");
    let gate = Ringgate::start(&l4_to(server.address(), &trusting(&authority)));
    let mut client = HttpClient::connect(gate.address("l4"));
    for _ in 0..3 {
        client.send(format!("GET / HTTP/1.1\r\nHost: {NAME}\r\n\r\n"));
        assert_eq!(client.response().body, b"page");
    }
    client.send(format!("GET / HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n"));
    assert_eq!(client.response().body, b"page");
    client.expect_end();
    drop(client);
    let record = gate.record();
    assert_eq!((record.end(), record.text("relay")), ("upstream", "copy"));
    assert!(!record.has_tls(), "these fields are those of clients: {record:?}");
}

#[test]
fn every_version_suits_and_the_least_one_is_kept() {
    let authority = Authority::new("authority");
    let pair = authority.signs(&[NAME]);
    for (version, min, is_accepted) in
        [("-tls1_2", "1.2", true), ("-tls1_3", "1.2", true), ("-tls1_2", "1.3", false)]
    {
        let (_server, address) = openssl_server(&pair, &[version]);
        let tls = trusting(&authority).replace(" }", &format!(", min_version = \"{min}\" }}"));
        let gate = Ringgate::start(&l4_to(address, &tls));
        let mut client = gate.connect("l4");
        client.write_all(b"abc\n").unwrap();
        if is_accepted {
            let mut answer = [0; 4];
            client.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"cba\n", "{version}");
        } else {
            expect_reset(&mut client);
            assert_eq!(gate.record().end(), "upstream_tls_failed");
        }
    }
}

#[test]
fn bulk_and_half_closes_pass_through_both_kinds_of_tls() {
    for driver in ["io_uring", "epoll"] {
        let (authority, echo) = (Authority::new("authority"), Echo::start());
        let inner = free_port();
        let rule = authority.signs(&[NAME]).rule(&[NAME], "cluster = \"echo\"");
        let config = format!(
            "[[listener]]\nname = \"inner\"\nlisten = \"{0}\"\nprotocol = \"tls\"\n{rule}\n\
             [cluster.echo]\nendpoints = [\"{1}\"]\n{2}",
            inner.address(),
            echo.address(),
            l4_to(inner.address(), &trusting(&authority))
        );
        let server = format!("driver = \"{driver}\"");
        let gate = Setup { config, server, ..Setup::default() }.start();
        let sent = Arc::new(bytes(1, 20 * MIB));
        let mut client = connect(gate.address("l4"));
        let mut writer = client.try_clone().unwrap();
        let up = Arc::clone(&sent);
        let writing = std::thread::spawn(move || {
            writer.write_all(&up).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut received = Vec::new();
        client.read_to_end(&mut received).unwrap();
        writing.join().unwrap();
        assert!(received == *sent, "{} bytes came back", received.len());
        for record in gate.records(2) {
            let counts = (record.number("bytes_up"), record.number("bytes_down"));
            assert_eq!(counts, (20 * MIB as u64, 20 * MIB as u64), "{record:?}");
            assert_eq!(record.end(), "client");
        }
    }
}

#[test]
fn a_certificate_that_does_not_suit_is_refused_with_its_reason() {
    let (authority, other) = (Authority::new("authority"), Authority::new("another"));
    for (pair, tls, reason) in [
        (authority.signs(&["other.test"]), trusting(&authority), "certificate_name"),
        (other.signs(&[NAME]), trusting(&authority), "certificate_issuer"),
        (authority.signs_as(Kind::Expired, &[NAME]), trusting(&authority), "certificate_expired"),
        (
            authority.signs(&[NAME]),
            format!("tls = {{ ca = {:?} }}", authority.file()),
            "certificate_name",
        ),
    ] {
        let (_server, address) = openssl_server(&pair, &[]);
        let gate = Ringgate::start(&l4_to(address, &tls));
        expect_reset(&mut gate.connect("l4"));
        let record = gate.record();
        assert_eq!((record.end(), record.number("bytes_up")), ("upstream_tls_failed", 0));
        let line = gate.line_with("endpoint failed");
        assert!(line.contains(&format!("TLS handshake failed: {reason}")), "{line}");
    }
}

#[test]
fn without_verification_any_certificate_is_accepted() {
    let authority = Authority::new("authority");
    let pair = authority.signs_as(Kind::Expired, &["other.test"]);
    let (_server, address) = openssl_server(&pair, &[]);
    let gate = Ringgate::start(&l4_to(address, "tls = { verify = false }"));
    let mut client = gate.connect("l4");
    client.write_all(b"abc\n").unwrap();
    let mut answer = [0; 4];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"cba\n");
    gate.line_with("verif");
}

#[test]
fn a_server_that_demands_a_certificate_gets_it() {
    let (authority, clients) = (Authority::new("servers"), Authority::new("clients"));
    let (pair, own) = (authority.signs(&[NAME]), clients.signs(&["ringgate"]));
    let demands = ["-Verify", "1", "-verify_return_error", "-CAfile"];
    let file = clients.file();
    let arguments = [&demands[..], &[file.to_str().unwrap()]].concat();
    let (_server, address) = openssl_server(&pair, &arguments);

    let with =
        trusting(&authority).replace(" }", &format!(", {} }}", own.lines().replace('\n', ", ")));
    let gate = Ringgate::start(&l4_to(&address, &with));
    let mut client = gate.connect("l4");
    client.write_all(b"abc\n").unwrap();
    let mut answer = [0; 4];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"cba\n");

    // It serves one connection at a time.
    drop(client);
    // In TLS 1.3 the server refuses after the handshake is done on our side.
    let without = Ringgate::start(&l4_to(&address, &trusting(&authority)));
    let mut client = without.connect("l4");
    let _ = client.write_all(b"abc\n");
    expect_reset(&mut client);
    let record = without.record();
    assert_eq!(record.end(), "upstream_tls_failed");
    assert_eq!(record.list("failed_endpoints"), [&*address]);
    let line = without.line_with("endpoint failed");
    assert!(line.contains("TLS handshake failed: alert"), "{line}");
}

#[test]
fn an_endpoint_that_speaks_no_tls_is_a_failed_attempt() {
    let (authority, plain) = (Authority::new("authority"), Echo::start());
    let good = TlsSite::with(&authority.signs(&[NAME]), NAME, "page");
    // A plain server first, then one that speaks TLS: the second one is tried.
    let tls = trusting(&authority);
    let both = format!("{}\", \"{}", plain.address(), good.address());
    let gate = Ringgate::start(&l4_to(&both, &tls));
    for _ in 0..2 {
        let mut client = HttpClient::connect(gate.address("l4"));
        client.send(format!("GET / HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n"));
        assert_eq!(client.response().body, b"page");
    }
    let failed =
        gate.records(2).iter().filter(|one| !one.list("failed_endpoints").is_empty()).count();
    assert_eq!(failed, 1, "one of two connections begins with the plain server");

    // A forwarded tunnel gets a 502.
    let route = "path = \"/stream\"\ntunnel = \"forward\"";
    let config = site(&format!("\"{}\"", plain.address()), "", route, &trusting(&authority));
    let gate = Ringgate::start(&config);
    let mut client = HttpClient::connect(gate.address("web"));
    client.send(
        "GET /stream HTTP/1.1\r\nHost: live.example.test\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAA\r\n\r\n",
    );
    assert_eq!(client.response().status, 502);
    assert_eq!(gate.record().end(), "upstream_tls_failed");
}

#[test]
fn an_endpoint_that_does_not_answer_the_hello_is_given_up() {
    let (authority, silent) =
        (Authority::new("authority"), TcpListener::bind("127.0.0.1:0").unwrap());
    let limits = "connect_timeout = \"300ms\"\nconnect_attempts = 1";
    let tls = format!("{limits}\n{}", trusting(&authority));
    let gate = Ringgate::start(&l4_to(silent.local_addr().unwrap(), &tls));
    expect_reset(&mut gate.connect("l4"));
    assert_eq!(gate.record().end(), "connect_timeout");
    // The hello was sent, and the connection is gone.
    let (mut connection, _) = silent.accept().unwrap();
    connection.set_read_timeout(Some(SHORT)).unwrap();
    let mut hello = [0];
    connection.read_exact(&mut hello).unwrap();
    assert_eq!(hello, [0x16]);
}

#[test]
fn a_server_that_ends_without_close_notify_resets_the_client() {
    let authority = Authority::new("authority");
    let (server, address) = openssl_server(&authority.signs(&[NAME]), &[]);
    let gate = Ringgate::start(&l4_to(address, &trusting(&authority)));
    let mut client = gate.connect("l4");
    client.write_all(b"abc\n").unwrap();
    client.read_exact(&mut [0; 4]).unwrap();
    // The kernel ends the connections of a process that is killed.
    drop(server);
    expect_reset(&mut client);
    assert_eq!(gate.record().end(), "upstream_tls_failed");
}

#[test]
fn a_tunnel_goes_on_to_a_v2ray_plugin_that_speaks_tls() {
    if !inside_namespace("tls_upstream::a_tunnel_goes_on_to_a_v2ray_plugin_that_speaks_tls") {
        return;
    }
    let authority = Authority::new("authority");
    let pair = authority.signs(&[NAME]);
    let options = format!(
        "server;tls;host={NAME};path=/stream;mux=0;cert={};key={}",
        pair.certificate.display(),
        pair.key.display()
    );
    let server = ss_server(Some(&options));
    let route = "path = \"/stream\"\ntunnel = \"forward\"";
    let endpoint = format!("\"{}\"", server.address());
    let gate = Ringgate::start(&site(&endpoint, "", route, &trusting(&authority)));
    let front = gate.address("web");
    let plugin = "path=/stream;host=live.example.test;mux=0";
    let socks = Socks::start(front, Some(("ss-v2ray-plugin", plugin)));
    four_transfers(&socks, front);
}
