//! Sockets that another process has bound: a predecessor, or the service manager. They are used in
//! place of binding their addresses.
//!
//! The other process may still serve them, and goes on if this one cannot start. So nothing about
//! them changes until [`Sockets::commit`](super::Sockets::commit), and a socket that is bound
//! beside them gets no clients before.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use super::ByWorker;
use super::address::{Binding, SocketsOfAddress, is_udp};
use super::unix_path::OwnPath;
use crate::config::{Config, Listener};
use crate::sys::{self, Address, BoundSocket};

/// Sockets that came from another process. Those of one address are in the order of the workers
/// that had them.
#[derive(Default)]
pub(in crate::control) struct Inherited {
    /// Listening sockets, of Unix paths, too.
    pub(in crate::control) streams: Vec<TcpListener>,
    /// UDP sockets.
    pub(in crate::control) datagrams: Vec<UdpSocket>,
    /// Paths of Unix sockets that this process does not remove at its end, because the service
    /// manager keeps listening there.
    pub(in crate::control) foreign_paths: Vec<PathBuf>,
}

/// Inherited sockets by their addresses, until a listener takes them.
pub(super) struct Groups(Vec<Group>);

/// Inherited sockets of one address.
pub(super) struct Group {
    address: Address,
    sockets: OfKind,
    /// Whether this process removes the path at its end.
    owns_path: bool,
}

enum OfKind {
    Streams(Vec<Arc<TcpListener>>),
    Datagrams(Vec<Arc<UdpSocket>>),
}

impl Inherited {
    /// Adds a descriptor. Returns false, and closes it, if it is no bound socket of a known kind.
    pub(in crate::control) fn add(&mut self, fd: OwnedFd) -> bool {
        match sys::bound_socket(fd) {
            Some(BoundSocket::Stream(socket)) => self.streams.push(socket),
            Some(BoundSocket::Datagram(socket)) => self.datagrams.push(socket),
            None => return false,
        }
        true
    }
}

impl Groups {
    pub(super) fn new(inherited: Inherited) -> Groups {
        let Inherited { streams, datagrams, foreign_paths } = inherited;
        let mut groups = Groups(Vec::new());
        for socket in streams {
            let Some(address) = sys::bound_address(&socket) else { continue };
            let socket = Arc::new(socket);
            let mut same = groups.0.iter_mut().filter(|group| group.address == address);
            let same = same.find_map(|group| match &mut group.sockets {
                OfKind::Streams(sockets) => Some(sockets),
                OfKind::Datagrams(_) => None,
            });
            if let Some(sockets) = same {
                sockets.push(socket);
                continue;
            }
            let owns_path =
                matches!(&address, Address::Unix(path) if !foreign_paths.contains(path));
            groups.0.push(Group { address, sockets: OfKind::Streams(vec![socket]), owns_path });
        }
        for socket in datagrams {
            let Some(address @ Address::Ip(_)) = sys::bound_address(&socket) else { continue };
            let socket = Arc::new(socket);
            let mut same = groups.0.iter_mut().filter(|group| group.address == address);
            let same = same.find_map(|group| match &mut group.sockets {
                OfKind::Datagrams(sockets) => Some(sockets),
                OfKind::Streams(_) => None,
            });
            if let Some(sockets) = same {
                sockets.push(socket);
                continue;
            }
            let sockets = OfKind::Datagrams(vec![socket]);
            groups.0.push(Group { address, sockets, owns_path: false });
        }
        groups
    }

    /// Takes the sockets for an address of a listener out. For port 0 these are the first ones with
    /// a port that no listener of the configuration names.
    pub(super) fn take(
        &mut self,
        config: &Config,
        listener: &Listener,
        address: &Address,
    ) -> Option<Group> {
        let is_wanted = |group: &Group| {
            let mut listeners = config.listeners.iter();
            listeners.any(|other| group.fits(other) && other.addresses.contains(&group.address))
        };
        let fits = |group: &Group| {
            let is_address = match (address, &group.address) {
                (Address::Ip(wanted), Address::Ip(bound)) if wanted.port() == 0 => {
                    wanted.ip() == bound.ip() && !is_wanted(group)
                }
                (wanted, bound) => wanted == bound,
            };
            is_address && group.fits(listener)
        };
        self.0.iter().position(fits).map(|position| self.0.remove(position))
    }

    /// Returns true if a socket without SO_REUSEPORT cannot be bound to an address because of
    /// these.
    pub(super) fn are_in_the_way(&self, listener: &Listener, address: &Address) -> bool {
        let conflicts = |group: &Group| group.fits(listener) && overlap(&group.address, address);
        self.0.iter().any(conflicts)
    }

