//! One exchange with a backend over both versions of HTTP. A request means the same to the backend
//! whichever version it came by, and the response means the same to the client: status, fields and
//! body, apart from the framing and from fields about one connection.

mod messages;

use std::cell::Cell;
use std::future::poll_fn;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use bytes::Bytes;
use h2::client::SendRequest;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rustls::ClientConfig;

use crate::support::{
    Authority, Backend, Record, Request, SHORT, TlsClient, VERSIONS, http2_settings,
    over_each_driver, proxied, tls_settings, wait_for, with_deadlines, with_http2,
};
use messages::{Ask, Field, NAME, Reply, ask, reply};

/// Exchanges over each version and each driver.
const CASES: u32 = 60;

/// The request that the backend has seen, with the lines of its head sorted by their names.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    lines: Vec<String>,
    body: Vec<u8>,
}

/// What the client has got.
#[derive(Debug, PartialEq, Eq)]
enum Got {
    Whole {
        interim: Vec<(u16, Vec<Field>)>,
        status: u16,
        fields: Vec<Field>,
        body: Vec<u8>,
    },
    /// A response that is seen to be incomplete. How much of it arrives before the reset is chance.
    Broken,
}

/// A field that says something about the message, and not about the connection. `Date` is that of
/// ringgate in its own responses.
fn is_of_message(name: &str) -> bool {
    !["connection", "transfer-encoding", "date"].contains(&name)
}

/// The fields in lower case, sorted by their names.
fn normal<'a>(fields: impl Iterator<Item = (&'a str, &'a [u8])>) -> Vec<Field> {
    let fields = fields.map(|(name, value)| (name.to_lowercase(), text(value)));
    let mut fields: Vec<_> = fields.filter(|(name, _)| is_of_message(name)).collect();
    fields.sort_by(|one, other| one.0.cmp(&other.0));
    fields
}

/// All values that are sent are valid.
fn text(value: &[u8]) -> String {
    String::from_utf8(value.to_vec()).unwrap()
}

/// Serves the next connection unless the client has its response before there is one. Returns the
/// request.
fn serve_one(
    listener: &TcpListener,
    ask: &Ask,
    reply: &Reply,
    is_over: &AtomicBool,
) -> Option<Request> {
    let stream = wait_for("a connection, or the response", SHORT, || {
        let is_last = is_over.load(Ordering::Acquire);
        match listener.accept() {
            Ok((stream, _)) => Some(Some(stream)),
            Err(_) if is_last => Some(None),
            Err(_) => None,
        }
    })?;
    stream.set_nonblocking(false).unwrap();
    let mut backend = Backend::over(with_deadlines(stream));
    let request = backend.request();
    // A reply that is refused need not be read to its end.
    let _ = backend.stream.write_all(&reply.bytes(ask.method));
    Some(request)
}

/// Runs a client and the backend. Returns what the backend has seen and what the client has got.
fn exchange(
    listener: &TcpListener,
    ask: &Ask,
    reply: &Reply,
    client: impl FnOnce() -> Got,
) -> (Option<Seen>, Got) {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let backend = scope.spawn(|| serve_one(listener, ask, reply, &is_over));
        let got = client();
        is_over.store(true, Ordering::Release);
        let seen = backend.join().unwrap().map(|request| {
            let mut lines: Vec<String> = request.head.lines().map(str::to_owned).collect();
            lines[1..].sort_by(|one, other| name_of(one).cmp(name_of(other)));
            Seen { lines, body: request.body }
        });
        (seen, got)
    })
}

fn name_of(line: &str) -> &str {
    line.split_once(':').map_or(line, |(name, _)| name)
}

fn over_http1(edge: SocketAddr, settings: &Arc<ClientConfig>, ask: &Ask) -> Got {
    let mut client = TlsClient::connect(edge, settings, NAME);
    client.send(ask.http1());
    let mut bytes = Vec::new();
    let end = client.read_to_end(&mut bytes);
    let mut interim = Vec::new();
    let mut rest = &bytes[..];
    loop {
        let Some(at) = rest.windows(4).position(|window| window == b"\r\n\r\n") else {
            return Got::Broken;
        };
        let (head, behind) = rest.split_at(at + 4);
        rest = behind;
        let status = std::str::from_utf8(&head[9..12]).unwrap().parse().unwrap();
        let lines = head.split(|&byte| byte == b'\n').skip(1);
        let fields: Vec<(&str, &[u8])> = lines.filter_map(field).collect();
        let of = |name: &str| {
            fields.iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|field| field.1)
        };
        if status < 200 {
            interim.push((status, normal(fields.into_iter())));
            continue;
        }
        let body = match of("content-length") {
            _ if ask.method == "HEAD" || matches!(status, 204 | 304) => Some(Vec::new()),
            _ if of("transfer-encoding").is_some() => dechunked(&mut rest),
            Some(length) => {
                let length: usize = std::str::from_utf8(length).unwrap().parse().unwrap();
                let body = rest.get(..length).map(<[u8]>::to_vec);
                rest = rest.get(length..).unwrap_or_default();
                body
            }
            None => panic!("nothing frames the body: {}", head.escape_ascii()),
        };
        let Some(body) = body.filter(|_| end.is_ok()) else { return Got::Broken };
        assert!(rest.is_empty(), "behind the response: {}", rest.escape_ascii());
        return Got::Whole { interim, status, fields: normal(fields.into_iter()), body };
    }
}

