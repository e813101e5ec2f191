//! What many clients, or a greedy one, may take from the others: turns of the worker, and memory.

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::path::Path;

use rustix::process::Signal;

use crate::support::{
    Authority, HttpClient, LONG, Ringgate, SHORT, Setup, TlsClient, UPGRADE, Upstream,
    allow_descriptors, bytes, free_port, http2_settings, proxied, read_until, require, slow_reader,
    stream_site, wait_for,
};

const MIB: usize = 1024 * 1024;
const GET: &str = "GET /a HTTP/1.1\r\nHost: live.example.test\r\n\r\n";

/// Serves over epoll with one worker while its calls are written down. Returns the longest row of
/// calls with this name between two waits of the worker.
#[track_caller]
fn longest_row(config: String, call: &str, serve: impl FnOnce(&Ringgate)) -> usize {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("trace");
    let mut strace = require("strace");
    let calls = format!("trace=epoll_wait,epoll_pwait,epoll_pwait2,{call}");
    strace.args(["-D", "-f", "-q", "-e", &calls, "-o"]).arg(&file);
    let server = "workers = 1\ndriver = \"epoll\"".to_owned();
    let mut gate = Setup { config, server, through: Some(strace), ..Setup::default() }.start();
    serve(&gate);
    let main = gate.pid().to_string();
    gate.signal(Signal::KILL);
    gate.wait_exit(SHORT);
    let trace = whole_trace(&file, &main);
    let named = |line: &str| line.contains(&format!(" {call}("));
    let worker = trace.lines().find(|line| named(line)).expect("it calls that");
    let worker = worker.split_inclusive(' ').next().unwrap();
    let (mut row, mut longest) = (0, 0);
    for line in trace.lines().filter(|line| line.starts_with(worker)) {
        row = if named(line) { row + 1 } else { 0 };
        longest = longest.max(row);
    }
    longest
}

#[track_caller]
fn whole_trace(file: &Path, main: &str) -> String {
    wait_for("the whole trace", SHORT, || {
        let trace = std::fs::read_to_string(file).ok()?;
        let ended = |line: &str| line.starts_with(main) && line.contains("+++ killed");
        trace.lines().any(ended).then_some(trace)
    })
}

#[test]
fn over_epoll_the_body_of_a_refused_upgrade_takes_turns_with_others() {
    let backend = Upstream::listen();
    let row = longest_row(stream_site(backend.address(), ""), "recvfrom", |gate| {
        let mut client = HttpClient::connect(gate.address("web"));
        client.send(UPGRADE);
        let mut upstream = backend.accept();
        read_until(&mut upstream, b"\r\n\r\n");
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let head = format!("HTTP/1.1 403 No\r\nContent-Length: {}\r\n\r\n", 64 * MIB);
                upstream.write_all(head.as_bytes()).unwrap();
                upstream.write_all(&vec![b'x'; 64 * MIB]).unwrap();
                upstream
            });
            assert_eq!(client.response().body.len(), 64 * MIB);
        });
    });
    // A wait is a turn; after 64 the others have theirs.
    assert!(row <= 70, "{row} reads in a row");
}

#[test]
fn over_epoll_a_client_that_always_asks_takes_turns_with_others() {
    const REQUESTS: usize = 4000;
    // A read takes 17 KiB at most, so that there is always more to read.
    let site = stream_site(free_port().address(), "");
    let site = site.replacen("protocol", "max_head = \"1KiB\"\nprotocol", 1);
    let row = longest_row(site, "recvfrom", |gate| {
        let mut client = HttpClient::connect(gate.address("web"));
        let mut asks = client.stream.try_clone().unwrap();
        let requests = GET.replacen("\r\n\r\n", &format!("\r\nX: {}\r\n\r\n", "x".repeat(900)), 1);
        std::thread::scope(|scope| {
            scope.spawn(move || asks.write_all(requests.repeat(REQUESTS).as_bytes()).unwrap());
            (0..REQUESTS).for_each(|_| assert_eq!(client.response().status, 301));
        });
    });
    assert!(row <= 70, "{row} reads in a row");
}

