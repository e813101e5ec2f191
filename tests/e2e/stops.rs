//! Time that a stopped process does not see, and clients that just arrive when a drain begins.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;

use crate::support::{
    Echo, HttpClient, Relayed, Ringgate, SHORT, Setup, client_hello, expect_end, free_port,
    holds_for, slow_reader, stream_site, wait_for,
};

const BOTH: [&str; 2] = ["io_uring", "epoll"];
const GET: &str = "GET /a HTTP/1.1\r\nHost: live.example.test\r\n\r\n";

/// A site with these lines of its listener.
fn start(driver: &str, listener: &str) -> Ringgate {
    let site = stream_site(free_port().address(), "");
    let config = site.replacen("protocol", &format!("{listener}\nprotocol"), 1);
    Setup { config, server: format!("driver = \"{driver}\""), ..Setup::default() }.start()
}

/// Waits until so many more connections are accepted: those in the queue are another matter.
#[track_caller]
fn accepted(gate: &Ringgate, before: usize, more: usize) {
    wait_for("it is accepted", SHORT, || (gate.sockets() >= before + more).then_some(()));
}

/// The process is stopped for longer than the limits of a test.
fn for_long() {
    holds_for("it is stopped", Duration::from_secs(3), || true);
}

#[test]
fn a_head_that_arrives_while_the_process_is_stopped_is_in_time() {
    for driver in BOTH {
        let gate = start(driver, "head_timeout = \"2s\"");
        let address = gate.address("web");
        let mut known = HttpClient::connect(address);
        known.send(&GET[..10]);
        let mut new = gate.frozen(|| {
            let mut new = HttpClient::connect(address);
            new.send(&GET[..10]);
            for_long();
            new
        });
        for client in [&mut known, &mut new] {
            client.send(&GET[10..]);
            assert_eq!(client.response().status, 301, "{driver}");
        }
    }
}

#[test]
fn a_head_that_begins_while_the_process_is_stopped_and_stays_a_part_is_answered_408() {
    for driver in BOTH {
        let gate = start(driver, "head_timeout = \"2s\"");
        let mut client = HttpClient::connect(gate.address("web"));
        gate.frozen(|| {
            client.send(&GET[..10]);
            for_long();
        });
        assert_eq!(client.response().status, 408, "{driver}");
        client.expect_end();
        assert_eq!(gate.record().end(), "head_timeout", "{driver}");
    }
}

#[test]
fn bytes_that_arrive_while_the_process_is_stopped_keep_a_relay_alive() {
    for way in crate::support::EVERY_WAY {
        let Relayed { gate, mut client, mut upstream } = way.open_with("2s", "1m");
        client.write_all(b"x").unwrap();
        upstream.read_exact(&mut [0]).unwrap();
        gate.frozen(|| {
            for_long();
            client.write_all(b"more").unwrap();
        });
        let mut received = [0; 4];
        upstream.read_exact(&mut received).unwrap();
        upstream.write_all(b"back").unwrap();
        client.read_exact(&mut received).unwrap();
        assert_eq!(&received, b"back", "{way:?}");
    }
}

#[test]
fn first_requests_that_are_on_their_way_at_sigterm_are_answered() {
    for driver in BOTH {
        let mut gate = start(driver, "");
        let address = gate.address("web");
        let before = gate.sockets();
        let mut clients: Vec<HttpClient> = (0..4).map(|_| HttpClient::connect(address)).collect();
        // It has them all: a connection that is still in the queue is another matter.
        accepted(&gate, before, 4);
        gate.signal(Signal::TERM);
        wait_for("new connections are refused", SHORT, || TcpStream::connect(address).err());
        for client in &mut clients {
            client.send(GET);
        }
        for client in &mut clients {
            let response = client.response();
            assert_eq!(response.status, 301, "{driver}");
            assert_eq!(response.field("connection"), Some("close"), "{driver}");
            client.expect_end();
        }
        drop(clients);
        assert_eq!(gate.wait_exit(SHORT).code(), Some(0));
        assert_eq!(gate.records_where(4, |record| record.end() == "done").len(), 4, "{driver}");
    }
}

