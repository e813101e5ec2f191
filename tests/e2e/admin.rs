//! The admin endpoint: what it shows, what it does, and what it refuses.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use serde_json::Value;

use crate::reload::{page, start, tcp};
use crate::support::{
    Echo, HttpClient, LONG, SHORT, Setup, UdpEcho, expect_silence, free_port, require, wait_for,
    with_deadlines,
};
use crate::takeover::Chain;
use crate::udp::{ask, client};

/// In which a response would have come.
const MOMENT: Duration = Duration::from_millis(100);
const TOKEN: &str = "0123456789abcdef0123456789abcdef";

pub(crate) fn admin(address: SocketAddr) -> String {
    format!("[admin]\nlisten = \"{address}\"\n")
}

/// Sends a request with these further fields. Returns the status and the body.
#[track_caller]
pub(crate) fn asks(address: SocketAddr, request: &str, fields: &str) -> (u16, String) {
    let mut client = HttpClient::connect(address);
    client.send(format!("{request} HTTP/1.1\r\nHost: {address}\r\n{fields}\r\n"));
    let response = client.response();
    (response.status, String::from_utf8(response.body).unwrap())
}

#[track_caller]
pub(crate) fn stats(address: SocketAddr) -> Value {
    let (status, body) = asks(address, "GET /stats", "");
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

#[track_caller]
pub(crate) fn listener<'s>(stats: &'s Value, name: &str) -> &'s Value {
    let mut all = stats["listeners"].as_array().unwrap().iter();
    all.find(|one| one["name"] == name).unwrap_or_else(|| panic!("{name}: {stats:#}"))
}

/// The value of a metric, with its labels.
#[track_caller]
pub(crate) fn metric(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name}: {text}")).parse().unwrap()
}

#[test]
fn what_is_open_and_what_was_counted_is_shown() {
    let (echo, udp_echo) = (Echo::start(), UdpEcho::start(""));
    for driver in ["io_uring", "epoll"] {
        let [own, web, raw, dns] = [(); 4].map(|()| free_port().address());
        let config = admin(own)
            + &page("web", web, "hello")
            + &tcp("raw", raw, "c")
            + &tcp("dns", dns, "d").replace("\"tcp\"", "\"udp\"")
            + &crate::reload::cluster("c", echo.address())
            + &crate::reload::cluster("d", udp_echo.address());
        let gate = start(&config, driver);
        let mut tunnel = with_deadlines(std::net::TcpStream::connect(raw).unwrap());
        crate::reload::echoes(&mut tunnel, 1);
        let session = client(dns);
        assert_eq!(ask(&session, b"x"), b"x");
        for _ in 0..3 {
            let mut visitor = HttpClient::connect(web);
            visitor.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            assert_eq!(visitor.response().body, b"hello");
            visitor.expect_end();
        }
        let shown = wait_for("the visitors are counted", SHORT, || {
            let shown = stats(own);
            (listener(&shown, "web")["connections"]["open"] == 0).then_some(shown)
        });
        assert_eq!(listener(&shown, "web")["connections"]["total"], 3, "{shown:#}");
        assert_eq!(listener(&shown, "web")["ends"]["done"], 3);
        assert_eq!(listener(&shown, "raw")["tunnels"]["open"], 1);
        assert_eq!(listener(&shown, "dns")["sessions"]["open"], 1);
        assert_eq!(shown["driver"], driver);
        assert_eq!(shown["state"], "serving");

        let (status, text) = asks(own, "GET /metrics", "");
        assert_eq!(status, 200);
        let name =
            |name: &str, listener: &str| format!("ringgate_{name}{{listener=\"{listener}\"}}");
        assert_eq!(metric(&text, &name("listener_connections_total", "web")), 3.0);
        assert_eq!(metric(&text, &name("listener_open_tunnels", "raw")), 1.0);
        assert_eq!(metric(&text, &name("listener_open_sessions", "dns")), 1.0);
        assert_eq!(metric(&text, "ringgate_ready"), 1.0);
        assert_eq!(metric(&text, &format!("ringgate_driver_info{{driver=\"{driver}\"}}")), 1.0);
        let fds = format!("/proc/{}/fd", gate.pid().as_raw_nonzero());
        wait_for("the number of descriptors", SHORT, || {
            let (_, text) = asks(own, "GET /metrics", "");
            // That of the request may be closed meanwhile.
            let listed = fs::read_dir(&fds).ok()?.count() as f64;
            ((metric(&text, "process_open_fds") - listed).abs() <= 1.0).then_some(())
        });
        assert!(metric(&text, "process_resident_memory_bytes") > 1e6);
        assert_eq!(asks(own, "GET /healthz", ""), (200, "ok\n".to_owned()));
        assert_eq!(asks(own, "GET /ready", ""), (200, "serving\n".to_owned()));
        drop((tunnel, session));
    }
}

