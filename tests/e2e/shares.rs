//! Few descriptors and many clients: TCP, UDP and the control plane have shares of their own.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::{
    Echo, HttpClient, LONG, Ringgate, SHORT, Setup, Upstream, connect, free_port, inside_namespace,
    jam, require, stream_site, wait_for, with_local_ports,
};

/// Descriptors that ringgate may have in most of these tests, and what of them is its reserve.
const FEW: usize = 512;
const RESERVE: usize = 64;

const DRIVERS: [&str; 2] = ["io_uring", "epoll"];

/// Starts what stands behind it with so many descriptors, and no way to raise the limit.
fn with_descriptors(count: usize) -> Option<Command> {
    let mut command = require("prlimit");
    command.arg(format!("--nofile={count}:{count}"));
    Some(command)
}

/// A tcp listener `tcp`, a udp listener `udp` and a site `web`, with few descriptors.
fn start(driver: &str, tcp: SocketAddr, udp: SocketAddr, workers: usize) -> Ringgate {
    let config = format!(
        r#"
        [[listener]]
        name = "tcp"
        listen = "127.0.0.1:0"
        protocol = "tcp"
        cluster = "tcp"

        [[listener]]
        name = "udp"
        listen = "127.0.0.1:0"
        protocol = "udp"
        cluster = "udp"

        [cluster.tcp]
        endpoints = ["{tcp}"]
        [cluster.udp]
        endpoints = ["{udp}"]
        "#
    );
    let server = format!("driver = \"{driver}\"\nworkers = {workers}");
    Setup { config, server, through: with_descriptors(FEW), ..Setup::default() }.start()
}

fn udp_client(to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind((to.ip(), 0)).unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(SHORT)).unwrap();
    socket
}

/// Sends back what begins with a question mark, and nothing else.
fn picky() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 100];
        loop {
            if let Ok((length, from)) = socket.recv_from(&mut buffer)
                && buffer[0] == b'?'
            {
                let _ = socket.send_to(&buffer[..length], from);
            }
        }
    });
    address
}

/// Has an answer within a second; a datagram may be lost on the way to a new session.
#[track_caller]
fn is_answered(client: &UdpSocket) {
    client.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    wait_for("an answer", SHORT, || {
        client.send(b"?").unwrap();
        (client.recv(&mut [0; 10]).ok()? == 1).then_some(())
    });
}

/// So many datagrams that are never answered, each from a client of its own.
#[track_caller]
fn flood(gate: &Ringgate, count: usize) {
    for _ in 0..count {
        udp_client(gate.address("udp")).send(b"no answer").unwrap();
        let open = gate.descriptors();
        assert!(open <= FEW - RESERVE, "{open} descriptors are open");
    }
}

#[track_caller]
fn echoes(client: &mut TcpStream) {
    client.write_all(b"x").unwrap();
    client.read_exact(&mut [0]).unwrap();
}

/// Connections of which each has been through to the upstream and back.
#[track_caller]
fn served(gate: &Ringgate, count: usize) -> Vec<TcpStream> {
    let mut clients: Vec<TcpStream> = (0..count).map(|_| gate.connect("tcp")).collect();
    clients.iter_mut().for_each(echoes);
    clients
}

#[test]
fn datagrams_of_many_clients_leave_tcp_what_it_needs() {
    let echo = Echo::start();
    for driver in DRIVERS {
        let gate = start(driver, echo.address(), picky(), 2);
        flood(&gate, 800);
        let clients = served(&gate, 50);
        // The same once more while all of these are open.
        flood(&gate, 200);
        drop(clients);
        let ends = gate.records_where(500, |record| record.text("protocol") == "udp");
        // Those of whom too many came at one time for so few descriptors are not served.
        assert!(ends.iter().all(|record| ["evicted", "local"].contains(&record.end())));
    }
}

#[test]
fn datagrams_that_come_all_at_once_exceed_no_share() {
    let echo = Echo::start();
    for driver in DRIVERS {
        let gate = start(driver, echo.address(), picky(), 1);
        let to = gate.address("udp");
        gate.frozen(|| {
            for _ in 0..200 {
                udp_client(to).send(b"no answer").unwrap();
            }
        });
        wait_for("most of them are over", SHORT, || {
            let open = gate.descriptors();
            assert!(open <= FEW - RESERVE, "{open} descriptors are open");
            let ended = gate.records_where(0, |record| record.text("protocol") == "udp");
            (ended.len() >= 100).then_some(())
        });
        served(&gate, 50);
    }
}

