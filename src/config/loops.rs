//! Detects loops: endpoints that are listeners of the same configuration, directly or through other
//! listeners.
//!
//! A connection that returns to its own listener opens the next one, until all descriptors are
//! used. A loop is certain if its addresses prove it and the returning connection is passed on
//! again in the same way. It is likely if one of these conditions depends on the machine or on what
//! clients send.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use super::{
    Action, Cluster, Config, Discovery, Files, Listener, Protocol, TlsAction, TlsRule, TunnelKind,
};
use crate::sys::Address;

const UNSPECIFIED_V4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const UNSPECIFIED_V6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// A loop from a cluster through listeners back to the cluster.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Loop {
    /// The listeners of the loop, as positions in [`Config::listeners`]; never empty. The endpoint
    /// is an address of the first one.
    pub(super) listeners: Vec<usize>,
    /// Whether the loop is certain. If not, it is likely.
    pub(super) certain: bool,
}

/// An address of a name of a cluster that leads back to the cluster.
#[derive(Debug, PartialEq, Eq)]
pub struct Back<'c> {
    /// The address.
    pub address: SocketAddr,
    /// The names of the listeners of the loop; never empty. The first one listens at the address.
    pub listeners: Vec<&'c str>,
    /// Whether each connection certainly opens another one, without end. If false, this is likely
    /// and depends on what clients send or on this machine's addresses.
    pub certain: bool,
}

/// What a listener passes on to a cluster.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Passes {
    /// All connections, unchanged.
    Everything,
    /// Connections chosen by a route or a rule, unchanged.
    Chosen,
    /// What may match no longer when it comes back: the payload of a tunnel that is terminated
    /// here, or requests that are rewritten.
    Changed,
}

/// The graph of listeners and clusters.
pub struct Loops<'c> {
    listeners: &'c [Arc<Listener>],
    clusters: &'c [Arc<Cluster>],
    /// Listeners by transport (true for UDP) and address.
    at: HashMap<(bool, &'c Address), usize>,
    /// Returns true for an address of this machine, as far as its addresses are known.
    is_local: fn(IpAddr) -> bool,
    /// For each cluster, the listeners that use it.
    users: Vec<Vec<(usize, Passes)>>,
    /// For TCP and UDP, and for each listener: the clusters that lead to it, and whether that is
    /// certain.
    before: [Vec<Vec<(usize, bool)>>; 2],
}

