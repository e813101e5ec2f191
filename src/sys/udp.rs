//! UDP sockets: many datagrams by one system call in both directions, where the kernel can do that
//! (recvmmsg(2), and the segmentation and receive offloads of udp(7)).

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

/// Room for one datagram, or for the several that the kernel has put together.
const ROOM: usize = 64 * 1024;
/// Payload of one send at most: what fits an IPv4 datagram (RFC 791).
pub const MAX_PAYLOAD: usize = 65_507;
/// Segments of one send at most (UDP_MAX_SEGMENTS of older kernels).
pub const MAX_SEGMENTS: usize = 64;

/// A segment of more is not sent together with others: with its headers it may be more than an
/// Ethernet frame takes, and the kernel refuses segments that would have to be fragmented.
const MAX_SEGMENT: usize = 1452;

/// A UDP socket that belongs to one worker.
pub struct UdpSocket {
    stream: Stream,
    offload: Rc<Offload>,
    /// Over epoll, where a peer's errors are to wake the reader.
    errors: Option<Reported>,
}

/// What the connected sockets of one worker share.
pub struct Connected {
    offload: Rc<Offload>,
    errors: Option<Rc<Errors>>,
}

/// What has been found out about the ways out: finding it out costs a dozen system calls, so that
/// sockets share it. Two, because a single send that is refused says nothing of segments.
struct Offload {
    single: UdpSocketState,
    joined: UdpSocketState,
}

impl Connected {
    /// On the worker's thread.
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
        // This sets options of the socket, too.
        let state = || UdpSocketState::new(UdpSockRef::from(socket));
        Ok(Rc::new(Offload { single: state()?, joined: state()? }))
    }
}

/// Datagrams that were not sent because the kernel had an error about an earlier one to return.
pub struct Refusal<'b> {
    /// The error.
    pub errno: Errno,
    /// The datagrams that were not tried, and the one that met the error before them.
    pub rest: &'b [u8],
    /// Datagrams before these that were not sent.
    pub lost: usize,
}

/// Datagrams of one receive. One for a worker: it is 2 MiB.
pub struct Batch {
    buffer: Box<[u8]>,
    meta: [RecvMeta; BATCH_SIZE],
    count: usize,
}

/// Datagrams of one sender that arrived together.
pub struct Received<'b> {
    /// Who sent them.
    pub from: SocketAddr,
    /// The address of ours that they were sent to, where the kernel says so.
    pub to: Option<IpAddr>,
    /// One behind the other.
    pub bytes: &'b [u8],
    /// The length of each; the last may be shorter. 0 only for one that is empty.
    pub segment: usize,
}

