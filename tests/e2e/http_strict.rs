//! What the front end takes for a request, and what it refuses before anything behind it can
//! misread it.

use crate::support::{HttpClient, Ringgate, Setup, UPGRADE, Upstream, stream_site};

const NEXT: &str = "GET /next HTTP/1.1\r\nHost: live.example.test\r\n\r\n";

/// A site whose upgrade route must not be reached.
struct Site {
    gate: Ringgate,
    upstream: Upstream,
}

impl Site {
    fn start() -> Self {
        let upstream = Upstream::listen();
        let gate = Ringgate::start(&stream_site(upstream.address(), ""));
        Site { gate, upstream }
    }

    /// Sends the request with another one behind it: a refused connection must not answer that.
    #[track_caller]
    fn refuses(&self, name: &str, statuses: &[u16], request: impl AsRef<[u8]>) {
        eprintln!("case: {name}");
        let mut client = HttpClient::connect(self.gate.address("web"));
        client.send([request.as_ref(), NEXT.as_bytes()].concat());
        let response = client.response();
        assert!(statuses.contains(&response.status), "{name}: {}", response.head);
        assert_eq!(response.field("connection"), Some("close"), "{name}: {}", response.head);
        client.expect_end();
        assert!(self.upstream.try_accept().is_none(), "{name}: something reached the upstream");
    }

    /// Sends the request with another one behind it: both are redirected.
    #[track_caller]
    fn redirects(&self, name: &str, request: impl AsRef<[u8]>, location: &str) {
        eprintln!("case: {name}");
        let mut client = HttpClient::connect(self.gate.address("web"));
        client.send([request.as_ref(), NEXT.as_bytes()].concat());
        let response = client.response();
        assert_eq!(response.status, 301, "{name}: {}", response.head);
        assert_eq!(response.field("location"), Some(location), "{name}");
        let next = client.response();
        assert_eq!(next.field("location"), Some("https://www.example.test/next"), "{name}");
        assert!(self.upstream.try_accept().is_none(), "{name}: something reached the upstream");
    }
}

/// A GET with these lines behind the request line, with Host.
fn get(fields: &str) -> String {
    format!("GET /a HTTP/1.1\r\nHost: live.example.test\r\n{fields}\r\n")
}

/// A POST with these lines, so that no rule for GET interferes.
fn post(fields: &str) -> String {
    format!("POST /a HTTP/1.1\r\nHost: live.example.test\r\n{fields}\r\n")
}

