//! UDP sockets that move many datagrams by one system call in both directions, if the kernel
//! supports it (recvmmsg(2), and the segmentation and receive offloads of udp(7)).

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as StdSocket};
use std::os::fd::AsFd;
use std::rc::Rc;

use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};

use super::connect::is_bound_to;
use super::errors::{Errors, Reported};
use super::options::set_int;
use super::{ConnectError, Errno, Stream};

/// Room for one datagram, or for several that the kernel has joined.
const ROOM: usize = 64 * 1024;
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

/// Datagrams that were not sent because the kernel returned an error about an earlier one.
pub struct Refusal<'b> {
    /// The error.
    pub errno: Errno,
    /// The datagram whose send returned the error, and those after it, which were not tried.
    pub rest: &'b [u8],
    /// The number of datagrams before `rest` that were not sent.
    pub lost: usize,
}

/// The datagrams of one receive. A worker has only one `Batch`, because it takes 2 MiB.
pub struct Batch {
    buffer: Box<[u8]>,
    meta: [RecvMeta; BATCH_SIZE],
    count: usize,
}

/// Datagrams of one sender that arrived together.
pub struct Received<'b> {
    /// Their sender.
    pub from: SocketAddr,
    /// The local address that they were sent to, if the kernel reports it.
    pub to: Option<IpAddr>,
    /// The datagrams, one after the other.
    pub bytes: &'b [u8],
    /// The length of each datagram; the last may be shorter. 0 only for one that is empty.
    pub segment: usize,
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
        let socket = socket_for(to).map_err(|error| ConnectError::at_once(errno(&error)))?;
        net::connect(&socket, &to).map_err(ConnectError::at_once)?;
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
            Some(errors) => errors.or_error(readable).await,
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
        let mut rooms = batch.buffer.chunks_exact_mut(ROOM);
        let mut rooms: [IoSliceMut<'_>; BATCH_SIZE] =
            std::array::from_fn(|_| IoSliceMut::new(rooms.next().unwrap_or_default()));
        let socket = UdpSockRef::from(&self.stream);
        let received = self.offload.single.recv(socket, &mut rooms, &mut batch.meta);
        batch.count = *received.as_ref().unwrap_or(&0);
        received.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
    }

    /// Sends datagrams of one length, the last of which may be shorter, from the local address
    /// `from`. One call sends them all if the kernel and the network device allow it. Datagrams
    /// that the socket has no room for are lost, as they may be anywhere on the network. Returns
    /// how many datagrams were not sent.
    ///
    /// # Errors
    /// The error that the network reported about an earlier datagram ([`is_unreachable`]). The
    /// kernel returns that error once, from the first call that follows, and does not send the
    /// datagram of that call. [`Refusal::rest`] begins with that datagram.
    pub fn try_send<'b>(
        &self,
        to: SocketAddr,
        from: Option<IpAddr>,
        bytes: &'b [u8],
        segment: usize,
    ) -> Result<usize, Refusal<'b>> {
        let send = |state: &UdpSocketState, contents, segment_size| {
            let transmit =
                Transmit { destination: to, ecn: None, contents, segment_size, src_ip: from };
            let sent = state.try_send(UdpSockRef::from(&self.stream), &transmit);
            sent.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
        };
        let Offload { single, joined } = &*self.offload;
        let count = bytes.len().div_ceil(segment.max(1)).max(1);
        // All at once, if segmentation is possible for this number and length.
        if count > 1
            && count <= joined.max_gso_segments().min(MAX_SEGMENTS)
            && segment <= MAX_SEGMENT
        {
            match send(joined, bytes, Some(segment)) {
                Ok(()) => return Ok(0),
                Err(Errno::AGAIN) => return Ok(count),
                Err(errno) if is_unreachable(errno) => {
                    return Err(Refusal { errno, rest: bytes, lost: 0 });
                }
                // The device does not segment, or takes fewer bytes at once: send one by one.
                Err(_) => {}
            }
        }
        let mut lost = 0;
        for index in 0..count {
            let rest = &bytes[index * segment..];
            match send(single, &rest[..segment.min(rest.len())], None) {
                Ok(()) => {}
                Err(errno) if is_unreachable(errno) => return Err(Refusal { errno, rest, lost }),
                Err(_) => lost += 1,
            }
        }
        Ok(lost)
    }

    /// As [`UdpSocket::try_send`], but a datagram whose send returns an error about an earlier one
    /// is sent again, once. The second value is such an error, if there was one.
    pub fn send(
        &self,
        to: SocketAddr,
        from: Option<IpAddr>,
        bytes: &[u8],
        segment: usize,
    ) -> (usize, Option<Errno>) {
        let (mut rest, mut lost, mut told) = (bytes, 0, None);
        // The length that `rest` had when its first datagram was tried and not sent.
        let mut tried = None;
        loop {
            match self.try_send(to, from, rest, segment) {
                Ok(more) => return (lost + more, told),
                Err(refusal) => {
                    (lost, told) = (lost + refusal.lost, Some(refusal.errno));
                    rest = refusal.rest;
                    // The second failure of the same datagram: skip it.
                    if tried == Some(rest.len()) {
                        lost += 1;
                        rest = &rest[segment.min(rest.len())..];
                        if rest.is_empty() {
                            return (lost, told);
                        }
                    } else {
                        tried = Some(rest.len());
                    }
                }
            }
        }
    }
}

/// Returns true if the network could not deliver a datagram. These are the fatal errors among those
/// that the kernel makes of ICMP messages (icmp_err_convert and tab_unreach of Linux) or of a
/// missing route.
pub fn is_unreachable(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::CONNREFUSED
            | Errno::HOSTUNREACH
            | Errno::NETUNREACH
            | Errno::HOSTDOWN
            | Errno::NONET
            | Errno::NOPROTOOPT
            | Errno::PROTO
            | Errno::ACCESS
    )
}

impl Batch {
    /// Makes room for one receive.
    pub fn new() -> Batch {
        Batch {
            buffer: vec![0; ROOM * BATCH_SIZE].into_boxed_slice(),
            meta: [RecvMeta::default(); BATCH_SIZE],
            count: 0,
        }
    }

    /// The datagrams of the last receive, in order.
    pub fn iter(&self) -> impl Iterator<Item = Received<'_>> {
        self.meta[..self.count].iter().zip(self.buffer.chunks_exact(ROOM)).map(|(meta, room)| {
            Received {
                from: plain(meta.addr),
                to: meta.dst_ip,
                bytes: &room[..meta.len],
                segment: meta.stride.min(meta.len),
            }
        })
    }
}

impl Default for Batch {
    fn default() -> Self {
        Batch::new()
    }
}

/// Removes what would make one sender look like two: the flow label of IPv6, and the scope of an
/// address that is not link-local.
fn plain(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(mut v6) => {
            v6.set_flowinfo(0);
            if !is_link_local(v6.ip()) {
                v6.set_scope_id(0);
            }
            v6.into()
        }
        v4 => v4,
    }
}

fn is_link_local(ip: &Ipv6Addr) -> bool {
    ip.segments()[0] & 0xffc0 == 0xfe80
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
