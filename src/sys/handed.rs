//! What a service manager hands to a process that it starts: descriptors from 3 on, and environment
//! variables (sd_listen_fds(3)). And a way back: datagrams with a descriptor (sd_notify(3)).

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FsWord, fstat, fstatfs};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use rustix::process::{PidfdFlags, getpid, pidfd_open};
use socket2::{Domain, Protocol, SockRef, Type};

use super::process::has_one_thread;
use super::{Errno, limits};

/// The number of the first descriptor (SD_LISTEN_FDS_START).
const FIRST: RawFd = 3;

/// A socket that a listener can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandedSocket {
    /// What it is.
    pub kind: SocketKind,
    /// The port that it is bound to; `None` for a Unix path.
    pub port: Option<u16>,
    /// No other socket has this number until the machine restarts (SO_COOKIE, socket(7)).
    pub id: u64,
}

/// The kinds of sockets that listeners use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketKind {
    /// Listens for TCP.
    Tcp,
    /// Listens at a Unix path.
    Unix,
    /// Receives UDP.
    Udp,
}

/// Takes the `count` descriptors that the process was started with. A child will not inherit them.
/// `None` for a number that is not open. Returns nothing when called again.
///
/// Must be called before the process opens a file.
pub fn take_descriptors(count: usize) -> Vec<Option<OwnedFd>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Vec::new();
    }
    // Above the limit of open files there are none.
    let count = count.min(usize::try_from(limits::file_limit()).unwrap_or(usize::MAX));
    let end = RawFd::try_from(count).unwrap_or(RawFd::MAX).saturating_add(FIRST);
    let take = |fd: RawFd| {
        // SAFETY: the call has no pointer, and fails for a number that is not open.
        let result = unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
        // SAFETY: the descriptor is open. It was open when the process began, because the process
        // has opened none yet, and nothing has taken it, because this runs once.
        (result == 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
    };
    (FIRST..end).map(take).collect()
}

/// Removes environment variables, if this is the only thread of the process.
pub fn remove_variables(names: &[&str]) {
    if has_one_thread() {
        for name in names {
            // SAFETY: no other thread exists that could read the environment meanwhile.
            unsafe { std::env::remove_var(name) };
        }
    }
}

/// Looks at a descriptor.
///
/// # Errors
/// Why no listener can use it.
pub fn handed_socket(fd: &impl AsFd) -> Result<HandedSocket, &'static str> {
    let socket = SockRef::from(fd);
    let kind = socket.r#type().map_err(|_| "it is not a socket")?;
    let domain = socket.domain().map_err(|_| "it is not a socket")?;
    let protocol = socket.protocol().ok().flatten();
    let is_ip = domain == Domain::IPV4 || domain == Domain::IPV6;
    let kind = match kind {
        Type::STREAM if is_ip && protocol == Some(Protocol::TCP) => SocketKind::Tcp,
        Type::STREAM if domain == Domain::UNIX => SocketKind::Unix,
        Type::DGRAM if is_ip && protocol == Some(Protocol::UDP) => SocketKind::Udp,
        _ => return Err("it is no socket of TCP, UDP or a Unix stream"),
    };
    if kind != SocketKind::Udp && !socket.is_listener().unwrap_or_default() {
        return Err("it does not listen");
    }
    if kind == SocketKind::Udp && socket.peer_addr().is_ok() {
        return Err("it is connected");
    }
    let address = socket.local_addr().map_err(|_| "it has no address")?;
    let port = address.as_socket().map(|address| address.port());
    if port == Some(0) {
        return Err("it has no address");
    }
    if kind == SocketKind::Unix && address.as_pathname().is_none() {
        return Err("it has no path");
    }
    let id = socket.cookie().map_err(|_| "the kernel gives sockets no numbers")?;
    Ok(HandedSocket { kind, port, id })
}

/// Returns true if a socket of `[::]` takes IPv4, too.
pub fn takes_both_families(fd: &impl AsFd) -> bool {
    let socket = SockRef::from(fd);
    let address = socket.local_addr().ok().and_then(|address| address.as_socket_ipv6());
    address.is_some_and(|address| address.ip().is_unspecified())
        && socket.only_v6().is_ok_and(|only| !only)
}

