//! Endpoints that are down: who gets their share, what the access log says of them, and what the
//! diagnostics say.

use std::io::Read;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{
    Blackhole, HttpClient, LONG, Named, Ringgate, SHORT, Setup, UPGRADE, UdpEcho, Upstream,
    expect_closed, free_port, inside_namespace, l4, site, wait_for,
};

/// An L4 listener in front of several endpoints.
fn config(endpoints: &[SocketAddr], cluster: &str) -> String {
    l4(endpoints[0], "", cluster).replace(&format!("\"{}\"", endpoints[0]), &list(endpoints))
}

fn list(endpoints: &[SocketAddr]) -> String {
    endpoints.iter().map(|address| format!("\"{address}\"")).collect::<Vec<_>>().join(", ")
}

fn start(endpoints: &[SocketAddr], workers: usize, driver: &str) -> Ringgate {
    let server = format!("workers = {workers}\ndriver = \"{driver}\"");
    Setup { config: config(endpoints, ""), server, ..Setup::default() }.start()
}

fn name_of_who_answers(gate: &Ringgate) -> String {
    let mut name = String::new();
    gate.connect("ingress").read_to_string(&mut name).unwrap();
    name
}

#[test]
fn the_share_of_an_endpoint_that_is_down_goes_to_all_others() {
    for (workers, driver) in [(1, "io_uring"), (2, "io_uring"), (1, "epoll"), (2, "epoll")] {
        let (dead, alive) = (free_port(), ["a", "b", "c"].map(Named::start));
        let [a, b, c] = alive.each_ref().map(Named::address);
        let gate = start(&[a, dead.address(), b, c], workers, driver);
        for _ in 0..90 {
            assert_ne!(name_of_who_answers(&gate), "");
        }
        for backend in &alive {
            let served = backend.served();
            // Each worker goes round by itself.
            assert!(served.abs_diff(30) <= workers, "{workers} workers: {served} of 90 at one");
        }
    }
}

#[test]
fn a_record_names_the_endpoints_that_failed() {
    for driver in ["io_uring", "epoll"] {
        let (dead, silent, alive) = (free_port(), Blackhole::new(), Named::start("alive"));
        let endpoints = [dead.address(), silent.address(), alive.address()];
        let cluster = "connect_attempts = 3\nconnect_timeout = \"200ms\"";
        let server = format!("workers = 1\ndriver = \"{driver}\"");
        let config = config(&endpoints, cluster);
        let gate = Setup { config, server, ..Setup::default() }.start();
        for _ in 0..3 {
            assert_eq!(name_of_who_answers(&gate), "alive");
        }
        let [dead, silent, alive] = endpoints.map(|endpoint| endpoint.to_string());
        let records = gate.records(3);
        assert!(records.iter().all(|record| record.text("endpoint") == alive), "{records:?}");
        let tried = |index: usize| {
            (records[index].number("attempts"), records[index].list("failed_endpoints"))
        };
        assert_eq!(tried(0), (3, vec![&*dead, &*silent]));
        assert_eq!(tried(1), (3, vec![&*silent, &*dead]));
        assert_eq!(tried(2), (1, vec![]));
    }
}

#[test]
fn a_record_says_how_often_the_only_endpoint_was_tried() {
    let dead = free_port();
    let gate = start(&[dead.address()], 1, "io_uring");
    expect_closed(&mut gate.connect("ingress"));
    let (record, dead) = (gate.record(), dead.address().to_string());
    assert_eq!((record.end(), record.text("endpoint")), ("connect_failed", &*dead));
    assert_eq!((record.number("attempts"), record.list("failed_endpoints")), (2, vec![&*dead]));
}

#[test]
fn endpoints_without_a_route_are_not_tried_by_each_client() {
    if !inside_namespace("endpoints::endpoints_without_a_route_are_not_tried_by_each_client") {
        return;
    }
    // Nothing but a loopback interface is there.
    let no_route = |index: u16| SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, index], 80));
    let (udp, alive) = (UdpEcho::start(""), Named::start("alive"));
    for driver in ["io_uring", "epoll"] {
        let endpoints = |last| Vec::from_iter((1..=200).map(no_route).chain([last]));
        let udp_listener = format!(
            "[[listener]]\nname = \"dns\"\nlisten = \"127.0.0.1:0\"\nprotocol = \"udp\"\n\
             cluster = \"servers\"\n[cluster.servers]\nendpoints = [{}]\n",
            list(&endpoints(udp.address()))
        );
        let config = config(&endpoints(alive.address()), "") + &udp_listener;
        let server = format!("workers = 1\ndriver = \"{driver}\"");
        let mut gate = Setup { config, server, ..Setup::default() }.start();
        // Kept, because a later client could get the port of one that is closed, and its session.
        let mut clients = Vec::new();
        for _ in 0..20 {
            assert_eq!(name_of_who_answers(&gate), "alive", "over {driver}");
            let client = UdpSocket::bind("127.0.0.1:0").unwrap();
            client.set_read_timeout(Some(SHORT)).unwrap();
            client.send_to(b"x", gate.address("dns")).unwrap();
            assert_eq!(client.recv(&mut [0; 10]).unwrap(), 1, "over {driver}");
            clients.push(client);
        }
        gate.signal(Signal::TERM);
        assert_eq!(gate.wait_exit(SHORT).code(), Some(0));
        for protocol in ["tcp", "udp"] {
            let records = gate.records_where(20, |record| record.text("protocol") == protocol);
            let tried = records.iter().map(|record| record.list("failed_endpoints").len());
            let tried: Vec<usize> = tried.collect();
            // The first client finds out; the others try one at most.
            assert!(tried.iter().filter(|&&tried| tried > 1).count() == 1, "{tried:?}");
        }
    }
}

