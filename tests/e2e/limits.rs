//! Machines that give less: no io_uring, no root, little locked memory, few descriptors.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, prlimit};

use crate::support::{
    Echo, HttpClient, Ringgate, SHORT, Setup, as_ordinary_user, bytes, free_port, holds_for,
    inside_namespace, l4, require, run, stream_site, wait_for,
};

fn start(echo: &Echo, server: &str) -> Ringgate {
    let (config, server) = (l4(echo.address(), "", ""), server.to_owned());
    Setup { config, server, ..Setup::default() }.start()
}

/// Bytes go through and come back.
#[track_caller]
fn echoes(client: &mut TcpStream, seed: u64, length: usize) {
    let sent = bytes(seed, length);
    let mut received = vec![0; length];
    client.write_all(&sent).unwrap();
    client.read_exact(&mut received).unwrap();
    assert!(received == sent, "the echo is not what was sent");
}

#[test]
fn the_driver_is_what_the_configuration_says() {
    let echo = Echo::start();
    for driver in ["io_uring", "epoll"] {
        let gate = start(&echo, &format!("driver = \"{driver}\""));
        gate.line_with(&format!("ready workers=2 driver={driver}"));
        echoes(&mut gate.connect("ingress"), 1, 50_000);
    }
}

#[test]
fn workers_are_as_many_as_the_configuration_says() {
    let echo = Echo::start();
    for (workers, count) in [("1", "1"), ("3", "3"), ("[0]", "1")] {
        let gate = start(&echo, &format!("workers = {workers}"));
        gate.line_with(&format!("ready workers={count} "));
        echoes(&mut gate.connect("ingress"), 1, 50_000);
    }
}

#[test]
fn without_io_uring_it_serves_over_epoll() {
    let echo = Echo::start();
    let env = vec![("MONOIO_FORCE_LEGACY_DRIVER", "1".to_owned())];
    let config = l4(echo.address(), "", "");
    let gate = Setup { config, env, ..Setup::default() }.start();
    gate.line_with("ready workers=2 driver=epoll");
    echoes(&mut gate.connect("ingress"), 1, 300_000);
}

#[test]
fn an_ordinary_user_with_64_kib_of_locked_memory_is_enough() {
    let echo = Echo::start();
    let config = l4(echo.address(), "", "");
    let through = Some(as_ordinary_user("ulimit -l 64"));
    let gate = Setup { config, through, ..Setup::default() }.start();
    let status = std::fs::read_to_string(format!("/proc/{}/status", gate.pid())).unwrap();
    assert!(status.contains("CapEff:\t0000000000000000"), "{status}");

    // 600 relays with a pipe each way want more than the 16,384 pages that an ordinary user's pipes
    // may have (pipe(7), pipe-user-pages-soft): past that the kernel gives smaller ones.
    let mut clients: Vec<TcpStream> = (0..600).map(|_| gate.connect("ingress")).collect();
    for (index, client) in clients.iter_mut().enumerate() {
        echoes(client, index as u64, 5000);
    }
    for client in clients.iter_mut().step_by(50) {
        echoes(client, 1, 100_000);
    }
    drop(clients);
    gate.records(600);
}

#[test]
fn running_out_of_descriptors_passes() {
    let echo = Echo::start();
    let gate = start(&echo, "");
    echoes(&mut gate.connect("ingress"), 1, 100_000);
    gate.record();

    let few = gate.descriptors() as u64 + 12;
    let before = getrlimit(Resource::Nofile);
    let limit = Rlimit { current: Some(few), maximum: before.maximum };
    prlimit(Some(gate.pid()), Resource::Nofile, limit).unwrap();
    let mut clients: Vec<TcpStream> = (0..60).map(|_| gate.connect("ingress")).collect();
    let served = clients.iter_mut().filter_map(|client| {
        client.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        client.write_all(b"x").and_then(|()| client.read_exact(&mut [0])).ok()
    });
    assert!(served.count() < 60, "the limit does not bind");

    drop(clients);
    // The limit still stands. Those who waited and left are served first; then all is as before.
    let serves = || {
        let mut client = gate.connect("ingress");
        client.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        client.write_all(b"x").and_then(|()| client.read_exact(&mut [0])).is_ok()
    };
    wait_for("it serves ten in a row", SHORT, || (0..10).all(|_| serves()).then_some(()));
    echoes(&mut gate.connect("ingress"), 2, 100_000);
}

/// What became of a connection.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Served,
    Reset,
    Waits,
}

fn fate(client: &mut TcpStream) -> Fate {
    match client.read(&mut [0]) {
        Ok(1..) => Fate::Served,
        Ok(0) => panic!("an orderly end"),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Fate::Waits,
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Fate::Reset,
        Err(error) => panic!("{error}"),
    }
}

/// The number in a field of a diagnostic about descriptors.
fn number_in(line: &str, field: &str) -> Option<usize> {
    let (_, fields) = line.split_once("no descriptors are left")?;
    let value = fields.split(' ').find_map(|part| part.strip_prefix(field)?.strip_prefix('='))?;
    value.parse().ok()
}

