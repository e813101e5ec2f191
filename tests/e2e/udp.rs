//! Datagrams: each client a session with one endpoint, answers from where they were asked, ends.
//!
//! Where a test takes thousands of ports, it has a network of its own.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use humantime::parse_rfc3339;
use rustix::process::Signal;

use crate::support::{
    LONG, Record, RefusingUdp, Ringgate, SHORT, Setup, UdpEcho, bytes, free_port, holds_for,
    inside_namespace, ss_server_with_udp, ss_tunnel, wait_for,
};

/// A udp listener `dns` on this address, with more lines of it, to these endpoints.
fn config(listen: &str, listener: &str, endpoints: &[SocketAddr]) -> String {
    let endpoints: Vec<String> = endpoints.iter().map(|one| format!("\"{one}\"")).collect();
    format!(
        "[[listener]]\nname = \"dns\"\nlisten = \"{listen}\"\nprotocol = \"udp\"\n\
         cluster = \"servers\"\n{listener}\n[cluster.servers]\nendpoints = [{}]\n",
        endpoints.join(", ")
    )
}

fn start(listener: &str, endpoints: &[SocketAddr]) -> Ringgate {
    Ringgate::start(&config("127.0.0.1:0", listener, endpoints))
}

/// One worker, so that all sessions share a table.
fn start_alone(listener: &str, endpoints: &[SocketAddr]) -> Ringgate {
    let config = config("127.0.0.1:0", listener, endpoints);
    Setup { config, server: "workers = 1".to_owned(), ..Setup::default() }.start()
}

/// A socket whose datagrams go there.
pub(crate) fn client(to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind((to.ip(), 0)).unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(SHORT)).unwrap();
    socket
}

/// Sends one datagram and gives the one that comes back.
#[track_caller]
pub(crate) fn ask(client: &UdpSocket, question: &[u8]) -> Vec<u8> {
    client.send(question).unwrap();
    let mut answer = vec![0; 65_536];
    let length = client.recv(&mut answer).unwrap();
    answer.truncate(length);
    answer
}

#[test]
fn datagrams_of_every_length_keep_their_boundaries() {
    for driver in ["io_uring", "epoll"] {
        let echo = UdpEcho::start("");
        let config = config("127.0.0.1:0", "", &[echo.address()]);
        let mut gate =
            Setup { config, server: format!("driver = \"{driver}\""), ..Setup::default() }.start();
        let client = client(gate.address("dns"));
        let lengths = [0, 1, 300, 1350, 9000, 65_507];
        for length in lengths {
            let sent = bytes(length as u64, length);
            assert!(ask(&client, &sent) == sent, "{length} bytes over {driver}");
        }
        // Many at once, of one length and of others.
        for length in [300, 300, 300, 200, 300, 1350, 1350, 0, 1350] {
            client.send(&bytes(length as u64, length)).unwrap();
        }
        let mut received = [0; 2000];
        for length in [300, 300, 300, 200, 300, 1350, 1350, 0, 1350] {
            assert_eq!(client.recv(&mut received).unwrap(), length);
            assert!(received[..length] == bytes(length as u64, length));
        }
        gate.signal(Signal::TERM);
        assert_eq!(gate.wait_exit(SHORT).code(), Some(0));
        let record = gate.record();
        assert_eq!((record.text("protocol"), record.end()), ("udp", "drain"));
        assert_eq!(record.text("endpoint"), echo.address().to_string());
        let all = lengths.iter().sum::<usize>() + 5 * 300 - 100 + 3 * 1350;
        assert_eq!(record.number("bytes_up"), all as u64);
        assert_eq!(record.number("bytes_down"), all as u64);
    }
}

#[test]
fn a_client_keeps_its_endpoint_and_clients_take_turns() {
    let servers = ["a", "b", "c"].map(UdpEcho::start);
    let gate = start_alone("", &servers.each_ref().map(UdpEcho::address));
    let clients: Vec<UdpSocket> = (0..6).map(|_| client(gate.address("dns"))).collect();
    let name = |client: &UdpSocket| {
        let answer = String::from_utf8(ask(client, b"?")).unwrap();
        assert!(answer.ends_with('?'), "{answer}");
        answer
    };
    let names: Vec<String> = clients.iter().map(name).collect();
    for _ in 0..3 {
        assert_eq!(clients.iter().map(name).collect::<Vec<_>>(), names);
    }
    for server in ["a?", "b?", "c?"] {
        assert_eq!(names.iter().filter(|name| *name == server).count(), 2, "{names:?}");
    }
}

