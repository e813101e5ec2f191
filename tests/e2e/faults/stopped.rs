//! A process that is stopped for longer than any limit of its own watchdog (src/control/watch.rs).

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

use super::{DRIVERS, Traffic};
use crate::support::{
    Echo, HttpClient, LONG, SHORT, Setup, UdpEcho, Upstream, holds_for, l4, stream_site,
};

/// A worker that makes no progress for 10 s is given up.
const STOPPED: Duration = Duration::from_secs(13);
const GET: &str = "GET /a HTTP/1.1\r\nHost: live.example.test\r\n\r\n";

fn udp(to: &UdpEcho) -> String {
    format!(
        "[[listener]]\nname = \"udp\"\nlisten = \"127.0.0.1:0\"\nprotocol = \"udp\"\n\
         cluster = \"udp\"\nidle_timeout = \"10s\"\n[cluster.udp]\nendpoints = [\"{}\"]\n",
        to.address()
    )
}

fn round_trip(mut stream: &TcpStream) {
    stream.write_all(b"x").unwrap();
    stream.read_exact(&mut [0]).unwrap();
}

fn is_answered(client: &UdpSocket) {
    client.send(b"hello").unwrap();
    let mut answer = [0; 20];
    let length = client.recv(&mut answer).unwrap();
    assert_eq!(&answer[..length], b"udp hello");
}

fn survives(driver: &str) {
    let (backend, echo, datagrams) = (Upstream::listen(), Echo::start(), UdpEcho::start("udp "));
    // Shorter than the stop: time in which the process does not run does not count.
    let quiet = l4(echo.address(), "idle_timeout = \"10s\"", "");
    let quiet = quiet.replace("ingress", "quiet").replace("backend", "echo");
    let site = stream_site(backend.address(), "");
    let site = site.replacen("protocol", "keepalive_timeout = \"10s\"\nprotocol", 1);
    let config = [l4(backend.address(), "", ""), quiet, site, udp(&datagrams)].concat();
    let server = format!("driver = \"{driver}\"");
    let mut gate = Setup { config, server, ..Setup::default() }.start();

    let ends = (gate.connect("ingress"), backend.accept());
    let open = Traffic::between(ends, Duration::from_millis(1));
    let quiet = gate.connect("quiet");
    round_trip(&quiet);
    let mut kept_alive = HttpClient::connect(gate.address("web"));
    kept_alive.send(GET);
    assert_eq!(kept_alive.response().status, 301);
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.connect(gate.address("udp")).unwrap();
    udp.set_read_timeout(Some(LONG)).unwrap();
    is_answered(&udp);
    open.moves();

    gate.signal(rustix::process::Signal::STOP);
    // These wait in the accept queue, the request in the buffer of its socket.
    let arrived: Vec<TcpStream> = (0..20).map(|_| gate.connect("quiet")).collect();
    let mut asked = HttpClient::connect(gate.address("web"));
    asked.send(GET);
    holds_for("it is stopped", STOPPED, || true);
    gate.signal(rustix::process::Signal::CONT);

    assert_eq!(asked.response().status, 301, "{driver}");
    arrived.iter().for_each(round_trip);
    round_trip(&quiet);
    kept_alive.send(GET);
    assert_eq!(kept_alive.response().status, 301, "{driver}");
    is_answered(&udp);
    // The watchdog looks once a second.
    holds_for("it goes on", Duration::from_secs(3), || gate.is_running());
    open.end();
    let lines = gate.lines();
    let bad = lines.iter().find(|line| line.contains("ERROR") || line.contains("has stopped"));
    assert_eq!(bad, None, "{driver}");

    drop((quiet, arrived, kept_alive, asked));
    gate.signal(rustix::process::Signal::TERM);
    assert_eq!(gate.wait_exit(SHORT).code(), Some(0), "{driver}");
    // The test has ended all of them but the UDP session, which ends with the process.
    let records = gate.records_where(23, |_| true);
    let ends =
        records.iter().filter(|record| !["client", "upstream", "done"].contains(&record.end()));
    let ends: Vec<&str> = ends.map(|record| record.end()).collect();
    assert_eq!(ends, ["drain"], "{driver}: {records:?}");
}

#[test]
fn a_process_that_was_stopped_goes_on_with_every_connection() {
    // At one time, because they wait.
    std::thread::scope(|scope| {
        for driver in DRIVERS {
            scope.spawn(move || survives(driver));
        }
    });
}
