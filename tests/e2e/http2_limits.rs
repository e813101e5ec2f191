//! What one client of HTTP/2 may take from others, and one stream from the other streams of its
//! connection: descriptors, memory, windows, time.

use std::fs;
use std::future::poll_fn;
use std::io::Write;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use rustix::process::Signal;
use rustls::ClientConfig;
use tokio::time::timeout;

use crate::support::{
    Authority, Backend, HttpClient, Ringgate, SHORT, SOON, Setup, TlsClient, Upstream,
    connect_http2, http2_settings, over_each_driver, proxied, require, wait_for, waiting,
    with_http2,
};

const NAME: &str = "site.test";
const KIB: usize = 1024;

struct Site {
    /// It holds the certificate.
    _authority: Authority,
    settings: Arc<ClientConfig>,
    config: String,
}

impl Site {
    /// A listener `web`, whose requests go on to `backend`; `listener` and `route` are more lines.
    fn proxied(backend: &Upstream, listener: &str, route: &str) -> Site {
        let authority = Authority::new("authority");
        let tls = format!("{listener}\n{}", authority.signs(&[NAME]).rule(&[NAME], ""));
        let config = proxied(&format!("\"{}\"", backend.address()), &tls, route, "");
        Site { settings: http2_settings(&authority), config, _authority: authority }
    }

    /// A listener `web` with these routes; `listener` is more lines.
    fn with_routes(listener: &str, routes: &str, clusters: &str) -> Site {
        let authority = Authority::new("authority");
        let config = format!(
            "[[listener]]\nname = \"web\"\nlisten = \"127.0.0.1:0\"\nprotocol = \"http\"\n\
             {listener}\n{}\n[[listener.host]]\nroute = [{routes}]\n{clusters}\n",
            authority.signs(&[NAME]).rule(&[NAME], "")
        );
        Site { settings: http2_settings(&authority), config, _authority: authority }
    }

    /// Starts one worker with this limit of open files.
    fn start_within(&self, files: usize, driver: &str) -> Ringgate {
        let mut through = require("prlimit");
        through.arg(format!("--nofile={files}:{files}"));
        let (config, server) = (self.config.clone(), format!("workers = 1\ndriver = \"{driver}\""));
        Setup { config, server, through: Some(through), ..Setup::default() }.start()
    }

    #[track_caller]
    fn connect(&self, gate: &Ringgate, limits: &Builder) -> SendRequest<Bytes> {
        connect_http2(gate.address("web"), &self.settings, NAME, limits)
    }
}

/// Clients that take this much for each stream.
fn window(bytes: u32) -> Builder {
    let mut limits = Builder::new();
    limits.initial_window_size(bytes);
    limits
}

#[track_caller]
fn get(client: &mut SendRequest<Bytes>, path: &str) -> ResponseFuture {
    let request = http::Request::get(format!("https://{NAME}{path}")).body(()).unwrap();
    client.send_request(request, true).unwrap().0
}

#[track_caller]
fn post(client: &mut SendRequest<Bytes>, path: &str) -> (ResponseFuture, SendStream<Bytes>) {
    let request = http::Request::post(format!("https://{NAME}{path}")).body(()).unwrap();
    client.send_request(request, false).unwrap()
}

/// Reads a body to its end, and takes more as it comes.
async fn whole(mut body: RecvStream) -> Result<usize, h2::Error> {
    let mut length = 0;
    while let Some(piece) = body.data().await {
        let piece = piece?;
        length += piece.len();
        body.flow_control().release_capacity(piece.len())?;
    }
    Ok(length)
}

/// Each stream may have a connection to a cluster, so one client could take all descriptors.
#[test]
fn streams_to_a_cluster_stay_within_the_share_of_descriptors() {
    const LIMIT: usize = 128;
    let upstream = Upstream::listen();
    let site = Site::proxied(&upstream, "", "");
    for driver in ["io_uring", "epoll"] {
        let gate = site.start_within(LIMIT, driver);
        with_http2(gate.address("web"), &site.settings, NAME, async |mut client| {
            // The backend answers none of them.
            let mut responses: Vec<_> = (0..90).map(|_| get(&mut client, "/a")).collect();
            let refused = responses.pop().unwrap().await.unwrap_err();
            assert_eq!(refused.reason(), Some(Reason::REFUSED_STREAM));
            assert!(gate.descriptors() < LIMIT - 8, "{} are open", gate.descriptors());
            let record = gate.records_where(1, |record| record.end() == "overflow").remove(0);
            assert_eq!((record.text("protocol"), record.text("path")), ("HTTP/2", "/a"));
            // Room comes back with the streams that end.
            drop(responses);
            while let Ok(response) =
                timeout(Duration::from_millis(200), get(&mut client, "/a")).await
            {
                assert_eq!(response.unwrap_err().reason(), Some(Reason::REFUSED_STREAM));
            }
        });
    }
}

