//! Loops: endpoints that are listeners of the same configuration, directly or by way of others.
//!
//! A connection that comes back to its own listener opens the next one, until all descriptors are
//! used. A loop is certain where an address says so and where what comes back is passed on again in
//! the same way; it is likely where one of that is a matter of the machine or of what clients send.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Action, Cluster, ClusterId, Config, Discovery, Listener, Protocol, TunnelKind};
use crate::sys::Address;

/// What leads back to a cluster.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Loop {
    /// The listeners on the way, as positions in [`Config::listeners`]; the first is the endpoint
    /// itself. Never empty.
    pub(super) listeners: Vec<usize>,
    /// Else it is likely.
    pub(super) certain: bool,
}

/// An address that a name of a cluster has got, and that leads back to the cluster.
#[derive(Debug, PartialEq, Eq)]
pub struct Back<'c> {
    /// The address.
    pub address: SocketAddr,
    /// The names of the listeners on the way; the first listens at the address. Never empty.
    pub listeners: Vec<&'c str>,
    /// Each connection would open another, without end. Else that is likely: it depends on what
    /// clients send, or on this machine's addresses.
    pub certain: bool,
}

/// What of its connections a listener passes on to a cluster.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Passes {
    /// All of them, as they are.
    Everything,
    /// Those that a route or a rule chooses, as they are.
    Chosen,
    /// The payload of a tunnel that ends here.
    Payload,
}

/// Which listener leads to which.
pub(super) struct Loops<'c> {
    config: &'c Config,
    /// Listeners with their IP address, by transport (UDP or not) and port.
    at: HashMap<(bool, u16), Vec<(IpAddr, usize)>>,
    /// Whether an address is one of this machine, as far as that is known.
    is_local: fn(IpAddr) -> bool,
    /// The listeners that use each cluster.
    users: Vec<Vec<(usize, Passes)>>,
    /// Over TCP and over UDP: the clusters that lead to each listener.
    before: [Vec<Vec<(usize, bool)>>; 2],
}

impl<'c> Loops<'c> {
    pub(super) fn new(config: &'c Config, is_local: fn(IpAddr) -> bool) -> Self {
        let mut at: HashMap<(bool, u16), Vec<(IpAddr, usize)>> = HashMap::new();
        for (index, listener) in config.listeners.iter().enumerate() {
            for address in &listener.addresses {
                if let Address::Ip(ip) = address {
                    at.entry((is_udp(listener), ip.port())).or_default().push((ip.ip(), index));
                }
            }
        }
        let mut users = vec![Vec::new(); config.clusters.len()];
        for (index, listener) in config.listeners.iter().enumerate() {
            for (to, passes) in leads_to(listener) {
                users[to.0].push((index, passes));
            }
        }
        let nothing = || vec![Vec::new(); config.listeners.len()];
        let mut loops = Loops { config, at, is_local, users, before: [nothing(), nothing()] };
        for (index, cluster) in config.clusters.iter().enumerate() {
            for (_, address, certain) in endpoints(cluster) {
                for udp in [false, true] {
                    for (listener, sure) in loops.reached(&address, udp) {
                        loops.before[usize::from(udp)][listener].push((index, sure && certain));
                    }
                }
            }
        }
        loops
    }

    /// The listeners that a connection, or a datagram, to this address arrives at, and whether that
    /// is certain.
    fn reached(&self, address: &Address, udp: bool) -> Vec<(usize, bool)> {
        let Address::Ip(ip) = address else {
            let listens = |listener: &Listener| !udp && listener.addresses.contains(address);
            let found = self.config.listeners.iter().position(listens);
            return found.map(|listener| (listener, true)).into_iter().collect();
        };
        // Connecting to no address in particular reaches this machine.
        let to = match ip.ip().to_canonical() {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => IpAddr::V6(Ipv6Addr::LOCALHOST),
            ip => ip,
        };
        let at = self.at.get(&(udp, ip.port())).map_or(&[][..], Vec::as_slice);
        let reached = at.iter().filter_map(|(listening, listener)| {
            let every = listening.is_unspecified() && listening.is_ipv4() == to.is_ipv4();
            if *listening == to || every && to.is_loopback() {
                Some((*listener, true))
            } else {
                (every && (self.is_local)(to)).then_some((*listener, false))
            }
        });
        reached.collect()
    }

    /// The ways from listeners to the cluster, the shortest first.
    fn ways_to(&self, cluster: usize, udp: bool) -> Ways {
        let mut ways = Ways { steps: Vec::new(), seen: HashSet::new() };
        ways.extend(&self.users[cluster], None, true);
        let mut from = 0;
        while let Some(step) = ways.steps.get(from) {
            let listener = step.listener;
            for (before, sure) in &self.before[usize::from(udp)][listener] {
                ways.extend(&self.users[*before], Some(from), *sure);
            }
            from += 1;
        }
        ways
    }

    /// The ways to the cluster over TCP and over UDP.
    fn ways(&self, cluster: usize) -> [Ways; 2] {
        [false, true].map(|udp| self.ways_to(cluster, udp))
    }

