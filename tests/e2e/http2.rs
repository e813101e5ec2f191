//! HTTP/2 towards clients, with curl and h2load. What a request means is the same as in HTTP/1.1.

use std::fs;
use std::future::poll_fn;
use std::net::TcpListener;
use std::path::Path;
use std::process::Output;
use std::sync::Arc;

use rustix::process::Signal;

use crate::support::{
    Authority, LONG, Pair, Record, Ringgate, SHORT, Setup, TlsClient, Upstream, VERSIONS, Web,
    bytes, curl, http2_settings, over_each_driver, proxied, require, run, sum, tls_settings,
    wait_for, with_http2,
};

const NAME: &str = "site.test";

/// An https listener `edge` with these routes and clusters.
fn start(pair: &Pair, routes: &str, clusters: &str, driver: &str) -> Ringgate {
    let config = format!(
        "[[listener]]\nname = \"edge\"\nlisten = \"127.0.0.1:0\"\nprotocol = \"http\"\n\
         server_header = \"own\"\n{}\n[[listener.host]]\nroute = [{routes}]\n{clusters}\n",
        pair.rule(&[NAME], "")
    );
    Setup { config, server: format!("driver = \"{driver}\""), ..Setup::default() }.start()
}

/// Runs curl with HTTP/2, and makes sure that this is what was spoken.
#[track_caller]
fn ask(gate: &Ringgate, authority: &Authority, arguments: &[&str]) -> String {
    let more = ["--http2", "-w", "\n%{http_version} %{http_code}"];
    let output: Output = curl(gate.address("edge"), authority, &[&more, arguments].concat());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, facts) = text.rsplit_once('\n').unwrap();
    let code = facts.strip_prefix("2 ").unwrap_or_else(|| panic!("{facts}: {output:?}"));
    format!("{code} {body}")
}

fn url(path: &str) -> String {
    format!("https://{NAME}{path}")
}

#[test]
fn responses_are_those_of_http_1() {
    let authority = Authority::new("authority");
    let routes = "{ path = \"/r\", respond = { body = \"hello\" } }, \
                  { prefix = \"/old\", redirect = { host = \"other.test\" } }";
    let gate = start(&authority.signs(&[NAME]), routes, "", "io_uring");
    assert_eq!(ask(&gate, &authority, &[&url("/r")]), "200 hello");
    assert_eq!(ask(&gate, &authority, &["-X", "TRACE", &url("/r")]).split(' ').next(), Some("405"));
    assert!(ask(&gate, &authority, &[&url("/none")]).starts_with("404 "));
    let head = ask(&gate, &authority, &["-I", &url("/r")]);
    assert!(head.contains("content-length: 5\r\n") && !head.contains("hello"), "{head}");
    assert!(head.contains("server: own\r\n"), "{head}");
    let moved = ask(&gate, &authority, &["-i", &url("/old/x?y")]);
    assert!(moved.starts_with("301 HTTP/2 301"), "{moved}");
    assert!(moved.contains("location: https://other.test/old/x?y\r\n"), "{moved}");
    // Workers write their records in any order.
    let of_this = |record: &Record| record.text("path") == "/old/x?y";
    let record = gate.records(5).into_iter().find(of_this).unwrap();
    assert_eq!((record.text("protocol"), record.number("status")), ("HTTP/2", 301));
    // A client that does not offer it gets HTTP/1.1.
    let output = curl(gate.address("edge"), &authority, &["--http1.1", "-i", &url("/r")]);
    assert!(output.stdout.starts_with(b"HTTP/1.1 200 OK\r\n"));
    // This curl offers http/1.0 alone.
    let output = curl(gate.address("edge"), &authority, &["--http1.0", &url("/r")]);
    assert_eq!(output.stdout, b"hello", "{output:?}");
}

#[test]
fn requests_go_on_to_a_cluster_and_come_back_whole() {
    for driver in ["io_uring", "epoll"] {
        let (authority, web) = (Authority::new("authority"), Web::start());
        let cluster =
            format!("[cluster.web]\nendpoints = [{:?}]", web.url("").replace("http://", ""));
        let routes = "{ prefix = \"/\", cluster = \"web\" }";
        let gate = start(&authority.signs(&[NAME]), routes, &cluster, driver);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("body");
        let body: Vec<u8> = (0..5_000_000u32).map(|at| (at / 7) as u8).collect();
        fs::write(&file, &body).unwrap();
        let data = format!("@{}", file.display());
        let asked = ask(&gate, &authority, &["--data-binary", &data, &url("/sum")]);
        assert!(asked.starts_with("200 ") && asked.contains(&sum(&body)), "{asked}");
        // With and without a length, which HTTP/2 does not need.
        for kind in ["bytes", "unmeasured"] {
            let into = dir.path().join(kind);
            let target = url(&format!("/{kind}/3000000"));
            let got = ask(&gate, &authority, &["-o", &path(&into), &target]);
            assert!(
                got.starts_with("200 ") && fs::read(&into).unwrap() == bytes(3_000_000, 3_000_000)
            );
        }
        let record = gate.records(3).pop().unwrap();
        assert_eq!((record.end(), record.text("cluster")), ("done", "web"));
    }
}

