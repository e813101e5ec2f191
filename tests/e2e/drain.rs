//! What the log says of a drain, and what each kind of client sees when its time is over: never
//! something that looks whole.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::path::Path;

use rustix::process::Signal;

use crate::support::{
    Authority, Echo, HttpClient, Ringgate, SHORT, SWITCHING, Setup, TlsClient, UPGRADE, UdpEcho,
    Upstream, client_hello, expect_closed, http2_settings, l4, obfs_hello, read_until, slow_reader,
    tls_settings, wait_for, with_deadlines,
};

const BOTH: [&str; 2] = ["io_uring", "epoll"];
const NAME: &str = "site.test";
/// More than the buffers on the way hold.
const LARGE: usize = 16 << 20;

/// Every kind of listener and route in front of one backend.
struct Place {
    gate: Ringgate,
    backend: Upstream,
    authority: Authority,
    _dir: tempfile::TempDir,
}

impl Place {
    fn start(driver: &str) -> Place {
        let (authority, backend) = (Authority::new("authority"), Upstream::listen());
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("large"), vec![b'x'; LARGE]).unwrap();
        let rule = authority.signs(&[NAME]).rule(&[NAME], "");
        let config = config(&backend, dir.path(), &rule);
        let server = format!("workers = 1\ndriver = \"{driver}\"\ndrain_timeout = \"1s\"");
        let gate = Setup { config, server, ..Setup::default() }.start();
        Place { gate, backend, authority, _dir: dir }
    }

    /// A connection to this listener that begins with these bytes; the backend gets `passed`.
    #[track_caller]
    fn open(&self, listener: &str, bytes: &[u8], passed: &[u8]) -> (TcpStream, TcpStream) {
        let mut client = self.gate.connect(listener);
        client.write_all(bytes).unwrap();
        let mut upstream = self.backend.accept();
        assert_eq!(read_until(&mut upstream, passed), passed);
        (client, upstream)
    }

    /// A request to the site whose response does not end. The client has got some of it.
    #[track_caller]
    fn ask(&self, mut client: impl Read + Write, path: &str, head: &str) -> Option<TcpStream> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {NAME}\r\n\r\n");
        client.write_all(request.as_bytes()).unwrap();
        let upstream = (!head.is_empty()).then(|| {
            let mut upstream = self.backend.accept();
            read_until(&mut upstream, b"\r\n\r\n");
            upstream.write_all(head.as_bytes()).unwrap();
            upstream
        });
        let mut first = [0; 12];
        client.read_exact(&mut first).unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        upstream
    }

    fn tls(&self) -> TlsClient {
        let settings = tls_settings(&self.authority, &rustls::version::TLS13);
        TlsClient::connect(self.gate.address("edge"), &settings.into(), NAME)
    }
}

fn config(backend: &Upstream, root: &Path, rule: &str) -> String {
    let page = "x".repeat(1 << 20);
    let listener = |name: &str, protocol: &str| {
        format!("[[listener]]\nname = \"{name}\"\nlisten = \"127.0.0.1:0\"\n{protocol}\n")
    };
    let routes = format!(
        "[[listener.host]]\n\
         [[listener.host.route]]\npath = \"/stream\"\nupgrade = \"websocket\"\ncluster = \"b\"\n\
         [[listener.host.route]]\npath = \"/ended\"\nupgrade = \"websocket\"\ncluster = \"b\"\n\
         tunnel = \"terminate\"\n\
         [[listener.host.route]]\npath = \"/large\"\nroot = {root:?}\n\
         [[listener.host.route]]\npath = \"/page\"\nrespond = {{ body = \"{page}\" }}\n\
         [[listener.host.route]]\nprefix = \"/\"\ncluster = \"b\"\n"
    );
    let mut config = listener("l4", "protocol = \"tcp\"\ncluster = \"b\"");
    config += &listener("sni", "protocol = \"tls\"\n[[listener.tls]]\ncluster = \"b\"");
    let obfs = "[[listener.tls]]\nsimple_obfs = true\ncluster = \"b\"";
    config += &listener("obfs", &format!("protocol = \"tls\"\n{obfs}"));
    config += &listener("web", &format!("protocol = \"http\"\n{routes}"));
    config += &listener("edge", &format!("protocol = \"http\"\n{routes}{rule}"));
    config + &format!("[cluster.b]\nendpoints = [\"{}\"]\n", backend.address())
}

/// Reads to the end, which must be a reset.
#[track_caller]
fn expect_cut(mut client: impl Read, what: &str) {
    let result = io::copy(&mut client, &mut io::sink());
    let error = result.expect_err(&format!("{what}: a clean end"));
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{what}: {error}");
}