    /// How an endpoint of the cluster leads back to the cluster; a certain loop comes before a
    /// likely one.
    fn back(&self, ways: &[Ways; 2], endpoint: &Address) -> Option<Loop> {
        let mut found: Option<Loop> = None;
        for (ways, udp) in ways.iter().zip([false, true]) {
            for (listener, certain) in self.reached(endpoint, udp) {
                let mut steps = ways.steps.iter().filter(|step| step.listener == listener);
                let Some(shortest) = steps.clone().next() else { continue };
                let step = steps.find(|step| step.certain).unwrap_or(shortest);
                let certain = certain && step.certain;
                if found.as_ref().is_none_or(|found| certain && !found.certain) {
                    found = Some(Loop { listeners: ways.listeners(step), certain });
                }
            }
        }
        found
    }

    /// Every endpoint that leads back to its own cluster: the cluster, the position in its list.
    pub(super) fn all(&self) -> Vec<(usize, usize, Loop)> {
        let mut all = Vec::new();
        for (index, cluster) in self.config.clusters.iter().enumerate() {
            let ways = self.ways(index);
            for (position, address, certain) in endpoints(cluster) {
                if let Some(mut found) = self.back(&ways, &address) {
                    found.certain &= certain;
                    all.push((index, position, found));
                }
            }
        }
        // A name has more than one address.
        all.dedup_by_key(|(cluster, position, _)| (*cluster, *position));
        all
    }
}

/// Ways from listeners to one cluster.
struct Ways {
    steps: Vec<Step>,
    seen: HashSet<(usize, usize, bool)>,
}

/// A listener, and how it leads to the cluster.
struct Step {
    listener: usize,
    /// How many listeners on the way choose what they pass on. Two may choose differently.
    choices: usize,
    certain: bool,
    /// The step behind it, as a position in [`Ways::steps`]; none: the cluster.
    next: Option<usize>,
}

impl Ways {
    /// Adds the users of a cluster from which it goes on with the step `next`.
    fn extend(&mut self, users: &[(usize, Passes)], next: Option<usize>, sure: bool) {
        let (choices, certain) =
            next.map_or((0, sure), |at| (self.steps[at].choices, self.steps[at].certain && sure));
        for (listener, passes) in users {
            let choices = choices + usize::from(*passes == Passes::Chosen);
            let certain = certain && *passes != Passes::Payload && choices < 2;
            if self.seen.insert((*listener, if certain { choices } else { 2 }, certain)) {
                self.steps.push(Step { listener: *listener, choices, certain, next });
            }
        }
    }

    /// The listeners from this step on.
    fn listeners(&self, step: &Step) -> Vec<usize> {
        let mut listeners = vec![step.listener];
        let mut next = step.next;
        while let Some(at) = next {
            listeners.push(self.steps[at].listener);
            next = self.steps[at].next;
        }
        listeners
    }
}

impl Config {
    /// Those of the addresses that names of the cluster have got that lead back to the cluster.
    /// `is_local` says whether an address is one of this machine.
    pub fn loops_through(
        &self,
        cluster: usize,
        addresses: &[SocketAddr],
        is_local: fn(IpAddr) -> bool,
    ) -> Vec<Back<'_>> {
        let loops = Loops::new(self, is_local);
        let ways = loops.ways(cluster);
        let back = |address: &SocketAddr| {
            let Loop { listeners, certain } = loops.back(&ways, &Address::Ip(*address))?;
            let name = |index: usize| self.listeners[index].name.as_str();
            let listeners = listeners.into_iter().map(name).collect();
            Some(Back { address: *address, listeners, certain })
        };
        addresses.iter().filter_map(back).collect()
    }

    /// Whether a listener, a route or a rule leads to the cluster.
    pub(super) fn uses(&self, cluster: usize) -> bool {
        self.listeners.iter().flat_map(leads_to).any(|(to, _)| to.0 == cluster)
    }
}

fn is_udp(listener: &Listener) -> bool {
    matches!(listener.protocol, Protocol::Udp(_))
}

/// The endpoints with an address that is known without a look-up: the position in the list, the
/// address, and whether it is certain.
fn endpoints(cluster: &Cluster) -> Vec<(usize, Address, bool)> {
    match &cluster.discovery {
        Discovery::Static(addresses) => {
            let each = addresses.iter().enumerate();
            each.map(|(position, address)| (position, address.clone(), true)).collect()
        }
        Discovery::StrictDns { names, .. } => {
            let mut known = Vec::new();
            for (position, name) in names.iter().enumerate() {
                let (ips, certain) = match name.host.parse::<IpAddr>() {
                    Ok(ip) => (vec![ip], true),
                    // RFC 6761 section 6.3.
                    Err(_) if name.host.trim_end_matches('.') == "localhost" => {
                        (vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()], false)
                    }
                    Err(_) => continue,
                };
                known
                    .extend(ips.into_iter().map(|ip| {
                        (position, Address::Ip(SocketAddr::new(ip, name.port)), certain)
                    }));
            }
            known
        }
    }
}

