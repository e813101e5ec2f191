//! A machine that refuses: descriptors, ports, pipes, disks, names, clocks, processor time and
//! memory. docs/operations.md has a table of these faults; its source names the test of each row.
//!
//! Most tests keep a connection busy meanwhile: a fault must not touch what is open already.

mod calls;
mod clock;
mod descriptors;
mod disks;
mod memory;
mod names;
mod pipes;
mod ports;
mod reloads;
mod stopped;
mod traffic;

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, prlimit};

use self::traffic::Traffic;
use crate::support::{Ringgate, holds_for};

const DRIVERS: [&str; 2] = ["io_uring", "epoll"];

/// How soon service must go on when the fault is over.
const RELIEF: Duration = Duration::from_secs(1);

/// Sets the limit of open files of a running process. `None` is the limit of this process.
fn limit_descriptors(gate: &Ringgate, current: Option<u64>) {
    let Rlimit { current: usual, maximum } = getrlimit(Resource::Nofile);
    let limit = Rlimit { current: current.or(usual), maximum };
    prlimit(Some(gate.pid()), Resource::Nofile, limit).unwrap();
}

/// For some seconds the process uses less than 5 % of a CPU, apart from what the open connection
/// costs, which is served before and after.
#[track_caller]
fn costs_little(gate: &Ringgate, open: &Traffic) {
    const TIME: Duration = Duration::from_secs(3);
    let rest = open.rest();
    let before = gate.cpu_time();
    holds_for("the process waits", TIME, || gate.cpu_time() - before < TIME / 20);
    drop(rest);
    open.moves();
}