#[test]
fn a_first_request_in_pieces_at_sigterm_is_answered() {
    for driver in BOTH {
        let mut gate = start(driver, "");
        let before = gate.sockets();
        let mut client = HttpClient::connect(gate.address("web"));
        client.send(&GET[..10]);
        accepted(&gate, before, 1);
        gate.signal(Signal::TERM);
        wait_for("new connections are refused", SHORT, || {
            TcpStream::connect(gate.address("web")).err()
        });
        // Longer than the grace of a connection that has said nothing.
        holds_for("it is still running", Duration::from_secs(3), || true);
        client.send(&GET[10..]);
        assert_eq!(client.response().status, 301, "{driver}");
        client.expect_end();
        assert_eq!(gate.wait_exit(SHORT).code(), Some(0));
    }
}

#[test]
fn a_hello_in_pieces_at_sigterm_goes_on() {
    let echo = Echo::start();
    let tls = format!(
        "[[listener.tls]]\ncluster = \"echo\"\n[cluster.echo]\nendpoints = [\"{}\"]\n",
        echo.address()
    );
    let head = "[[listener]]\nname = \"edge\"\nlisten = \"127.0.0.1:0\"\n";
    let route = "[[listener.host]]\nroute = [{ prefix = \"/\", respond = { body = \"x\" } }]\n";
    let listeners = [
        format!("{head}protocol = \"tls\"\n{tls}"),
        format!("{head}protocol = \"http\"\n{route}{tls}"),
    ];
    let each = BOTH.iter().flat_map(|driver| listeners.iter().map(move |config| (driver, config)));
    for (driver, config) in each {
        let server = format!("driver = \"{driver}\"");
        let mut gate = Setup { config: config.clone(), server, ..Setup::default() }.start();
        let before = gate.sockets();
        let mut client = gate.connect("edge");
        let hello = client_hello(Some("example.test"), &[], 0);
        client.write_all(&hello[..20]).unwrap();
        accepted(&gate, before, 1);
        gate.signal(Signal::TERM);
        wait_for("new connections are refused", SHORT, || {
            TcpStream::connect(gate.address("edge")).err()
        });
        holds_for("it is still running", Duration::from_secs(3), || true);
        client.write_all(&hello[20..]).unwrap();
        let mut echoed = vec![0; hello.len()];
        client.read_exact(&mut echoed).unwrap();
        assert!(echoed == hello, "{driver}");
        drop(client);
        assert_eq!(gate.wait_exit(SHORT).code(), Some(0));
    }
}

/// A tls listener `web` with this upstream.
fn start_tls(driver: &str, upstream: SocketAddr) -> Ringgate {
    let config = format!(
        "[[listener]]\nname = \"web\"\nlisten = \"127.0.0.1:0\"\nprotocol = \"tls\"\n\
         hello_timeout = \"1h\"\n[[listener.tls]]\ncluster = \"c\"\n\
         [cluster.c]\nendpoints = [\"{upstream}\"]\n"
    );
    Setup { config, server: format!("driver = \"{driver}\""), ..Setup::default() }.start()
}

#[test]
fn a_hello_that_is_on_its_way_at_sigterm_goes_on() {
    let echo = Echo::start();
    for driver in BOTH {
        let mut gate = start_tls(driver, echo.address());
        let before = gate.sockets();
        let mut client = gate.connect("web");
        accepted(&gate, before, 1);
        gate.signal(Signal::TERM);
        wait_for("new connections are refused", SHORT, || {
            TcpStream::connect(gate.address("web")).err()
        });
        let hello = client_hello(Some("example.test"), &[], 0);
        client.write_all(&hello).unwrap();
        let mut echoed = vec![0; hello.len()];
        client.read_exact(&mut echoed).unwrap();
        assert!(echoed == hello, "{driver}");
        drop(client);
        assert_eq!(gate.wait_exit(SHORT).code(), Some(0));
    }
}

#[test]
fn a_client_without_a_hello_does_not_hold_up_the_end() {
    for driver in BOTH {
        let mut gate = start_tls(driver, free_port().address());
        let before = gate.sockets();
        let _client = gate.connect("web");
        accepted(&gate, before, 1);
        gate.signal(Signal::TERM);
        assert_eq!(gate.wait_exit(SHORT).code(), Some(0), "{driver}");
    }
}

