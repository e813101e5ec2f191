//! Loops through addresses of names that a reload closes or opens: it checks what is known already
//! by the new listeners and clusters.

use std::io::Read;
use std::net::{TcpListener, TcpStream};

use rustix::process::Signal;

use crate::support::{
    Named, Network, Ringgate, SHORT, Setup, inside_namespace, require, wait_for, with_deadlines,
};

const PORT: u16 = 7000;
/// The listener that closes the loop, and the server that the name is meant for.
const OWN: &str = "127.0.0.3";
const SERVER: &str = "127.0.0.2";
/// The address of the other listener.
const ASIDE: &str = "127.0.0.4";
const LEFT_OUT: &str = "The endpoint is not used";

fn listener(ip: &str, cluster: &str) -> String {
    format!(
        "[[listener]]\nname = \"edge\"\nlisten = \"{ip}:{PORT}\"\nprotocol = \"tcp\"\n\
         cluster = \"{cluster}\"\n"
    )
}

/// The cluster `node`, whose name has the addresses of the server and of a listener.
fn node() -> String {
    format!("[cluster.node]\ndiscovery = \"strict_dns\"\nendpoints = [\"node.test:{PORT}\"]\n")
}

fn start(config: String) -> Ringgate {
    // A loop would use all descriptors.
    let mut few = require("prlimit");
    few.arg("--nofile=512:512");
    let server = String::from("workers = 1");
    Setup { config, server, through: Some(few), ..Setup::default() }.start()
}

fn network() -> (Network, Named) {
    let network = Network::serving(&[("node.test", SERVER), ("node.test", OWN)]);
    (network, Named::on(TcpListener::bind((SERVER, PORT)).unwrap(), "here"))
}

/// Ten clients of a listener at this address reach the server, each by one connection.
#[track_caller]
fn serves(mut gate: Ringgate, ip: &str) {
    for _ in 0..10 {
        let mut name = String::new();
        let client = TcpStream::connect((ip, PORT)).unwrap();
        with_deadlines(client).read_to_string(&mut name).unwrap();
        assert_eq!(name, "here");
    }
    gate.signal(Signal::TERM);
    assert_eq!(gate.wait_exit(SHORT).code(), Some(0));
    for record in gate.records(10) {
        assert_eq!(record.text("endpoint"), format!("{SERVER}:{PORT}"));
    }
}

#[test]
fn a_cluster_that_comes_with_its_loop() {
    if !inside_namespace("loops_reloaded::a_cluster_that_comes_with_its_loop") {
        return;
    }
    let (_network, _server) = network();
    let gate = start(listener(OWN, "plain") + "[cluster.plain]\nendpoints = [\"127.0.0.1:1\"]\n");
    gate.reload(&(listener(OWN, "node") + &node()));
    let line = gate.line_with(LEFT_OUT);
    assert!(line.contains(&format!("endpoint={OWN}:{PORT} listeners=\"edge\"")), "{line}");
    serves(gate, OWN);
}

#[test]
fn a_listener_that_moves_to_an_address_of_its_cluster() {
    if !inside_namespace("loops_reloaded::a_listener_that_moves_to_an_address_of_its_cluster") {
        return;
    }
    let (_network, _server) = network();
    let gate = start(listener(ASIDE, "node") + &node());
    gate.line_with("count=2");
    gate.reload(&(listener(OWN, "node") + &node()));
    gate.line_with(LEFT_OUT);
    gate.line_with(&format!("count=1 endpoints=\"{SERVER}:{PORT}\""));
    serves(gate, OWN);
}

#[test]
fn an_address_is_used_again_when_no_listener_has_it_any_more() {
    if !inside_namespace(
        "loops_reloaded::an_address_is_used_again_when_no_listener_has_it_any_more",
    ) {
        return;
    }
    let (_network, _server) = network();
    let gate = start(listener(OWN, "node") + &node());
    gate.line_with(LEFT_OUT);
    gate.reload(&(listener(ASIDE, "node") + &node()));
    gate.line_with(&format!("count=2 endpoints=\"{SERVER}:{PORT} {OWN}:{PORT}\""));
    let free = wait_for("the address is free", SHORT, || TcpListener::bind((OWN, PORT)).ok());
    let other = Named::on(free, "here");
    for _ in 0..4 {
        let mut name = String::new();
        let client = TcpStream::connect((ASIDE, PORT)).unwrap();
        with_deadlines(client).read_to_string(&mut name).unwrap();
        assert_eq!(name, "here");
    }
    assert_eq!(other.served(), 2, "of 4 at one of two");
}
