//! Names that have got the address of one of ringgate's own listeners: where it is certain that a
//! connection would come back without end, the address is left out of the cluster.

use std::io::Read;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use rustix::process::Signal;

use crate::support::{
    HttpClient, Named, Network, Ringgate, SHORT, Setup, UPGRADE, UdpEcho, expect_closed,
    inside_namespace, require, run, wait_for,
};

const PORT: u16 = 7000;
/// The listener of most tests, and the server that the name is meant for.
const OWN: &str = "127.0.0.3";
const SERVER: &str = "127.0.0.2";
const LEFT_OUT: &str = "The endpoint is not used";

/// A server that says `here`.
fn server() -> Named {
    Named::on(TcpListener::bind((SERVER, PORT)).unwrap(), "here")
}

/// A listener `edge`, at this address, of a cluster with these endpoints.
fn config(protocol: &str, listen: &str, endpoints: &str) -> String {
    format!(
        "[[listener]]\nname = \"edge\"\nlisten = \"{listen}\"\nprotocol = \"{protocol}\"\n\
         cluster = \"node\"\n[cluster.node]\ndiscovery = \"strict_dns\"\n\
         endpoints = [{endpoints}]\n"
    )
}

/// Starts with few descriptors: a loop would use all of them.
fn start(config: String) -> Ringgate {
    let mut few = require("prlimit");
    few.arg("--nofile=512:512");
    let server = String::from("workers = 1");
    Setup { config, server, through: Some(few), ..Setup::default() }.start()
}

/// A listener `edge` of the name `node.test`, of which everything has the same port.
fn start_edge() -> Ringgate {
    start(config("tcp", &format!("{OWN}:{PORT}"), &format!("\"node.test:{PORT}\"")))
}

/// Each client is served by the server, and there is one connection for each.
fn every_client_is_served_once(mut gate: Ringgate, listener: &str) {
    for _ in 0..10 {
        let mut name = String::new();
        gate.connect(listener).read_to_string(&mut name).unwrap();
        assert_eq!(name, "here");
    }
    gate.signal(Signal::TERM);
    assert_eq!(gate.wait_exit(SHORT).code(), Some(0));
    let lines = gate.lines();
    for record in gate.records(10) {
        assert_eq!(record.number("attempts"), 1, "{record:?} {lines:#?}");
    }
}

#[test]
fn an_address_that_leads_back_is_left_out_and_the_other_serves() {
    if !inside_namespace("loops::an_address_that_leads_back_is_left_out_and_the_other_serves") {
        return;
    }
    let _network = Network::serving(&[("node.test", SERVER), ("node.test", OWN)]);
    let _server = server();
    let gate = start_edge();
    let line = gate.line_with(LEFT_OUT);
    assert!(line.contains("WARN") && line.contains(&format!("endpoint={OWN}:{PORT}")), "{line}");
    assert!(line.contains("cluster=node") && line.contains("listeners=\"edge\""), "{line}");
    assert!(line.contains("Change the address of the name"), "{line}");
    let line = gate.line_with("the cluster has endpoints");
    assert!(line.contains(&format!("count=1 endpoints=\"{SERVER}:{PORT}\"")), "{line}");
    every_client_is_served_once(gate, "edge");
}

#[test]
fn an_address_that_a_later_answer_brings_is_left_out_too() {
    if !inside_namespace("loops::an_address_that_a_later_answer_brings_is_left_out_too") {
        return;
    }
    let network = Network::serving(&[("node.test", SERVER)]);
    let _server = server();
    let gate = start_edge();
    gate.line_with("the cluster has endpoints");
    network.names(&[("node.test", SERVER), ("node.test", OWN)]);
    gate.line_with(LEFT_OUT);
    every_client_is_served_once(gate, "edge");
}

#[test]
fn a_name_that_means_only_the_listener_leaves_the_cluster_empty() {
    if !inside_namespace("loops::a_name_that_means_only_the_listener_leaves_the_cluster_empty") {
        return;
    }
    let network = Network::serving(&[("node.test", OWN)]);
    let _server = server();
    let web = "[[listener]]\nname = \"web\"\nlisten = \"127.0.0.1:0\"\nprotocol = \"http\"\n\
               [[listener.host]]\n[[listener.host.route]]\npath = \"/stream\"\n\
               upgrade = \"websocket\"\ncluster = \"node\"\n";
    let edge = config("tcp", &format!("{OWN}:{PORT}"), &format!("\"node.test:{PORT}\""));
    let gate = start(web.to_owned() + &edge);
    gate.line_with(LEFT_OUT);
    expect_closed(&mut gate.connect("edge"));
    assert_eq!(gate.record().end(), "no_endpoint");
    let mut client = HttpClient::connect(gate.address("web"));
    client.send(UPGRADE);
    assert_eq!(client.response().status, 503);
    assert!(gate.records(2).iter().all(|record| record.end() == "no_endpoint"));

    network.names(&[("node.test", OWN), ("node.test", SERVER)]);
    wait_for("the server is found", SHORT, || {
        let mut name = String::new();
        gate.connect("edge").read_to_string(&mut name).is_ok_and(|_| name == "here").then_some(())
    });
    let told = gate.lines().iter().filter(|line| line.contains(LEFT_OUT)).count();
    assert_eq!(told, 1, "an address that stays is told once");
}