#[test]
fn a_reload_says_what_it_has_done_and_counters_go_on() {
    let [own, web, other] = [(); 3].map(|()| free_port().address());
    let gate = start(&(admin(own) + &page("web", web, "old")), "io_uring");
    let body = |address| {
        let mut visitor = HttpClient::connect(address);
        visitor.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        String::from_utf8(visitor.response().body).unwrap()
    };
    assert_eq!(body(web), "old");
    fs::write(gate.config_file(), admin(own) + &page("web", web, "new")).unwrap();
    let (status, text) = asks(own, "POST /reload", "Content-Length: 0\r\n");
    assert_eq!(status, 200, "{text}");
    assert_eq!(body(web), "new");
    let shown = stats(own);
    assert_eq!(shown["reloads"], 1);
    assert_eq!(listener(&shown, "web")["connections"]["total"], 2);

    // A file with errors changes nothing, and the client gets what `check` prints.
    fs::write(gate.config_file(), admin(own) + "[[listener]]\nname = \"web\"\n").unwrap();
    let (status, text) = asks(own, "POST /reload", "Content-Length: 0\r\n");
    assert_eq!(status, 422, "{text}");
    assert!(text.contains("listen") && text.contains("error"), "{text}");
    assert_eq!(body(web), "new");
    // The next reload must not take this line for its own.
    gate.line_with("the new configuration is not used");

    // The endpoint moves, and goes.
    gate.reload(&(admin(other) + &page("web", web, "new")));
    assert_eq!(stats(other)["reloads"], 2);
    wait_for("the old address is closed", SHORT, || {
        std::net::TcpStream::connect(own).is_err().then_some(())
    });
    gate.reload(&page("web", web, "new"));
    wait_for("there is no endpoint", SHORT, || {
        std::net::TcpStream::connect(other).is_err().then_some(())
    });
}

