//! Name servers that fail at the start and later: silent, refusing, unreachable. dns.rs has a port
//! that is closed, and names that are gone.

use std::cell::Cell;
use std::io::Read;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use super::DRIVERS;
use crate::support::{
    NameServer, Named, Network, Reply, Ringgate, SHORT, Setup, holds_for, inside_namespace, l4,
    require, run, wait_for,
};

const PORT: u16 = 7000;
const OLD: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const NEW: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
/// Reached only once an interface has it.
const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 53);
const REFUSED: Reply = Reply::Code(5);
/// The start waits five seconds for DNS; the rest is for a busy machine.
const START: Duration = Duration::from_secs(8);

fn named(ip: Ipv4Addr, name: &'static str) -> Named {
    Named::on(TcpListener::bind((ip, PORT)).unwrap(), name)
}

fn start(driver: &str) -> Ringgate {
    let config = l4(([127, 0, 0, 1], 1).into(), "", "discovery = \"strict_dns\"");
    let config = config.replace("127.0.0.1:1\"", &format!("node.test:{PORT}\""));
    let server = format!("workers = 1\ndriver = \"{driver}\"");
    Setup { config, server, ..Setup::default() }.start()
}

/// Whose name a client gets; empty where the connection is closed.
fn who_answers(gate: &Ringgate) -> String {
    let mut name = String::new();
    if let Ok(mut client) = TcpStream::connect(gate.address("ingress")) {
        client.set_read_timeout(Some(SHORT)).unwrap();
        let _ = client.read_to_string(&mut name);
    }
    name
}

fn is_served_by(gate: &Ringgate, name: &str) {
    wait_for(name, SHORT, || (who_answers(gate) == name).then_some(()));
}

fn server_address(action: &str) {
    let mut ip = require("ip");
    let output = run(ip.args(["address", action, &format!("{SERVER}/32"), "dev", "lo"]));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_name_server_that_fails_at_the_start_and_later_costs_no_endpoint() {
    if !inside_namespace(
        "faults::names::a_name_server_that_fails_at_the_start_and_later_costs_no_endpoint",
    ) {
        return;
    }
    let (_old, _new) = (named(OLD, "old"), named(NEW, "new"));
    let _network =
        Network::with_resolv_conf(&format!("nameserver {SERVER}\noptions timeout:1\n"), "");
    server_address("add");
    let (replies, next) = channel();
    let current = Cell::new(Reply::Silence);
    let _server = NameServer::on(SERVER, move |_, _| {
        next.try_iter().for_each(|reply| current.set(reply));
        current.get()
    });
    let set = |reply| replies.send(reply).unwrap();
    for driver in DRIVERS {
        for failure in [Some(Reply::Silence), Some(REFUSED), None] {
            eprintln!("{failure:?} over {driver}");
            let fail = || match failure {
                Some(failure) => set(failure),
                None => server_address("del"),
            };
            let recover = |address| {
                set(Reply::Alias(address));
                if failure.is_none() {
                    server_address("add");
                }
            };
            // 1. It starts all the same, and serves as soon as there is an answer.
            fail();
            let begin = Instant::now();
            let gate = start(driver);
            assert!(begin.elapsed() < START, "after {:?}", begin.elapsed());
            assert_eq!(who_answers(&gate), "");
            gate.records_where(1, |record| record.end() == "no_endpoint");
            recover(OLD);
            is_served_by(&gate, "old");
            gate.line_with("the cluster has endpoints");

            // 2. The last good answer stays in use, and the next one is found.
            fail();
            gate.line_with("cannot look up names");
            holds_for("the last answer", Duration::from_secs(3), || who_answers(&gate) == "old");
            recover(NEW);
            is_served_by(&gate, "new");
        }
    }
}