#[test]
fn answers_come_from_the_address_that_was_asked() {
    let echo = UdpEcho::start("");
    let gate = Ringgate::start(&config("0.0.0.0:0", "", &[echo.address()]));
    let port = gate.address("dns").port();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(SHORT)).unwrap();
    for host in [2, 3, 2, 1] {
        let asked = SocketAddr::from(([127, 0, 0, host], port));
        socket.send_to(&[host], asked).unwrap();
        let mut answer = [0; 10];
        let (length, from) = socket.recv_from(&mut answer).unwrap();
        assert_eq!((&answer[..length], from), (&[host][..], asked));
    }
    let gate = Ringgate::start(&config("[::1]:0", "", &[echo.address()]));
    assert_eq!(ask(&client(gate.address("dns")), b"over IPv6"), b"over IPv6");
}

#[test]
fn a_thousand_clients_at_once_and_then_silence() {
    if !inside_namespace("udp::a_thousand_clients_at_once_and_then_silence") {
        return;
    }
    let echo = UdpEcho::start("");
    let gate = start("idle_timeout = \"20s\"", &[echo.address()]);
    let sockets = gate.sockets();
    let clients: Vec<UdpSocket> = (0..1000).map(|_| client(gate.address("dns"))).collect();
    // Several at a time, so that all have asked long before the first has been silent for too long.
    for (group, clients) in clients.chunks(10).enumerate() {
        let seed = |index: usize| (10 * group + index) as u64;
        for length in [300, 1350] {
            for (index, client) in clients.iter().enumerate() {
                client.send(&bytes(seed(index), length)).unwrap();
            }
            for (index, client) in clients.iter().enumerate() {
                let mut answer = [0; 2000];
                assert_eq!(client.recv(&mut answer).unwrap(), length);
                assert!(answer[..length] == bytes(seed(index), length), "client {}", seed(index));
            }
        }
    }
    assert_eq!(gate.sockets(), sockets + 1000);
    wait_for("their sockets are closed", LONG, || (gate.sockets() == sockets).then_some(()));
    let records = gate.records(1000);
    assert!(records.iter().all(|record| record.end() == "idle"), "{records:?}");
    assert!(records.iter().all(|record| record.number("bytes_down") == 1650), "{records:?}");
    // Whoever comes again is new.
    assert_eq!(ask(&clients[0], b"again"), b"again");
}

#[test]
fn either_side_keeps_a_session_alive() {
    let upstream = UdpSocket::bind("127.0.0.1:0").unwrap();
    upstream.set_read_timeout(Some(SHORT)).unwrap();
    // A machine that stands still for a moment does not reach this limit.
    let gate = start("idle_timeout = \"4s\"", &[upstream.local_addr().unwrap()]);
    let client = client(gate.address("dns"));
    client.send(b"hello").unwrap();
    let mut buffer = [0; 100];
    let (_, from) = upstream.recv_from(&mut buffer).unwrap();
    // Only answers, for longer than the limit.
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(6) {
        upstream.send_to(b"tick", from).unwrap();
        assert_eq!(client.recv(&mut buffer).unwrap(), 4);
        holds_for("a pause", Duration::from_millis(100), || true);
    }
    let start = Instant::now();
    client.send(b"still the same").unwrap();
    assert_eq!(upstream.recv_from(&mut buffer).unwrap().1, from);
    assert_eq!(gate.record().end(), "idle");
    assert!(start.elapsed() >= Duration::from_millis(3900), "{:?}", start.elapsed());
}

#[test]
fn the_one_that_was_silent_for_the_longest_makes_room() {
    let echo = UdpEcho::start("");
    let gate = start_alone("max_sessions = 2", &[echo.address()]);
    let [first, second, third] = std::array::from_fn(|_| client(gate.address("dns")));
    for client in [&first, &second, &first, &third] {
        assert_eq!(ask(client, b"x"), b"x");
    }
    let record = gate.record();
    assert_eq!(record.end(), "evicted");
    assert_eq!(record.text("client"), second.local_addr().unwrap().to_string());
    // It is back at once, for whoever is the oldest now.
    assert_eq!(ask(&second, b"x"), b"x");
    assert_eq!(gate.records(2)[1].text("client"), first.local_addr().unwrap().to_string());
}

