//! Take-overs beside a service manager that does not read: it learns which process is the main one
//! before the old one ends.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use crate::manager::{BOTH, driver, expect_refused, round_trip};
use crate::support::{Echo, Manager, SOON, connect, holds_for, l4};

/// A service that was taken over beside a manager that does not read.
fn taken_over(echo: &Echo, driver_name: &str) -> Manager {
    let config = l4(echo.address(), "", "");
    let mut manager = Manager::start(&json!({}), &driver(driver_name), &config);
    manager.line_with("notify READY=1");
    manager.tell("deafen");
    manager.line_with("deaf");
    manager.signal(Signal::USR2);
    manager.line_with("taken over");
    manager
}

/// A manager that sees the end of the main process ends the service with it.
#[test]
fn a_predecessor_stays_until_the_manager_knows_its_successor() {
    let echo = Echo::start();
    for name in BOTH {
        let mut manager = taken_over(&echo, name);
        let has_ended = |manager: &Manager| manager.count("ended 0") > 0;
        holds_for("its life", Duration::from_secs(2), || !has_ended(&manager));
        round_trip(&mut connect(manager.address("ingress")));
        manager.tell("hear");
        manager.line_with("notify MAINPID=");
        manager.line_with("ended cut_off=0");
        round_trip(&mut connect(manager.address("ingress")));
        manager.end();
        manager.wait_exit(SOON);
        let (ends, own) = (manager.count("ended 0"), manager.count(" own"));
        assert_eq!((ends, own), (1, 1), "over {name}");
    }
}

/// The manager stops the process that it knows.
#[test]
fn a_stop_before_the_manager_knows_the_successor_drains_both() {
    let echo = Echo::start();
    for name in BOTH {
        let mut manager = taken_over(&echo, name);
        let ingress = manager.address("ingress");
        let mut tunnel = connect(ingress);
        round_trip(&mut tunnel);
        manager.end();
        manager.line_with("the signal is passed on");
        expect_refused(ingress);
        manager.tell("hear");
        manager.line_with("notify MAINPID=");
        manager.line_with("ended cut_off=0");
        round_trip(&mut tunnel);
        drop(tunnel);
        manager.wait_count("ended cut_off=0", 2);
        manager.wait_exit(SOON);
    }
}

#[test]
fn a_second_stop_ends_a_predecessor_at_once() {
    let echo = Echo::start();
    let mut manager = taken_over(&echo, "io_uring");
    manager.stop();
    manager.signal(Signal::TERM);
    manager.line_with("the signal is passed on");
    manager.signal(Signal::TERM);
    manager.line_with("a further signal: ");
    manager.wait_exit(SOON);
}
