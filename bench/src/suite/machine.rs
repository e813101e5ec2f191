//! The machine, as it is to be told to readers.

use std::fs;
use std::io;
use std::time::SystemTime;

use super::results::Machine;
use crate::while_doing;

pub(super) fn describe() -> io::Result<Machine> {
    let cpuinfo = read("/proc/cpuinfo")?;
    let meminfo = read("/proc/meminfo")?;
    let memory = value(&meminfo, "MemTotal").and_then(|text| text.strip_suffix(" kB"));
    let kernel = read("/proc/sys/kernel/osrelease")?;
    Ok(Machine {
        cpu: value(&cpuinfo, "model name").unwrap_or("unknown").to_string(),
        cpus: cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
        memory_bytes: memory.and_then(|text| text.parse::<u64>().ok()).unwrap_or(0) * 1024,
        kernel: format!("Linux {}", numbers(kernel.trim())),
        congestion_control: read("/proc/sys/net/ipv4/tcp_congestion_control")?.trim().to_string(),
        user: if rustix::process::geteuid().is_root() { "root" } else { "user" }.to_string(),
        date: today(),
    })
}

fn read(path: &str) -> io::Result<String> {
    fs::read_to_string(path).map_err(while_doing(path))
}

/// What stands behind the first `name :`.
fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim())
}

/// The version without what a distribution or a provider appends.
fn numbers(release: &str) -> &str {
    release.split(|c: char| c != '.' && !c.is_ascii_digit()).next().unwrap_or(release)
}

/// Today, as `YYYY-MM-DD`.
fn today() -> String {
    let rfc3339 = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    rfc3339.chars().take(10).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_cpus_memory_and_a_kernel() {
        let machine = describe().unwrap();
        assert!(machine.cpus > 0 && machine.memory_bytes > 0);
        assert!(machine.kernel.starts_with("Linux ") && machine.date.len() == 10);
        assert_eq!(numbers("6.12.3-amd64"), "6.12.3");
    }
}