#[test]
fn a_server_that_is_away_costs_what_was_sent_to_it_and_no_more() {
    let port = free_port();
    let gate = start_alone("", &[port.address()]);
    let client = client(gate.address("dns"));
    for _ in 0..10 {
        client.send(b"lost").unwrap();
    }
    UdpEcho::on(UdpSocket::bind(port.address()).unwrap(), "");
    wait_for("the server answers the same session", SHORT, || {
        client.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        client.send(b"found").unwrap();
        client.recv(&mut [0; 10]).ok()
    });
}

#[test]
fn one_datagram_that_is_refused_ends_its_session() {
    for driver in ["io_uring", "epoll"] {
        let refusing = RefusingUdp::new();
        let config = config("127.0.0.1:0", "", &[refusing.address()]);
        let server = format!("driver = \"{driver}\"\nworkers = 1");
        let gate = Setup { config, server, ..Setup::default() }.start();
        let sockets = gate.sockets();
        client(gate.address("dns")).send(b"refused").unwrap();
        // By the refusal: the limit of a session without an answer is 30 s.
        let record = wait_for("a record", SHORT, || gate.records_where(0, |_| true).pop());
        assert_eq!(record.end(), "connect_failed", "over {driver}");
        assert_eq!(record.list("failed_endpoints"), [refusing.address().to_string()]);
        gate.line_with("endpoint failed");
        wait_for("its socket is closed", SHORT, || (gate.sockets() == sockets).then_some(()));
    }
}

#[test]
fn an_endpoint_that_refuses_is_left_for_the_next() {
    let (echo, nobody) = (UdpEcho::start(""), free_port());
    let gate = start_alone("", &[nobody.address(), echo.address()]);
    for _ in 0..4 {
        let client = client(gate.address("dns"));
        client.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        wait_for("an answer", SHORT, || {
            client.send(b"x").unwrap();
            client.recv(&mut [0; 10]).ok()
        });
    }
    let ended = gate.records_where(1, |record| record.end() == "connect_failed");
    assert_eq!(ended[0].text("endpoint"), nobody.address().to_string());
}

#[test]
fn new_sessions_leave_an_endpoint_out_that_has_just_refused() {
    for driver in ["io_uring", "epoll"] {
        let (echo, refusing) = (UdpEcho::start(""), RefusingUdp::new());
        let config = config("127.0.0.1:0", "", &[refusing.address(), echo.address()]);
        let server = format!("driver = \"{driver}\"\nworkers = 1");
        let gate = Setup { config, server, ..Setup::default() }.start();
        client(gate.address("dns")).send(b"lost").unwrap();
        gate.line_with("endpoint failed");
        let clients: Vec<UdpSocket> = (0..40).map(|_| client(gate.address("dns"))).collect();
        clients.iter().for_each(|client| assert_eq!(client.send(b"x").unwrap(), 1));
        let failed = |record: &Record| record.end() == "connect_failed";
        let mut answered = vec![false; clients.len()];
        let failures = wait_for("every client has an answer or a record", SHORT, || {
            for (client, answered) in clients.iter().zip(&mut answered) {
                client.set_nonblocking(true).unwrap();
                *answered |= client.recv(&mut [0; 2]).is_ok();
            }
            let failures = gate.records_where(1, failed);
            let heard = answered.iter().filter(|answered| **answered).count();
            (heard + failures.len() > clients.len()).then_some(failures)
        });
        // On a machine that is busy the second may be over before the last client has its turn.
        let start = |record: &Record| parse_rfc3339(record.text("start")).unwrap();
        let starts: Vec<_> = failures.iter().map(start).collect();
        let first = *starts.iter().min().unwrap();
        let spared = first + Duration::from_secs(1);
        let early = starts.iter().filter(|start| **start > first && **start < spared).count();
        assert_eq!(early, 0, "over {driver}: {failures:?}");
    }
}

#[test]
fn datagrams_that_meet_the_refusal_of_earlier_ones_go_to_the_next_endpoint() {
    for driver in ["io_uring", "epoll"] {
        let (echo, refusing) = (UdpEcho::start(""), [RefusingUdp::new(), RefusingUdp::new()]);
        let endpoints = [refusing[0].address(), refusing[1].address(), echo.address()];
        let config = config("127.0.0.1:0", "", &endpoints);
        let server = format!("driver = \"{driver}\"\nworkers = 1");
        let gate = Setup { config, server, ..Setup::default() }.start();
        let client = client(gate.address("dns"));
        // All are there before the first is passed on. Longer ones do not share a call with those
        // before them, and those of one length do.
        let lengths = [1, 2, 3, 3, 3, 4, 5];
        gate.frozen(|| {
            for length in lengths {
                client.send(&bytes(length as u64, length)).unwrap();
            }
        });
        // The first goes to an endpoint that refuses it, and so does the second.
        for length in &lengths[2..] {
            let mut received = [0; 10];
            assert_eq!(client.recv(&mut received).unwrap(), *length, "over {driver}");
            assert!(received[..*length] == bytes(*length as u64, *length));
        }
        let records = gate.records(2);
        for (record, refusing) in records.iter().zip(&refusing) {
            assert_eq!(record.end(), "connect_failed");
            assert_eq!(record.text("endpoint"), refusing.address().to_string());
        }
        assert_eq!((records[0].number("bytes_up"), records[1].number("bytes_up")), (1, 2));
    }
}

