//! Limits that a reload lowers or removes while something is within the old ones.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::reload::{cluster, page, start, tcp};
use crate::support::{
    Echo, HttpClient, LONG, SHORT, Setup, UdpEcho, bytes, free_port, holds_for, inside_namespace,
    slow_reader, wait_for, with_deadlines,
};
use crate::udp::{ask, client};

const BOTH: [&str; 2] = ["io_uring", "epoll"];
const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn a_response_is_sent_to_its_end_long_after_its_listener_was_removed() {
    let name = "reload_limits::a_response_is_sent_to_its_end_long_after_its_listener_was_removed";
    if !inside_namespace(name) {
        return;
    }
    // A response that the client does not read waits in the process, not in the kernel.
    fs::write("/proc/sys/net/ipv4/tcp_wmem", "4096 16384 32768").unwrap();
    for driver in BOTH {
        let (one, two) = (free_port().address(), free_port().address());
        let directory = tempfile::tempdir().unwrap();
        let (file, sent) = (directory.path().join("body.txt"), bytes(1, 1 << 20));
        fs::write(&file, &sent).unwrap();
        let stays = page("stays", one, "stays");
        let goes =
            page("goes", two, "goes").replace("body = \"goes\"", &format!("file = {file:?}"));
        let gate = start(&(stays.clone() + &goes), driver);
        let mut idle = HttpClient::connect(two);
        idle.send(GET);
        assert!(idle.response().body == sent);
        let mut slow = slow_reader(two);
        slow.write_all(GET.as_bytes()).unwrap();
        let mut slow = HttpClient::over(slow);
        slow.head_only();
        gate.reload(&stays);
        // The service ends with its idle connections.
        idle.stream.set_read_timeout(Some(LONG)).unwrap();
        idle.expect_end();
        // Each pause of the client is longer than a limit of 0 would be.
        for piece in sent.chunks(sent.len() / 4) {
            assert!(slow.take(piece.len()) == piece, "{driver}");
            let is_open = || slow.stream.take_error().unwrap().is_none();
            holds_for("the response goes on", Duration::from_millis(300), is_open);
        }
        slow.expect_end();
    }
}

#[test]
fn new_clients_are_served_after_a_reload_has_lowered_the_limit_of_sessions() {
    for driver in BOTH {
        let (echo, address) = (UdpEcho::start(""), free_port().address());
        let config = |most: usize| {
            let udp = format!("\"udp\"\nmax_sessions = {most}");
            tcp("dns", address, "c").replace("\"tcp\"", &udp) + &cluster("c", echo.address())
        };
        let server = format!("driver = \"{driver}\"\nworkers = 1");
        let gate = Setup { config: config(200), server, ..Setup::default() }.start();
        let before = gate.sockets();
        let old: Vec<UdpSocket> = (0..200).map(|_| client(address)).collect();
        old.iter().for_each(|client| assert_eq!(ask(client, b"old"), b"old"));
        assert_eq!(gate.sockets(), before + 200);
        // The old sessions are more than these and the sockets of ended ones may be.
        gate.reload(&config(20));
        gate.records_where(180, |one| one.end() == "evicted");
        wait_for("their sockets are closed", SHORT, || {
            (gate.sockets() <= before + 20).then_some(())
        });
        for _ in 0..40 {
            assert_eq!(ask(&client(address), b"new"), b"new", "{driver}");
        }
    }
}

#[test]
fn a_head_that_has_begun_within_a_larger_limit_is_refused_by_a_smaller_one() {
    for driver in BOTH {
        let address = free_port().address();
        let config = |most: &str| {
            let limit = format!("\"http\"\nmax_head = \"{most}\"");
            page("web", address, "x").replace("\"http\"", &limit)
        };
        let gate = start(&config("60KiB"), driver);
        let mut client = HttpClient::connect(address);
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(50_000)));
        // When every thread waits, what the client has sent was read.
        gate.frozen(|| ());
        gate.reload(&config("1KiB"));
        client.send("x");
        assert_eq!(client.response().status, 431, "{driver}");
        client.expect_end();
    }
}

#[test]
fn what_a_listener_has_refused_until_it_was_removed_is_said() {
    let address = free_port().address();
    let echo = Echo::start();
    let named = |name: &str, limit: &str| {
        let listener = tcp(name, address, "c").replace("protocol", &format!("{limit}\nprotocol"));
        listener + &cluster("c", echo.address())
    };
    let limited = |round: u64| named(&format!("l{round}"), "max_connections = 1");
    let mut gate = start(&limited(0), "io_uring");
    for round in 0..5 {
        // The last client of the round before may be inside for a moment.
        let _inside = wait_for("a client is inside", SHORT, || {
            let mut client = with_deadlines(TcpStream::connect(address).ok()?);
            client.write_all(b"x").and_then(|()| client.read_exact(&mut [0])).ok()?;
            Some(client)
        });
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            // Clients come until the listener has another name.
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    // A reset may come before connect(2) returns.
                    let Ok(client) = TcpStream::connect(address) else { continue };
                    let client = with_deadlines(client);
                    // An end, or the next listener serves.
                    let _ = (&client).write_all(b"x").and_then(|()| (&client).read(&mut [0]));
                }
            });
            gate.reload(&limited(round + 1));
            is_over.store(true, Ordering::Relaxed);
        });
    }
    gate.reload(&named("open", ""));
    gate.signal(Signal::TERM);
    assert!(gate.wait_exit(SHORT).success());
    let said = gate.lines().into_iter().filter_map(|line| {
        let number = line.split(" max_connections=1 reset=").nth(1)?;
        number.split(' ').next()?.parse::<usize>().ok()
    });
    let said: usize = said.sum();
    let refused = gate.records_where(0, |record| record.end() == "overflow").len();
    assert!(refused >= 5 && said == refused, "{said} of {refused}");
}
