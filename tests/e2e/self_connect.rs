//! Endpoints of this machine within the range of local ports: the kernel may give a socket the very
//! port that it connects to, which then is its own peer. In networks with a tiny range, where that
//! happens every few times.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use socket2::{Domain, Socket, Type};

use crate::support::{
    LONG, Named, Ringgate, SHORT, Setup, UdpEcho, inside_namespace, l4, wait_for, with_local_ports,
};

/// Within the range, and nothing listens there.
const DOWN: &str = "127.0.0.1:40002";
const ALSO_DOWN: &str = "127.0.0.1:40004";
const TIMES: usize = 60;

fn tiny_range() {
    with_local_ports(40_000, 40_009);
}

/// A listener on a Unix path, so that clients take no ports.
fn config(path: &Path, endpoints: &str, cluster: &str) -> String {
    l4(([127, 0, 0, 1], 1).into(), "", cluster)
        .replace("127.0.0.1:0", &format!("unix:{}", path.display()))
        .replace("\"127.0.0.1:1\"", endpoints)
}

fn start(path: &Path, endpoints: &str, cluster: &str, driver: &str) -> Ringgate {
    let config = config(path, endpoints, cluster);
    let server = format!("workers = 1\ndriver = \"{driver}\"");
    Setup { config, server, ..Setup::default() }.start()
}

/// What a client gets that says `hello`.
fn hello(path: &Path) -> String {
    let mut client = UnixStream::connect(path).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut answer = vec![0; 100];
    // The connection may be reset already.
    let _ = client.write_all(b"hello");
    let length = client.read(&mut answer).unwrap_or(0);
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

#[test]
fn a_connection_to_itself_is_refused_and_leaves_the_port_free() {
    if !inside_namespace("self_connect::a_connection_to_itself_is_refused_and_leaves_the_port_free")
    {
        return;
    }
    tiny_range();
    for (driver, down) in [("io_uring", DOWN), ("epoll", ALSO_DOWN)] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("listen.sock");
        let gate = start(&path, &format!("\"{down}\""), "connect_attempts = 2", driver);
        for _ in 0..TIMES {
            assert_eq!(hello(&path), "", "an answer of {down}, where nothing listens");
        }
        for record in gate.records(TIMES) {
            assert_eq!((record.end(), record.number("attempts")), ("connect_failed", 2));
            assert_eq!(record.list("failed_endpoints"), [down]);
        }
        // Also without SO_REUSEADDR: nothing is left of the connections, not even TIME_WAIT.
        let server = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        server.bind(&down.parse::<SocketAddr>().unwrap().into()).unwrap();
        server.listen(10).unwrap();
        let _server = Named::on(server.into(), "the server");
        assert_eq!(hello(&path), "the server");
        gate.line_with("connected to itself");
    }
}

#[test]
fn a_connection_to_itself_is_followed_by_the_next_endpoint() {
    if !inside_namespace("self_connect::a_connection_to_itself_is_followed_by_the_next_endpoint") {
        return;
    }
    tiny_range();
    let alive = Named::on(TcpListener::bind("127.0.0.1:30000").unwrap(), "alive");
    for driver in ["io_uring", "epoll"] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("listen.sock");
        let endpoints = format!("\"{DOWN}\", \"{}\"", alive.address());
        let gate = start(&path, &endpoints, "", driver);
        for _ in 0..TIMES {
            assert_eq!(hello(&path), "alive");
        }
        let records = gate.records(TIMES);
        let failed = records.iter().filter(|record| record.list("failed_endpoints") == [DOWN]);
        assert_eq!(failed.count(), TIMES / 2, "{records:?}");
        gate.line_with("connected to itself");
    }
}

