//! Names of strict_dns clusters: read as the system's resolver reads them, in the families that
//! this machine has, and with a line about each that is in trouble.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use crate::support::{
    NameServer, Named, Network, Reply, Ringgate, SHORT, Setup, UdpEcho, holds_for,
    inside_namespace, l4, require, run, wait_for, without_ipv6,
};

const PORT: u16 = 7000;

/// A server that says its name, on the port of every endpoint here.
fn named(ip: &str) -> Named {
    Named::on(TcpListener::bind(format!("{ip}:{PORT}")).unwrap(), "here")
}

/// An L4 listener in front of one strict_dns cluster.
fn start(name: &str, cluster: &str) -> Ringgate {
    start_on("io_uring", name, cluster)
}

fn start_on(driver: &str, name: &str, cluster: &str) -> Ringgate {
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
    let config = l4(nowhere, "", &format!("discovery = \"strict_dns\"\n{cluster}"))
        .replace("127.0.0.1:1", &format!("{name}:{PORT}"));
    let server = format!("workers = 1\ndriver = \"{driver}\"");
    Setup { config, server, ..Setup::default() }.start()
}

/// What a client gets, and whether the connection ends in order.
fn answer(gate: &Ringgate) -> (String, bool) {
    let mut answer = String::new();
    let read = std::io::Read::read_to_string(&mut gate.connect("ingress"), &mut answer);
    (answer, read.is_ok())
}

#[track_caller]
fn expect_answer(gate: &Ringgate) {
    assert_eq!(answer(gate), ("here".to_owned(), true));
}

/// Workers have new endpoints a moment after the diagnostics say so.
#[track_caller]
fn expect_answer_soon(gate: &Ringgate) {
    wait_for("an answer", SHORT, || (answer(gate) == ("here".to_owned(), true)).then_some(()));
}

#[test]
fn a_name_with_underscores_is_known_from_the_hosts_file_and_from_dns() {
    if !inside_namespace("names::a_name_with_underscores_is_known_from_the_hosts_file_and_from_dns")
    {
        return;
    }
    let mut network = Network::new("", "127.0.0.5 ss_server\n");
    network.names(&[("my_app_1.test", "127.0.0.6")]);
    network.start_server();
    let _servers = (named("127.0.0.5"), named("127.0.0.6"));
    for name in ["ss_server", "my_app_1.test"] {
        expect_answer(&start(name, ""));
    }
}

#[test]
fn a_bad_search_domain_is_skipped() {
    if !inside_namespace("names::a_bad_search_domain_is_skipped") {
        return;
    }
    let mut network = Network::new("search a..b ${DOMAIN} inside.test\n", "");
    network.names(&[("node.inside.test", "127.0.0.6"), ("node.test", "127.0.0.6")]);
    network.start_server();
    let _server = named("127.0.0.6");
    for name in ["node.test", "node"] {
        expect_answer(&start(name, ""));
    }
}

#[test]
fn an_empty_resolver_configuration_means_the_local_machine() {
    if !inside_namespace("names::an_empty_resolver_configuration_means_the_local_machine") {
        return;
    }
    let mut network = Network::with_resolv_conf("# empty\n", "");
    network.names(&[("node.test", "127.0.0.6")]);
    network.start_server();
    let _server = named("127.0.0.6");
    expect_answer(&start("node.test", ""));
}

#[test]
fn without_a_resolver_configuration_the_local_machine_is_asked() {
    if !inside_namespace("names::without_a_resolver_configuration_the_local_machine_is_asked") {
        return;
    }
    let _name_server = NameServer::on([127, 0, 0, 1], |_, _| Reply::Address([127, 0, 0, 6].into()));
    let _server = named("127.0.0.6");
    // Nothing else that a ringgate with a configuration of the test's own needs is there.
    let empty = tempfile::tempdir().unwrap();
    let mut mount = require("mount");
    assert!(run(mount.arg("--bind").arg(empty.path()).arg("/etc")).status.success());
    let gate = start("node.test", "");
    assert!(run(require("umount").arg("/etc")).status.success());
    expect_answer(&gate);
}