    /// Closes what no listener has taken. Returns the paths that are to be removed.
    pub(super) fn close_rest(self) -> Vec<PathBuf> {
        let mut paths = Vec::new();
        for Group { address, owns_path, .. } in self.0 {
            tracing::warn!(%address, "an inherited socket is closed: no listener has its address");
            if let (Address::Unix(path), true) = (address, owns_path) {
                paths.push(path);
            }
        }
        paths
    }
}

impl Group {
    fn fits(&self, listener: &Listener) -> bool {
        matches!(self.sockets, OfKind::Datagrams(_)) == is_udp(listener)
    }
}

/// Returns true if two addresses have the same port of the same or of all addresses of a family.
pub(super) fn overlap(one: &Address, other: &Address) -> bool {
    let (Address::Ip(one), Address::Ip(other)) = (one, other) else { return false };
    let covers = |one: &SocketAddr, other: &SocketAddr| {
        one.ip() == other.ip() || one.ip().is_unspecified() && one.is_ipv4() == other.is_ipv4()
    };
    one.port() == other.port() && (covers(one, other) || covers(other, one))
}

impl Binding<'_> {
    /// Divides inherited sockets among the workers. Where there are fewer than workers, others are
    /// bound beside them.
    pub(super) fn adopt(&self, group: Group) -> SocketsOfAddress {
        let Group { address, sockets, owns_path } = group;
        let workers = || 0..self.workers;
        let mut unbound = Vec::new();
        let sockets = match sockets {
            OfKind::Streams(mut sockets) if matches!(address, Address::Unix(_)) => {
                sockets.truncate(1);
                ByWorker::Streams(vec![sockets; self.workers])
            }
            OfKind::Streams(mut sockets) => {
                self.add_streams(&address, &mut sockets);
                let count = sockets.len();
                // Workers without a socket of their own share those that there are.
                let of = |worker: usize| {
                    if worker >= count {
                        return vec![Arc::clone(&sockets[worker % count])];
                    }
                    sockets.iter().skip(worker).step_by(self.workers).cloned().collect()
                };
                ByWorker::Streams(workers().map(of).collect())
            }
            OfKind::Datagrams(mut sockets) => {
                unbound = self.add_datagrams(&sockets);
                sockets.extend(unbound.iter().cloned());
                // Workers that shared a socket would split the datagrams of a client.
                let of = |worker| sockets.iter().skip(worker).step_by(self.workers);
                let of = |worker| of(worker).cloned().collect();
                ByWorker::Datagrams(workers().map(of).collect())
            }
        };
        let mut adopted = self.made(sockets, address, None);
        adopted.is_pending = true;
        adopted.owns_path = owns_path;
        adopted.unbound = unbound;
        adopted
    }

    /// Binds further sockets beside inherited ones, until each worker has one.
    fn add_streams(&self, address: &Address, sockets: &mut Vec<Arc<TcpListener>>) {
        while sockets.len() < self.workers {
            match sys::bind_without_listening(address, &self.listener.socket, true) {
                Ok(socket) => sockets.push(Arc::new(socket)),
                // Another user has bound the address, or SO_REUSEPORT was not set then.
                Err(error) => return self.say_shared(address, &error),
            }
        }
    }

    /// Makes further UDP sockets. They are bound by a later call, because from then on they get a
    /// part of the datagrams.
    fn add_datagrams(&self, sockets: &[Arc<UdpSocket>]) -> Vec<Arc<UdpSocket>> {
        let Some(like) = sockets.first() else { return Vec::new() };
        let missing = self.workers.saturating_sub(sockets.len());
        (0..missing).map_while(|_| sys::unbound_udp(like).ok().map(Arc::new)).collect()
    }

    fn say_shared(&self, address: &Address, error: &std::io::Error) {
        tracing::info!(
            listener = %self.listener.name, %address, %error,
            "workers share an inherited socket, because no other can be bound beside it"
        );
    }
}

impl SocketsOfAddress {
    /// Takes inherited sockets into use. From here on clients come to those that were bound beside
    /// them.
    pub(super) fn commit(&mut self) {
        if !std::mem::take(&mut self.is_pending) {
            return;
        }
        self.reconfigure(Arc::clone(&self.listener));
        if let ByWorker::Datagrams(workers) = &self.sockets
            && let Some(like) = workers.iter().flatten().next()
        {
            for socket in std::mem::take(&mut self.unbound) {
                if let Err(error) = sys::bind_later(&socket, like) {
                    let (listener, address) = (&self.listener.name, &self.bound);
                    tracing::info!(
                        %listener, %address, %error,
                        "a worker has no socket of its own for datagrams"
                    );
                }
            }
        }
        if let (Address::Unix(path), true) = (&self.bound, self.owns_path) {
            self.path = Some(OwnPath::adopt(path));
        }
    }
}
