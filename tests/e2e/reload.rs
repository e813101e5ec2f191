//! Edits of a running configuration (SIGHUP): what changes, what goes on, and what is refused.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Signal;

use crate::support::{
    Authority, Echo, HttpClient, Named, Network, Ringgate, SHORT, Setup, UdpEcho, Upstream, bytes,
    connect_http2, curl, expect_closed, expect_end, free_port, http2_settings, inside_namespace,
    l4, wait_for, waiting, with_deadlines,
};

const BOTH: [&str; 2] = ["io_uring", "epoll"];

pub(crate) fn start(config: &str, driver: &str) -> Ringgate {
    let server = format!("driver = \"{driver}\"");
    Setup { config: config.to_owned(), server, ..Setup::default() }.start()
}

/// An http listener with a page for every path.
pub(crate) fn page(listener: &str, listen: SocketAddr, body: &str) -> String {
    format!(
        "[[listener]]\nname = \"{listener}\"\nlisten = \"{listen}\"\nprotocol = \"http\"\n\
         [[listener.host]]\n[[listener.host.route]]\nprefix = \"/\"\n\
         respond = {{ body = \"{body}\" }}\n"
    )
}

pub(crate) fn tcp(listener: &str, listen: SocketAddr, cluster: &str) -> String {
    format!(
        "[[listener]]\nname = \"{listener}\"\nlisten = \"{listen}\"\nprotocol = \"tcp\"\n\
         cluster = \"{cluster}\"\n"
    )
}

pub(crate) fn udp(listener: &str, listen: SocketAddr, cluster: &str) -> String {
    tcp(listener, listen, cluster).replace("\"tcp\"", "\"udp\"")
}

pub(crate) fn cluster(name: &str, endpoint: SocketAddr) -> String {
    format!("[cluster.{name}]\nendpoints = [\"{endpoint}\"]\n")
}

fn asks(client: &mut HttpClient) -> String {
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    String::from_utf8(client.response().body).unwrap()
}

#[track_caller]
pub(crate) fn echoes(client: &mut TcpStream, seed: u64) {
    let sent = bytes(seed, 10_000);
    client.write_all(&sent).unwrap();
    let mut received = vec![0; sent.len()];
    client.read_exact(&mut received).unwrap();
    assert!(received == sent);
}

#[track_caller]
fn is_refused(address: SocketAddr) {
    wait_for("connects are refused", SHORT, || TcpStream::connect(address).is_err().then_some(()));
}

#[test]
fn a_kept_alive_connection_has_the_new_routes_from_its_next_request_on() {
    for driver in BOTH {
        let address = free_port().address();
        let gate = start(&page("web", address, "old"), driver);
        let mut client = HttpClient::connect(address);
        assert_eq!(asks(&mut client), "old");
        gate.reload(&page("web", address, "new"));
        assert_eq!(asks(&mut client), "new", "{driver}");
        // A listener with another name at the same address takes the socket over. The connections
        // of the old one end after their next response.
        gate.reload(&page("other", address, "newer"));
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let response = client.response();
        assert_eq!((&*response.body, response.field("connection")), (&b"new"[..], Some("close")));
        client.expect_end();
        assert_eq!(asks(&mut HttpClient::connect(address)), "newer", "{driver}");
    }
}

#[test]
fn a_relay_goes_on_when_its_listener_and_its_cluster_are_gone() {
    for driver in BOTH {
        let (first, second) = (Named::start("first"), Named::start("second"));
        let echo = Echo::start();
        let (kept, address) = (free_port().address(), free_port().address());
        let both = |endpoint| tcp("kept", kept, "c") + &cluster("c", endpoint);
        let gate = start(
            &(both(first.address()) + &tcp("gone", address, "e") + &cluster("e", echo.address())),
            driver,
        );
        let mut client = with_deadlines(TcpStream::connect(address).unwrap());
        echoes(&mut client, 1);
        gate.reload(&both(second.address()));
        is_refused(address);
        echoes(&mut client, 2);
        let mut name = [0; 6];
        with_deadlines(TcpStream::connect(kept).unwrap()).read_exact(&mut name).unwrap();
        assert_eq!(&name, b"second", "{driver}: another endpoint");
        // The address is free for others, and the listener can come back.
        drop(TcpListener::bind(address).unwrap());
        gate.reload(
            &(both(first.address()) + &tcp("gone", address, "e") + &cluster("e", echo.address())),
        );
        echoes(&mut with_deadlines(TcpStream::connect(address).unwrap()), 3);
        echoes(&mut client, 4);
        drop(client);
        let record = gate.records_where(1, |one| one.text("listener") == "gone").remove(0);
        assert_eq!((record.text("cluster"), record.end()), ("e", "client"));
    }
}

