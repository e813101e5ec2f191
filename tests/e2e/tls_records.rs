//! TLS records and messages that are forged, out of order, too many or in bits: what comes before
//! them goes on its way, an alert tells their sender, and memory stays.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::{AlertDescription, ClientConfig};

use crate::support::{
    Authority, Echo, Ringgate, SHORT, Setup, TlsClient, Upstream, VERSIONS, alert_of,
    allow_descriptors, bytes, connect, direct, expect_reset, holds_for, python_home, run,
    tls_settings, wait_for,
};

const BOTH: [&str; 2] = ["io_uring", "epoll"];
const NAME: &str = "mail.test";

/// A listener `edge` that ends TLS in front of `to`.
fn start(authority: &Authority, driver: &str, to: SocketAddr, server: &str) -> Ringgate {
    let rule = authority.signs(&[NAME]).rule(&[NAME], "cluster = \"mail\"");
    let config = format!(
        "[[listener]]\nname = \"edge\"\nlisten = \"127.0.0.1:0\"\nprotocol = \"tls\"\n\
         hello_timeout = \"1m\"\n{rule}\n[cluster.mail]\nendpoints = [\"{to}\"]\n"
    );
    let server = format!("driver = \"{driver}\"\n{server}");
    Setup { config, server, ..Setup::default() }.start()
}

/// The interpreter with the packages that `scripts/test` installs.
fn hostile_client() -> Command {
    let python = python_home().join("bin/python");
    assert!(python.is_file(), "this test needs tlslite-ng: scripts/test installs it");
    let mut command = direct(Command::new(python));
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/tls_hostile.py"));
    command
}

/// Lets the hostile client do this over both drivers; returns one ringgate for each.
#[track_caller]
fn hostile(what: &str) -> [Ringgate; 2] {
    let (authority, echo) = (Authority::new("authority"), Echo::start());
    let gates = BOTH.map(|driver| start(&authority, driver, echo.address(), ""));
    let before = gates.each_ref().map(Ringgate::anonymous_kib);
    let addresses = gates.each_ref().map(|gate| gate.address("edge").to_string());
    let output = run(hostile_client().arg(what).args(addresses));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    for (gate, before) in gates.iter().zip(before) {
        let grown = gate.anonymous_kib().saturating_sub(before);
        assert!(grown < 4096, "{grown} KiB");
    }
    gates
}

/// All records of a hostile client's connections end like this.
#[track_caller]
fn expect_ends(gates: &[Ringgate], count: usize, end: &str, error: &str) {
    for gate in gates {
        for record in gate.records(count) {
            assert_eq!((record.end(), record.tls().text("error")), (end, error), "{record:?}");
        }
    }
}

#[test]
fn key_updates_without_data_end_the_connection() {
    expect_ends(&hostile("key_updates_without_data"), 2, "tls_failed", "misbehaved");
}

#[test]
fn key_updates_with_data_between_them_go_on() {
    hostile("key_updates_with_data");
}

#[test]
fn empty_records_end_the_connection() {
    expect_ends(&hostile("empty_records"), 2, "tls_failed", "misbehaved");
}

#[test]
fn a_few_empty_records_do_no_harm() {
    hostile("a_few_empty_records");
}

#[test]
fn warnings_end_the_connection() {
    expect_ends(&hostile("warnings"), 1, "tls_failed", "misbehaved");
}

#[test]
fn a_hello_in_many_records_is_one() {
    hostile("a_hello_in_records_of_8_bytes");
}

#[test]
fn another_clients_close_notify_leaves_the_other_direction_open() {
    expect_ends(&hostile("half_closed"), 2, "client", "");
}

/// A client and its upstream after one message.
fn opened(
    gate: &Ringgate,
    backend: &Upstream,
    settings: &Arc<ClientConfig>,
) -> (TlsClient, TcpStream) {
    let mut client = TlsClient::connect(gate.address("edge"), settings, NAME);
    client.send(b"good");
    let mut upstream = backend.accept();
    let mut received = [0; 4];
    upstream.read_exact(&mut received).unwrap();
    assert_eq!(&received, b"good");
    (client, upstream)
}

