//! Sockets that are kept, new, removed or inherited.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener as StdListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::*;
use crate::config;

/// Runs a test on a runtime of the control plane's kind.
fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(test)
}

/// A configuration of listeners: name, address, protocol.
fn config(listeners: &[(&str, String, &str)]) -> Config {
    let listener = |(name, listen, protocol): &(&str, String, &str)| {
        format!(
            "[[listener]]\nname = \"{name}\"\nlisten = \"{listen}\"\nprotocol = \"{protocol}\"\n\
             cluster = \"c\"\n"
        )
    };
    let text: String = listeners.iter().map(listener).collect();
    let text = text + "[cluster.c]\nendpoints = [\"127.0.0.1:1\"]\n";
    config::parse("test", &text, Path::new("")).unwrap_or_else(|errors| panic!("{errors}"))
}

fn open(config: &Config, workers: usize, inherited: Inherited) -> Sockets {
    let mut sockets = run(Sockets::open(config, workers, inherited)).unwrap();
    sockets.commit();
    sockets
}

fn ports(sockets: &Sockets) -> Vec<u16> {
    let port = |address: &SocketsOfAddress| match &address.bound {
        Address::Ip(ip) => ip.port(),
        Address::Unix(_) => 0,
    };
    sockets.addresses.iter().map(port).collect()
}

/// The listeners and the descriptors of all sockets of a worker.
fn of_worker(sockets: &Sockets, worker: usize) -> Vec<(String, i32)> {
    let (streams, datagrams) = sockets.of_worker(worker);
    let streams = streams.iter().map(|one| (one.listener.to_string(), one.socket.as_raw_fd()));
    let datagrams = datagrams.iter().map(|one| (one.listener.to_string(), one.socket.as_raw_fd()));
    streams.chain(datagrams).collect()
}

fn duplicates(sockets: &Sockets) -> Inherited {
    let mut inherited = Inherited::default();
    for socket in sockets.to_hand_over() {
        assert!(inherited.add(socket.as_fd().try_clone_to_owned().unwrap()));
        inherited.chosen.extend(socket.chosen);
    }
    inherited
}

#[test]
fn a_renamed_listener_keeps_its_sockets() {
    let any = || "127.0.0.1:0".to_owned();
    let first = config(&[("a", any(), "tcp"), ("b", any(), "udp")]);
    let chosen = open(&first, 2, Inherited::default());
    let [tcp, udp] = ports(&chosen)[..] else { panic!("two addresses") };
    let named = |tcp_name, udp_name| {
        let address = |port| format!("127.0.0.1:{port}");
        config(&[(udp_name, address(udp), "udp"), (tcp_name, address(tcp), "tcp")])
    };
    let mut sockets = open(&named("a", "b"), 2, duplicates(&chosen));
    let fds = |sockets: &Sockets| [0, 1].map(|worker| of_worker(sockets, worker));
    let before = fds(&sockets);
    let change = run(sockets.prepare(&named("c", "d"), None)).unwrap();
    sockets.apply(change);
    let renamed = before.map(|all| {
        let name = |name: String| if name == "a" { "c".to_owned() } else { "d".to_owned() };
        all.into_iter().map(|(old, fd)| (name(old), fd)).collect::<Vec<_>>()
    });
    assert_eq!(fds(&sockets), renamed);

    // A port that the kernel chose belongs to its listener.
    let change = run(chosen.prepare(&config(&[("z", any(), "tcp")]), None)).unwrap();
    let [other] = change.into_new().try_into().unwrap_or_else(|_| panic!("one new address"));
    assert_ne!(other.bound, chosen.addresses[0].bound);
}

