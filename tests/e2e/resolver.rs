//! Name servers of `/etc/resolv.conf` are used as resolv.conf(5) says and glibc does: at most
//! three, in order, the next one only where one fails.

use std::net::{Ipv4Addr, SocketAddrV6, UdpSocket};
use std::time::{Duration, Instant};

use crate::support::{
    NameServer, Network, Reply, Ringgate, Setup, holds_for, inside_namespace, l4, require, run,
};

/// The endpoint of every name that is found.
const HERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

/// What the first label of a name asks for.
fn as_named(name: &str) -> Reply {
    match name.split('.').next() {
        Some("found") => Reply::Address(HERE),
        Some("nothing") => Reply::Nothing,
        Some("servfail") => Reply::Code(2),
        Some("denied") => Reply::Code(3),
        Some("notimp") => Reply::Code(4),
        Some("refused") => Reply::Code(5),
        _ => Reply::Silence,
    }
}

/// A cluster of these names, each of which is looked up once within the test.
fn start(names: &[&str]) -> Ringgate {
    start_in("ipv4", names)
}

fn start_in(family: &str, names: &[&str]) -> Ringgate {
    let cluster =
        &format!("discovery = \"strict_dns\"\ndns_refresh = \"1h\"\ndns_family = \"{family}\"");
    let names = names.iter().map(|name| format!("{name}.test:1")).collect::<Vec<_>>();
    let config = l4(([127, 0, 0, 1], 1).into(), "", cluster)
        .replace("\"127.0.0.1:1\"", &format!("\"{}\"", names.join("\", \"")));
    Setup { config, server: "workers = 1".to_owned(), ..Setup::default() }.spawn()
}

fn server(last: u8, reply: impl Fn(&str, u16) -> Reply + Send + 'static) -> NameServer {
    NameServer::on([127, 0, 0, last], reply)
}

/// A resolver configuration with the name servers 127.0.0.2 to 127.0.0.`last`.
fn network(last: u8, resolv_conf: &str) -> Network {
    let lines: String = (2..=last).map(|last| format!("nameserver 127.0.0.{last}\n")).collect();
    Network::with_resolv_conf(&format!("{lines}{resolv_conf}"), "")
}

const FOUND: &str = "endpoints=\"127.0.0.9:1\"";

#[test]
fn the_first_server_that_answers_decides() {
    if !inside_namespace("resolver::the_first_server_that_answers_decides") {
        return;
    }
    let _network = network(3, "");
    let first = server(2, |name, _| as_named(name));
    let second = server(3, |name, _| match as_named(name) {
        Reply::Address(_) => Reply::Code(3),
        _ => Reply::Address(HERE),
    });
    let lines =
        [("found", FOUND), ("denied", "names do not exist"), ("nothing", "names have no address")];
    for (name, line) in lines {
        start(&[name]).line_with(line);
    }
    assert_eq!(first.asked(), ["found.test", "denied.test", "nothing.test"]);
    assert_eq!(second.asked(), [""; 0]);
}

#[test]
fn the_next_server_is_asked_when_one_fails() {
    if !inside_namespace("resolver::the_next_server_is_asked_when_one_fails") {
        return;
    }
    let _network = network(3, "options timeout:1\n");
    let first = server(2, |name, _| as_named(name));
    let second = server(3, |_, _| Reply::Address(HERE));
    for name in ["servfail", "notimp", "refused", "silence"] {
        start(&[name]).line_with(FOUND);
        let name = format!("{name}.test");
        assert_eq!(first.asked().last(), Some(&name));
        assert_eq!(second.asked().last(), Some(&name));
    }
    // One datagram for each try.
    assert_eq!((first.asked().len(), second.asked().len()), (4, 4));
}

#[test]
fn a_port_that_is_closed_costs_no_time() {
    if !inside_namespace("resolver::a_port_that_is_closed_costs_no_time") {
        return;
    }
    // More than the tests wait.
    let _network = network(3, "options timeout:30\n");
    let _second = server(3, |_, _| Reply::Address(HERE));
    start(&["node"]).line_with(FOUND);
}

#[test]
fn each_server_has_the_time_limit_to_itself() {
    if !inside_namespace("resolver::each_server_has_the_time_limit_to_itself") {
        return;
    }
    let _network = network(4, "options timeout:1 attempts:1\n");
    let silent = [2, 3].map(|last| server(last, |_, _| Reply::Silence));
    let third = server(4, |_, _| Reply::Address(HERE));
    start(&["node"]).line_with(FOUND);
    for server in silent.iter().chain([&third]) {
        assert_eq!(server.asked(), ["node.test"]);
    }
}

