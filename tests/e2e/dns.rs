//! strict_dns against a real name server, in a network of its own where port 53 is free.

use std::collections::HashSet;
use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::support::{
    Echo, HttpClient, Named, Network, Ringgate, SHORT, SOON, Setup, UPGRADE, expect_closed,
    holds_for, inside_namespace, l4, require, site, wait_for,
};

const PORT: u16 = 7000;

/// A server that says its name, on the port of every endpoint here.
fn named(ip: &str, name: &'static str) -> Named {
    Named::on(TcpListener::bind(format!("{ip}:{PORT}")).unwrap(), name)
}

/// An L4 listener and a site in front of one strict_dns cluster.
fn start(name: &str) -> Ringgate {
    start_with(name, "")
}

/// [`start`] with more lines of the cluster.
fn start_with(name: &str, cluster: &str) -> Ringgate {
    setup(name, cluster).start()
}

fn setup(name: &str, cluster: &str) -> Setup {
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
    let l4 = l4(nowhere, "", "");
    let (listener, _) = l4.split_once("[cluster.").unwrap();
    let endpoints = format!("\"{name}:{PORT}\"");
    let cluster = format!("discovery = \"strict_dns\"\nconnect_timeout = \"500ms\"\n{cluster}");
    let site = site(&endpoints, "", "path = \"/stream\"", &cluster);
    let config = format!("{}{site}", listener.replace("backend", "shadowsocks"));
    // Workers learn of changes one after the other; with one of them a change is seen or not.
    Setup { config, server: "workers = 1".to_owned(), ..Setup::default() }
}

fn who_answers(gate: &Ringgate) -> String {
    let mut name = String::new();
    // A closed connection may be told by a reset, even before connect has returned; then nobody
    // answers.
    if let Ok(mut client) = TcpStream::connect(gate.address("ingress")) {
        client.set_read_timeout(Some(SHORT)).unwrap();
        let _ = client.read_to_string(&mut name);
    }
    name
}

#[test]
fn every_address_of_a_name_is_used() {
    if !inside_namespace("dns::every_address_of_a_name_is_used") {
        return;
    }
    let ips = ["127.0.0.2", "127.0.0.3", "127.0.0.4"];
    let _network = Network::serving(&ips.map(|ip| ("node.test", ip)));
    let backends = ips.map(|ip| named(ip, "here"));
    let gate = start("node.test");
    for _ in 0..30 {
        assert_eq!(who_answers(&gate), "here");
    }
    for backend in &backends {
        assert_eq!(backend.served(), 10, "of 30 at one of three");
    }
}

#[test]
fn more_addresses_than_fit_a_small_datagram() {
    if !inside_namespace("dns::more_addresses_than_fit_a_small_datagram") {
        return;
    }
    // 512 bytes are enough for 30 (RFC 1035 section 4.2.1).
    let ips: Vec<String> = (1..=60).map(|n| format!("127.0.1.{n}")).collect();
    let names: Vec<_> = ips.iter().map(|ip| ("node.test", ip.as_str())).collect();
    let _network = Network::serving(&names);
    let _everywhere = named("0.0.0.0", "here");
    let gate = start("node.test");
    for _ in 0..60 {
        assert_eq!(who_answers(&gate), "here");
    }
    let records = gate.records(60);
    let used: HashSet<&str> = records.iter().map(|record| record.text("endpoint")).collect();
    assert_eq!(used.len(), 60);
}

#[test]
fn an_answer_without_a_time_to_live_lasts_as_long_as_configured() {
    if !inside_namespace("dns::an_answer_without_a_time_to_live_lasts_as_long_as_configured") {
        return;
    }
    let mut network = Network::new("", "").time_to_live(0);
    network.names(&[("node.test", "127.0.0.2")]);
    network.start_server();
    let (_old, _new) = (named("127.0.0.2", "old"), named("127.0.0.3", "new"));
    let gate = start_with("node.test", "dns_refresh = \"2s\"");
    assert_eq!(who_answers(&gate), "old");
    network.names(&[("node.test", "127.0.0.3")]);
    let begin = Instant::now();
    wait_for("the new address", SHORT, || (who_answers(&gate) == "new").then_some(()));
    assert!(begin.elapsed() < SOON, "2 s took {:?}", begin.elapsed());
}

