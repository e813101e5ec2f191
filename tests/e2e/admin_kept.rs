//! Connections to the admin endpoint that stay open while it moves, and orders that wait while the
//! process ends.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use rustix::process::Signal;

use crate::admin::{admin, asks};
use crate::reload::{cluster, page, start, tcp};
use crate::support::{
    Echo, HttpClient, LONG, SHORT, Setup, connect, free_port, require, run, wait_for,
};
use crate::takeover::{Chain, echoes};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

#[test]
fn a_connection_may_ask_nothing_more_when_the_endpoint_has_left_its_address() {
    let [own, other, web] = [(); 3].map(|()| free_port().address());
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    fs::write(&file, TOKEN).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let with_token = admin(own) + &format!("token_file = {file:?}\n") + &page("web", web, "a");
    for config in [admin(other) + &page("web", web, "b"), page("web", web, "b")] {
        let gate = start(&with_token, "io_uring");
        let mut stranger = HttpClient::connect(own);
        let mut half = HttpClient::connect(own);
        stranger.send(format!("GET /stats HTTP/1.1\r\nHost: {own}\r\n\r\n"));
        assert_eq!(stranger.response().status, 401);
        half.send(format!("POST /drain HTTP/1.1\r\nHost: {own}\r\n"));
        // No token is needed from now on, where the endpoint is now.
        gate.reload(&config);
        stranger.expect_end();
        half.send("Content-Length: 0\r\n\r\n");
        let answer = half.rest();
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
        let mut visitor = HttpClient::connect(web);
        visitor.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(visitor.response().body, b"b");
        assert!(gate.lines().iter().all(|line| !line.contains("POST /drain")));
    }
}

#[test]
fn the_order_to_leave_is_answered() {
    let [own, other, web] = [(); 3].map(|()| free_port().address());
    let gate = start(&(admin(own) + &page("web", web, "a")), "epoll");
    let text = fs::read_to_string(gate.config_file()).unwrap();
    let text = text.replace(&own.to_string(), &other.to_string());
    let mut client = HttpClient::connect(own);
    let length = text.len();
    client.send(format!(
        "POST /config HTTP/1.1\r\nHost: {own}\r\nContent-Length: {length}\r\n\r\n{text}"
    ));
    let response = client.response();
    assert_eq!(response.status, 200, "{}", String::from_utf8_lossy(&response.body));
    client.expect_end();
    assert_eq!(asks(other, "GET /ready", "").0, 200);
}

#[test]
fn connections_end_when_another_process_has_taken_over() {
    let echo = Echo::start();
    let [own, raw] = [(); 2].map(|()| free_port().address());
    let config = admin(own) + &tcp("raw", raw, "c") + &cluster("c", echo.address());
    let server = "drain_timeout = \"10m\"".to_owned();
    let mut chain = Chain::start(Setup { config, server, ..Setup::default() });
    let mut tunnel = connect(raw);
    echoes(&mut tunnel);
    let mut kept = HttpClient::connect(own);
    kept.send(format!("GET /ready HTTP/1.1\r\nHost: {own}\r\n\r\n"));
    assert_eq!(kept.response().status, 200);
    chain.take_over();
    kept.expect_end();
    // The process itself lives on with its tunnel.
    echoes(&mut tunnel);
    drop(tunnel);
    chain.end();
}

#[test]
fn orders_that_wait_when_the_process_begins_to_end_are_refused() {
    let echo = Echo::start();
    let [own, raw] = [(); 2].map(|()| free_port().address());
    let config = admin(own) + &tcp("raw", raw, "c") + &cluster("c", echo.address());
    let server = "drain_timeout = \"10m\"".to_owned();
    let mut gate = Setup { config, server, ..Setup::default() }.start();
    let mut tunnel = connect(raw);
    echoes(&mut tunnel);
    // A reload reads this for ever.
    fs::remove_file(gate.config_file()).unwrap();
    assert!(run(require("mkfifo").arg(gate.config_file())).status.success());
    let mut orders = ["/reload", "/log?level=debug"].map(|path| {
        let mut client = HttpClient::connect(own);
        client.send(format!("POST {path} HTTP/1.1\r\nHost: {own}\r\nContent-Length: 0\r\n\r\n"));
        client
    });
    // Both have arrived: they are answered in their order.
    wait_for("the reload has begun", SHORT, || {
        let threads = fs::read_dir(format!("/proc/{}/task", gate.pid().as_raw_nonzero())).unwrap();
        let name = |task: std::io::Result<fs::DirEntry>| {
            fs::read_to_string(task.unwrap().path().join("comm")).unwrap_or_default()
        };
        threads.map(name).any(|name| name.trim() == "reload").then_some(())
    });
    gate.signal(Signal::TERM);
    for order in &mut orders {
        assert_eq!(order.response().status, 503);
    }
    drop(tunnel);
    gate.wait_exit(LONG);
}