/// A task that wakes itself runs before all others, so a connection of HTTP/2 had all turns while
/// it had something to read.
#[test]
fn over_epoll_frames_of_http_2_take_turns_with_others() {
    let authority = Authority::new("authority");
    let rule = authority.signs(&["site.test"]).rule(&["site.test"], "");
    let site = proxied(&format!("\"{}\"", free_port().address()), &rule, "", "");
    let row = longest_row(site, "recvfrom", |gate| {
        let (edge, settings) = (gate.address("web"), http2_settings(&authority));
        let mut client = TlsClient::connect(edge, &settings, "site.test");
        client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        client.send(b"\x00\x00\x00\x04\x00\x00\x00\x00\x00");
        // A frame of a type that is not known is ignored (RFC 9113 section 4.1).
        let frame = [&[0, 0x40, 0, 0xbe, 0, 0, 0, 0, 0][..], &[b'x'; 16 * 1024]].concat();
        let many = client.records(&frame.repeat(1024));
        client.socket.write_all(&many).unwrap();
        // It is still served.
        client.send(b"\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678");
        while client.http2_frame() != (6, b"12345678".to_vec()) {}
    });
    // A read finds a record, and another one that there is no more: 64 waits are a turn.
    assert!(row <= 150, "{row} reads in a row");
}

/// Clients of a UDP listener, and an endpoint of it, of which one sends without a pause.
#[track_caller]
fn longest_row_of_datagrams(from_client: bool) -> usize {
    let upstream = UdpSocket::bind("127.0.0.1:0").unwrap();
    upstream.set_read_timeout(Some(SHORT)).unwrap();
    let config = format!(
        "[[listener]]\nname = \"udp\"\nlisten = \"127.0.0.1:0\"\nprotocol = \"udp\"\n\
         cluster = \"udp\"\n[cluster.udp]\nendpoints = [\"{}\"]\n",
        upstream.local_addr().unwrap()
    );
    longest_row(config, "recvmmsg", |gate| {
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(gate.address("udp")).unwrap();
        client.send(b"first").unwrap();
        let (_, session) = upstream.recv_from(&mut [0; 10]).unwrap();
        upstream.connect(session).unwrap();
        let (from, to) = if from_client { (&client, &upstream) } else { (&upstream, &client) };
        [from, to].iter().for_each(|socket| socket.set_nonblocking(true).unwrap());
        // A receive takes 32 at most. There are always more: what there is no room for is lost.
        let mut received = 0;
        wait_for("that many are received", LONG, || {
            for number in 0..500_usize {
                let _ = from.send(&[b'x'; 4][..1 + number % 4]);
            }
            received += std::iter::from_fn(|| to.recv(&mut [0; 10]).ok()).count();
            (received > 10_000).then_some(())
        });
    })
}

#[test]
fn over_epoll_datagrams_without_a_pause_take_turns_with_others() {
    for from_client in [true, false] {
        let row = longest_row_of_datagrams(from_client);
        assert!(row <= 70, "{row} receives in a row, from a client: {from_client}");
    }
}

#[test]
fn over_epoll_pages_that_were_asked_for_together_take_turns_with_others() {
    const PAGES: usize = 200;
    let page = "x".repeat(20_000);
    let config = format!(
        "[[listener]]\nname = \"web\"\nlisten = \"127.0.0.1:0\"\nprotocol = \"http\"\n\
         [[listener.host]]\n[[listener.host.route]]\nprefix = \"/\"\n\
         respond = {{ body = \"{page}\" }}\n"
    );
    let row = longest_row(config, "sendto", |gate| {
        let mut client = HttpClient::connect(gate.address("web"));
        client.send(GET.repeat(PAGES));
        (0..PAGES).for_each(|_| assert_eq!(client.response().body.len(), page.len()));
    });
    // The head of a page and its body.
    assert!(row <= 10, "{row} sends in a row");
}

#[test]
fn over_epoll_many_new_connections_take_turns_with_others() {
    let row = longest_row(stream_site(free_port().address(), ""), "accept4", |gate| {
        let address = gate.address("web");
        // Faster than a worker accepts whose calls are written down.
        let clients: Vec<TcpStream> =
            (0..1000).map(|_| TcpStream::connect(address).unwrap()).collect();
        let mut client = HttpClient::connect(address);
        client.send(GET);
        assert_eq!(client.response().status, 301);
        drop(clients);
    });
    assert!(row <= 65, "{row} accepts in a row");
}

