//! ringgate as the service of a manager such as systemd: what it says, what it is handed, what is
//! stored for it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    Echo, Manager, SHORT, SOON, UdpEcho, connect, free_port, holds_for, l4, require, reset,
    wait_for,
};

pub(crate) const BOTH: [&str; 2] = ["io_uring", "epoll"];

/// The part `[server]`.
pub(crate) fn driver(driver: &str) -> String {
    format!("workers = 2\ndriver = \"{driver}\"\ndrain_timeout = \"1h\"")
}

/// A tcp listener `ingress` and a udp listener `dns`.
fn both(tcp: &Echo, udp: &UdpEcho) -> String {
    let udp = format!(
        "[[listener]]\nname = \"dns\"\nlisten = \"127.0.0.1:0\"\nprotocol = \"udp\"\n\
         cluster = \"servers\"\n[cluster.servers]\nendpoints = [\"{}\"]\n",
        udp.address()
    );
    udp + &l4(tcp.address(), "", "")
}

/// Sends a byte, and waits for its echo.
#[track_caller]
pub(crate) fn round_trip(stream: &mut TcpStream) {
    stream.write_all(b"x").unwrap();
    stream.read_exact(&mut [0]).unwrap();
}

/// Waits until connects are refused. A stored socket would let them wait.
#[track_caller]
pub(crate) fn expect_refused(address: SocketAddr) {
    let is_refused = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    wait_for("connects are refused", SHORT, || {
        TcpStream::connect_timeout(&address, Duration::from_secs(1)).err().filter(is_refused)
    });
}

#[test]
fn the_manager_hears_when_it_serves_and_when_it_ends() {
    let echo = Echo::start();
    for options in [json!({}), json!({ "abstract": true })] {
        let config = l4(echo.address(), "", "");
        let server = "workers = 1\ndrain_delay = \"100ms\"";
        let mut manager = Manager::start(&options, server, &config);
        manager.line_with("notify READY=1|STATUS=Serving");
        manager.rewrite(server, "[serve]\n");
        manager.signal(Signal::HUP);
        manager.line_with("notify READY=1|STATUS=Serving. The last reload failed: see the log");
        manager.stop();
        manager.signal(Signal::TERM);
        manager.wait_exit(SOON);
        let said = |part: &str| manager.count(part);
        assert_eq!(said("notify STOPPING=1|STATUS=Accepting connections until drain_delay"), 1);
        assert_eq!(said("notify STOPPING=1|STATUS=Draining"), 1);
        assert_eq!((said("ended 0"), said("WATCHDOG"), said("FDSTORE")), (1, 0, 0));
    }
}

#[test]
fn the_watchdog_gets_its_beats_also_after_a_stop_of_the_process() {
    let echo = Echo::start();
    for name in BOTH {
        let config = l4(echo.address(), "", "");
        let mut manager = Manager::start(&json!({ "watchdog": 4 }), &driver(name), &config);
        manager.wait_count("notify WATCHDOG=1", 2);
        manager.signal(Signal::STOP);
        holds_for("a stop", Duration::from_secs(1), || true);
        manager.signal(Signal::CONT);
        let before = manager.count("notify WATCHDOG=1");
        manager.wait_count("notify WATCHDOG=1", before + 2);
        assert_eq!(manager.count("watchdog expired"), 0, "over {name}");
    }
}

#[test]
fn a_worker_that_does_not_tick_lets_the_watchdog_expire() {
    // The workers' event loop stands still from its hundredth turn on. The main thread does not use
    // this call.
    let mut strace = require("strace");
    strace.args(["-D", "-f", "-q", "-o", "/dev/null", "-e", "trace=io_uring_enter"]);
    strace.args(["-e", "inject=io_uring_enter:delay_enter=60000000:when=100+"]);
    let config = l4(Echo::start().address(), "", "");
    let options = json!({ "watchdog": 2 });
    let manager = Manager::spawn(&options, &driver("io_uring"), &config, Some(strace));
    manager.line_with("notify READY=1");
    manager.line_with("watchdog expired");
}

