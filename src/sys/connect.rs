//! Non-blocking connects, with the errors of connect(2) sorted by their cause.

use std::net::{IpAddr, SocketAddr};

use rustix::io::retry_on_intr;
use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use super::ports::may_be_chosen;
use super::{Address, Errno, Stream, to_errno};

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
    socket: Socket,
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
            Address::Ip(ip) => connect_ip(*ip),
            Address::Unix(_) => {
                let socket = socket(Domain::UNIX).map_err(ConnectError::from_result)?;
                UnixConnect { socket }.again(address)
            }
        }
    }

    /// Returns the result of a connect once the socket is writable.
    ///
    /// # Errors
    /// SO_ERROR (socket(7)): refused, unreachable, timed out.
    pub fn connect_result(&self) -> Result<(), ConnectError> {
        match SockRef::from(self).take_error() {
            Ok(None) => Ok(()),
            Ok(Some(error)) | Err(error) => Err(ConnectError::from_result(to_errno(error))),
        }
    }

    /// Returns true if a connected socket is connected to itself: nothing listened there, and the
    /// kernel chose the destination as the local address (a simultaneous open, RFC 9293 section
    /// 3.5). Costs a system call only if the port is in the range of local ports.
    pub fn is_own_peer(&self, peer: &Address) -> bool {
        matches!(peer, Address::Ip(peer) if is_bound_to(&SockRef::from(self), *peer))
    }
}

impl UnixConnect {
    /// Tries to connect once more, to the same address.
    ///
    /// # Errors
    /// As [`Stream::connect`].
    pub fn again(self, address: &Address) -> Result<Connect, ConnectError> {
        let result = address.to_sock_addr().map_err(to_errno);
        match result.and_then(|path| connect(&self.socket, &path)) {
            // Registered with the runtime only after the connect: its epoll driver would remember
            // the hang-up event of an unconnected socket as readiness.
            Ok(()) => Ok(Connect::Done(registered(self.socket)?)),
            Err(Errno::AGAIN) => Ok(Connect::BacklogFull(self)),
            Err(errno) => Err(ConnectError::from_result(errno)),
        }
    }
}

fn connect_ip(ip: SocketAddr) -> Result<Connect, ConnectError> {
    let address = SockAddr::from(ip);
    let socket = socket(address.domain()).map_err(ConnectError::from_call)?;
    let done = match connect(&socket, &address) {
        Ok(()) => true,
        // The handshake over loopback is over when the first call returns, but that call cannot
        // know it yet (inet_stream_connect of Linux). A second call saves a wait and a call for the
        // result.
        Err(Errno::INPROGRESS) if ip.ip().is_loopback() => is_connected(&socket, &address)?,
        Err(Errno::INPROGRESS) => false,
        // Either no local port is left for this destination, or there is no local address.
        // `has_source` tells the two apart.
        Err(errno @ Errno::ADDRNOTAVAIL) if has_source(ip) => {
            return Err(ConnectError::Local(errno));
        }
        Err(errno) => return Err(ConnectError::from_call(errno)),
    };
    let stream = registered(socket)?;
    Ok(if done { Connect::Done(stream) } else { Connect::Pending(stream) })
}

/// Calls connect(2) once more to find out whether the connect has completed.
fn is_connected(socket: &Socket, address: &SockAddr) -> Result<bool, ConnectError> {
    match connect(socket, address) {
        Ok(()) | Err(Errno::ISCONN) => Ok(true),
        Err(Errno::ALREADY | Errno::INPROGRESS) => Ok(false),
        Err(errno) => Err(ConnectError::from_result(errno)),
    }
}

fn connect(socket: &Socket, to: &SockAddr) -> Result<(), Errno> {
    retry_on_intr(|| socket.connect(to).map_err(to_errno))
}

/// Makes a UDP socket that is connected to an address, which sends nothing. The kernel chooses the
/// local address and port.
pub(super) fn connected_udp(to: SocketAddr) -> Result<Socket, ConnectError> {
    let socket = Socket::new(Domain::for_address(to), Type::DGRAM.nonblocking(), None);
    let connected = socket.and_then(|socket| socket.connect(&to.into()).map(|()| socket));
    connected.map_err(|error| ConnectError::from_call(to_errno(error)))
}

/// Returns true if this machine has a route and a local address for a destination. A UDP socket
/// needs the same route and address as a TCP socket, but has ports of its own. Called only after a
/// failure.
fn has_source(to: SocketAddr) -> bool {
    !matches!(connected_udp(to), Err(ConnectError::Unreachable(_)))
}

/// Returns true if an IP address is one of this machine's own, according to its routes: for one of
/// these the kernel chooses the same address as the local one.
pub fn is_local(ip: IpAddr) -> bool {
    let source = connected_udp((ip, 9).into()).ok().and_then(|socket| local_address(&socket));
    source.is_some_and(|source| source.ip() == ip)
}

/// Returns true if the local address of a connected socket is that of its peer.
pub(super) fn is_bound_to(socket: &Socket, peer: SocketAddr) -> bool {
    // A connect to 0.0.0.0 or :: leads to the loopback interface.
    let same = |own: SocketAddr| {
        own.port() == peer.port() && (own.ip() == peer.ip() || peer.ip().is_unspecified())
    };
    may_be_chosen(peer.port()) && local_address(socket).is_some_and(same)
}

fn local_address(socket: &Socket) -> Option<SocketAddr> {
    socket.local_addr().ok()?.as_socket()
}

pub(super) fn registered(socket: Socket) -> Result<Stream, ConnectError> {
    let stream = Stream::from_nonblocking(socket.into());
    stream.map_err(|error| ConnectError::Local(to_errno(error)))
}

fn socket(domain: Domain) -> Result<Socket, Errno> {
    Socket::new(domain, Type::STREAM.nonblocking(), None).map_err(to_errno)
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

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_machine_knows_its_own_addresses() {
        assert!(is_local(Ipv4Addr::LOCALHOST.into()));
        // TEST-NET-1 of RFC 5737, and the documentation prefix of RFC 3849.
        assert!(!is_local(IpAddr::from([192, 0, 2, 1])));
        assert!(!is_local(IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1])));
    }
}