#[test]
fn what_is_new_is_bound_and_what_goes_is_closed() {
    let listen = || "127.0.0.1:0".to_owned();
    let mut sockets = open(&config(&[("a", listen(), "tcp")]), 1, Inherited::default());
    let [port] = ports(&sockets)[..] else { panic!("one address") };
    let change = run(sockets.prepare(&config(&[("b", listen(), "tcp")]), None)).unwrap();
    assert_eq!(ports(&sockets), [port], "nothing has changed yet");
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    sockets.apply(change);
    assert_ne!(ports(&sockets), [port]);
    let gone = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_change_that_is_dropped_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let sockets = open(&config(&[("a", "127.0.0.1:0".to_owned(), "tcp")]), 1, Inherited::default());
    let taken = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let with_path = ("p", format!("unix:{}", path.display()), "tcp");
    let next = config(&[with_path, ("taken", taken.local_addr().unwrap().to_string(), "tcp")]);
    assert!(run(sockets.prepare(&next, None)).is_err());
    assert!(!path.exists());
}

#[test]
fn all_addresses_of_a_port_can_become_one_of_them() {
    let first = open(&config(&[("a", "0.0.0.0:0".to_owned(), "tcp")]), 2, Inherited::default());
    let [port] = ports(&first)[..] else { panic!("one address") };
    let one = config(&[("a", format!("127.0.0.1:{port}"), "tcp")]);
    let begun = std::time::Instant::now();
    assert!(run(first.prepare(&one, None)).is_ok());
    assert!(begun.elapsed() < std::time::Duration::from_secs(1), "it was tried again");
}