#[test]
fn a_manager_that_does_not_read_holds_nothing_up() {
    let echo = Echo::start();
    // More sockets than datagrams can wait (net.unix.max_dgram_qlen).
    let listeners = (0..300).map(|at| {
        format!(
            "[[listener]]\nname = \"l{at}\"\nlisten = \"127.0.0.1:0\"\nprotocol = \"tcp\"\n\
             cluster = \"backend\"\n"
        )
    });
    let config = listeners.collect::<String>() + &l4(echo.address(), "", "");
    let options = json!({ "silent": true, "fdstore": 10_000, "watchdog": 1 });
    let mut manager = Manager::start(&options, "workers = 2", &config);
    round_trip(&mut connect(manager.address("ingress")));
    manager.stop();
    manager.signal(Signal::TERM);
    manager.wait_exit(SOON);
    assert_eq!(manager.count("ended 0"), 1);
}

#[test]
fn descriptors_that_no_listener_can_use_are_closed_with_a_warning() {
    let sockets = json!([
        { "name": "deaf", "kind": "tcp", "listen": false },
        { "name": "packets", "kind": "packets" },
        { "name": "nowhere", "kind": "abstract" },
    ]);
    let config = l4(Echo::start().address(), "", "");
    let manager = Manager::start(&json!({ "sockets": sockets }), "workers = 1", &config);
    let reasons = [
        ("deaf", "it does not listen"),
        ("packets", "it is no socket of TCP"),
        ("nowhere", "it has no path"),
    ];
    for (name, reason) in reasons {
        let line = manager.line_with(&format!("name=\"{name}\""));
        assert!(line.contains("cannot be used, and is closed") && line.contains(reason), "{line}");
    }
    round_trip(&mut connect(manager.address("ingress")));
}

#[test]
fn sockets_are_stored_while_it_serves_and_removed_before_it_refuses() {
    let (echo, udp) = (Echo::start(), UdpEcho::start("a"));
    for says in [true, false] {
        let options = json!({ "fdstore": 16, "says": says });
        let mut manager = Manager::start(&options, &driver("io_uring"), &both(&echo, &udp));
        let (ingress, dns) = (manager.address("ingress"), manager.address("dns"));
        manager.line_with("notify READY=1");
        // One for each worker, stored by the time that it is ready.
        assert_eq!(manager.count(&format!("stored tcp-{}-", ingress.port())), 2);
        assert_eq!(manager.count(&format!("stored udp-{}-", dns.port())), 2);
        let mut tunnel = connect(ingress);
        round_trip(&mut tunnel);
        manager.stop();
        manager.signal(Signal::TERM);
        expect_refused(ingress);
        assert_eq!(manager.count("removed "), 4);
        round_trip(&mut tunnel);
        drop(tunnel);
        manager.wait_exit(SOON);
    }
}

#[test]
fn a_store_that_is_too_small_is_said() {
    let (echo, udp) = (Echo::start(), UdpEcho::start("a"));
    let stored = |options: &Value| {
        let manager = Manager::start(options, &driver("epoll"), &both(&echo, &udp));
        manager.line_with("notify READY=1");
        manager
    };
    let mut manager = stored(&json!({ "fdstore": 2 }));
    let line = manager.line_with("the service manager stores no more sockets");
    assert!(line.contains("sockets=2"), "{line}");
    // One of each address.
    assert_eq!((manager.count("stored tcp-"), manager.count("stored udp-")), (1, 1));
    for reloads in 2..4 {
        manager.signal(Signal::HUP);
        manager.wait_count("notify READY=1", reloads);
    }
    assert_eq!(manager.count("the service manager stores no more sockets"), 1);
    let manager = stored(&json!({ "fdstore": 0 }));
    assert_eq!(manager.count("stored"), 0);
}

