//! Reloads with thousands of sockets: they take little time, and connections go on meanwhile.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::reload::{cluster, start, tcp};
use crate::support::{Echo, Ringgate, UdpEcho, allow_descriptors, free_port, inside_namespace};
use crate::udp::{ask, client};

const BOTH: [&str; 2] = ["io_uring", "epoll"];
/// Sockets of each worker.
const MANY: u16 = 2000;
/// The first of their ports, which the network of the test has for itself.
const FIRST: u16 = 10_000;
/// What a worker may take at a stretch on a busy machine and without optimization. Looking at all
/// sockets for each of them takes it seconds.
const STRETCH: Duration = Duration::from_millis(300);

/// The longest round trip of some connections while the process reads a configuration.
fn longest_trip(gate: &Ringgate, clients: &mut [TcpStream], config: &str) -> Duration {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let trips = scope.spawn(|| {
            let mut longest = Duration::ZERO;
            while !is_over.load(Ordering::Relaxed) {
                for client in &mut *clients {
                    let begun = Instant::now();
                    client.write_all(b"x").unwrap();
                    client.read_exact(&mut [0]).unwrap();
                    longest = longest.max(begun.elapsed());
                }
            }
            longest
        });
        gate.reload(config);
        is_over.store(true, Ordering::Relaxed);
        trips.join().unwrap()
    })
}

fn many(protocol: &str) -> String {
    let ranges: Vec<String> = (FIRST..FIRST + MANY)
        .step_by(1000)
        .map(|first| format!("\"127.0.0.1:{first}-{}\"", first + 999))
        .collect();
    format!(
        "[[listener]]\nname = \"many\"\nlisten = [{}]\nprotocol = \"{protocol}\"\n\
         cluster = \"many\"\n",
        ranges.join(", ")
    )
}

#[test]
fn connections_go_on_while_thousands_of_sockets_change() {
    if !inside_namespace("reload_sockets::connections_go_on_while_thousands_of_sockets_change") {
        return;
    }
    allow_descriptors(16_000);
    let (echo, udp_echo, address) = (Echo::start(), UdpEcho::start(""), free_port().address());
    let few = tcp("few", address, "few") + &cluster("few", echo.address());
    for driver in BOTH {
        for (protocol, endpoint) in [("tcp", echo.address()), ("udp", udp_echo.address())] {
            let all = few.clone() + &many(protocol) + &cluster("many", endpoint);
            let gate = start(&all, driver);
            // Enough for both workers.
            let mut clients: Vec<TcpStream> =
                (0..8).map(|_| TcpStream::connect(address).unwrap()).collect();
            for (what, first, then) in
                [("stay", &all, &all), ("go", &all, &few), ("come", &few, &all)]
            {
                // On a busy machine the client may have no turn meanwhile.
                let is_short = (0..4).any(|_| {
                    gate.reload(first);
                    longest_trip(&gate, &mut clients, then) < STRETCH
                });
                assert!(is_short, "{protocol} sockets that {what} over {driver}");
            }
            // They serve, the first and the last of them.
            for port in [FIRST, FIRST + MANY - 1] {
                let to = SocketAddr::from(([127, 0, 0, 1], port));
                if protocol == "udp" {
                    assert_eq!(ask(&client(to), b"here"), b"here");
                } else {
                    let mut client = TcpStream::connect(to).unwrap();
                    client.write_all(b"x").unwrap();
                    client.read_exact(&mut [0]).unwrap();
                }
            }
        }
    }
}
