//! Starting, draining, ending, and what an operator sends while it runs.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Output;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use socket2::{Domain, Socket, Type};

use crate::support::{
    Blackhole, EVERY_WAY, Echo, HttpClient, Relayed, Ringgate, SHORT, SOON, Setup, bytes,
    expect_closed, free_port, l4, require, ringgate_command, run, stream_site, wait_for,
    with_deadlines,
};

const MIB: usize = 1024 * 1024;
const GET: &str = "GET /a HTTP/1.1\r\nHost: live.example.test\r\n\r\n";

#[test]
fn sigterm_lets_a_running_transfer_end_and_takes_nothing_new() {
    for way in EVERY_WAY {
        let Relayed { mut gate, mut client, mut upstream } = way.open();
        let listener = if way.tunnel { "web" } else { "ingress" };
        let address = gate.address(listener);
        let from = client.local_addr().unwrap().to_string();
        let sent = bytes(1, 8 * MIB);
        upstream.write_all(&sent[..MIB]).unwrap();
        gate.signal(Signal::TERM);
        wait_for("new connections are refused", SHORT, || TcpStream::connect(address).err());

        std::thread::scope(|scope| {
            let rest = &sent[MIB..];
            scope.spawn(move || {
                upstream.write_all(rest).unwrap();
                drop(upstream);
            });
            let mut received = Vec::new();
            client.read_to_end(&mut received).unwrap();
            assert!(received == sent, "{way:?}: {} bytes of {}", received.len(), sent.len());
        });
        drop(client);
        assert_eq!(gate.wait_exit(SHORT).code(), Some(0), "{way:?}");
        // Those that knocked while the listener was being closed have records of their own.
        let record = &gate.records_where(1, |record| record.text("client") == from)[0];
        assert_eq!(record.end(), "upstream", "{way:?}");
    }
}

#[test]
fn who_is_accepted_as_sigterm_comes_is_served() {
    let config = stream_site(free_port().address(), "");
    let server = "workers = 1\ndriver = \"io_uring\"".to_owned();
    // The worker hears of everything this late, and so of the client and of the word to drain at
    // one time.
    let mut late = require("strace");
    late.args(["-D", "-f", "-q", "-o", "/dev/null", "-e", "trace=io_uring_enter"]);
    late.args(["-e", "inject=io_uring_enter:delay_exit=300000"]);
    let mut gate = Setup { config, server, through: Some(late), ..Setup::default() }.start();
    let mut client = HttpClient::connect(gate.address("web"));
    client.send(GET);
    gate.signal(Signal::TERM);
    assert_eq!(client.response().status, 301);
    client.expect_end();
    assert_eq!(gate.wait_exit(SHORT).code(), Some(0));
    assert_eq!(gate.record().end(), "done");
}

#[test]
fn what_does_not_end_in_time_is_cut_when_draining() {
    for way in EVERY_WAY {
        let Relayed { mut gate, mut client, mut upstream } = way.open_draining("400ms");
        let start = Instant::now();
        gate.signal(Signal::TERM);
        expect_closed(&mut client);
        expect_closed(&mut upstream);
        let passed = start.elapsed();
        assert!(passed > Duration::from_millis(350), "{way:?}: after {passed:?}");
        assert_eq!(gate.wait_exit(SHORT).code(), Some(0), "{way:?}");
        assert!(start.elapsed() < SOON, "{way:?}: {:?}", start.elapsed());
        assert_eq!(gate.record().end(), "drain", "{way:?}");
    }
}

#[test]
fn a_second_signal_ends_at_once() {
    for (first, second) in [
        (Signal::TERM, Signal::TERM),
        (Signal::INT, Signal::INT),
        (Signal::QUIT, Signal::QUIT),
        (Signal::QUIT, Signal::TERM),
    ] {
        let echo = Echo::start();
        let mut gate = Ringgate::start(&l4(echo.address(), "", ""));
        let mut client = gate.connect("ingress");
        client.write_all(b"x").unwrap();
        client.read_exact(&mut [0]).unwrap();
        gate.signal(first);
        wait_for("new connections are refused", SHORT, || {
            TcpStream::connect(gate.address("ingress")).err()
        });
        let start = Instant::now();
        gate.signal(second);
        assert_eq!(gate.wait_exit(SHORT).code(), Some(0));
        assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
        expect_closed(&mut client);
    }
}

#[test]
fn a_connect_that_a_second_signal_cuts_off_is_an_attempt() {
    for driver in ["io_uring", "epoll"] {
        let silent = Blackhole::new();
        let config = l4(silent.address(), "", "connect_timeout = \"1m\"");
        let server = format!("driver = \"{driver}\"");
        let mut gate = Setup { config, server, ..Setup::default() }.start();
        let sockets = gate.sockets();
        let mut client = gate.connect("ingress");
        client.write_all(b"x").unwrap();
        wait_for("it connects", SHORT, || (gate.sockets() >= sockets + 2).then_some(()));
        gate.signal(Signal::TERM);
        gate.line_with("no new connections");
        gate.signal(Signal::TERM);
        assert_eq!(gate.wait_exit(SHORT).code(), Some(0));
        let record = gate.record();
        assert_eq!((record.end(), record.number("attempts")), ("drain", 1), "over {driver}");
        assert_eq!(record.text("endpoint"), silent.address().to_string());
        expect_closed(&mut client);
    }
}

#[test]
fn a_silent_keep_alive_connection_does_not_hold_up_the_end() {
    let mut gate = Ringgate::start(&stream_site(free_port().address(), ""));
    let mut client = HttpClient::connect(gate.address("web"));
    client.send(GET);
    assert_eq!(client.response().status, 301);
    gate.signal(Signal::TERM);
    client.expect_end();
    assert_eq!(gate.wait_exit(SHORT).code(), Some(0));
}

