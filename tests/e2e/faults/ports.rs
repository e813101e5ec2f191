//! No local port is left for requests to a cluster. self_connect.rs and shares.rs have the same of
//! L4 and of UDP.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{park_timeout, spawn};
use std::time::{Duration, Instant};

use super::{DRIVERS, RELIEF};
use crate::support::{
    HttpClient, SHORT, Setup, UPGRADE, inside_namespace, proxied, wait_for, with_local_ports,
};

const GET: &str = "GET /a HTTP/1.1\r\nHost: site.test\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// Answers requests from the moment on at which `may_answer` is set.
fn thinking(listener: TcpListener, may_answer: &Arc<AtomicBool>) {
    let may_answer = Arc::clone(may_answer);
    let answer = move |mut stream: TcpStream| {
        while let Ok(1..) = stream.read(&mut [0; 4096]) {
            while !may_answer.load(Ordering::Relaxed) {
                park_timeout(Duration::from_millis(5));
            }
            let _ = stream.write_all(OK);
        }
    };
    spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = answer.clone();
            spawn(move || answer(stream));
        }
    });
}

/// A client that has sent a request to a Unix path, so that it takes no port.
fn asks(path: &Path, request: &str) -> HttpClient<UnixStream> {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(SHORT)).unwrap();
    let mut client = HttpClient::over(stream);
    client.send(request);
    client
}

#[test]
fn without_ports_requests_get_a_502_until_there_are_some() {
    if !inside_namespace("faults::ports::without_ports_requests_get_a_502_until_there_are_some") {
        return;
    }
    with_local_ports(40_000, 40_003);
    for (driver, port) in DRIVERS.into_iter().zip(30_000..) {
        let may_answer = Arc::new(AtomicBool::new(false));
        let endpoint = format!("127.0.0.1:{port}");
        thinking(TcpListener::bind(&endpoint).unwrap(), &may_answer);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("listen.sock");
        let config = proxied(&format!("\"{endpoint}\""), "", "", "");
        let config = config.replace("127.0.0.1:0", &format!("unix:{}", path.display()));
        let server = format!("workers = 1\ndriver = \"{driver}\"");
        let gate = Setup { config, server, ..Setup::default() }.start();

        let sockets = gate.sockets();
        let mut held: Vec<_> = (0..4).map(|_| asks(&path, GET)).collect();
        wait_for("each holds a port", SHORT, || (gate.sockets() >= sockets + 8).then_some(()));
        for request in [GET, UPGRADE] {
            assert_eq!(asks(&path, request).response().status, 502, "{driver}");
        }
        for record in gate.records(2) {
            assert_eq!((record.end(), record.number("status")), ("local", 502), "{driver}");
            assert_eq!(record.list("failed_endpoints"), [""; 0], "{driver}");
        }
        let line = gate.line_with("no local ports are left");
        assert!(line.contains("Cannot assign requested address"), "{line}");
        wait_for("both are counted", SHORT, || {
            let lines = gate.lines();
            let counts = lines.iter().filter_map(|line| {
                line.split_once("no local ports")?.1.split(" answered=").nth(1)?.split(' ').next()
            });
            (counts.map(|count| count.parse::<u32>().unwrap()).sum::<u32>() == 2).then_some(())
        });

        may_answer.store(true, Ordering::Relaxed);
        let begin = Instant::now();
        held.iter_mut().for_each(|client| assert_eq!(client.response().status, 200));
        assert_eq!(asks(&path, GET).response().status, 200, "{driver}");
        assert!(begin.elapsed() < RELIEF, "{driver}: after {:?}", begin.elapsed());
        assert!(!gate.lines().iter().any(|line| line.contains("endpoint failed")), "{driver}");
    }
}
