//! Sockets that another process has bound: a predecessor, or the service manager.

use std::net::{TcpListener, UdpSocket};

/// Sockets that are used in place of binding their addresses.
#[derive(Default)]
#[expect(dead_code, reason = "a take-over will fill it")]
pub(in crate::control) struct Inherited {
    /// Listening sockets, of Unix paths, too.
    pub(in crate::control) streams: Vec<TcpListener>,
    /// UDP sockets.
    pub(in crate::control) datagrams: Vec<UdpSocket>,
}
