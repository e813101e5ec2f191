//! HTTPS: the pages of a site over TLS that ends in ringgate.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::{
    Authority, HttpClient, OpensslClient, Record, Ringgate, SHORT, SOON, Setup, TlsClient,
    VERSIONS, alert_of, bytes, connect, curl, expect_silence, send_slowly, slow_reader,
    tls_settings, wait_for,
};

const BOTH: [&str; 2] = ["io_uring", "epoll"];
const NAME: &str = "site.test";
const GET: &str = "GET / HTTP/1.1\r\nHost: site.test\r\n\r\n";

/// A listener `web` with this page and a certificate for [`NAME`]; `listener` is more lines of it.
fn setup(authority: &Authority, driver: &str, listener: &str, page: &str) -> Setup {
    let rule = authority.signs(&[NAME]).rule(&[NAME], "");
    let config = format!(
        "[[listener]]\nname = \"web\"\nlisten = \"127.0.0.1:0\"\nprotocol = \"http\"\n{listener}\n\
         [[listener.host]]\n[[listener.host.route]]\nprefix = \"/moved\"\n\
         redirect = {{ path = \"/\" }}\n\
         [[listener.host.route]]\nprefix = \"/\"\nrespond = {{ body = \"{page}\" }}\n{rule}"
    );
    Setup { config, server: format!("driver = \"{driver}\""), ..Setup::default() }
}

fn start(authority: &Authority, driver: &str) -> Ringgate {
    setup(authority, driver, "", "page").start()
}

/// What every record of a connection that was served says about its TLS.
#[track_caller]
fn expect_facts(record: &Record, version: &str, alpn: &str) {
    let tls = record.tls();
    assert_eq!((tls.text("version"), tls.text("sni")), (version, NAME), "{record:?}");
    assert_eq!((tls.text("alpn"), tls.flag("resumed")), (alpn, Some(false)), "{record:?}");
    assert!(tls.text("cipher").contains("_WITH_") == (version == "1.2"), "{record:?}");
    assert!(tls.number("handshake_ms") < SHORT.as_millis() as u64, "{record:?}");
    assert_eq!(tls.text("error"), "", "{record:?}");
}

#[test]
fn curl_gets_pages_over_one_connection_and_the_record_says_how() {
    let authority = Authority::new("authority");
    for driver in BOTH {
        let gate = start(&authority, driver);
        for (version, number) in [("1.2", 2), ("1.3", 4)] {
            let (least, url) = (format!("--tlsv{version}"), format!("https://{NAME}/"));
            let shown = ["-w", " %{http_code} %{num_connects}\n"];
            let mut arguments = vec![&*least, "--tls-max", version, &url, &url];
            arguments.extend(shown);
            let output = curl(gate.address("web"), &authority, &arguments);
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{driver}, {version}: {said}");
            let pages = String::from_utf8_lossy(&output.stdout);
            assert_eq!(pages, "page 200 1\npage 200 0\n", "{driver}, {version}");
            let records = gate.records(number);
            let (first, second) = (&records[number - 2], &records[number - 1]);
            expect_facts(first, version, "h2");
            expect_facts(second, version, "h2");
            assert_eq!((first.end(), first.number("status")), ("done", 200));
        }
    }
}

#[test]
fn a_certificate_that_a_client_does_not_trust_is_an_alert_and_a_record() {
    let (authority, other) = (Authority::new("authority"), Authority::new("other"));
    let gate = start(&authority, "io_uring");
    let output = curl(gate.address("web"), &other, &["https://site.test/"]);
    // "Peer certificate cannot be authenticated with known CA certificates", curl(1).
    assert_eq!(output.status.code(), Some(60));
    let record = gate.record();
    assert_eq!((record.end(), record.text("protocol")), ("tls_failed", "tls"));
    assert_eq!((record.text("host"), record.text("route")), (NAME, NAME));
    assert_eq!((record.tls().text("error"), record.tls().text("sni")), ("alert", NAME));
}

#[test]
fn a_redirect_keeps_https() {
    let authority = Authority::new("authority");
    let gate = start(&authority, "io_uring");
    let arguments = ["-o", "/dev/null", "-w", "%{redirect_url}", "https://site.test/moved?a=1"];
    let output = curl(gate.address("web"), &authority, &arguments);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "https://site.test/?a=1");
}

