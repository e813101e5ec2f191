//! Requests one after the other on one connection: order, bodies, keep-alive, time.

use std::io::Write;
use std::time::{Duration, Instant};

use crate::support::{
    HttpClient, Ringgate, SHORT, SOON, Setup, UPGRADE, Upstream, bytes, connect, expect_closed,
    expect_end, expect_silence, free_port, read_until, require, run, send_slowly, site,
    stream_site, wait_for,
};

const GET: &str = "GET /a HTTP/1.1\r\nHost: live.example.test\r\n\r\n";
const LOCATION: &str = "https://www.example.test/a";

fn start() -> Ringgate {
    Ringgate::start(&stream_site(free_port().address(), ""))
}

#[track_caller]
fn expect_redirect(client: &mut HttpClient, path: &str) {
    let response = client.response();
    assert_eq!(response.status, 301, "{}", response.head);
    let location = format!("https://www.example.test{path}");
    assert_eq!(response.field("location"), Some(location.as_str()), "{}", response.head);
}

#[test]
fn a_head_may_be_cut_anywhere() {
    let gate = start();
    for cut in 1..GET.len() {
        let mut client = HttpClient::connect(gate.address("web"));
        let (first, second) = GET.as_bytes().split_at(cut);
        send_slowly(&mut client.stream, &[first, second]);
        expect_redirect(&mut client, "/a");
    }
    let mut client = HttpClient::connect(gate.address("web"));
    let bytes: Vec<&[u8]> = GET.as_bytes().chunks(1).collect();
    send_slowly(&mut client.stream, &bytes);
    expect_redirect(&mut client, "/a");
}

#[test]
fn an_upgrade_may_be_cut_anywhere() {
    let upstream = Upstream::listen();
    let gate = Ringgate::start(&stream_site(upstream.address(), ""));
    for cut in 1..UPGRADE.len() {
        let mut client = connect(gate.address("web"));
        let (first, second) = UPGRADE.as_bytes().split_at(cut);
        send_slowly(&mut client, &[first, second]);
        let mut behind = upstream.accept();
        assert_eq!(read_until(&mut behind, b"\r\n\r\n"), UPGRADE.as_bytes(), "cut at {cut}");
    }
}

#[test]
fn pipelined_requests_are_answered_in_order_and_few_segments() {
    let gate = start();
    let mut client = HttpClient::connect(gate.address("web"));
    let requests: String = (0..20).map(|n| GET.replacen("/a", &format!("/{n}"), 1)).collect();
    client.send(requests);
    for n in 0..20 {
        expect_redirect(&mut client, &format!("/{n}"));
    }
    let segments = data_segments_in(&client);
    assert!(segments <= 3, "{segments} segments for 20 answers");
    assert_eq!(gate.records(20).len(), 20);
}

