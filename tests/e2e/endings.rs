//! Peers that neither read nor close, and outputs that cannot be written: what holds on to ringgate
//! is let go, and nothing of it ends the process.

use std::fs::File;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use rustix::process::{Resource, Rlimit, Signal, getrlimit, prlimit};

use crate::support::{
    HttpClient, Ringgate, SHORT, Setup, UPGRADE, Upstream, free_port, l4, require,
    ringgate_command, run, site, stream_site, wait_for,
};

const BOTH: [&str; 2] = ["io_uring", "epoll"];

/// Starts with this driver.
fn start(config: String, driver: &str) -> Ringgate {
    Setup { config, server: format!("driver = \"{driver}\""), ..Setup::default() }.start()
}

#[test]
fn a_client_that_asks_and_does_not_read_is_let_go() {
    for driver in BOTH {
        let page = "x".repeat(500_000);
        let config = format!(
            r#"
            [[listener]]
            name = "web"
            listen = "127.0.0.1:0"
            protocol = "http"
            keepalive_timeout = "2s"
            [[listener.host]]
            [[listener.host.route]]
            prefix = "/"
            respond = {{ body = "{page}" }}
            "#
        );
        let gate = start(config, driver);
        let before = gate.descriptors();
        let mut client = HttpClient::connect(gate.address("web"));
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(40));
        wait_for("it is accepted", SHORT, || (gate.descriptors() > before).then_some(()));
        wait_for("it is let go", SHORT, || (gate.descriptors() <= before).then_some(()));
        drop(client);
    }
}

#[test]
fn a_client_that_keeps_its_connection_after_a_504_is_let_go() {
    for driver in BOTH {
        let backend = Upstream::listen();
        let endpoint = format!("\"{}\"", backend.address());
        let route = "path = \"/stream\"\nidle_timeout = \"300ms\"";
        let mut gate = start(site(&endpoint, "", route, ""), driver);
        let before = gate.descriptors();
        let mut client = HttpClient::connect(gate.address("web"));
        client.send(UPGRADE);
        let _upstream = backend.accept();
        assert_eq!(client.response().status, 504, "{driver}");
        wait_for("it is let go", SHORT, || (gate.descriptors() <= before).then_some(()));
        gate.signal(Signal::TERM);
        assert_eq!(gate.wait_exit(SHORT).code(), Some(0), "{driver}");
    }
}

#[test]
fn a_body_without_a_length_that_breaks_off_does_not_look_whole() {
    let backend = Upstream::listen();
    let gate = Ringgate::start(&stream_site(backend.address(), ""));
    let mut client = HttpClient::connect(gate.address("web"));
    client.send(UPGRADE);
    let mut upstream = backend.accept();
    crate::support::read_until(&mut upstream, b"\r\n\r\n");
    upstream.write_all(b"HTTP/1.1 403 Forbidden\r\n\r\nhalf of it").unwrap();
    assert_eq!(client.head_only().status, 403);
    crate::support::reset(upstream);
    crate::support::expect_reset(&mut client.stream);
    assert_eq!(gate.record().end(), "upstream_reset");
}

#[test]
fn a_unix_listener_leaves_a_file_that_is_no_socket_alone() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("precious");
    std::fs::write(&file, "data").unwrap();
    let nowhere = free_port().address();
    let config = l4(nowhere, "", "").replace("127.0.0.1:0", &format!("unix:{}", file.display()));
    let path = directory.path().join("ringgate.toml");
    std::fs::write(&path, config).unwrap();
    let out = run(&mut ringgate_command(&["run", "-c", path.to_str().unwrap()]));
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stderr).contains("precious"));
    assert_eq!(std::fs::read(&file).unwrap(), b"data");
}