impl<'c> Loops<'c> {
    pub(super) fn new(
        listeners: &'c [Arc<Listener>],
        clusters: &'c [Arc<Cluster>],
        is_local: fn(IpAddr) -> bool,
    ) -> Self {
        let mut at = HashMap::new();
        for (index, listener) in listeners.iter().enumerate() {
            for address in &listener.addresses {
                at.entry((is_udp(listener), address)).or_insert(index);
            }
        }
        // From each cluster back to the listeners that use it.
        let mut users = vec![Vec::new(); clusters.len()];
        let cluster_at = |name: &str| clusters.binary_search_by(|one| (*one.name).cmp(name));
        for (index, listener) in listeners.iter().enumerate() {
            for (to, passes) in leads_to(listener) {
                if let Ok(cluster) = cluster_at(to) {
                    users[cluster].push((index, passes));
                }
            }
        }
        // From each listener back to the clusters with an endpoint that reaches it.
        let nothing = || vec![Vec::new(); listeners.len()];
        let mut loops =
            Loops { listeners, clusters, at, is_local, users, before: [nothing(), nothing()] };
        for (index, cluster) in clusters.iter().enumerate() {
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

    /// The listeners that receive a connection or datagram to this address, and whether that is
    /// certain.
    fn reached(&self, address: &Address, udp: bool) -> Vec<(usize, bool)> {
        let listener_at = |address: &Address| self.at.get(&(udp, address)).copied();
        let Address::Ip(ip) = address else {
            let found = listener_at(address);
            return found.map(|listener| (listener, true)).into_iter().collect();
        };
        // Connecting to the unspecified address reaches this machine.
        let to = match ip.ip().to_canonical() {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => IpAddr::V6(Ipv6Addr::LOCALHOST),
            ip => ip,
        };
        let at = |to: IpAddr| listener_at(&Address::Ip(SocketAddr::new(to, ip.port())));
        let exact = at(to).map(|listener| (listener, true));
        // A wildcard listener surely receives on loopback addresses, and probably on local ones.
        let every = if to.is_ipv4() { UNSPECIFIED_V4 } else { UNSPECIFIED_V6 };
        let every = at(every).filter(|_| to.is_loopback() || (self.is_local)(to));
        let every = every.map(|listener| (listener, to.is_loopback()));
        exact.into_iter().chain(every).collect()
    }

    /// The ways from listeners to the cluster, the shortest first. This is a breadth-first search.
    fn ways_to(&self, cluster: usize, udp: bool) -> Ways {
        let mut ways = Ways::default();
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

    /// The loop from an endpoint of the cluster back to the cluster. A certain loop takes
    /// precedence over a likely one.
    fn back(&self, ways: &[Ways; 2], endpoint: &Address) -> Option<Loop> {
        let mut found: Option<Loop> = None;
        for (ways, udp) in ways.iter().zip([false, true]) {
            for (listener, certain) in self.reached(endpoint, udp) {
                let Some(step) = ways.best(listener) else { continue };
                let certain = certain && step.certain;
                if found.as_ref().is_none_or(|found| certain && !found.certain) {
                    found = Some(Loop { listeners: ways.listeners(step), certain });
                }
            }
        }
        found
    }

    /// The clusters that may be part of a loop: those that are left when clusters to which nothing
    /// leads are taken away again and again. Most files have none, and no search is needed.
    fn in_circles(&self) -> Vec<usize> {
        let clusters = self.clusters.len();
        // The clusters behind each cluster: an endpoint reaches a listener that uses them.
        let mut behind = vec![Vec::new(); clusters];
        let mut leading = vec![0_usize; clusters];
        for (to, users) in self.users.iter().enumerate() {
            for (listener, _) in users {
                for before in &self.before {
                    for (from, _) in &before[*listener] {
                        behind[*from].push(to);
                        leading[to] += 1;
                    }
                }
            }
        }
        let mut free: Vec<usize> = (0..clusters).filter(|at| leading[*at] == 0).collect();
        while let Some(from) = free.pop() {
            for to in std::mem::take(&mut behind[from]) {
                leading[to] -= 1;
                if leading[to] == 0 {
                    free.push(to);
                }
            }
        }
        (0..clusters).filter(|at| leading[*at] > 0).collect()
    }

    /// Every endpoint that leads back to its own cluster: the cluster and the endpoint's position
    /// in it.
    pub(super) fn all(&self) -> Vec<(usize, usize, Loop)> {
        let mut all = Vec::new();
        for index in self.in_circles() {
            let cluster = &self.clusters[index];
            let ways = self.ways(index);
            for (position, address, certain) in endpoints(cluster) {
                if let Some(mut found) = self.back(&ways, &address) {
                    found.certain &= certain;
                    all.push((index, position, found));
                }
            }
        }
        // A name may have several addresses, but each endpoint is reported once.
        all.dedup_by_key(|(cluster, position, _)| (*cluster, *position));
        all
    }

    /// Returns those resolved addresses of the cluster's names that lead back to the cluster.
    pub fn through(&self, cluster: &str, addresses: &[SocketAddr]) -> Vec<Back<'c>> {
        let clusters = self.clusters;
        let position = clusters.binary_search_by(|one| (*one.name).cmp(cluster));
        let Ok(ways) = position.map(|cluster| self.ways(cluster)) else { return Vec::new() };
        let back = |address: &SocketAddr| {
            let Loop { listeners, certain } = self.back(&ways, &Address::Ip(*address))?;
            let name = |index: usize| &*self.listeners[index].name;
            let listeners = listeners.into_iter().map(name).collect();
            Some(Back { address: *address, listeners, certain })
        };
        addresses.iter().filter_map(back).collect()
    }
}

/// The ways from listeners to one cluster.
#[derive(Default)]
struct Ways {
    steps: Vec<Step>,
    /// For each listener, the positions of its first step and of its first certain one.
    first: HashMap<usize, [Option<usize>; 2]>,
    seen: HashSet<(usize, usize, bool)>,
}

/// A listener on a way to the cluster.
struct Step {
    listener: usize,
    /// The number of listeners on the way that choose what they pass on. If there are two, they may
    /// choose differently.
    choices: usize,
    certain: bool,
    /// The next step to the cluster, as a position in [`Ways::steps`]. `None` if the cluster
    /// follows.
    next: Option<usize>,
}

impl Ways {
    /// Adds the users of a cluster that leads to the step `next`.
    fn extend(&mut self, users: &[(usize, Passes)], next: Option<usize>, sure: bool) {
        let (choices, certain) =
            next.map_or((0, sure), |at| (self.steps[at].choices, self.steps[at].certain && sure));
        for (listener, passes) in users {
            let choices = choices + usize::from(*passes == Passes::Chosen);
            let certain = certain && *passes != Passes::Changed && choices < 2;
            // A step that is not certain can only lead to likely ones, so its choices do not
            // matter.
            if self.seen.insert((*listener, if certain { choices } else { 2 }, certain)) {
                let at = self.steps.len();
                let [first, sure] = self.first.entry(*listener).or_default();
                first.get_or_insert(at);
                if certain {
                    sure.get_or_insert(at);
                }
                self.steps.push(Step { listener: *listener, choices, certain, next });
            }
        }
    }

    /// The shortest certain way from a listener, or else the shortest one.
    fn best(&self, listener: usize) -> Option<&Step> {
        let [first, sure] = *self.first.get(&listener)?;
        self.steps.get(sure.or(first)?)
    }

    /// The listeners from this step to the cluster.
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
    /// Looks for loops through resolved addresses. `is_local` returns true for an address of this
    /// machine.
    pub fn loops(&self, is_local: fn(IpAddr) -> bool) -> Loops<'_> {
        self.loops_of(&self.clusters, is_local)
    }

    /// The same, with other endpoints: `clusters` are those of the configuration, in their order.
    pub fn loops_of<'c>(
        &'c self,
        clusters: &'c [Arc<Cluster>],
        is_local: fn(IpAddr) -> bool,
    ) -> Loops<'c> {
        Loops::new(&self.listeners, clusters, is_local)
    }
}

