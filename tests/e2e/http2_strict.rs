//! What a client of HTTP/2 must not send (RFC 9113). A malformed request reaches no cluster and
//! ends its stream; a frame that breaks the connection ends that. Others are served in both cases.

use std::io::{ErrorKind, Read};
use std::sync::Arc;

use crate::support::{
    Authority, Pair, Ringgate, Setup, TlsClient, Upstream, VERSIONS, tls_settings,
};

const NAME: &str = "site.test";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
/// END_STREAM.
const END: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
/// `:status: 200` (RFC 7541 appendix A).
const OK: u8 = 0x88;

/// A listener `edge` whose every request goes on to `upstream`, but for `/r`.
fn start(pair: &Pair, upstream: &Upstream, driver: &str) -> Ringgate {
    let config = format!(
        "[[listener]]\nname = \"edge\"\nlisten = \"127.0.0.1:0\"\nprotocol = \"http\"\n{}\n\
         [[listener.host]]\nroute = [{{ path = \"/r\", respond = {{ body = \"hello\" }} }},\n\
         {{ prefix = \"/\", cluster = \"c\" }}]\n[cluster.c]\nendpoints = [\"{}\"]\n",
        pair.rule(&[NAME], ""),
        upstream.address()
    );
    let server = format!("workers = 1\ndriver = \"{driver}\"");
    Setup { config, server, ..Setup::default() }.start()
}

/// A frame (RFC 9113 section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Fields as literals without indexing (RFC 7541 section 6.2.2); they are short.
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.extend_from_slice(&[0, name.len() as u8]);
        block.extend_from_slice(name.as_bytes());
        block.push(value.len() as u8);
        block.extend_from_slice(value.as_bytes());
    }
    block
}

/// A head with these fields behind the pseudo-header fields of a request.
fn head(method: &str, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let own = [(":method", method), (":scheme", "https"), (":path", path), (":authority", NAME)];
    block(&[&own[..], more].concat())
}

/// One connection, behind the preface.
struct Client(TlsClient);

impl Client {
    fn connect(gate: &Ringgate, authority: &Authority) -> Client {
        let mut settings = tls_settings(authority, VERSIONS[1]);
        settings.alpn_protocols = vec![b"h2".to_vec()];
        let mut client = TlsClient::connect(gate.address("edge"), &Arc::new(settings), NAME);
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        client.send([&preface[..], &frame(SETTINGS, 0, 0, &[])].concat());
        Client(client)
    }

    /// The next frame: kind, flags, stream and payload. `None` at the end of the connection.
    fn next(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).ok()?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.0.read_exact(&mut payload).ok()?;
        Some((kind, flags, u32::from_be_bytes(stream), payload))
    }

    /// Sends the frames. What becomes of this stream or of the connection, in one word.
    fn fate(&mut self, stream: u32, frames: &[u8]) -> &'static str {
        self.0.send(frames);
        while let Some((kind, _, of, payload)) = self.next() {
            match kind {
                HEADERS if of == stream && payload[0] == OK => return "served",
                HEADERS if of == stream => return "refused",
                RST_STREAM if of == stream => return "reset",
                GOAWAY if payload[4..8] != [0; 4] => return "closed",
                _ => {}
            }
        }
        "cut off"
    }
}

/// A request is still served, on a new connection.
fn expect_served(gate: &Ringgate, authority: &Authority) {
    let get = frame(HEADERS, END | END_HEADERS, 1, &head("GET", "/r", &[]));
    assert_eq!(Client::connect(gate, authority).fate(1, &get), "served");
}

