//! What a visitor sees of the server itself: the names of its fields, `Server`, error pages, and
//! how methods are answered that a site seldom gets.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;

use crate::support::{
    HttpClient, Record, Response, Ringgate, UPGRADE, Upstream, free_port, read_until, require, run,
};

/// A page that does not fit the buffers of a socket.
const LARGE: usize = 1_000_000;

/// A site with fields of the listener and of a route, and pages in `pages`. `backend` is dead or
/// alive as the test has it.
fn site(pages: &Path, backend: SocketAddr) -> String {
    std::fs::write(pages.join("404.html"), "<h1>nothing</h1>").unwrap();
    std::fs::write(pages.join("400.txt"), "not so").unwrap();
    std::fs::write(pages.join("405.json"), "{}").unwrap();
    std::fs::write(pages.join("502.html"), "x".repeat(LARGE)).unwrap();
    let pages = pages.display();
    format!(
        r#"
        [[listener]]
        name = "web"
        listen = "127.0.0.1:0"
        protocol = "http"
        server_header = "nginx"
        response_fields.set = {{ strict-transport-security = "max-age=1", x-who = "listener" }}
        [listener.error_pages]
        400 = "{pages}/400.txt"
        404 = "{pages}/404.html"
        405 = "{pages}/405.json"
        502 = "{pages}/502.html"
          [[listener.host]]
            [[listener.host.route]]
            path = "/moved"
            redirect = {{ path = "/elsewhere" }}
            [[listener.host.route]]
            path = "/own"
            respond = {{ status = 200, body = "own" }}
            response_fields.set = {{ x-who = "route", content-type = "text/css", etag = "e" }}
            response_fields.remove = ["server", "date"]
            [[listener.host.route]]
            path = "/gone"
            respond = {{ status = 404, body = "its own body" }}
            [[listener.host.route]]
            path = "/bare"
            respond = {{ status = 404 }}
            [[listener.host.route]]
            prefix = "/api/"
            cluster = "backend"
            response_fields.set = {{ x-who = "api" }}
            [[listener.host.route]]
            path = "/stream"
            upgrade = "websocket"
            cluster = "backend"
        [cluster.backend]
        endpoints = ["{backend}"]
        "#
    )
}

fn ask(gate: &Ringgate, request: impl AsRef<[u8]>) -> Response {
    let mut client = HttpClient::connect(gate.address("web"));
    client.send(request);
    client.response()
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n")
}

/// The names of the fields, in order.
fn names(response: &Response) -> Vec<&str> {
    let lines = response.head.lines().skip(1).filter_map(|line| line.split_once(": "));
    lines.map(|(name, _)| name).collect()
}

#[test]
fn own_answers_have_the_fields_of_the_listener_and_the_route() {
    let pages = tempfile::tempdir().unwrap();
    let gate = Ringgate::start(&site(pages.path(), free_port().address()));
    let upgrade = UPGRADE.to_owned();
    let cases = [
        ("a redirect", get("/moved"), 301, "listener"),
        ("no route", get("/missing"), 404, "listener"),
        ("a bad head", get("/a b"), 400, "listener"),
        ("a method that is refused", get("/").replace("GET", "TRACE"), 405, "listener"),
        ("an expectation", get("/").replace("\r\n\r\n", "\r\nExpect: x\r\n\r\n"), 417, "listener"),
        ("the server as a whole", get("*").replace("GET", "OPTIONS"), 200, "listener"),
        ("a dead cluster", get("/api/x"), 502, "api"),
        ("a tunnel to it", upgrade, 502, "listener"),
    ];
    for (name, request, status, who) in cases {
        let response = ask(&gate, request);
        assert_eq!(response.status, status, "{name}: {}", response.head);
        for (field, value) in
            [("server", "nginx"), ("strict-transport-security", "max-age=1"), ("x-who", who)]
        {
            let values: Vec<&str> = response.fields(field).collect();
            assert_eq!(values, [value], "{name}: {}", response.head);
        }
        for field in names(&response) {
            let words = field.split('-');
            let is_title = |word: &str| word.starts_with(|c: char| c.is_ascii_uppercase());
            assert!(words.clone().all(is_title), "{name}: {field} in {}", response.head);
        }
    }
    // Rules of a route are about what ringgate would write, too.
    let own = ask(&gate, get("/own"));
    let expected = ["Content-Type", "ETag", "Strict-Transport-Security", "X-Who", "Content-Length"];
    assert_eq!(names(&own), expected, "{}", own.head);
    assert_eq!((own.field("content-type"), own.field("x-who")), (Some("text/css"), Some("route")));
}

