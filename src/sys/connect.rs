//! Non-blocking connects, with the errors of connect(2) sorted by their cause.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};

use super::ports::may_be_chosen;
use super::stream::retry;
use super::{Address, Errno, Stream};

/// The state of a connect after its first call.
pub enum Connect {
    /// In progress: wait until the stream is writable, then call [`Stream::connect_result`].
    Pending(Stream),
    /// Connected (Unix sockets, and most of the time loopback).
    Done(Stream),
    /// The accept queue of a Unix socket is full (EAGAIN, unix(7)). No event reports free room in
    /// it, so try again after a pause.
    BacklogFull(UnixConnect),
}

/// Why a connect failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectError {
    /// Unreachable from this machine: there is no route, or no local address of that family.
    /// Nothing was sent.
    Unreachable(Errno),
    /// This machine is out of descriptors, ports or memory.
    Local(Errno),
    /// The kernel chose the destination's own address and port as the local ones, so the socket is
    /// connected to itself. This happens only if nothing listens there.
    OwnPeer,
    /// The endpoint, or the network on the way to it, refused the connection.
    Refused(Errno),
}

/// A connect to a Unix socket whose accept queue was full.
pub struct UnixConnect {
    fd: OwnedFd,
    path: SocketAddrUnix,
}

impl ConnectError {
    /// Classifies the result of a connect in progress. A SYN was sent, so an "unreachable" error
    /// comes from the network.
    pub fn from_result(errno: Errno) -> ConnectError {
        if is_shortage(errno) || errno == Errno::ADDRNOTAVAIL {
            ConnectError::Local(errno)
        } else {
            ConnectError::Refused(errno)
        }
    }

    /// Classifies an error that connect(2) or socket(2) returned for an IP address. For TCP,
    /// EADDRNOTAVAIL may also mean that no local port is left; the caller checks that first.
    pub(super) fn from_call(errno: Errno) -> ConnectError {
        match errno {
            // No route; an `unreachable`, `blackhole` or `prohibit` route (ip-route(8)); the local
            // firewall; no IPv6.
            Errno::NETUNREACH
            | Errno::HOSTUNREACH
            | Errno::NETDOWN
            | Errno::INVAL
            | Errno::ACCESS
            | Errno::PERM
            | Errno::ADDRNOTAVAIL
            | Errno::AFNOSUPPORT => ConnectError::Unreachable(errno),
            errno => ConnectError::from_result(errno),
        }
    }
}

impl Stream {
    /// Starts a non-blocking connect.
    ///
    /// # Errors
    /// Those of connect(2) and socket(2).
    pub fn connect(address: &Address) -> Result<Connect, ConnectError> {
        match address {
            Address::Ip(ip) => connect_ip(ip),
            Address::Unix(path) => {
                let path = SocketAddrUnix::new(path).map_err(ConnectError::from_result)?;
                let fd = socket(AddressFamily::UNIX).map_err(ConnectError::from_result)?;
                UnixConnect { fd, path }.again()
            }
        }
    }

    /// Returns the result of a connect once the socket is writable.
    ///
    /// # Errors
    /// SO_ERROR (socket(7)): refused, unreachable, timed out.
    pub fn connect_result(&self) -> Result<(), ConnectError> {
        let result = sockopt::socket_error(self.as_fd()).and_then(|result| result);
        result.map_err(ConnectError::from_result)
    }

    /// Returns true if a connected socket is connected to itself: nothing listened there, and the
    /// kernel chose the destination as the local address (a simultaneous open, RFC 9293 section
    /// 3.5). Costs a system call only if the port is in the range of local ports.
    pub fn is_own_peer(&self, peer: &Address) -> bool {
        matches!(peer, Address::Ip(peer) if is_bound_to(self, *peer))
    }
}

impl UnixConnect {
    /// Tries to connect once more.
    ///
    /// # Errors
    /// As [`Stream::connect`].
    pub fn again(self) -> Result<Connect, ConnectError> {
        match retry(|| net::connect(&self.fd, &self.path)) {
            // Registered with the runtime only after the connect: its epoll driver would remember
            // the hang-up event of an unconnected socket as readiness.
            Ok(()) => Ok(Connect::Done(registered(self.fd)?)),
            Err(Errno::AGAIN) => Ok(Connect::BacklogFull(self)),
            Err(errno) => Err(ConnectError::from_result(errno)),
        }
    }
}

fn connect_ip(ip: &SocketAddr) -> Result<Connect, ConnectError> {
    let fd = socket(family(ip)).map_err(ConnectError::from_call)?;
    let done = match retry(|| net::connect(&fd, ip)) {
        Ok(()) => true,
        Err(Errno::INPROGRESS) => is_connected_already(&fd, ip)?,
        // Either no local port is left for this destination, or there is no local address.
        // `has_source` tells the two apart.
        Err(errno @ Errno::ADDRNOTAVAIL) if has_source(ip) => {
            return Err(ConnectError::Local(errno));
        }
        Err(errno) => return Err(ConnectError::from_call(errno)),
    };
    let stream = registered(fd)?;
    Ok(if done { Connect::Done(stream) } else { Connect::Pending(stream) })
}

/// Calls connect(2) once more for a loopback address. The handshake is over when the first call
/// returns, but that call cannot know it yet (inet_stream_connect of Linux). This saves a wait and
/// a call for the result.
fn is_connected_already(fd: &OwnedFd, address: &SocketAddr) -> Result<bool, ConnectError> {
    if !address.ip().is_loopback() {
        return Ok(false);
    }
    match retry(|| net::connect(fd, address)) {
        Ok(()) | Err(Errno::ISCONN) => Ok(true),
        Err(Errno::ALREADY | Errno::INPROGRESS) => Ok(false),
        Err(errno) => Err(ConnectError::from_result(errno)),
    }
}

/// Returns true if this machine has a route and a local address for a destination. A UDP socket
/// needs the same route and address as a TCP socket, but has ports of its own. Called only after a
/// failure.
fn has_source(to: &SocketAddr) -> bool {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let probe = net::socket_with(family(to), SocketType::DGRAM, flags, None)
        .and_then(|socket| net::connect(&socket, to));
    !matches!(probe.map_err(ConnectError::from_call), Err(ConnectError::Unreachable(_)))
}

/// Returns true if the local address of a connected socket is that of its peer.
pub(super) fn is_bound_to(socket: impl AsFd, peer: SocketAddr) -> bool {
    // A connect to 0.0.0.0 or :: leads to the loopback interface.
    let same = |own: SocketAddr| {
        own.port() == peer.port() && (own.ip() == peer.ip() || peer.ip().is_unspecified())
    };
    may_be_chosen(peer.port())
        && net::getsockname(socket).and_then(SocketAddr::try_from).is_ok_and(same)
}

fn registered(fd: OwnedFd) -> Result<Stream, ConnectError> {
    let stream = Stream::from_nonblocking(fd);
    stream.map_err(|error| ConnectError::Local(Errno::from_io_error(&error).unwrap_or(Errno::IO)))
}

fn socket(family: AddressFamily) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    net::socket_with(family, SocketType::STREAM, flags, None)
}

fn family(address: &SocketAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 }
}

fn is_shortage(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::AGAIN
            | Errno::MFILE
            | Errno::NFILE
            | Errno::NOBUFS
            | Errno::NOMEM
            | Errno::ADDRINUSE
    )
}
