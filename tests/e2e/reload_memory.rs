//! Memory that reloads leave behind.

use std::fmt::Write;
use std::net::SocketAddr;

use crate::reload::start;
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