/// What a worker may keep, in KiB.
const BUDGET: u64 = 64 * 1024;

/// Starts one worker, and returns it with the memory that it has before there is a client.
fn start(config: String) -> (Ringgate, u64) {
    allow_descriptors(15_000);
    let gate = Setup { config, server: "workers = 1".to_owned(), ..Setup::default() }.start();
    redirected(&gate);
    let memory = gate.anonymous_kib();
    (gate, memory)
}

#[track_caller]
fn redirected(gate: &Ringgate) {
    let mut client = HttpClient::connect(gate.address("web"));
    // Its turn comes after those of all others.
    client.stream.set_read_timeout(Some(LONG)).unwrap();
    client.send(GET);
    assert_eq!(client.response().status, 301);
}

#[test]
fn half_heads_take_no_more_than_the_budget() {
    const CLIENTS: usize = 6000;
    let (gate, before) = start(stream_site(free_port().address(), ""));
    let half = format!("{}X: {}", &GET[..GET.len() - 2], "x".repeat(15_000));
    let mut clients: Vec<HttpClient> = (0..CLIENTS)
        .map(|_| {
            let mut client = HttpClient::connect(gate.address("web"));
            client.send(&half);
            client
        })
        .collect();
    // What does not fit is refused, and the refusal says why.
    let overflows = gate.records_where(1, |record| record.end() == "overflow");
    assert_eq!(overflows[0].number("status"), 503);
    assert_eq!(clients.last_mut().unwrap().response().status, 503);
    let mut head = HttpClient::connect(gate.address("web"));
    head.send(half.replacen("GET", "HEAD", 1));
    assert_eq!(head.head_only().status, 503);
    head.expect_end();
    let memory = gate.anonymous_kib() - before;
    assert!(memory < BUDGET + CLIENTS as u64 * 3, "{memory} KiB");
    // A request that arrives whole, or a short one in pieces, needs no more than there is.
    redirected(&gate);
    let mut client = HttpClient::connect(gate.address("web"));
    crate::support::send_slowly(
        &mut client.stream,
        &[&GET.as_bytes()[..20], &GET.as_bytes()[20..]],
    );
    assert_eq!(client.response().status, 301);
    // What the others give back can be used again.
    drop(clients);
    wait_for("half a head has room again", LONG, || {
        let mut client = HttpClient::connect(gate.address("web"));
        crate::support::send_slowly(&mut client.stream, &[half.as_bytes(), b"\r\n\r\n"]);
        (client.response().status == 301).then_some(())
    });
}

#[test]
fn clients_that_do_not_read_a_refusal_take_little_each() {
    const CLIENTS: usize = 1000;
    let backend = Upstream::listen();
    let (gate, before) = start(stream_site(backend.address(), ""));
    let body = vec![b'x'; MIB];
    let head = format!("HTTP/1.1 403 No\r\nContent-Length: {}\r\n\r\n", body.len() * 100);
    let mut ends = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = HttpClient::connect(gate.address("web"));
        client.send(UPGRADE);
        let mut upstream = backend.accept();
        read_until(&mut upstream, b"\r\n\r\n");
        upstream.write_all(head.as_bytes()).unwrap();
        upstream.set_nonblocking(true).unwrap();
        ends.push((client, upstream));
    }
    for _ in 0..3 {
        for (_, upstream) in &mut ends {
            while upstream.write(&body).is_ok() {}
        }
    }
    let memory = gate.anonymous_kib() - before;
    assert!(memory < CLIENTS as u64 * 26, "{memory} KiB for {CLIENTS} clients");
}