#[test]
fn an_endpoint_that_refuses_after_an_answer_keeps_its_session() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let gate = start_alone("", &[server.local_addr().unwrap()]);
    let client = client(gate.address("dns"));
    let mut buffer = [0; 10];
    client.send(b"1").unwrap();
    let (_, session) = server.recv_from(&mut buffer).unwrap();
    server.send_to(b"2", session).unwrap();
    client.recv(&mut buffer).unwrap();
    // As a server that is started again: for a time its port refuses what it gets.
    server.connect("127.0.0.1:9").unwrap();
    client.send(b"refused").unwrap();
    let session_stays = || gate.records_where(0, |_| true).is_empty();
    holds_for("the session stays", Duration::from_millis(300), session_stays);
    for length in 1..10 {
        client.send(&bytes(1, length)).unwrap();
    }
    server.connect(session).unwrap();
    server.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    wait_for("the same session goes on", SHORT, || {
        client.send(b"found").unwrap();
        let (length, from) = server.recv_from(&mut buffer).ok()?;
        (&buffer[..length] == b"found" && from == session).then_some(())
    });
}

#[test]
fn without_an_endpoint_each_datagram_is_a_record() {
    let config = "[[listener]]\nname = \"dns\"\nlisten = \"127.0.0.1:0\"\nprotocol = \"udp\"\n\
                  cluster = \"none\"\n[cluster.none]\ndiscovery = \"strict_dns\"\n\
                  endpoints = [\"nobody.invalid:53\"]\n";
    let gate = Ringgate::start(config);
    client(gate.address("dns")).send(b"?").unwrap();
    assert_eq!(gate.record().end(), "no_endpoint");
}

#[test]
fn a_port_in_use_is_an_error_also_for_udp() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let config = config(&address, "", &["127.0.0.1:9".parse().unwrap()]);
    let mut gate = Setup { config, ..Setup::default() }.spawn();
    gate.line_with(&format!("cannot listen on {address}"));
    assert_eq!(gate.wait_exit(SHORT).code(), Some(1));
}

#[test]
fn tcp_and_udp_share_a_port_number() {
    let echo = UdpEcho::start("");
    let port = free_port();
    let udp = config(&port.address().to_string(), "", &[echo.address()]);
    let tcp = format!(
        "[[listener]]\nname = \"tcp\"\nlisten = \"{}\"\nprotocol = \"tcp\"\n\
         cluster = \"servers\"\n",
        port.address()
    );
    let gate = Ringgate::start(&format!("{tcp}{udp}"));
    assert_eq!(ask(&client(gate.address("dns")), b"x"), b"x");
    gate.connect("tcp");
}

#[test]
fn shadowsocks_over_udp_goes_through() {
    if !inside_namespace("udp::shadowsocks_over_udp_goes_through") {
        return;
    }
    let (server, echo) = (ss_server_with_udp(), UdpEcho::start(""));
    let gate = start("", &[server.address()]);
    let tunnels: Vec<_> = (0..3).map(|_| ss_tunnel(gate.address("dns"), echo.address())).collect();
    for tunnel in &tunnels {
        let client = client(tunnel.address());
        for (seed, length) in [(1, 300), (2, 1350), (3, 1)] {
            let sent = bytes(seed, length);
            assert!(ask(&client, &sent) == sent, "{length} bytes");
        }
    }
    // ss-tunnel makes a session of each of its own clients.
    let clients: Vec<UdpSocket> = (0..200).map(|_| client(tunnels[0].address())).collect();
    for (index, client) in clients.iter().enumerate() {
        let sent = bytes(index as u64, 300);
        assert!(ask(client, &sent) == sent, "client {index}");
    }
    assert!(gate.sockets() > 200, "{} sockets", gate.sockets());
}
