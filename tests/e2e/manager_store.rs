//! The service manager's store of sockets: in step with what the process serves, also beside a
//! manager that does not read or is away.

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::json;

use crate::manager::{BOTH, driver, expect_refused, round_trip};
use crate::support::{Echo, Manager, SHORT, SOON, connect, free_port, l4, wait_for};

/// A listener with a name, at a port that the kernel chooses.
fn listener(name: &str) -> String {
    format!(
        "[[listener]]\nname = \"{name}\"\nlisten = \"127.0.0.1:0\"\nprotocol = \"tcp\"\n\
         cluster = \"backend\"\n"
    )
}

/// A listener at a path.
fn unix_listener(path: &Path) -> String {
    listener("path").replace("127.0.0.1:0", &format!("unix:{}", path.display()))
}

#[test]
fn reloads_beside_a_manager_that_does_not_read_take_no_memory() {
    let echo = Echo::start();
    let config = l4(echo.address(), "", "");
    let configs: Vec<String> =
        ["a", "b"].map(|name| (0..8).map(|at| listener(&format!("{name}{at}"))).collect()).into();
    let options = json!({ "silent": true, "fdstore": 1000, "watchdog": 1 });
    let mut manager = Manager::start(&options, "workers = 1", &(configs[0].clone() + &config));
    let measure = |manager: &Manager| {
        let status = fs::read_to_string(manager.proc().join("status")).unwrap();
        let anonymous = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        let kib: usize = anonymous.trim().trim_end_matches(" kB").parse().unwrap();
        (fs::read_dir(manager.proc().join("fd")).unwrap().count(), kib)
    };
    let reload = |manager: &mut Manager, reloads: usize| {
        manager.rewrite("workers = 1", &(configs[reloads % 2].clone() + &config));
        manager.signal(Signal::HUP);
        manager.wait_count(" reloaded ", reloads);
    };
    (1..=20).for_each(|at| reload(&mut manager, at));
    let (files, kib) = measure(&manager);
    (21..=200).for_each(|at| reload(&mut manager, at));
    let (files_now, kib_now) = measure(&manager);
    assert!(files_now <= files + 4, "{files} descriptors, then {files_now}");
    assert!(kib_now < kib + 4096, "{kib} KiB, then {kib_now}");

    // It learns the last state when it reads again.
    manager.tell("hear");
    wait_for("the store is that of the last reload", SHORT, || {
        let gone = manager.count("removed ") + manager.count("not stored ");
        let is_ready = manager.count("notify READY=1") > 0;
        (manager.count("stored ") == gone + 9 && is_ready).then_some(())
    });
    round_trip(&mut connect(manager.address("ingress")));
}

#[test]
fn sockets_leave_the_store_before_their_workers_close_them() {
    let echo = Echo::start();
    for name in BOTH {
        let server = driver(name).replace("workers = 2", "workers = 1");
        let config = l4(echo.address(), "", "");
        let options = json!({ "fdstore": 16, "probe": true });
        let mut manager = Manager::start(&options, &server, &(listener("more") + &config));
        manager.line_with("notify READY=1");
        let (more, ingress) = (manager.address("more"), manager.address("ingress"));
        manager.rewrite(&server, &config);
        manager.signal(Signal::HUP);
        manager.line_with(&format!("removed tcp-{}-", more.port()));
        assert_eq!(manager.count(&format!("served tcp-{}-", more.port())), 1, "over {name}");
        expect_refused(more);
        manager.wait_count("notify READY=1", 2);
        manager.stop();
        manager.signal(Signal::TERM);
        manager.line_with(&format!("removed tcp-{}-", ingress.port()));
        assert_eq!(manager.count("not served"), 0, "over {name}");
        expect_refused(ingress);
        manager.wait_exit(SOON);
    }
}

#[test]
fn a_manager_that_was_away_gets_the_whole_store_again() {
    let echo = Echo::start();
    let config = l4(echo.address(), "", "");
    // The next event, or some seconds.
    for reloads_again in [true, false] {
        let options = json!({ "fdstore": 16 });
        let mut manager = Manager::start(&options, "workers = 2", &config);
        manager.line_with("notify READY=1");
        assert_eq!(manager.count("stored "), 2);
        manager.tell("lose");
        manager.line_with("lost");
        manager.rewrite("workers = 2", &(listener("more") + &config));
        manager.signal(Signal::HUP);
        manager.line_with(" reloaded ");
        manager.line_with("cannot notify the service manager");
        manager.tell("find");
        manager.line_with("found");
        if reloads_again {
            manager.signal(Signal::HUP);
        }
        manager.wait_count("notify READY=1", 2);
        manager.wait_count("stored tcp-", 6);
        let ports = ["ingress", "more"].map(|name| manager.address(name).port());
        let stored = ports.map(|port| manager.count(&format!("stored tcp-{port}-")));
        assert_eq!(stored, [4, 2]);
        manager.line_with("the service manager can be notified again");
    }
}

