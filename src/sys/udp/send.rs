//! Sends datagrams, many by one call if the kernel and the network device can segment, and handles
//! the errors that the network reports about earlier ones.

use std::net::{IpAddr, SocketAddr};

use quinn_udp::{Transmit, UdpSockRef, UdpSocketState};

use super::{MAX_SEGMENT, MAX_SEGMENTS, Offload, UdpSocket};
use crate::sys::{Errno, to_errno};

/// Datagrams that were not sent because the kernel returned an error about an earlier one.
pub struct Refusal<'b> {
    /// The error.
    pub errno: Errno,
    /// The datagram whose send returned the error, and those after it, which were not tried.
    pub rest: &'b [u8],
    /// The number of datagrams before `rest` that were not sent.
    pub lost: usize,
}

impl UdpSocket {
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
            sent.map_err(to_errno)
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
        let (mut rest, mut lost, mut reported) = (bytes, 0, None);
        // The length that `rest` had when its first datagram was refused_at and not sent.
        let mut refused_at = None;
        loop {
            match self.try_send(to, from, rest, segment) {
                Ok(more) => return (lost + more, reported),
                Err(refusal) => {
                    (lost, reported) = (lost + refusal.lost, Some(refusal.errno));
                    rest = refusal.rest;
                    // The second failure of the same datagram: skip it.
                    if refused_at == Some(rest.len()) {
                        lost += 1;
                        rest = &rest[segment.min(rest.len())..];
                        if rest.is_empty() {
                            return (lost, reported);
                        }
                    } else {
                        refused_at = Some(rest.len());
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
