//! What a program that this process starts inherits.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use super::limits;

/// The first number after those of the standard streams.
const FIRST: RawFd = 3;
/// How many descriptors the workers may open in the moment before a fork.
const MARGIN: RawFd = 4096;

/// Lets a program inherit one descriptor beside its standard streams, and no other. The descriptor
/// keeps its number.
///
/// Connections that a ring has accepted are not closed on exec: the runtime does not ask for it. A
/// program that had them would keep them open after this process has closed them. They are marked
/// in the child, because the workers go on accepting (close_range(2), CLOSE_RANGE_CLOEXEC).
pub fn inherits_only(command: &mut Command, fd: &impl AsFd) {
    let kept = fd.as_fd().as_raw_fd();
    let most = if has_close_range() { FIRST } else { first_unused() };
    // SAFETY: between fork(2) and exec the closure makes system calls alone, which
    // signal-safety(7) allows. It does not allocate.
    unsafe { command.pre_exec(move || keep_only(kept, most)) };
}

/// Marks descriptors so that they are closed on exec. Returns false if the kernel refuses the call:
/// it is older than Linux 5.11, or a filter does.
fn mark_from(first: RawFd) -> bool {
    // SAFETY: the call has no pointer. It closes nothing before the exec, after which no owner of a
    // descriptor exists.
    unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) == 0 }
}

fn has_close_range() -> bool {
    // No descriptor has this number.
    mark_from(RawFd::MAX)
}

/// A number above those of all open descriptors, and of those that the workers open until the fork.
/// The limit of open files may be a thousand million.
fn first_unused() -> RawFd {
    let limit = RawFd::try_from(limits::file_limit()).unwrap_or(RawFd::MAX);
    let Ok(open) = std::fs::read_dir("/proc/self/fd") else { return limit };
    let numbers = open.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.max().map_or(limit, |highest: RawFd| limit.min(highest.saturating_add(MARGIN)))
}

/// `most` is used where the kernel has no close_range(2).
fn keep_only(kept: RawFd, most: RawFd) -> io::Result<()> {
    if !mark_from(FIRST) {
        // Numbers that are not open give an error.
        for fd in FIRST..most {
            // SAFETY: the call has no pointer, and closes nothing before the exec.
            unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
    // SAFETY: as above.
    if unsafe { libc::fcntl(kept, libc::F_SETFD, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::sys::packet_pair;

    #[test]
    fn a_program_has_the_standard_streams_and_one_descriptor() {
        let (kept, other) = packet_pair().unwrap();
        let leaky = File::open("/dev/null").unwrap();
        rustix::io::fcntl_setfd(&leaky, rustix::io::FdFlags::empty()).unwrap();
        rustix::io::fcntl_setfd(&other, rustix::io::FdFlags::empty()).unwrap();
        let mut command = Command::new("ls");
        command.arg("/proc/self/fd");
        inherits_only(&mut command, &kept);
        let output = command.output().unwrap();
        let listed = String::from_utf8(output.stdout).unwrap();
        let mut numbers: Vec<RawFd> = listed.lines().map(|line| line.parse().unwrap()).collect();
        // ls has the directory open, by the lowest free number.
        let directory = if kept.as_raw_fd() == FIRST { FIRST + 1 } else { FIRST };
        numbers.retain(|number| *number != directory);
        // ls sorts them as text.
        numbers.sort_unstable();
        assert_eq!(numbers, [0, 1, 2, kept.as_raw_fd()]);
    }

    #[test]
    fn without_close_range_all_open_descriptors_are_marked_and_few_others() {
        let open = File::open("/dev/null").unwrap();
        let first = first_unused();
        assert!(first > open.as_raw_fd());
        assert!(first <= open.as_raw_fd() + 10_000, "{first}");
        assert!(has_close_range(), "the kernel of this test has it");
    }
}