#[test]
fn a_listener_that_is_renamed_keeps_the_connections_in_its_queue() {
    for driver in BOTH {
        let address = free_port().address();
        let gate = start(&page("before", address, "old"), driver);
        for round in 0..5 {
            // They are in the queue when the process looks again.
            let clients: Vec<TcpStream> = gate.frozen(|| {
                let name = format!("name-{round}");
                let text = format!(
                    "[server]\nworkers = 2\ndriver = \"{driver}\"\n[access_log]\n\
                     path = \"off\"\n{}",
                    page(&name, address, "new")
                );
                fs::write(gate.config_file(), text).unwrap();
                gate.signal(Signal::HUP);
                (0..20).map(|_| TcpStream::connect(address).unwrap()).collect()
            });
            for client in clients {
                asks(&mut HttpClient::over(with_deadlines(client)));
            }
            let reloaded = || gate.lines().iter().filter(|one| one.contains("reloaded")).count();
            wait_for("the end of a reload", SHORT, || (reloaded() == round + 1).then_some(()));
        }
    }
}

#[test]
fn a_configuration_with_an_error_changes_nothing_and_is_shown_as_by_check() {
    for driver in BOTH {
        let (address, other) = (free_port().address(), free_port().address());
        let gate = start(&page("web", address, "old"), driver);
        let broken =
            page("web", address, "new") + &page("other", other, "x") + "colour = \"red\"\n";
        gate.try_reload(&broken);
        for part in ["error: unknown key `colour`", "ringgate.toml:", "colour = \"red\""] {
            gate.line_with(part);
        }
        is_refused(other);
        assert_eq!(asks(&mut HttpClient::connect(address)), "old", "{driver}");
        // The file is gone.
        fs::remove_file(gate.config_file()).unwrap();
        gate.signal(Signal::HUP);
        gate.line_with("cannot read the configuration");
        assert_eq!(asks(&mut HttpClient::connect(address)), "old", "{driver}");
    }
}

#[test]
fn addresses_are_bound_all_or_none() {
    for driver in BOTH {
        let (address, free) = (free_port().address(), free_port().address());
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let gate = start(&page("web", address, "old"), driver);
        let line = gate.try_reload(
            &(page("web", address, "new")
                + &page("free", free, "x")
                + &page("taken", taken.local_addr().unwrap(), "x")),
        );
        assert!(line.contains("cannot listen on") && line.contains("taken"), "{line}");
        is_refused(free);
        assert_eq!(asks(&mut HttpClient::connect(address)), "old", "{driver}");
        // So does a log that cannot be opened.
        let log = "[access_log]\npath = \"/nowhere/access.log\"\n".to_owned();
        let line = gate.try_reload(&(log + &page("web", address, "new") + &page("f", free, "x")));
        assert!(line.contains("/nowhere/access.log"), "{line}");
        is_refused(free);
        assert_eq!(asks(&mut HttpClient::connect(address)), "old", "{driver}");
    }
}

#[test]
fn what_a_running_process_cannot_change_is_named() {
    let address = free_port().address();
    let gate = start(&page("web", address, "old"), "epoll");
    let text = format!(
        "[server]\nworkers = 1\ndriver = \"io_uring\"\n[access_log]\npath = \"off\"\n{}",
        page("web", address, "new")
    );
    fs::write(gate.config_file(), text).unwrap();
    gate.signal(Signal::HUP);
    for key in ["server.workers", "server.driver"] {
        gate.line_with(&format!("key=\"{key}\""));
    }
    gate.line_with("reloaded");
    assert_eq!(asks(&mut HttpClient::connect(address)), "new");
}

