//! HEAD gets the head that GET would get and no content, whatever the answer is: a client would
//! read the content as the beginning of the next answer. And a 405 names what is allowed.

use std::io::Read;

use crate::support::{
    HttpClient, Ringgate, Setup, UPGRADE, Upstream, free_port, require, run, site, stream_site,
};

/// One host for each kind of answer.
fn answers() -> String {
    let route = |name: &str, route: &str| {
        format!(
            "[[listener.host]]\nnames = [\"{name}\"]\n[[listener.host.route]]\npath = \"/a\"\n\
             {route}\n"
        )
    };
    let page = |status: u16, body: &str| format!("respond = {{ status = {status}, {body} }}");
    let listener = "[[listener]]\nname = \"web\"\nlisten = \"127.0.0.1:0\"\nprotocol = \"http\"\n";
    let large = format!("body = \"{}\"", "x".repeat(100_000));
    [
        listener,
        &route("small.test", &page(200, "body = \"a page\"")),
        &route("large.test", &page(200, &large)),
        &route("error.test", &page(503, "body = \"not now\"")),
        &route("no-content.test", "respond = { status = 204 }"),
        &route("method.test", &page(405, "body = \"not so\"")),
        &route("redirect.test", "redirect = { scheme = \"https\", host = \"www.test\" }"),
    ]
    .concat()
}

/// Everything until the connection ends.
#[track_caller]
fn everything(gate: &Ringgate, requests: impl AsRef<[u8]>) -> String {
    let mut client = HttpClient::connect(gate.address("web"));
    client.send(requests);
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answers = String::new();
    client.stream.read_to_string(&mut answers).unwrap();
    answers
}

/// The answer without its date, which may be another second.
fn without_date(answer: &str) -> String {
    let lines = answer.split_inclusive("\r\n");
    lines.filter(|line| !line.starts_with("Date: ")).collect()
}

/// Its head alone, with the empty line.
#[track_caller]
fn head_of(answer: &str) -> &str {
    let end = answer.find("\r\n\r\n").unwrap_or_else(|| panic!("no head: {answer:?}"));
    &answer[..end + 4]
}

#[test]
fn head_is_answered_like_get_without_the_content() {
    let hosts = ["small", "large", "error", "no-content", "method", "redirect", "unknown"];
    for driver in ["io_uring", "epoll"] {
        let server = format!("driver = \"{driver}\"");
        let gate = Setup { config: answers(), server, ..Setup::default() }.start();
        for version in ["HTTP/1.1", "HTTP/1.0"] {
            for (host, path) in hosts.iter().flat_map(|host| [(host, "/a"), (host, "/missing")]) {
                let ask = |method: &str| {
                    let request = format!(
                        "{method} {path} {version}\r\nHost: {host}.test\r\n\
                         Connection: close\r\n\r\n"
                    );
                    without_date(&everything(&gate, request))
                };
                let (get, head) = (ask("GET"), ask("HEAD"));
                assert_eq!(head, head_of(&get), "{driver}, {version}, {host}{path}");
            }
        }
    }
}