/// The inode number of a pidfd of this process. No other process has it until the machine restarts,
/// while ids of processes are used again. `None` before Linux 6.9, where all pidfds have the same.
pub fn pidfd_inode() -> Option<u64> {
    /// PID_FS_MAGIC of linux/magic.h.
    const PIDFS: FsWord = 0x5049_4446;
    let pidfd = pidfd_open(getpid(), PidfdFlags::empty()).ok()?;
    let is_pidfs = fstatfs(&pidfd).is_ok_and(|facts| facts.f_type == PIDFS);
    fstat(&pidfd).ok().filter(|_| is_pidfs).map(|facts| facts.st_ino)
}

/// Sends a datagram, with a descriptor if there is one. Does not wait.
///
/// # Errors
/// As sendmsg(2). `AGAIN`: the receiver has too many that it has not read.
pub fn send_with_descriptor(
    socket: &impl AsFd,
    bytes: &[u8],
    descriptor: Option<BorrowedFd<'_>>,
) -> Result<(), Errno> {
    let descriptor = descriptor.as_slice();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptor.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(descriptor));
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags).map(drop)
}

/// The time of the clock that systemd compares with (CLOCK_MONOTONIC), in microseconds.
pub fn monotonic_us() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is that of `time`, which lives until the call returns.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1000
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::unix::net::{UnixDatagram, UnixListener};

    use super::*;

    fn kind(fd: &impl AsFd) -> Result<SocketKind, &'static str> {
        handed_socket(fd).map(|socket| socket.kind)
    }

    #[test]
    fn listeners_can_use_what_listens_and_what_receives_datagrams() {
        let dir = tempfile::tempdir().unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let unix = UnixListener::bind(dir.path().join("listens")).unwrap();
        assert_eq!(kind(&tcp), Ok(SocketKind::Tcp));
        assert_eq!(kind(&udp), Ok(SocketKind::Udp));
        assert_eq!(kind(&unix), Ok(SocketKind::Unix));
        let socket = handed_socket(&tcp).unwrap();
        assert_eq!(socket.port, Some(tcp.local_addr().unwrap().port()));
        assert_eq!(handed_socket(&tcp.try_clone().unwrap()), Ok(socket));
        assert_ne!(handed_socket(&udp).unwrap().id, socket.id);
        assert_eq!(handed_socket(&unix).unwrap().port, None);
    }

    #[test]
    fn all_else_is_refused_with_a_reason() {
        let dir = tempfile::tempdir().unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let connected = TcpStream::connect(tcp.local_addr().unwrap()).unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        udp.connect(udp.local_addr().unwrap()).unwrap();
        let unbound = socket2::Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        let packets = socket2::Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        let file = std::fs::File::create(dir.path().join("file")).unwrap();
        let datagrams = UnixDatagram::bind(dir.path().join("datagrams")).unwrap();
        assert_eq!(kind(&connected), Err("it does not listen"));
        assert_eq!(kind(&udp), Err("it is connected"));
        assert_eq!(kind(&unbound), Err("it has no address"));
        assert_eq!(kind(&packets), Err("it is no socket of TCP, UDP or a Unix stream"));
        assert_eq!(kind(&datagrams), Err("it is no socket of TCP, UDP or a Unix stream"));
        assert_eq!(kind(&file), Err("it is not a socket"));
    }

    #[test]
    fn the_pidfd_of_a_process_has_one_inode() {
        let number = pidfd_inode();
        assert_eq!(pidfd_inode(), number);
        assert_ne!(number, Some(0));
    }

    #[test]
    fn only_sockets_of_all_addresses_may_take_both_families() {
        let bound = |address: &str, only: bool| {
            let socket = socket2::Socket::new(Domain::IPV6, Type::DGRAM, None).unwrap();
            socket.set_only_v6(only).unwrap();
            let address: std::net::SocketAddr = address.parse().unwrap();
            socket.bind(&address.into()).unwrap();
            takes_both_families(&socket)
        };
        let taken = [("[::]:0", false), ("[::]:0", true), ("[::1]:0", false)];
        assert_eq!(taken.map(|(address, only)| bound(address, only)), [true, false, false]);
        assert!(!takes_both_families(&UdpSocket::bind("0.0.0.0:0").unwrap()));
    }
}
