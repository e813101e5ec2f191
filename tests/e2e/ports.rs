//! The ports that tests give to other programs: no one else can get one before its owner binds it.

use std::collections::HashSet;
use std::fs;
use std::net::{TcpListener, UdpSocket};

use crate::support::{free_port, inside_namespace, run};

/// Set for the second process of a test that needs two.
const SECOND: &str = "RINGGATE_E2E_SECOND";

#[test]
fn the_kernel_gives_a_lent_port_to_no_one() {
    if !inside_namespace("ports::the_kernel_gives_a_lent_port_to_no_one") {
        return;
    }
    // So few that a socket for each of them takes them all, TCP and UDP.
    fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40015").unwrap();
    let lent = free_port();
    let tcp: Vec<TcpListener> =
        std::iter::repeat_with(|| TcpListener::bind("127.0.0.1:0")).map_while(Result::ok).collect();
    let udp: Vec<UdpSocket> =
        std::iter::repeat_with(|| UdpSocket::bind("127.0.0.1:0")).map_while(Result::ok).collect();
    assert_eq!((tcp.len(), udp.len()), (16, 16));
    let ports = tcp.iter().map(|socket| socket.local_addr().unwrap().port());
    let ports = ports.chain(udp.iter().map(|socket| socket.local_addr().unwrap().port()));
    assert!(ports.into_iter().all(|port| port != lent.number()), "{} was given", lent.number());
    // Its owner can bind it, for both protocols.
    TcpListener::bind(lent.address()).unwrap();
    UdpSocket::bind(lent.address()).unwrap();
}

#[test]
fn what_is_bound_already_is_not_lent() {
    if !inside_namespace("ports::what_is_bound_already_is_not_lent") {
        return;
    }
    // Everything is taken except one number: for TCP, for UDP, over IPv4, over IPv6.
    fs::write("/proc/sys/net/ipv4/ip_local_port_range", "1024 65530").unwrap();
    let _taken = (
        TcpListener::bind("0.0.0.0:65531").unwrap(),
        UdpSocket::bind("127.0.0.1:65532").unwrap(),
        TcpListener::bind("[::1]:65533").unwrap(),
        UdpSocket::bind("[::]:65534").unwrap(),
    );
    assert_eq!(free_port().number(), 65535);
}

#[test]
fn a_port_is_lent_once() {
    let mut lent: HashSet<u16> = (0..50).map(|_| free_port().number()).collect();
    assert_eq!(lent.len(), 50, "{lent:?}");
    if std::env::var_os(SECOND).is_some() {
        lent.iter().for_each(|port| println!("lent: {port}"));
        return;
    }
    // Nor does another process get them, for as long as this one runs.
    let mut second = std::process::Command::new(std::env::current_exe().unwrap());
    second.args(["--exact", "ports::a_port_is_lent_once", "--nocapture"]).env(SECOND, "1");
    let output = run(&mut second);
    let said = String::from_utf8(output.stdout).unwrap();
    let theirs: Vec<u16> =
        said.lines().filter_map(|line| line.strip_prefix("lent: ")?.parse().ok()).collect();
    assert_eq!(theirs.len(), 50, "{said}");
    assert!(theirs.iter().all(|port| lent.insert(*port)), "{theirs:?} and {lent:?}");
}
