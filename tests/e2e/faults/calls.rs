//! System calls that fail: no memory for a socket, calls that a signal interrupts, no /proc.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::{DRIVERS, RELIEF, Traffic, costs_little};
use crate::support::{
    Echo, HttpClient, Process, Record, Ringgate, SHORT, Setup, Upstream, expect_closed, holds_for,
    inside_namespace, l4, proxied, refusing_from, require, wait_for,
};

const GET: &str = "GET /a HTTP/1.1\r\nHost: site.test\r\n\r\n";

fn round_trip(mut stream: &TcpStream) {
    stream.write_all(b"x").unwrap();
    stream.read_exact(&mut [0]).unwrap();
}

/// An L4 listener `ingress` and a site `web`, each with a server of its own.
fn config(l4_to: &Upstream, web_to: &Upstream) -> String {
    l4(l4_to.address(), "", "") + &proxied(&format!("\"{}\"", web_to.address()), "", "", "")
}

#[test]
fn without_memory_for_sockets_new_clients_fail_and_open_ones_go_on() {
    for driver in DRIVERS {
        for error in [libc::ENOBUFS, libc::ENOMEM, libc::ENFILE] {
            let (backend, web) = (Upstream::listen(), Upstream::listen());
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("from-now-on");
            let server = format!("driver = \"{driver}\"");
            let through = Some(refusing_from(libc::SYS_socket as u32, error, &file));
            let config = config(&backend, &web);
            let gate = Setup { config, server, through, ..Setup::default() }.start();
            let ends = (gate.connect("ingress"), backend.accept());
            let open = Traffic::between(ends, Duration::from_millis(1));

            fs::write(&file, "").unwrap();
            expect_closed(&mut gate.connect("ingress"));
            let mut client = HttpClient::connect(gate.address("web"));
            client.send(GET);
            assert_eq!(client.response().status, 502, "{error} over {driver}");
            gate.line_with("connect_error=");
            let records = gate.records_where(2, |record| record.end() == "local");
            assert!(records.iter().all(|record| record.list("failed_endpoints") == [""; 0]));

            fs::remove_file(&file).unwrap();
            let begin = Instant::now();
            client.send(GET);
            let mut served = web.backend();
            served.request();
            served.answer("again");
            assert_eq!(client.response().body, b"again", "{error} over {driver}");
            assert!(begin.elapsed() < RELIEF, "after {:?}", begin.elapsed());
            open.end();
        }
    }
}

/// A ring accepts by itself, so that this is about epoll alone.
#[test]
fn accepts_that_fail_are_tried_again_at_little_cost() {
    for error in [libc::ENOBUFS, libc::ENOMEM, libc::ENFILE] {
        let (backend, web) = (Upstream::listen(), Upstream::listen());
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("from-now-on");
        let through = Some(refusing_from(libc::SYS_accept4 as u32, error, &file));
        let (config, server) = (config(&backend, &web), "driver = \"epoll\"".to_owned());
        let gate = Setup { config, server, through, ..Setup::default() }.start();
        let ends = (gate.connect("ingress"), backend.accept());
        let open = Traffic::between(ends, Duration::from_millis(100));

        fs::write(&file, "").unwrap();
        let waiting: Vec<TcpStream> = (0..10).map(|_| gate.connect("ingress")).collect();
        let line = gate.line_with(" listener=\"ingress\" error=");
        assert!(line.contains(&format!("(os error {error})")), "{line}");
        costs_little(&gate, &open);

        fs::remove_file(&file).unwrap();
        let begin = Instant::now();
        let served: Vec<TcpStream> = waiting.iter().map(|_| backend.accept()).collect();
        assert!(begin.elapsed() < RELIEF, "{error}: after {:?}", begin.elapsed());
        drop((waiting, served));
        open.end();
    }
}

/// Sends a signal to each thread of a process all the time.
const INTERRUPT: &str = "
import ctypes, os, platform, sys, time
pid, signal = int(sys.argv[1]), int(sys.argv[2])
tgkill = {'x86_64': 234, 'aarch64': 131}[platform.machine()]
libc, sent, end = ctypes.CDLL(None), 0, time.monotonic() + 60
while time.monotonic() < end:
    for thread in os.listdir(f'/proc/{pid}/task'):
        sent += libc.syscall(tgkill, pid, int(thread), signal) == 0
    if sent > 10000:
        print('many sent', flush=True)
        sent = 0
    time.sleep(0.0002)
";

#[test]
fn signals_that_interrupt_every_call_change_nothing() {
    for driver in DRIVERS {
        let (backend, web) = (Upstream::listen(), Upstream::listen());
        let server = format!("driver = \"{driver}\"");
        let gate = Setup { config: config(&backend, &web), server, ..Setup::default() }.start();
        let open =
            Traffic::between((gate.connect("ingress"), backend.accept()), Duration::from_millis(1));
        let mut interrupt = require("python3");
        let pid = gate.pid().to_string();
        interrupt.args(["-c", INTERRUPT, &pid, &libc::SIGUSR1.to_string()]);
        let interrupts = Process::spawn(interrupt);
        let mut client = HttpClient::connect(gate.address("web"));
        let (mut served, mut rounds) = (None, 0);
        holds_for("requests and connections are served", Duration::from_secs(3), || {
            client.send(GET);
            let served = served.get_or_insert_with(|| web.backend());
            served.request();
            served.answer("here");
            let body = client.response().body;
            let ends = (gate.connect("ingress"), backend.accept());
            (&ends.0).write_all(b"x").unwrap();
            (&ends.1).read_exact(&mut [0]).unwrap();
            rounds += 1;
            body == b"here"
        });
        interrupts.line_with("many sent", SHORT);
        open.end();
        drop((interrupts, client));
        // One request and one connection each time, and the connection that was open.
        let records = gate.records(2 * rounds + 1);
        let fails = |record: &&Record| !["done", "client", "upstream"].contains(&record.end());
        assert_eq!(records.iter().filter(fails).count(), 0, "over {driver}");
    }
}

#[test]
fn without_proc_it_serves() {
    if !inside_namespace("faults::calls::without_proc_it_serves") {
        return;
    }
    let echo = Echo::start();
    for driver in DRIVERS {
        // A mount namespace of its own: the test needs its /proc.
        let mut hidden = require("unshare");
        hidden.arg("--mount").arg(require("sh").get_program());
        hidden.args(["-c", "mount -t tmpfs none /proc && exec \"$0\" \"$@\""]);
        let (config, server) = (l4(echo.address(), "", ""), format!("driver = \"{driver}\""));
        let gate = Setup { config, server, through: Some(hidden), ..Setup::default() }.start();
        gate.line_with(&format!("driver={driver}"));
        for _ in 0..20 {
            round_trip(&gate.connect("ingress"));
        }
        ends(gate, 20);
    }
}

#[track_caller]
fn ends(mut gate: Ringgate, records: usize) {
    wait_for("the records", SHORT, || (gate.records(records).len() == records).then_some(()));
    gate.signal(rustix::process::Signal::TERM);
    assert_eq!(gate.wait_exit(SHORT).code(), Some(0));
}