#[test]
fn a_listener_on_every_address_is_one_on_each_of_loopback() {
    if !inside_namespace("loops::a_listener_on_every_address_is_one_on_each_of_loopback") {
        return;
    }
    let _network = Network::new("", "127.0.0.9 node.test\n");
    let other = PORT + 1;
    let _server = Named::on(TcpListener::bind(("127.0.0.9", other)).unwrap(), "here");
    let endpoints = format!("\"node.test:{PORT}\", \"node.test:{other}\"");
    let gate = start(config("tcp", &format!("0.0.0.0:{PORT}"), &endpoints));
    let line = gate.line_with(LEFT_OUT);
    assert!(line.contains(&format!("endpoint=127.0.0.9:{PORT}")), "{line}");
    every_client_is_served_once(gate, "edge");
}

#[test]
fn a_ring_of_two_listeners_is_left_out() {
    if !inside_namespace("loops::a_ring_of_two_listeners_is_left_out") {
        return;
    }
    let _network = Network::serving(&[("node.test", SERVER), ("node.test", "127.0.0.4")]);
    let _server = server();
    let front = format!(
        "[[listener]]\nname = \"front\"\nlisten = \"127.0.0.4:{PORT}\"\nprotocol = \"tcp\"\n\
         cluster = \"edge\"\n[cluster.edge]\nendpoints = [\"{OWN}:{PORT}\"]\n"
    );
    let edge = config("tcp", &format!("{OWN}:{PORT}"), &format!("\"node.test:{PORT}\""));
    let gate = start(edge + &front);
    let line = gate.line_with(LEFT_OUT);
    assert!(line.contains(&format!("endpoint=127.0.0.4:{PORT}")), "{line}");
    assert!(line.contains("listeners=\"front edge\""), "{line}");
    every_client_is_served_once(gate, "edge");
}

#[test]
fn datagrams_do_not_come_back_either() {
    if !inside_namespace("loops::datagrams_do_not_come_back_either") {
        return;
    }
    let _network = Network::serving(&[("node.test", SERVER), ("node.test", OWN)]);
    let _server = UdpEcho::on(UdpSocket::bind((SERVER, PORT)).unwrap(), "");
    let config = config("udp", &format!("{OWN}:{PORT}"), &format!("\"node.test:{PORT}\""));
    let mut gate = start(config.replace("\"udp\"\n", "\"udp\"\nmax_sessions = 64\n"));
    gate.line_with(LEFT_OUT);
    // All at once, because two that follow each other could have the same port.
    let clients = [0; 10].map(|_| UdpSocket::bind("127.0.0.1:0").unwrap());
    for client in &clients {
        client.set_read_timeout(Some(SHORT)).unwrap();
        client.send_to(b"x", gate.address("edge")).unwrap();
        assert_eq!(client.recv(&mut [0; 10]).unwrap(), 1);
    }
    gate.signal(Signal::TERM);
    assert_eq!(gate.wait_exit(SHORT).code(), Some(0));
    for record in gate.records(10) {
        assert_eq!(record.text("endpoint"), format!("{SERVER}:{PORT}"));
    }
}

#[test]
fn what_is_only_likely_stays_in_use_with_a_warning() {
    if !inside_namespace("loops::what_is_only_likely_stays_in_use_with_a_warning") {
        return;
    }
    let add = ["addr", "add", "192.0.2.1/32", "dev", "lo"];
    assert!(run(require("ip").args(add)).status.success());
    let _network = Network::new("", "192.0.2.1 node.test\n");
    let listen = SocketAddr::from(([0, 0, 0, 0], PORT)).to_string();
    let gate = start(config("tcp", &listen, &format!("\"node.test:{PORT}\"")));
    let endpoint = format!("192.0.2.1:{PORT}");
    let line = gate.line_with("probably leads back");
    assert!(line.contains("WARN") && line.contains(&format!("endpoint={endpoint}")), "{line}");
    gate.line_with(&format!("count=1 endpoints=\"{endpoint}\""));
    let lines = gate.lines();
    assert!(!lines.iter().any(|line| line.contains(LEFT_OUT)), "{lines:#?}");
}
