//! The time of day jumps, by an hour and by ten years, forward and back. It is that of the process
//! alone: a library that is loaded before libc (clock.c) moves it.
//!
//! Files keep the times that the kernel gives them, so that they seem to be old or made in the
//! future.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustls::{ClientConfig, HandshakeKind};
use tempfile::TempDir;

use super::Traffic;
use crate::support::{
    Application, Authority, HttpClient, LONG, Record, Ringgate, SHORT, SOON, Setup, TlsClient,
    UdpEcho, Upstream, VERSIONS, l4, require, run, tls_settings, wait_for,
};

const NAME: &str = "site.test";
const HOUR: i64 = 3600;
const DECADE: i64 = 10 * 365 * 24 * HOUR + 3 * 24 * HOUR;
/// After each of these the clock is right again.
const JUMPS: [i64; 4] = [HOUR, -HOUR, DECADE, -DECADE];
/// The idle timeout of connections that are opened right before a jump.
const IDLE: Duration = Duration::from_secs(2);

/// The clock of one process.
struct Clock {
    dir: TempDir,
}

impl Clock {
    fn new() -> Clock {
        let dir = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/faults/clock.c");
        let mut cc = require("cc");
        cc.args(["-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o"]);
        let output = run(cc.arg(dir.path().join("clock.so")).arg(source).arg("-ldl"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let clock = Clock { dir };
        clock.set(0);
        clock
    }

    /// Moves it to so many seconds ahead of the system's, at one moment.
    fn set(&self, ahead: i64) {
        let new = self.dir.path().join("new");
        fs::write(&new, ahead.to_string()).unwrap();
        fs::rename(new, self.dir.path().join("ahead")).unwrap();
    }

    fn env(&self) -> Vec<(&'static str, String)> {
        let path = |name| self.dir.path().join(name).to_str().unwrap().to_owned();
        vec![("LD_PRELOAD", path("clock.so")), ("CLOCK_AHEAD", path("ahead"))]
    }
}

/// The seconds by which a time differs from the right one.
fn ahead(time: SystemTime) -> i64 {
    match time.duration_since(SystemTime::now()) {
        Ok(ahead) => ahead.as_secs() as i64,
        Err(behind) => -(behind.duration().as_secs() as i64),
    }
}

fn is_near(seconds: i64, expected: i64) -> bool {
    (seconds - expected).abs() < 30
}

/// Everything whose time could be taken from the wrong clock.
struct Place {
    clock: Clock,
    gate: Ringgate,
    backend: Upstream,
    settings: Arc<ClientConfig>,
    _authority: Authority,
    _files: TempDir,
}

impl Place {
    /// Listeners `ingress` (with long limits), `short` (which ends what is idle), `web` (files and
    /// a cluster), `edge` (TLS) and `udp`.
    fn start(driver: &str) -> Place {
        let (clock, files) = (Clock::new(), tempfile::tempdir().unwrap());
        fs::write(files.path().join("page.txt"), "a page").unwrap();
        let (backend, application) = (Upstream::listen(), Application::start());
        let (datagrams, authority) = (UdpEcho::start("udp "), Authority::new("authority"));
        let to = backend.address();
        let short = format!("idle_timeout = \"{}s\"", IDLE.as_secs());
        let short = l4(to, &short, "").replace("ingress", "short").replace("backend", "same");
        let routes = format!(
            "[[listener]]\nname = \"web\"\nlisten = \"127.0.0.1:0\"\nprotocol = \"http\"\n\
             [[listener.host]]\nroute = [{{ path = \"/page.txt\", root = {:?} }}, \
             {{ prefix = \"/\", cluster = \"app\" }}]\n[cluster.app]\nendpoints = [\"{}\"]\n",
            files.path(),
            application.address()
        );
        let edge = format!(
            "[[listener]]\nname = \"edge\"\nlisten = \"127.0.0.1:0\"\nprotocol = \"http\"\n{}\
             [[listener.host]]\nroute = [{{ prefix = \"/\", respond = {{ body = \"tls\" }} }}]\n",
            authority.signs(&[NAME]).rule(&[NAME], "")
        );
        let udp = format!(
            "[[listener]]\nname = \"udp\"\nlisten = \"127.0.0.1:0\"\nprotocol = \"udp\"\n\
             cluster = \"udp\"\n[cluster.udp]\nendpoints = [\"{}\"]\n",
            datagrams.address()
        );
        let config = [l4(to, "", ""), short, routes, edge, udp].concat();
        let server = format!("workers = 1\ndriver = \"{driver}\"");
        let gate = Setup { config, server, env: clock.env(), ..Setup::default() }.start();
        let settings = Arc::new(tls_settings(&authority, VERSIONS[1]));
        Place { clock, gate, backend, settings, _authority: authority, _files: files }
    }

    fn relayed(&self, listener: &str) -> (TcpStream, TcpStream) {
        (self.gate.connect(listener), self.backend.accept())
    }

    /// Makes a request over a new TLS connection. Returns how the handshake went.
    fn handshake(&self) -> HandshakeKind {
        let mut client = TlsClient::connect(self.gate.address("edge"), &self.settings, NAME);
        client.send(format!("GET / HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n"));
        assert!(client.rest().ends_with(b"tls"));
        client.session.handshake_kind().unwrap()
    }

    fn last_record(&self, path: &str) -> Record {
        self.gate.records_where(1, |record| record.text("path") == path).pop().unwrap()
    }
}

/// A response to `GET` of this path, and its date.
fn get(client: &mut HttpClient, path: &str) -> (u16, SystemTime) {
    client.send(format!("GET {path} HTTP/1.1\r\nHost: {NAME}\r\n\r\n"));
    let response = client.response();
    let date = response.fields("date").last().expect("a date");
    (response.status, httpdate::parse_http_date(date).unwrap())
}

fn lives_with_jumps(driver: &str) {
    let place = Place::start(driver);
    let (gate, clock) = (&place.gate, &place.clock);
    let open = Traffic::between(place.relayed("ingress"), Duration::from_millis(1));
    let mut quiet = place.relayed("ingress");
    let mut kept_alive = HttpClient::connect(gate.address("web"));
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.connect(gate.address("udp")).unwrap();
    udp.set_read_timeout(Some(LONG)).unwrap();
    let mut before = 0;
    for (at, by) in JUMPS.into_iter().flat_map(|by| [by, 0]).enumerate() {
        eprintln!("{by} s ahead over {driver}");
        assert_eq!(get(&mut kept_alive, "/page.txt").0, 200);
        assert_eq!(get(&mut kept_alive, "/before").0, 200);
        place.handshake();
        udp.send(b"hello").unwrap();
        udp.recv(&mut [0; 20]).unwrap();
        let mut short = place.relayed("short");
        let opened = Instant::now();
        clock.set(by);

        // 1. A limit fires in time: no sooner, and not after ten years.
        short.0.read_exact(&mut [0]).unwrap_err();
        let passed = opened.elapsed();
        assert!((IDLE..SOON).contains(&passed), "{by} over {driver}: after {passed:?}");
        short.1.read_exact(&mut [0]).unwrap_err();

        // 2. What was open goes on.
        open.moves();
        quiet.0.write_all(b"up").unwrap();
        quiet.1.read_exact(&mut [0; 2]).unwrap();
        udp.send(b"hello").unwrap();
        udp.recv(&mut [0; 20]).unwrap();

        // 3. Dates and records follow.
        let path = format!("/after/{at}");
        for path in ["/page.txt", &path] {
            let (status, date) = get(&mut kept_alive, path);
            assert_eq!(status, 200, "{by} over {driver}");
            // The application sends none: the date is ours.
            assert!(is_near(ahead(date), by), "{by} over {driver}: {date:?}");
        }
        let record = place.last_record(&path);
        let start = humantime::parse_rfc3339(record.text("start")).unwrap();
        assert!(is_near(ahead(start), by), "{by} over {driver}: {record:?}");
        assert!(record.number("duration_ms") < 20_000, "{record:?}");
        // The idle connection to the cluster is as fresh as before.
        assert_eq!(record.flag("reused"), Some(true), "{record:?}");

        // 4. A session is resumed unless its ticket is not of these hours by the clock.
        let is_recent = (by - before).abs() <= HOUR;
        let kind = if is_recent { HandshakeKind::Resumed } else { HandshakeKind::Full };
        assert_eq!(place.handshake(), kind, "{by} over {driver}");
        assert_eq!(place.handshake(), HandshakeKind::Resumed, "{by} over {driver}");
        let mut new = place.relayed("ingress");
        new.0.write_all(b"new").unwrap();
        new.1.read_exact(&mut [0; 3]).unwrap();
        before = by;
    }
    open.end();
    drop(quiet);
    wait_for("the records of the connections", SHORT, || {
        let ended = gate.records_where(0, |record| record.text("listener") == "ingress");
        (ended.len() >= 2 + 2 * JUMPS.len()).then_some(())
    });
    for record in gate.records_where(1, |_| true) {
        let expected = if record.text("listener") == "short" { "idle" } else { "" };
        let is_expected = expected.is_empty() != (record.end() == "idle");
        assert!(is_expected && record.number("duration_ms") < 120_000, "{record:?}");
    }
    let sessions = gate.records_where(0, |record| record.text("protocol") == "udp");
    assert!(sessions.is_empty(), "one session lives through all of this: {sessions:?}");
}

#[test]
fn jumps_of_the_time_of_day_end_nothing() {
    lives_with_jumps("io_uring");
}

#[test]
fn jumps_of_the_time_of_day_end_nothing_over_epoll() {
    lives_with_jumps("epoll");
}
