//! How evenly long-lived flows are spread over workers.
//!
//! Every flow does the same, little enough that no CPU is short: what a worker's thread uses is
//! then as much as it has flows.

use std::fs;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use super::contender::Running;
use super::measure::target;
use super::results::Balance;
use crate::load::dial::dial;
use crate::usage;

const FLOWS: u16 = 50;
const MESSAGE: [u8; 100] = [0x5a; 100];
/// Each flow sends so often.
const PACE: Duration = Duration::from_millis(5);
const END_LIMIT: Duration = Duration::from_secs(10);
const LENGTH: Duration = Duration::from_millis(500);

/// One trial: new flows, and what each worker did for them.
pub(super) fn trial(running: &Running) -> io::Result<Balance> {
    let pid = running.only_pid()?;
    let target = target(running, |ports| ports.small);
    let idle = usage::descriptors(pid)?;
    let mut flows = Vec::new();
    for _ in 0..FLOWS {
        flows.push(dial(&target, b"E")?.stream);
    }
    let before = worker_seconds(pid)?;
    let end = Instant::now() + LENGTH;
    let mut next = Instant::now();
    while next < end {
        for flow in &mut flows {
            flow.write_all(&MESSAGE)?;
            flow.read_exact(&mut [0; MESSAGE.len()])?;
        }
        next += PACE;
        std::thread::park_timeout(next.saturating_duration_since(Instant::now()));
    }
    let after = worker_seconds(pid)?;
    // The next trial's flows are not to be put beside what is left of these.
    drop(flows);
    if !usage::wait_until(END_LIMIT, || Ok(usage::descriptors(pid)? <= idle))? {
        return Err(io::Error::other("the flows of the last trial do not end"));
    }
    let cpu_seconds = after.iter().zip(&before).map(|(after, before)| after - before).collect();
    Ok(Balance { flows: FLOWS, cpu_seconds })
}

/// CPU seconds of the threads that are workers, in the order of their ids.
fn worker_seconds(pid: u32) -> io::Result<Vec<f64>> {
    let mut threads = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let path = entry?.path();
        let name = fs::read_to_string(path.join("comm"))?;
        if name.starts_with("worker") {
            threads.push((path.file_name().map(ToOwned::to_owned), path));
        }
    }
    threads.sort();
    let seconds = |path| usage::thread_nanoseconds(path).map(|time| time as f64 / 1e9);
    let times: Option<Vec<f64>> = threads.iter().map(|(_, path)| seconds(path)).collect();
    times.ok_or_else(|| io::Error::other("the kernel does not tell the CPU time of threads"))
}