#[test]
fn without_settings_own_answers_name_no_server() {
    let gate = Ringgate::start(
        "[[listener]]\nname = \"web\"\nlisten = \"127.0.0.1:0\"\nprotocol = \"http\"\n\
         [[listener.host]]\n[[listener.host.route]]\nprefix = \"/\"\n\
         redirect = { host = \"b.test\", status = 302 }\n",
    );
    let response = ask(&gate, get("/"));
    assert_eq!(names(&response), ["Date", "Location", "Content-Length"], "{}", response.head);
}

#[test]
fn the_name_of_the_server_replaces_that_of_a_cluster() {
    let pages = tempfile::tempdir().unwrap();
    let backend = Upstream::listen();
    let gate = Ringgate::start(&site(pages.path(), backend.address()));
    for request in [get("/api/x"), UPGRADE.to_owned()] {
        let mut client = HttpClient::connect(gate.address("web"));
        client.send(request);
        let mut stream = backend.accept();
        read_until(&mut stream, b"\r\n\r\n");
        let answer = "HTTP/1.1 403 No\r\nserver: app\r\nx-who: app\r\ncontent-length: 2\r\n\r\nno";
        stream.write_all(answer.as_bytes()).unwrap();
        let response = client.response();
        assert_eq!((response.status, &response.body[..]), (403, &b"no"[..]));
        assert_eq!(response.fields("server").collect::<Vec<_>>(), ["nginx"], "{}", response.head);
        assert_eq!(response.fields("x-who").count(), 1, "{}", response.head);
        assert_ne!(response.field("x-who"), Some("app"), "{}", response.head);
    }
}

#[test]
fn pages_stand_in_for_lines_of_text() {
    let pages = tempfile::tempdir().unwrap();
    let gate = Ringgate::start(&site(pages.path(), free_port().address()));
    let (html, text) = ("text/html; charset=utf-8", "text/plain; charset=utf-8");
    let large = "x".repeat(LARGE);
    let cases = [
        ("no route", get("/missing"), 404, html, "<h1>nothing</h1>"),
        ("a configured status", get("/bare"), 404, html, "<h1>nothing</h1>"),
        ("a configured body", get("/gone"), 404, text, "its own body"),
        ("a bad head", get("/a b"), 400, text, "not so"),
        ("a refused method", get("/").replace("GET", "TRACE"), 405, "application/json", "{}"),
        ("a dead cluster", get("/api/x"), 502, html, &large),
        ("a tunnel to it", UPGRADE.to_owned(), 502, html, &large),
    ];
    for (name, request, status, content_type, body) in cases {
        let response = ask(&gate, &request);
        assert_eq!(response.status, status, "{name}: {}", response.head);
        assert_eq!(response.field("content-type"), Some(content_type), "{name}");
        assert!(response.body == body.as_bytes(), "{name}: {} bytes", response.body.len());
        assert_eq!(response.field("allow").is_some(), status == 405, "{name}");
        if name.contains("tunnel") {
            continue;
        }
        // HEAD gets the length alone.
        let mut client = HttpClient::connect(gate.address("web"));
        let close = request.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
        client.send(close.replacen("GET", "HEAD", 1));
        client.stream.shutdown(std::net::Shutdown::Write).unwrap();
        if request.starts_with("GET") {
            let head = client.head_only();
            let length = body.len().to_string();
            assert_eq!((head.status, head.field("content-length")), (status, Some(&*length)));
            client.expect_end();
        }
    }
    // Records have the length of the page.
    for (method, path, length) in [
        ("GET", "/missing", 16),
        ("HEAD", "/missing", 0),
        ("GET", "/api/x", LARGE as u64),
        ("GET", "/stream", LARGE as u64),
    ] {
        let is_it =
            |record: &Record| record.text("path") == path && record.text("method") == method;
        let record = gate.records_where(1, is_it).remove(0);
        assert_eq!(record.number("body_bytes"), length, "{method} {path}: {record:?}");
    }
}

