//! Which sockets there are already: for each address of a configuration, those that serve it and
//! those that are in the way of new ones. There may be thousands, so both are looked up in maps.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::sync::Arc;

use super::ByWorker;
use super::address::{SocketsOfAddress, is_udp};
use super::unix_path::OwnPath;
use crate::config::Listener;
use crate::sys::{self, Address};

/// The sockets of the configuration before.
pub(super) struct Held<'a> {
    /// The positions of those that no address has taken, the first one last.
    free: HashMap<Served<'a>, Vec<usize>>,
    pub(super) ports: Ports,
}

/// What sockets can be kept for.
#[derive(PartialEq, Eq, Hash)]
struct Served<'a> {
    is_udp: bool,
    configured: &'a Address,
    /// A port that the kernel chose belongs to the listener with this name; otherwise the name of
    /// the listener does not matter.
    chosen_for: Option<&'a str>,
}

/// The ports of bound sockets.
#[derive(Default)]
pub(super) struct Ports {
    /// Of each address, and whether other UDP sockets can be bound beside all that it has.
    addresses: HashMap<Port, bool>,
    /// Of all addresses of each family, by its address for all of them.
    families: HashSet<Port>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Port {
    is_udp: bool,
    ip: IpAddr,
    number: u16,
}

impl Held<'_> {
    pub(super) fn new(addresses: &[SocketsOfAddress]) -> Held<'_> {
        let mut held = Held { free: HashMap::new(), ports: Ports::default() };
        for (position, one) in addresses.iter().enumerate().rev() {
            if one.path.as_ref().is_some_and(OwnPath::is_lost) {
                let (listener, address) = (&one.listener.name, &one.bound);
                tracing::warn!(
                    %listener, %address,
                    "the path of a Unix socket is gone or another file: it is bound again"
                );
                continue;
            }
            let served = Served::by(&one.listener, &one.configured);
            held.free.entry(served).or_default().push(position);
            held.ports.add_address(one);
        }
        held
    }
}

impl<'a> Held<'a> {
    /// Returns the position of the sockets for an address of a listener, once.
    pub(super) fn take(&mut self, listener: &'a Listener, address: &'a Address) -> Option<usize> {
        self.free.get_mut(&Served::by(listener, address))?.pop()
    }
}

impl Served<'_> {
    fn by<'a>(listener: &'a Listener, configured: &'a Address) -> Served<'a> {
        let is_chosen = matches!(configured, Address::Ip(ip) if ip.port() == 0);
        let chosen_for = is_chosen.then_some(&*listener.name);
        Served { is_udp: is_udp(listener), configured, chosen_for }
    }
}

impl Ports {
    /// Adds the sockets of an address.
    pub(super) fn add_address(&mut self, one: &SocketsOfAddress) {
        match &one.sockets {
            ByWorker::Streams(workers) => {
                self.add(false, &one.bound, workers.iter().flatten());
            }
            ByWorker::Datagrams(workers) => {
                self.add(true, &one.bound, workers.iter().flatten());
            }
        }
    }

    /// Adds sockets.
    pub(super) fn add<'a, S: AsFd + 'a>(
        &mut self,
        is_udp: bool,
        address: &Address,
        sockets: impl IntoIterator<Item = &'a Arc<S>>,
    ) {
        let Address::Ip(address) = address else { return };
        let port = Port { is_udp, ip: address.ip(), number: address.port() };
        // TCP sockets are bound early in any case.
        let are_shared = is_udp && sockets.into_iter().all(|socket| sys::shares_port(&**socket));
        *self.addresses.entry(port).or_insert(true) &= are_shared;
        self.families.insert(port.of_all());
    }

    /// Returns whether a socket without SO_REUSEPORT cannot be bound to an address because of
    /// these, and whether these receive all datagrams for the address while sockets with
    /// SO_REUSEPORT can be bound beside them.
    pub(super) fn beside(&self, is_udp: bool, address: &Address) -> (bool, bool) {
        let Address::Ip(address) = address else { return (false, false) };
        let port = Port { is_udp, ip: address.ip(), number: address.port() };
        let covering = [port, port.of_all()].map(|port| self.addresses.get(&port));
        let is_covered = covering.iter().any(Option::is_some);
        let includes = port == port.of_all() && self.families.contains(&port);
        (is_covered || includes, is_covered && covering.into_iter().flatten().all(|shared| *shared))
    }
}

impl Port {
    /// The port of all addresses of the family.
    fn of_all(self) -> Port {
        let ip = match self.ip {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        Port { ip, ..self }
    }
}