#[test]
fn a_denial_in_the_search_domain_does_not_speak_for_a_server_that_fails() {
    if !inside_namespace(
        "dns::a_denial_in_the_search_domain_does_not_speak_for_a_server_that_fails",
    ) {
        return;
    }
    let mut network = Network::new("search test\n", "");
    network.names(&[("node.net", "127.0.0.2")]);
    network.start_server();
    let _here = named("127.0.0.2", "here");
    let gate = start("node.net");
    assert_eq!(who_answers(&gate), "here");
    // From now on the server refuses node.net, and denies node.net.test.
    network.names(&[]);
    gate.line_with("cannot look up");
    // Longer than a denial is held.
    holds_for("the last answer is kept", Duration::from_secs(33), || who_answers(&gate) == "here");
}

#[test]
fn a_changed_answer_is_picked_up() {
    if !inside_namespace("dns::a_changed_answer_is_picked_up") {
        return;
    }
    let network = Network::serving(&[("node.test", "127.0.0.2")]);
    let (_old, _new) = (named("127.0.0.2", "old"), named("127.0.0.3", "new"));
    let gate = start("node.test");
    assert_eq!(who_answers(&gate), "old");
    network.names(&[("node.test", "127.0.0.3")]);
    let start = Instant::now();
    wait_for("the new address", SHORT, || (who_answers(&gate) == "new").then_some(()));
    assert!(start.elapsed() < Duration::from_secs(5), "a TTL of 1 s took {:?}", start.elapsed());
    for _ in 0..6 {
        assert_eq!(who_answers(&gate), "new", "the old address is gone");
    }
}

#[test]
fn a_changed_answer_is_picked_up_while_connections_wait_for_descriptors() {
    if !inside_namespace(
        "dns::a_changed_answer_is_picked_up_while_connections_wait_for_descriptors",
    ) {
        return;
    }
    let network = Network::serving(&[("node.test", "127.0.0.2")]);
    let (_old, _new) =
        (Echo::on(TcpListener::bind("127.0.0.2:7000").unwrap()), named("127.0.0.3", "new"));
    let mut few = require("prlimit");
    few.arg("--nofile=128:128");
    let gate = Setup { through: Some(few), ..setup("node.test", "") }.start();
    let clients: Vec<TcpStream> = (0..100).map(|_| gate.connect("ingress")).collect();
    gate.line_with("wait in the backlog");
    network.names(&[("node.test", "127.0.0.3")]);
    gate.line_with("endpoints=\"127.0.0.3:7000\"");
    drop(clients);
}

#[test]
fn the_last_good_answer_is_kept_while_dns_is_down() {
    if !inside_namespace("dns::the_last_good_answer_is_kept_while_dns_is_down") {
        return;
    }
    let mut network = Network::serving(&[("node.test", "127.0.0.2")]);
    let (_here, _new) = (named("127.0.0.2", "here"), named("127.0.0.3", "new"));
    let gate = start("node.test");
    assert_eq!(who_answers(&gate), "here");
    network.stop_server();
    holds_for("the last answer", Duration::from_secs(6), || who_answers(&gate) == "here");
    network.names(&[("node.test", "127.0.0.3")]);
    network.start_server();
    let limit = Duration::from_secs(20);
    wait_for("the server is asked again", limit, || (who_answers(&gate) == "new").then_some(()));
}

