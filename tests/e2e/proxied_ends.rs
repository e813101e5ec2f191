//! Where the body of a response ends if the backend resets its connection.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::support::{
    Authority, Backend, HttpClient, Ringgate, Upstream, bytes, http2_settings, is_acknowledged,
    jam, over_each_driver, proxied, reset, slow_reader, with_deadlines, with_http2,
};

const NAME: &str = "own.test";
const GET: &str = "GET /a HTTP/1.1\r\nHost: own.test\r\nConnection: close\r\n\r\n";

/// Waits until the worker has looked for resets. It also finds that of a client whose backend is
/// silent.
#[track_caller]
fn wait_for_a_look(gate: &Ringgate, upstream: &Upstream) {
    let mut client = HttpClient::connect(gate.address("web"));
    client.send(GET.replacen("/a", "/look", 1));
    let mut backend = upstream.backend();
    backend.request();
    reset(client.stream);
    let record = gate.records_where(1, |record| record.text("path") == "/look").remove(0);
    assert_eq!(record.end(), "client_reset");
}

/// A backend that has answered early and closes with a part of the request unread does this (RFC
/// 9112 section 9.6).
#[test]
fn a_slow_client_gets_all_that_a_backend_had_sent_before_its_reset() {
    let upstream = Upstream::listen();
    over_each_driver(&proxied(&format!("\"{}\"", upstream.address()), "", "", ""), |gate| {
        let content = bytes(5, 8 * 1024 * 1024);
        let mut client = HttpClient::over(slow_reader(gate.address("web")));
        client.send(GET);
        let mut backend = upstream.backend();
        backend.request();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", content.len());
        backend.send(head);
        client.head_only();
        // The client reads until ringgate's kernel has all that is left, and then pauses.
        let mut read = Vec::new();
        thread::scope(|scope| {
            let sender = scope.spawn(|| (&backend.stream).write_all(&content).unwrap());
            while !sender.is_finished() || !is_acknowledged(&backend.stream) {
                read.extend_from_slice(&client.take(16 * 1024));
            }
        });
        reset(backend.stream);
        wait_for_a_look(&gate, &upstream);
        read.extend_from_slice(&client.take(content.len() - read.len()));
        assert!(read == content, "other bytes");
        client.expect_end();
        let record = gate.records_where(1, |record| record.text("path") == "/a").remove(0);
        assert_eq!((record.end(), record.number("status")), ("done", 200), "{record:?}");
    });
}

/// The backend answers while it gets a body, fills every buffer and resets.
#[track_caller]
fn answer_without_a_length_and_reset(mut backend: Backend) {
    backend.head();
    backend.take(10);
    backend.send("HTTP/1.1 200 OK\r\n\r\n");
    jam(&mut backend.stream);
    reset(backend.stream);
}

/// The write takes the error of the reset, so that the end that is read later looks clean.
#[test]
fn a_body_without_a_length_is_not_whole_if_a_write_to_its_backend_has_failed() {
    let upstream = Upstream::listen();
    over_each_driver(&proxied(&format!("\"{}\"", upstream.address()), "", "", ""), |gate| {
        for (number, version) in ["1.0", "1.1"].into_iter().enumerate() {
            let mut client = HttpClient::over(slow_reader(gate.address("web")));
            client.send(format!(
                "POST /a HTTP/{version}\r\nHost: own.test\r\nContent-Length: 100\r\n\r\n1234567890"
            ));
            answer_without_a_length_and_reset(upstream.backend());
            client.send("x");
            let mut rest = Vec::new();
            let read = client.stream.read_to_end(&mut rest);
            assert!(read.is_err(), "HTTP/{version}: a part looks whole");
            let record = gate.records(number + 1).remove(number);
            assert_eq!(record.end(), "upstream_reset", "{record:?}");
        }
    });
}

#[test]
fn a_stream_is_not_whole_if_a_write_to_its_backend_has_failed() {
    let authority = Authority::new("authority");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("\"{}\"", listener.local_addr().unwrap());
    let rule = authority.signs(&[NAME]).rule(&[NAME], "");
    let settings = http2_settings(&authority);
    over_each_driver(&proxied(&endpoint, &rule, "", ""), |gate| {
        let (gone, is_gone) = oneshot::channel();
        let backend = listener.try_clone().unwrap();
        let backend = thread::spawn(move || {
            let (stream, _) = backend.accept().unwrap();
            answer_without_a_length_and_reset(Backend::over(with_deadlines(stream)));
            gone.send(()).unwrap();
        });
        with_http2(gate.address("web"), &settings, NAME, async |mut client| {
            let request = http::Request::post(format!("https://{NAME}/a"));
            let request = request.header("content-length", "100").body(()).unwrap();
            let (response, mut body) = client.send_request(request, false).unwrap();
            body.send_data(Bytes::from_static(b"1234567890"), false).unwrap();
            // The window of the stream is not opened before the backend has gone.
            let mut response = response.await.unwrap().into_body();
            is_gone.await.unwrap();
            body.send_data(Bytes::from_static(b"x"), false).unwrap();
            let is_whole = loop {
                match response.data().await {
                    Some(Ok(piece)) => {
                        response.flow_control().release_capacity(piece.len()).unwrap();
                    }
                    other => break other.is_none(),
                }
            };
            assert!(!is_whole, "a part looks whole");
        });
        backend.join().unwrap();
        assert_eq!(gate.record().end(), "upstream_reset");
    });
}
