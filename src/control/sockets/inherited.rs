//! Sockets that another process has bound: a predecessor, or the service manager. They are used in
//! place of binding their addresses.
//!
//! The other process may still serve them, and goes on if this one cannot start. So nothing about
//! them changes until [`Sockets::commit`](super::Sockets::commit), and a socket that is bound
//! beside them gets no clients before.

use std::collections::{HashMap, HashSet};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::ByWorker;
use super::address::{Binding, SocketsOfAddress, Stage, is_udp};
use super::held::Ports;
use super::unix_path::{self, OwnPath};
use crate::config::{Config, Listener};
use crate::error::Error;
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
    /// For which listeners the kernel chose ports, as far as that is known.
    pub(in crate::control) chosen: Vec<Chosen>,
}

/// A port that the kernel chose for port 0 of a listener.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::control) struct Chosen {
    /// The name of the listener.
    listener: String,
    /// The address with the port.
    address: SocketAddr,
    /// Whether it is a port of UDP; otherwise it is one of TCP.
    udp: bool,
}

/// Inherited sockets by their addresses, until a listener takes them.
#[derive(Default)]
pub(super) struct Groups {
    /// In the order in which they came; `None` where a listener has taken them.
    all: Vec<Option<Group>>,
    /// Their places. There may be thousands.
    places: HashMap<(Kind, Address), usize>,
    /// The address of another socket of this process, which leaves it.
    leaving: Option<Address>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Stream,
    Datagram,
}

/// Inherited sockets of one address.
pub(super) struct Group {
    address: Address,
    sockets: OfKind,
    /// The name of the listener for whose port 0 the kernel chose the port, if that is known.
    chosen_for: Option<String>,
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
        let Inherited { streams, datagrams, foreign_paths, chosen } = inherited;
        let foreign_paths: HashSet<PathBuf> = foreign_paths.into_iter().collect();
        let mut chosen: HashMap<_, _> = chosen
            .into_iter()
            .map(|Chosen { listener, address, udp }| ((udp, Address::Ip(address)), listener))
            .collect();
        let mut groups = Groups::default();
        for socket in streams {
            let Some(address) = sys::bound_address(&socket) else { continue };
            if matches!(&address, Address::Unix(path) if !unix_path::is_there(path)) {
                tracing::warn!(%address, "an inherited socket is closed: its path is gone");
                continue;
            }
            let group = groups.of(Kind::Stream, address, || OfKind::Streams(Vec::new()));
            if let OfKind::Streams(sockets) = &mut group.sockets {
                sockets.push(Arc::new(socket));
            }
        }
        for socket in datagrams {
            let Some(address @ Address::Ip(_)) = sys::bound_address(&socket) else { continue };
            let group = groups.of(Kind::Datagram, address, || OfKind::Datagrams(Vec::new()));
            if let OfKind::Datagrams(sockets) = &mut group.sockets {
                sockets.push(Arc::new(socket));
            }
        }
        for group in groups.all.iter_mut().flatten() {
            let udp = group.kind() == Kind::Datagram;
            group.chosen_for = chosen.remove(&(udp, group.address.clone()));
            group.owns_path =
                matches!(&group.address, Address::Unix(path) if !foreign_paths.contains(path));
        }
        groups
    }

    /// The group of an address; a new one if there is none.
    fn of(&mut self, kind: Kind, address: Address, none: impl Fn() -> OfKind) -> &mut Group {
        let place = *self.places.entry((kind, address.clone())).or_insert(self.all.len());
        if place == self.all.len() {
            self.all.push(None);
        }
        let group = || Group { address, sockets: none(), chosen_for: None, owns_path: false };
        self.all[place].get_or_insert_with(group)
    }

    /// Takes the sockets for an address of a listener out. For port 0 these are the first ones of
    /// the listener with this name, or else the first ones that no listener of the configuration
    /// has: neither by their port nor by its name.
    pub(super) fn take(
        &mut self,
        config: &Config,
        listener: &Listener,
        address: &Address,
    ) -> Option<Group> {
        let place = match address {
            Address::Ip(ip) if ip.port() == 0 => {
                let is_own = |group: &Group| {
                    group.chosen_for.as_deref() == Some(&*listener.name)
                        && group.can_be_chosen(config, listener, ip)
                };
                let is_free = |group: &Group| {
                    !group.is_kept(config, address) && group.can_be_chosen(config, listener, ip)
                };
                let first = |can: &dyn Fn(&Group) -> bool| {
                    self.all.iter().position(|group| group.as_ref().is_some_and(can))
                };
                first(&is_own).or_else(|| first(&is_free))?
            }
            _ => *self.places.get(&(Kind::of(listener), address.clone()))?,
        };
        self.all[place].take()
    }

    /// Notes the address of another TCP socket of this process, which leaves it.
    pub(super) fn add_leaving(&mut self, address: Option<&Address>) {
        self.leaving = address.cloned();
    }

    /// Adds the ports of these sockets.
    pub(super) fn add_ports(&self, ports: &mut Ports) {
        if let Some(address) = &self.leaving {
            ports.add(false, address, [] as [&Arc<TcpListener>; 0]);
        }
        for group in self.all.iter().flatten() {
            match &group.sockets {
                OfKind::Streams(sockets) => ports.add(false, &group.address, sockets),
                OfKind::Datagrams(sockets) => ports.add(true, &group.address, sockets),
            }
        }
    }

    /// Closes what no listener has taken. Returns the paths that are to be removed.
    pub(super) fn close_rest(self) -> Vec<PathBuf> {
        let mut paths = Vec::new();
        for Group { address, owns_path, .. } in self.all.into_iter().flatten() {
            tracing::warn!(%address, "an inherited socket is closed: no listener has its address");
            if let (Address::Unix(path), true) = (address, owns_path) {
                paths.push(path);
            }
        }
        paths
    }
}

