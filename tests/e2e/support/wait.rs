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
    wait_for(&format!("port {port} listens"), SHORT, || listens(port).then_some(()));
}

fn listens(port: u16) -> bool {
    ["/proc/net/tcp", "/proc/net/tcp6"].iter().any(|table| {
        let table = std::fs::read_to_string(table).unwrap_or_default();
        table.lines().skip(1).any(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().take(4).collect();
            // proc(5): local address as hex IP:PORT, state 0A is LISTEN.
            fields.get(3) == Some(&"0A") && fields[1].ends_with(&format!(":{port:04X}"))
        })
    })
}