/// Binds a socket for one of several workers, which share the address (SO_REUSEPORT): the kernel
/// gives a sender to the same one of them as long as there are as many.
///
/// # Errors
/// As bind(2): EADDRINUSE, EACCES, EADDRNOTAVAIL.
pub fn bind_udp(address: SocketAddr, reuse_port: bool) -> io::Result<StdSocket> {
    let socket = socket_for(address)?;
    if address.is_ipv6() {
        // `[::]` and `0.0.0.0` are two listeners, as with TCP.
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
    /// The options that tell where a datagram was sent to, or the runtime's.
    pub fn bound(socket: StdSocket) -> io::Result<UdpSocket> {
        let offload = Offload::of(&socket)?;
        allow_fragments(&socket)?;
        Ok(UdpSocket { stream: Stream::from_fd(socket.into())?, offload, errors: None })
    }

    /// A socket of its own for one session. The kernel chooses address and port.
    ///
    /// # Errors
    /// Those of socket(2) and connect(2). A socket that is connected to itself is an error: it
    /// would receive its own datagrams.
    pub fn connected(to: SocketAddr, shared: &Connected) -> Result<UdpSocket, ConnectError> {
        let errno = |error: &io::Error| Errno::from_io_error(error).unwrap_or(Errno::IO);
        let socket = socket_for(to).map_err(|error| ConnectError::at_once(errno(&error)))?;
        net::connect(&socket, &to).map_err(ConnectError::at_once)?;
        if is_bound_to(&socket, to) {
            return Err(ConnectError::OwnPeer);
        }
        // Where the kernel cannot put datagrams together, they come one by one.
        let _ = set_int(socket.as_fd(), libc::SOL_UDP, libc::UDP_GRO, 1);
        let stream = Stream::from_fd(socket.into());
        let stream = stream.map_err(|error| ConnectError::Local(errno(&error)))?;
        let errors = shared.errors.as_ref().and_then(|errors| errors.report(&stream));
        Ok(UdpSocket { stream, offload: Rc::clone(&shared.offload), errors })
    }

    /// Waits until datagrams are there, the network has reported an error to a connected socket, or
    /// the socket was ended. May be dropped at any time.
    pub async fn readable(&self) {
        let readable = self.stream.readable();
        match &self.errors {
            None => readable.await,
            Some(errors) => errors.or_error(readable).await,
        }
    }

    /// Wakes whoever waits, for good.
    pub fn end(&self) {
        self.stream.shutdown();
    }

    /// Where it is bound.
    ///
    /// # Errors
    /// As getsockname(2); practically never.
    pub fn local_port(&self) -> io::Result<u16> {
        let address: SocketAddr = net::getsockname(&self.stream)?.try_into()?;
        Ok(address.port())
    }

    /// Receives what is there, as far as it fits the batch; says how many receives that was.
    ///
    /// # Errors
    /// `AGAIN` when nothing is there; what the network has told of earlier sends
    /// ([`is_unreachable`]); else as recvmmsg(2).
    pub fn receive(&self, batch: &mut Batch) -> Result<usize, Errno> {
        let mut rooms = batch.buffer.chunks_exact_mut(ROOM);
        let mut rooms: [IoSliceMut<'_>; BATCH_SIZE] =
            std::array::from_fn(|_| IoSliceMut::new(rooms.next().unwrap_or_default()));
        let socket = UdpSockRef::from(&self.stream);
        let received = self.offload.single.recv(socket, &mut rooms, &mut batch.meta);
        batch.count = *received.as_ref().unwrap_or(&0);
        received.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
    }

    /// Sends datagrams of one length, the last of which may be shorter, from this address of ours:
    /// by one call where the kernel and the way out allow it. What the socket has no room for is
    /// lost, as everywhere on the way. Returns how many datagrams were not sent.
    ///
    /// # Errors
    /// What the network reported about an earlier datagram ([`is_unreachable`]). The kernel returns
    /// that error once, from whichever call comes first, and does not send the datagram of that
    /// call. [`Refusal`] begins with it.
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
                // The way out does not segment, or takes less at once.
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

    /// As [`UdpSocket::try_send`], but a datagram that meets an error about an earlier one is sent
    /// again, once. The second value is such an error, if there was one.
    pub fn send(
        &self,
        to: SocketAddr,
        from: Option<IpAddr>,
        bytes: &[u8],
        segment: usize,
    ) -> (usize, Option<Errno>) {
        let (mut rest, mut lost, mut told) = (bytes, 0, None);
        // The length of the rest whose first datagram has been tried already.
        let mut tried = None;
        loop {
            match self.try_send(to, from, rest, segment) {
                Ok(more) => return (lost + more, told),
                Err(refusal) => {
                    (lost, told) = (lost + refusal.lost, Some(refusal.errno));
                    rest = refusal.rest;
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

/// Says that the network could not deliver a datagram: the fatal ones among the errors that the
/// kernel makes of ICMP messages (icmp_err_convert and tab_unreach of Linux), or of a missing
/// route.
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
    /// Room for as much as one receive takes.
    pub fn new() -> Batch {
        Batch {
            buffer: vec![0; ROOM * BATCH_SIZE].into_boxed_slice(),
            meta: [RecvMeta::default(); BATCH_SIZE],
            count: 0,
        }
    }

    /// What the last receive brought, in order.
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

/// Without what makes two of one sender (the flow label of IPv6).
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

/// A datagram that is too large for the way is fragmented, as the kernel does by default: its
/// sender knows nothing of our ways. quinn-udp forbids that, which QUIC needs.
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
