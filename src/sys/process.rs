//! Processes that are related by a take-over: one that leaves its parent, and another one that is
//! watched and killed by a descriptor (pidfd_open(2)), so that its id cannot mean a third one.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt;
use rustix::process::{
    Pid, PidfdFlags, Signal, getpid, getppid, kill_process, pidfd_open, pidfd_send_signal,
};

use super::{Errno, to_errno};

/// How long the first process may take to end, which it does at once.
const ENDS_WITHIN: Duration = Duration::from_secs(5);
/// The pause between two checks whether it has.
const CHECK: Duration = Duration::from_millis(1);

/// Forks, and ends the first process at once. The one that goes on becomes a child of the nearest
/// subreaper (prctl(2)) or of process 1: of the service manager, if there is one. It returns when
/// it is one. Must be called while the process has one thread.
///
/// The process stays as it is if it has other threads, if it is process 1 itself, or if the kernel
/// refuses the fork.
pub fn leave_parent() {
    let first = getpid();
    if !has_one_thread() || first.is_init() {
        return;
    }
    // SAFETY: there is no other thread, so that no lock is held that the new process waits for.
    match unsafe { libc::fork() } {
        0 => {
            let begun = Instant::now();
            while getppid() == Some(first) && begun.elapsed() < ENDS_WITHIN {
                thread::park_timeout(CHECK);
            }
        }
        -1 => {}
        // SAFETY: it ends the process, without what is registered for its end: the other one goes
        // on with all of that.
        _ => unsafe { libc::_exit(0) },
    }
}

/// Returns true if this process is known to have one thread.
pub(super) fn has_one_thread() -> bool {
    std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == 1)
}

/// Another process, at the other end of a pair of sockets.
#[derive(Debug)]
pub struct Peer {
    pid: Pid,
    /// `None` if the kernel refuses it: it is older than Linux 5.3, or a filter does.
    pidfd: Option<OwnedFd>,
}

impl Peer {
    /// The id of the process.
    pub fn id(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Kills the process. `socket` is this end of the pair: without a pidfd it shows that the
    /// process has not ended, so that the id is still its own.
    pub fn kill(&self, socket: &impl AsFd) {
        // An error means that it has ended, or that it is of another user.
        let _ = match &self.pidfd {
            Some(pidfd) => pidfd_send_signal(pidfd, Signal::KILL),
            None if is_gone(socket) => Ok(()),
            None => kill_process(self.pid, Signal::KILL),
        };
    }

    /// Waits until the process has ended, for so long at most. Blocks.
    pub fn wait(&self, socket: &impl AsFd, limit: Duration) {
        let (fd, events) = match &self.pidfd {
            Some(pidfd) => (pidfd.as_fd(), PollFlags::IN),
            None => (socket.as_fd(), PollFlags::empty()),
        };
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let polled = poll(&mut [PollFd::from_borrowed_fd(fd, events)], Some(&timespec(left)));
            if polled != Err(Errno::INTR) {
                return;
            }
        }
    }
}

/// Makes the kernel say who has sent a packet: see [`receive_from_peer`].
///
/// # Errors
/// As setsockopt(2); practically never.
pub fn name_sender(socket: &impl AsFd, is_named: bool) -> Result<(), Errno> {
    sockopt::set_socket_passcred(socket, is_named)
}

/// Receives a packet of a few bytes, and says which process has sent it (SCM_CREDENTIALS of
/// unix(7)). That is `None` if it has no id here, because it is in another namespace, or if it has
/// ended. Does not wait.
///
/// # Errors
/// `AGAIN` if there is none; otherwise as recvmsg(2).
pub fn receive_from_peer(socket: &impl AsFd) -> Result<(Vec<u8>, Option<Peer>), Errno> {
    let (bytes, id) = receive_with_credentials(socket.as_fd()).map_err(to_errno)?;
    let Some(pid) = Pid::from_raw(id).filter(|_| id > 0) else { return Ok((bytes, None)) };
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok();
    // If it has ended, the id may be that of another process already.
    let peer = (!is_gone(socket)).then_some(Peer { pid, pidfd });
    Ok((bytes, peer))
}

