//! The same requests to nginx and to ringgate: the same status, body and line in the access log.

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;

use crate::support::{
    Process, Ringgate, SHORT, connect, free_port, require, wait_for, wait_listening,
};

/// nginx that answers, and has pages for errors.
fn nginx(dir: &Path) -> (SocketAddr, Process) {
    let port = free_port();
    let config = format!(
        "daemon off; pid nginx.pid; error_log stderr; events {{ }}\n\
         http {{ access_log combined.log combined; server {{ listen 127.0.0.1:{};\n\
         error_page 404 /404.html; error_page 405 /405.html;\n\
         location = /404.html {{ internal; return 404 nothing; }}\n\
         location = /405.html {{ internal; return 405 no; }}\n\
         location = /own {{ return 200 own; }} location = /gone {{ return 404 gone; }}\n\
         location / {{ return 404; }} }} }}\n",
        port.number()
    );
    fs::write(dir.join("nginx.conf"), config).unwrap();
    let mut nginx = require("nginx");
    nginx.arg("-p").arg(dir).args(["-c", "nginx.conf"]);
    let process = Process::spawn(nginx);
    wait_listening(port.number());
    (port.address(), process)
}

/// ringgate that does the same.
fn ringgate(dir: &Path) -> Ringgate {
    fs::write(dir.join("404.html"), "nothing").unwrap();
    fs::write(dir.join("405.html"), "no").unwrap();
    let dir = dir.display();
    Ringgate::start(&format!(
        r#"
        [[listener]]
        name = "web"
        listen = "127.0.0.1:0"
        protocol = "http"
        error_pages = {{ 404 = "{dir}/404.html", 405 = "{dir}/405.html" }}
        access_log = {{ path = "{dir}/ringgate.log", format = "combined" }}
          [[listener.host]]
            [[listener.host.route]]
            path = "/own"
            respond = {{ status = 200, body = "own" }}
            [[listener.host.route]]
            path = "/gone"
            respond = {{ status = 404, body = "gone" }}
        "#
    ))
}

fn requests() -> Vec<Vec<u8>> {
    let of = |line: String, fields: &[u8]| {
        let head = format!("{line} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n");
        [head.as_bytes(), fields, b"\r\n"].concat()
    };
    let mut requests = Vec::new();
    for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "QUERY"] {
        for path in ["/own", "/gone", "/missing?a=b"] {
            requests.push(of(format!("{method} {path}"), b""));
        }
    }
    for fields in [
        &b"User-Agent: Mozilla/5.0 (X11; Linux x86_64) a/1\r\nReferer: https://b.test/?c=d\r\n"[..],
        b"User-Agent: \"\\'\t- \xe9\xff\r\n",
        b"User-Agent:\r\nReferer:  \r\n",
        b"Referer: one\r\nreferer: two\r\nUSER-AGENT: three\r\nUser-Agent: four\r\n",
        b"Content-Length: 4\r\n\r\nbody",
    ] {
        requests.push(of("POST /own".to_owned(), fields));
    }
    requests.push(of("GET /own?\"a\\'[]{}".to_owned(), b""));
    requests.push(of("GET http://a.test/own".to_owned(), b""));
    requests.push(b"GET /own HTTP/1.0\r\n\r\n".to_vec());
    requests
}

/// The status line without its phrase, and the body.
fn answer(address: SocketAddr, request: &[u8]) -> (String, String) {
    let mut stream = connect(address);
    stream.write_all(request).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head[..12].to_owned(), body.to_owned())
}

/// The lines of a log without the time.
fn lines(log: &Path, count: usize) -> Vec<String> {
    let text = wait_for("all lines", SHORT, || {
        let text = fs::read_to_string(log).unwrap_or_default();
        (text.lines().count() >= count).then_some(text)
    });
    let without_time = |line: &str| {
        let (start, rest) = line.split_once('[').expect("a time");
        let (time, end) = rest.split_once(']').expect("its end");
        assert_eq!(time.len(), "02/Jan/2026:03:04:05 +0000".len(), "{line}");
        format!("{start}[]{end}")
    };
    text.lines().map(without_time).collect()
}

#[test]
fn answers_and_the_combined_log_are_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let (nginx, _process) = nginx(dir.path());
    let gate = ringgate(dir.path());
    let (ours, theirs) = (dir.path().join("ringgate.log"), dir.path().join("combined.log"));
    // One after the other: the workers write their records in any order.
    for (count, request) in requests().iter().enumerate() {
        let shown = String::from_utf8_lossy(request);
        assert_eq!(answer(gate.address("web"), request), answer(nginx, request), "{shown}");
        let (ours, theirs) = (lines(&ours, count + 1), lines(&theirs, count + 1));
        // Of a request that is refused ringgate keeps no more than the status.
        if !request.starts_with(b"TRACE") {
            assert_eq!(ours.last(), theirs.last(), "{shown}");
        }
    }
}
