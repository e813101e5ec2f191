//! UDP sockets: many datagrams by one system call in both directions, where the kernel can do that
//! (recvmmsg(2), and the segmentation and receive offloads of udp(7)).

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as StdSocket};
use std::os::fd::AsFd;
use std::rc::Rc;

use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};

use super::connect::is_bound_to;
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
}

/// What has been found out about the ways out: finding it out costs a dozen system calls, so that
/// sockets share it. Two, because a single send that is refused says nothing of segments.
pub struct Offload {
    single: UdpSocketState,
    joined: UdpSocketState,
}

impl Offload {
    /// Nothing yet.
    ///
    /// # Errors
    /// As socket(2).
    pub fn new() -> io::Result<Rc<Offload>> {
        let socket = bind_udp((Ipv4Addr::LOCALHOST, 0).into(), false)?;
        let state = || UdpSocketState::new(UdpSockRef::from(&socket));
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
        // This sets the options, too.
        let state = || UdpSocketState::new(UdpSockRef::from(&socket));
        let offload = Rc::new(Offload { single: state()?, joined: state()? });
        allow_fragments(&socket)?;
        Ok(UdpSocket { stream: Stream::from_fd(socket.into())?, offload })
    }

    /// A socket of its own for one session. The kernel chooses address and port.
    ///
    /// # Errors
    /// Those of socket(2) and connect(2). A socket that is connected to itself is an error: it
    /// would receive its own datagrams.
    pub fn connected(to: SocketAddr, offload: &Rc<Offload>) -> Result<UdpSocket, ConnectError> {
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
        Ok(UdpSocket { stream, offload: Rc::clone(offload) })
    }