#[test]
fn new_clients_that_come_all_at_once_take_the_place_of_others_and_none_is_lost() {
    let upstream = UdpSocket::bind("127.0.0.1:0").unwrap();
    upstream.set_read_timeout(Some(SHORT)).unwrap();
    for driver in DRIVERS {
        let config = format!(
            "[[listener]]\nname = \"udp\"\nlisten = \"127.0.0.1:0\"\nprotocol = \"udp\"\n\
             cluster = \"udp\"\nmax_sessions = 10\n\
             [cluster.udp]\nendpoints = [\"{}\"]\n",
            upstream.local_addr().unwrap()
        );
        let server = format!("driver = \"{driver}\"\nworkers = 1");
        let gate = Setup { config, server, ..Setup::default() }.start();
        let to = gate.address("udp");
        // As many as the socket buffers of all three have room for.
        // They stay open: of ports that are let go the kernel would give some to two clients.
        let clients: Vec<UdpSocket> = (0..150).map(|_| udp_client(to)).collect();
        gate.frozen(|| clients.iter().for_each(|client| _ = client.send(b"new").unwrap()));
        (0..150).for_each(|_| _ = upstream.recv(&mut [0; 10]).unwrap());
        assert!(gate.records(140).iter().all(|record| record.end() == "evicted"));
    }
}

#[test]
fn a_session_with_an_answer_outlasts_a_flood_of_those_without() {
    let echo = Echo::start();
    for driver in DRIVERS {
        let gate = start(driver, echo.address(), picky(), 1);
        let clients: Vec<UdpSocket> = (0..20).map(|_| udp_client(gate.address("udp"))).collect();
        clients.iter().for_each(is_answered);
        flood(&gate, 500);
        let ends = gate.records_where(300, |record| record.text("protocol") == "udp");
        let with_answer = |client: &&UdpSocket| {
            let address = client.local_addr().unwrap().to_string();
            ends.iter().any(|record| record.text("client") == address)
        };
        assert_eq!(clients.iter().filter(with_answer).count(), 0, "over {driver}");
        clients.iter().for_each(is_answered);
    }
}

#[test]
fn connections_leave_udp_what_it_needs_and_wait_for_their_turn() {
    let echo = Echo::start();
    for driver in DRIVERS {
        let gate = start(driver, echo.address(), picky(), 2);
        let address = gate.address("tcp");
        let mut clients: Vec<TcpStream> = (0..300).map(|_| connect(address)).collect();
        clients.iter_mut().for_each(|client| client.write_all(b"x").unwrap());
        let line = gate.line_with("wait in the backlog");
        assert!(line.contains("LimitNOFILE"), "{line}");
        // The share of connections is used up; descriptors are left.
        assert!(line.contains("the limit of open files is reached"), "{line}");

        // More than can be served are neither served nor closed, and the reserve is there.
        let open = gate.descriptors();
        assert!(open <= FEW - RESERVE, "{open} descriptors are open");
        let udp: Vec<UdpSocket> = (0..20).map(|_| udp_client(gate.address("udp"))).collect();
        udp.iter().for_each(is_answered);
        fs::rename(gate.access_log(), gate.access_log().with_extension("old")).unwrap();
        gate.signal(Signal::USR1);
        wait_for("a new log file", SHORT, || gate.access_log().exists().then_some(()));

        // Each is served when others have left.
        clients.iter().for_each(|client| client.set_nonblocking(true).unwrap());
        wait_for("all are served", LONG, || {
            clients.retain_mut(|client| {
                let served = client.read_exact(&mut [0]).is_ok();
                if served {
                    client.shutdown(Shutdown::Both).unwrap();
                }
                !served
            });
            clients.is_empty().then_some(())
        });
        assert_eq!(gate.records_where(300, |record| record.text("protocol") == "tcp").len(), 300);
    }
}

/// How many pipes it has open.
fn pipes(gate: &Ringgate) -> usize {
    let files = fs::read_dir(format!("/proc/{}/fd", gate.pid().as_raw_nonzero())).unwrap();
    let targets = files.flatten().filter_map(|file| fs::read_link(file.path()).ok());
    let ends = targets.filter(|target| target.to_string_lossy().starts_with("pipe:")).count();
    // Each has two ends.
    ends / 2
}

#[test]
fn bulk_that_is_not_read_leaves_descriptors_for_others() {
    let upstream = Upstream::listen();
    for driver in DRIVERS {
        let gate = start(driver, upstream.address(), picky(), 1);
        let before = pipes(&gate);
        let mut ends: Vec<(TcpStream, TcpStream)> =
            (0..60).map(|_| (gate.connect("tcp"), upstream.accept())).collect();
        std::thread::scope(|scope| {
            ends.iter_mut().for_each(|(client, _)| _ = scope.spawn(|| jam(client)));
        });
        // An eighth of what one worker has.
        let pipes = pipes(&gate) - before;
        assert!((1..=26).contains(&pipes), "{pipes} pipes over {driver}");
        let open = gate.descriptors();
        assert!(open <= FEW - RESERVE, "{open} descriptors are open");
    }
}