#[test]
fn signals_without_a_meaning_are_answered_and_change_nothing() {
    let named = ["ALRM", "VTALRM", "PROF", "IO", "PWR", "STKFLT"];
    let named = named.map(|name| (name.to_owned(), format!("SIG{name}")));
    // The first real-time signal that glibc leaves to programs, and the last one (signal(7)).
    let real_time = [("34", "SIGRTMIN"), ("35", "SIGRTMIN+1"), ("64", "SIGRTMIN+30")];
    let real_time = real_time.map(|(number, name)| (number.to_owned(), name.to_owned()));
    for driver in BOTH {
        let mut gate = start(stream_site(free_port().address(), ""), driver);
        let mut client = HttpClient::connect(gate.address("web"));
        for (signal, name) in named.iter().chain(&real_time) {
            let kill = format!("kill -{signal} {}", gate.pid().as_raw_nonzero());
            let sent = run(require("bash").args(["-c", &kill]));
            assert!(sent.status.success(), "{kill}: {}", String::from_utf8_lossy(&sent.stderr));
            gate.line_with(&format!("signal={name}"));
        }
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.response().status, 301);
        gate.signal(Signal::TERM);
        assert_eq!(gate.wait_exit(SHORT).code(), Some(0));
    }
}

#[test]
fn signals_of_a_fault_and_of_the_cpu_limit_keep_their_default() {
    for signal in [Signal::TRAP, Signal::SYS, Signal::XCPU] {
        let mut gate = start(stream_site(free_port().address(), ""), "epoll");
        gate.signal(signal);
        assert_eq!(gate.wait_exit(SHORT).signal(), Some(signal.as_raw()));
    }
}

#[test]
fn a_log_that_has_reached_its_limit_costs_records_only() {
    let gate = Ringgate::start(&stream_site(free_port().address(), ""));
    let limit = Rlimit { current: Some(100), maximum: getrlimit(Resource::Fsize).maximum };
    prlimit(Some(gate.pid()), Resource::Fsize, limit).unwrap();
    let mut client = HttpClient::connect(gate.address("web"));
    let mut ask = || {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.response().status, 301);
    };
    // A record that is written in part is not lost yet.
    ask();
    ask();
    let line = gate.line_with("records lost in writing");
    assert!(line.contains("File too large"), "{line}");
    ask();
}

#[test]
fn outputs_that_cannot_be_written_do_not_crash_it() {
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    let missing = ringgate_command(&["run", "-c", "/nonexistent"]).stderr(full()).status().unwrap();
    assert_eq!(missing.code(), Some(64));

    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/config/default.toml");
    let check = ringgate_command(&["check", example]).stdout(full()).status().unwrap();
    assert_eq!(check.code(), Some(1));

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ringgate.toml");
    let config = stream_site(free_port().address(), "");
    // Its end is all there is to wait for: nothing that it says can be read.
    let port = free_port();
    std::fs::write(&path, config.replace("127.0.0.1:0", &port.address().to_string())).unwrap();
    let mut command = ringgate_command(&["run", "-c", path.to_str().unwrap()]);
    let mut child = command.stderr(full()).stdout(full()).spawn().unwrap();
    let address = std::fs::read_to_string(&path).unwrap();
    let address = address.split('"').find(|part| part.starts_with("127.0.0.1:")).unwrap();
    wait_for("it listens", SHORT, || std::net::TcpStream::connect(address).ok());
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_log_level_that_is_none_is_refused() {
    let out = run(ringgate_command(&["run"]).env("RINGGATE_LOG", "blah"));
    assert_eq!(out.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&out.stderr).contains("RINGGATE_LOG cannot be \"blah\""));
}

#[test]
fn an_answer_is_not_lost_to_a_body_that_comes_after_it() {
    for driver in BOTH {
        let gate = start(stream_site(free_port().address(), ""), driver);
        let mut client = HttpClient::connect(gate.address("web"));
        let fields = "Host: a\r\nConnection: close\r\nContent-Length: 1000";
        client.send(format!("POST /a HTTP/1.1\r\n{fields}\r\n\r\n"));
        // It is answered. A closed socket would answer the body with a reset.
        gate.record();
        for part in [[b'x'; 500], [b'x'; 500]] {
            client.send(part);
        }
        assert_eq!(client.response().status, 301, "{driver}");
        client.expect_end();
    }
}
