//! The packets between a predecessor and its successor.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::net::UnixDatagram;

use crate::control::dns::Known;
use crate::control::roster::Steered;
use crate::control::sockets::Chosen;
use crate::sys::{self, Errno, Peer};

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
    /// Names of the sockets of this packet that the service manager has bound.
    #[serde(default)]
    pub(super) bound_by_manager: Vec<String>,
    /// Which listeners have the sockets of this packet whose ports the kernel chose.
    #[serde(default)]
    pub(super) chosen: Vec<Chosen>,
    /// The keys of session tickets, as [`TicketKeys::to_text`](crate::proto::tls::TicketKeys)
    /// writes them. Used if the successor's configuration has no file of them.
    #[serde(default)]
    pub(super) ticket_keys: String,
    /// What the predecessor knows of names.
    #[serde(default)]
    pub(super) names: Vec<Known>,
    /// Whether the predecessor reports what it counts, to the end of its process.
    #[serde(default)]
    pub(super) reports: bool,
    /// What operators have changed of clusters, with their names.
    #[serde(default)]
    pub(super) steered: Vec<(String, Steered)>,
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

    /// Sends a packet if there is room for it. Returns true if it is sent.
    pub(super) fn try_send(&self, bytes: &[u8]) -> bool {
        sys::send_packet(&self.0, bytes, &[]).is_ok()
    }

    /// Receives a packet. May be dropped at any time.
    ///
    /// # Errors
    /// An unexpected end if the peer is gone; otherwise as recvmsg(2).
    pub(super) async fn receive(&self) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
        self.receive_by(sys::receive_packet).await
    }

    /// Receives a packet, and says which process has sent it, as far as that is known. The socket
    /// must have been prepared for it by [`sys::name_sender`] before the packet was sent.
    ///
    /// # Errors
    /// As [`Packets::receive`].
    pub(super) async fn receive_first(&self) -> io::Result<(Vec<u8>, Option<Peer>)> {
        let received = self.receive_by(sys::receive_from_peer).await?;
        sys::name_sender(&self.0, false)?;
        Ok(received)
    }

    async fn receive_by<T>(
        &self,
        receive: impl Fn(&UnixDatagram) -> Result<(Vec<u8>, T), Errno>,
    ) -> io::Result<(Vec<u8>, T)> {
        let receive = || match receive(&self.0) {
            // The peer has left packets unread. What it has sent before is still there.
            Err(Errno::CONNRESET) => Ok(receive(&self.0)?),
            result => Ok(result?),
        };
        let (bytes, more) = self.0.async_io(Interest::READABLE, receive).await?;
        if bytes.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok((bytes, more))
    }
}

impl AsFd for Packets {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