#[test]
fn three_servers_are_asked_as_often_as_attempts_says_and_a_fourth_is_not() {
    if !inside_namespace(
        "resolver::three_servers_are_asked_as_often_as_attempts_says_and_a_fourth_is_not",
    ) {
        return;
    }
    let _network = network(5, "options timeout:1 attempts:3\n");
    let failing = [2, 3, 4].map(|last| server(last, |_, _| Reply::Code(2)));
    let fourth = server(5, |_, _| Reply::Address(HERE));
    let gate = start(&["node"]);
    let line = gate.line_with("cannot look up");
    assert!(line.contains("127.0.0.2, 127.0.0.3, 127.0.0.4"), "{line}");
    for server in &failing {
        assert_eq!(server.asked().iter().filter(|name| *name == "node.test").count(), 3);
    }
    assert_eq!(fourth.asked(), [""; 0]);
}

#[test]
fn the_zone_of_a_link_local_server_is_kept() {
    if !inside_namespace("resolver::the_zone_of_a_link_local_server_is_kept") {
        return;
    }
    let add = ["addr", "add", "fe80::53/64", "dev", "lo", "nodad"];
    assert!(run(require("ip").args(add)).status.success());
    // The first zone does not exist.
    let resolv_conf = "nameserver fe80::53%no-such\nnameserver fe80::53%lo\n";
    let _network = Network::with_resolv_conf(resolv_conf, "");
    let loopback = 1;
    let address = SocketAddrV6::new("fe80::53".parse().unwrap(), 53, 0, loopback);
    let socket = UdpSocket::bind(address).unwrap();
    let server = NameServer::on_socket(socket, |_, _| Reply::Address(HERE));
    start(&["node"]).line_with(FOUND);
    assert_eq!(server.asked(), ["node.test"]);
}

#[test]
fn a_server_whose_zone_is_unknown_does_not_become_another() {
    if !inside_namespace("resolver::a_server_whose_zone_is_unknown_does_not_become_another") {
        return;
    }
    let _network = Network::with_resolv_conf("nameserver fe80::53%no-such\n", "");
    let local = NameServer::on([127, 0, 0, 1], |_, _| Reply::Address(HERE));
    let gate = start(&["node"]);
    let line = gate.line_with("cannot look up");
    assert!(line.contains("/etc/resolv.conf"), "{line}");
    holds_for("nothing else is asked", Duration::from_millis(500), || local.asked().is_empty());
}

const IPV4: u16 = 1;

#[test]
fn the_start_does_not_wait_for_the_second_family() {
    if !inside_namespace("resolver::the_start_does_not_wait_for_the_second_family") {
        return;
    }
    // Longer than the start waits.
    let _network = network(2, "options timeout:30\n");
    let reply = |_: &str, kind| if kind == IPV4 { Reply::Address(HERE) } else { Reply::Silence };
    let _server = server(2, reply);
    let begin = Instant::now();
    let gate = start_in("auto", &["node"]);
    gate.line_with("ready workers=");
    assert!(begin.elapsed() < Duration::from_secs(4), "start took {:?}", begin.elapsed());
    let lines = gate.lines();
    assert!(!lines.iter().any(|line| line.contains("no answer from DNS")), "{lines:?}");
}

#[test]
fn a_failure_in_one_family_is_not_told_as_one_in_both() {
    if !inside_namespace("resolver::a_failure_in_one_family_is_not_told_as_one_in_both") {
        return;
    }
    let _network = network(2, "");
    let reply = |_: &str, kind| if kind == IPV4 { Reply::Address(HERE) } else { Reply::Code(2) };
    let _server = server(2, reply);
    let gate = start_in("auto", &["node"]);
    let line = gate.line_with("names are resolved in one family only");
    assert!(line.contains("IPv6: 127.0.0.2: Server Failure"), "{line}");
    let lines = gate.lines();
    let as_both = lines.iter().any(|line| line.contains("cannot look up names"));
    assert!(!as_both, "{lines:?}");
}

#[test]
fn each_name_is_logged_with_its_own_error() {
    if !inside_namespace("resolver::each_name_is_logged_with_its_own_error") {
        return;
    }
    let _network = network(2, "");
    let _server = server(2, |name, _| as_named(name));
    let gate = start(&["refused", "servfail"]);
    for (name, error) in [("refused", "Query Refused"), ("servfail", "Server Failure")] {
        let line = gate.line_with(&format!("names=\"{name}.test\""));
        assert!(line.contains("cannot look up names") && line.contains(error), "{line}");
    }
}