#[test]
fn a_configuration_from_standard_input_cannot_be_read_again() {
    use std::process::Stdio;
    let address = free_port().address();
    let mut command = crate::support::ringgate_command(&["run", "-c", "-"]);
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let text = "[access_log]\npath = \"off\"\n".to_owned() + &page("web", address, "old");
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    wait_for("it serves", SHORT, || TcpStream::connect(address).ok());
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, Signal::HUP).unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("it came from standard input")));
    assert_eq!(asks(&mut HttpClient::connect(address)), "old");
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn logs_and_their_levels_follow() {
    for driver in BOTH {
        let directory = tempfile::tempdir().unwrap();
        let (one, two) = (directory.path().join("one"), directory.path().join("two"));
        let address = free_port().address();
        let echo = Echo::start();
        let relay = free_port().address();
        let config = |log: &std::path::Path, level: &str| {
            format!("[access_log]\npath = {log:?}\n[log]\nlevel = \"{level}\"\n")
                + &page("web", address, "x")
                + &tcp("relay", relay, "c")
                + &cluster("c", echo.address())
        };
        let gate = start(&config(&one, "info"), driver);
        let mut long = with_deadlines(TcpStream::connect(relay).unwrap());
        echoes(&mut long, 1);
        asks(&mut HttpClient::connect(address));
        gate.reload(&config(&two, "info"));
        asks(&mut HttpClient::connect(address));
        // The record of what began earlier goes to the log of the present, too.
        drop(long);
        let lines =
            |file: &std::path::Path| fs::read_to_string(file).unwrap_or_default().lines().count();
        wait_for("the records", SHORT, || (lines(&two) == 2).then_some(()));
        assert_eq!(lines(&one), 1, "{driver}");
        let pid = gate.pid().as_raw_nonzero();
        let open = || {
            let files = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
            files.filter_map(|file| fs::read_link(file.path()).ok()).any(|file| file == one)
        };
        wait_for("the first log is closed", SHORT, || (!open()).then_some(()));
        // Diagnostics become JSON, and then silent.
        let json = config(&two, "info").replace("[log]\n", "[log]\nformat = \"json\"\n");
        let text = |config: &str| format!("[server]\nworkers = 2\ndriver = \"{driver}\"\n{config}");
        fs::write(gate.config_file(), text(&json)).unwrap();
        gate.signal(Signal::HUP);
        gate.line_with("\"message\":\"reloaded\"");
        fs::write(gate.config_file(), text(&config(&two, "error"))).unwrap();
        gate.signal(Signal::HUP);
        let served = |gate: &Ringgate| {
            let before = gate.lines().len();
            gate.signal(Signal::ALARM);
            asks(&mut HttpClient::connect(address));
            gate.lines().len() - before
        };
        wait_for("silence", SHORT, || (served(&gate) == 0).then_some(()));
    }
}

#[test]
fn a_limit_of_connections_changes_and_counts_those_that_are_open() {
    for driver in BOTH {
        let address = free_port().address();
        let upstream = Upstream::listen();
        let config = |limit: &str| {
            l4(upstream.address(), limit, "").replace("127.0.0.1:0", &address.to_string())
        };
        let gate = start(&config("max_connections = 2"), driver);
        let open = || with_deadlines(TcpStream::connect(address).unwrap());
        let (_one, two) = ((open(), upstream.accept()), (open(), upstream.accept()));
        expect_closed(&mut open());
        gate.reload(&config("max_connections = 3"));
        let _three = (open(), upstream.accept());
        expect_closed(&mut open());
        gate.reload(&config("max_connections = 2"));
        expect_closed(&mut open());
        drop(two);
        wait_for("two have ended", SHORT, || {
            expect_closed(&mut open());
            (gate.records_where(1, |one| one.end() == "client").len() == 1).then_some(())
        });
        gate.reload(&config(""));
        let _more: Vec<_> = (0..3).map(|_| (open(), upstream.accept())).collect();
    }
}