#[test]
fn a_client_that_says_nothing_holds_up_the_end_no_longer_than_its_grace() {
    for driver in BOTH {
        let mut gate = start(driver, "head_timeout = \"1m\"");
        let before = gate.sockets();
        let mut client = gate.connect("web");
        accepted(&gate, before, 1);
        let start = Instant::now();
        gate.signal(Signal::TERM);
        expect_end(&mut client);
        assert_eq!(gate.wait_exit(SHORT).code(), Some(0));
        let passed = start.elapsed();
        let expected = Duration::from_millis(900)..Duration::from_secs(15);
        assert!(expected.contains(&passed), "{driver}: {passed:?}");
    }
}

/// The peer has not ended the connection, whatever is still to be read.
fn is_open(stream: &TcpStream) -> bool {
    let mut polled = [PollFd::new(stream, PollFlags::RDHUP)];
    poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 0
}

#[test]
fn what_many_relays_have_in_their_sockets_when_their_limit_is_over_arrives() {
    const RELAYS: usize = 100;
    for driver in BOTH {
        let backend = crate::support::Upstream::listen();
        let config = crate::support::l4(backend.address(), "idle_timeout = \"2s\"", "");
        let server = format!("driver = \"{driver}\"\nworkers = 1");
        let gate = Setup { config, server, ..Setup::default() }.start();
        // In one of these the two ticks of a stop are the rest of the limit.
        for pause in [1980, 2020, 2060, 2100] {
            let mut ends: Vec<(TcpStream, TcpStream)> =
                (0..RELAYS).map(|_| (gate.connect("ingress"), backend.accept())).collect();
            for (client, upstream) in &mut ends {
                client.write_all(b"a").unwrap();
                upstream.read_exact(&mut [0]).unwrap();
            }
            holds_for("nothing is said", Duration::from_millis(pause), || true);
            gate.frozen(|| {
                ends.retain(|(client, _)| is_open(client));
                ends.iter_mut().for_each(|(client, _)| client.write_all(b"TAIL").unwrap());
            });
            let mut lost = 0;
            for (_client, upstream) in &mut ends {
                let mut received = [0; 4];
                match upstream.read_exact(&mut received) {
                    Ok(()) => assert_eq!(&received, b"TAIL", "{driver}, {pause} ms"),
                    Err(_) => lost += 1,
                }
            }
            // The worker ends one relay after the other. The stop may come when it has looked into
            // the sockets of one and has not closed them yet.
            assert!(lost <= 1, "{driver}, {pause} ms: {lost} relays");
        }
    }
}

#[test]
fn pages_that_are_asked_for_as_a_limit_fires_arrive_whole() {
    const CLIENTS: usize = 48;
    for driver in BOTH {
        let page = "x".repeat(1_000_000);
        let config = format!(
            "[[listener]]\nname = \"web\"\nlisten = \"127.0.0.1:0\"\nprotocol = \"http\"\n\
             keepalive_timeout = \"2s\"\n[[listener.host]]\n[[listener.host.route]]\n\
             path = \"/page\"\nrespond = {{ body = \"{page}\" }}\n"
        );
        let server = format!("driver = \"{driver}\"\nworkers = 1");
        let gate = Setup { config, server, ..Setup::default() }.start();
        for pause in [2020, 2060] {
            let mut clients: Vec<HttpClient> =
                (0..CLIENTS).map(|_| HttpClient::over(slow_reader(gate.address("web")))).collect();
            // A page fits the kernel's buffer and is not read: the connection is at rest.
            for client in &mut clients {
                client.send(format!("GET /page?{pause} HTTP/1.1\r\nHost: a\r\n\r\n"));
            }
            gate.records_where(CLIENTS, |record| record.text("path") == format!("/page?{pause}"));
            holds_for("nothing is asked", Duration::from_millis(pause), || true);
            let request = "GET /page HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
            gate.frozen(|| {
                clients.retain(|client| is_open(&client.stream));
                clients.iter_mut().for_each(|client| client.send(request));
            });
            // All at once: one that is not read has a limit of its own.
            std::thread::scope(|scope| {
                for client in &mut clients {
                    let page = &page;
                    scope.spawn(move || {
                        let socket = socket2::SockRef::from(&client.stream);
                        socket.set_recv_buffer_size(1 << 20).unwrap();
                        let mut response = Vec::new();
                        let read = client.stream.read_to_end(&mut response);
                        // One page where the limit was over just before the stop, else two.
                        let whole = read.is_ok() && response.len() > page.len();
                        let length = response.len();
                        assert!(whole, "{driver}, {pause} ms: {read:?} after {length} bytes");
                    });
                }
            });
        }
    }
}