#[test]
fn without_a_local_port_a_session_makes_room_for_the_next_datagram() {
    if !inside_namespace("shares::without_a_local_port_a_session_makes_room_for_the_next_datagram")
    {
        return;
    }
    let endpoint = picky();
    let bound = |port: u16| UdpSocket::bind(("127.0.0.1", port)).unwrap();
    for (index, driver) in DRIVERS.into_iter().enumerate() {
        with_local_ports(32_768, 60_999);
        let gate = start(driver, endpoint, endpoint, 1);
        // Others for each: the kernel frees those of a process that was killed a while later.
        let first = 20_000 + 100 * index as u16;
        with_local_ports(first, first + 9);
        let to = gate.address("udp");
        let clients: Vec<UdpSocket> =
            (0..20).map(|client| bound(21_000 + 100 * index as u16 + client)).collect();
        clients.iter().for_each(|client| client.connect(to).unwrap());
        clients.iter().for_each(|client| _ = client.send(b"no answer").unwrap());
        gate.records_where(1, |record| record.end() == "local");
        is_answered(&clients[19]);
        assert!(!gate.records_where(1, |record| record.end() == "evicted").is_empty());
    }
}

#[test]
fn the_start_says_how_the_descriptors_are_shared_out() {
    let gate = start("epoll", free_port().address(), free_port().address(), 2);
    let line = gate.line_with("ready workers=2");
    // docs/operations.md has these numbers.
    assert!(line.ends_with(" file_limit=512 connection_limit=106 udp_session_limit=84"), "{line}");
}

#[test]
fn a_site_whose_clients_wait_serves_on_when_others_leave() {
    for driver in DRIVERS {
        let config = stream_site(free_port().address(), "");
        let server = format!("driver = \"{driver}\"\nworkers = 1");
        let through = with_descriptors(128);
        let gate = Setup { config, server, through, ..Setup::default() }.start();
        let mut clients: Vec<HttpClient> =
            (0..100).map(|_| HttpClient::connect(gate.address("web"))).collect();
        gate.line_with("wait in the backlog");
        for mut client in clients.drain(..) {
            client.send("GET /a HTTP/1.1\r\nHost: live.example.test\r\n\r\n");
            assert_eq!(client.response().status, 301);
        }
    }
}

#[test]
fn a_session_without_an_answer_ends_sooner() {
    let echo = Echo::start();
    let gate = start("io_uring", echo.address(), picky(), 1);
    let (asks, shouts) = (udp_client(gate.address("udp")), udp_client(gate.address("udp")));
    is_answered(&asks);
    shouts.send(b"no answer").unwrap();
    let ended = wait_for("the session without an answer ends", LONG, || {
        gate.records_where(0, |record| record.end() == "idle").pop()
    });
    assert_eq!(ended.text("client"), shouts.local_addr().unwrap().to_string());
    let after = ended.number("duration_ms");
    // Time limits are late where the worker does not get its CPU, and never early.
    assert!((30_000..60_000).contains(&after), "after {after} ms");
    is_answered(&asks);
    assert_eq!(gate.records_where(1, |_| true).len(), 1);
}

#[test]
fn a_limit_that_is_too_low_is_an_error_with_the_one_that_is_enough() {
    let echo = Echo::start();
    let setup = |driver: &str, descriptors| Setup {
        config: crate::support::l4(echo.address(), "", ""),
        server: format!("driver = \"{driver}\"\nworkers = 3"),
        through: with_descriptors(descriptors),
        ..Setup::default()
    };
    for driver in DRIVERS {
        // So few that the control plane cannot start, either.
        let mut gate = setup(driver, 8).spawn();
        assert_eq!(gate.wait_exit(SHORT).code(), Some(1), "{driver}");
        gate.line_with("the limit of open files is too low: 8;");
        let mut gate = setup(driver, 40).spawn();
        assert_eq!(gate.wait_exit(SHORT).code(), Some(1), "{driver}");
        let line = gate.line_with("the limit of open files is too low: 40;");
        let least = line.rsplit(' ').next().unwrap().parse().unwrap();
        assert!((60..150).contains(&least), "{line}");
        gate.line_with("ulimit -Hn");
        let mut gate = setup(driver, least - 1).spawn();
        assert_eq!(gate.wait_exit(SHORT).code(), Some(1), "{driver}");
        let gate = setup(driver, least).start();
        for _ in 0..20 {
            let mut client = gate.connect("ingress");
            client.write_all(b"x").unwrap();
            client.read_exact(&mut [0]).unwrap();
        }
    }
}
