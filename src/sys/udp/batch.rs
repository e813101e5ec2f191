//! The buffer of a worker for the datagrams of one receive.

use std::net::{IpAddr, SocketAddr};

use quinn_udp::{BATCH_SIZE, RecvMeta};

use super::BUFFER_SIZE;

/// The datagrams of one receive. A worker has only one `Batch`, because it takes 2 MiB.
pub struct Batch {
    pub(super) buffer: Box<[u8]>,
    pub(super) meta: [RecvMeta; BATCH_SIZE],
    pub(super) count: usize,
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

impl Batch {
    /// Allocates the buffer.
    pub fn new() -> Batch {
        Batch {
            buffer: vec![0; BUFFER_SIZE * BATCH_SIZE].into_boxed_slice(),
            meta: [RecvMeta::default(); BATCH_SIZE],
            count: 0,
        }
    }

    /// The datagrams of the last receive, in order.
    pub fn iter(&self) -> impl Iterator<Item = Received<'_>> {
        self.meta[..self.count].iter().zip(self.buffer.chunks_exact(BUFFER_SIZE)).map(
            |(meta, buffer)| Received {
                from: sender(meta.addr),
                to: meta.dst_ip,
                bytes: &buffer[..meta.len],
                segment: meta.stride.min(meta.len),
            },
        )
    }
}

impl Default for Batch {
    fn default() -> Self {
        Batch::new()
    }
}

/// Removes what would make one sender look like two: the flow label of IPv6, and the scope of an
/// address that is not link-local.
fn sender(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(mut v6) => {
            v6.set_flowinfo(0);
            if !v6.ip().is_unicast_link_local() {
                v6.set_scope_id(0);
            }
            v6.into()
        }
        v4 => v4,
    }
}
