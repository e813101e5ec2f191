//! What a connection costs the system: calls, descriptors, memory. The bounds are what was measured
//! when they were written; none of them depends on how fast the machine is.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Instant;

use rustix::process::Signal;

use crate::support::{
    Echo, HttpClient, LONG, Ringgate, SHORT, Setup, allow_descriptors, free_port, inside_namespace,
    l4, require, stream_site, wait_for, with_local_ports,
};

const GET: &str = "GET /a HTTP/1.1\r\nHost: live.example.test\r\n\r\n";

/// The standard library looks at what it closes in a debug build.
const CHECKED_CLOSE: Option<(&str, i64)> =
    if cfg!(debug_assertions) { Some(("fcntl", 1)) } else { None };

/// Calls by name.
type Calls = BTreeMap<String, i64>;

/// A ringgate whose worker's system calls are written down.
struct Traced {
    gate: Ringgate,
    file: std::path::PathBuf,
    _dir: tempfile::TempDir,
}

impl Traced {
    #[track_caller]
    fn start(config: String) -> Traced {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("trace");
        let mut strace = require("strace");
        // -D: what is traced stays our child, and strace is the one in the background.
        // Memory and the wake-ups of the log's writer come once in a while; whether the time is a
        // call is the machine's affair.
        let others = "trace=!futex,brk,mmap,munmap,mremap,mprotect,madvise,clock_gettime";
        strace.args(["-D", "-f", "-q", "-e", others, "-o"]).arg(&file);
        let server = "workers = 1\ndriver = \"io_uring\"".to_owned();
        let gate = Setup { config, server, through: Some(strace), ..Setup::default() }.start();
        Traced { gate, file, _dir: dir }
    }

    /// Ends it; what the worker, the thread that enters the ring, has called in all. Not by a
    /// signal that any thread may have to answer.
    #[track_caller]
    fn calls(mut self) -> Calls {
        let main = self.gate.pid().to_string();
        self.gate.signal(Signal::KILL);
        self.gate.wait_exit(SHORT);
        let trace = wait_for("the whole trace", SHORT, || {
            let trace = std::fs::read_to_string(&self.file).ok()?;
            let ended = |line: &str| line.starts_with(&main) && line.contains("+++ killed");
            trace.lines().any(ended).then_some(trace)
        });
        // The last one: at the start the control plane enters a ring of its own.
        let entering = trace.lines().rfind(|line| line.contains(" io_uring_enter("));
        let worker = entering.and_then(|line| line.split_inclusive(' ').next());
        let worker = worker.expect("nobody enters a ring");
        let mut calls = Calls::new();
        // "123   close(7) = 0"; a call that another thread's interrupts is written in two parts.
        for line in trace.lines().filter_map(|line| line.strip_prefix(worker)) {
            let name = line.trim_start().split('(').next().unwrap_or_default();
            // The rest of such a call, a signal, and "???" for what the end cut off are none; nor
            // is what strace finds in a thread that is in a call as it comes: "syscall_0xff...".
            let named = name.starts_with(|first: char| first.is_ascii_lowercase());
            if named && !name.starts_with("syscall_0x") {
                *calls.entry(name.to_owned()).or_default() += 1;
            }
        }
        calls
    }
}

/// What 100 times cost: the difference between 20 and 120 times with a ringgate of its own each, so
/// that starting is not in it. `serve` returns when the worker has nothing more to do.
struct Cost {
    calls: Calls,
    /// Ticks that may have passed during the longer run.
    ticks: i64,
}

impl Cost {
    #[track_caller]
    fn of_100(config: &str, serve: impl Fn(&Ringgate, usize)) -> Cost {
        let begun = Cell::new(Instant::now());
        let [few, many] = [20, 120].map(|times| {
            begun.set(Instant::now());
            let traced = Traced::start(config.to_owned());
            serve(&traced.gate, times);
            traced.calls()
        });
        let mut calls = many;
        for (name, count) in few {
            *calls.entry(name).or_default() -= count;
        }
        calls.retain(|_, count| *count != 0);
        println!("100 times: {calls:?}");
        let ticks = begun.get().elapsed().as_millis() as i64 / 50 + 1;
        Cost { calls, ticks }
    }

    /// Compares with what is expected of each. Each of the `events` that it waits for wakes it
    /// once at most; fewer wake-ups where two come together, a tenth of them at most in the shorter
    /// run.
    #[track_caller]
    fn expect(mut self, each: &[(&str, i64)], events: i64) {
        let waits = self.calls.remove("io_uring_enter").unwrap_or_default();
        let most = events * 110 + self.ticks;
        assert!(waits <= most, "{waits} calls of io_uring_enter, {most} expected at most");
        // Once a second, of both streams of a relay of which one half has ended by then.
        let looks = self.calls.remove("ppoll").unwrap_or_default();
        assert!(looks <= 2 * (self.ticks / 20 + 1), "{looks} calls of ppoll");
        let expected: Calls =
            each.iter().map(|(name, count)| ((*name).to_owned(), count * 100)).collect();
        assert_eq!(self.calls, expected, "calls of 100 connections or requests");
    }
}

/// The cost of connections that are relayed to an endpoint, with one message each.
fn l4_cost(echo: &Echo) -> Cost {
    Cost::of_100(&l4(echo.address(), "", ""), |gate, times| {
        (0..times).for_each(|_| {
            let mut client = gate.connect("ingress");
            echoes(&mut client, 100);
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(client.read(&mut [0]).unwrap(), 0);
        });
        gate.records(times);
    })
}