#[test]
fn without_descriptors_it_says_how_many_wait_and_how_many_were_reset() {
    let echo = Echo::start();
    for driver in ["io_uring", "epoll"] {
        let gate = start(&echo, &format!("driver = \"{driver}\""));
        // The share that connections have was made for more.
        let few = Some(gate.descriptors() as u64 + 25);
        let limit = Rlimit { current: few, maximum: getrlimit(Resource::Nofile).maximum };
        prlimit(Some(gate.pid()), Resource::Nofile, limit).unwrap();
        let mut clients: Vec<TcpStream> = (0..60).map(|_| gate.connect("ingress")).collect();
        let mut fates = Vec::new();
        for client in &mut clients {
            // The kernel tells of a reset once: to the write, or to the read.
            let is_reset = client.write_all(b"x").is_err();
            fates.push(if is_reset { Fate::Reset } else { Fate::Waits });
            client.set_nonblocking(true).unwrap();
        }
        let mut said = (0, 0);
        wait_for("what it says is what became of them", SHORT, || {
            for (client, fate) in clients.iter_mut().zip(&mut fates) {
                if *fate == Fate::Waits {
                    *fate = self::fate(client);
                }
            }
            let count = |wanted| fates.iter().filter(|fate| **fate == wanted).count();
            let lines = gate.lines();
            let waits = |line: &String| number_in(line, "waiting");
            let waiting = lines.iter().rev().find_map(waits)?;
            let resets = |line: &String| number_in(line, "reset");
            said = (waiting, lines.iter().filter_map(resets).sum());
            (said == (count(Fate::Waits), count(Fate::Reset))).then_some(())
        });
        assert!(said.0 > 0 || said.1 > 0, "the limit does not bind");
        assert!(fates.contains(&Fate::Served), "{fates:?}");
        let records = gate.records_where(said.1, |record| record.end() == "local");
        assert_eq!(records.len(), said.1);
    }
}

#[test]
fn many_ports_of_one_listener_say_once_a_second_that_there_are_no_descriptors() {
    if !inside_namespace(
        "limits::many_ports_of_one_listener_say_once_a_second_that_there_are_no_descriptors",
    ) {
        return;
    }
    let echo = Echo::start();
    for driver in ["io_uring", "epoll"] {
        let ports = 20_000..20_040;
        let range = format!("127.0.0.1:{}-{}", ports.start, ports.end - 1);
        let config = l4(echo.address(), "", "").replace("127.0.0.1:0", &range);
        let server = format!("driver = \"{driver}\"");
        let gate = Setup { config, server, ..Setup::default() }.start();
        let few = Some(gate.descriptors() as u64);
        let limit = Rlimit { current: few, maximum: getrlimit(Resource::Nofile).maximum };
        let begin = Instant::now();
        prlimit(Some(gate.pid()), Resource::Nofile, limit).unwrap();
        // More than the accepts that are in flight already take.
        let clients = ports.flat_map(|port| (0..20).map(move |_| port));
        // One that is accepted may be reset before its connect returns: there is no descriptor for
        // its upstream.
        let clients = clients.filter_map(|port| TcpStream::connect(("127.0.0.1", port)).ok());
        let clients: Vec<TcpStream> = clients.collect();
        let said = || {
            let lines = gate.lines();
            lines.iter().filter(|line| line.contains("no descriptors are left")).count()
        };
        wait_for("it says so three times", SHORT, || (said() >= 3).then_some(()));
        // One at once, and one each second.
        let (said, seconds) = (said(), begin.elapsed().as_secs() as usize);
        assert!(said <= seconds + 2, "{said} in {seconds} s over {driver}");
        drop(clients);
    }
}

#[test]
fn waiting_without_descriptors_costs_no_processor_time() {
    let gate = Ringgate::start(&stream_site(free_port().address(), ""));
    let limit = Rlimit {
        current: Some(gate.descriptors() as u64),
        maximum: getrlimit(Resource::Nofile).maximum,
    };
    prlimit(Some(gate.pid()), Resource::Nofile, limit).unwrap();
    let waiting: Vec<TcpStream> = (0..20).map(|_| gate.connect("web")).collect();
    let before = processor_ticks(&gate);
    // 100 ticks are one processor busy all the time (proc(5), CLK_TCK).
    holds_for("it does next to nothing", Duration::from_secs(1), || {
        processor_ticks(&gate) < before + 50
    });
    drop(waiting);

    let limit = Rlimit { current: Some(1000), maximum: getrlimit(Resource::Nofile).maximum };
    prlimit(Some(gate.pid()), Resource::Nofile, limit).unwrap();
    let mut client = HttpClient::connect(gate.address("web"));
    client.send("GET /a HTTP/1.1\r\nHost: live.example.test\r\n\r\n");
    assert_eq!(client.response().status, 301);
}

/// User and system time of the process so far.
fn processor_ticks(gate: &Ringgate) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", gate.pid())).unwrap();
    // proc(5): fields 14 and 15; the second, the name, ends with the last parenthesis.
    let behind_name = stat.rsplit_once(") ").unwrap().1;
    let fields = behind_name.split(' ').skip(11).take(2);
    fields.map(|field| field.parse::<u64>().unwrap()).sum()
}

#[test]
fn an_upstream_that_lasts_is_kept_alive() {
    let echo = Echo::start();
    let listener = "idle_timeout = \"1s\"\nkeepalive = \"20s\"";
    let gate = Ringgate::start(&l4(echo.address(), listener, ""));
    let mut client = gate.connect("ingress");
    let port = echo.address().port().to_string();
    // The keepalive is set when the limit is first looked at.
    wait_for("its socket has a keepalive", SHORT, || {
        echoes(&mut client, 3, 10);
        let mut ss = require("ss");
        let output = run(ss.args(["-Htno", "state", "established", "dport", "=", &port]));
        String::from_utf8_lossy(&output.stdout).contains("timer:(keepalive,").then_some(())
    });
}