/// How many segments with data the client's kernel has received, as ss(8) shows it.
fn data_segments_in(client: &HttpClient) -> u32 {
    let mut ss = require("ss");
    let port = client.stream.local_addr().unwrap().port();
    let output = run(ss.args(["-Htin", &format!("sport = :{port}")]));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let value = text.split_once("data_segs_in:").expect("ss tells data_segs_in").1;
    value.split_ascii_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn pipelined_requests_may_be_cut_anywhere() {
    let gate = start();
    let both = [GET, &GET.replacen("/a", "/b", 1)].concat();
    for cut in (1..both.len()).step_by(3) {
        let mut client = HttpClient::connect(gate.address("web"));
        let (first, second) = both.as_bytes().split_at(cut);
        send_slowly(&mut client.stream, &[first, second]);
        expect_redirect(&mut client, "/a");
        expect_redirect(&mut client, "/b");
    }
}

#[test]
fn a_body_is_drained_and_the_connection_kept() {
    let gate = start();
    let sized = |size: usize| {
        let head = format!("Content-Length: {size}\r\n\r\n{}", "b".repeat(size));
        GET.replacen("GET", "POST", 1).replacen("\r\n\r\n", &format!("\r\n{head}"), 1)
    };
    let chunked = |body: &str| {
        let head = format!("Transfer-Encoding: chunked\r\n\r\n{body}");
        GET.replacen("GET", "POST", 1).replacen("\r\n\r\n", &format!("\r\n{head}"), 1)
    };
    let cases = [
        ("an empty body", sized(0)),
        ("a small body", sized(5)),
        ("a body over a buffer", sized(40_000)),
        ("no chunk", chunked("0\r\n\r\n")),
        ("a chunk", chunked("5\r\nhello\r\n0\r\n\r\n")),
        ("chunks in capital and small hexadecimal", {
            chunked(&format!("A\r\n{0}\r\na\r\n{0}\r\n0\r\n\r\n", "0123456789"))
        }),
        ("a chunk extension", chunked("5;name=value\r\nhello\r\n0\r\n\r\n")),
        ("a trailer", chunked("5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n")),
        ("a coding in capitals", chunked("0\r\n\r\n").replace("chunked", "Chunked")),
        ("a chunk over a buffer", chunked(&format!("9c40\r\n{}\r\n0\r\n\r\n", "b".repeat(40_000)))),
        ("a body that looks like a request", {
            let inner = GET.replacen("/a", "/smuggled", 1);
            sized(inner.len()).replace(&"b".repeat(inner.len()), &inner)
        }),
    ];
    for (name, request) in cases {
        eprintln!("case: {name}, at once");
        let mut client = HttpClient::connect(gate.address("web"));
        client.send([request.as_str(), GET].concat());
        expect_redirect(&mut client, "/a");
        expect_redirect(&mut client, "/a");
        if request.len() < 400 {
            eprintln!("case: {name}, byte by byte");
            let mut client = HttpClient::connect(gate.address("web"));
            let bytes: Vec<&[u8]> = request.as_bytes().chunks(1).collect();
            send_slowly(&mut client.stream, &bytes);
            expect_redirect(&mut client, "/a");
            client.send(GET);
            expect_redirect(&mut client, "/a");
        }
    }
}

#[test]
fn a_malformed_chunk_ends_the_connection() {
    let gate = start();
    let sizes = ["zz", "+5", "-1", "0x5", "", " 5", "10000000000000000", "5\n", "5 "];
    for size in sizes {
        eprintln!("chunk size {size:?}");
        let mut client = HttpClient::connect(gate.address("web"));
        let head = GET.replacen("GET", "POST", 1);
        let head = head.replacen("\r\n\r\n", "\r\nTransfer-Encoding: chunked\r\n\r\n", 1);
        client.send(format!("{head}{size}\r\nhello\r\n0\r\n\r\n{GET}"));
        // The request was good and is answered. A second answer would be taken for that of the next
        // request; what is behind the body stays unanswered.
        expect_redirect(&mut client, "/a");
        client.expect_end();
    }
}

#[test]
fn a_client_that_waits_for_100_continue_is_answered() {
    let gate = start();
    let mut client = HttpClient::connect(gate.address("web"));
    let fields = "\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    client.send(GET.replacen("GET", "POST", 1).replacen("\r\n\r\n", fields, 1));
    let mut response = client.head_only();
    if response.status == 100 {
        client.send("hello");
        response = client.response();
    }
    assert_eq!(response.status, 301, "{}", response.head);
    if response.field("connection") == Some("close") {
        client.expect_end();
    } else {
        client.send(["hello", GET].concat());
        expect_redirect(&mut client, "/a");
    }
}

#[test]
fn head_is_answered_like_get_without_the_body() {
    let config = r#"
        [[listener]]
        name = "web"
        listen = "127.0.0.1:0"
        protocol = "http"
          [[listener.host]]
            [[listener.host.route]]
            prefix = "/"
            respond = { status = 200, content_type = "text/html", body = "<h1>It works</h1>" }
        "#;
    let gate = Ringgate::start(config);
    let mut client = HttpClient::connect(gate.address("web"));
    client.send(GET);
    let full = client.response();
    assert_eq!((full.status, full.body.as_slice()), (200, b"<h1>It works</h1>".as_slice()));
    assert_eq!(full.field("content-type"), Some("text/html"));
    client.send(GET.replacen("GET", "HEAD", 1));
    let head = client.head_only();
    assert_eq!(head.status, 200);
    assert_eq!(head.field("content-length"), Some("17"));
    assert_eq!(head.field("content-type"), Some("text/html"));
    client.send(GET);
    assert_eq!(client.response().body, b"<h1>It works</h1>");
}

#[test]
fn http_1_0_is_served_and_closed_unless_it_asks_to_be_kept() {
    let gate = start();
    let mut client = HttpClient::connect(gate.address("web"));
    client.send("GET /a HTTP/1.0\r\nHost: live.example.test\r\n\r\n");
    expect_redirect(&mut client, "/a");
    client.expect_end();

    let mut client = HttpClient::connect(gate.address("web"));
    client.send("GET /a HTTP/1.0\r\n\r\n");
    expect_redirect(&mut client, "/a");
    client.expect_end();

    let mut client = HttpClient::connect(gate.address("web"));
    client.send("GET /a HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n");
    let response = client.response();
    assert_eq!(response.field("location"), Some(LOCATION));
    let connection = response.field("connection").unwrap_or_default();
    assert!(connection.eq_ignore_ascii_case("keep-alive"), "{}", response.head);
    client.send("GET /b HTTP/1.0\r\n\r\n");
    expect_redirect(&mut client, "/b");
    client.expect_end();

    let mut client = HttpClient::connect(gate.address("web"));
    client.send(UPGRADE.replacen("HTTP/1.1", "HTTP/1.0", 1));
    expect_redirect(&mut client, "/stream");
    client.expect_end();
}

#[test]
fn a_client_that_asks_to_close_is_closed() {
    let gate = start();
    for value in ["close", "Close", "x, close", "close, x"] {
        let mut client = HttpClient::connect(gate.address("web"));
        let close = format!("\r\nConnection: {value}\r\n\r\n");
        client.send([&GET.replacen("\r\n\r\n", &close, 1), GET].concat());
        let response = client.response();
        assert_eq!(response.field("connection"), Some("close"), "{}", response.head);
        client.expect_end();
    }
}

#[test]
fn empty_lines_before_a_request_are_skipped_and_not_forwarded() {
    let upstream = Upstream::listen();
    let gate = Ringgate::start(&stream_site(upstream.address(), ""));
    let mut client = HttpClient::connect(gate.address("web"));
    client.send(format!("\r\n{GET}\r\n{GET}"));
    expect_redirect(&mut client, "/a");
    expect_redirect(&mut client, "/a");
    client.send(format!("\r\n\r\n{UPGRADE}"));
    let mut behind = upstream.accept();
    assert_eq!(read_until(&mut behind, b"\r\n\r\n"), UPGRADE.as_bytes());
}

#[test]
fn an_upgrade_may_follow_earlier_requests() {
    let upstream = Upstream::listen();
    let gate = Ringgate::start(&stream_site(upstream.address(), ""));
    for pipelined in [false, true] {
        let mut client = HttpClient::connect(gate.address("web"));
        if pipelined {
            client.send([GET, GET, UPGRADE].concat());
        } else {
            client.send(GET);
            expect_redirect(&mut client, "/a");
            client.send([GET, UPGRADE].concat());
        }
        let mut behind = upstream.accept();
        assert_eq!(read_until(&mut behind, b"\r\n\r\n"), UPGRADE.as_bytes());
        behind.write_all(crate::support::SWITCHING.as_bytes()).unwrap();
        behind.write_all(b"payload").unwrap();
        expect_redirect(&mut client, "/a");
        if pipelined {
            expect_redirect(&mut client, "/a");
        }
        assert_eq!(client.response().status, 101);
        client.send("more");
        assert_eq!(read_until(&mut behind, b"more"), b"more");
    }
}

#[test]
fn a_head_that_does_not_come_in_time_is_408() {
    let no_upgrades = "path = \"/stream\"";
    let upstream = free_port();
    let endpoint = format!("\"{}\"", upstream.address());
    let gate = Ringgate::start(&site(&endpoint, "head_timeout = \"2s\"", no_upgrades, ""));

    let start = Instant::now();
    let mut client = HttpClient::connect(gate.address("web"));
    client.send(&GET[..20]);
    let response = client.response();
    assert_eq!(response.status, 408, "{}", response.head);
    client.expect_end();
    assert!(start.elapsed() > Duration::from_millis(1900), "{:?}", start.elapsed());
    assert_eq!(gate.record().end(), "head_timeout");

    // Dribbling does not put the deadline off.
    let mut client = HttpClient::connect(gate.address("web"));
    let start = Instant::now();
    let mut sent = 0;
    wait_for("a dribbling client is stopped", SHORT, || {
        sent += 1;
        let alive = client.stream.write_all(b"GET /a HTTP/1.1"[sent % 15..][..1].as_ref()).is_ok();
        (!alive || start.elapsed() > Duration::from_secs(5)).then_some(())
    });
    let stopped = gate.records(2);
    assert_eq!(stopped[1].end(), "head_timeout");

    // A connection that never says anything ends too, with or without a word.
    let mut silent = connect(gate.address("web"));
    let start = Instant::now();
    let mut all = Vec::new();
    std::io::Read::read_to_end(&mut silent, &mut all).unwrap();
    assert!(all.is_empty() || all.starts_with(b"HTTP/1.1 408 "));
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
}

#[test]
fn a_client_that_asks_and_never_reads_costs_no_memory() {
    let gate = start();
    let before = gate.anonymous_kib();
    let mut client = connect(gate.address("web"));
    let many = GET.repeat(1000);
    client.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let asked = (0..2000).take_while(|_| client.write_all(many.as_bytes()).is_ok()).count();
    assert!(asked < 2000, "it goes on answering what nobody reads");
    let now = gate.anonymous_kib();
    assert!(now < before + 4 * 1024, "{before} KiB before, {now} KiB now");

    // The others are served, and so is this one as soon as it reads.
    let mut other = HttpClient::connect(gate.address("web"));
    other.send(GET);
    expect_redirect(&mut other, "/a");
    let mut reader = HttpClient::over(client);
    for _ in 0..asked * 1000 {
        expect_redirect(&mut reader, "/a");
    }
}

#[test]
fn a_client_that_asks_a_great_deal_gives_others_a_turn() {
    const QUESTIONS: usize = 2000;
    // Answers are sent in batches of 64 KiB, and one of these has more than 100 bytes.
    const BATCH: usize = 64 * 1024 / 100;
    let site = stream_site(free_port().address(), "");
    let config = site.replacen("protocol", "max_head = \"64KiB\"\nprotocol", 1);
    for driver in ["io_uring", "epoll"] {
        let server = format!("workers = 1\ndriver = \"{driver}\"");
        let gate = Setup { config: config.clone(), server, ..Setup::default() }.start();
        let mut greedy = HttpClient::connect(gate.address("web"));
        let mut other = HttpClient::connect(gate.address("web"));
        for client in [&mut greedy, &mut other] {
            client.send(GET);
            expect_redirect(client, "/a");
        }
        // Both have asked when it looks again, the greedy one first and more than fits a batch.
        gate.frozen(|| {
            greedy.send(GET.replacen("/a", "/greedy", 1).repeat(QUESTIONS));
            other.send(GET.replacen("/a", "/other", 1));
        });
        expect_redirect(&mut other, "/other");
        (0..QUESTIONS).for_each(|_| expect_redirect(&mut greedy, "/greedy"));

        let records = gate.records(QUESTIONS + 3);
        let turn = records.iter().position(|record| record.text("path") == "/other").unwrap();
        assert!(turn <= BATCH, "{driver}: after {turn} others");
    }
}

#[test]
fn a_request_behind_a_slow_body_has_a_time_of_its_own() {
    let gate = start();
    let mut client = HttpClient::connect(gate.address("web"));
    let post = GET.replacen("GET", "POST", 1);
    client.send(post.replacen("\r\n\r\n", "\r\nContent-Length: 10\r\n\r\nhello", 1));
    expect_redirect(&mut client, "/a");
    expect_silence(&mut client.stream, Duration::from_secs(1));
    client.send(["world", GET].concat());
    expect_redirect(&mut client, "/a");
    let records = gate.records(2);
    let took = records[1].number("duration_ms");
    assert!(took < 500, "{took} ms: {records:?}");
    assert!(records[1].text("start") > records[0].text("start"), "{records:?}");
}

#[test]
fn curl_gets_the_answer_to_an_upload_that_nobody_wants() {
    let gate = start();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&bytes(1, 20 * 1024 * 1024)).unwrap();
    let data = format!("@{}", file.path().display());
    let url = format!("http://{}/a", gate.address("web"));
    for field in ["Expect: 100-continue", "Expect:"] {
        let mut curl = require("curl");
        curl.args([
            "-q",
            "-sS",
            "-m",
            "30",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code} %{redirect_url}",
        ]);
        let output = run(curl.args(["-H", field, "--data-binary", &data, &url]));
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(said, format!("301 {LOCATION}"), "{field} {output:?}");
    }
}

