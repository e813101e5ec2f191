//! Paths with dot segments: a backend that resolves them serves another path than the one that was
//! routed, so that no prefix route hands them on.

use std::net::SocketAddr;
use std::path::Path;

use crate::support::{
    HttpClient, Process, Ringgate, Setup, UPGRADE, Upstream, free_port, read_until, require,
    wait_listening,
};

/// Spellings of a path that leave `/live/`, or stay in it, once someone resolves them.
const DOTTED: [&str; 30] = [
    "/live/../admin",
    "/live/..",
    "/live/.",
    "/live/./x",
    "/live/x/../../admin",
    "/live/x/.",
    "/live//../../admin",
    "/live/%2e%2e/admin",
    "/live/%2E%2e/admin",
    "/live/.%2e/admin",
    "/live/%2E./admin",
    "/live/%2e",
    "/live/%2e/x",
    "/live/..?a=b",
    "/live/..%2fadmin",
    "/live/..%2Fadmin",
    "/live/%2e%2e%2fadmin",
    "/live/x%2f..%2f..%2fadmin",
    "/live%2f../live/../admin",
    "/live/..\\admin",
    "/live/x\\..\\..\\admin",
    "/live/..%5cadmin",
    "/live/%2e%2e%5C%2e%2e/admin",
    "/live/..;/admin",
    "/live/..;a=b/admin",
    "/live/..%3b/admin",
    "/live/.;/x",
    "/live/%2e%2e;x",
    "http://live.example.test/live/../admin",
    "http://live.example.test/live/%2e./admin",
];

/// Paths without any, although they have dots in them.
const PLAIN: [&str; 16] = [
    "/live/",
    "/live/x",
    "/live/...",
    "/live/.x",
    "/live/x.",
    "/live/..x",
    "/live/x../y",
    "/live/.../y",
    "/live/%2e%2ex/y",
    "/live/%2e%2e%2e",
    "/live/%252e%252e/y",
    "/live/%2",
    "/live/%",
    "/live/;../y",
    "/live/a%2fb",
    "/live/x?y=/../z",
];

/// nginx whose answers say on which side of `/live/` it took the path to be.
fn nginx(dir: &Path) -> (SocketAddr, Process) {
    let port = free_port();
    let config = format!(
        "daemon off; pid nginx.pid; error_log stderr; events {{ }}\n\
         http {{ access_log off; server {{ listen 127.0.0.1:{};\n\
         location / {{ return 200 outside; }} location /live/ {{ return 200 inside; }} }} }}\n",
        port.number()
    );
    std::fs::write(dir.join("nginx.conf"), config).unwrap();
    let mut nginx = require("nginx");
    nginx.arg("-p").arg(dir).args(["-c", "nginx.conf"]);
    let process = Process::spawn(nginx);
    wait_listening(port.number());
    (port.address(), process)
}

/// Upgrades of these paths go to `upstream`, all other requests get 404.
fn start(upstream: SocketAddr, route: &str, driver: &str) -> Ringgate {
    let config = format!(
        r#"
        [[listener]]
        name = "web"
        listen = "127.0.0.1:0"
        protocol = "http"
          [[listener.host]]
            [[listener.host.route]]
            upgrade = "websocket"
            cluster = "backend"
            {route}
        [cluster.backend]
        endpoints = ["{upstream}"]
        "#
    );
    Setup { config, server: format!("driver = \"{driver}\""), ..Setup::default() }.start()
}

fn upgrade(target: &str) -> String {
    UPGRADE.replacen("/stream", target, 1)
}

#[test]
fn a_prefix_hands_no_dot_segments_to_a_backend() {
    let dir = tempfile::tempdir().unwrap();
    let (backend, _nginx) = nginx(dir.path());
    for driver in ["io_uring", "epoll"] {
        let gate = start(backend, "prefix = \"/live/\"", driver);
        let answer_to = |target: &str| {
            let mut client = HttpClient::connect(gate.address("web"));
            client.send(upgrade(target));
            let response = client.response();
            (response.status, String::from_utf8_lossy(&response.body).into_owned())
        };
        for target in DOTTED {
            assert_eq!(answer_to(target), (404, "Not Found\n".into()), "{driver}, {target}");
        }
        for target in PLAIN {
            // nginx refuses what is not percent-encoded well.
            let expected = if target.ends_with('%') || target.ends_with("%2") { 400 } else { 200 };
            let (status, body) = answer_to(target);
            assert_eq!(status, expected, "{driver}, {target}");
            assert!(status == 400 || body == "inside", "{driver}, {target}: {body}");
        }
    }
}

#[test]
fn the_prefix_of_everything_hands_none_on_either() {
    let upstream = Upstream::listen();
    let gate = start(upstream.address(), "prefix = \"/\"\nearly_data = true", "auto");
    for target in DOTTED {
        let mut client = HttpClient::connect(gate.address("web"));
        client.send(upgrade(target));
        assert_eq!(client.response().status, 404, "{target}");
        assert!(upstream.try_accept().is_none(), "{target} has reached the upstream");
    }
}

#[test]
fn an_exact_path_may_have_them_and_they_are_not_resolved() {
    let upstream = Upstream::listen();
    let gate = start(upstream.address(), "path = \"/live/../%2e./x\"", "auto");
    for target in ["/live/.././x", "/x", "/live/../%252e./x"] {
        let mut client = HttpClient::connect(gate.address("web"));
        client.send(upgrade(target));
        assert_eq!(client.response().status, 404, "{target}");
    }
    for target in ["/live/../%2e./x", "/live/%2E%2e/../x"] {
        let mut client = HttpClient::connect(gate.address("web"));
        let request = upgrade(target);
        client.send(&request);
        assert_eq!(read_until(&mut upstream.accept(), b"\r\n\r\n"), request.as_bytes());
    }
}

#[test]
fn routes_that_hand_nothing_on_take_them() {
    let upstream = Upstream::listen();
    let gate = start(upstream.address(), "prefix = \"/live\"\ntunnel = \"terminate\"", "auto");
    for target in DOTTED {
        let mut client = HttpClient::connect(gate.address("web"));
        client.send(upgrade(target));
        assert_eq!(client.head_only().status, 101, "{target}");
    }

    let gate = Ringgate::start(
        r#"
        [[listener]]
        name = "web"
        listen = "127.0.0.1:0"
        protocol = "http"
          [[listener.host]]
          names = ["page.test"]
            [[listener.host.route]]
            prefix = "/live/"
            respond = { body = "a page" }
          [[listener.host]]
            [[listener.host.route]]
            prefix = "/live/"
            redirect = { host = "www.example.test" }
        "#,
    );
    for target in DOTTED.iter().filter(|target| target.starts_with("/live/")) {
        let mut client = HttpClient::connect(gate.address("web"));
        client.send(format!("GET {target} HTTP/1.1\r\nHost: page.test\r\n\r\n"));
        assert_eq!(client.response().body, b"a page", "{target}");
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n"));
        let location = format!("http://www.example.test{target}");
        assert_eq!(client.response().field("location"), Some(location.as_str()));
    }
}