#[test]
fn an_endpoint_outside_the_range_of_local_ports_costs_no_look_at_the_own_address() {
    if !inside_namespace(
        "costs::an_endpoint_outside_the_range_of_local_ports_costs_no_look_at_the_own_address",
    ) {
        return;
    }
    with_local_ports(40_000, 60_000);
    let echo = Echo::on(TcpListener::bind("127.0.0.1:30000").unwrap());
    assert_eq!(l4_cost(&echo).calls.get("getsockname"), None);
}

#[test]
fn an_l4_connection_costs_known_system_calls() {
    let echo = Echo::start();
    let mut cost = l4_cost(&echo);
    let mut each = vec![
        ("socket", 1),
        ("connect", 2),     // on loopback the second one hears that it is connected
        ("getsockname", 1), // the endpoint's port may be given to the socket itself
        ("setsockopt", 1),  // TCP_NODELAY; the keepalive only for what lasts
        ("sendto", 2),
        ("shutdown", 1), // behind the second end both are closed
        ("close", 2),
    ];
    each.extend(CHECKED_CLOSE.map(|(name, count)| (name, 2 * count)));
    // A message and an end from each side; one more where the client was slower than the first
    // look, as it may also have been in each of the 20 that are subtracted.
    let reads = cost.calls.remove("recvfrom").unwrap_or_default();
    assert!((380..=520).contains(&reads), "{reads} calls of recvfrom for 100 connections");
    // The accept, and what it reads.
    cost.expect(&each, 5);
}

#[test]
fn an_http_connection_costs_known_system_calls() {
    let cost = Cost::of_100(&stream_site(free_port().address(), ""), |gate, times| {
        (0..times).for_each(|_| {
            let mut client = HttpClient::connect(gate.address("web"));
            redirected(&mut client);
            client.stream.shutdown(Shutdown::Write).unwrap();
            client.expect_end();
        });
    });
    let mut each = vec![("recvfrom", 2), ("sendto", 1), ("close", 1)];
    each.extend(CHECKED_CLOSE);
    cost.expect(&each, 3);
}

#[test]
fn a_lone_request_costs_one_read_and_one_write() {
    let cost = Cost::of_100(&stream_site(free_port().address(), ""), |gate, times| {
        let before = gate.descriptors();
        let mut client = HttpClient::connect(gate.address("web"));
        (0..times).for_each(|_| redirected(&mut client));
        drop(client);
        wait_for("it is closed", SHORT, || (gate.descriptors() == before).then_some(()));
    });
    cost.expect(&[("recvfrom", 1), ("sendto", 1)], 1);
}

/// Bytes of a resting relay: 2,080 in a debug build over io_uring. About 70 of them are what the
/// admin endpoint lists of it.
const RELAY: u64 = 2128;
/// Bytes of an HTTP connection between two requests: 1,122.
const KEPT_ALIVE: u64 = 1152;

#[test]
fn a_resting_relay_is_two_descriptors_and_little_memory() {
    let echo = Echo::start();
    rests_at(&l4(echo.address(), "", ""), 2, RELAY, |gate| {
        let mut client = gate.connect("ingress");
        echoes(&mut client, 1);
        client
    });
}

#[test]
fn a_resting_keep_alive_connection_is_one_descriptor_and_little_memory() {
    let site = stream_site(free_port().address(), "");
    // Batches on their way to a log are not what a connection holds.
    let config = site.replacen("protocol", "access_log = { path = \"off\" }\nprotocol", 1);
    rests_at(&config, 1, KEPT_ALIVE, |gate| {
        let mut client = HttpClient::connect(gate.address("web"));
        redirected(&mut client);
        client.stream
    });
}

/// Opens many connections, looks at what they take while nothing happens, and closes them.
#[track_caller]
fn rests_at(config: &str, descriptors: usize, bytes: u64, open: impl Fn(&Ringgate) -> TcpStream) {
    const CONNECTIONS: usize = 1500;
    // Two tests of this kind may run at one time, with both ends of a relay in this process.
    allow_descriptors(6000);
    let server = "workers = 1".to_owned();
    let gate = Setup { config: config.to_owned(), server, ..Setup::default() }.start();
    let before = gate.descriptors();
    let all_closed = || (gate.descriptors() == before).then_some(());
    // What is made for the first one is not what each costs.
    drop(open(&gate));
    wait_for("the first one is closed", SHORT, all_closed);
    let memory = gate.anonymous_kib();
    let clients: Vec<TcpStream> = (0..CONNECTIONS).map(|_| open(&gate)).collect();
    assert_eq!(gate.descriptors() - before, descriptors * CONNECTIONS);
    let each = (gate.anonymous_kib() - memory) * 1024 / CONNECTIONS as u64;
    println!("{each} bytes and {descriptors} descriptors each");
    assert!(each <= bytes, "{each} bytes for each");
    drop(clients);
    wait_for("all are closed", LONG, all_closed);
}

#[track_caller]
fn echoes(client: &mut TcpStream, bytes: usize) {
    client.write_all(&vec![b'x'; bytes]).unwrap();
    client.read_exact(&mut vec![0; bytes]).unwrap();
}

#[track_caller]
fn redirected(client: &mut HttpClient) {
    client.send(GET);
    assert_eq!(client.response().status, 301);
}