/// The clusters that a listener passes something on to.
fn leads_to(listener: &Listener) -> Vec<(ClusterId, Passes)> {
    let passes = |ends_here| if ends_here { Passes::Payload } else { Passes::Chosen };
    let (tls, hosts) = match &listener.protocol {
        Protocol::Tcp(tcp) => return vec![(tcp.cluster, Passes::Everything)],
        Protocol::Udp(udp) => return vec![(udp.cluster, Passes::Everything)],
        Protocol::Tls(tls) => (Some(tls), &[][..]),
        Protocol::Http(http) => (http.tls.as_ref(), &http.hosts[..]),
    };
    let rules = tls.into_iter().flat_map(|tls| &tls.rules);
    let rules = rules.map(|rule| (rule.cluster, passes(rule.simple_obfs)));
    let routes = hosts.iter().flat_map(|host| &host.routes);
    let tunnels = routes.filter_map(|route| match &route.action {
        Action::Tunnel(tunnel) => {
            let ends_here = matches!(tunnel.kind, TunnelKind::Terminate(_));
            Some((tunnel.cluster, passes(ends_here)))
        }
        _ => None,
    });
    rules.chain(tunnels).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::parse;
    use super::*;

    fn config() -> Config {
        let text = r#"
            [[listener]]
            name = "edge"
            listen = ["0.0.0.0:443", "[::1]:443"]
            protocol = "tcp"
            cluster = "names"
            [[listener]]
            name = "inner"
            listen = "127.0.0.1:8443"
            protocol = "tcp"
            cluster = "edge"
            [[listener]]
            name = "dns"
            listen = "0.0.0.0:53"
            protocol = "udp"
            cluster = "names"
            [cluster.names]
            discovery = "strict_dns"
            endpoints = ["node.test:443"]
            [cluster.edge]
            discovery = "strict_dns"
            endpoints = ["edge.test:443"]
        "#;
        parse("edge.toml", text, Path::new("")).expect("valid")
    }

    #[test]
    fn an_address_that_a_name_got_may_lead_back() {
        let config = config();
        let names =
            config.clusters.iter().position(|one| one.name == "names").expect("it is there");
        let through = |address: &str, is_local| {
            let address = address.parse().expect("an address");
            let found = config.loops_through(names, &[address], is_local);
            found.into_iter().next().map(|back| (back.listeners, back.certain))
        };
        let certainly = |listener| Some((vec![listener], true));
        assert_eq!(through("127.0.0.1:443", |_| false), certainly("edge"));
        assert_eq!(through("0.0.0.0:443", |_| false), certainly("edge"));
        assert_eq!(through("[::ffff:127.0.0.9]:443", |_| false), certainly("edge"));
        assert_eq!(through("[::1]:443", |_| false), certainly("edge"));
        assert_eq!(through("127.0.0.1:53", |_| false), certainly("dns"));
        assert_eq!(through("192.0.2.1:443", |_| true), Some((vec!["edge"], false)));
        assert_eq!(through("192.0.2.1:443", |_| false), None);
        assert_eq!(through("[::2]:443", |_| true), None);
        // Its own cluster is another, whose names are not known here.
        assert_eq!(through("127.0.0.1:8443", |_| true), None);
    }

    #[test]
    fn a_certain_loop_of_datagrams_comes_before_a_likely_one_of_connections() {
        let text = r#"
            [[listener]]
            name = "ends-here"
            listen = "192.0.2.1:443"
            protocol = "tls"
            [[listener.tls]]
            cluster = "names"
            simple_obfs = true
            [[listener]]
            name = "datagrams"
            listen = "192.0.2.1:443"
            protocol = "udp"
            cluster = "names"
            [cluster.names]
            endpoints = ["192.0.2.1:443"]
        "#;
        let errors = parse("edge.toml", text, Path::new("")).err();
        assert_eq!(errors.expect("it is certain").count(), 1);
    }

    #[test]
    fn many_listeners_that_lead_everywhere_are_looked_through_once() {
        let clusters: String = (0..60)
            .map(|n| {
                let endpoints: Vec<String> =
                    (0..60).map(|to| format!("\"192.0.2.1:{}\"", 1000 + to)).collect();
                format!("[cluster.c{n}]\nendpoints = [{}]\n", endpoints.join(", "))
            })
            .collect();
        let listeners: String = (0..60)
            .map(|n| {
                let port = 1000 + n;
                format!(
                    "[[listener]]\nname = \"l{n}\"\nlisten = \"192.0.2.1:{port}\"\n\
                     protocol = \"tls\"\n[[listener.tls]]\ncluster = \"c{n}\"\n"
                )
            })
            .collect();
        let errors = parse("x", &format!("{listeners}{clusters}"), Path::new("")).err();
        // Of each cluster the endpoint that is its own listener; the rest is likely.
        assert_eq!(errors.expect("all are loops").count(), 60);
    }
}