#[test]
fn a_reload_is_announced_and_changes_what_is_stored() {
    let (echo, udp) = (Echo::start(), UdpEcho::start("a"));
    let server = driver("epoll");
    let options = json!({ "fdstore": 16 });
    let mut manager = Manager::start(&options, &server, &both(&echo, &udp));
    let dns = manager.address("dns").port();
    manager.wait_count("notify READY=1", 1);
    let more = "[[listener]]\nname = \"more\"\nlisten = \"127.0.0.1:0\"\nprotocol = \"tcp\"\n\
                cluster = \"backend\"\n";
    manager.rewrite(&server, &(more.to_owned() + &l4(echo.address(), "", "")));
    manager.signal(Signal::HUP);
    manager.wait_count("notify READY=1", 2);
    let line = manager.line_with("notify RELOADING=1|MONOTONIC_USEC=");
    let time = line.split("USEC=").nth(1).unwrap().split('|').next().unwrap();
    assert!(time.parse::<u64>().unwrap() > 0, "{line}");
    assert_eq!((manager.count("stored tcp-"), manager.count("stored udp-")), (4, 2));
    assert_eq!(manager.count(&format!("removed udp-{dns}-")), 2);
    assert_eq!(manager.count("removed "), 2);

    // One that fails is over, too.
    manager.rewrite(&server, "nothing");
    manager.signal(Signal::HUP);
    manager.wait_count("notify READY=1", 3);
    assert_eq!((manager.count("stored "), manager.count("removed ")), (6, 2));
    round_trip(&mut connect(manager.address("ingress")));
}

#[test]
fn a_socket_of_the_manager_for_both_families_is_said() {
    let ipv6 = free_port().number();
    let sockets = json!([{ "name": "dual", "kind": "both", "port": ipv6 }]);
    let config =
        l4(Echo::start().address(), "", "").replacen("127.0.0.1:0", &format!("[::]:{ipv6}"), 1);
    let manager = Manager::start(&json!({ "sockets": sockets }), "workers = 1", &config);
    let line = manager.line_with("takes IPv4, too");
    assert!(line.contains("BindIPv6Only=ipv6-only") && line.contains("dual"), "{line}");
}

/// Ends the clients when the test ends, also when it fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Opens connections until `is_over`, and counts those that were served. Those that are lost with
/// the process are not; but each connect must succeed.
fn connects(to: SocketAddr, is_over: &AtomicBool, served: &AtomicUsize) {
    while !is_over.load(Ordering::Relaxed) {
        let mut stream = connect(to);
        let mut byte = [0];
        if stream.write_all(b"x").is_ok() && stream.read_exact(&mut byte).is_ok() {
            served.fetch_add(1, Ordering::Relaxed);
        }
        // Without a TIME_WAIT: there are many.
        reset(stream);
    }
}

/// A datagram and its answer, which may take several tries while the service is started again.
fn udp_round_trip(to: SocketAddr) {
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    wait_for("a reply", SHORT, || {
        client.send_to(b"x", to).unwrap();
        client.recv(&mut [0; 64]).ok()
    });
}

#[test]
fn a_process_that_is_killed_refuses_nobody() {
    for name in BOTH {
        let (echo, udp) = (Echo::start(), UdpEcho::start("a"));
        let options = json!({ "fdstore": 16 });
        let mut manager = Manager::start(&options, &driver(name), &both(&echo, &udp));
        let (ingress, dns) = (manager.address("ingress"), manager.address("dns"));
        manager.line_with("notify READY=1");
        let (is_over, served) = (AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            let clients = (0..3).map(|_| scope.spawn(|| connects(ingress, &is_over, &served)));
            let clients: Vec<_> = clients.collect();
            let over = Over(&is_over);
            for kills in 1..=10 {
                manager.signal(Signal::KILL);
                manager.wait_count("ended 9", kills);
                manager.wait_count("notify READY=1", kills + 1);
                let before = served.load(Ordering::Relaxed);
                wait_for("connections are served", SHORT, || {
                    (served.load(Ordering::Relaxed) > before + 20).then_some(())
                });
                udp_round_trip(dns);
            }
            drop(over);
            for client in clients {
                client.join().expect("each connect succeeds");
            }
        });
        // The same sockets are used and stay stored, and the store does not grow.
        assert_eq!((manager.count("stored "), manager.count("removed ")), (4, 0), "over {name}");
        assert_eq!(manager.count("name=ingress protocol=tcp"), 11);
        let ports = manager.count(&format!("address={ingress}"));
        assert_eq!(ports, 11, "over {name}");
        manager.stop();
        manager.signal(Signal::TERM);
        expect_refused(ingress);
        manager.wait_exit(SOON);
        assert_eq!(manager.count("removed "), 4, "over {name}");
    }
}