#[test]
fn udp_sessions_go_on_and_new_ones_use_the_new_configuration() {
    for driver in BOTH {
        let (one, two) = (UdpEcho::start("one:"), UdpEcho::start("two:"));
        let address = free_port().address();
        let config =
            |name: &str, echo: &UdpEcho| udp(name, address, "c") + &cluster("c", echo.address());
        let client = || {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.connect(address).unwrap();
            socket.set_read_timeout(Some(SHORT)).unwrap();
            socket
        };
        let answers = |socket: &UdpSocket| {
            socket.send(b"?").unwrap();
            let mut answer = [0; 100];
            let length = socket.recv(&mut answer).unwrap();
            String::from_utf8_lossy(&answer[..length]).into_owned()
        };
        let gate = start(&config("dns", &one), driver);
        let first = client();
        assert_eq!(answers(&first), "one:?");
        gate.reload(&config("dns", &two));
        assert_eq!(answers(&first), "one:?", "{driver}: the session goes on");
        let second = client();
        assert_eq!(answers(&second), "two:?", "{driver}");
        // Under another name it is the same socket.
        gate.reload(&config("renamed", &one));
        assert_eq!(answers(&first), "one:?");
        assert_eq!(answers(&second), "two:?");
        assert_eq!(answers(&client()), "one:?");
        // Another address beside it, and then that one alone.
        let other = free_port().address();
        let both = config("renamed", &one)
            .replace(&format!("\"{address}\""), &format!("[\"{address}\", \"{other}\"]"));
        gate.reload(&both);
        assert_eq!(answers(&second), "two:?");
        gate.reload(&both.replace(&format!("\"{address}\", "), ""));
        wait_for("the address is free", SHORT, || UdpSocket::bind(address).ok());
        let moved = UdpSocket::bind("127.0.0.1:0").unwrap();
        moved.connect(other).unwrap();
        moved.set_read_timeout(Some(SHORT)).unwrap();
        assert_eq!(answers(&moved), "one:?");
        let records = gate.records_where(3, |one| one.end() == "drain");
        let of = |name: &str| records.iter().filter(|one| one.text("listener") == name).count();
        assert_eq!((of("dns"), of("renamed")), (2, 1), "each by the name it began with");
    }
}

#[test]
fn a_certificate_changes_and_sessions_are_resumed_over_a_reload() {
    for driver in BOTH {
        let authority = Authority::new("test");
        let (old, new) = (authority.signs(&["a.test"]), authority.signs(&["a.test"]));
        let address = free_port().address();
        let config = |rule: String, body: &str| {
            page("web", address, body).replace("[[listener.host]]", &(rule + "[[listener.host]]"))
        };
        let gate = start(&config(old.rule(&["a.test"], ""), "old"), driver);
        let fetch = || {
            let out = curl(address, &authority, &["https://a.test/"]);
            String::from_utf8_lossy(&out.stdout).into_owned()
        };
        assert_eq!(fetch(), "old");
        gate.reload(&config(new.rule(&["a.test"], ""), "new"));
        assert_eq!(fetch(), "new", "{driver}");
    }
}

#[test]
fn http2_streams_use_the_new_routes_and_a_removed_listener_ends_its_connections() {
    for driver in BOTH {
        let authority = Authority::new("test");
        let pair = authority.signs(&["a.test"]);
        let address = free_port().address();
        let config = |body: &str| {
            page("web", address, body)
                .replace("[[listener.host]]", &(pair.rule(&["a.test"], "") + "[[listener.host]]"))
        };
        let gate = start(&config("old"), driver);
        let settings = http2_settings(&authority);
        let client = connect_http2(address, &settings, "a.test", &h2::client::Builder::new());
        let fetch = || {
            waiting(async {
                let mut client = client.clone().ready().await?;
                let request = http::Request::get("https://a.test/").body(()).unwrap();
                let mut body = client.send_request(request, true)?.0.await?.into_body();
                let page = body.data().await.unwrap()?;
                Ok::<_, h2::Error>(String::from_utf8(page.to_vec()).unwrap())
            })
        };
        assert_eq!(fetch().unwrap(), "old");
        gate.reload(&config("new"));
        assert_eq!(fetch().unwrap(), "new", "{driver}");
        gate.reload(&page("other", free_port().address(), "x"));
        let error = wait_for("a GOAWAY", SHORT, || fetch().err());
        assert!(error.is_go_away() || error.is_io(), "{driver}: {error}");
    }
}

