//! Waiting on conditions. This is the only place of the tests that lets time pass.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::thread::park_timeout;
use std::time::{Duration, Instant};

use super::reset;

/// For what takes milliseconds on an idle machine; far above it, so that a busy one passes too.
pub(crate) const SHORT: Duration = Duration::from_secs(20);
/// Shorter than the limits that hold where a test configures none: what is over by then was ended
/// by the limit that it configures.
pub(crate) const SOON: Duration = Duration::from_secs(9);
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
        // Asked once more when the time is over: on a busy machine that may be the first time after
        // a long pause of this thread.
        let is_over = start.elapsed() >= limit;
        if let Some(value) = condition() {
            return value;
        }
        assert!(!is_over, "{what}: not within {limit:?}");
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
    wait_for(&format!("port {port} listens"), SHORT, || {
        // Listening sockets (state 0A) come first, before what may be many thousands of others.
        let listens = |table| rows(table).take_while(|(_, state)| state == "0A").any(is_at(port));
        (listens("tcp") || listens("tcp6")).then_some(())
    });
}

/// Waits until a UDP socket of this network namespace has `port`, without sending to it.
#[track_caller]
pub(crate) fn wait_bound_udp(port: u16) {
    wait_for(&format!("port {port} takes datagrams"), SHORT, || {
        ["udp", "udp6"].iter().any(|table| rows(table).any(is_at(port))).then_some(())
    });
}

/// Returns true if the kernel of the peer has acknowledged everything that was sent, or if the
/// connection is over.
#[track_caller]
pub(crate) fn is_acknowledged(stream: &TcpStream) -> bool {
    let port = |address: SocketAddr| format!(":{:04X}", address.port());
    let ends = [stream.local_addr().unwrap(), stream.peer_addr().unwrap()].map(port);
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let mut lines = table.lines().map(|line| line.split_ascii_whitespace().skip(1));
    // proc(5): the local address, the peer's, the state, and the lengths of both queues.
    let queues = lines.find_map(|mut line| {
        let addresses = [line.next()?, line.next()?];
        let is_own = addresses.iter().zip(&ends).all(|(address, end)| address.ends_with(end));
        line.nth(1).filter(|_| is_own).map(str::to_owned)
    });
    queues.is_none_or(|queues| queues.starts_with("00000000:"))
}

/// Closes `stream`, in an orderly way or by a reset, and waits until the kernel of the peer knows.
/// Segments of one connection may wait on another CPU than those that are sent after them.
#[track_caller]
pub(crate) fn close_and_arrive(stream: TcpStream, is_reset: bool) {
    let ends = [stream.peer_addr().unwrap(), stream.local_addr().unwrap()];
    if is_reset {
        reset(stream)
    } else {
        drop(stream)
    }
    let [local, remote] = ends.map(|address| format!(":{:04X}", address.port()));
    wait_for("the peer knows that the connection is closed", SHORT, || {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let mut lines = table.lines().map(|line| line.split_ascii_whitespace().skip(1));
        // proc(5): the local address, the peer's, and the state, which is 01 (ESTABLISHED) before.
        let is_open = lines.any(|mut line| {
            let [at, to, state] = [(); 3].map(|()| line.next().unwrap_or_default());
            at.ends_with(&local) && to.ends_with(&remote) && state == "01"
        });
        (!is_open).then_some(())
    });
}

/// The sockets of a table of the network namespace: the local address as hex IP:PORT, and the state
/// (proc(5)). None where there is no such protocol.
fn rows(table: &str) -> impl Iterator<Item = (String, String)> {
    let table = File::open(format!("/proc/net/{table}")).ok();
    let lines = table.into_iter().flat_map(|table| BufReader::new(table).lines().skip(1));
    lines.map_while(Result::ok).map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().take(4).collect();
        let field = |at: usize| fields.get(at).copied().unwrap_or_default().to_owned();
        (field(1), field(3))
    })
}

fn is_at(port: u16) -> impl FnMut((String, String)) -> bool {
    move |(local, _)| local.ends_with(&format!(":{port:04X}"))
}