/// Returns the bytes and the id of the sender, 0 without one. rustix reads the id as one that is
/// never 0, and socket2 has no credentials.
fn receive_with_credentials(socket: BorrowedFd<'_>) -> io::Result<(Vec<u8>, i32)> {
    /// Space for one message with credentials, aligned as its header. There is none for
    /// descriptors, which the kernel drops then.
    #[repr(C)]
    union Space {
        header: libc::cmsghdr,
        bytes: [u8; 32],
    }
    let mut bytes = vec![0_u8; 64];
    let mut space = MaybeUninit::<Space>::zeroed();
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: all of its fields are numbers and pointers, for which zero bytes are a valid value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = space.as_mut_ptr().cast();
    message.msg_controllen = size_of::<Space>() as _;
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: the pointers and lengths are those of `bytes` and `space`, which live until the end.
    let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) };
    let length = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    bytes.truncate(length);
    let mut id = 0;
    // SAFETY: the kernel has filled `message` in, and its space is aligned as a header.
    let first = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    // SAFETY: it is null or points to a header within `space`.
    if let Some(header) = unsafe { first.as_ref() }
        && (header.cmsg_level, header.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_CREDENTIALS)
    {
        // SAFETY: a message of this type has these credentials behind its header.
        let credentials = unsafe { libc::CMSG_DATA(first).cast::<libc::ucred>().read_unaligned() };
        id = credentials.pid;
    }
    Ok((bytes, id))
}

/// Returns true if no process has the other end of a pair of sockets any more.
fn is_gone(socket: &impl AsFd) -> bool {
    let mut polled = [PollFd::new(socket, PollFlags::empty())];
    let now = timespec(Duration::ZERO);
    poll(&mut polled, Some(&now)).is_ok() && polled[0].revents().contains(PollFlags::HUP)
}

fn timespec(time: Duration) -> Timespec {
    Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) as _ }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::super::{packet_pair, send_packet};
    use super::*;

    #[test]
    fn the_kernel_names_the_sender_of_a_packet() {
        let (ours, theirs) = packet_pair().unwrap();
        name_sender(&ours, true).unwrap();
        assert!(matches!(receive_from_peer(&ours), Err(Errno::AGAIN)));
        send_packet(&theirs, b"hello", &[]).unwrap();
        let (bytes, peer) = receive_from_peer(&ours).unwrap();
        assert_eq!((&bytes[..], peer.unwrap().id()), (&b"hello"[..], std::process::id()));
        name_sender(&ours, false).unwrap();
        send_packet(&theirs, b"more", &[]).unwrap();
        assert!(matches!(receive_from_peer(&ours), Ok((bytes, None)) if bytes == b"more"));
        drop(theirs);
        // A program that another test starts has the other end, too, until its exec.
        poll(&mut [PollFd::new(&ours, PollFlags::IN)], Some(&timespec(ENDS_WITHIN))).unwrap();
        assert!(matches!(receive_from_peer(&ours), Ok((bytes, None)) if bytes.is_empty()));
    }

    #[test]
    fn a_process_is_killed_and_waited_for_with_and_without_a_pidfd() {
        for has_pidfd in [true, false] {
            let (ours, theirs) = packet_pair().unwrap();
            let mut command = Command::new("sleep");
            let mut child = command.arg("1000").stdin(Stdio::from(theirs)).spawn().unwrap();
            // It keeps the descriptor.
            drop(command);
            let pid = Pid::from_child(&child);
            let pidfd = has_pidfd.then(|| pidfd_open(pid, PidfdFlags::empty()).unwrap());
            let peer = Peer { pid, pidfd };
            peer.kill(&ours);
            peer.wait(&ours, Duration::from_secs(10));
            // Not a zombie yet, perhaps, where only the socket shows it.
            assert!(has_pidfd || is_gone(&ours));
            assert!(!child.wait().unwrap().success());
        }
    }
}
