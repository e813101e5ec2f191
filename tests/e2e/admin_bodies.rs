//! Bodies that clients send to the admin endpoint: how many are in memory, and how long they may
//! be.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::admin::{admin, asks, stats};
use crate::reload::{cluster, start, tcp};
use crate::reload_signals::put_pipe;
use crate::support::{HttpClient, expect_silence, free_port, read_until};

/// In which a response would have come.
const MOMENT: Duration = Duration::from_millis(300);

/// Sends the head of a `POST` with a body of this length, which the client sends when it gets
/// `100 Continue` (RFC 9110, section 10.1.1).
fn announces(own: SocketAddr, path: &str, length: usize) -> HttpClient {
    let mut client = HttpClient::connect(own);
    client.send(format!(
        "POST {path} HTTP/1.1\r\nHost: {own}\r\nExpect: 100-continue\r\n\
         Content-Length: {length}\r\n\r\n"
    ));
    client
}

/// Reads `100 Continue`: the body is read from now on.
fn is_read(client: &mut HttpClient) {
    let head = read_until(&mut client.stream, b"\r\n\r\n");
    assert!(head.starts_with(b"HTTP/1.1 100 "), "{}", String::from_utf8_lossy(&head));
}

#[test]
fn one_configuration_is_in_memory_until_its_order_is_answered() {
    let [own, raw, back] = [(); 3].map(|()| free_port().address());
    let config = admin(own) + &tcp("raw", raw, "c") + &cluster("c", back);
    let gate = start(&config, "epoll");
    let file = gate.config_file();
    let text = fs::read_to_string(&file).unwrap();

    // 1. A reload that reads a pipe: further orders wait for it.
    put_pipe(&file);
    let mut reload = HttpClient::connect(own);
    reload.send(format!("POST /reload HTTP/1.1\r\nHost: {own}\r\nContent-Length: 0\r\n\r\n"));
    let mut pipe = fs::OpenOptions::new().write(true).open(&file).unwrap();

    // 2. The text of the first client waits for its turn, and that of the second is not read.
    let mut first = announces(own, "/config", text.len());
    is_read(&mut first);
    first.send(&text);
    let mut second = announces(own, "/config", text.len());
    expect_silence(&mut second.stream, MOMENT);

    // 3. Endpoints of a cluster are short, and wait for no configuration.
    let (status, answer) = asks(own, "POST /clusters/c/endpoints", "Content-Length: 131073\r\n");
    assert!(status == 413 && answer.contains("128 KiB"), "{status}: {answer}");
    let mut third = announces(own, "/clusters/c/endpoints", 2);
    is_read(&mut third);
    third.send("{}");
    assert_eq!(third.response().status, 422);
    assert_eq!(asks(own, "GET /config", "").0, 200);

    // 4. All go on, one after the other.
    fs::remove_file(&file).unwrap();
    fs::write(&file, &text).unwrap();
    pipe.write_all(text.as_bytes()).unwrap();
    drop(pipe);
    assert_eq!((reload.response().status, first.response().status), (200, 200));
    is_read(&mut second);
    second.send(&text);
    assert_eq!(second.response().status, 200);
    assert_eq!(stats(own)["reloads"], 3);
}

#[test]
fn a_client_that_sends_no_body_holds_up_none_that_sends_endpoints() {
    let [own, raw, back] = [(); 3].map(|()| free_port().address());
    let _gate = start(&(admin(own) + &tcp("raw", raw, "c") + &cluster("c", back)), "epoll");
    let mut slow = announces(own, "/config", 1000);
    is_read(&mut slow);
    let begun = Instant::now();
    let body = format!("{{\"endpoints\": [\"{raw}\"]}}");
    let mut client = announces(own, "/clusters/c/endpoints", body.len());
    is_read(&mut client);
    client.send(&body);
    // It leads back to the cluster.
    assert_eq!(client.response().status, 422);
    // The body of the slow one may take 30 s.
    assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
}