#[test]
fn a_refused_head_request_gets_no_content_either() {
    let gate = Ringgate::start(&answers());
    let host = "Host: small.test\r\n";
    let cases = [
        ("no Host", "METHOD /a HTTP/1.1\r\n\r\n".to_owned()),
        ("a space in the target", format!("METHOD /a b HTTP/1.1\r\n{host}\r\n")),
        ("a version that is not served", format!("METHOD /a HTTP/2.0\r\n{host}\r\n")),
        ("a version that is none", format!("METHOD /a X\r\n{host}\r\n")),
        ("no version", "METHOD /a\r\n\r\n".to_owned()),
        ("two spaces", format!("METHOD  /a HTTP/1.1\r\n{host}\r\n")),
        ("a bare LF", format!("METHOD /a HTTP/1.1\r\n{host}\n")),
        ("a bare LF in the first line", "METHOD /a HTTP/1.1\n".to_owned()),
        ("empty lines before it", "\r\n\r\nMETHOD /a HTTP/1.1\r\n\r\n".to_owned()),
        ("too many fields", format!("METHOD /a HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(101))),
        ("too long", format!("METHOD /{} HTTP/1.1\r\n", "a".repeat(17_000))),
        ("two lengths", {
            format!("METHOD /a HTTP/1.1\r\n{host}{}\r\n", "Content-Length: 0\r\n".repeat(2))
        }),
    ];
    for (name, request) in cases {
        let get = without_date(&everything(&gate, request.replace("METHOD", "GET")));
        let head = without_date(&everything(&gate, request.replace("METHOD", "HEAD")));
        assert!(get.len() > head_of(&get).len(), "{name}: GET has content: {get:?}");
        assert_eq!(head, head_of(&get), "{name}");
        // The same behind a request that was answered.
        let first = format!("HEAD /a HTTP/1.1\r\n{host}\r\n");
        let both = everything(&gate, first + &request.replace("METHOD", "HEAD"));
        let second = &both[head_of(&both).len()..];
        assert_eq!(without_date(second), head, "{name}, pipelined");
    }
}

#[test]
fn a_head_request_that_takes_too_long_gets_no_content() {
    let endpoint = format!("\"{}\"", free_port().address());
    let gate = Ringgate::start(&site(&endpoint, "head_timeout = \"2s\"", "path = \"/stream\"", ""));
    for request in ["HEAD /a HTTP/1.1\r\nHost: a\r\n", "HEAD ", "\r\nHEAD /"] {
        let mut client = HttpClient::connect(gate.address("web"));
        client.send(request);
        assert_eq!(client.head_only().status, 408, "{request:?}");
        client.expect_end();
    }
}

#[test]
fn http_1_0_with_keep_alive_finds_the_next_answer_behind_a_head() {
    let gate = Ringgate::start(&stream_site(free_port().address(), ""));
    let redirects_here =
        answers().replace("names = [\"redirect.test\"]", "").replace("path", "prefix");
    let redirects_here = redirects_here.replace(", host = \"www.test\"", "");
    let here = Ringgate::start(&redirects_here);
    for (name, gate, status) in [("to a name", &gate, 301), ("to the same name", &here, 400)] {
        let mut client = HttpClient::connect(gate.address("web"));
        for _ in 0..3 {
            // Without a Host the second redirect has no name to lead to.
            client.send("HEAD /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
            let response = client.head_only();
            assert_eq!(response.status, status, "{name}: {}", response.head);
        }
        client.send("HEAD /a HTTP/1.0\r\n\r\n");
        assert_eq!(client.head_only().status, status, "{name}");
        client.expect_end();
    }
}

#[test]
fn curl_reads_two_answers_to_head_on_one_connection() {
    let gate = Ringgate::start(&answers());
    let mut curl = require("curl");
    let url = format!("http://{}/missing", gate.address("web"));
    let output = run(curl
        .args(["-q", "-sS", "-m", "10", "--head", "-H", "Host: small.test"])
        .args(["-w", "%{http_code} %{num_connects}\n", &url, &url]));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    assert!(said.contains("\n404 1\n") && said.contains("\n404 0\n"), "{said}");
}

#[test]
fn a_head_is_no_upgrade() {
    let upstream = Upstream::listen();
    for route in ["", "early_data = true", "tunnel = \"terminate\""] {
        let gate = Ringgate::start(&stream_site(upstream.address(), route));
        let mut client = HttpClient::connect(gate.address("web"));
        client.send(UPGRADE.replacen("GET", "HEAD", 1));
        assert_eq!(client.head_only().status, 301, "{route}");
        client.send(UPGRADE.replacen("GET", "HEAD", 1));
        assert_eq!(client.head_only().status, 301, "{route}");
        assert!(upstream.try_accept().is_none(), "{route}: it has reached the upstream");
    }
}

#[test]
fn a_405_says_what_is_allowed() {
    let gate = Ringgate::start(&answers());
    let mut client = HttpClient::connect(gate.address("web"));
    client.send("CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n");
    let response = client.response();
    assert_eq!(response.status, 405, "{}", response.head);
    let allow: Vec<&str> = response.field("allow").expect("an Allow").split(", ").collect();
    assert!(allow.contains(&"GET") && allow.contains(&"HEAD"), "{allow:?}");
    assert!(!allow.contains(&"CONNECT"), "{allow:?}");
    // What is in the list is served.
    for method in allow {
        let mut client = HttpClient::connect(gate.address("web"));
        client.send(format!("{method} /a HTTP/1.1\r\nHost: no-content.test\r\n\r\n"));
        assert_eq!(client.head_only().status, 204, "{method}");
    }
    // A page with this status allows no method at all (RFC 9110 section 10.2.1).
    let mut client = HttpClient::connect(gate.address("web"));
    client.send("GET /a HTTP/1.1\r\nHost: method.test\r\n\r\n");
    let response = client.response();
    assert_eq!((response.status, response.field("allow")), (405, Some("")), "{}", response.head);
}