impl Kind {
    fn of(listener: &Listener) -> Kind {
        if is_udp(listener) { Kind::Datagram } else { Kind::Stream }
    }
}

impl Group {
    fn kind(&self) -> Kind {
        match self.sockets {
            OfKind::Streams(_) => Kind::Stream,
            OfKind::Datagrams(_) => Kind::Datagram,
        }
    }

    fn fits(&self, listener: &Listener) -> bool {
        self.kind() == Kind::of(listener)
    }

    /// Returns true if the port can be that of `any`, which is an address with port 0: no listener
    /// names it.
    fn can_be_chosen(&self, config: &Config, listener: &Listener, any: &SocketAddr) -> bool {
        let is_ip = matches!(&self.address, Address::Ip(bound) if bound.ip() == any.ip());
        let mut listeners = config.listeners.iter().filter(|other| self.fits(other));
        let mut is_named = || listeners.any(|other| other.addresses.contains(&self.address));
        is_ip && self.fits(listener) && !is_named()
    }

    /// Returns true if the listener for which the kernel chose the port still has this address,
    /// which is one with port 0.
    fn is_kept(&self, config: &Config, any: &Address) -> bool {
        let is_chosen_for = |name: &str| self.chosen_for.as_deref() == Some(name);
        let mut listeners = config.listeners.iter().filter(|other| self.fits(other));
        listeners.any(|other| is_chosen_for(&other.name) && other.addresses.contains(any))
    }
}

impl Binding<'_> {
    /// Divides inherited sockets among the workers. Where there are fewer than workers, others are
    /// bound beside them.
    ///
    /// # Errors
    /// There are no descriptors for the runtimes of the workers.
    pub(super) fn adopt(&self, group: Group) -> Result<SocketsOfAddress, Error> {
        let Group { address, sockets, owns_path, .. } = group;
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
        let mut adopted = self.made(sockets, address, None).map_err(|error| self.refused(error))?;
        adopted.stage = Stage::Inherited;
        adopted.owns_path = owns_path;
        adopted.unbound = unbound;
        Ok(adopted)
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
        let Ok(address) = like.local_addr() else { return Vec::new() };
        (0..missing).map_while(|_| sys::unbound_udp(address).ok().map(Arc::new)).collect()
    }

    fn say_shared(&self, address: &Address, error: &std::io::Error) {
        tracing::info!(
            listener = %self.listener.name, %address, %error,
            "workers share an inherited socket, because no other can be bound beside it"
        );
    }
}

impl SocketsOfAddress {
    /// For which listener the kernel chose the port, if it did.
    pub(super) fn chosen(&self) -> Option<Chosen> {
        let (Address::Ip(configured), Address::Ip(address)) = (&self.configured, &self.bound)
        else {
            return None;
        };
        let (listener, udp) = (self.listener.name.to_string(), is_udp(&self.listener));
        (configured.port() == 0).then_some(Chosen { listener, address: *address, udp })
    }

    /// Takes inherited sockets into use. From here on clients come to those that were bound beside
    /// them.
    pub(super) fn commit(&mut self) {
        if let Stage::Prepared { .. } = self.stage {
            if let Err(error) = self.begin() {
                self.report_unserved(&error);
            }
            return;
        }
        if self.stage != Stage::Inherited {
            return;
        }
        self.stage = Stage::Serving;
        self.configure();
        if let Address::Ip(ip) = self.bound {
            for socket in self.unbound.drain(..) {
                if let Err(error) = sys::bind_later(&socket, ip) {
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
