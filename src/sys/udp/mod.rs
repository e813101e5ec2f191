//! UDP sockets that move many datagrams by one system call in both directions, if the kernel
//! supports it (recvmmsg(2), and the segmentation and receive offloads of udp(7)).

mod batch;
mod send;

use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket as StdSocket};
use std::rc::Rc;
use std::sync::Arc;

use quinn_udp::{BATCH_SIZE, UdpSockRef, UdpSocketState};
use rustix::net::sockopt::{self, Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery};
use socket2::{Domain, Socket, Type};

pub use self::batch::{Batch, Received};
pub use self::send::{Refusal, is_unreachable};
use super::connect::{connected_udp, is_bound_to, registered};
use super::errors::{Errors, Reported};
use super::listen::socket_for;
use super::options::set_int;
use super::{ConnectError, Errno, Stream, check_descriptors, to_errno};

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
    offload: Arc<Offload>,
    /// Only for connected sockets over epoll: wakes the reader when the peer reports an error.
    errors: Option<Reported>,
}

/// What the connected sockets of one worker share.
pub struct Connected {
    offload: Arc<Offload>,
    errors: Option<Rc<Errors>>,
}

/// What is known about the kernel's offloads. Finding it out costs some dozen system calls and
/// needs descriptors, so connected sockets share it, and that of a bound socket is made ahead of
/// its use. After a send has failed (EIO, EINVAL) quinn-udp does not segment with the same state
/// again. There are two states, because the failure of a single datagram says nothing about
/// segmentation.
pub struct Offload {
    single: UdpSocketState,
    joined: UdpSocketState,
}

impl Connected {
    /// Must be called on the worker's thread, when it starts: later there may be no descriptors.
    ///
    /// # Errors
    /// As socket(2) and epoll_create1(2).
    pub fn start() -> io::Result<Connected> {
        let socket = |domain| Socket::new(domain, Type::DGRAM, None);
        let socket = socket(Domain::IPV4).or_else(|_| socket(Domain::IPV6))?;
        Ok(Connected { offload: Offload::of(&socket.into())?, errors: Errors::start()? })
    }
}

impl Offload {
    /// Finds out what the kernel can do for a socket, and sets the options for that.
    ///
    /// # Errors
    /// As setsockopt(2); EMFILE or ENFILE if there are no descriptors to find it out with.
    pub fn of(socket: &StdSocket) -> io::Result<Arc<Offload>> {
        // `UdpSocketState::new` sets options of the socket, too.
        let state = || UdpSocketState::new(UdpSockRef::from(socket));
        let offload = Offload { single: state()?, joined: state()? };
        if [&offload.single, &offload.joined].iter().any(|one| one.max_gso_segments() == 1) {
            // A socket that it tries the options with is missing, or the kernel cannot do it.
            check_descriptors(1)?;
        }
        allow_fragments(socket)?;
        Ok(Arc::new(offload))
    }
}

/// Binds a socket for one of several workers, which share the address (SO_REUSEPORT). The kernel
/// delivers the datagrams of a sender to the same socket as long as the number of sockets stays the
/// same.
///
/// # Errors
/// As bind(2): EADDRINUSE, EACCES, EADDRNOTAVAIL.
pub fn bind_udp(address: SocketAddr, reuse_port: bool) -> io::Result<StdSocket> {
    let address = address.into();
    let socket = socket_for(&address, Type::DGRAM.nonblocking())?;
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address)?;
    Ok(socket.into())
}

impl UdpSocket {
    /// Takes over a bound socket, with its offload. Opens no descriptor.
    ///
    /// # Errors
    /// The runtime's.
    pub fn bound(socket: StdSocket, offload: Arc<Offload>) -> io::Result<UdpSocket> {
        Ok(UdpSocket { stream: Stream::from_fd(socket.into())?, offload, errors: None })
    }

    /// Makes a connected socket for one session. The kernel chooses the local address and port.
    ///
    /// # Errors
    /// Those of socket(2) and connect(2). A socket that is connected to itself is an error, because
    /// it would receive its own datagrams.
    pub fn connected(to: SocketAddr, shared: &Connected) -> Result<UdpSocket, ConnectError> {
        let socket = connected_udp(to)?;
        if is_bound_to(&socket, to) {
            return Err(ConnectError::OwnPeer);
        }
        // If the kernel cannot join datagrams, they arrive one by one.
        let _ = set_int(&socket, libc::SOL_UDP, libc::UDP_GRO, 1);
        let stream = registered(socket)?;
        let errors = shared.errors.as_ref().and_then(|errors| errors.report(&stream));
        Ok(UdpSocket { stream, offload: Arc::clone(&shared.offload), errors })
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

    /// Wakes the tasks that wait for a connected socket. Later waits return at once, too. Not for a
    /// bound socket, which another process may have, too.
    pub fn end(&self) {
        self.stream.shutdown();
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
        received.map_err(to_errno)
    }
}

/// Lets the kernel fragment a datagram that is too large for the path, as it does by default,
/// because the sender knows nothing of the path from here. quinn-udp forbids fragments, as QUIC
/// needs it. socket2 has none of these options.
fn allow_fragments(socket: &StdSocket) -> io::Result<()> {
    if socket.local_addr()?.is_ipv4() {
        Ok(sockopt::set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::WANT)?)
    } else {
        sockopt::set_ipv6_mtu_discover(socket, Ipv6PathMtuDiscovery::WANT)?;
        set_int(socket, libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG, 0)
    }
}

#[cfg(test)]
mod tests;
