//! Small, safe wrappers of the operating system, and the only place with unsafe code.
//!
//! A [`Stream`] is a connected socket: it waits through the worker's runtime (io_uring or epoll)
//! and moves bytes by direct, non-blocking system calls. A [`Pipe`] carries bytes between two
//! streams without copying them to user space. A [`SendRing`] sends the small messages of many
//! streams by one system call. This module knows no protocol and no configuration.
//!
//! socket2 creates, configures, binds and connects sockets. What it lacks is done by rustix, with
//! the reason beside the call.

#![allow(unsafe_code)] // denied everywhere else

mod address;
mod child;
mod clock;
mod connect;
mod errors;
mod file;
mod handed;
mod limits;
mod listen;
mod memory;
mod options;
mod pass;
mod pipe;
mod ports;
mod process;
mod random;
mod ring;
mod send_ring;
mod signals;
mod spare;
mod stream;
mod udp;

pub use address::Address;
pub use child::inherits_only;
pub use clock::ThreadClock;
pub use connect::{Connect, ConnectError, UnixConnect, is_local};
pub use file::{Directory, File, Lookup, Metadata, Opened, probe_open_below};
pub use handed::{
    HandedSocket, SocketKind, handed_socket, monotonic_us, pidfd_inode, remove_variables,
    send_with_descriptor, take_descriptors, takes_both_families,
};
pub use limits::{
    CLOSING_SESSIONS, Needs, Shares, check_descriptors, file_limit, hard_file_limit,
    raise_file_limit,
};
pub use listen::{
    accept_queue_length, bind_without_listening, listen, listen_anew, listens, probe_tcp,
    try_accept,
};
pub use memory::{release_memory, release_memory_of_ended_threads, set_up_allocator};
pub use options::SocketOptions;
pub use pass::{
    BoundSocket, MAX_DESCRIPTORS, bind_later, bound_address, bound_socket, inherited_packet_socket,
    number_of, packet_pair, receive_packet, send_packet, shares_port, unbound_udp,
};
pub use pipe::{MIN_PIPE_SIZE, Pipe};
pub use ports::refresh_local_ports;
pub use process::{Peer, leave_parent, name_sender, receive_from_peer};
pub use random::random_bytes;
pub use ring::{
    RingRefusal, is_out_of_memory, memlock_limit, probe_ring, ring_bytes, rings_are_charged,
};
pub use send_ring::SendRing;
pub use signals::{hold_signals, release_signals};
pub use spare::SpareDescriptor;
pub use stream::{Keepalive, Stream};
pub use udp::{
    Batch, Connected, MAX_PAYLOAD, MAX_SEGMENTS, Offload, Received, Refusal, UdpSocket, bind_udp,
    is_unreachable,
};

/// The error of a system call: small, `Copy`, compared without formatting.
pub type Errno = rustix::io::Errno;

/// Reduces the error of a socket to its number.
fn to_errno(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}
