//! The packets between a predecessor and its successor.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::net::UnixDatagram;

use crate::control::sockets::Chosen;
use crate::sys;

/// What comes with a packet of sockets. The sockets themselves tell what they are.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Offer {
    /// The version of the packets.
    pub(super) version: u32,
    /// Whether another packet follows.
    pub(super) more: bool,
    /// Paths of Unix sockets that the successor must not remove.
    #[serde(default)]
    pub(super) foreign_paths: Vec<PathBuf>,
    /// Which listeners have the sockets of this packet whose ports the kernel chose.
    #[serde(default)]
    pub(super) chosen: Vec<Chosen>,
    /// The keys of session tickets, as [`TicketKeys::to_text`](crate::proto::tls::TicketKeys)
    /// writes them. Used if the successor's configuration has no file of them.
    #[serde(default)]
    pub(super) ticket_keys: String,
}

/// One end of a pair of sockets for packets. The type stands for such sockets as well: only its
/// readiness is used.
pub(super) struct Packets(UnixDatagram);

impl Packets {
    /// Must be called on the runtime.
    ///
    /// # Errors
    /// As epoll_ctl(2).
    pub(super) fn new(fd: OwnedFd) -> io::Result<Packets> {
        Ok(Packets(UnixDatagram::from_std(fd.into())?))
    }

    /// Sends a packet. May be dropped at any time.
    ///
    /// # Errors
    /// EPIPE if the peer is gone; otherwise as sendmsg(2).
    pub(super) async fn send(
        &self,
        bytes: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let send = || Ok(sys::send_packet(&self.0, bytes, descriptors)?);
        self.0.async_io(Interest::WRITABLE, send).await
    }

    /// Sends a packet if there is room for it.
    pub(super) fn try_send(&self, bytes: &[u8]) {
        let _ = sys::send_packet(&self.0, bytes, &[]);
    }

    /// Receives a packet. May be dropped at any time.
    ///
    /// # Errors
    /// An unexpected end if the peer is gone, ECONNRESET if it left packets unread; otherwise as
    /// recvmsg(2).
    pub(super) async fn receive(&self) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
        let receive = || Ok(sys::receive_packet(&self.0)?);
        let (bytes, descriptors) = self.0.async_io(Interest::READABLE, receive).await?;
        if bytes.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok((bytes, descriptors))
    }
}