#[test]
fn a_malformed_request_ends_its_stream_and_reaches_no_cluster() {
    let (authority, upstream) = (Authority::new("authority"), Upstream::listen());
    let gate = start(&authority.signs(&[NAME]), &upstream, "io_uring");
    let own = [(":method", "GET"), (":scheme", "https"), (":path", "/"), (":authority", NAME)];
    let without = |index: usize| block(&[&own[..index], &own[index + 1..]].concat());
    let twice = |index: usize| block(&[&own[..=index], &own[index..]].concat());
    let with = |name, value| head("GET", "/", &[(name, value)]);
    for (name, head) in [
        ("a connection", with("connection", "close")),
        ("a name in connection", with("connection", "x-forwarded-for")),
        ("a coding", with("transfer-encoding", "chunked")),
        ("an upgrade", with("upgrade", "websocket")),
        ("keep-alive", with("keep-alive", "timeout=5")),
        ("proxy-connection", with("proxy-connection", "keep-alive")),
        ("te", with("te", "gzip")),
        ("no method", without(0)),
        ("no scheme", without(1)),
        ("no path", without(2)),
        ("no authority and no Host", without(3)),
        ("two methods", twice(0)),
        ("two schemes", twice(1)),
        ("two paths", twice(2)),
        ("two authorities", twice(3)),
        ("another Host", with("host", "other.test")),
        ("a status", with(":status", "200")),
        ("a method behind a field", block(&[&own[1..], &[("a", "b")], &own[..1]].concat())),
        ("an empty path", head("GET", "", &[])),
        ("a path without a slash", head("GET", "a", &[])),
        ("a space in the path", head("GET", "/a b", &[])),
        ("a line in the path", head("GET", "/ HTTP/1.1\r\nX: y", &[])),
        ("an asterisk", head("GET", "*", &[])),
        ("CONNECT", block(&[(":method", "CONNECT"), (":authority", "site.test:80")])),
        ("extended CONNECT", head("CONNECT", "/", &[(":protocol", "websocket")])),
        ("TRACE", head("TRACE", "/", &[])),
        ("an expectation", with("expect", "more")),
        ("a length and no body", with("content-length", "5")),
        ("a length in words", with("content-length", "five")),
        ("an empty length", with("content-length", "")),
    ] {
        let mut client = Client::connect(&gate, &authority);
        let fate = client.fate(1, &frame(HEADERS, END | END_HEADERS, 1, &head));
        assert!(["reset", "refused"].contains(&fate), "{name}: {fate}");
        // The connection goes on.
        let get = frame(HEADERS, END | END_HEADERS, 3, &self::head("GET", "/r", &[]));
        assert_eq!(client.fate(3, &get), "served", "{name}");
        assert!(upstream.try_accept().is_none(), "{name}: it has reached the cluster");
    }
}