#[test]
fn an_alias_is_followed_for_no_longer_than_it_lasts() {
    if !inside_namespace("names::an_alias_is_followed_for_no_longer_than_it_lasts") {
        return;
    }
    let _network = Network::new("", "");
    let name_server = NameServer::on([127, 0, 0, 1], |_, _| Reply::Alias([127, 0, 0, 6].into()));
    let _gate = start("node.test", "dns_family = \"ipv4\"\ndns_refresh = \"1h\"");
    wait_for("it is looked up again", SHORT, || (name_server.asked().len() > 2).then_some(()));
}

#[test]
fn a_timeout_of_0_is_one_of_a_second() {
    if !inside_namespace("names::a_timeout_of_0_is_one_of_a_second") {
        return;
    }
    let mut network = Network::new("options timeout:0 attempts:0\n", "");
    network.names(&[("node.test", "127.0.0.6")]);
    network.start_server();
    let _server = named("127.0.0.6");
    expect_answer(&start("node.test", ""));
}

/// A name with an IPv4 address that is served, and three IPv6 addresses that no route leads to.
const DUAL: [(&str, &str); 4] = [
    ("node.test", "127.0.0.2"),
    ("node.test", "2001:db8::1"),
    ("node.test", "2001:db8::2"),
    ("node.test", "2001:db8::3"),
];

#[test]
fn every_connection_to_a_dual_stack_name_is_served_without_ipv6() {
    if !inside_namespace("names::every_connection_to_a_dual_stack_name_is_served_without_ipv6") {
        return;
    }
    let _network = Network::serving(&DUAL);
    let _server = named("127.0.0.2");
    for driver in ["io_uring", "epoll"] {
        let gate = start_on(driver, "node.test", "");
        gate.line_with("count=4");
        // Without a route first, and then without an address: connect(2) says one or the other.
        for round in 1..3 {
            for _ in 0..24 {
                expect_answer(&gate);
            }
            for record in gate.records(24 * round) {
                assert_eq!(record.number("attempts"), 1, "{record:?}");
            }
            without_ipv6();
        }
        let skipped = gate.records_where(1, |record| !record.list("failed_endpoints").is_empty());
        let skipped = skipped.iter().flat_map(|record| record.list("failed_endpoints"));
        assert!(skipped.into_iter().all(|endpoint| endpoint.starts_with("[2001:db8::")));
    }
}

#[test]
fn the_first_datagram_to_a_dual_stack_name_is_answered_without_ipv6() {
    if !inside_namespace("names::the_first_datagram_to_a_dual_stack_name_is_answered_without_ipv6")
    {
        return;
    }
    let _network = Network::serving(&DUAL);
    UdpEcho::on(UdpSocket::bind(("127.0.0.2", PORT)).unwrap(), "here");
    for driver in ["io_uring", "epoll"] {
        let config = format!(
            "[[listener]]\nname = \"dns\"\nlisten = \"127.0.0.1:0\"\nprotocol = \"udp\"\n\
             cluster = \"servers\"\n[cluster.servers]\ndiscovery = \"strict_dns\"\n\
             endpoints = [\"node.test:{PORT}\"]\n"
        );
        let server = format!("workers = 1\ndriver = \"{driver}\"");
        let gate = Setup { config, server, ..Setup::default() }.start();
        gate.line_with("count=4");
        for index in 0..24 {
            let client = UdpSocket::bind("127.0.0.1:0").unwrap();
            client.connect(gate.address("dns")).unwrap();
            client.set_read_timeout(Some(SHORT)).unwrap();
            client.send(b"!").unwrap();
            let mut answer = [0; 10];
            let length = client.recv(&mut answer);
            assert_eq!(length.ok(), Some(5), "client {index} over {driver}");
        }
    }
}

#[test]
fn dns_family_says_which_addresses_are_endpoints() {
    if !inside_namespace("names::dns_family_says_which_addresses_are_endpoints") {
        return;
    }
    let _network = Network::serving(&[("node.test", "127.0.0.2"), ("node.test", "::1")]);
    let (four, six) = (named("127.0.0.2"), named("[::1]"));
    let families =
        [("ipv4", "127.0.0.2:7000"), ("ipv6", "[::1]:7000"), ("auto", "127.0.0.2:7000 [::1]:7000")];
    for (family, endpoints) in families {
        let gate = start("node.test", &format!("dns_family = \"{family}\""));
        let line = gate.line_with("the cluster has endpoints");
        if family != "auto" {
            assert!(line.contains(&format!("endpoints=\"{endpoints}\"")), "{line}");
        }
        for _ in 0..4 {
            expect_answer(&gate);
        }
    }
    assert!(four.served() >= 4 && six.served() >= 4);
    assert_eq!(four.served() + six.served(), 12);
}

