//! The successor's side of a take-over.

use std::io;
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::link::{Offer, Packets};
use super::reports::Reports;
use super::{ACCEPTING, GO, LISTENING, Predecessor, READY, RESIGNED, VERSION};
use crate::control::dns::Known;
use crate::control::roster::Steered;
use crate::control::sockets::Inherited;
use crate::error::Error;
use crate::proto::tls::TicketKeys;

/// How long the predecessor may take to send its sockets, which it does at once.
const SOCKETS_WITHIN: Duration = Duration::from_secs(10);

/// What the predecessor gives.
#[derive(Default)]
pub(in crate::control) struct Offered {
    /// Its sockets.
    pub(in crate::control) sockets: Inherited,
    /// The names of those that the service manager has bound.
    pub(in crate::control) bound_by_manager: Vec<String>,
    /// Its keys of session tickets.
    pub(in crate::control) ticket_keys: Option<Arc<TicketKeys>>,
    /// What it knows of names. The name servers may be silent now.
    pub(in crate::control) names: Vec<Known>,
    /// What operators have changed of clusters, in parts.
    pub(in crate::control) steered: Vec<(String, Steered)>,
    /// Whether it goes on to report what it counts.
    pub(in crate::control) reports: bool,
}

/// How long this process waits for the predecessor to resign: longer than the predecessor waits for
/// this one to accept, and than it takes to notify the service manager. One that stands still then
/// does all this when it goes on.
const RESIGNED_WITHIN: Duration = Duration::from_secs(10);

/// The connection to the predecessor, from the start until this process accepts; to the end of the
/// process if that comes first, as [`Predecessor`].
pub(in crate::control) struct Link(ManuallyDrop<Packets>);

impl Link {
    /// Must be called on the runtime.
    ///
    /// # Errors
    /// As epoll_ctl(2).
    pub(in crate::control) fn open(predecessor: Predecessor) -> Result<Link, Error> {
        let packets = Packets::new(ManuallyDrop::into_inner(predecessor.0)).map_err(failed)?;
        Ok(Link(ManuallyDrop::new(packets)))
    }

    /// Receives the predecessor's sockets and keys.
    ///
    /// # Errors
    /// The predecessor is gone, or is of a version with other packets.
    pub(in crate::control) async fn offered(&self) -> Result<Offered, Error> {
        match timeout(SOCKETS_WITHIN, self.receive_offers()).await {
            Ok(offered) => offered.map_err(failed),
            Err(_) => Err(failed(io::ErrorKind::TimedOut.into())),
        }
    }

    async fn receive_offers(&self) -> io::Result<Offered> {
        let mut offered = Offered::default();
        loop {
            let (bytes, descriptors) = self.0.receive().await?;
            let offer: Offer = serde_json::from_slice(&bytes)?;
            if offer.version != VERSION {
                return Err(io::Error::other("the predecessor is of an incompatible version"));
            }
            offered.sockets.foreign_paths.extend(offer.foreign_paths);
            offered.sockets.chosen.extend(offer.chosen);
            offered.names.extend(offer.names);
            offered.steered.extend(offer.steered);
            offered.reports |= offer.reports;
            offered.bound_by_manager.extend(offer.bound_by_manager);
            if let Some(keys) = TicketKeys::from_text(&offer.ticket_keys) {
                // A new key, because the time until the next one begins anew with each process.
                offered.ticket_keys = Some(Arc::new(keys.rotated()));
            }
            for fd in descriptors {
                offered.sockets.add(fd);
            }
            if !offer.more {
                return Ok(offered);
            }
        }
    }

    /// Tells the predecessor that nothing can be refused any more, and waits until it has stopped.
    /// A predecessor that has ended serves nothing, so this process goes on then.
    ///
    /// # Errors
    /// The predecessor has given the take-over up, and goes on.
    pub(in crate::control) async fn ready(&self) -> Result<(), Error> {
        // If this fails, the receive says why.
        let _ = self.0.send(READY, &[]).await;
        match self.0.receive().await {
            Ok((bytes, _)) if bytes == GO => {}
            Ok(_) => return Err(given_up()),
            Err(_) => {
                tracing::warn!(
                    "the predecessor has ended during the take-over: going on without it"
                );
                return Ok(());
            }
        }
        // If this process was stopped for long, it has given up meanwhile.
        match timeout(Duration::ZERO, self.0.receive()).await {
            Ok(Ok(_)) => Err(given_up()),
            Ok(Err(_)) | Err(_) => Ok(()),
        }
    }

    /// Tells the predecessor that this process accepts, and waits until the predecessor has told
    /// the service manager that this process is the main one of the service. Returns what it
    /// `reports` from then on.
    ///
    /// # Errors
    /// The predecessor has given the take-over up, and goes on.
    pub(in crate::control) async fn accepting(self, reports: bool) -> Result<Reports, Error> {
        // An error means that the predecessor has ended.
        let _ = self.0.send(if reports { LISTENING } else { ACCEPTING }, &[]).await;
        match timeout(RESIGNED_WITHIN, self.0.receive()).await {
            Ok(Ok((bytes, _))) if reports && bytes == RESIGNED => {}
            // It goes on when this process has ended, which the end of the packets may show.
            Ok(Ok(_)) => return Err(given_up()),
            Ok(Err(_)) | Err(_) => {
                drop(ManuallyDrop::into_inner(self.0));
                return Ok(Reports::default());
            }
        }
        Ok(Reports(Some(ManuallyDrop::into_inner(self.0))))
    }
}

fn given_up() -> Error {
    failed(io::Error::other("the predecessor has given up"))
}

fn failed(error: io::Error) -> Error {
    let advice = "the predecessor goes on; its diagnostics say why it gave up";
    Error::start("cannot take the sockets of the predecessor over", error, advice)
}