/// The same with files: each stream that is sent one has it open.
#[test]
fn streams_with_files_stay_within_the_share_of_descriptors() {
    const LIMIT: usize = 128;
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("large.bin"), vec![b'x'; 1 << 20]).unwrap();
    let routes = format!("{{ prefix = \"/\", root = {:?} }}", dir.path());
    let site = Site::with_routes("", &routes, "");
    let gate = site.start_within(LIMIT, "io_uring");
    waiting(async {
        let mut client = site.connect(&gate, &window(0));
        let responses: Vec<_> = (0..90).map(|_| get(&mut client, "/large.bin")).collect();
        let (mut open, mut refused) = (Vec::new(), 0);
        for response in responses {
            match response.await {
                Ok(response) => open.push(response),
                Err(error) if error.reason() == Some(Reason::REFUSED_STREAM) => refused += 1,
                Err(error) => panic!("{error}"),
            }
        }
        assert!(open.len() > 10 && refused > 10, "{} are sent, {refused} refused", open.len());
        assert!(gate.descriptors() < LIMIT - 8, "{} are open", gate.descriptors());
    });
}

/// Streams took the places of all connections, so a few clients kept all others out.
#[test]
fn streams_leave_places_for_new_connections() {
    let upstream = Upstream::listen();
    let site = Site::proxied(&upstream, "", "");
    for driver in ["io_uring", "epoll"] {
        let gate = site.start_within(256, driver);
        waiting(async {
            let mut clients = Vec::new();
            for _ in 0..4 {
                let mut client = site.connect(&gate, &Builder::new());
                let mut responses: Vec<_> = (0..99).map(|_| get(&mut client, "/a")).collect();
                // The last one is refused, or the client has as many as it may.
                let last = responses.pop().unwrap();
                let refused = last.await.unwrap_err();
                assert_eq!(refused.reason(), Some(Reason::REFUSED_STREAM));
                clients.push((client, responses));
            }
            // The runtime of the clients stops meanwhile; nothing is expected of them.
            for _ in 0..4 {
                let mut other = HttpClient::connect(gate.address("web"));
                other.send("GET /moved HTTP/1.1\r\nHost: site.test\r\n\r\n");
                assert_eq!(other.response().status, 301);
            }
            drop(clients);
        });
    }
}

/// The crate was given the whole of each body, whatever the client takes.
#[test]
fn bodies_that_the_client_does_not_take_are_not_kept_for_it() {
    const STREAMS: usize = 100;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("small.bin");
    fs::write(&file, vec![b'x'; 60_000]).unwrap();
    let routes = format!("{{ prefix = \"/\", root = {:?} }}", dir.path());
    let site = Site::with_routes("", &routes, "");
    over_each_driver(&site.config, |gate| {
        // A file that was just changed is read anew for each request.
        wait_for("the file is old enough to be kept in memory", SHORT, || {
            let age = fs::metadata(&file).unwrap().modified().unwrap().elapsed().unwrap();
            (age > Duration::from_millis(1200)).then_some(())
        });
        waiting(async {
            let mut first = site.connect(&gate, &window(1 << 20));
            let response = get(&mut first, "/small.bin").await.unwrap();
            assert_eq!(whole(response.into_body()).await.unwrap(), 60_000);
            let before = gate.anonymous_kib();
            let mut clients = Vec::new();
            for _ in 0..6 {
                let mut client = site.connect(&gate, &window(500));
                let responses = (0..STREAMS).map(|_| get(&mut client, "/small.bin"));
                let responses: Vec<_> = responses.collect();
                let mut bodies = Vec::new();
                for response in responses {
                    bodies.push(response.await.unwrap().into_body());
                }
                clients.push((client, bodies));
            }
            let kept = gate.anonymous_kib().saturating_sub(before);
            assert!(kept < 12_000, "{kept} KiB for {} streams", 6 * STREAMS);
            // What the client takes is sent.
            let mut bodies = clients.into_iter().flat_map(|(_, bodies)| bodies);
            assert_eq!(whole(bodies.next_back().unwrap()).await.unwrap(), 60_000);
        });
    });
}

/// A body of few bytes was given to the crate without a limit of time.
#[test]
fn a_response_that_the_client_does_not_take_has_a_limit() {
    let backend = Upstream::listen();
    let routes =
        "{ path = \"/r\", respond = { body = \"hello\" } }, { prefix = \"/\", cluster = \"b\" }";
    let clusters = format!("[cluster.b]\nendpoints = [\"{}\"]", backend.address());
    let site = Site::with_routes("keepalive_timeout = \"1s\"", routes, &clusters);
    over_each_driver(&site.config, |gate| {
        waiting(async {
            let mut client = site.connect(&gate, &window(0));
            // The connection has a stream that waits, so its own limit does not end it.
            let waits = get(&mut client, "/waits");
            let response = get(&mut client, "/r").await.unwrap();
            let end = whole(response.into_body()).await.unwrap_err();
            assert_eq!(end.reason(), Some(Reason::INTERNAL_ERROR));
            backend.backend().answer("");
            assert_eq!(waits.await.unwrap().status(), 200);
        });
    });
}