#[test]
fn a_record_that_was_tampered_with_is_an_alert_here_and_a_reset_there() {
    let authority = Authority::new("authority");
    for driver in BOTH {
        let backend = Upstream::listen();
        let gate = start(&authority, driver, backend.address(), "");
        let mut count = 0;
        for version in VERSIONS {
            let settings = Arc::new(tls_settings(&authority, version));
            for (what, alert, error) in [
                ("corrupted", AlertDescription::BadRecordMac, "decrypt"),
                ("swapped", AlertDescription::BadRecordMac, "decrypt"),
                ("repeated", AlertDescription::BadRecordMac, "decrypt"),
                ("left out", AlertDescription::BadRecordMac, "decrypt"),
                ("too long", AlertDescription::DecodeError, "record_too_long"),
            ] {
                let (mut client, mut upstream) = opened(&gate, &backend, &settings);
                let mut first = client.records(b"first");
                let second = client.records(b"second");
                let before: &[u8] = match what {
                    "repeated" => b"first",
                    _ => b"",
                };
                let wire = match what {
                    "corrupted" => {
                        *first.last_mut().unwrap() ^= 1;
                        [first, second].concat()
                    }
                    "swapped" => [second, first].concat(),
                    "repeated" => [first.clone(), first].concat(),
                    "left out" => second,
                    _ => [&[0x17, 3, 3, 0xff, 0xff][..], &[0; 1000]].concat(),
                };
                // More than is read at once is on its way when the alert is.
                let wire = [wire, bytes(1, 700 * 1024)].concat();
                client.socket.write_all(&wire).unwrap();

                let mut received = vec![0; before.len()];
                upstream.read_exact(&mut received).unwrap();
                assert_eq!(received, before, "{driver}, {what}");
                expect_reset(&mut upstream);
                let failure = client.expect_failure();
                assert_eq!(alert_of(&failure), Some(alert), "{driver}, {what}: {failure}");
                count += 1;
                let record = gate.records(count).pop().unwrap();
                let tls = record.tls();
                assert_eq!((record.end(), tls.text("error")), ("tls_failed", error), "{what}");
                assert_eq!(record.number("bytes_up"), 4 + before.len() as u64, "{what}");
                // What is still on its way is read, so that no reset destroys the alert.
                let time = Duration::from_millis(20);
                holds_for("it is read", time, || client.socket.write_all(b"more").is_ok());
            }
        }
    }
}

#[test]
fn what_follows_a_hello_and_is_no_handshake_is_an_alert() {
    let authority = Authority::new("authority");
    for driver in BOTH {
        let backend = Upstream::listen();
        let gate = start(&authority, driver, backend.address(), "");
        let mut count = 0;
        for version in VERSIONS {
            let settings = Arc::new(tls_settings(&authority, version));
            for junk in
                [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x17, 3, 3, 0, 5, 1, 2, 3, 4, 5], &[0; 100]]
            {
                // In the same segment, and when the server has answered.
                for is_separate in [false, true] {
                    let mut client =
                        TlsClient::over(connect(gate.address("edge")), &settings, NAME);
                    let hello = client.wire();
                    if is_separate {
                        client.socket.write_all(&hello).unwrap();
                        client.socket.peek(&mut [0]).unwrap();
                        client.socket.write_all(junk).unwrap();
                    } else {
                        client.socket.write_all(&[&hello, junk].concat()).unwrap();
                    }
                    let mut answer = Vec::new();
                    let read = client.socket.read_to_end(&mut answer);
                    assert!(read.is_ok(), "{driver}: {read:?}");
                    // In TLS 1.2 the last record shows the alert.
                    let is_alert =
                        answer.len() >= 7 && answer[answer.len() - 7..][..3] == [0x15, 3, 3];
                    assert!(is_alert || version == VERSIONS[1], "{driver}: {answer:?}");
                    count += 1;
                    let record = gate.records(count).pop().unwrap();
                    assert_eq!(record.end(), "tls_failed", "{driver}: {record:?}");
                }
            }
        }
        assert!(backend.try_accept().is_none());
    }
}

/// Connections that have sent a ClientHello and leave it at that.
fn half_handshakes(address: SocketAddr, hello: &[u8], count: usize) -> Vec<TcpStream> {
    let open = |_| {
        let mut socket = connect(address);
        socket.write_all(hello).unwrap();
        socket
    };
    (0..count).map(open).collect()
}

