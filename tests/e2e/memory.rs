//! Memory that reloads and connections leave behind.

use std::fmt::Write;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::reload::{page, start};
use crate::support::{LONG, free_port, wait_for};

const ROUTES: usize = 5000;
const RELOADS: usize = 6;
/// What threads that were not there before may keep, in KiB. The routes take about 3 MiB.
const MOST: u64 = 2048;

/// A site that is another one in each edit.
fn site(address: SocketAddr, edit: usize) -> String {
    let mut config = format!(
        "[[listener]]\nname = \"web\"\nlisten = \"{address}\"\nprotocol = \"http\"\n\
         [[listener.host]]\n"
    );
    for route in 0..ROUTES {
        write!(
            config,
            "[[listener.host.route]]\npath = \"/some/path/{route}\"\n\
             respond = {{ body = \"route {route} in edit {edit}\" }}\n"
        )
        .unwrap();
    }
    config
}

/// What reading has left free would be pinned by the routes, which lie among it.
#[test]
fn after_many_reloads_it_is_what_it_was() {
    let address = free_port().address();
    let gate = start(&site(address, 0), "io_uring");
    let before = gate.anonymous_kib();
    for edit in 1..=RELOADS {
        gate.reload(&site(address, edit));
    }
    // The old configuration is freed a while after the last reload.
    wait_for("the memory is given back", LONG, || {
        let now = gate.anonymous_kib();
        eprintln!("{before} {now}");
        (now <= before + MOST).then_some(())
    });
}

/// How many connections are open, and every how manyth of them stays.
const OPEN: (usize, usize) = (600, 20);
/// Bytes of a head that is not complete.
const HEAD: usize = 12_000;
/// More than the time between two looks.
const LOOK: Duration = Duration::from_millis(2500);

/// Those that stay lie among what the others leave free.
#[test]
fn after_many_connections_it_is_given_back() {
    let address = free_port().address();
    let site = page("web", address, "x").replace("\"http\"\n", "\"http\"\nhead_timeout = \"5m\"\n");
    let gate = start(&site, "io_uring");
    let before = gate.anonymous_kib();
    let start = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "a".repeat(HEAD));
    let (open, every) = OPEN;
    let mut clients: Vec<_> = (0..open)
        .map(|_| {
            let mut client = TcpStream::connect(address).unwrap();
            client.write_all(start.as_bytes()).unwrap();
            Some(client)
        })
        .collect();
    let head = HEAD as u64 / 1024;
    let grown = before + open as u64 * head;
    wait_for("the heads take memory", LONG, || (gate.anonymous_kib() >= grown).then_some(()));
    let begun = Instant::now();
    wait_for("a look at what is open", LONG, || (begun.elapsed() >= LOOK).then_some(()));
    for (number, client) in clients.iter_mut().enumerate() {
        if number % every != 0 {
            *client = None;
        }
    }
    // Those that stay have up to a page at each end of their memory.
    let most = before + (open / every) as u64 * (head + 40);
    wait_for("the memory is given back", LONG, || {
        let now = gate.anonymous_kib();
        eprintln!("{before} {grown} {now} {most}");
        (now <= most).then_some(())
    });
}