#[test]
fn clients_do_not_come_to_a_new_address_before_it_is_in_use() {
    let free = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let any = ("a", "127.0.0.1:0".to_owned(), "tcp");
    let mut sockets = open(&config(std::slice::from_ref(&any)), 2, Inherited::default());
    let next = config(&[any, ("b", free.to_string(), "tcp")]);
    let change = run(sockets.prepare(&next, None)).unwrap();
    assert_eq!(TcpStream::connect(free).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    sockets.apply(change);
    TcpStream::connect(free).unwrap();
}

#[test]
fn an_address_that_another_process_takes_meanwhile_is_left_out() {
    let any = |name| (name, "127.0.0.1:0".to_owned(), "tcp");
    let taken = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let mut sockets = open(&config(&[any("a")]), 2, Inherited::default());
    let next = config(&[any("a"), ("b", taken.to_string(), "tcp"), any("c")]);
    let change = run(sockets.prepare(&next, None)).unwrap();
    // With SO_REUSEADDR, as most programs.
    let _other = StdListener::bind(taken).unwrap();
    sockets.apply(change);
    let [a, c] = ports(&sockets)[..] else { panic!("two addresses") };
    for port in [a, c] {
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    }
}

#[test]
fn a_part_of_the_addresses_of_another_process_is_refused() {
    let first = open(&config(&[("a", "127.0.0.1:0".to_owned(), "tcp")]), 2, Inherited::default());
    let [port] = ports(&first)[..] else { panic!("one address") };
    let _other = StdListener::bind((Ipv4Addr::new(127, 0, 0, 2), port)).unwrap();
    let all = config(&[("a", format!("0.0.0.0:{port}"), "tcp")]);
    assert!(run(first.prepare(&all, None)).is_err());
}

#[test]
fn datagrams_come_to_the_old_sockets_until_the_new_ones_are_in_use() {
    let first = |ip: &str, port: u16| config(&[("a", format!("{ip}:{port}"), "udp")]);
    let mut sockets = open(&first("0.0.0.0", 0), 1, Inherited::default());
    let [port] = ports(&sockets)[..] else { panic!("one address") };
    let old = sockets.of_worker(0).1.remove(0).socket;
    let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let change = run(sockets.prepare(&first("127.0.0.1", port), None)).unwrap();
    client.send_to(b"old", (Ipv4Addr::LOCALHOST, port)).unwrap();
    assert_eq!(old.recv(&mut [0; 8]).unwrap(), 3);
    sockets.apply(change);
    client.send_to(b"later", (Ipv4Addr::LOCALHOST, port)).unwrap();
    let new = sockets.of_worker(0).1.remove(0).socket;
    assert_eq!(new.recv(&mut [0; 8]).unwrap(), 5);

    // An address that the machine does not have is refused nevertheless.
    let all = open(&first("0.0.0.0", 0), 1, Inherited::default());
    let [port] = ports(&all)[..] else { panic!("one address") };
    assert!(run(all.prepare(&first("192.0.2.1", port), None)).is_err());
}

#[test]
fn a_port_that_the_kernel_chose_stays_with_its_listener() {
    let any = || "127.0.0.1:0".to_owned();
    let named = |names: &[&str]| {
        let listeners: Vec<_> = names.iter().map(|name| (*name, any(), "tcp")).collect();
        config(&listeners)
    };
    let first = open(&named(&["a", "b", "c"]), 2, Inherited::default());
    let [a, b, c] = ports(&first)[..] else { panic!("three addresses") };
    let after = |names: &[&str]| ports(&open(&named(names), 1, duplicates(&first)));
    assert_eq!(after(&["c", "a", "b"]), [c, a, b]);
    // One with a new name gets what no other one has.
    assert_eq!(after(&["new", "c", "a"]), [b, c, a]);
    assert_eq!(after(&["new", "other", "b"]), [a, c, b]);
    let more = after(&["new", "a", "b", "c"]);
    assert!(more[1..] == [a, b, c] && ![a, b, c].contains(&more[0]), "{more:?}");

    // A port that a listener names is not free, and without names the order counts.
    let address = format!("127.0.0.1:{b}");
    let naming = config(&[("b", any(), "tcp"), ("a", any(), "tcp"), ("x", address, "tcp")]);
    let [other, still, named_one] = ports(&open(&naming, 1, duplicates(&first)))[..] else {
        panic!("three addresses")
    };
    assert_eq!((other, still, named_one), (c, a, b));
    let unknown = Inherited { chosen: Vec::new(), ..duplicates(&first) };
    assert_eq!(ports(&open(&named(&["c", "a", "b"]), 1, unknown)), [a, b, c]);
}

#[test]
fn inherited_sockets_are_divided_among_the_workers() {
    let any = || "127.0.0.1:0".to_owned();
    let listeners = config(&[("a", any(), "tcp"), ("b", any(), "udp"), ("c", any(), "tcp")]);
    let first = open(&listeners, 3, Inherited::default());
    let both = ports(&first);
    for workers in [1, 2, 3, 5] {
        let next = open(&listeners, workers, duplicates(&first));
        assert_eq!(ports(&next), both, "{workers} workers");
        let each: Vec<usize> = (0..workers).map(|worker| of_worker(&next, worker).len()).collect();
        let expected: &[usize] = match workers {
            1 => &[9],
            2 => &[6, 3],
            3 => &[3, 3, 3],
            _ => &[3; 5],
        };
        assert_eq!(each, expected);
        assert_eq!(next.surplus(), 3 * 3_usize.saturating_sub(workers));
        drop(next);
        let [tcp, ..] = both[..] else { panic!("three addresses") };
        TcpStream::connect((Ipv4Addr::LOCALHOST, tcp)).unwrap();
    }
}

#[test]
fn workers_share_a_socket_beside_which_none_can_be_bound() {
    // Without SO_REUSEPORT, as from a service manager.
    let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let inherited = Inherited { streams: vec![listener], ..Inherited::default() };
    let sockets = open(&config(&[("a", address, "tcp")]), 3, inherited);
    let all = [0, 1, 2].map(|worker| of_worker(&sockets, worker));
    assert!(all.iter().all(|one| *one == all[0]), "{all:?}");
    assert_eq!(sockets.to_hand_over().len(), 1);
}

#[test]
fn a_path_belongs_to_the_process_that_has_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let listeners = config(&[("a", format!("unix:{}", path.display()), "tcp")]);
    let mut first = open(&listeners, 2, Inherited::default());

    // One that does not get this far leaves it.
    drop(run(Sockets::open(&listeners, 1, duplicates(&first))).unwrap());
    assert!(path.exists());

    let next = open(&listeners, 1, duplicates(&first));
    first.leave();
    UnixStream::connect(&path).unwrap();
    let foreign = Inherited { foreign_paths: vec![path.clone()], ..duplicates(&next) };
    let third = open(&listeners, 1, foreign);
    assert_eq!(third.foreign_paths(), std::slice::from_ref(&path));
    drop(third);
    assert!(path.exists(), "the service manager has it");
    drop(next);
    assert!(!path.exists());
}