#[test]
fn idle_connections_of_a_removed_listener_end_and_others_stay() {
    for driver in BOTH {
        let (one, two) = (free_port().address(), free_port().address());
        let stays = page("stays", one, "stays");
        let gate = start(&(stays.clone() + &page("goes", two, "goes")), driver);
        let (mut kept, mut ended) = (HttpClient::connect(one), HttpClient::connect(two));
        assert_eq!((asks(&mut kept), asks(&mut ended)), ("stays".into(), "goes".into()));
        // One whose request has begun is answered, and told that it is the last.
        let mut begun = HttpClient::connect(two);
        asks(&mut begun);
        begun.send("GET / HTTP/1.1\r\n");
        gate.reload(&stays);
        begun.send("Host: a\r\n\r\n");
        let response = begun.response();
        assert_eq!((response.status, response.field("connection")), (200, Some("close")));
        begun.expect_end();
        ended.expect_end();
        assert_eq!(asks(&mut kept), "stays", "{driver}");
    }
}

#[test]
fn a_listener_of_another_protocol_serves_those_that_have_connected_before() {
    for driver in BOTH {
        let address = free_port().address();
        let echo = Echo::start();
        let site = page("edge", address, "site");
        let gate = start(&site, driver);
        // Connected before, and silent so far.
        let mut silent = HttpClient::connect(address);
        let mut served = HttpClient::connect(address);
        assert_eq!(asks(&mut served), "site");
        gate.reload(&(tcp("edge", address, "c") + &cluster("c", echo.address())));
        echoes(&mut with_deadlines(TcpStream::connect(address).unwrap()), 1);
        assert_eq!((asks(&mut silent), asks(&mut served)), ("site".into(), "site".into()));
        let mut relayed = with_deadlines(TcpStream::connect(address).unwrap());
        echoes(&mut relayed, 2);
        gate.reload(&site);
        assert_eq!(asks(&mut HttpClient::connect(address)), "site", "{driver}");
        echoes(&mut relayed, 3);
    }
}

#[test]
fn listeners_that_exchange_their_names_keep_their_clients_apart() {
    for driver in BOTH {
        let (one, two) = (free_port().address(), free_port().address());
        let config = |first: &str, second: &str| page(first, one, "1") + &page(second, two, "2");
        let gate = start(&config("a", "b"), driver);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for (address, body) in [(one, "1"), (two, "2"), (one, "1"), (two, "2")] {
                let stop = &stop;
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        assert_eq!(asks(&mut HttpClient::connect(address)), body);
                    }
                });
            }
            for _ in 0..5 {
                gate.reload(&config("b", "a"));
                gate.reload(&config("a", "b"));
            }
            stop.store(true, Ordering::Relaxed);
        });
    }
}

#[test]
fn names_of_a_new_cluster_are_looked_up_before_it_is_used() {
    if !inside_namespace("reload::names_of_a_new_cluster_are_looked_up_before_it_is_used") {
        return;
    }
    let network = Network::serving(&[("node.test", "127.0.0.1")]);
    let _ = &network;
    for driver in BOTH {
        let echo = Echo::start();
        let address: SocketAddr = "127.0.0.1:7000".parse().unwrap();
        let plain = tcp("relay", address, "c") + &cluster("c", echo.address());
        let named = tcp("relay", address, "c")
            + &format!(
                "[cluster.c]\ndiscovery = \"strict_dns\"\nendpoints = [\"node.test:{}\"]\n",
                echo.address().port()
            );
        let gate = start(&plain, driver);
        for round in 0..3 {
            gate.reload(&named);
            // There is no moment without endpoints.
            echoes(&mut with_deadlines(TcpStream::connect(address).unwrap()), round);
            gate.reload(&plain);
            echoes(&mut with_deadlines(TcpStream::connect(address).unwrap()), round);
        }
        let mut client = with_deadlines(TcpStream::connect(address).unwrap());
        echoes(&mut client, 9);
        drop(gate);
        expect_end(&mut client);
    }
}