#[test]
fn stored_sockets_that_a_new_configuration_does_not_have_are_gone_after_a_restart() {
    let echo = Echo::start();
    // With port 0 it could be given the other one's.
    let ingress = format!("127.0.0.1:{}", free_port().number());
    let config = l4(echo.address(), "", "").replacen("127.0.0.1:0", &ingress, 1);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("path.sock");
    let gone = listener("more") + &unix_listener(&path);
    let options = json!({ "fdstore": 16 });
    let mut manager = Manager::start(&options, "workers = 2", &(gone + &config));
    manager.line_with("notify READY=1");
    let more = manager.address("more");
    assert!(path.exists());
    manager.rewrite("workers = 2", &config);
    manager.signal(Signal::KILL);
    manager.wait_count("notify READY=1", 2);
    assert_eq!((manager.count("removed tcp-"), manager.count("removed unix-")), (2, 1));
    assert!(!path.exists());
    expect_refused(more);
    round_trip(&mut connect(manager.address("ingress")));
}

#[test]
fn a_stored_unix_socket_without_its_path_is_bound_anew() {
    let echo = Echo::start();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("path.sock");
    let config = unix_listener(&path) + &l4(echo.address(), "", "");
    let options = json!({ "fdstore": 16 });
    let mut manager = Manager::start(&options, "workers = 1", &config);
    manager.line_with("notify READY=1");
    // As without RuntimeDirectoryPreserve=.
    fs::remove_file(&path).unwrap();
    manager.signal(Signal::KILL);
    manager.wait_count("notify READY=1", 2);
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.write_all(b"x").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    assert_eq!((manager.count("stored unix-"), manager.count("removed unix-")), (2, 1));
}

/// The predecessor may not have stored what it had no room for.
#[test]
fn a_successor_stores_what_there_is_room_for_now() {
    let echo = Echo::start();
    let ports = [free_port(), free_port()];
    let at = |config: &str, port: usize| {
        config.replacen("127.0.0.1:0", &ports[port].address().to_string(), 1)
    };
    let config = at(&l4(echo.address(), "", ""), 0);
    let both = at(&listener("more"), 1) + &config;
    let mut manager = Manager::start(&json!({ "fdstore": 1 }), "workers = 1", &both);
    let (ingress, more) = (manager.address("ingress"), manager.address("more"));
    manager.line_with("notify READY=1");
    manager.line_with(&format!("stored tcp-{}-", more.port()));
    manager.rewrite("workers = 1", &config);
    manager.signal(Signal::USR2);
    manager.wait_count("notify READY=1", 2);
    assert_eq!(manager.count(&format!("removed tcp-{}-", more.port())), 1);
    assert_eq!(manager.count(&format!("stored tcp-{}-", ingress.port())), 1);
}

#[test]
fn a_successor_does_not_store_what_the_manager_has_bound() {
    let echo = Echo::start();
    let port = free_port().number();
    let sockets = json!([{ "name": "any", "kind": "tcp", "port": port }]);
    let address = format!("127.0.0.1:{port}");
    let config = l4(echo.address(), "", "").replacen("127.0.0.1:0", &address, 1);
    let options = json!({ "sockets": sockets, "fdstore": 1 });
    let config = config + &listener("more");
    let mut manager = Manager::start(&options, "workers = 1", &config);
    let more = manager.address("more").port();
    manager.wait_count("notify READY=1", 1);
    for taken_over in 1..=2 {
        manager.signal(Signal::USR2);
        manager.wait_count("notify READY=1", taken_over + 1);
    }
    assert_eq!(manager.count(&format!("stored tcp-{more}-")), 1);
    assert_eq!(manager.count(&format!("known tcp-{more}-")), 2);
    assert_eq!(manager.count(&format!("stored tcp-{port}-")), 0);
    assert_eq!((manager.count("removed "), manager.count("stores no more sockets")), (0, 0));
}

/// A socket that listens takes clients, also where a wider one had them before.
#[test]
fn new_addresses_listen_after_the_wait_for_a_manager_that_does_not_read() {
    let echo = Echo::start();
    for name in BOTH {
        let server = driver(name);
        let port = free_port().number();
        let config = |ip: &str| listener("web").replace("127.0.0.1:0", &format!("{ip}:{port}"));
        let backend = l4(echo.address(), "", "");
        let options = json!({ "silent": true, "fdstore": 16 });
        let mut manager = Manager::start(&options, &server, &(config("0.0.0.0") + &backend));
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        round_trip(&mut connect(address));
        manager.rewrite(&server, &(config("127.0.0.1") + &backend));
        let asked = Instant::now();
        manager.signal(Signal::HUP);
        manager.line_with(&format!("listening name=web protocol=tcp address={address}"));
        let listens = Instant::now();
        round_trip(&mut connect(address));
        let (waited, served) = (listens - asked, listens.elapsed());
        // The manager is waited for first, for two seconds.
        assert!(served < waited, "over {name}: {waited:?}, then {served:?}");
        manager.line_with(" reloaded ");
    }
}
