//! Another configuration: addresses that are new are bound, all or none, before anything changes.
//! Clients come to them when the configuration is in use, and not before.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::address::{Binding, SocketsOfAddress, is_udp};
use super::held::{Held, Ports};
use super::inherited::Groups;
use super::{AnySocket, ByWorker, Inherited, Sockets};
use crate::config::{Config, Listener};
use crate::error::Error;
use crate::sys::Address;

/// How long an address in use is retried. After a process was killed, the kernel closes its rings
/// in the background, and the rings hold its sockets for some more milliseconds. A process that
/// drains closes its listening sockets within a tick of its workers, and so does a reload.
const IN_USE_FOR: Duration = Duration::from_secs(2);
/// After so many addresses the control plane does what else there is.
const IN_A_ROW: usize = 16;

/// What [`Sockets`] are to become. Dropping it closes what was bound for it and removes the paths.
pub(in crate::control) struct Change {
    /// In the order of the configuration.
    addresses: Vec<Planned>,
}

enum Planned {
    /// Sockets that are kept, and their position.
    Kept {
        position: usize,
        listener: Arc<Listener>,
    },
    New(SocketsOfAddress),
}

impl Sockets {
    /// Binds what another configuration needs beyond what there is, and changes nothing else.
    /// `leaving` is the address of another socket of this process, which is closed before the
    /// change is applied.
    ///
    /// # Errors
    /// The error of the first address that is refused, with advice.
    pub(in crate::control) async fn prepare(
        &self,
        config: &Config,
        leaving: Option<&Address>,
    ) -> Result<Change, Error> {
        let mut groups = Groups::new(Inherited::default());
        groups.add_leaving(leaving);
        self.prepare_with(config, &mut groups, false).await
    }

    /// Returns true if only sockets that a change removes have this address, for TCP.
    pub(in crate::control) fn frees(&self, change: &Change, address: &Address) -> bool {
        let mut removed: Vec<bool> = vec![true; self.addresses.len()];
        let (mut leave, mut stay) = (Ports::default(), Ports::default());
        for planned in &change.addresses {
            match planned {
                Planned::Kept { position, .. } => removed[*position] = false,
                Planned::New(new) => stay.add_address(new),
            }
        }
        for (one, is_removed) in self.addresses.iter().zip(removed) {
            if is_removed { leave.add_address(one) } else { stay.add_address(one) }
        }
        leave.beside(false, address).0 && !stay.beside(false, address).0
    }

    /// As [`Sockets::prepare`], and uses inherited sockets where there are some. With `at_once`
    /// addresses that no such socket has are listened on.
    pub(super) async fn prepare_with(
        &self,
        config: &Config,
        inherited: &mut Groups,
        at_once: bool,
    ) -> Result<Change, Error> {
        let until = Instant::now() + IN_USE_FOR;
        let mut held = Held::new(&self.addresses);
        inherited.add_ports(&mut held.ports);
        let mut change = Change { addresses: Vec::new() };
        for listener in &config.listeners {
            for address in &listener.addresses {
                if let Some(position) = held.take(listener, address) {
                    let listener = Arc::clone(listener);
                    change.addresses.push(Planned::Kept { position, listener });
                    continue;
                }
                let group = inherited.take(config, listener, address);
                let (is_held, is_covered) = held.ports.beside(is_udp(listener), address);
                let workers = self.workers;
                let binding = Binding { listener, address, workers, is_held, is_covered, at_once };
                let new = match group {
                    Some(group) => binding.adopt(group)?,
                    None => binding.bind_until(until).await?,
                };
                change.addresses.push(Planned::New(new));
                // A UDP socket takes a quarter of a millisecond. Signals, and the beats for the
                // watchdog, must not wait for thousands of them.
                if change.addresses.len().is_multiple_of(IN_A_ROW) {
                    tokio::task::yield_now().await;
                }
            }
        }
        Ok(change)
    }

    /// The listening sockets of a worker that a change keeps, with the names of their listeners.
    pub(in crate::control) fn kept(
        &self,
        change: &Change,
        worker: usize,
    ) -> Vec<(Arc<TcpListener>, Arc<str>)> {
        let mut kept = Vec::new();
        for planned in &change.addresses {
            let Planned::Kept { position, listener } = planned else { continue };
            if let ByWorker::Streams(workers) = &self.addresses[*position].sockets {
                let named = |socket| (Arc::clone(socket), Arc::clone(&listener.name));
                kept.extend(workers[worker].iter().map(named));
            }
        }
        kept
    }

    /// The sockets that a change removes. Workers may share one.
    pub(in crate::control) fn removed(&self, change: &Change) -> Vec<AnySocket> {
        let mut is_kept = vec![false; self.addresses.len()];
        for planned in &change.addresses {
            if let Planned::Kept { position, .. } = planned {
                is_kept[*position] = true;
            }
        }
        let mut removed = Vec::new();
        for (address, _) in self.addresses.iter().zip(is_kept).filter(|(_, is_kept)| !is_kept) {
            match &address.sockets {
                ByWorker::Streams(workers) => {
                    let sockets = workers.iter().flatten().map(Arc::clone);
                    removed.extend(sockets.map(AnySocket::Stream));
                }
                ByWorker::Datagrams(workers) => {
                    let sockets = workers.iter().flatten().map(Arc::clone);
                    removed.extend(sockets.map(AnySocket::Datagram));
                }
            }
        }
        removed
    }

    /// Takes a change into use: from now on these are the sockets. `change` must come from the last
    /// call of [`Sockets::prepare`]. Sockets that are kept get the options of their listener.
    /// Removed ones are closed here, and by the workers once they do not serve them any more. From
    /// here on clients come to new ones.
    pub(in crate::control) fn apply(&mut self, change: Change) {
        let mut before: Vec<Option<SocketsOfAddress>> =
            self.addresses.drain(..).map(Some).collect();
        for planned in change.addresses {
            match planned {
                Planned::Kept { position, listener } => {
                    let kept = before.get_mut(position).and_then(Option::take);
                    let mut kept = kept.expect("a change names each of these addresses once");
                    kept.reconfigure(listener);
                    self.addresses.push(kept);
                }
                Planned::New(mut new) => match new.begin() {
                    Ok(()) => {
                        new.announce("listening");
                        self.addresses.push(new);
                    }
                    Err(error) => new.report_unserved(&error),
                },
            }
        }
        for removed in before.iter().flatten() {
            removed.announce("no longer listening");
        }
    }
}

impl Change {
    /// The sockets that were bound for it.
    pub(super) fn into_new(self) -> Vec<SocketsOfAddress> {
        let new = self.addresses.into_iter().filter_map(|planned| match planned {
            Planned::New(new) => Some(new),
            Planned::Kept { .. } => None,
        });
        new.collect()
    }
}
