//! What a process has used so far, as its directory in /proc tells it (proc(5)).

use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::thread::CpuSet;

use crate::while_doing;

/// CPU seconds, user and system, of all threads that the process has now.
pub(crate) fn cpu_seconds(pid: u32) -> io::Result<f64> {
    match scheduled_nanoseconds(pid) {
        Some(nanoseconds) => Ok(nanoseconds as f64 / 1e9),
        None => cpu_seconds_in_ticks(pid),
    }
}

/// What the scheduler has counted; none where the kernel does not tell. A thread that has ended
/// has taken its time with it.
fn scheduled_nanoseconds(pid: u32) -> Option<u64> {
    let mut sum = None;
    for entry in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        // A thread may end between the listing and the reading.
        let Some(nanoseconds) = thread_nanoseconds(&entry.ok()?.path()) else { continue };
        *sum.get_or_insert(0) += nanoseconds;
    }
    sum
}

/// CPU time of one thread, given its directory in /proc; none when it has ended or the kernel does
/// not tell.
pub(crate) fn thread_nanoseconds(task: &Path) -> Option<u64> {
    let mut line = [0; 64];
    let length = fs::File::open(task.join("schedstat")).ok()?.read(&mut line).ok()?;
    let first = line[..length].split(|&byte| byte == b' ').next()?;
    // A kernel that does not count writes zeros.
    std::str::from_utf8(first).ok()?.parse().ok().filter(|&nanoseconds| nanoseconds > 0)
}

/// The same in ticks of the clock, with the time of threads that have ended.
pub(crate) fn cpu_seconds_in_ticks(pid: u32) -> io::Result<f64> {
    // Fields 14 and 15 of the whole line; the name before them may hold spaces and brackets.
    let user = stat_field(pid, 14)?;
    let system = stat_field(pid, 15)?;
    Ok((user + system) as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// The sum over several processes; none of no process.
pub(crate) fn cpu_seconds_of(pids: &[u32]) -> io::Result<Option<f64>> {
    if pids.is_empty() {
        return Ok(None);
    }
    pids.iter().map(|&pid| cpu_seconds(pid)).sum::<io::Result<f64>>().map(Some)
}

/// CPU seconds of all threads of this process.
pub(crate) fn own_cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

pub(crate) fn parent_of(pid: u32) -> io::Result<u32> {
    Ok(stat_field(pid, 4)? as u32)
}

/// Numbers of open descriptors.
pub(crate) fn descriptors(pid: u32) -> io::Result<usize> {
    let path = format!("/proc/{pid}/fd");
    Ok(fs::read_dir(&path).map_err(while_doing(path))?.count())
}

/// Anonymous memory that the process has in RAM: heap and stacks, in bytes.
pub(crate) fn anonymous_memory(pid: u32) -> io::Result<u64> {
    kilobytes(&format!("/proc/{pid}/status"), "RssAnon:")
}

/// All memory that the process has in RAM, shared or not, in bytes.
pub(crate) fn resident_memory(pid: u32) -> io::Result<u64> {
    kilobytes(&format!("/proc/{pid}/status"), "VmRSS:")
}

/// Memory that is dirty and no other process shares, in bytes; unknown where it may not be read.
pub(crate) fn private_dirty(pid: u32) -> Option<u64> {
    kilobytes(&format!("/proc/{pid}/smaps_rollup"), "Private_Dirty:").ok()
}

/// Keeps the calling thread, and the processes it starts, on one CPU.
pub(crate) fn pin(cpu: usize) -> io::Result<()> {
    let mut cpus = CpuSet::new();
    if cpu >= CpuSet::MAX_CPU {
        return Err(io::Error::other(format!("there is no CPU {cpu}")));
    }
    cpus.set(cpu);
    rustix::thread::sched_setaffinity(None, &cpus)
        .map_err(|error| while_doing(format!("cannot run on CPU {cpu}"))(error.into()))
}

/// Gives the calling thread a lower priority; 19 runs when nothing else on the CPU wants to.
pub(crate) fn be_nice(nice: i32) -> io::Result<()> {
    // On Linux this is about one thread, not about the process (setpriority(2)).
    rustix::process::setpriority_process(None, nice)
        .map_err(|error| while_doing(format!("cannot run at nice {nice}"))(error.into()))
}

/// Thousands of connections need as many descriptors as the hard limit gives; says how many.
pub(crate) fn raise_file_limit() -> io::Result<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised)?;
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

/// Asks again and again, at most until `limit` is over, whether something has come true.
pub(crate) fn wait_until(
    limit: Duration,
    mut come_true: impl FnMut() -> io::Result<bool>,
) -> io::Result<bool> {
    let deadline = Instant::now() + limit;
    while !come_true()? {
        if Instant::now() >= deadline {
            return Ok(false);
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
    Ok(true)
}

/// One field of /proc/PID/stat, counted from 1 as in the manual page.
fn stat_field(pid: u32, number: usize) -> io::Result<u64> {
    let path = format!("/proc/{pid}/stat");
    let line = fs::read_to_string(&path).map_err(while_doing(&path))?;
    let after_name = line.rsplit(')').next().unwrap_or_default();
    let field = after_name.split_ascii_whitespace().nth(number - 3);
    field
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| io::Error::other(format!("{path} has no field {number}")))
}

fn kilobytes(path: &str, name: &str) -> io::Result<u64> {
    let text = fs::read_to_string(path).map_err(while_doing(path))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_ascii_whitespace().next())
        .and_then(|number| number.parse::<u64>().ok())
        .map(|kilobytes| kilobytes * 1024)
        .ok_or_else(|| io::Error::other(format!("{path} has no {name}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_a_parent_memory_and_descriptors() {
        let pid = std::process::id();
        assert_eq!(parent_of(pid).unwrap(), std::os::unix::process::parent_id());
        assert!(anonymous_memory(pid).unwrap() > 0);
        assert!(descriptors(pid).unwrap() >= 3);
    }

    #[test]
    fn cpu_time_grows_while_this_thread_works() {
        let pid = std::process::id();
        let before = cpu_seconds(pid).unwrap();
        let grew = wait_until(Duration::from_secs(20), || {
            let busy = Instant::now() + Duration::from_millis(50);
            while Instant::now() < busy {
                std::hint::spin_loop();
            }
            Ok(cpu_seconds(pid)? > before)
        });
        assert!(grew.unwrap());
    }

    #[test]
    fn what_the_scheduler_counts_agrees_with_the_ticks() {
        let mut busy =
            std::process::Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        let worked = wait_until(Duration::from_secs(20), || {
            Ok(scheduled_nanoseconds(busy.id()).is_some_and(|spent| spent > 100_000_000))
        });
        let fine = cpu_seconds(busy.id()).unwrap();
        let coarse = cpu_seconds_in_ticks(busy.id()).unwrap();
        busy.kill().unwrap();
        busy.wait().unwrap();
        assert!(worked.unwrap() && (fine - coarse).abs() < 0.05, "{fine} and {coarse}");
        assert!(cpu_seconds(u32::MAX).is_err() && own_cpu_seconds() > 0.0);
    }

    #[test]
    fn one_thread_can_be_nice_alone() {
        let nice = || rustix::process::getpriority_process(None).unwrap();
        let thread = std::thread::spawn(move || {
            be_nice(19).unwrap();
            nice()
        });
        assert_eq!(thread.join().unwrap(), 19);
        assert!(nice() < 19);
    }
}