#[test]
fn sockets_of_the_manager_are_used_by_their_addresses() {
    for name in BOTH {
        let (echo, udp) = (Echo::start(), UdpEcho::start("a"));
        let ports = [free_port().number(), free_port().number(), free_port().number()];
        let sockets = json!([
            { "name": "any", "kind": "tcp", "port": ports[0] },
            { "name": "dns", "kind": "udp", "port": ports[1] },
            { "name": "unused", "kind": "tcp", "port": ports[2] },
        ]);
        let config = both(&echo, &udp)
            .replacen("127.0.0.1:0", &format!("127.0.0.1:{}", ports[1]), 1)
            .replacen("127.0.0.1:0", &format!("127.0.0.1:{}", ports[0]), 1);
        let options = json!({ "sockets": sockets, "fdstore": 16 });
        let mut manager = Manager::start(&options, &driver(name), &config);
        let (ingress, dns) = (manager.address("ingress"), manager.address("dns"));
        assert_eq!((ingress.port(), dns.port()), (ports[0], ports[1]));
        manager.line_with("an inherited socket is closed");
        manager.line_with("notify READY=1");
        for _ in 0..20 {
            round_trip(&mut connect(ingress));
        }
        udp_round_trip(dns);
        // The manager keeps its own, so the others are stored: each worker has one more.
        assert_eq!((manager.count("stored tcp-"), manager.count("stored udp-")), (1, 1));
        // When the service has ended, clients wait for the next one.
        manager.signal(Signal::TERM);
        manager.wait_count("ended 0", 1);
        round_trip(&mut connect(ingress));
        manager.stop();
    }
}

#[test]
fn a_successor_becomes_the_main_process_and_has_the_store() {
    for name in BOTH {
        let (echo, udp) = (Echo::start(), UdpEcho::start("a"));
        let options = json!({ "fdstore": 16, "watchdog": 4 });
        let mut manager = Manager::start(&options, &driver(name), &both(&echo, &udp));
        let (ingress, dns) = (manager.address("ingress"), manager.address("dns"));
        manager.wait_count("notify READY=1", 1);
        manager.signal(Signal::USR2);
        manager.line_with("notify MAINPID=");
        manager.wait_count("notify READY=1", 2);
        round_trip(&mut connect(ingress));
        udp_round_trip(dns);
        let beats = manager.count("notify WATCHDOG=1");
        manager.wait_count("notify WATCHDOG=1", beats + 2);
        // The predecessor has ended, and has neither said that the service ends nor removed
        // anything.
        assert_eq!(manager.count("ignored"), 0, "over {name}");
        assert_eq!(manager.count("notify STOPPING=1"), 0, "over {name}");
        assert_eq!((manager.count("stored "), manager.count("removed ")), (4, 0), "over {name}");
        manager.signal(Signal::KILL);
        manager.wait_count("notify READY=1", 3);
        round_trip(&mut connect(ingress));
        manager.stop();
        manager.signal(Signal::TERM);
        expect_refused(ingress);
        manager.wait_exit(SOON);
        assert_eq!(manager.count("removed "), 4, "over {name}");
        assert_eq!(manager.count("watchdog expired"), 0, "over {name}");
    }
}

#[test]
fn a_stop_after_a_take_over_drains() {
    for name in BOTH {
        let echo = Echo::start();
        let config = l4(echo.address(), "", "");
        let mut manager = Manager::start(&json!({}), &driver(name), &config);
        let ingress = manager.address("ingress");
        for taken_over in 1..=2 {
            manager.signal(Signal::USR2);
            manager.wait_count("notify MAINPID=", taken_over);
            manager.wait_count("notify READY=1", taken_over + 1);
        }
        let mut tunnel = connect(ingress);
        round_trip(&mut tunnel);
        manager.end();
        expect_refused(ingress);
        round_trip(&mut tunnel);
        drop(tunnel);
        manager.wait_exit(SOON);
        assert_eq!(manager.count("ended 0"), 1, "over {name}");
        assert_eq!((manager.count(" own"), manager.count(" alien")), (2, 0), "over {name}");
    }
}
