//! Passes descriptors between two processes: packets over a pair of Unix sockets (SCM_RIGHTS of
//! unix(7)), and the descriptor of one end that a child inherits.
//!
//! This is rustix's, because socket2 has no ancillary data for descriptors.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::cmsg_space;
use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair, sockopt,
};
use socket2::{SockAddr, SockRef};

use super::process::has_one_thread;
use super::{Address, Errno};

/// The most descriptors of one packet: one less than the 253 that Linux takes (SCM_MAX_FD).
pub const MAX_DESCRIPTORS: usize = 252;
/// The most bytes of one packet.
const MAX_PACKET: usize = 64 * 1024;

/// A socket that another process has bound.
pub enum BoundSocket {
    /// It listens; of an IP address or a Unix path.
    Stream(TcpListener),
    /// It receives datagrams.
    Datagram(UdpSocket),
}

/// Makes a pair of sockets for packets, non-blocking and closed on exec.
///
/// # Errors
/// EMFILE or ENFILE from socketpair(2).
pub fn packet_pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
}

/// Sends a packet without waiting.
///
/// # Errors
/// `AGAIN` if the peer has not received enough of the earlier ones; `PIPE` if it is gone; otherwise
/// as sendmsg(2).
pub fn send_packet(
    to: &impl AsFd,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Errno::TOOBIG);
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendmsg(to, &[IoSlice::new(bytes)], &mut control, flags).map(drop)
}

/// Receives a packet without waiting. An empty one means that the peer is gone. The descriptors are
/// closed on exec.
///
/// # Errors
/// `AGAIN` if there is none; `MSGSIZE` if a part of it is lost; otherwise as recvmsg(2).
pub fn receive_packet(from: &impl AsFd) -> Result<(Vec<u8>, Vec<OwnedFd>), Errno> {
    let mut bytes = vec![0; MAX_PACKET];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = recvmsg(from, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags)?;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    // EMFILE of this process shows as a loss, too.
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(Errno::MSGSIZE);
    }
    bytes.truncate(received.bytes);
    Ok((bytes, descriptors))
}

/// Takes the packet socket over whose number an environment variable has, and removes the variable.
/// `None` if there is no such variable, or if it does not name a socket for packets. Must be called
/// while the process has one thread.
pub fn inherited_packet_socket(variable: &str) -> Option<OwnedFd> {
    let value = std::env::var(variable).ok()?;
    // A library could read the environment in another thread, so it is left alone then.
    if has_one_thread() {
        // SAFETY: this process has one thread, so none reads the environment meanwhile.
        unsafe { std::env::remove_var(variable) };
    }
    let number: i32 = value.parse().ok().filter(|number| *number > 2)?;
    // SAFETY: it is only used to ask the kernel about it, which says EBADF if it is not open.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    let is_inherited = fcntl_getfd(fd).is_ok_and(|flags| !flags.contains(FdFlags::CLOEXEC));
    let is_packet = || sockopt::socket_type(fd) == Ok(SocketType::SEQPACKET);
    if !is_inherited || !is_packet() {
        return None;
    }
    // Descriptors of this process are closed on exec, so this one is inherited and has no owner.
    fcntl_setfd(fd, FdFlags::CLOEXEC).ok()?;
    // SAFETY: as said above, there is no other owner.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Tells what a descriptor is that came from another process. `None` if it is no bound socket of a
/// kind that is served.
pub fn bound_socket(fd: OwnedFd) -> Option<BoundSocket> {
    match sockopt::socket_type(&fd).ok()? {
        SocketType::STREAM => {
            let listens = sockopt::socket_acceptconn(&fd).unwrap_or_default();
            listens.then(|| BoundSocket::Stream(fd.into()))
        }
        SocketType::DGRAM => Some(BoundSocket::Datagram(fd.into())),
        _ => None,
    }
}

/// The address that a socket is bound to (getsockname(2)). `None` if it is neither an IP address
/// nor a path.
pub fn bound_address(socket: &impl AsFd) -> Option<Address> {
    let address = SockRef::from(socket).local_addr().ok()?;
    let path = SockAddr::as_pathname(&address).map(|path| Address::Unix(path.to_owned()));
    address.as_socket().map(Address::Ip).or(path)
}

/// The number of a descriptor, for a child that inherits it.
pub fn number_of(fd: &impl AsFd) -> i32 {
    fd.as_fd().as_raw_fd()
}

/// Makes a UDP socket that [`bind_later`] binds to this address, non-blocking and with
/// SO_REUSEPORT.
///
/// # Errors
/// As socket(2).
pub fn unbound_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let address = address.into();
    let socket = super::listen::socket_for(&address, socket2::Type::DGRAM.nonblocking())?;
    socket.set_reuse_port(true)?;
    Ok(socket.into())
}

/// Binds a socket of [`unbound_udp`] to its address.
///
/// # Errors
/// As bind(2).
pub fn bind_later(socket: &UdpSocket, address: SocketAddr) -> io::Result<()> {
    SockRef::from(socket).bind(&address.into())
}

/// Returns true if sockets of this process with SO_REUSEPORT can be bound beside a socket: it has
/// the option, too, and the same user has made it (socket(7)).
pub fn shares_port(socket: &impl AsFd) -> bool {
    let is_own = rustix::fs::fstat(socket)
        .is_ok_and(|stat| stat.st_uid == rustix::process::geteuid().as_raw());
    is_own && SockRef::from(socket).reuse_port().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn a_packet_brings_its_descriptors() {
        let (ours, theirs) = packet_pair().unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        send_packet(&ours, b"two", &[listener.as_fd(), udp.as_fd()]).unwrap();
        let (bytes, descriptors) = receive_packet(&theirs).unwrap();
        assert_eq!(bytes, b"two");
        let [first, second] = <[OwnedFd; 2]>::try_from(descriptors).unwrap();
        assert_eq!(bound_address(&first), listener.local_addr().ok().map(Address::Ip));
        assert!(matches!(bound_socket(first), Some(BoundSocket::Stream(_))));
        assert!(matches!(bound_socket(second), Some(BoundSocket::Datagram(_))));
        assert!(matches!(receive_packet(&theirs), Err(Errno::AGAIN)));
        drop(ours);
        assert!(receive_packet(&theirs).is_ok_and(|(bytes, _)| bytes.is_empty()));
    }

    #[test]
    fn as_many_descriptors_as_promised_fit_one_packet() {
        let (ours, theirs) = packet_pair().unwrap();
        send_packet(&ours, b"many", &[ours.as_fd(); MAX_DESCRIPTORS]).unwrap();
        assert_eq!(receive_packet(&theirs).unwrap().1.len(), MAX_DESCRIPTORS);
    }

    #[test]
    fn what_neither_listens_nor_receives_is_no_bound_socket() {
        let (ours, _theirs) = packet_pair().unwrap();
        assert!(bound_socket(ours).is_none());
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(bound_socket(ours.into()).is_none());
    }
}
