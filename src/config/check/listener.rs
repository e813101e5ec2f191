//! Checks `[[listener]]`: unique names and addresses, and the keys that each protocol allows.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::super::file::{self, ProtocolWord};
use super::super::report::{Span, quoted};
use super::super::table::{At, Field};
use super::super::{AccessLog, Http, Listener, Protocol, RelayTimeouts, Tcp, Tls, address};
use super::Check;
use crate::sys::Address;

/// The largest value of TCP_KEEPIDLE in whole seconds, see tcp(7).
const LONGEST_KEEPALIVE_S: u64 = 32_767;

const CLUSTER_PLACE: &str = "belongs to protocol = \"tcp\" or \"udp\"";

impl Check<'_> {
    /// `access_logs` has the log of each listener.
    pub(super) fn listeners(
        &self,
        typed: Vec<file::Listener>,
        access_logs: Vec<Option<Arc<AccessLog>>>,
    ) -> Option<Vec<Listener>> {
        let mut names = HashMap::new();
        // TCP and UDP have separate ports.
        let (mut used, mut used_by_udp) = (UsedAddresses::default(), UsedAddresses::default());
        let mut listeners = Vec::with_capacity(typed.len());
        for (typed, access_log) in typed.into_iter().zip(access_logs) {
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
        typed: file::Listener,
        addresses: Option<Vec<Address>>,
        access_log: Option<Arc<AccessLog>>,
    ) -> Option<Listener> {
        let timeouts = RelayTimeouts {
            idle: typed.idle_timeout.clone().or(Duration::from_secs(60 * 60)),
            half_closed: typed.half_closed_timeout.clone().or(Duration::from_secs(60)),
        };
        let keepalive = self.keepalive(typed.keepalive.clone());
        if typed.protocol.is_given() && typed.protocol.as_ref() != Some(&ProtocolWord::Udp) {
            let note = "remove it; `max_connections` limits connections";
            let because = "belongs to protocol = \"udp\"";
            self.misplaced("max_sessions", &typed.max_sessions, because, note);
        }
        let protocol = match typed.protocol.as_ref() {
            Some(ProtocolWord::Tcp) => self.tcp(&typed, timeouts).map(Protocol::Tcp),
            Some(ProtocolWord::Http) => self.http(&typed, timeouts).map(Protocol::Http),
            Some(ProtocolWord::Tls) => self.tls_listener(&typed, timeouts).map(Protocol::Tls),
            Some(ProtocolWord::Udp) => self.udp(&typed).map(Protocol::Udp),
            None => {
                // The allowed keys depend on the protocol, which is unknown; names and routes can
                // be checked anyway.
                self.cluster_name(&typed.cluster);
                self.hosts(&typed.http.hosts, timeouts);
                self.tls(&typed, timeouts);
                None
            }
        };
        Some(Listener {
            name: typed.name.value?.value.into(),
            addresses: addresses?,
            access_log,
            backlog: i32::try_from(typed.backlog.or(4096)).unwrap_or(i32::MAX),
            nodelay: typed.nodelay.or(true),
            keepalive,
            fast_open: typed.fast_open.or(false),
            max_connections: typed
                .max_connections
                .value
                .map(|at| usize::try_from(at.value).unwrap_or(usize::MAX)),
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
        field: &Field<Vec<At<String>>>,
        used: &mut UsedAddresses,
    ) -> Option<Vec<Address>> {
        let At { value: texts, span } = field.value.as_ref()?;
        if texts.is_empty() {
            let note = "add at least one address: listen = \"0.0.0.0:80\"";
            self.report.error(*span, "`listen` is an empty list", note);
        }
        let mut addresses = Vec::new();
        for text in texts {
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

    /// Returns `None` if keepalive is off.
    fn keepalive(&self, field: Field<Option<Duration>>) -> Option<Duration> {
        let Some(At { value, span }) = field.value else { return Some(Duration::from_secs(30)) };
        let duration = value?;
        let whole = duration.subsec_nanos() == 0;
        if !whole || duration.as_secs() > LONGEST_KEEPALIVE_S {
            let note =
                format!("the kernel accepts whole seconds, at most \"{LONGEST_KEEPALIVE_S}s\"");
            self.report.error(span, "`keepalive` is not valid for the socket option", note);
        }
        Some(duration)
    }

    fn tcp(&self, typed: &file::Listener, timeouts: RelayTimeouts) -> Option<Tcp> {
        let knows = "a tcp listener relays every byte to its cluster and has no";
        self.no_http(typed, "a tcp listener does not parse what it relays", knows);
        self.no_tls(typed, knows);
        if !typed.cluster.is_given() && typed.complete {
            let what = "a tcp listener needs `cluster`";
            let note = "name the [cluster.NAME] that its connections go to";
            self.report.error(typed.span, what, note);
        }
        let cluster = self.cluster_name(&typed.cluster);
        Some(Tcp { cluster: cluster?, timeouts })
    }

    /// Reports keys that are valid for TLS only. `knows` is the start of the note that explains
    /// why.
    pub(super) fn no_tls(&self, typed: &file::Listener, knows: &str) {
        if let Some(rule) = typed.tls.first() {
            let what = "[[listener.tls]] belongs to protocol = \"tls\" or \"http\"";
            self.report.error(rule.span, what, format!("{knows} server names"));
        }
        let note = "remove it; this listener does not parse what it relays";
        let because = "belongs to protocol = \"tls\", or to \"http\" with [[listener.tls]]";
        self.misplaced("hello_timeout", &typed.hello_timeout, because, note);
    }

    /// Reports keys that are valid for HTTP only. `reads` and `knows` are parts of the notes that
    /// explain why.
    pub(super) fn no_http(&self, typed: &file::Listener, reads: &str, knows: &str) {
        let (http, note) = (&typed.http, format!("remove it; {reads}"));
        let because = "belongs to protocol = \"http\"";
        self.misplaced("head_timeout", &http.head_timeout, because, &note);
        self.misplaced("keepalive_timeout", &http.keepalive_timeout, because, &note);
        self.misplaced("max_head", &http.max_head, because, &note);
        self.misplaced("max_headers", &http.max_headers, because, &note);
        if let Some(host) = http.hosts.first() {
            let what = "[[listener.host]] belongs to protocol = \"http\"";
            self.report.error(host.span, what, format!("{knows} hosts"));
        }
    }

    fn tls_listener(&self, typed: &file::Listener, timeouts: RelayTimeouts) -> Option<Tls> {
        let knows = "a tls listener routes by server name and has no";
        self.no_http(typed, "a tls listener does not decrypt, so it sees no requests", knows);
        let note = "move it to a [[listener.tls]]; a rule without `names` matches every connection";
        self.misplaced("cluster", &typed.cluster, CLUSTER_PLACE, note);
        if typed.tls.is_empty() && typed.complete {
            let what = "a tls listener needs [[listener.tls]]";
            let note = "add one with `cluster`; without `names` it matches every server name";
            self.report.error(typed.span, what, note);
        }
        self.tls(typed, timeouts)
    }

    fn http(&self, typed: &file::Listener, timeouts: RelayTimeouts) -> Option<Http> {
        let note = "in an http listener each route names its cluster: move it to a \
             [[listener.host.route]]";
        self.misplaced("cluster", &typed.cluster, CLUSTER_PLACE, note);
        if typed.http.hosts.is_empty() && typed.complete {
            let what = "an http listener needs [[listener.host]]";
            let note = "add one with a [[listener.host.route]]; without `names` it matches every \
                        host";
            self.report.error(typed.span, what, note);
        }
        if typed.tls.is_empty() && typed.complete {
            let note = "add [[listener.tls]], or remove it";
            let because = "applies to connections that begin with TLS, and the listener has no \
                           rule for them";
            self.misplaced("hello_timeout", &typed.hello_timeout, because, note);
        }
        let http = &typed.http;
        let hosts = self.hosts(&http.hosts, timeouts);
        let tls = if typed.tls.is_empty() { None } else { Some(self.tls(typed, timeouts)?) };
        Some(Http {
            head_timeout: http.head_timeout.clone().or(Duration::from_secs(10)),
            keepalive_timeout: http.keepalive_timeout.clone().or(Duration::from_secs(75)),
            max_head: http.max_head.clone().or(16 << 10) as usize,
            max_headers: http.max_headers.clone().or(100) as usize,
            hosts: hosts?,
            tls,
        })
    }
}

/// The listen addresses so far and their positions in the file.
#[derive(Default)]
pub(super) struct UsedAddresses {
    /// IP addresses by port.
    ips: HashMap<u16, Vec<(SocketAddr, Span)>>,
    paths: HashMap<PathBuf, Span>,
}

impl UsedAddresses {
    /// Adds an address. Returns an earlier address that is equal to it or overlaps with it.
    fn add(&mut self, address: &Address, span: Span) -> Option<(Address, Span)> {
        let ip = match address {
            // The kernel chooses a free port.
            Address::Ip(ip) if ip.port() == 0 => return None,
            Address::Ip(ip) => ip,
            Address::Unix(path) => {
                let before = self.paths.insert(path.clone(), span)?;
                return Some((address.clone(), before));
            }
        };
        let same_port = self.ips.entry(ip.port()).or_default();
        // `[::]` does not include IPv4.
        let meets = |other: &SocketAddr| {
            let every = other.ip().is_unspecified() || ip.ip().is_unspecified();
            other == ip || every && other.is_ipv4() == ip.is_ipv4()
        };
        let before = same_port.iter().find(|(other, _)| meets(other)).copied();
        same_port.push((*ip, span));
        before.map(|(other, span)| (Address::Ip(other), span))
    }
}

fn is_every_address(address: &Address) -> bool {
    matches!(address, Address::Ip(ip) if ip.ip().is_unspecified())
}