#[test]
fn files_arrive_whole_whatever_their_size() {
    let (authority, dir) = (Authority::new("authority"), tempfile::tempdir().unwrap());
    let body: Vec<u8> = (0..9_000_000u32).map(|at| (at / 5) as u8).collect();
    fs::write(dir.path().join("large.bin"), &body).unwrap();
    fs::write(dir.path().join("index.html"), "<p>page</p>").unwrap();
    let routes = format!("{{ prefix = \"/\", root = {:?} }}", dir.path());
    let gate = start(&authority.signs(&[NAME]), &routes, "", "io_uring");
    assert_eq!(ask(&gate, &authority, &[&url("/")]), "200 <p>page</p>");
    let into = dir.path().join("got");
    let asked = ask(&gate, &authority, &["-o", &path(&into), &url("/large.bin")]);
    assert!(asked.starts_with("200 ") && fs::read(&into).unwrap() == body);
    let part = ask(&gate, &authority, &["-r", "0-2", "-o", &path(&into), &url("/large.bin")]);
    assert!(part.starts_with("206 ") && fs::read(&into).unwrap() == body[..3]);
}

/// curl 7.88 loses a response when the stream is reset while it sends.
#[test]
fn a_response_at_once_is_not_lost_to_the_body_of_its_request() {
    let authority = Authority::new("authority");
    let dir = tempfile::tempdir().unwrap();
    let routes = format!(
        "{{ path = \"/r\", respond = {{ body = \"hello\" }} }}, \
         {{ prefix = \"/files/\", root = {:?} }}",
        dir.path()
    );
    let body = dir.path().join("body");
    fs::write(&body, bytes(1, 60_000)).unwrap();
    for driver in ["io_uring", "epoll"] {
        let gate = start(&authority.signs(&[NAME]), &routes, "", driver);
        for (data, times) in [("abc".to_owned(), 20), (format!("@{}", body.display()), 5)] {
            for (path, status) in [("/r", "200 "), ("/files/a", "405 "), ("/none", "404 ")] {
                for _ in 0..times {
                    let asked = ask(&gate, &authority, &["--data-binary", &data, &url(path)]);
                    assert!(asked.starts_with(status), "{driver}, {path}: {asked}");
                }
            }
        }
    }
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn many_streams_of_many_clients_are_served() {
    let (authority, web) = (Authority::new("authority"), Web::start());
    let cluster = format!("[cluster.web]\nendpoints = [{:?}]", web.url("").replace("http://", ""));
    let routes =
        "{ path = \"/r\", respond = { body = \"hello\" } }, { prefix = \"/\", cluster = \"web\" }";
    let gate = start(&authority.signs(&[NAME]), routes, &cluster, "io_uring");
    for (path, requests) in [("/r", "4000"), ("/bytes/1000", "400")] {
        let mut load = require("h2load");
        load.args(["-n", requests, "-c", "8", "-m", "20", "--connect-to"]);
        load.arg(gate.address("edge").to_string()).arg(url(path));
        let said = String::from_utf8(run(&mut load).stdout).unwrap();
        let all = format!("{requests} succeeded, 0 failed, 0 errored, 0 timeout");
        assert!(said.contains(&all), "{said}");
    }
}

#[test]
fn a_drain_lets_streams_end_and_closes_idle_connections() {
    let authority = Authority::new("authority");
    let routes = "{ path = \"/r\", respond = { body = \"hello\" } }";
    let mut gate = start(&authority.signs(&[NAME]), routes, "", "io_uring");
    let mut settings = tls_settings(&authority, VERSIONS[1]);
    settings.alpn_protocols = vec![b"h2".to_vec()];
    let settings = Arc::new(settings);
    let mut client = TlsClient::connect(gate.address("edge"), &settings, NAME);
    // The preface and empty SETTINGS (RFC 9113 section 3.4).
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00");
    wait_for("the connection", SHORT, || (gate.sockets() > 0).then_some(()));
    gate.signal(Signal::TERM);
    let rest = client.rest();
    // A GOAWAY frame has the type 7 (RFC 9113 section 6.8).
    assert!(rest.windows(9).any(|frame| frame[3] == 7), "{rest:?}");
    drop(client);
    assert!(gate.wait_exit(LONG).success());
}

/// A frame (RFC 9113 section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// CVE-2023-44487: a client that opens streams and resets them at once has them answered for free.
#[test]
fn streams_that_the_client_resets_leave_nothing_behind() {
    let (authority, backend) = (Authority::new("authority"), TcpListener::bind("127.0.0.1:0"));
    let backend = backend.unwrap();
    let cluster = format!("[cluster.b]\nendpoints = [\"{}\"]", backend.local_addr().unwrap());
    let routes = "{ prefix = \"/\", cluster = \"b\" }";
    let gate = start(&authority.signs(&[NAME]), routes, &cluster, "io_uring");
    let mut settings = tls_settings(&authority, VERSIONS[1]);
    settings.alpn_protocols = vec![b"h2".to_vec()];
    let mut client = TlsClient::connect(gate.address("edge"), &Arc::new(settings), NAME);
    client.send([b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(4, 0, 0, &[])[..]].concat());
    // GET, https, / and :authority (RFC 7541 appendix A).
    let head = [&[0x82, 0x87, 0x84, 0x41, NAME.len() as u8][..], NAME.as_bytes()].concat();
    let sockets = gate.sockets();
    for stream in (1..400).step_by(2) {
        client.send(frame(1, 5, stream, &head));
        client.send(frame(3, 0, stream, &8u32.to_be_bytes()));
    }
    backend.set_nonblocking(true).unwrap();
    let mut open = Vec::new();
    wait_for("no connection to the backend is open", LONG, || {
        while let Ok((stream, _)) = backend.accept() {
            stream.set_nonblocking(true).unwrap();
            open.push(stream);
        }
        assert!(open.len() <= 200, "{}", open.len());
        (gate.sockets() <= sockets).then_some(())
    });
    // The connection has ended or goes on, as the client deserves; the next one is served.
    let again = TlsClient::connect(gate.address("edge"), &client_settings(&authority), NAME);
    drop((client, again));
}

fn client_settings(authority: &Authority) -> Arc<rustls::ClientConfig> {
    Arc::new(tls_settings(authority, VERSIONS[1]))
}

/// The crate refuses fields about the connection, and an interim response with one was lost.
#[test]
fn interim_responses_go_on_without_fields_about_the_connection() {
    let (authority, upstream) = (Authority::new("authority"), Upstream::listen());
    let rule = authority.signs(&[NAME]).rule(&[NAME], "");
    let config = proxied(&format!("\"{}\"", upstream.address()), &rule, "", "");
    let settings = http2_settings(&authority);
    over_each_driver(&config, |gate| {
        with_http2(gate.address("web"), &settings, NAME, async |mut client| {
            let request = http::Request::get(url("/a")).body(()).unwrap();
            let mut response = client.send_request(request, true).unwrap().0;
            let mut backend = upstream.backend();
            backend.head();
            backend.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nKeep-Alive: timeout=5\r\n");
            backend.send("Connection: keep-alive, x-own\r\nX-Own: 1\r\n\r\n");
            let early = poll_fn(|cx| response.poll_informational(cx)).await.unwrap().unwrap();
            let names: Vec<_> = early.headers().keys().map(|name| name.as_str()).collect();
            assert_eq!((early.status().as_u16(), names), (103, vec!["link"]));
            backend.answer("x");
            assert_eq!(response.await.unwrap().status(), 200);
        });
    });
}

/// The crate cuts a fragment off, which has no place in `:path` (RFC 9113 section 8.3.1). What is
/// routed is what the backend gets.
#[test]
fn a_fragment_in_the_path_is_routed_nowhere() {
    let (authority, upstream) = (Authority::new("authority"), Upstream::listen());
    let rule = authority.signs(&[NAME]).rule(&[NAME], "");
    let config = proxied(&format!("\"{}\"", upstream.address()), &rule, "", "");
    let gate = Ringgate::start(&config);
    let mut client = TlsClient::connect(gate.address("web"), &http2_settings(&authority), NAME);
    client.send([b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(4, 0, 0, &[])[..]].concat());
    // GET and https of the table, :path and :authority as literals (RFC 7541 appendix A).
    let literal = |name: u8, value: &str| [&[name, value.len() as u8], value.as_bytes()].concat();
    let head = [vec![0x82, 0x87], literal(0x04, "/a#b?c"), literal(0x01, NAME)].concat();
    client.send(frame(1, 5, 1, &head));
    let mut backend = upstream.backend();
    assert_eq!(backend.head().asks(), "GET /a");
    backend.answer("x");
    assert_eq!(gate.record().text("path"), "/a");
}