impl Listener {
    /// The sites of files of its routes.
    pub fn files(&self) -> impl Iterator<Item = &Files> {
        let hosts = match &self.protocol {
            Protocol::Http(http) => &http.hosts[..],
            Protocol::Tcp(_) | Protocol::Tls(_) | Protocol::Udp(_) => &[],
        };
        hosts.iter().flat_map(|host| &host.routes).filter_map(|route| match &route.action {
            Action::Files(files) => Some(files),
            _ => None,
        })
    }

    /// The rules for connections that begin with a TLS handshake.
    pub fn tls_rules(&self) -> &[Arc<TlsRule>] {
        match &self.protocol {
            Protocol::Tls(tls) => &tls.rules,
            Protocol::Http(http) => http.tls.as_ref().map_or(&[], |tls| &tls.rules),
            Protocol::Tcp(_) | Protocol::Udp(_) => &[],
        }
    }

    /// The names of the clusters that the listener leads to, with repetitions.
    pub fn clusters(&self) -> impl Iterator<Item = &Arc<str>> {
        leads_to(self).into_iter().map(|(name, _)| name)
    }
}

fn is_udp(listener: &Listener) -> bool {
    matches!(listener.protocol, Protocol::Udp(_))
}

/// The endpoints whose address is known without a look-up: the position in the list, the address,
/// and whether the address is certain.
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
                    // `localhost` is always a loopback address (RFC 6761 section 6.3).
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

/// The clusters that a listener passes connections or payload to.
fn leads_to(listener: &Listener) -> Vec<(&Arc<str>, Passes)> {
    let passes = |changes| if changes { Passes::Changed } else { Passes::Chosen };
    let (tls, hosts) = match &listener.protocol {
        Protocol::Tcp(tcp) => return vec![(&tcp.cluster, Passes::Everything)],
        Protocol::Udp(udp) => return vec![(&udp.cluster, Passes::Everything)],
        Protocol::Tls(tls) => (Some(tls), &[][..]),
        Protocol::Http(http) => (http.tls.as_ref(), &http.hosts[..]),
    };
    let rules = tls.into_iter().flat_map(|tls| &tls.rules);
    let rules = rules.filter_map(|rule| {
        let ends_here = !matches!(rule.action, TlsAction::PassOn { .. });
        Some((rule.action.cluster()?, passes(ends_here)))
    });
    let routes = hosts.iter().flat_map(|host| &host.routes);
    let routes = routes.filter_map(|route| match &route.action {
        Action::Tunnel(tunnel) => {
            let ends_here = matches!(tunnel.kind, TunnelKind::Terminate(_));
            Some((&tunnel.cluster, passes(ends_here)))
        }
        Action::Proxy(proxy) => Some((&proxy.cluster, passes(!proxy.rewrite.is_empty()))),
        Action::Redirect(_) | Action::Respond(_) | Action::Files(_) => None,
    });
    rules.chain(routes).collect()
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
        let through = |address: &str, is_local| {
            let address = address.parse().expect("an address");
            let found = config.loops(is_local);
            let found = found.through("names", &[address]);
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
        // This listener uses another cluster, whose names are not resolved here.
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
        // In each cluster only the endpoint that is its own listener is certain; the others are
        // likely.
        assert_eq!(errors.expect("all are loops").count(), 60);
    }
}
