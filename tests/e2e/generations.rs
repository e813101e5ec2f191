//! Memory over many reloads: what is left of a configuration while its tunnels live.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};

use crate::reload::{cluster, echoes, page, start, tcp};
use crate::support::{Echo, free_port, read_until, with_deadlines};

const BOTH: [&str; 2] = ["io_uring", "epoll"];

/// A configuration of about a megabyte in memory, of which one route differs from round to round.
fn large(address: SocketAddr, relay: SocketAddr, echo: SocketAddr, round: usize) -> String {
    let mut text = page("web", address, &format!("round {round}"));
    for route in 0..1500 {
        text.push_str(&format!(
            "[[listener.host.route]]\npath = \"/r/{route}\"\n\
             redirect = {{ host = \"h{}.test\" }}\n",
            route + round
        ));
    }
    // The page for every path comes last.
    let (head, rest) = text.split_once("[[listener.host.route]]").unwrap();
    let (first, others) = rest.split_once("[[listener.host.route]]").unwrap();
    format!(
        "{head}[[listener.host.route]]\npath = \"/relay\"\nupgrade = \"websocket\"\n\
         cluster = \"c\"\ntunnel = \"terminate\"\naccept = [\"obfs\"]\n\
         [[listener.host.route]]{others}[[listener.host.route]]{first}{}{}",
        tcp("relay", relay, "c"),
        cluster("c", echo)
    )
}

#[test]
fn tunnels_do_not_keep_the_configurations_that_they_began_with() {
    for driver in BOTH {
        let (address, relay) = (free_port().address(), free_port().address());
        let echo = Echo::start();
        let config = |round| large(address, relay, echo.address(), round);
        let gate = start(&config(0), driver);
        let open = |round: usize| {
            let mut stream = with_deadlines(TcpStream::connect(address).unwrap());
            let request = "GET /relay HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
                           Connection: Upgrade\r\n\
                           Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
            stream.write_all(request.as_bytes()).unwrap();
            read_until(&mut stream, b"\r\n\r\n");
            echoes(&mut stream, round as u64);
            stream
        };
        let mut tunnels = Vec::new();
        for round in 1..=8 {
            tunnels.push(open(round));
            gate.reload(&config(round));
        }
        let before = gate.anonymous_kib();
        for round in 9..=32 {
            tunnels.push(open(round));
            gate.reload(&config(round));
        }
        for (round, tunnel) in tunnels.iter_mut().enumerate() {
            echoes(tunnel, round as u64);
        }
        // One configuration is a megabyte; 24 of them would be three times this.
        let grown = gate.anonymous_kib().saturating_sub(before);
        assert!(grown < 8 * 1024, "{driver}: {before} KiB and {grown} KiB more");
    }
}