#[test]
fn early_bytes_take_no_more_than_the_budget_and_none_are_lost() {
    const CLIENTS: usize = 1500;
    let backend = Upstream::listen();
    let (gate, before) = start(stream_site(backend.address(), ""));
    let payload = bytes(5, 64 * 1024);
    let mut ends = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = HttpClient::connect(gate.address("web"));
        client.send(UPGRADE);
        client.send(&payload);
        let mut upstream = backend.accept();
        read_until(&mut upstream, b"\r\n\r\n");
        ends.push((client, upstream));
    }
    let memory = gate.anonymous_kib() - before;
    assert!(memory < BUDGET + CLIENTS as u64 * 10, "{memory} KiB for {CLIENTS} clients");
    for index in [0, CLIENTS - 1] {
        let upstream = &mut ends[index].1;
        upstream.write_all(crate::support::SWITCHING.as_bytes()).unwrap();
        let mut received = vec![0; payload.len()];
        upstream.read_exact(&mut received).unwrap();
        assert!(received == payload, "the bytes are not what was sent");
    }
}

#[test]
fn responses_that_are_not_read_take_no_more_than_the_budget() {
    const CLIENTS: usize = 1400;
    let page = "x".repeat(3000);
    let route =
        format!("[[listener.host.route]]\npath = \"/page\"\nrespond = {{ body = \"{page}\" }}\n");
    let site = stream_site(free_port().address(), "");
    let at = site.find("[[listener.host.route]]").unwrap();
    let (gate, before) = start(format!("{}{route}{}", &site[..at], &site[at..]));
    let requests = GET.replacen("/a", "/page", 1).repeat(200);
    let clients: Vec<TcpStream> = (0..CLIENTS)
        .map(|_| {
            let mut client = slow_reader(gate.address("web"));
            client.write_all(requests.as_bytes()).unwrap();
            client
        })
        .collect();
    redirected(&gate);
    let memory = gate.anonymous_kib() - before;
    assert!(memory < BUDGET + CLIENTS as u64 * 10, "{memory} KiB for {CLIENTS} clients");
    drop(clients);
}

#[test]
fn upgrades_whose_upstream_is_not_connected_yet_count_in_the_budget() {
    const CLIENTS: usize = 3000;
    let blackhole = crate::support::Blackhole::new();
    let cluster = "connect_timeout = \"1m\"\n";
    let endpoint = format!("\"{}\"", blackhole.address());
    let route = "path = \"/stream\"\nearly_data = true";
    let (gate, before) = start(crate::support::site(&endpoint, "", route, cluster));
    let payload = vec![b'x'; 64 * 1024];
    let clients: Vec<HttpClient> = (0..CLIENTS)
        .map(|_| {
            let mut client = HttpClient::connect(gate.address("web"));
            // Together, so that they are read together.
            client.send([UPGRADE.as_bytes(), &payload].concat());
            client
        })
        .collect();
    redirected(&gate);
    let memory = gate.anonymous_kib() - before;
    assert!(memory < BUDGET + CLIENTS as u64 * 12, "{memory} KiB for {CLIENTS} clients");
    drop(clients);
}

#[test]
fn a_101_with_payload_behind_it_passes_when_the_budget_is_spent() {
    const CLIENTS: usize = 1150;
    let backend = Upstream::listen();
    let (gate, _before) = start(stream_site(backend.address(), ""));
    let open = || {
        let mut client = HttpClient::connect(gate.address("web"));
        client.send(UPGRADE);
        let mut upstream = backend.accept();
        read_until(&mut upstream, b"\r\n\r\n");
        (client, upstream)
    };
    let mut ends: Vec<_> = (0..CLIENTS).map(|_| open()).collect();
    let payload = bytes(5, 64 * 1024);
    ends.iter_mut().for_each(|(client, _)| client.send(&payload));
    let (mut client, mut upstream) = open();
    let behind = bytes(6, 60_000);
    upstream.write_all(&[crate::support::SWITCHING.as_bytes(), &behind].concat()).unwrap();
    assert_eq!(client.head_only().status, 101);
    client.expect_bytes(&behind);

    // Clients that have left give back what was kept for them, also without an answer.
    let open_before = gate.descriptors();
    let upstreams: Vec<TcpStream> = ends.into_iter().map(|(_, upstream)| upstream).collect();
    wait_for("their connections are closed", LONG, || {
        (gate.descriptors() + 2 * CLIENTS <= open_before + 100).then_some(())
    });
    drop(upstreams);
}