#[test]
fn nor_does_one_that_was_slow_to_read_the_last_answer() {
    // Large for the buffers of a connection whose segments and window are small from the start.
    let page = "x".repeat(MIB - 1);
    let route = format!("[[listener.host.route]]\nprefix = \"/\"\nrespond = {{ body = '{page}' }}");
    let config = format!(
        "[[listener]]\nname = \"web\"\nlisten = \"127.0.0.1:0\"\nprotocol = \"http\"\n\
         keepalive_timeout = \"1h\"\n[[listener.host]]\n{route}\n"
    );
    let mut gate = Ringgate::start(&config);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.set_tcp_mss(536).unwrap();
    socket.connect(&gate.address("web").into()).unwrap();
    let mut client = HttpClient::over(with_deadlines(socket.into()));
    client.send(GET);
    // The answer is made, and cannot be sent yet.
    gate.record();
    assert_eq!(client.response().body.len(), page.len());
    let start = Instant::now();
    gate.signal(Signal::TERM);
    client.expect_end();
    assert_eq!(gate.wait_exit(SHORT).code(), Some(0));
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
}

#[test]
fn without_connections_it_ends_at_once() {
    for signal in [Signal::TERM, Signal::INT, Signal::QUIT] {
        let mut gate = Ringgate::start(&stream_site(free_port().address(), ""));
        let start = Instant::now();
        gate.signal(signal);
        assert_eq!(gate.wait_exit(SHORT).code(), Some(0));
        assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    }
}

#[test]
fn sigusr1_after_renaming_the_log_starts_a_new_one() {
    let gate = Ringgate::start(&stream_site(free_port().address(), ""));
    redirected(gate.address("web"), "/before");
    assert_eq!(gate.record().text("path"), "/before");
    let renamed = gate.access_log().with_extension("old");
    fs::rename(gate.access_log(), &renamed).unwrap();

    gate.signal(Signal::USR1);
    wait_for("a new log file", SHORT, || gate.access_log().exists().then_some(()));
    redirected(gate.address("web"), "/after");
    assert_eq!(gate.record().text("path"), "/after");
    assert_eq!(fs::read_to_string(renamed).unwrap().lines().count(), 1);
}

#[test]
fn records_go_on_in_the_renamed_file_until_then() {
    let gate = Ringgate::start(&stream_site(free_port().address(), ""));
    redirected(gate.address("web"), "/before");
    gate.record();
    let renamed = gate.access_log().with_extension("old");
    fs::rename(gate.access_log(), &renamed).unwrap();
    redirected(gate.address("web"), "/after");
    wait_for("the second record", SHORT, || {
        (fs::read_to_string(&renamed).unwrap().lines().count() == 2).then_some(())
    });
}

fn redirected(address: SocketAddr, path: &str) {
    let mut client = HttpClient::connect(address);
    client.send(GET.replacen("/a", path, 1));
    assert_eq!(client.response().status, 301);
}

#[test]
fn a_log_that_cannot_be_written_does_not_stop_the_proxy() {
    let config = stream_site(free_port().address(), "").replacen(
        "protocol",
        "access_log = { path = \"/dev/full\" }\nprotocol",
        1,
    );
    let gate = Ringgate::start(&config);
    for _ in 0..20 {
        redirected(gate.address("web"), "/a");
    }
}

#[test]
fn a_port_in_use_is_an_error_that_names_the_address() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let config = l4(free_port().address(), "", "").replace("127.0.0.1:0", &address);
    let mut gate = Setup { config, ..Setup::default() }.spawn();
    gate.line_with(&format!("cannot listen on {address}"));
    assert_eq!(gate.wait_exit(SHORT).code(), Some(1));
}

/// Runs `ringgate` to its end with a configuration file.
fn ringgate_with(arguments: &[&str], config: &str) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ringgate.toml");
    fs::write(&file, config).unwrap();
    let mut command = ringgate_command(arguments);
    run(command.arg(file).current_dir(dir.path()))
}

#[test]
fn a_bad_configuration_is_exit_code_64_with_every_error() {
    let bad = l4(free_port().address(), "idle_timout = \"1h\"\nbacklog = 0", "")
        .replace("cluster = \"backend\"", "cluster = \"backed\"");
    for arguments in [["check"].as_slice(), &["run", "-c"]] {
        let output = ringgate_with(arguments, &bad);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {said}");
        for part in ["idle_timeout", "backlog", "backend", "ringgate.toml:"] {
            assert!(said.contains(part), "{arguments:?}: no {part:?} in {said}");
        }
    }
    let output = ringgate_with(&["check"], "not TOML at all");
    assert_eq!(output.status.code(), Some(64));
}

#[test]
fn a_good_configuration_is_exit_code_0() {
    let output = ringgate_with(&["check"], &l4(free_port().address(), "", ""));
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_default_configuration_passes_the_check() {
    let printed = run(&mut ringgate_command(&["run", "--print-default-config"]));
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    let text = String::from_utf8(printed.stdout).unwrap();
    assert!(text.contains("[[listener]]"), "{text}");
    let output = ringgate_with(&["check"], &text);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn checking_binds_and_creates_nothing() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("access.log");
    let config = l4(free_port().address(), "", "")
        .replace("127.0.0.1:0", &taken.local_addr().unwrap().to_string());
    let output = ringgate_with(&["check"], &format!("access_log = {{ path = {log:?} }}\n{config}"));
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!log.exists());
}
