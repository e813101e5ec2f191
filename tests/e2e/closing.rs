//! A response arrives whole although its client has sent more than was read (RFC 9112 section 9.6).

use std::io::{Read, Write};

use crate::support::{
    HttpClient, Ringgate, Setup, Upstream, bytes, expect_end, obfs_hello, read_until, slow_reader,
    stream_site,
};

const BOTH: [&str; 2] = ["io_uring", "epoll"];
const MIB: usize = 1024 * 1024;

fn page(driver: &str, listener: &str) -> Ringgate {
    let page = "x".repeat(MIB - 1);
    let config = format!(
        "[[listener]]\nname = \"web\"\nlisten = \"127.0.0.1:0\"\nprotocol = \"http\"\n\
         {listener}\n[[listener.host]]\n[[listener.host.route]]\nprefix = \"/\"\n\
         respond = {{ body = \"{page}\" }}\n"
    );
    Setup { config, server: format!("driver = \"{driver}\""), ..Setup::default() }.start()
}

#[test]
fn a_page_is_not_lost_to_bytes_behind_the_last_request() {
    for driver in BOTH {
        let gate = page(driver, "");
        let pipelined = "GET /next HTTP/1.1\r\nHost: a\r\n\r\n";
        for (request, behind) in [
            ("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "\r\n"),
            ("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", pipelined),
            ("GET / HTTP/1.0\r\n\r\n", "\r\n"),
            ("POST / HTTP/1.0\r\nContent-Length: 4\r\n\r\nbody", pipelined),
        ] {
            let mut client = HttpClient::over(slow_reader(gate.address("web")));
            client.send(request);
            // In a segment of its own, which arrives when the request is answered.
            read_until(&mut client.stream, b"HTTP/1.1 200");
            client.send(behind);
            let mut rest = Vec::new();
            let read = client.stream.read_to_end(&mut rest);
            let whole = rest.len() > MIB - 64 * 1024 && rest.ends_with(b"xxx");
            assert!(read.is_ok() && whole, "{driver}, {behind:?}: {read:?} of {}", rest.len());
        }
    }
}

#[test]
fn a_408_is_not_lost_to_the_rest_of_the_head() {
    for driver in BOTH {
        let gate = page(driver, "head_timeout = \"2s\"");
        let mut client = HttpClient::connect(gate.address("web"));
        client.send("GET / HTTP/1.1\r\nHo");
        assert_eq!(gate.record().end(), "head_timeout");
        // The answer is there and not read yet.
        client.send("st: a\r\n\r\n");
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.response().status, 408, "{driver}");
        client.expect_end();
    }
}

#[test]
fn the_last_bytes_of_an_upstream_are_not_lost_to_garbage_behind_simple_obfs_tls() {
    for driver in BOTH {
        let backend = Upstream::listen();
        let site = stream_site(backend.address(), "").replacen(
            "[cluster",
            "[[listener.tls]]\nnames = [\"cdn.example.test\"]\ntunnel = \"terminate\"\n\
             cluster = \"shadowsocks\"\n[cluster",
            1,
        );
        let server = format!("driver = \"{driver}\"");
        let gate = Setup { config: site, server, ..Setup::default() }.start();
        let mut client = slow_reader(gate.address("web"));
        client.write_all(&obfs_hello("cdn.example.test", b"payload")).unwrap();
        let mut upstream = backend.accept();
        assert_eq!(read_until(&mut upstream, b"payload"), b"payload");
        client.write_all(b"this is no record").unwrap();
        // The flow to the upstream ends there.
        expect_end(&mut upstream);
        client.write_all(&[b'?'; 1000]).unwrap();
        let sent = bytes(3, MIB);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                upstream.write_all(&sent).unwrap();
                drop(upstream);
            });
            let mut received = Vec::new();
            let read = client.read_to_end(&mut received);
            assert!(read.is_ok(), "{driver}: {read:?} after {} bytes", received.len());
            assert!(received.len() > MIB, "{driver}: {} bytes", received.len());
        });
        assert_eq!(gate.record().end(), "bad_request", "{driver}");
    }
}