/// A line as a field.
fn field(line: &[u8]) -> Option<(&str, &[u8])> {
    let colon = line.iter().position(|&byte| byte == b':')?;
    Some((std::str::from_utf8(&line[..colon]).unwrap(), line[colon + 1..].trim_ascii()))
}

/// The data of a chunked body in its canonical form, which is taken from the front of `rest`.
/// `None` if it is incomplete.
fn dechunked(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|window| window == b"\r\n")?;
        let line = std::str::from_utf8(&rest[..end]).unwrap();
        let size = usize::from_str_radix(line, 16).unwrap();
        let chunk = rest.get(end + 2..end + 2 + size + 2)?;
        assert!(chunk.ends_with(b"\r\n"));
        body.extend_from_slice(&chunk[..size]);
        *rest = &rest[end + 2 + size + 2..];
        if size == 0 {
            return Some(body);
        }
    }
}

/// The same by the `h2` crate.
fn over_http2(edge: SocketAddr, settings: &Arc<ClientConfig>, ask: &Ask) -> Got {
    let asking = async |client| ask_http2(client, ask).await.unwrap_or(Got::Broken);
    with_http2(edge, settings, NAME, asking)
}

async fn ask_http2(mut client: SendRequest<Bytes>, ask: &Ask) -> Result<Got, h2::Error> {
    let (mut response, mut sender) = client.send_request(ask.http2(), ask.body.is_none())?;
    if let Some((body, _)) = &ask.body {
        // An early response may end the stream before its body.
        let mut pieces = body.chunks(ask.piece).map(Bytes::copy_from_slice);
        let _ = pieces.try_for_each(|piece| sender.send_data(piece, false));
        let _ = sender.send_data(Bytes::new(), true);
    }
    let mut interim = Vec::new();
    while let Some(head) = poll_fn(|cx| response.poll_informational(cx)).await {
        let head = head?;
        interim.push((head.status().as_u16(), of_map(head.headers())));
    }
    let response = response.await?;
    let (status, fields) = (response.status().as_u16(), of_map(response.headers()));
    let (mut stream, mut body) = (response.into_body(), Vec::new());
    while let Some(piece) = stream.data().await {
        let piece = piece?;
        stream.flow_control().release_capacity(piece.len())?;
        body.extend_from_slice(&piece);
    }
    Ok(Got::Whole { interim, status, fields, body })
}

fn of_map(fields: &http::HeaderMap) -> Vec<Field> {
    for name in ["connection", "keep-alive", "transfer-encoding"] {
        assert!(!fields.contains_key(name), "{fields:?}");
    }
    normal(fields.iter().map(|(name, value)| (name.as_str(), value.as_bytes())))
}

#[test]
fn requests_and_responses_mean_the_same_in_both_versions() {
    let authority = Authority::new("authority");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let endpoint = format!("\"{}\"", listener.local_addr().unwrap());
    let tls = format!(
        "trusted_proxies = [\"127.0.0.1\"]\n{}",
        authority.signs(&[NAME]).rule(&[NAME], "")
    );
    // Each exchange has a connection of its own.
    let config = proxied(&endpoint, &tls, "", "keepalive_connections = \"off\"");
    let http1 = Arc::new(tls_settings(&authority, VERSIONS[1]));
    let http2 = http2_settings(&authority);
    over_each_driver(&config, |gate| {
        let edge = gate.address("web");
        let mut runner = TestRunner::new(Config {
            cases: CASES,
            failure_persistence: None,
            max_shrink_iters: 200,
            ..Config::default()
        });
        let count = Cell::new(0);
        let result = runner.run(&(ask(), reply()), |(ask, reply)| {
            let one = exchange(&listener, &ask, &reply, || over_http1(edge, &http1, &ask));
            let two = exchange(&listener, &ask, &reply, || over_http2(edge, &http2, &ask));
            count.set(count.get() + 2);
            let records = gate.records(count.get());
            prop_assert_eq!(one.0, two.0);
            prop_assert_eq!(one.1, two.1);
            let facts = |record: &Record| {
                let text = ["end", "cluster", "reason"].map(|name| record.text(name).to_owned());
                (record.number("status"), text)
            };
            let last = &records[count.get() - 2..];
            prop_assert_eq!(facts(&last[0]), facts(&last[1]));
            Ok(())
        });
        result.unwrap_or_else(|failure| panic!("{failure}"));
    });
}