#[test]
fn records_of_tunnels_and_sessions_name_them_too() {
    if !inside_namespace("endpoints::records_of_tunnels_and_sessions_name_them_too") {
        return;
    }
    let (dead, upstream) = (free_port(), Upstream::listen());
    let endpoints = [dead.address(), upstream.address()];
    let udp = UdpEcho::on(UdpSocket::bind(upstream.address()).unwrap(), "");
    let site = site(&list(&endpoints), "", "path = \"/stream\"", "");
    let udp_listener = "[[listener]]\nname = \"dns\"\nlisten = \"127.0.0.1:0\"\n\
                        protocol = \"udp\"\ncluster = \"shadowsocks\"\n";
    let config = format!("{udp_listener}{site}");
    let server = "workers = 1".to_owned();
    let mut gate = Setup { config, server, ..Setup::default() }.start();
    let dead = dead.address().to_string();

    let mut client = HttpClient::connect(gate.address("web"));
    client.send(UPGRADE);
    drop(upstream.accept());
    assert_eq!(client.response().status, 502);
    let tunnel = gate.record();
    assert_eq!(tunnel.text("endpoint"), upstream.address().to_string());
    assert_eq!((tunnel.number("attempts"), tunnel.list("failed_endpoints")), (2, vec![&*dead]));

    // Of two sessions one is with the endpoint that is down: it ends, and what the client sends
    // next makes another one.
    let clients = [0; 2].map(|_| UdpSocket::bind("127.0.0.1:0").unwrap());
    for client in &clients {
        client.connect(gate.address("dns")).unwrap();
        client.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        wait_for("an answer", SHORT, || {
            client.send(b"x").unwrap();
            client.recv(&mut [0; 10]).ok()
        });
    }
    gate.signal(Signal::TERM);
    assert_eq!(gate.wait_exit(SHORT).code(), Some(0));
    let sessions = gate.records_where(3, |record| record.text("protocol") == "udp");
    for session in sessions {
        let tried = (session.number("attempts"), session.list("failed_endpoints"));
        if session.end() == "connect_failed" {
            assert_eq!((session.text("endpoint"), tried), (&*dead, (1, vec![&*dead])));
        } else {
            assert_eq!(session.text("endpoint"), udp.address().to_string());
            assert_eq!(tried, (1, vec![]));
        }
    }
}

/// What a line says behind `name=`, without quotes.
fn field<'l>(line: &'l str, name: &str) -> &'l str {
    let (_, rest) = line.split_once(&format!(" {name}=")).unwrap_or_else(|| panic!("{line}"));
    match rest.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next().unwrap(),
        None => rest.split(' ').next().unwrap(),
    }
}

#[test]
fn diagnostics_name_an_endpoint_that_fails_at_most_once_a_second() {
    for driver in ["io_uring", "epoll"] {
        let (dead, alive) = (free_port(), Named::start("alive"));
        let mut gate = start(&[dead.address(), alive.address()], 2, driver);
        let (begin, mut connections) = (Instant::now(), 0);
        let told = || gate.lines().iter().filter(|line| line.contains("endpoint failed")).count();
        while told() < 3 {
            assert!(begin.elapsed() < LONG, "{} lines", told());
            assert_eq!(name_of_who_answers(&gate), "alive");
            connections += 1;
        }
        gate.signal(Signal::TERM);
        assert_eq!(gate.wait_exit(SHORT).code(), Some(0));
        let ran = begin.elapsed().as_secs_f64();
        let mut lines = gate.lines();
        lines.retain(|line| line.contains("endpoint failed"));
        // One at once, one a second, and at the end what was not told yet.
        let most = ran.ceil() as usize + 2;
        assert!(lines.len() <= most && ran > 2.0, "{lines:#?} in {ran} s");
        for line in &lines {
            assert!(line.contains(" WARN "), "{line}");
            assert_eq!(field(line, "cluster"), "backend");
            assert_eq!(field(line, "endpoint"), dead.address().to_string());
            assert_eq!(field(line, "reason"), "Connection refused");
        }
        let told = lines.iter().map(|line| field(line, "failures").parse::<u64>().unwrap());
        let failed = gate.records(connections);
        let failed = failed.iter().filter(|record| !record.list("failed_endpoints").is_empty());
        assert_eq!(told.sum::<u64>(), failed.count() as u64, "{lines:#?}");
    }
}