#[test]
fn a_name_that_does_not_exist_or_is_empty_at_the_start_is_logged() {
    if !inside_namespace("names::a_name_that_does_not_exist_or_is_empty_at_the_start_is_logged") {
        return;
    }
    // Of `empty.test` there is the name below it only (RFC 8020).
    let network = Network::serving(&[("below.empty.test", "127.0.0.2"), ("ok.test", "127.0.0.2")]);
    let _server = named("127.0.0.2");
    let gate = start("missing.test", "dns_refresh = \"100ms\"");
    let line = gate.line_with("names do not exist");
    let logged = line.contains(" WARN ") && line.contains("names=\"missing.test\"");
    assert!(logged && line.contains("cluster=backend"), "{line}");
    let line = start("empty.test", "").line_with("names have no address");
    assert!(line.contains(" WARN ") && line.contains("names=\"empty.test\""), "{line}");

    // Once, not for each look-up; and so is the recovery.
    holds_for("it is logged once", Duration::from_secs(2), || {
        gate.lines().iter().filter(|line| line.contains("names do not exist")).count() == 1
    });
    network.names(&[("missing.test", "127.0.0.2")]);
    let line = gate.line_with("names are resolved");
    assert!(line.contains(" INFO ") && line.contains("names=\"missing.test\""), "{line}");
    expect_answer_soon(&gate);
}

#[test]
fn a_resolver_that_does_not_answer_is_logged_once_with_the_names() {
    if !inside_namespace("names::a_resolver_that_does_not_answer_is_logged_once_with_the_names") {
        return;
    }
    let mut network = Network::new("options timeout:1 attempts:1\n", "");
    network.names(&[("node.test", "127.0.0.2"), ("other.test", "127.0.0.2")]);
    let _server = named("127.0.0.2");
    // Takes every question and answers none.
    let silent = UdpSocket::bind("127.0.0.1:53").unwrap();
    let cluster = "dns_refresh = \"100ms\"\n";
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
    let names = format!("node.test:{PORT}\", \"other.test:{PORT}");
    let config = l4(nowhere, "", &format!("discovery = \"strict_dns\"\n{cluster}"))
        .replace("127.0.0.1:1", &names);
    let gate = Setup { config, ..Setup::default() }.start();
    let line = gate.line_with("cannot look up");
    let logged = line.contains(" WARN ") && line.contains("names=\"node.test, other.test\"");
    assert!(logged && line.contains("IPv4 and IPv6: "), "{line}");
    holds_for("it is logged once", Duration::from_secs(7), || {
        gate.lines().iter().filter(|line| line.contains("cannot look up")).count() == 1
    });
    drop(silent);
    network.start_server();
    let line = gate.line_with("names are resolved");
    let logged = line.contains(" INFO ") && line.contains("names=\"node.test, other.test\"");
    assert!(logged, "{line}");
    expect_answer_soon(&gate);
}

#[test]
fn names_without_an_answer_are_logged_when_the_start_does_not_wait_for_them() {
    if !inside_namespace(
        "names::names_without_an_answer_are_logged_when_the_start_does_not_wait_for_them",
    ) {
        return;
    }
    let _network = Network::new("", "127.0.0.2 known\n");
    let _silent = UdpSocket::bind("127.0.0.1:53").unwrap();
    let names = format!("node.test:{PORT}\", \"known:{PORT}");
    let config = l4(([127, 0, 0, 1], 1).into(), "", "discovery = \"strict_dns\"")
        .replace("127.0.0.1:1", &names);
    let gate = Setup { config, ..Setup::default() }.start();
    let line = gate.line_with("no answer from DNS yet");
    assert!(line.contains(" WARN ") && line.contains("names=\"node.test\""), "{line}");
}