#[test]
fn malformed_heads_are_400_and_close() {
    let site = Site::start();
    let cases = [
        ("no Host", "GET /a HTTP/1.1\r\n\r\n".to_owned()),
        ("two Hosts", get("Host: live.example.test\r\n")),
        ("obs-fold", get("X: a\r\n b\r\n")),
        ("obs-fold with a tab", get("X: a\r\n\tb\r\n")),
        ("obs-fold on the first field", "GET /a HTTP/1.1\r\n Host: a\r\n\r\n".to_owned()),
        ("a space before the colon", get("X : a\r\n")),
        ("a space before the colon of Host", "GET /a HTTP/1.1\r\nHost : a\r\n\r\n".to_owned()),
        ("a field without a name", get(": a\r\n")),
        ("a field without a colon", get("X\r\n")),
        ("a field name that is no token", get("X(y): a\r\n")),
        ("bare LF everywhere", "GET /a HTTP/1.1\nHost: live.example.test\n\n".to_owned()),
        ("bare LF behind one field", get("X: a\nY: b\r\n")),
        ("bare LF behind the request line", "GET /a HTTP/1.1\nHost: a\r\n\r\n".to_owned()),
        ("bare LF at the end", "GET /a HTTP/1.1\r\nHost: a\r\n\n".to_owned()),
        ("bare CR in a value", get("X: a\rb\r\n")),
        ("NUL in a value", get("X: a\0b\r\n")),
        ("a control byte in a value", get("X: a\x01b\r\n")),
        ("DEL in a value", get("X: a\x7fb\r\n")),
        ("NUL in a name", get("X\0: a\r\n")),
        ("a control byte in the target", "GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("a space in the target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("a tab in the request line", "GET\t/a HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("two spaces in the request line", "GET  /a HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("no target", "GET HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("a fragment", "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("a target without a slash", "GET a HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("a port beyond 65535", "GET /a HTTP/1.1\r\nHost: a:65536\r\n\r\n".to_owned()),
        ("a port of 99999", "GET /a HTTP/1.1\r\nHost: a:99999\r\n\r\n".to_owned()),
        ("such a port of an address", "GET /a HTTP/1.1\r\nHost: [::1]:65536\r\n\r\n".to_owned()),
        ("an asterisk for GET", "GET * HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("an asterisk with a query", "OPTIONS *?a HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("a method that is no token", "G(T /a HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("TLS", "\x16\x03\x01\x02\r\n\r\n".to_owned()),
    ];
    for (name, request) in cases {
        site.refuses(name, &[400], request);
    }
}

#[test]
fn ambiguous_lengths_are_400_and_close() {
    let site = Site::start();
    let cases = [
        ("a plus sign", post("Content-Length: +5\r\n")),
        ("a minus sign", post("Content-Length: -1\r\n")),
        ("hexadecimal", post("Content-Length: 0x5\r\n")),
        ("a list", post("Content-Length: 5, 5\r\n")),
        ("empty", post("Content-Length:\r\n")),
        ("words", post("Content-Length: five\r\n")),
        ("a fraction", post("Content-Length: 5.0\r\n")),
        ("more than 64 bits", post("Content-Length: 18446744073709551616\r\n")),
        ("twice the same", post("Content-Length: 5\r\nContent-Length: 5\r\n")),
        ("two different", post("Content-Length: 5\r\nContent-Length: 6\r\n")),
        ("with chunked", post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n")),
        ("with chunked, first", post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n")),
        ("with a coding in capitals", post("Content-Length: 5\r\nTransfer-Encoding: CHUNKED\r\n")),
        ("gzip", post("Transfer-Encoding: gzip\r\n")),
        ("identity", post("Transfer-Encoding: identity\r\n")),
        ("gzip, chunked", post("Transfer-Encoding: gzip, chunked\r\n")),
        ("chunked, gzip", post("Transfer-Encoding: chunked, gzip\r\n")),
        ("chunked twice", post("Transfer-Encoding: chunked, chunked\r\n")),
        ("chunked twice, in two lines", post(&"Transfer-Encoding: chunked\r\n".repeat(2))),
        ("nearly chunked", post("Transfer-Encoding: xchunked\r\n")),
        ("empty coding", post("Transfer-Encoding:\r\n")),
        ("a vertical tab", post("Transfer-Encoding: \x0bchunked\r\n")),
    ];
    for (name, request) in cases {
        site.refuses(name, &[400], request);
    }
}

#[test]
fn ambiguous_upgrades_are_400_and_close() {
    let site = Site::start();
    let upgrade = |fields: &str| UPGRADE.replacen("\r\n\r\n", &format!("\r\n{fields}\r\n"), 1);
    let cases = [
        ("chunked", upgrade("Transfer-Encoding: chunked\r\n")),
        ("gzip", upgrade("Transfer-Encoding: gzip\r\n")),
        ("two lengths", upgrade("Content-Length: 0\r\nContent-Length: 0\r\n")),
        ("a signed length", upgrade("Content-Length: +0\r\n")),
        ("two Hosts", upgrade("Host: live.example.test\r\n")),
        ("obs-fold", upgrade("X: a\r\n b\r\n")),
    ];
    for (name, request) in cases {
        site.refuses(name, &[400], request);
    }
}

#[test]
fn methods_and_versions_that_are_not_served() {
    let site = Site::start();
    let host = "Host: live.example.test\r\n\r\n";
    let connect = "CONNECT live.example.test:443 HTTP/1.1\r\n".to_owned() + host;
    site.refuses("CONNECT", &[405], connect);
    site.refuses("PRI", &[400, 505], "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    for version in ["HTTP/2.0", "HTTP/3.0", "HTTP/0.9", "HTTP/1.2", "HTTP/1.10", "http/1.1", "X"] {
        site.refuses(version, &[400, 505], format!("GET /a {version}\r\n{host}"));
    }
    site.refuses("no version", &[400, 505], "GET /a\r\n\r\n");
}

#[test]
fn a_record_says_why_a_request_was_refused() {
    let config = r#"
        [[listener]]
        name = "web"
        listen = "127.0.0.1:0"
        protocol = "http"
        head_timeout = "300ms"

          [[listener.host]]
          route = [
            { path = "/a", redirect = { scheme = "https" } },
            { prefix = "/", respond = { body = "x" } },
          ]
    "#;
    let config = config.to_owned();
    let gate = Setup { config, server: "workers = 1".to_owned(), ..Setup::default() }.start();
    let line = |line: &str| format!("{line}\r\nHost: a\r\n\r\n");
    let upgrade = "Upgrade: websocket\r\nConnection: upgrade\r\nTransfer-Encoding: chunked\r\n";
    let cases = [
        ("bad_request_line", 400, line("GET  /a HTTP/1.1")),
        ("bad_version", 505, line("GET /a HTTP/1.2")),
        ("connect", 405, line("CONNECT a:443 HTTP/1.1")),
        ("bad_target", 400, line("GET a HTTP/1.1")),
        ("bad_target", 400, line("GET /#a HTTP/1.1")),
        ("bad_target", 400, line("GET /\u{e9} HTTP/1.1")),
        ("no_host", 400, "GET /a HTTP/1.1\r\n\r\n".to_owned()),
        ("no_host", 400, "GET /a HTTP/1.0\r\n\r\n".to_owned()),
        ("two_hosts", 400, get("Host: live.example.test\r\n")),
        ("bad_host", 400, "GET /a HTTP/1.1\r\nHost: a:99999\r\n\r\n".to_owned()),
        ("other_host", 400, line("GET http://b/a HTTP/1.1")),
        ("bad_field_name", 400, get("X : a\r\n")),
        ("bad_field_value", 400, get("X: a\x01b\r\n")),
        ("bad_length", 400, post("Content-Length: five\r\n")),
        ("two_lengths", 400, post(&"Content-Length: 5\r\n".repeat(2))),
        ("bad_coding", 400, post("Transfer-Encoding: gzip\r\n")),
        ("bad_coding", 400, get(upgrade)),
        ("two_framings", 400, post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n")),
        ("bare_line_feed", 400, "GET /a HTTP/1.1\n".to_owned()),
        ("not_http", 400, "\x16\x03\x01".to_owned()),
        ("not_http", 400, "\x16\x03\x01\x02\n\x01".to_owned()),
        ("too_many_fields", 431, get(&"X: y\r\n".repeat(100))),
        ("head_too_large", 431, get(&format!("X: {}\r\n", "y".repeat(17_000)))),
        ("slow_head", 408, "GET /a HTTP/1.1\r\n".to_owned()),
    ];
    for (index, (reason, status, request)) in cases.into_iter().enumerate() {
        let mut client = HttpClient::connect(gate.address("web"));
        client.send(request);
        assert_eq!(client.response().status, status, "{reason}");
        let record = gate.records(index + 1).pop().unwrap();
        let said = (record.text("reason"), record.number("status"));
        assert_eq!(said, (reason, status.into()), "{record:?}");
    }
    let mut client = HttpClient::connect(gate.address("web"));
    client.send(line("GET /b HTTP/1.1"));
    assert_eq!(client.response().status, 200);
    let answered = gate.records_where(1, |record| record.text("path") == "/b").remove(0);
    assert_eq!(answered.text("reason"), "", "{answered:?}");
}

#[test]
fn options_of_the_server_are_answered_with_its_methods() {
    let site = Site::start();
    let mut client = HttpClient::connect(site.gate.address("web"));
    let options = "OPTIONS * HTTP/1.1\r\nHost: any.example.test\r\n";
    client.send(format!("{options}\r\n{options}Content-Length: 3\r\n\r\nabc{NEXT}"));
    for _ in 0..2 {
        let response = client.response();
        assert_eq!(response.status, 200, "{}", response.head);
        let allow = response.field("allow").unwrap();
        assert_eq!(allow, "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
        assert_eq!(response.field("content-length"), Some("0"), "{}", response.head);
        assert_eq!(response.field("content-type"), None, "{}", response.head);
    }
    assert_eq!(client.response().status, 301, "the connection goes on");
    let record = site.gate.records(3).remove(0);
    assert_eq!((record.text("path"), record.number("status")), ("*", 200));
    assert_eq!((record.text("method"), record.end()), ("OPTIONS", "done"));
}

#[test]
fn the_authority_of_an_absolute_form_must_agree_with_host() {
    let site = Site::start();
    let absolute = |authority: &str, host: &str| {
        format!("GET http://{authority}/a?b=c HTTP/1.1\r\nHost: {host}\r\n\r\n")
    };
    let location = "https://www.example.test/a?b=c";
    let name = "live.example.test";
    site.redirects("the same", absolute(name, name), location);
    site.redirects("another case", absolute(name, "LIVE.Example.TEST"), location);
    site.redirects("the default port", absolute("live.example.test:80", name), location);
    let with_port = "live.example.test:8080";
    site.redirects("with the port", absolute(with_port, with_port), location);
    let last_port = "live.example.test:65535";
    site.redirects("with the last port", absolute(last_port, last_port), location);
    let no_port = "live.example.test:65536";
    site.refuses("beyond the last port", &[400], absolute(no_port, no_port));
    site.refuses("another port", &[400], absolute(with_port, name));
    site.refuses("another host", &[400], absolute("other.example.test", name));
    site.refuses("user information", &[400], absolute("user@live.example.test", name));
    site.refuses("no authority", &[400], absolute("", name));
}

#[test]
fn a_head_over_its_limits_is_431() {
    let site = Site::start();
    let fields = |count: usize| get(&"X: y\r\n".repeat(count - 1));
    site.redirects("as many fields as allowed", fields(100), "https://www.example.test/a");
    site.refuses("one field more", &[431], fields(101));

    let sized = |size: usize| {
        let rest = get("X: \r\n").len();
        get(&format!("X: {}\r\n", "y".repeat(size - rest)))
    };
    site.redirects("as long as allowed", sized(16 * 1024), "https://www.example.test/a");
    site.refuses("one byte longer", &[431], sized(16 * 1024 + 1));
    site.refuses("a long target", &[414, 431], format!("GET /{} HTTP/1.1", "a".repeat(17_000)));
}

#[test]
fn what_is_not_quite_an_upgrade_falls_through_to_the_site() {
    let site = Site::start();
    let to = "https://www.example.test/stream";
    let with = |from: &str, to: &str| {
        assert!(UPGRADE.contains(from));
        UPGRADE.replacen(from, to, 1)
    };
    site.redirects("POST", with("GET ", "POST "), to);
    site.redirects("OPTIONS", with("GET ", "OPTIONS "), to);
    site.redirects("another protocol", with("websocket", "h2c"), to);
    site.redirects("a longer protocol", with("websocket", "websocket2"), to);
    site.redirects("no Upgrade", with("Upgrade: websocket\r\n", ""), to);
    site.redirects("no Connection", with("Connection: Upgrade\r\n", ""), to);
    site.redirects("another Connection", with("Connection: Upgrade", "Connection: keep-alive"), to);
    site.redirects("part of a token", with("Connection: Upgrade", "Connection: Upgrades"), to);
    for path in ["//stream", "/x/../stream", "/str%2565am", "/Stream", "/stream/", "/streams", "/"]
    {
        let to = format!("https://www.example.test{path}");
        site.redirects(path, with("/stream", path), &to);
    }
}