#[test]
fn two_thousand_half_handshakes_leave_time_and_memory_to_others() {
    allow_descriptors(8192);
    let authority = Authority::new("authority");
    for driver in BOTH {
        let echo = Echo::start();
        // The kernel gives each worker about as many, and each has up to 1,024.
        let gate = start(&authority, driver, echo.address(), "workers = 3");
        let address = gate.address("edge");
        let settings = Arc::new(tls_settings(&authority, VERSIONS[1]));
        let mut client = TlsClient::connect(address, &settings, NAME);
        client.send(b"open on both sides");
        client.expect(b"open on both sides");
        let (before, sockets) = (gate.anonymous_kib(), gate.sockets());
        let hello = TlsClient::over(connect(address), &settings, NAME).wire();

        // The echo goes on from one handshake to the next, with as many as are answered meanwhile.
        let mut slowest = Duration::ZERO;
        let mut held = Vec::new();
        for _ in 0..100 {
            held.extend(half_handshakes(address, &hello, 20));
            let begun = Instant::now();
            client.send(b"are you there?");
            client.expect(b"are you there?");
            slowest = slowest.max(begun.elapsed());
        }
        // Each has been answered.
        held.iter_mut().for_each(|socket| socket.read_exact(&mut [0; 5]).unwrap());
        let grown = gate.anonymous_kib().saturating_sub(before);
        assert!(grown < 80 * 1024, "{driver}: {grown} KiB");
        assert!(slowest < Duration::from_secs(2), "{driver}: {slowest:?}");
        drop(held);
        wait_for("their sockets are closed", SHORT, || {
            println!("{} {sockets}", gate.sockets());
            (gate.sockets() <= sockets).then_some(())
        });
        client.send(b"still here");
        client.expect(b"still here");
    }
}

#[test]
fn a_newcomer_takes_the_place_of_the_oldest_unfinished_handshake() {
    allow_descriptors(8192);
    let authority = Authority::new("authority");
    for driver in BOTH {
        let echo = Echo::start();
        let gate = start(&authority, driver, echo.address(), "workers = 1");
        let address = gate.address("edge");
        let settings = Arc::new(tls_settings(&authority, VERSIONS[1]));
        let hello = TlsClient::over(connect(address), &settings, NAME).wire();
        let mut held = half_handshakes(address, &hello, 1024);
        held.iter_mut().for_each(|socket| socket.read_exact(&mut [0; 5]).unwrap());
        let mut client = TlsClient::connect(address, &settings, NAME);
        client.send(b"in time");
        client.expect(b"in time");
        let record = gate.records_where(1, |record| record.end() == "evicted").pop().unwrap();
        assert_eq!((record.text("protocol"), record.text("host")), ("tls", NAME), "{driver}");
        // Several accepts are in flight, so that the order of the first ones is not known.
        let is_its =
            |socket: &TcpStream| record.text("client") == socket.local_addr().unwrap().to_string();
        assert!(held[..64].iter().any(is_its), "it is one of the first: {record:?}");
    }
}

#[test]
fn a_record_that_was_tampered_with_is_an_alert_on_a_site_too() {
    let authority = Authority::new("authority");
    for driver in BOTH {
        let rule = authority.signs(&[NAME]).rule(&[NAME], "");
        let config = format!(
            "[[listener]]\nname = \"web\"\nlisten = \"127.0.0.1:0\"\nprotocol = \"http\"\n\
             {rule}\n[[listener.host]]\n[[listener.host.route]]\nprefix = \"/\"\n\
             respond = {{ body = \"page\" }}\n"
        );
        let server = format!("driver = \"{driver}\"");
        let gate = Setup { config, server, ..Setup::default() }.start();
        let settings = Arc::new(tls_settings(&authority, VERSIONS[1]));
        let mut client = TlsClient::connect(gate.address("web"), &settings, NAME);
        let mut request = client.records(b"GET / HTTP/1.1\r\nHost: mail.test\r\n\r\n");
        *request.last_mut().unwrap() ^= 1;
        // More than is read at once is on its way when the alert is.
        client.socket.write_all(&[request, bytes(1, 200 * 1024)].concat()).unwrap();
        let failure = client.expect_failure();
        assert_eq!(alert_of(&failure), Some(AlertDescription::BadRecordMac), "{driver}: {failure}");
        let record = gate.record();
        assert_eq!((record.end(), record.tls().text("error")), ("tls_failed", "decrypt"));
        let time = Duration::from_millis(20);
        holds_for("it is read", time, || client.socket.write_all(b"more").is_ok());
    }
}