#[test]
fn a_connection_goes_on_behind_a_page() {
    let pages = tempfile::tempdir().unwrap();
    let gate = Ringgate::start(&site(pages.path(), free_port().address()));
    let mut client = HttpClient::connect(gate.address("web"));
    client.send([get("/missing"), get("/api/x"), get("/own")].concat());
    assert_eq!(client.response().body, b"<h1>nothing</h1>");
    assert_eq!(client.response().body.len(), LARGE);
    assert_eq!(client.response().body, b"own");
    // A large one is the last answer of a connection that is closed.
    let mut client = HttpClient::connect(gate.address("web"));
    client.send(get("/api/x").replace("HTTP/1.1", "HTTP/1.0"));
    assert_eq!(client.response().body.len(), LARGE);
    client.expect_end();
}

#[test]
fn methods_are_answered_as_nginx_answers_them() {
    let pages = tempfile::tempdir().unwrap();
    let gate = Ringgate::start(&site(pages.path(), free_port().address()));
    for method in ["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND", "X"] {
        let ask = |path: &str| ask(&gate, get(path).replace("GET", method)).status;
        assert_eq!((ask("/moved"), ask("/own")), (301, 200), "{method}");
    }
    for path in ["/moved", "/own", "/api/x", "/missing"] {
        let response = ask(&gate, get(path).replace("GET", "TRACE"));
        assert_eq!(response.status, 405, "{path}: {}", response.head);
        let allow = response.field("allow").expect("what is allowed");
        assert!(allow.contains("GET") && !allow.contains("TRACE"), "{allow}");
        assert_eq!(response.field("connection"), Some("close"));
    }
    let reasons: Vec<String> = gate
        .records_where(4, |record| record.number("status") == 405)
        .iter()
        .map(|record| record.text("reason").to_owned())
        .collect();
    assert_eq!(reasons, ["trace"; 4]);
    let curl = |arguments: &[&str]| {
        let url = format!("http://{}/own", gate.address("web"));
        let output =
            run(require("curl").args(["-q", "-sS", "-m", "10", "-i"]).args(arguments).arg(url));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(curl(&["-X", "TRACE"]).starts_with("HTTP/1.1 405 Method Not Allowed\r\n"));
    assert!(curl(&["-X", "OPTIONS"]).starts_with("HTTP/1.1 200 OK\r\n"));
    assert!(curl(&["-H", "Expect: tea"]).starts_with("HTTP/1.1 417 Expectation Failed\r\n"));
    assert!(curl(&["-H", "Expect: 100-continue"]).starts_with("HTTP/1.1 200 OK\r\n"));
}

/// Reads a request and answers it.
fn serve(stream: &mut std::net::TcpStream, answer: &str) {
    read_until(stream, b"\r\n\r\n");
    stream.write_all(answer.as_bytes()).unwrap();
}

#[test]
fn records_say_how_the_cluster_has_answered() {
    let pages = tempfile::tempdir().unwrap();
    let backend = Upstream::listen();
    let gate = Ringgate::start(&site(pages.path(), backend.address()));
    let mut client = HttpClient::connect(gate.address("web"));
    let asks = |path: &str| {
        get(path).replace("\r\n\r\n", "\r\nUser-Agent: me \"1\"\r\nReferer: http://r/\r\n\r\n")
    };

    // Two requests over one connection, which then ends as the third arrives.
    client.send(asks("/api/1"));
    let mut stream = backend.accept();
    serve(&mut stream, "HTTP/1.1 201 Created\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(client.response().status, 201);
    client.send(asks("/api/2"));
    serve(
        &mut stream,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    );
    assert_eq!(client.response().body, b"abc");
    let records = gate.records(2);
    let first = &records[0];
    assert_eq!((first.number("status"), first.number("upstream_status")), (201, 201));
    assert_eq!((first.flag("reused"), first.number("retries")), (Some(false), 0));
    assert_eq!((first.number("body_bytes"), first.text("relay_reason")), (5, "few_bytes"));
    assert!(first.number("first_byte_ms") < 10_000, "{first:?}");
    assert_eq!((first.text("referer"), first.text("user_agent")), ("http://r/", "me \"1\""));
    assert_eq!(records[1].flag("reused"), Some(true));

    client.send(asks("/api/3"));
    read_until(&mut stream, b"\r\n\r\n");
    drop(stream);
    let mut stream = backend.accept();
    serve(&mut stream, "HTTP/1.1 204 No Content\r\n\r\n");
    assert_eq!(client.response().status, 204);
    let third = &gate.records(3)[2];
    assert_eq!((third.flag("reused"), third.number("retries")), (Some(false), 1));
    assert_eq!(third.number("body_bytes"), 0);

    // A request that has no response.
    client.send(asks("/api/4"));
    read_until(&mut stream, b"\r\n\r\n");
    stream.write_all(b"nonsense\r\n\r\n").unwrap();
    assert_eq!(client.response().status, 502);
    let fourth = &gate.records(4)[3];
    assert_eq!((fourth.number("status"), fourth.end()), (502, "bad_response"));
    assert_eq!(fourth.flag("reused"), Some(true));
    assert_eq!((fourth.text("upstream_status"), fourth.text("referer")), ("", "http://r/"));
}

#[test]
fn the_combined_format_is_that_of_nginx() {
    let pages = tempfile::tempdir().unwrap();
    let backend = Upstream::listen();
    let log = pages.path().join("combined.log");
    let own = format!(
        "protocol = \"http\"\naccess_log = {{ path = \"{}\", format = \"combined\" }}",
        log.display()
    );
    let config = site(pages.path(), backend.address()).replacen("protocol = \"http\"", &own, 1);
    let gate = Ringgate::start(&config);
    let agent = "\r\nUser-Agent: Mozilla/5.0 (X11) \\\"é\r\n\r\n";
    let mut client = HttpClient::connect(gate.address("web"));
    client.send(get("/own?a=\"b\"").replace("\r\n\r\n", agent));
    assert_eq!(client.response().status, 200);
    client.send(get("/api/1").replace("\r\n\r\n", "\r\nReferer: http://r/?\r\n\r\n"));
    let mut stream = backend.accept();
    serve(&mut stream, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(client.response().status, 200);
    client.send(UPGRADE.replace("\r\n\r\n", "\r\nUser-Agent: tunnel\r\n\r\n"));
    let mut stream = backend.accept();
    let switching = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                     Connection: Upgrade\r\n\r\n0123456";
    serve(&mut stream, switching);
    drop(stream);
    assert_eq!(client.head_only().status, 101);
    let mut rest = Vec::new();
    client.stream.read_to_end(&mut rest).unwrap();
    drop(client);
    let lines = crate::support::wait_for("three lines", crate::support::SHORT, || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        (text.lines().count() == 3).then_some(text)
    });
    let parts: Vec<Vec<&str>> = lines.lines().map(|line| line.splitn(6, ' ').collect()).collect();
    for line in &parts {
        assert_eq!(line[..3], ["127.0.0.1", "-", "-"], "{lines}");
        let (date, zone) = (line[3], line[4]);
        assert!(date.starts_with('[') && date.len() == 21 && zone == "+0000]", "{lines}");
    }
    let rest: Vec<&str> = parts.iter().map(|line| line[5]).collect();
    assert_eq!(
        rest,
        [
            "\"GET /own?a=\\x22b\\x22 HTTP/1.1\" 200 3 \"-\" \
             \"Mozilla/5.0 (X11) \\x5C\\x22\\xC3\\xA9\"",
            "\"GET /api/1 HTTP/1.1\" 200 5 \"http://r/?\" \"-\"",
            "\"GET /stream HTTP/1.1\" 101 7 \"-\" \"tunnel\"",
        ]
    );
}
