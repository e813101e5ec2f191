//! UDP sockets that move many datagrams by one system call in both directions, if the kernel
//! supports it (recvmmsg(2), and the segmentation and receive offloads of udp(7)).

mod batch;
mod send;

use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket as StdSocket};
use std::os::fd::AsFd;
use std::rc::Rc;

use quinn_udp::{BATCH_SIZE, UdpSockRef, UdpSocketState};
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};

pub use self::batch::{Batch, Received};
pub use self::send::{Refusal, is_unreachable};
use super::connect::is_bound_to;
use super::errors::{Errors, Reported};
use super::options::set_int;
use super::{ConnectError, Errno, Stream};

/// The size of a buffer for one datagram, or for several that the kernel has joined.
const BUFFER_SIZE: usize = 64 * 1024;
/// The most payload of one send: what fits an IPv4 datagram (RFC 791).
pub const MAX_PAYLOAD: usize = 65_507;
/// The most segments of one send (UDP_MAX_SEGMENTS of older kernels).
pub const MAX_SEGMENTS: usize = 64;

/// The largest segment that is sent together with others. A larger one, with its headers, may not
/// fit an Ethernet frame, and the kernel refuses segments that would have to be fragmented.
const MAX_SEGMENT: usize = 1452;

/// A UDP socket that belongs to one worker.
pub struct UdpSocket {
    stream: Stream,
    offload: Rc<Offload>,
    /// Only for connected sockets over epoll: wakes the reader when the peer reports an error.
    errors: Option<Reported>,
}

/// What the connected sockets of one worker share.
pub struct Connected {
    offload: Rc<Offload>,
    errors: Option<Rc<Errors>>,
}

/// What is known about the kernel's offloads. Finding it out costs a dozen system calls, so sockets
/// share it. After a send has failed (EIO, EINVAL) quinn-udp does not segment with the same state
/// again. There are two states, because the failure of a single datagram says nothing about
/// segmentation.
struct Offload {
    single: UdpSocketState,
    joined: UdpSocketState,
}

impl Connected {
    /// Must be called on the worker's thread.
    ///
    /// # Errors
    /// As socket(2) and epoll_create1(2).
    pub fn start() -> io::Result<Connected> {
        let socket = bind_udp((Ipv4Addr::LOCALHOST, 0).into(), false)?;
        Ok(Connected { offload: Offload::of(&socket)?, errors: Errors::start()? })
    }
}

impl Offload {
    fn of(socket: &StdSocket) -> io::Result<Rc<Offload>> {
        // `UdpSocketState::new` sets options of the socket, too.
        let state = || UdpSocketState::new(UdpSockRef::from(socket));
        Ok(Rc::new(Offload { single: state()?, joined: state()? }))
    }
}

/// Binds a socket for one of several workers, which share the address (SO_REUSEPORT). The kernel
/// delivers the datagrams of a sender to the same socket as long as the number of sockets stays the
/// same.
///
/// # Errors
/// As bind(2): EADDRINUSE, EACCES, EADDRNOTAVAIL.
pub fn bind_udp(address: SocketAddr, reuse_port: bool) -> io::Result<StdSocket> {
    let socket = socket_for(address)?;
    if address.is_ipv6() {
        // `[::]` and `0.0.0.0` are two separate listeners, as with TCP.
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    if reuse_port {
        sockopt::set_socket_reuseport(&socket, true)?;
    }
    net::bind(&socket, &address)?;
    Ok(socket)
}

fn socket_for(address: SocketAddr) -> io::Result<StdSocket> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(net::socket_with(family, SocketType::DGRAM, flags, None)?.into())
}

impl UdpSocket {
    /// Takes over a bound socket.
    ///
    /// # Errors
    /// Those of the options that report where a datagram was sent to, or the runtime's.
    pub fn bound(socket: StdSocket) -> io::Result<UdpSocket> {
        let offload = Offload::of(&socket)?;
        allow_fragments(&socket)?;
        Ok(UdpSocket { stream: Stream::from_fd(socket.into())?, offload, errors: None })
    }

    /// Makes a connected socket for one session. The kernel chooses the local address and port.
    ///
    /// # Errors
    /// Those of socket(2) and connect(2). A socket that is connected to itself is an error, because
    /// it would receive its own datagrams.
    pub fn connected(to: SocketAddr, shared: &Connected) -> Result<UdpSocket, ConnectError> {
        let errno = |error: &io::Error| Errno::from_io_error(error).unwrap_or(Errno::IO);
        let socket = socket_for(to).map_err(|error| ConnectError::from_call(errno(&error)))?;
        net::connect(&socket, &to).map_err(ConnectError::from_call)?;
        if is_bound_to(&socket, to) {
            return Err(ConnectError::OwnPeer);
        }
        // If the kernel cannot join datagrams, they arrive one by one.
        let _ = set_int(socket.as_fd(), libc::SOL_UDP, libc::UDP_GRO, 1);
        let stream = Stream::from_fd(socket.into());
        let stream = stream.map_err(|error| ConnectError::Local(errno(&error)))?;
        let errors = shared.errors.as_ref().and_then(|errors| errors.report(&stream));
        Ok(UdpSocket { stream, offload: Rc::clone(&shared.offload), errors })
    }

    /// Waits until there are datagrams, the network has reported an error to a connected socket, or
    /// [`UdpSocket::end`] was called. May be dropped at any time.
    pub async fn readable(&self) {
        let readable = self.stream.readable();
        match &self.errors {
            None => readable.await,
            Some(errors) => errors.ready_or_error(readable).await,
        }
    }

    /// Wakes the tasks that wait. Later waits return at once, too.
    pub fn end(&self) {
        self.stream.shutdown();
    }

    /// The port that the socket is bound to.
    ///
    /// # Errors
    /// As getsockname(2); practically never.
    pub fn local_port(&self) -> io::Result<u16> {
        let address: SocketAddr = net::getsockname(&self.stream)?.try_into()?;
        Ok(address.port())
    }

    /// Receives available datagrams, as far as they fit the batch. Returns the number of items in
    /// the batch, each of which may hold several datagrams.
    ///
    /// # Errors
    /// `AGAIN` if there are none; an error that the network reported about earlier sends
    /// ([`is_unreachable`]); otherwise as recvmmsg(2).
    pub fn receive(&self, batch: &mut Batch) -> Result<usize, Errno> {
        let mut buffers = batch.buffer.chunks_exact_mut(BUFFER_SIZE);
        let mut buffers: [IoSliceMut<'_>; BATCH_SIZE] =
            std::array::from_fn(|_| IoSliceMut::new(buffers.next().unwrap_or_default()));
        let socket = UdpSockRef::from(&self.stream);
        let received = self.offload.single.recv(socket, &mut buffers, &mut batch.meta);
        batch.count = *received.as_ref().unwrap_or(&0);
        received.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
    }
}

/// Lets the kernel fragment a datagram that is too large for the path, as it does by default,
/// because the sender knows nothing of the path from here. quinn-udp forbids fragments, as QUIC
/// needs it.
fn allow_fragments(socket: &StdSocket) -> io::Result<()> {
    if socket.local_addr()?.is_ipv4() {
        set_int(socket.as_fd(), libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_WANT)
    } else {
        let (level, want) = (libc::IPPROTO_IPV6, libc::IPV6_PMTUDISC_WANT);
        set_int(socket.as_fd(), level, libc::IPV6_MTU_DISCOVER, want)?;
        set_int(socket.as_fd(), level, libc::IPV6_DONTFRAG, 0)
    }
}

#[cfg(test)]
mod tests;