/// Reads frames until the stream 1 is reset (RFC 9113 section 6.4).
#[track_caller]
fn expect_stream_reset(client: &mut TlsClient) {
    loop {
        match client.http2_frame() {
            (3, _) => return,
            (0, data) => assert!(data.len() <= 16_384),
            (kind, payload) => assert!([4, 6, 7, 8, 1].contains(&kind), "{kind}: {payload:?}"),
        }
    }
}

/// A client of HTTP/2 that asks for the large file and gives the stream no more window.
fn ask_http2(place: &Place) -> TlsClient {
    let settings = http2_settings(&place.authority);
    let mut client = TlsClient::connect(place.gate.address("edge"), &settings, NAME);
    let path = b"/large";
    // GET, https, :path and :authority (RFC 7541 section 6 and appendix A).
    let mut block = vec![0x82, 0x87, 0x44, path.len() as u8];
    block.extend_from_slice(path);
    block.extend_from_slice(&[0x41, NAME.len() as u8]);
    block.extend_from_slice(NAME.as_bytes());
    let head = [&[0, 0, block.len() as u8, 1, 5, 0, 0, 0, 1], &block[..]].concat();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";
    client.send([&preface[..], &head].concat());
    while client.http2_frame().0 != 0 {}
    client
}

/// The rest of the line that begins with this message.
#[track_caller]
fn fields(gate: &Ringgate, message: &str) -> String {
    gate.line_with(message).split_once(message).unwrap().1.trim().to_owned()
}

#[test]
fn what_is_left_at_drain_timeout_is_named_and_reset_whatever_it_is() {
    for driver in BOTH {
        let mut place = Place::start(driver);
        let hello = client_hello(Some(NAME), &[], 0);
        // 1. Tunnels and relays. Nothing is on its way in them: an end would look like a clean one.
        let (l4, _l4) = place.open("l4", b"up", b"up");
        let (sni, _sni) = place.open("sni", &hello, &hello);
        let (obfs, _obfs) = place.open("obfs", &obfs_hello(NAME, b"payload"), b"payload");
        let (mut stream, mut upstream) = place.open("web", UPGRADE.as_bytes(), UPGRADE.as_bytes());
        upstream.write_all(SWITCHING.as_bytes()).unwrap();
        read_until(&mut stream, b"\r\n\r\n");
        let mut ended = place.gate.connect("web");
        ended.write_all(UPGRADE.replace("/stream", "/ended").as_bytes()).unwrap();
        read_until(&mut ended, b"\r\n\r\n");
        let _ended = place.backend.accept();

        // 2. Responses.
        let long = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome of it";
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
        let (a, b) = (place.gate.connect("web"), place.gate.connect("web"));
        let (file, page) =
            (slow_reader(place.gate.address("web")), slow_reader(place.gate.address("web")));
        let _upstreams = [place.ask(&a, "/long", long), place.ask(&b, "/chunked", chunked)];
        place.ask(&file, "/large", "");
        place.ask(&page, "/page", "");
        // More pages than the buffers on the way hold.
        (&page).write_all("GET /page HTTP/1.1\r\nHost: a\r\n\r\n".repeat(20).as_bytes()).unwrap();
        let mut tls = place.tls();
        let _tls = place.ask(&mut tls, "/long", long);
        let mut http2 = ask_http2(&place);

        // 3. The log says what is there at the beginning, and what is left at the end.
        place.gate.signal(Signal::TERM);
        let begun = fields(&place.gate, "no new connections are accepted; open ones may continue");
        assert!(begun.ends_with(" connections=6 tunnels=5 udp_sessions=0"), "{driver}: {begun}");
        let left = fields(&place.gate, "drain_timeout has expired: resetting what is left");
        let named = "web: 2 tunnels, 4 connections; edge: 2 connections; l4: 1 tunnel; \
                     obfs: 1 tunnel; sni: 1 tunnel";
        let numbers = "connections=6 tunnels=5 udp_sessions=0";
        assert_eq!(left, format!("{numbers} left=\"{named}\""), "{driver}");

        // 4. Nothing looks whole.
        let tunnels =
            [(l4, "l4"), (sni, "sni"), (obfs, "obfs"), (stream, "forwarded"), (ended, "ended")];
        let responses = [(a, "length"), (b, "chunked"), (file, "file"), (page, "page")];
        for (client, what) in tunnels.into_iter().chain(responses) {
            expect_cut(client, &format!("{what} over {driver}"));
        }
        expect_cut(tls, &format!("tls over {driver}"));
        expect_stream_reset(&mut http2);
        assert_eq!(place.gate.wait_exit(SHORT).code(), Some(0), "{driver}");
        assert_eq!(fields(&place.gate, "INFO ended"), "cut_off=11", "{driver}");
        // The record of the page was written when its response was made.
        let cut = place.gate.records_where(10, |record| record.end() == "drain");
        assert_eq!(cut.len(), 10, "{driver}: {cut:?}");
    }
}

