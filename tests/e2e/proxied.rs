//! Requests that are passed on to a cluster, between real clients and real servers: methods,
//! bodies, connections that are used again, TLS.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use crate::support::{
    Application, Authority, HttpClient, Nginx, Process, Record, Ringgate, bytes, curl, direct,
    free_port, over_each_driver, proxied, require, run, sum, wait_listening,
};

const NAME: &str = "site.test";
const MIB: usize = 1024 * 1024;

fn to_application(application: &Application, listener: &str) -> String {
    proxied(&format!("\"{}\"", application.address()), listener, "", "")
}

/// curl with these arguments; its output.
#[track_caller]
fn curl_plain(arguments: &[&str]) -> Vec<u8> {
    let mut curl = require("curl");
    let output = run(curl.args(["-q", "-sS", "-m", "30"]).args(arguments));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// A file with these bytes.
fn file_of(content: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(content).unwrap();
    file
}

fn at(file: &Path) -> String {
    format!("@{}", file.display())
}

/// What every record of an exchange that went well says.
#[track_caller]
fn expect_done(record: &Record, method: &str, path: &str) {
    assert_eq!((record.end(), record.number("status")), ("done", 200), "{record:?}");
    assert_eq!((record.text("method"), record.text("path")), (method, path), "{record:?}");
    assert_eq!(
        (record.text("cluster"), record.text("protocol")),
        ("app", "HTTP/1.1"),
        "{record:?}"
    );
    assert!(record.text("endpoint").starts_with("127.0.0.1:"), "{record:?}");
}

#[test]
fn curl_gets_and_sends_what_the_application_has() {
    let application = Application::start();
    over_each_driver(&to_application(&application, ""), |gate| {
        let url = |path: &str| format!("http://{}{path}", gate.address("web"));
        for kind in ["bytes", "chunks", "close"] {
            for count in [0, 1, 1000, 100_000] {
                let answer = curl_plain(&[&url(&format!("/{kind}/{count}"))]);
                assert!(answer == bytes(count as u64, count), "{kind} {count}");
            }
        }
        let file = file_of(&bytes(7, 300_000));
        let whole = sum(&bytes(7, 300_000));
        let data = at(file.path());
        let upload = file.path().to_str().unwrap();
        let url = url("/sum");
        for arguments in [
            &["--data-binary", &data, &url][..],
            &["-H", "Expect:", "--data-binary", &data, &url],
            &["-H", "Expect: 100-continue", "--data-binary", &data, &url],
            &["-H", "Transfer-Encoding: chunked", "--data-binary", &data, &url],
            &["-H", "Transfer-Encoding: chunked", "-H", "Expect:", "-T", upload, &url],
            &["-T", upload, &url],
            &["-X", "PATCH", "-T", upload, &url],
        ] {
            assert_eq!(String::from_utf8_lossy(&curl_plain(arguments)), whole, "{arguments:?}");
        }
        assert_eq!(curl_plain(&["-X", "POST", &url]), sum(b"").as_bytes());
        assert_eq!(curl_plain(&["-X", "DELETE", &url]), sum(b"").as_bytes());
    });
}

#[test]
fn head_gets_the_length_and_no_body() {
    let application = Application::start();
    over_each_driver(&to_application(&application, ""), |gate| {
        let mut client = HttpClient::connect(gate.address("web"));
        for (path, length) in [("/bytes/5000", Some("5000")), ("/chunks/9", None)] {
            client.send(format!("HEAD {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
            let head = client.head_only();
            assert_eq!((head.status, head.field("content-length")), (200, length), "{}", head.head);
        }
        client.send("GET /bytes/3 HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.response().body, bytes(3, 3));
        let records = gate.records(3);
        expect_done(&records[0], "HEAD", "/bytes/5000");
        expect_done(&records[2], "GET", "/bytes/3");
    });
}

#[test]
fn many_requests_share_one_connection_to_the_application() {
    for kind in ["bytes", "chunks"] {
        let application = Application::start();
        let config = to_application(&application, "");
        over_each_driver(&config, |gate| {
            let earlier = application.connections();
            let url = format!("http://{}/{kind}/[1000-1040]", gate.address("web"));
            assert_eq!(curl_plain(&[&url]).len(), (1000..=1040).sum::<usize>());
            // Clients come and go; the connection stays.
            for _ in 0..5 {
                curl_plain(&[&format!("http://{}/{kind}/5", gate.address("web"))]);
            }
            assert_eq!(application.connections(), earlier + 1, "{kind}");
            let records = gate.records(46);
            records.iter().for_each(|record| assert_eq!(record.end(), "done", "{record:?}"));
        });
    }
}

#[test]
fn twenty_mebibytes_are_spliced_both_ways() {
    let application = Application::start();
    let content = bytes(3, 20 * MIB);
    let file = file_of(&content);
    over_each_driver(&to_application(&application, ""), |gate| {
        let url = |path: &str| format!("http://{}{path}", gate.address("web"));
        let answer = curl_plain(&[&url(&format!("/bytes/{}", 20 * MIB))]);
        assert!(answer == bytes(20 * MIB as u64, 20 * MIB), "other bytes");
        let data = at(file.path());
        let answer = curl_plain(&["-H", "Expect:", "--data-binary", &data, &url("/sum")]);
        assert_eq!(answer, sum(&content).as_bytes());
        let records = gate.records(2);
        assert_eq!(records[0].text("relay"), "splice", "{:?}", records[0]);
        assert!(records[0].number("bytes_down") > 20 * MIB as u64, "{:?}", records[0]);
        assert!(records[1].number("bytes_up") > 20 * MIB as u64, "{:?}", records[1]);
        assert_eq!(records[1].text("relay"), "splice", "{:?}", records[1]);
    });
}

#[test]
fn twenty_mebibytes_in_chunks_go_both_ways() {
    let application = Application::start();
    let content = bytes(3, 20 * MIB);
    let file = file_of(&content);
    over_each_driver(&to_application(&application, ""), |gate| {
        let url = |path: &str| format!("http://{}{path}", gate.address("web"));
        for kind in ["chunks", "close"] {
            let answer = curl_plain(&[&url(&format!("/{kind}/{}", 20 * MIB))]);
            assert!(answer == bytes(20 * MIB as u64, 20 * MIB), "{kind}: other bytes");
        }
        let data = at(file.path());
        let chunked = ["-H", "Expect:", "-H", "Transfer-Encoding: chunked"];
        let target = url("/sum");
        let arguments = [&chunked[..], &["--data-binary", &data, &target]].concat();
        assert_eq!(curl_plain(&arguments), sum(&content).as_bytes());
        for record in gate.records(3) {
            assert_eq!((record.end(), record.text("relay")), ("done", "copy"), "{record:?}");
        }
    });
}

#[test]
fn twenty_mebibytes_over_tls_are_copied_both_ways() {
    let authority = Authority::new("authority");
    let application = Application::start();
    let content = bytes(3, 20 * MIB);
    let file = file_of(&content);
    let rule = authority.signs(&[NAME]).rule(&[NAME], "");
    over_each_driver(&to_application(&application, &rule), |gate| {
        let address = gate.address("web");
        for kind in ["bytes", "chunks"] {
            let url = format!("https://{NAME}/{kind}/{}", 20 * MIB);
            let output = curl(address, &authority, &["--http1.1", &url]);
            assert!(output.stdout == bytes(20 * MIB as u64, 20 * MIB), "{:?}", output.stderr);
        }
        let (data, url) = (at(file.path()), format!("https://{NAME}/sum"));
        for field in ["Expect:", "Transfer-Encoding: chunked"] {
            let arguments = ["--http1.1", "-H", field, "--data-binary", &data, &url];
            let output = curl(address, &authority, &arguments);
            assert_eq!(output.stdout, sum(&content).as_bytes(), "{:?}", output.stderr);
        }
        for record in gate.records(4) {
            assert_eq!((record.end(), record.text("relay")), ("done", "copy"), "{record:?}");
            assert!(record.has_tls(), "{record:?}");
        }
    });
}

#[test]
fn nginx_behind_it_is_asked_over_one_connection_also_over_tls() {
    let authority = Authority::new("authority");
    let pair = authority.signs(&[NAME]);
    let own = "location / { return 200 '$connection $connection_requests $host $scheme'; }\n\
               location /files/ { alias html/; }";
    let tls =
        format!("ssl_certificate {:?}; ssl_certificate_key {:?};", pair.certificate, pair.key);
    let trust = format!("tls = {{ server_name = \"{NAME}\", ca = {:?} }}", authority.file());
    let content = bytes(9, 3 * MIB);
    for (listen, more, cluster, scheme) in [("", "", "", "http"), ("ssl", &*tls, &*trust, "https")]
    {
        let nginx = Nginx::start(listen, &format!("{own}\n{more}"));
        nginx.write("large", &content);
        let config = proxied(&format!("\"{}\"", nginx.address()), "", "", cluster);
        over_each_driver(&config, |gate| {
            let mut client = HttpClient::connect(gate.address("web"));
            let mut connection = String::new();
            for number in 1..=5 {
                client.send("GET / HTTP/1.1\r\nHost: own.test\r\n\r\n");
                let response = client.response();
                let body = String::from_utf8(response.body).unwrap();
                let (first, rest) = body.split_once(' ').unwrap();
                assert_eq!(rest, format!("{number} own.test {scheme}"));
                connection = if number == 1 { first.to_owned() } else { connection };
                assert_eq!(connection, first);
            }
            client.send("GET /files/large HTTP/1.1\r\nHost: own.test\r\n\r\n");
            assert!(client.response().body == content, "{scheme}: other bytes");
            client.send("GET /files/missing HTTP/1.1\r\nHost: own.test\r\n\r\n");
            assert_eq!(client.response().status, 404);
            let records = gate.records(7);
            let relay = if scheme == "https" { "copy" } else { "splice" };
            assert_eq!(records[5].text("relay"), relay, "{:?}", records[5]);
            assert_eq!((records[6].end(), records[6].number("status")), ("done", 404));
        });
    }
}

#[test]
fn a_certificate_of_a_backend_that_is_not_trusted_is_a_502() {
    let (authority, other) = (Authority::new("authority"), Authority::new("other"));
    let pair = authority.signs(&[NAME]);
    let tls =
        format!("ssl_certificate {:?}; ssl_certificate_key {:?};", pair.certificate, pair.key);
    let nginx = Nginx::start("ssl", &format!("location / {{ return 200 'secret'; }}\n{tls}"));
    let trust = format!("tls = {{ server_name = \"{NAME}\", ca = {:?} }}", other.file());
    let config = proxied(&format!("\"{}\"", nginx.address()), "", "", &trust);
    over_each_driver(&config, |gate| {
        let mut client = HttpClient::connect(gate.address("web"));
        client.send("GET / HTTP/1.1\r\nHost: own.test\r\n\r\n");
        let response = client.response();
        assert_eq!(response.status, 502, "{}", response.head);
        let record = gate.record();
        assert_eq!((record.end(), record.number("status")), ("upstream_tls_failed", 502));
    });
}

#[test]
fn pythons_server_of_http_1_0_is_asked_over_a_new_connection_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let content = bytes(4, 2 * MIB);
    std::fs::write(dir.path().join("large.bin"), &content).unwrap();
    std::fs::write(dir.path().join("small.txt"), "small").unwrap();
    let port = free_port();
    let mut python = direct(Command::new("python3"));
    python.args(["-u", "-m", "http.server", "--bind", "127.0.0.1", &port.number().to_string()]);
    python.arg("--directory").arg(dir.path());
    let _python = Process::spawn(python);
    wait_listening(port.number());
    over_each_driver(&proxied(&format!("\"{}\"", port.address()), "", "", ""), |gate| {
        let mut client = HttpClient::connect(gate.address("web"));
        for _ in 0..3 {
            client.send("GET /small.txt HTTP/1.1\r\nHost: a\r\n\r\n");
            let response = client.response();
            assert_eq!((response.status, &*response.body), (200, &b"small"[..]));
            assert_eq!(response.field("content-type"), Some("text/plain"));
        }
        client.send("GET /large.bin HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(client.response().body == content, "other bytes");
        client.send("HEAD /large.bin HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.head_only().field("content-length"), Some("2097152"));
        client.send("POST /small.txt HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody");
        assert_eq!(client.response().status, 501);
        let ends: Vec<_> = gate.records(6).iter().map(|record| record.end().to_owned()).collect();
        assert_eq!(ends, ["done"; 6]);
    });
}

#[test]
fn clients_at_once_get_their_own_answers() {
    let application = Application::start();
    over_each_driver(&to_application(&application, ""), |gate| {
        let address = gate.address("web");
        std::thread::scope(|scope| {
            for client in 0..24 {
                scope.spawn(move || {
                    let mut stream = HttpClient::connect(address);
                    for round in 0..20 {
                        let count = client * 1000 + round;
                        let kind = if round % 2 == 0 { "bytes" } else { "chunks" };
                        let get = format!("GET /{kind}/{count} HTTP/1.1\r\nHost: a\r\n\r\n");
                        stream.send(get);
                        assert!(stream.response().body == bytes(count as u64, count), "{count}");
                        let body = bytes(count as u64, count);
                        stream.send(format!(
                            "POST /sum HTTP/1.1\r\nHost: a\r\nContent-Length: {count}\r\n\r\n"
                        ));
                        stream.send(&body);
                        assert_eq!(stream.response().body, sum(&body).as_bytes(), "{count}");
                    }
                });
            }
        });
        let done = gate.records(24 * 40);
        done.iter().for_each(|record| assert_eq!(record.end(), "done", "{record:?}"));
    });
    assert!(application.connections() <= 48, "{} connections", application.connections());
}

#[test]
fn a_record_of_an_exchange_has_its_facts() {
    let application = Application::start();
    let gate = Ringgate::start(&to_application(&application, ""));
    let mut client = HttpClient::connect(gate.address("web"));
    client.send("POST /sum?a=b HTTP/1.1\r\nHost: own.test:81\r\nContent-Length: 5\r\n\r\nhello");
    let answer = client.response();
    assert_eq!(answer.body, sum(b"hello").as_bytes());
    let record = gate.record();
    expect_done(&record, "POST", "/sum?a=b");
    assert_eq!((record.text("host"), record.text("listener")), ("own.test", "web"));
    assert_eq!(record.text("endpoint"), application.address().to_string());
    let down = answer.head.len() + answer.body.len();
    assert_eq!(record.number("bytes_down"), down as u64, "{record:?} {}", answer.head);
    assert!(record.number("bytes_up") > 60, "{record:?}");
    assert!(record.text("route").contains('/'), "{record:?}");
}
