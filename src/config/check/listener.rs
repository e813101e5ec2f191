//! Checks `[[listener]]`: unique names and addresses, and what each protocol needs.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use super::super::keys::{self, ProtocolWord};
use super::super::report::{Span, quoted};
use super::super::types::{At, Field, OneOrMany};
use super::super::{AccessLog, Listener, Protocol, RelayTimeouts, Tcp, Tls, address};
use super::Check;
use crate::sys::Address;

impl Check<'_> {
    /// `access_logs` has the log of each listener.
    pub(super) fn listeners(
        &self,
        typed: &[keys::Listener],
        access_logs: Vec<Option<Arc<AccessLog>>>,
    ) -> Option<Vec<Listener>> {
        let mut names = HashMap::new();
        // TCP and UDP have separate ports.
        let (mut used, mut used_by_udp) = (UsedAddresses::default(), UsedAddresses::default());
        let mut listeners = Vec::with_capacity(typed.len());
        for (typed, access_log) in typed.iter().zip(access_logs) {
            if let Some(name) = &typed.name.value {
                self.listener_name(name, &mut names);
            }
            let addresses = match typed.protocol.as_ref() {
                Some(ProtocolWord::Udp) => self.udp_addresses(&typed.listen, &mut used_by_udp),
                _ => self.addresses(&typed.listen, &mut used),
            };
            listeners.push(self.listener(typed, addresses, access_log));
        }
        listeners.into_iter().collect()
    }

    fn listener(
        &self,
        typed: &keys::Listener,
        addresses: Option<Vec<Address>>,
        access_log: Option<Arc<AccessLog>>,
    ) -> Option<Listener> {
        let timeouts = RelayTimeouts {
            idle: typed.idle_timeout.get().0,
            half_closed: typed.half_closed_timeout.get().0,
        };
        let protocol = match typed.protocol.as_ref() {
            Some(ProtocolWord::Tcp) => self.tcp(typed, timeouts).map(Protocol::Tcp),
            Some(ProtocolWord::Http) => self.http(typed, timeouts).map(Protocol::Http),
            Some(ProtocolWord::Tls) => self.tls_listener(typed, timeouts).map(Protocol::Tls),
            Some(ProtocolWord::Udp) => self.udp(typed).map(Protocol::Udp),
            None => {
                // The allowed keys depend on the protocol, which is unknown; names and routes can
                // be checked anyway.
                self.cluster_name(&typed.cluster);
                self.hosts(typed, timeouts);
                self.tls(typed, timeouts);
                None
            }
        };
        Some(Listener {
            name: typed.name.as_ref()?.as_str().into(),
            addresses: addresses?,
            access_log,
            socket: typed.socket_options(),
            max_connections: typed
                .max_connections
                .as_ref()
                .map(|most| usize::try_from(*most).unwrap_or(usize::MAX)),
            protocol: protocol?,
        })
    }

    fn listener_name(&self, name: &At<String>, names: &mut HashMap<String, Span>) {
        self.name("listener", name);
        if let Some(first) = names.insert(name.value.clone(), name.span) {
            let what = format!("there is a listener {} already", quoted(&name.value));
            let note =
                format!("line {} has the same name; choose another", self.report.line(first));
            self.report.error(name.span, what, note);
        }
    }

    /// Reads `listen`. An address may occur only once in the whole file, and not together with the
    /// wildcard address that includes it. Port 0 is exempt, because the kernel chooses the port.
    pub(super) fn addresses(
        &self,
        field: &Field<OneOrMany<String>>,
        used: &mut UsedAddresses,
    ) -> Option<Vec<Address>> {
        let texts = field.as_ref()?;
        let mut addresses = Vec::new();
        for text in texts.iter() {
            let read = match address::listen(&text.value) {
                Ok(read) => read,
                Err(fault) => {
                    self.report.fault(text.span, fault);
                    continue;
                }
            };
            // A range may overlap in many ports; only the first one is reported.
            let mut first_taken = None;
            for address in &read {
                let before = used.add(address, text.span);
                first_taken = first_taken.or(before.map(|before| (address, before)));
            }
            if let Some((address, (before, span))) = first_taken {
                self.report_used_address(text.span, address, &before, span);
            }
            addresses.extend(read);
        }
        // Their order means nothing, and equal listeners are equal.
        addresses.sort_unstable();
        Some(addresses)
    }

    fn report_used_address(&self, span: Span, address: &Address, before: &Address, place: Span) {
        const MEND: &str = "remove one of them, or choose another port";
        let line = self.report.line(place);
        let (what, note) = if address == before {
            (format!("the address {address} occurs twice"), format!("line {line} has it: {MEND}"))
        } else if is_every_address(before) {
            (
                format!("the address {address} is a part of {before}"),
                format!("line {line} has {before}, which is every address of this machine: {MEND}"),
            )
        } else {
            (
                format!("the address {address} includes {before}"),
                format!(
                    "line {line} has {before}, and {address} is every address of this \
                         machine: {MEND}"
                ),
            )
        };
        self.report.error(span, what, note);
    }

    fn tcp(&self, typed: &keys::Listener, timeouts: RelayTimeouts) -> Option<Tcp> {
        Some(Tcp { cluster: self.cluster_name(&typed.cluster)?, timeouts })
    }

    fn tls_listener(&self, typed: &keys::Listener, timeouts: RelayTimeouts) -> Option<Tls> {
        if typed.tls.is_empty() && typed.place.complete {
            let what = "a tls listener needs [[listener.tls]]";
            let note = "add one with `cluster`; without `names` it matches every server name";
            self.report.error(typed.place.span, what, note);
        }
        self.tls(typed, timeouts)
    }
}

/// The listen addresses so far and their positions in the file.
#[derive(Default)]
pub(super) struct UsedAddresses {
    addresses: HashMap<Address, Span>,
    /// The first address for each port and family; true is IPv4.
    first: HashMap<(u16, bool), (SocketAddr, Span)>,
}

impl UsedAddresses {
    /// Adds an address. Returns an earlier address that is equal to it or overlaps with it.
    fn add(&mut self, address: &Address, span: Span) -> Option<(Address, Span)> {
        // For port 0 the kernel chooses a free port.
        if matches!(address, Address::Ip(ip) if ip.port() == 0) {
            return None;
        }
        let overlapping = match address {
            Address::Ip(ip) => self.overlapping(*ip),
            Address::Unix(_) => None,
        };
        if let Address::Ip(ip) = address {
            self.first.entry((ip.port(), ip.is_ipv4())).or_insert((*ip, span));
        }
        let equal = self.addresses.insert(address.clone(), span);
        equal.map(|span| (address.clone(), span)).or(overlapping)
    }

    /// An earlier address that includes this one, or that this one includes. `[::]` does not
    /// include IPv4.
    fn overlapping(&self, ip: SocketAddr) -> Option<(Address, Span)> {
        if ip.ip().is_unspecified() {
            let first = self.first.get(&(ip.port(), ip.is_ipv4()));
            return first.map(|(other, span)| (Address::Ip(*other), *span));
        }
        let every: IpAddr =
            if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let every = Address::Ip(SocketAddr::new(every, ip.port()));
        self.addresses.get(&every).map(|span| (every.clone(), *span))
    }
}

fn is_every_address(address: &Address) -> bool {
    matches!(address, Address::Ip(ip) if ip.ip().is_unspecified())
}