    /// Waits until datagrams are there, or the socket was ended. May be dropped at any time.
    pub async fn readable(&self) {
        self.stream.readable().await;
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
mod tests {
    use super::*;

    fn run(test: impl AsyncFnOnce()) {
        let mut runtime = monoio::RuntimeBuilder::<monoio::LegacyDriver>::new().build().unwrap();
        runtime.block_on(test());
    }

    fn local() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    /// Receives so many datagrams; each is given with who it is from and where it was sent to.
    async fn datagrams(socket: &UdpSocket, count: usize) -> Vec<Vec<u8>> {
        let (mut batch, mut all) = (Batch::new(), Vec::new());
        while all.len() < count {
            socket.readable().await;
            match socket.receive(&mut batch) {
                Ok(_) => {}
                Err(Errno::AGAIN) => continue,
                Err(errno) => panic!("{errno}"),
            }
            for received in batch.iter() {
                assert_eq!(received.to, Some([127, 0, 0, 1].into()));
                match received.bytes {
                    [] => all.push(Vec::new()),
                    bytes => all.extend(bytes.chunks(received.segment).map(<[u8]>::to_vec)),
                }
            }
        }
        all
    }

    #[test]
    fn datagrams_keep_their_boundaries_in_whatever_calls_they_travel() {
        run(async || {
            let to = UdpSocket::bound(bind_udp(local(), true).unwrap()).unwrap();
            let address = SocketAddr::new([127, 0, 0, 1].into(), to.local_port().unwrap());
            let from = UdpSocket::connected(address, &Offload::new().unwrap()).unwrap();
            let many: Vec<u8> = (0..10_000).map(|index| index as u8).collect();
            assert_eq!(from.send(address, None, &many, 300), (0, None));
            assert_eq!(from.send(address, None, b"", 0), (0, None));
            assert_eq!(from.send(address, None, &[7; MAX_PAYLOAD], MAX_PAYLOAD), (0, None));
            assert_eq!(from.send(address, None, b"last", 4), (0, None));
            let received = datagrams(&to, 34 + 3).await;
            let expected: Vec<Vec<u8>> = many.chunks(300).map(<[u8]>::to_vec).collect();
            assert!(received[..34] == expected);
            assert!(received[34].is_empty() && received[35] == [7; MAX_PAYLOAD]);
            assert_eq!(received[36], b"last");
        });
    }

    #[test]
    fn more_than_segments_allow_goes_one_by_one() {
        run(async || {
            let to = UdpSocket::bound(bind_udp(local(), false).unwrap()).unwrap();
            let address = SocketAddr::new([127, 0, 0, 1].into(), to.local_port().unwrap());
            let from = UdpSocket::connected(address, &Offload::new().unwrap()).unwrap();
            assert_eq!(from.send(address, None, &[1; 100], 1), (0, None));
            assert_eq!(datagrams(&to, 100).await.len(), 100);
        });
    }

    /// A bound socket that takes datagrams from one other address alone, so that the kernel answers
    /// all others with "port unreachable".
    fn refusing() -> (StdSocket, SocketAddr) {
        let socket = StdSocket::bind(local()).unwrap();
        net::connect(&socket, &SocketAddr::from(([127, 0, 0, 1], 9))).unwrap();
        let address = socket.local_addr().unwrap();
        (socket, address)
    }

    /// From now on it takes datagrams from this sender.
    fn open(socket: StdSocket, sender: &UdpSocket) -> UdpSocket {
        let sender = SocketAddr::new([127, 0, 0, 1].into(), sender.local_port().unwrap());
        net::connect(&socket, &sender).unwrap();
        UdpSocket::bound(socket).unwrap()
    }

    #[test]
    fn a_datagram_that_meets_the_error_of_an_earlier_one_is_given_back() {
        run(async || {
            let (_refusing, address) = refusing();
            let from = UdpSocket::connected(address, &Offload::new().unwrap()).unwrap();
            assert!(matches!(from.try_send(address, None, b"refused", 7), Ok(0)));
            let refusal = from.try_send(address, None, b"one two three", 4).err().unwrap();
            assert_eq!((refusal.errno, refusal.lost), (Errno::CONNREFUSED, 0));
            assert_eq!(refusal.rest, b"one two three");
            // The kernel returns an error once.
            assert!(matches!(from.receive(&mut Batch::new()), Err(Errno::AGAIN)));
        });
    }

    #[test]
    fn a_datagram_that_meets_the_error_of_an_earlier_one_is_sent_again() {
        for (bytes, segment) in [(&b"once more"[..], 9), (b"three at a time", 5), (b"", 0)] {
            run(async || {
                let (socket, address) = refusing();
                let from = UdpSocket::connected(address, &Offload::new().unwrap()).unwrap();
                assert_eq!(from.send(address, None, b"refused", 7), (0, None));
                let to = open(socket, &from);
                let sent = from.send(address, None, bytes, segment);
                assert_eq!(sent, (0, Some(Errno::CONNREFUSED)));
                let count = bytes.len().div_ceil(segment.max(1)).max(1);
                assert_eq!(datagrams(&to, count).await.concat(), bytes);
            });
        }
    }

    #[test]
    fn datagrams_to_a_socket_that_refuses_them_all_are_tried_twice_at_most() {
        run(async || {
            let (_refusing, address) = refusing();
            // One by one: each that is sent leaves an error to the next.
            let offload = Offload::new().unwrap();
            let from = UdpSocket::connected(address, &offload).unwrap();
            let many = [7; 100];
            assert_eq!(from.send(address, None, &many, 1), (0, Some(Errno::CONNREFUSED)));
        });
    }

    #[test]
    fn a_socket_of_many_peers_has_no_errors_of_theirs() {
        run(async || {
            let listener = UdpSocket::bound(bind_udp(local(), false).unwrap()).unwrap();
            let (_refusing, gone) = refusing();
            let there = StdSocket::bind(local()).unwrap();
            let client = there.local_addr().unwrap();
            for _ in 0..3 {
                assert!(matches!(listener.try_send(gone, None, b"gone", 4), Ok(0)));
                assert!(matches!(listener.try_send(client, None, b"there", 5), Ok(0)));
                assert_eq!(there.recv(&mut [0; 10]).unwrap(), 5);
            }
            assert!(matches!(listener.receive(&mut Batch::new()), Err(Errno::AGAIN)));
        });
    }

    #[test]
    fn whoever_waits_hears_of_the_end() {
        run(async || {
            let (to, offload) = ("127.0.0.1:9".parse().unwrap(), Offload::new().unwrap());
            let waits = Rc::new(UdpSocket::connected(to, &offload).unwrap());
            let waiting = monoio::spawn({
                let waits = Rc::clone(&waits);
                async move { waits.readable().await }
            });
            waits.end();
            waiting.await;
        });
    }
}