#[test]
fn requests_that_are_not_allowed_get_nothing() {
    let [own, web] = [(); 2].map(|()| free_port().address());
    let gate = start(&(admin(own) + &page("web", web, "a")), "epoll");
    let with_host = |request: &str, host: &str| {
        let mut client = HttpClient::connect(own);
        client.send(format!("{request} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n"));
        client.response().status
    };
    assert_eq!(with_host("GET /stats", "evil.example"), 421);
    assert_eq!(with_host("GET /ready", "evil.example"), 421);
    assert_eq!(with_host("POST /reload", "evil.example:9901"), 421);
    assert_eq!(with_host("GET /stats", "localhost"), 200);
    let cross = "Content-Length: 0\r\nOrigin: http://evil.example\r\n";
    assert_eq!(asks(own, "POST /drain", cross).0, 403);
    assert_eq!(asks(own, "GET /nothing", "").0, 404);
    assert_eq!(asks(own, "GET /drain", "").0, 405);
    assert_eq!(asks(own, "POST /stats", "Content-Length: 0\r\n").0, 405);
    assert_eq!(asks(own, "DELETE /stats", "").0, 405);

    // With a token.
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    fs::write(&file, format!("{TOKEN}\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    gate.reload(&(admin(own) + &format!("token_file = {file:?}\n") + &page("web", web, "a")));
    assert_eq!(asks(own, "GET /stats", "").0, 401);
    assert_eq!(asks(own, "GET /stats", "Authorization: Bearer 0123456789abcdef\r\n").0, 401);
    let bearer = format!("Authorization: Bearer {TOKEN}\r\n");
    assert_eq!(asks(own, "GET /stats", &bearer).0, 200);
    // Probes need none, and may use any name: that of a machine, for example.
    assert_eq!((asks(own, "GET /ready", "").0, asks(own, "GET /healthz", "").0), (200, 200));
    assert_eq!(with_host("GET /ready", "edge-1.example:9901"), 200);
    assert_eq!(with_host("GET /healthz", "edge-1.example"), 200);
    assert_eq!(with_host("GET /stats", "edge-1.example"), 401);
    assert!(gate.lines().iter().all(|line| !line.contains(TOKEN)));
}

#[test]
fn clients_that_are_slow_or_send_nonsense_harm_nothing() {
    let [own, web] = [(); 2].map(|()| free_port().address());
    let gate = start(&(admin(own) + &page("web", web, "a")), "io_uring");
    // As many as are served at once: the others wait.
    let silent: Vec<_> = (0..64).map(|_| std::net::TcpStream::connect(own).unwrap()).collect();
    let mut waiting: Vec<_> = (0..8)
        .map(|_| {
            let mut client = HttpClient::connect(own);
            client.send(format!("GET /ready HTTP/1.1\r\nHost: {own}\r\n\r\n"));
            client
        })
        .collect();
    waiting.iter_mut().for_each(|client| expect_silence(&mut client.stream, MOMENT));
    let mut visitor = HttpClient::connect(web);
    visitor.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(visitor.response().body, b"a");
    drop(silent);
    waiting.iter_mut().for_each(|client| assert_eq!(client.response().body, b"serving\n"));

    let nonsense = |bytes: &[u8]| {
        let mut client = HttpClient::connect(own);
        client.send(bytes);
        client.rest()
    };
    assert!(!nonsense(b"\x16\x03\x01\x00\x00garbage\r\n\r\n").starts_with(b"HTTP/1.1 200"));
    let long = format!("GET /{} HTTP/1.1\r\nHost: {own}\r\n\r\n", "a".repeat(100_000));
    assert!(!nonsense(long.as_bytes()).starts_with(b"HTTP/1.1 200"));
    // A body that nothing reads.
    let (status, _) = asks(own, "GET /stats", "Content-Length: 1000000000\r\n");
    assert_eq!(status, 200);
    assert_eq!(asks(own, "GET /ready", "").0, 200);
    assert!(gate.anonymous_kib() < 64 << 10);
}

#[test]
fn a_unix_socket_is_for_its_user_and_group() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("admin.sock");
    let web = free_port().address();
    let config =
        format!("[admin]\nlisten = \"unix:{}\"\n", path.display()) + &page("web", web, "a");
    let mut gate = start(&config, "epoll");
    let ask = |path: &std::path::Path, url: &str, more: &[&str]| {
        let path = path.to_str().unwrap();
        let mut curl = require("curl");
        let output = curl.args(["-s", "--unix-socket", path]).args(more).arg(url).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    assert_eq!(ask(&path, "http://any.example/ready", &[]), "serving\n");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    assert!(ask(&path, "http://a/drain", &["-X", "POST"]).contains("draining"));
    assert!(gate.wait_exit(LONG).success());
    assert!(!path.exists(), "the path is removed");
}

#[test]
fn the_successor_has_the_endpoint_after_a_take_over() {
    let [own, web] = [(); 2].map(|()| free_port().address());
    let config = admin(own) + &page("web", web, "a");
    let server = "drain_timeout = \"1s\"".to_owned();
    let mut chain = Chain::start(Setup { config, server, ..Setup::default() });
    let started = stats(own)["process"]["started_seconds"].as_f64();
    let (status, text) = asks(own, "POST /upgrade", "Content-Length: 0\r\n");
    assert_eq!(status, 200, "{text}");
    chain.succeeds();
    wait_for("the successor answers", SHORT, || {
        let mut stream = std::net::TcpStream::connect(own).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        std::io::Write::write_all(
            &mut stream,
            b"GET /stats HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        )
        .ok()?;
        let mut text = String::new();
        std::io::Read::read_to_string(&mut stream, &mut text).ok()?;
        let body: Value = serde_json::from_str(text.split_once("\r\n\r\n")?.1).ok()?;
        (body["process"]["started_seconds"].as_f64() > started).then_some(())
    });
}

#[test]
fn not_ready_is_said_while_connections_are_still_accepted() {
    let [own, web] = [(); 2].map(|()| free_port().address());
    let config = admin(own) + &page("web", web, "a");
    let server = "drain_delay = \"10s\"\ndrain_timeout = \"1s\"".to_owned();
    let mut gate = Setup { config, server, ..Setup::default() }.start();
    assert_eq!(asks(own, "POST /drain", "Content-Length: 0\r\n").0, 200);
    wait_for("it is not ready", SHORT, || {
        (asks(own, "GET /ready", "") == (503, "ending_soon\n".to_owned())).then_some(())
    });
    let mut visitor = HttpClient::connect(web);
    visitor.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(visitor.response().status, 200);
    assert_eq!(asks(own, "POST /reload", "Content-Length: 0\r\n").0, 503);
    gate.signal(rustix::process::Signal::TERM);
    gate.wait_exit(LONG);
}

#[test]
fn a_reload_gives_the_address_of_the_endpoint_to_a_listener_and_back() {
    let [first, second, third] = [(); 3].map(|()| free_port().address());
    for driver in ["io_uring", "epoll"] {
        let gate = start(&(admin(first) + &page("web", second, "a")), driver);
        let visit = |address| {
            let mut visitor = HttpClient::connect(address);
            visitor.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            String::from_utf8(visitor.response().body).unwrap()
        };
        // They change places.
        gate.reload(&(admin(second) + &page("web", first, "b")));
        assert_eq!(visit(first), "b", "{driver}");
        assert_eq!(stats(second)["reloads"], 1);
        // The endpoint goes where nothing was, and a listener of all addresses comes.
        let any = SocketAddr::from(([0, 0, 0, 0], second.port()));
        gate.reload(&(admin(third) + &page("web", any, "c")));
        assert_eq!((visit(second), &stats(third)["reloads"]), ("c".to_owned(), &2.into()));
        // One that stays is in the way, and nothing changes.
        let config = admin(third) + &page("web", any, "d");
        let taken = config.clone() + &page("more", third, "e").replace("127.0.0.1", "0.0.0.0");
        fs::write(gate.config_file(), taken).unwrap();
        let (status, text) = asks(third, "POST /reload", "Content-Length: 0\r\n");
        assert_eq!((status, text.contains("in use")), (422, true), "{text}");
        assert_eq!(visit(second), "c");
    }
}

#[test]
fn the_page_for_browsers_has_no_number_and_loads_nothing() {
    let own = free_port().address();
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("token");
    fs::write(&file, TOKEN).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let with_token = admin(own) + &format!("token_file = {file:?}\n");
    for config in [admin(own), with_token] {
        let gate = start(&(config.clone() + &page("secret", free_port().address(), "a")), "epoll");
        let mut browser = HttpClient::connect(own);
        browser.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let response = browser.response();
        assert_eq!(response.status, 200, "{config}");
        let policy = response.field("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'"), "{policy}");
        let text = String::from_utf8(response.body).unwrap();
        assert!(text.starts_with("<!doctype html>") && !text.contains("secret"), "{text}");
        // The name of a format is no address.
        let text = text.replace("http://www.w3.org/2000/svg", "");
        for part in ["src=", "href=", "http:", "https:", "url(", "@import", "innerHTML"] {
            assert!(!text.contains(part), "{part}");
        }
        let status = asks(own, "GET /stats", "").0;
        assert_eq!(status, if config == admin(own) { 200 } else { 401 });
        assert_eq!(asks(own, "POST /", "Content-Length: 0\r\n").0 / 100, 4);
        drop(gate);
    }
}
