//! Waiting on conditions. This is the only place of the tests that lets time pass.

use std::thread::park_timeout;
use std::time::{Duration, Instant};

/// For what takes milliseconds on an idle machine; far above it, so that a busy one passes too.
pub(crate) const SHORT: Duration = Duration::from_secs(10);
/// For bulk transfers and chains of several processes.
pub(crate) const LONG: Duration = Duration::from_secs(60);

const STEP: Duration = Duration::from_millis(2);

/// Asks `condition` again and again until it gives a value; fails the test when `limit` has passed.
#[track_caller]
pub(crate) fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Option<T>,
) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < limit, "{what}: not within {limit:?}");
        park_timeout(STEP);
    }
}

/// Fails the test when `condition` stops holding before `time` has passed.
#[track_caller]
pub(crate) fn holds_for(what: &str, time: Duration, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while start.elapsed() < time {
        assert!(condition(), "{what}: only for {:?} of {time:?}", start.elapsed());
        park_timeout(STEP);
    }
}

/// Gives the other process time to read what was sent. No condition tells that it has; when it has
/// not, two segments are read as one, which must give the same result.
pub(super) fn let_it_be_read() {
    park_timeout(Duration::from_millis(5));
}

/// Waits until a TCP socket of this network namespace listens on `port`, without connecting to it.
#[track_caller]
pub(crate) fn wait_listening(port: u16) {
    // proc(5): state 0A is LISTEN.
    let listens = || has_socket(&["tcp", "tcp6"], port, |state| state == "0A").then_some(());
    wait_for(&format!("port {port} listens"), SHORT, listens);
}

/// Waits until a UDP socket of this network namespace has `port`, without sending to it.
#[track_caller]
pub(crate) fn wait_bound_udp(port: u16) {
    let bound = || has_socket(&["udp", "udp6"], port, |_| true).then_some(());
    wait_for(&format!("port {port} takes datagrams"), SHORT, bound);
}

fn has_socket(tables: &[&str], port: u16, is_state: impl Fn(&str) -> bool) -> bool {
    tables.iter().any(|table| {
        let table = std::fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default();
        table.lines().skip(1).any(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().take(4).collect();
            // proc(5): the second field is the local address as hex IP:PORT, the fourth the state.
            fields.len() == 4 && fields[1].ends_with(&format!(":{port:04X}")) && is_state(fields[3])
        })
    })
}