#[test]
fn a_udp_session_with_itself_is_refused_and_the_next_endpoint_answers() {
    if !inside_namespace(
        "self_connect::a_udp_session_with_itself_is_refused_and_the_next_endpoint_answers",
    ) {
        return;
    }
    // Four ports for one session at a time. An endpoint that has refused is left out for a second:
    // of the sessions with it, which come once a second, one of four gets its own port.
    with_local_ports(40_000, 40_003);
    let alive = UdpEcho::on(UdpSocket::bind("127.0.0.1:30000").unwrap(), "alive ");
    // The port of a ring that was killed is free a moment later only.
    for (driver, port) in [("io_uring", 30_053), ("epoll", 30_054)] {
        let config = format!(
            "[[listener]]\nname = \"dns\"\nlisten = \"127.0.0.1:{port}\"\nprotocol = \"udp\"\n\
             max_sessions = 1\ncluster = \"servers\"\n[cluster.servers]\n\
             endpoints = [\"{DOWN}\", \"{}\"]\n",
            alive.address()
        );
        let server = format!("workers = 1\ndriver = \"{driver}\"");
        let gate = Setup { config, server, ..Setup::default() }.start();
        let mut ports = (20_000..29_000).cycle();
        wait_for("a session with itself", LONG, || {
            let client = UdpSocket::bind(("127.0.0.1", ports.next().unwrap())).unwrap();
            client.connect(gate.address("dns")).unwrap();
            client.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            client.send(b"hello").unwrap();
            let mut answer = [0; 100];
            // What was sent to the endpoint that is down is lost.
            if let Ok(length) = client.recv(&mut answer) {
                let answer = String::from_utf8_lossy(&answer[..length]);
                assert_eq!(answer, "alive hello", "over {driver}");
            }
            let lines = gate.lines();
            lines.iter().any(|line| line.contains("connected to itself")).then_some(())
        });
        // The same datagram went on to the next endpoint.
        let followed = gate.records_where(1, |record| {
            record.list("failed_endpoints") == [DOWN] && record.number("attempts") == 2
        });
        assert_eq!(followed[0].text("endpoint"), alive.address().to_string());
    }
}

#[test]
fn ports_that_run_out_are_no_fault_of_the_endpoint() {
    if !inside_namespace("self_connect::ports_that_run_out_are_no_fault_of_the_endpoint") {
        return;
    }
    with_local_ports(40_000, 40_003);
    for (driver, port) in [("io_uring", 30_000), ("epoll", 30_001)] {
        let server = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("listen.sock");
        let endpoints = format!("\"127.0.0.1:{port}\"");
        let mut gate = start(&path, &endpoints, "connect_attempts = 2", driver);
        let held: Vec<UnixStream> = (0..4).map(|_| UnixStream::connect(&path).unwrap()).collect();
        let upstreams: Vec<_> = (0..4).map(|_| server.accept().unwrap()).collect();
        assert_eq!(hello(&path), "");
        let record = gate.record();
        // Another attempt would be no better.
        assert_eq!((record.end(), record.number("attempts")), ("local", 1), "over {driver}");
        assert_eq!(record.list("failed_endpoints"), [""; 0], "over {driver}");
        let line = gate.line_with("no local ports are left");
        assert!(line.contains("Cannot assign requested address"), "{line}");
        drop((held, upstreams));
        expect_no_blame(&mut gate);
    }
}

/// At its end it has said of no endpoint that it failed.
#[track_caller]
fn expect_no_blame(gate: &mut Ringgate) {
    gate.signal(Signal::TERM);
    assert_eq!(gate.wait_exit(SHORT).code(), Some(0));
    let blames = |line: &String| line.contains("endpoint failed");
    assert_eq!(gate.lines().iter().find(|line| blames(line)), None);
}

#[test]
fn ports_that_run_out_are_no_fault_of_the_endpoint_of_a_session() {
    if !inside_namespace(
        "self_connect::ports_that_run_out_are_no_fault_of_the_endpoint_of_a_session",
    ) {
        return;
    }
    with_local_ports(40_000, 40_003);
    let server = UdpSocket::bind("127.0.0.1:30000").unwrap();
    for driver in ["io_uring", "epoll"] {
        let config = format!(
            "[[listener]]\nname = \"dns\"\nlisten = \"127.0.0.1:30001\"\nprotocol = \"udp\"\n\
             cluster = \"servers\"\n[cluster.servers]\nendpoints = [\"{}\"]\n",
            server.local_addr().unwrap()
        );
        let server = format!("driver = \"{driver}\"\nworkers = 1");
        let mut gate = Setup { config, server, ..Setup::default() }.start();
        for port in 31_000..31_005 {
            let client = UdpSocket::bind(("127.0.0.1", port)).unwrap();
            client.send_to(b"hello", gate.address("dns")).unwrap();
        }
        let record = wait_for("a client without a socket", SHORT, || {
            gate.records_where(0, |record| record.end() == "local").pop()
        });
        assert_eq!(record.list("failed_endpoints"), [""; 0], "over {driver}");
        let line = gate.line_with(" dropped=1 ");
        assert!(line.contains("connect_error"), "{line}");
        expect_no_blame(&mut gate);
    }
}
