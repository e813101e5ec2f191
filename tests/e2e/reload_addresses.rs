//! Addresses that a reload narrows, widens or adds, under load: clients do not come to new sockets
//! before the configuration is in use, and a refused one costs none of them anything.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::reload::{cluster, page, start, udp};
use crate::support::{NameServer, Network, Reply, Ringgate, UdpEcho, inside_namespace};
use crate::udp::{ask, client};

const BOTH: [&str; 2] = ["io_uring", "epoll"];
const WEB: u16 = 8080;
const DNS: u16 = 8053;
const NEW: u16 = 8081;
/// The longest time that a client may wait on a busy machine. A refused reload retries an address
/// in use for 2 s, and names are waited for for 5 s.
const WAIT: Duration = Duration::from_millis(1500);
/// The pause of a client after each answer.
const PAUSE: Duration = Duration::from_millis(5);
/// When a client gives up: later than the end of any reload.
const GIVE_UP: Duration = Duration::from_secs(10);
const ALL: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const ONE: Ipv4Addr = Ipv4Addr::LOCALHOST;
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// What clients have seen, each of which does one thing after the other.
#[derive(Debug, Default)]
struct Seen {
    longest: Duration,
    served: usize,
    refused: usize,
    /// Connections that were reset, by the time since the first trip.
    resets: Vec<Duration>,
    errors: Vec<String>,
}

impl Seen {
    /// Does it until the sender of `end` is dropped, at least once. Pauses leave the processor to
    /// the others.
    fn of(end: &Receiver<()>, mut trip: impl FnMut() -> std::io::Result<()>) -> Seen {
        let mut seen = Seen::default();
        let first = Instant::now();
        loop {
            let begun = Instant::now();
            match trip() {
                Ok(()) => seen.served += 1,
                Err(error) => match error.kind() {
                    ErrorKind::ConnectionRefused => seen.refused += 1,
                    ErrorKind::ConnectionReset => seen.resets.push(first.elapsed()),
                    _ => seen.errors.push(format!("{error} after {:?}", first.elapsed())),
                },
            }
            seen.longest = seen.longest.max(begun.elapsed());
            if end.recv_timeout(PAUSE) != Err(RecvTimeoutError::Timeout) {
                return seen;
            }
        }
    }

    /// Nothing has failed or taken long. With `closes` the reload closes the sockets of the
    /// clients: a connection that waits in one is reset then, so a client may see one reset for
    /// each worker.
    #[track_caller]
    fn is_fine(&self, closes: bool, what: &str) {
        let resets = if closes { 2 } else { 0 };
        let is_fine = self.errors.is_empty() && self.resets.len() <= resets && self.longest < WAIT;
        assert!(is_fine, "{what}: {self:?}");
    }

    #[track_caller]
    fn is_served(&self, closes: bool, what: &str) {
        self.is_fine(closes, what);
        assert!(self.served > 0 && self.refused == 0, "{what}: {self:?}");
    }
}

/// A request on a connection of its own.
fn request(to: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(GIVE_UP))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
    let mut response = Vec::new();
    let ended = stream.read_to_end(&mut response);
    match ended {
        Ok(_) if response.starts_with(b"HTTP/1.1 200") => Ok(()),
        Ok(_) => Err(std::io::Error::other(format!("{} bytes, then the end", response.len()))),
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            Err(std::io::Error::other(format!("{} bytes, then no end", response.len())))
        }
        Err(error) => Err(error),
    }
}