#[test]
fn a_silent_connection_between_requests_is_closed() {
    let upstream = free_port();
    let endpoint = format!("\"{}\"", upstream.address());
    let listener = "keepalive_timeout = \"300ms\"";
    let gate = Ringgate::start(&site(&endpoint, listener, "path = \"/stream\"", ""));
    let mut client = HttpClient::connect(gate.address("web"));
    client.send(GET);
    expect_redirect(&mut client, "/a");
    let start = Instant::now();
    client.expect_end();
    let passed = start.elapsed();
    assert!(passed > Duration::from_millis(200), "after {passed:?}");
    assert!(passed < SOON, "after {passed:?}");
    let record = gate.record();
    assert_eq!(record.end(), "done");
}

#[test]
fn a_client_that_leaves_between_or_within_requests_does_no_harm() {
    let gate = start();
    let mut client = HttpClient::connect(gate.address("web"));
    client.send(GET);
    expect_redirect(&mut client, "/a");
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    client.expect_end();

    let mut client = connect(gate.address("web"));
    client.write_all(&GET.as_bytes()[..30]).unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    expect_closed(&mut client);

    let mut client = connect(gate.address("web"));
    client.shutdown(std::net::Shutdown::Write).unwrap();
    expect_end(&mut client);

    let mut client = HttpClient::connect(gate.address("web"));
    client.send(GET);
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    expect_redirect(&mut client, "/a");
    client.expect_end();
}