#[test]
fn a_name_that_is_gone_empties_the_cluster_after_half_a_minute() {
    if !inside_namespace("dns::a_name_that_is_gone_empties_the_cluster_after_half_a_minute") {
        return;
    }
    let network = Network::serving(&[("node.test", "127.0.0.2")]);
    let _here = named("127.0.0.2", "here");
    let gate = start("node.test");
    assert_eq!(who_answers(&gate), "here");
    network.names(&[("other.test", "127.0.0.2")]);
    holds_for("the answer", Duration::from_secs(25), || who_answers(&gate) == "here");
    let limit = Duration::from_secs(20);
    wait_for("the cluster is empty", limit, || who_answers(&gate).is_empty().then_some(()));

    expect_closed(&mut gate.connect("ingress"));
    gate.records_where(1, |record| record.end() == "no_endpoint");
    let mut client = HttpClient::connect(gate.address("web"));
    client.send(UPGRADE);
    assert_eq!(client.response().status, 503);
    gate.records_where(1, |r| r.text("method") == "GET" && r.end() == "no_endpoint");

    network.names(&[("node.test", "127.0.0.2")]);
    let limit = Duration::from_secs(10);
    wait_for("the name is back", limit, || (who_answers(&gate) == "here").then_some(()));
}

#[test]
fn names_of_etc_hosts_are_known() {
    if !inside_namespace("dns::names_of_etc_hosts_are_known") {
        return;
    }
    let _network = Network::new("", "127.0.0.5 node.test\n");
    let _here = named("127.0.0.5", "here");
    let gate = start("node.test");
    assert_eq!(who_answers(&gate), "here");
}

#[test]
fn the_search_domain_completes_a_short_name() {
    if !inside_namespace("dns::the_search_domain_completes_a_short_name") {
        return;
    }
    let mut network = Network::new("search elsewhere.test inside.test\n", "");
    network.names(&[("node.inside.test", "127.0.0.6")]);
    network.start_server();
    let _here = named("127.0.0.6", "here");
    let gate = start("node");
    assert_eq!(who_answers(&gate), "here");
}

#[test]
fn addresses_of_both_families_are_used() {
    if !inside_namespace("dns::addresses_of_both_families_are_used") {
        return;
    }
    let _network = Network::serving(&[("node.test", "127.0.0.2"), ("node.test", "::1")]);
    let (four, six) = (named("127.0.0.2", "here"), named("[::1]", "here"));
    let gate = start("node.test");
    // The start waits for the first of them alone.
    wait_for("both are used", SHORT, || {
        assert_eq!(who_answers(&gate), "here");
        (four.served() > 0 && six.served() > 0).then_some(())
    });
}

#[test]
fn it_starts_while_dns_is_down_and_works_once_it_answers() {
    if !inside_namespace("dns::it_starts_while_dns_is_down_and_works_once_it_answers") {
        return;
    }
    // Port 53 refuses: there is no server yet.
    let mut network = Network::new("", "");
    network.names(&[("node.test", "127.0.0.2")]);
    let _here = named("127.0.0.2", "here");
    let begin = Instant::now();
    let gate = start("node.test");
    assert!(begin.elapsed() < Duration::from_secs(8), "start took {:?}", begin.elapsed());
    expect_closed(&mut gate.connect("ingress"));
    assert_eq!(gate.record().end(), "no_endpoint");
    let mut client = HttpClient::connect(gate.address("web"));
    client.send(UPGRADE);
    assert_eq!(client.response().status, 503);

    network.start_server();
    let limit = Duration::from_secs(15);
    wait_for("the name is known", limit, || (who_answers(&gate) == "here").then_some(()));
}

#[test]
fn it_starts_while_the_server_says_nothing() {
    if !inside_namespace("dns::it_starts_while_the_server_says_nothing") {
        return;
    }
    let _network = Network::new("", "");
    // Takes every question and answers none.
    let _silent = std::net::UdpSocket::bind("127.0.0.1:53").unwrap();
    let begin = Instant::now();
    let gate = start("node.test");
    assert!(begin.elapsed() < Duration::from_secs(8), "start took {:?}", begin.elapsed());
    expect_closed(&mut gate.connect("ingress"));
    assert_eq!(gate.record().end(), "no_endpoint");
}