#[test]
fn upstreams_are_reset_too_at_drain_timeout() {
    for driver in BOTH {
        let place = Place::start(driver);
        let hello = client_hello(Some(NAME), &[], 0);
        let relays = [
            place.open("l4", b"up", b"up"),
            place.open("sni", &hello, &hello),
            place.open("obfs", &obfs_hello(NAME, b"payload"), b"payload"),
        ];
        let upload = b"POST /x HTTP/1.1\r\nHost: site.test\r\nContent-Length: 9\r\n\r\nhalf";
        let mut client = place.gate.connect("web");
        client.write_all(upload).unwrap();
        let mut upstream = place.backend.accept();
        read_until(&mut upstream, b"\r\n\r\nhalf");
        place.gate.signal(Signal::TERM);
        for (_client, upstream) in relays {
            expect_cut(upstream, driver);
        }
        // It lacks a part of the body that was announced.
        expect_closed(&mut upstream);
        // The request has no response yet, so it gets one.
        assert_eq!(HttpClient::over(client).response().status, 503, "{driver}");
    }
}

#[test]
fn a_second_signal_names_what_it_cuts_off_and_sessions_end_at_the_first() {
    for driver in BOTH {
        let (echo, dns) = (Echo::start(), UdpEcho::start("dns"));
        let config = format!(
            "{}[[listener]]\nname = \"dns\"\nlisten = \"127.0.0.1:0\"\nprotocol = \"udp\"\n\
             cluster = \"servers\"\n[cluster.servers]\nendpoints = [\"{}\"]\n",
            l4(echo.address(), "", ""),
            dns.address()
        );
        let server = format!("driver = \"{driver}\"");
        let mut gate = Setup { config, server, ..Setup::default() }.start();
        let mut clients: Vec<TcpStream> = (0..3).map(|_| gate.connect("ingress")).collect();
        for client in &mut clients {
            client.write_all(b"x").unwrap();
            client.read_exact(&mut [0]).unwrap();
        }
        let session = UdpSocket::bind("127.0.0.1:0").unwrap();
        session.set_read_timeout(Some(SHORT)).unwrap();
        session.send_to(b"x", gate.address("dns")).unwrap();
        session.recv(&mut [0; 8]).unwrap();

        gate.signal(Signal::TERM);
        let begun = fields(&gate, "open ones may continue until drain_timeout");
        assert!(begun.ends_with("connections=0 tunnels=3 udp_sessions=1"), "{driver}: {begun}");
        gate.records_where(1, |record| record.text("protocol") == "udp");
        // One ends by itself, and is not cut off.
        drop(clients.pop());
        gate.records_where(1, |record| record.end() == "client");
        gate.signal(Signal::TERM);
        let left = fields(&gate, "a further signal: stopping at once and resetting what is left");
        let expected = "connections=0 tunnels=2 udp_sessions=0 left=\"ingress: 2 tunnels\"";
        assert_eq!(left, format!("signal=SIGTERM {expected}"), "{driver}");
        for client in clients {
            expect_cut(client, driver);
        }
        assert_eq!(gate.wait_exit(SHORT).code(), Some(0), "{driver}");
        assert_eq!(fields(&gate, "INFO ended"), "cut_off=2", "{driver}");
    }
}

#[test]
fn while_it_lasts_the_log_says_what_is_left_when_that_changes() {
    let echo = Echo::start();
    let mut gate = Ringgate::start(&l4(echo.address(), "", ""));
    let mut clients: Vec<TcpStream> = (0..2).map(|_| gate.connect("ingress")).collect();
    for client in &mut clients {
        client.write_all(b"x").unwrap();
        client.read_exact(&mut [0]).unwrap();
    }
    gate.signal(Signal::TERM);
    let progress = |count: usize| {
        wait_for("a line", SHORT, || {
            let lines = gate.lines();
            let mut lines = lines.iter().filter(|line| line.contains("INFO draining "));
            lines.nth(count - 1).cloned()
        })
    };
    let line = progress(1);
    assert!(line.contains(" tunnels=2 udp_sessions=0 left=\"ingress: 2 tunnels\" "), "{line}");
    assert!(line.contains(" ends_in_s=2"), "{line}");
    drop(clients.pop());
    let line = progress(2);
    assert!(line.contains(" tunnels=1 udp_sessions=0 left=\"ingress: 1 tunnel\" "), "{line}");
    drop(with_deadlines(clients.remove(0)));
    assert_eq!(gate.wait_exit(SHORT).code(), Some(0));
    assert_eq!(fields(&gate, "INFO ended"), "cut_off=0");
}