/// A stream that had sent all that there was went on to hold the window of its connection.
#[test]
fn an_idle_stream_leaves_the_window_of_its_connection_to_others() {
    let backend = Upstream::listen();
    let site = Site::proxied(&backend, "", "");
    over_each_driver(&site.config, |gate| {
        waiting(async {
            // The window of the connection is that of a new one, 65535 bytes.
            let mut client = site.connect(&gate, &window(1 << 20));
            let response = get(&mut client, "/events");
            let mut events = backend.backend();
            events.head();
            events.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\na\n\r\n");
            let mut body = response.await.unwrap().into_body();
            assert_eq!(body.data().await.unwrap().unwrap(), "a\n");
            body.flow_control().release_capacity(2).unwrap();
            // It is idle. Another one has all of the window.
            let response = get(&mut client, "/file");
            let mut file = backend.backend();
            file.head();
            file.answer(&"x".repeat(60_000));
            let response = response.await.unwrap();
            let length = timeout(SOON, whole(response.into_body())).await;
            assert_eq!(length.expect("the idle stream has the window").unwrap(), 60_000);
            events.send("2\r\nb\n\r\n0\r\n\r\n");
            assert_eq!(whole(body).await.unwrap(), 2);
        });
    });
}

/// Sends as much of a body as the connection takes. Returns how much that was.
async fn fill(stream: &mut SendStream<Bytes>) -> usize {
    let mut sent = 0;
    loop {
        stream.reserve_capacity(16 * KIB);
        let capacity = timeout(Duration::from_millis(500), async {
            while stream.capacity() == 0 {
                poll_fn(|cx| stream.poll_capacity(cx)).await.unwrap().unwrap();
            }
            stream.capacity()
        });
        let Ok(capacity) = capacity.await else { return sent };
        stream.send_data(Bytes::from(vec![b'x'; capacity]), false).unwrap();
        sent += capacity;
    }
}

/// Two uploads that a cluster did not take filled the window of the connection.
#[test]
fn uploads_that_are_not_taken_leave_the_window_to_others() {
    let backend = Upstream::listen();
    let site = Site::proxied(&backend, "", "");
    over_each_driver(&site.config, |gate| {
        waiting(async {
            let mut client = site.connect(&gate, &Builder::new());
            let mut stuck = Vec::new();
            for _ in 0..4 {
                let (response, mut upload) = post(&mut client, "/stuck");
                // The backend reads none of it.
                let connection = backend.accept();
                assert!(fill(&mut upload).await > 0);
                stuck.push((response, upload, connection));
            }
            let (response, mut upload) = post(&mut client, "/echo");
            upload.send_data(Bytes::from(vec![b'y'; 20_000]), true).unwrap();
            let mut other = backend.backend();
            assert_eq!(other.request().body.len(), 20_000);
            other.answer("ok");
            assert_eq!(response.await.unwrap().status(), 200);
        });
    });
}

/// A drain waited for a PING that the client need not answer before it closes.
#[test]
fn a_drain_ends_with_the_last_stream_of_a_client_that_answers_no_ping() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let clusters = format!("[cluster.b]\nendpoints = [\"{}\"]", listener.local_addr().unwrap());
    let site = Site::with_routes("", "{ prefix = \"/\", cluster = \"b\" }", &clusters);
    for driver in ["io_uring", "epoll"] {
        let server = format!("workers = 1\ndriver = \"{driver}\"\ndrain_timeout = \"60s\"");
        let mut gate = Setup { config: site.config.clone(), server, ..Setup::default() }.start();
        let mut client = TlsClient::connect(gate.address("web"), &site.settings, NAME);
        client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00");
        // GET, https, / and :authority (RFC 7541 appendix A).
        let head = [&[0x82, 0x87, 0x84, 0x41, NAME.len() as u8][..], NAME.as_bytes()].concat();
        client.send([&[0, 0, head.len() as u8, 1, 5, 0, 0, 0, 1], &head[..]].concat());
        let mut backend = Backend::over(listener.accept().unwrap().0);
        backend.head();
        gate.signal(Signal::TERM);
        // It says that it drains by a GOAWAY, whose type is 7 (RFC 9113 section 6.8).
        while client.http2_frame().0 != 7 {}
        backend.stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
        // The client reads all, and says nothing more.
        client.socket.set_read_timeout(Some(SOON)).unwrap();
        client.rest();
        drop(client);
        assert!(gate.wait_exit(SOON).success());
    }
}