#[test]
fn requests_may_come_many_in_a_record_and_in_many_records() {
    let authority = Authority::new("authority");
    for driver in BOTH {
        let gate = start(&authority, driver);
        for version in VERSIONS {
            let settings = Arc::new(tls_settings(&authority, version));
            let connect = || TlsClient::connect(gate.address("web"), &settings, NAME);

            let mut client = HttpClient::over(connect());
            client.send(GET.repeat(100));
            (0..100).for_each(|_| assert_eq!(client.response().body, b"page", "{driver}"));

            let mut client = connect();
            let singly: Vec<u8> =
                GET.repeat(2).bytes().flat_map(|byte| client.records(&[byte])).collect();
            client.socket.write_all(&singly).unwrap();
            let mut client = HttpClient::over(client);
            (0..2).for_each(|_| assert_eq!(client.response().body, b"page", "{driver}"));
        }
    }
}

#[test]
fn a_request_may_be_cut_at_every_byte_of_its_record() {
    let authority = Authority::new("authority");
    for driver in BOTH {
        let gate = start(&authority, driver);
        for version in VERSIONS {
            let settings = Arc::new(tls_settings(&authority, version));
            let client = TlsClient::connect(gate.address("web"), &settings, NAME);
            let mut client = HttpClient::over(client);
            let length = client.stream.records(GET.as_bytes());
            client.stream.socket.write_all(&length).unwrap();
            assert_eq!(client.response().status, 200);
            for cut in 1..length.len() {
                let tls = &mut client.stream;
                let record = tls.records(GET.as_bytes());
                send_slowly(&mut tls.socket, &[&record[..cut], &record[cut..]]);
                assert_eq!(client.response().body, b"page", "{driver}, cut at {cut}");
            }
        }
    }
}

#[test]
fn a_handshake_may_be_cut_at_every_byte() {
    let authority = Authority::new("authority");
    for driver in BOTH {
        let gate = start(&authority, driver);
        for version in VERSIONS {
            let mut settings = tls_settings(&authority, version);
            settings.resumption = rustls::client::Resumption::disabled();
            let settings = Arc::new(settings);
            let address = gate.address("web");
            let served = |cut| {
                let mut client = TlsClient::over(connect(address), &settings, NAME);
                let total = client.shake_hands_cut(cut);
                client.send(GET);
                assert_eq!(HttpClient::over(client).response().body, b"page", "cut at {cut}");
                total
            };
            let total = served(0);
            // Four at a time, because each waits between its two parts.
            std::thread::scope(|scope| {
                for thread in 0..4 {
                    let served = &served;
                    scope.spawn(move || {
                        (1 + thread..total).step_by(4).for_each(|cut| {
                            served(cut);
                        })
                    });
                }
            });
        }
    }
}

#[test]
fn a_request_may_come_with_the_last_bytes_of_the_handshake() {
    let authority = Authority::new("authority");
    for driver in BOTH {
        let gate = start(&authority, driver);
        let settings = Arc::new(tls_settings(&authority, VERSIONS[1]));
        let mut client = TlsClient::over(gate.connect("web"), &settings, NAME);
        // What is written before the handshake waits for its end.
        client.session.writer().write_all(GET.as_bytes()).unwrap();
        client.shake_hands().unwrap();
        assert_eq!(HttpClient::over(client).response().body, b"page", "{driver}");
    }
}

#[test]
fn a_large_page_reaches_a_slow_reader_whole() {
    let authority = Authority::new("authority");
    let page = "x".repeat((1 << 20) - 1);
    for driver in BOTH {
        let gate = setup(&authority, driver, "", &page).start();
        for version in VERSIONS {
            let settings = Arc::new(tls_settings(&authority, version));
            let mut client = TlsClient::over(slow_reader(gate.address("web")), &settings, NAME);
            client.shake_hands().unwrap();
            client.send("GET / HTTP/1.1\r\nHost: site.test\r\nConnection: close\r\n\r\n");
            // It comes when the response is under way.
            client.send("GET /behind HTTP/1.1\r\n");
            let mut client = HttpClient::over(client);
            let response = client.response();
            assert!(response.body == page.as_bytes(), "{driver}: {}", response.body.len());
            client.stream.expect_close_notify();
        }
    }
}

#[test]
fn new_keys_amid_requests_change_nothing() {
    let authority = Authority::new("authority");
    for driver in BOTH {
        let gate = start(&authority, driver);
        let settings = Arc::new(tls_settings(&authority, VERSIONS[1]));
        let client = TlsClient::connect(gate.address("web"), &settings, NAME);
        let mut client = HttpClient::over(client);
        for _ in 0..100 {
            client.stream.session.refresh_traffic_keys().unwrap();
            client.send(GET);
            assert_eq!(client.response().body, b"page", "{driver}");
        }
    }
}

#[test]
fn a_renegotiation_is_refused() {
    let authority = Authority::new("authority");
    let gate = start(&authority, "io_uring");
    let arguments = ["-tls1_2", "-crlf"];
    let mut client = OpensslClient::start(gate.address("web"), &authority, NAME, &arguments);
    client.types("R");
    client.line_with("RENEGOTIATING");
    let said = client.ends();
    assert!(said.contains("no renegotiation"), "{said}");
}