/// A datagram and its answer, with a number that distinguishes it from those before. It is sent
/// again when no answer comes for so long.
fn round_trip(
    client: &UdpSocket,
    number: &mut u64,
    again: Duration,
    lost: &mut usize,
) -> std::io::Result<()> {
    client.set_read_timeout(Some(again))?;
    loop {
        *number += 1;
        client.send(&number.to_be_bytes())?;
        loop {
            let mut answer = [0; 8];
            match client.recv(&mut answer) {
                Ok(_) if answer == number.to_be_bytes() => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        *lost += 1;
    }
}

fn config(ip: Ipv4Addr, echo: &UdpEcho) -> String {
    page("web", (ip, WEB).into(), "x")
        + &udp("dns", (ip, DNS).into(), "echo")
        + &cluster("echo", echo.address())
}

/// What clients see while something happens.
struct Clients {
    web: Seen,
    /// Those of another address of the machine.
    other: Seen,
    /// Those of an address that only the new configuration has.
    new: Seen,
    dns: Seen,
    /// Datagrams without an answer.
    lost: usize,
}

/// `again` is the time after which a datagram without an answer is sent again.
fn while_clients_come(again: Duration, happens: impl FnOnce()) -> Clients {
    thread::scope(|scope| {
        let requests = |to: SocketAddr| {
            let (until, end) = channel();
            (until, scope.spawn(move || Seen::of(&end, move || request(to))))
        };
        let all = [(ONE, WEB), (OTHER, WEB), (ONE, NEW)].map(|to| requests(to.into()));
        let (until, end) = channel();
        let dns = scope.spawn(move || {
            let client = client((ONE, DNS).into());
            let (mut number, mut lost) = (0, 0);
            let seen = Seen::of(&end, || round_trip(&client, &mut number, again, &mut lost));
            (seen, lost)
        });
        happens();
        drop::<Sender<()>>(until);
        let (dns, lost) = dns.join().unwrap();
        let [web, other, new] = all.map(|(until, clients)| {
            drop::<Sender<()>>(until);
            clients.join().unwrap()
        });
        Clients { web, other, new, dns, lost }
    })
}

fn serves(ip: Ipv4Addr) {
    request((ip, WEB).into()).unwrap();
    assert_eq!(ask(&client((ip, DNS).into()), b"here"), b"here");
}

#[test]
fn a_refused_change_of_addresses_costs_no_client_anything() {
    if !inside_namespace("reload_addresses::a_refused_change_of_addresses_costs_no_client_anything")
    {
        return;
    }
    let echo = UdpEcho::start("");
    let taken = TcpListener::bind((ONE, 0)).unwrap();
    let refused =
        page("new", (ONE, NEW).into(), "x") + &page("taken", taken.local_addr().unwrap(), "x");
    for driver in BOTH {
        for (before, after) in [(ALL, ONE), (ONE, ALL)] {
            let what = format!("{before} to {after} over {driver}");
            let gate = start(&config(before, &echo), driver);
            let next = config(after, &echo) + &refused;
            let seen = while_clients_come(GIVE_UP, || {
                let line = gate.try_reload(&next);
                assert!(line.contains("is not used"), "{line}");
            });
            seen.web.is_served(false, &what);
            seen.dns.is_served(false, &what);
            assert_eq!(seen.lost, 0, "{what}: datagrams");
            seen.other.is_fine(false, &what);
            seen.new.is_fine(false, &what);
            assert_eq!(seen.new.served, 0, "{what}");
            if before == ONE {
                assert_eq!(seen.other.served, 0, "{what}");
            } else {
                seen.other.is_served(false, &what);
            }
        }
    }
}

#[test]
fn clients_do_not_wait_for_names_at_addresses_that_change() {
    if !inside_namespace("reload_addresses::clients_do_not_wait_for_names_at_addresses_that_change")
    {
        return;
    }
    let _network = Network::new("", "");
    let _silent = NameServer::on(Ipv4Addr::LOCALHOST, |_, _| Reply::Silence);
    let echo = UdpEcho::start("");
    for driver in BOTH {
        for (before, after) in [(ALL, ONE), (ONE, ALL)] {
            let what = format!("{before} to {after} over {driver}");
            let gate = start(&config(before, &echo), driver);
            let next = config(after, &echo)
                + &page("new", (ONE, NEW).into(), "x")
                + &udp("named", (ONE, NEW).into(), "named")
                + "[cluster.named]\ndiscovery = \"strict_dns\"\nendpoints = [\"node.test:1\"]\n";
            // The session of a removed address ends, so an answer may be lost with it.
            let again = Duration::from_millis(200);
            let seen = while_clients_come(again, || waits_for_names(&gate, &next));
            // The kernel prefers the socket of one address until it is closed.
            seen.web.is_served(after == ALL, &what);
            seen.dns.is_served(false, &what);
            seen.other.is_fine(before == ALL, &what);
            seen.new.is_fine(false, &what);
            serves(after);
            request((ONE, NEW).into()).unwrap();
        }
    }
}

#[track_caller]
fn waits_for_names(gate: &Ringgate, config: &str) {
    let begun = Instant::now();
    gate.reload(config);
    assert!(begun.elapsed() > 2 * WAIT, "the names were not waited for");
}