#[test]
fn a_frame_that_breaks_the_connection_closes_it() {
    let (authority, upstream) = (Authority::new("authority"), Upstream::listen());
    let gate = start(&authority.signs(&[NAME]), &upstream, "io_uring");
    let get = |more: &[(&str, &str)]| head("GET", "/", more);
    let open = frame(HEADERS, END_HEADERS, 1, &head("POST", "/r", &[]));
    let behind = |frames: Vec<u8>| [open.clone(), frames].concat();
    let cut = |next: Vec<u8>| [frame(HEADERS, END, 1, &get(&[])), next].concat();
    let rest = frame(CONTINUATION, END_HEADERS, 1, &[]);
    let setting =
        |id: u8, value: u32| frame(SETTINGS, 0, 0, &[&[0, id][..], &value.to_be_bytes()].concat());
    for (name, frames) in [
        ("upper case", frame(HEADERS, END | END_HEADERS, 1, &get(&[("A", "b")]))),
        ("a space in a name", frame(HEADERS, END | END_HEADERS, 1, &get(&[("a b", "c")]))),
        ("a line in a value", frame(HEADERS, END | END_HEADERS, 1, &get(&[("a", "b\r\nc: d")]))),
        ("NUL in a value", frame(HEADERS, END | END_HEADERS, 1, &get(&[("a", "b\0c")]))),
        ("no token as the method", frame(HEADERS, 5, 1, &head("G ET", "/", &[]))),
        ("index 0", frame(HEADERS, END | END_HEADERS, 1, &[0x80])),
        ("an index beyond the table", frame(HEADERS, 5, 1, &[&get(&[])[..], &[0xc6]].concat())),
        ("an even stream", frame(HEADERS, END | END_HEADERS, 2, &get(&[]))),
        ("a head on stream 0", frame(HEADERS, END | END_HEADERS, 0, &get(&[]))),
        ("too much padding", frame(HEADERS, 5 | PADDED, 1, &[&[255][..], &get(&[])].concat())),
        ("another frame within a head", cut([frame(PING, 0, 0, &[0; 8]), rest.clone()].concat())),
        ("another head within a head", cut(frame(HEADERS, END | END_HEADERS, 3, &get(&[])))),
        ("CONTINUATION of another stream", cut(frame(CONTINUATION, END_HEADERS, 3, &[]))),
        ("CONTINUATION alone", rest),
        ("DATA on stream 0", frame(DATA, 0, 0, b"a")),
        ("DATA on an idle stream", frame(DATA, 0, 1, b"a")),
        ("DATA with too much padding", behind(frame(DATA, PADDED, 1, b"\x05abcd"))),
        ("a frame that is too long", behind(frame(DATA, 0, 1, &[0; 16 * 1024 + 1]))),
        ("RST_STREAM of an idle stream", frame(RST_STREAM, 0, 1, &8u32.to_be_bytes())),
        ("RST_STREAM of 3 bytes", behind(frame(RST_STREAM, 0, 1, &[0; 3]))),
        ("SETTINGS on a stream", frame(SETTINGS, 0, 1, &[])),
        ("SETTINGS of 5 bytes", frame(SETTINGS, 0, 0, &[0; 5])),
        ("push neither on nor off", setting(2, 2)),
        ("an initial window of 2^31", setting(4, 1 << 31)),
        ("frames of at most 100 bytes", setting(5, 100)),
        (
            "PUSH_PROMISE",
            frame(PUSH_PROMISE, END_HEADERS, 1, &[&[0, 0, 0, 2], &get(&[])[..]].concat()),
        ),
        ("PING on a stream", frame(PING, 0, 1, &[0; 8])),
        ("PING of 7 bytes", frame(PING, 0, 0, &[0; 7])),
        ("WINDOW_UPDATE of 0", frame(WINDOW_UPDATE, 0, 0, &[0; 4])),
        ("a window beyond 2^31", frame(WINDOW_UPDATE, 0, 0, &i32::MAX.to_be_bytes())),
    ] {
        let fate = Client::connect(&gate, &authority).fate(1, &frames);
        assert_eq!(fate, "closed", "{name}");
        expect_served(&gate, &authority);
        assert!(upstream.try_accept().is_none(), "{name}: it has reached the cluster");
    }
}

/// Each hop writes the length of a message anew. A cluster that gets too few bytes would take the
/// next request for the rest.
#[test]
fn a_body_with_another_length_than_announced_does_not_reach_the_cluster_whole() {
    let authority = Authority::new("authority");
    for driver in ["io_uring", "epoll"] {
        let upstream = Upstream::listen();
        let gate = start(&authority.signs(&[NAME]), &upstream, driver);
        let head = frame(HEADERS, END_HEADERS, 1, &head("POST", "/p", &[("content-length", "5")]));
        for (name, frames) in [
            ("too short", frame(DATA, END, 1, b"abcd")),
            ("too long", frame(DATA, END, 1, b"abcdef")),
            ("too long in two", [frame(DATA, 0, 1, b"abcd"), frame(DATA, 0, 1, b"ef")].concat()),
            ("empty", frame(DATA, END, 1, b"")),
            ("trailers too early", {
                let trailers = frame(HEADERS, END | END_HEADERS, 1, &block(&[("a", "b")]));
                [frame(DATA, 0, 1, b"abcd"), trailers].concat()
            }),
        ] {
            let mut client = Client::connect(&gate, &authority);
            client.0.send(&head);
            let mut backend = upstream.backend();
            assert_eq!(backend.head().field("content-length"), Some("5"), "{driver}, {name}");
            assert_eq!(client.fate(1, &frames), "reset", "{driver}, {name}");
            let mut body = Vec::new();
            let read = backend.stream.read_to_end(&mut body).map_err(|error| error.kind());
            // The connection ends, so no other request comes on it.
            let has_ended = matches!(read, Ok(_) | Err(ErrorKind::ConnectionReset));
            assert!(has_ended && body.len() < 5, "{driver}, {name}: {read:?}, {body:?}");
        }
        expect_served(&gate, &authority);
    }
}