#[test]
fn a_keepalive_timeout_is_a_close_notify() {
    let authority = Authority::new("authority");
    for driver in BOTH {
        let gate = setup(&authority, driver, "keepalive_timeout = \"300ms\"", "page").start();
        for version in VERSIONS {
            let settings = Arc::new(tls_settings(&authority, version));
            let client = TlsClient::connect(gate.address("web"), &settings, NAME);
            let mut client = HttpClient::over(client);
            client.send(GET);
            assert_eq!(client.response().status, 200);
            client.stream.expect_close_notify();
        }
    }
}

#[test]
fn a_drain_ends_connections_that_wait_with_a_close_notify() {
    let authority = Authority::new("authority");
    for driver in BOTH {
        let mut gate = start(&authority, driver);
        let settings = Arc::new(tls_settings(&authority, VERSIONS[1]));
        let client = TlsClient::connect(gate.address("web"), &settings, NAME);
        let mut client = HttpClient::over(client);
        client.send(GET);
        assert_eq!(client.response().status, 200);
        gate.signal(Signal::TERM);
        client.stream.expect_close_notify();
        drop(client);
        assert_eq!(gate.wait_exit(SHORT).code(), Some(0), "{driver}");
    }
}

/// Sends `first` and nothing more; returns the record of the end.
#[track_caller]
fn stalls(gate: &Ringgate, first: &[u8], expected: usize) -> (TcpStream, Record) {
    let mut socket = gate.connect("web");
    socket.write_all(first).unwrap();
    (socket, gate.records(expected).pop().unwrap())
}

#[test]
fn a_handshake_that_stalls_ends_with_the_time_for_a_hello() {
    let authority = Authority::new("authority");
    for driver in BOTH {
        let gate = setup(&authority, driver, "hello_timeout = \"500ms\"", "page").start();
        let settings = Arc::new(tls_settings(&authority, VERSIONS[1]));
        let mut client = TlsClient::over(gate.connect("web"), &settings, NAME);
        let hello = client.wire();
        // The socket of a fresh client takes no part: only its hello counts.
        for (at, part) in [&hello[..40], &hello[..]].into_iter().enumerate() {
            let (mut socket, record) = stalls(&gate, part, at + 1);
            assert_eq!(record.end(), "head_timeout", "{driver}, {} bytes", part.len());
            socket.set_read_timeout(Some(SOON)).unwrap();
            let read = std::io::copy(&mut socket, &mut std::io::sink());
            assert!(read.is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset));
        }
    }
}

#[test]
fn a_client_that_ends_without_a_close_notify_has_ended() {
    let authority = Authority::new("authority");
    for driver in BOTH {
        let gate = start(&authority, driver);
        let sockets = gate.sockets();
        let settings = Arc::new(tls_settings(&authority, VERSIONS[1]));
        for request in ["", "GET / HT", GET] {
            let mut client = TlsClient::connect(gate.address("web"), &settings, NAME);
            client.send(request);
            client.end_without_close_notify();
            let mut rest = Vec::new();
            let _ = client.read_to_end(&mut rest);
            assert_eq!(rest.starts_with(b"HTTP/1.1 200"), request == GET, "{driver}, {request:?}");
        }
        wait_for("its sockets are closed", SHORT, || (gate.sockets() <= sockets).then_some(()));
    }
}

#[test]
fn plaintext_behind_a_handshake_is_refused_with_an_alert() {
    let authority = Authority::new("authority");
    for driver in BOTH {
        let gate = start(&authority, driver);
        for version in VERSIONS {
            let settings = Arc::new(tls_settings(&authority, version));
            let mut client = TlsClient::connect(gate.address("web"), &settings, NAME);
            client.send(GET);
            let mut client = HttpClient::over(client);
            assert_eq!(client.response().status, 200);
            // More than the kernel may still be sending when the alert is on its way.
            let junk = [GET.as_bytes(), &bytes(1, 64 * 1024)].concat();
            let _ = client.stream.socket.write_all(&junk);
            let failure = client.stream.expect_failure();
            assert!(alert_of(&failure).is_some(), "{driver}: {failure}");
        }
    }
}

#[test]
fn a_secure_connection_stays_while_nothing_is_asked() {
    let authority = Authority::new("authority");
    let gate = start(&authority, "io_uring");
    let settings = Arc::new(tls_settings(&authority, VERSIONS[0]));
    let mut client = TlsClient::connect(gate.address("web"), &settings, NAME);
    expect_silence(&mut client.socket, Duration::from_millis(300));
    client.send(GET);
    assert_eq!(HttpClient::over(client).response().status, 200);
}
