//! Checks that need the whole valid file: loops, unused clusters, and limits that this machine
//! cannot reach.

use std::collections::HashSet;

use super::super::loops::Loop;
use super::super::report::{Report, Span, quoted};
use super::super::types::At;
use super::super::{Action, Config, Machine, Protocol, keys};
use super::acme;

/// Descriptors of one connection to a cluster: the client's and the upstream's. A request that is
/// answered here needs only one, but the mix of requests is not known in advance.
const DESCRIPTORS: u64 = 2;

/// The positions of the values that these checks report.
pub(super) struct Positions {
    /// For each listener, the positions of `listen` and `max_connections`.
    listeners: Vec<(Span, Option<Span>)>,
    clusters: Vec<OfCluster>,
    /// The positions of `[acme]` and of its `challenge`.
    acme: Option<(Span, Span)>,
}

/// The positions of one cluster.
struct OfCluster {
    name: Span,
    endpoints: Vec<At<String>>,
    /// `"h2"` among the protocols that are offered to the endpoints.
    h2: Option<Span>,
}

impl OfCluster {
    fn new(name: &At<String>, cluster: &keys::Cluster) -> Self {
        let offered = cluster.tls.as_ref().and_then(|tls| tls.alpn.as_ref());
        let h2 = offered.and_then(|names| names.iter().find(|name| name.value == "h2"));
        OfCluster {
            name: name.span,
            endpoints: cluster.endpoints.as_ref().map_or_else(Vec::new, |list| list.to_vec()),
            h2: h2.map(|name| name.span),
        }
    }
}

impl Positions {
    pub(super) fn new(
        listeners: &[keys::Listener],
        names: &[At<String>],
        clusters: &[keys::Cluster],
        acme: Option<(Span, Span)>,
    ) -> Self {
        let of_listener = |listener: &keys::Listener| {
            let listen = listener.listen.value.as_ref().map_or(listener.place.span, |at| at.span);
            (listen, listener.max_connections.value.as_ref().map(|at| at.span))
        };
        Positions {
            listeners: listeners.iter().map(of_listener).collect(),
            clusters: names
                .iter()
                .zip(clusters)
                .map(|(name, one)| OfCluster::new(name, one))
                .collect(),
            acme,
        }
    }
}

/// Reports what certainly does not work and warns of what probably does not.
pub(super) fn whole(
    report: &Report<'_>,
    config: &Config,
    positions: &Positions,
    machine: &Machine,
) {
    for (cluster, position, found) in config.loops(machine.is_local).all() {
        a_loop(report, config, positions, &positions.clusters[cluster].endpoints[position], &found);
    }
    let used: HashSet<&str> =
        config.listeners.iter().flat_map(|one| one.clusters()).map(|name| &**name).collect();
    for (index, cluster) in config.clusters.iter().enumerate() {
        if !used.contains(&*cluster.name) {
            let what = format!("nothing uses the cluster {}", quoted(&cluster.name));
            let note = "name it in a listener, a route or a [[listener.tls]], or remove it";
            report.warning(positions.clusters[index].name, what, note);
        }
    }
    of_requests(report, config, positions);
    acme::unintended(report, config, positions.acme);
    for (listener, (_, place)) in config.listeners.iter().zip(&positions.listeners) {
        if let (Some(most), Some(place)) = (listener.max_connections, place)
            && (most as u64).saturating_mul(DESCRIPTORS) > machine.file_limit
        {
            let limit = machine.file_limit;
            let what = "`max_connections` needs more descriptors than a process may have on this \
                        machine";
            let note = format!(
                "each connection may need {DESCRIPTORS} descriptors, and the limit is {limit}: \
                 raise the hard limit (LimitNOFILE= in a systemd unit, or `ulimit -n NUMBER` by \
                 root), or write at most {}",
                (limit / DESCRIPTORS).max(1)
            );
            report.warning(*place, what, note);
        }
    }
}

/// Warns of clusters that get requests and may choose HTTP/2.
fn of_requests(report: &Report<'_>, config: &Config, positions: &Positions) {
    let routes = config.listeners.iter().flat_map(|listener| match &listener.protocol {
        Protocol::Http(http) => &http.hosts[..],
        _ => &[],
    });
    let routes = routes.flat_map(|host| &host.routes);
    let proxied: HashSet<&str> = routes
        .filter_map(|route| match &route.action {
            Action::Proxy(proxy) => Some(&*proxy.cluster),
            _ => None,
        })
        .collect();
    for (cluster, places) in config.clusters.iter().zip(&positions.clusters) {
        if let Some(span) = places.h2.filter(|_| proxied.contains(&*cluster.name)) {
            let what = "requests are passed on by HTTP/1.1, not by HTTP/2";
            let note = "an endpoint that chooses \"h2\" does not understand them: write \
                        alpn = [\"http/1.1\"], or leave it out";
            report.warning(span, what, note);
        }
    }
}

fn a_loop(
    report: &Report<'_>,
    config: &Config,
    positions: &Positions,
    endpoint: &At<String>,
    found: &Loop,
) {
    let name = |index: &usize| quoted(&config.listeners[*index].name);
    let line = report.line(positions.listeners[found.listeners[0]].0);
    let first = name(&found.listeners[0]);
    let by_way = match &found.listeners[1..] {
        [] => String::from("which uses this cluster"),
        others => {
            let others: Vec<String> = others.iter().map(name).collect();
            format!("which leads back to this cluster through {}", others.join(", then "))
        }
    };
    let endpoint_text = quoted(&endpoint.value);
    let where_it_is = format!("listener {first} listens there (line {line}), {by_way}");
    let mend = "change the endpoint, or the address of the listener";
    if found.certain {
        let what = format!("the endpoint {endpoint_text} leads back to its own cluster");
        let note =
            format!("{where_it_is}: each connection would open another one without end\n{mend}");
        report.error(endpoint.span, what, note);
    } else {
        let what = format!("the endpoint {endpoint_text} probably leads back to its own cluster");
        report.warning(endpoint.span, what, format!("{where_it_is}\n{mend}"));
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::path::Path;

    use super::super::super::load::parse_on;
    use super::super::super::{Machine, Warning};

    const CONFIG: &str = r#"
        [[listener]]
        name = "edge"
        listen = "0.0.0.0:443"
        protocol = "tcp"
        max_connections = 500
        cluster = "a"
        [[listener]]
        name = "web"
        listen = "192.0.2.1:80"
        max_connections = 499
        protocol = "http"
        [[listener.host]]
        route = [{ prefix = "/", respond = { body = "x" } }]
        [cluster.a]
        endpoints = ["192.0.2.1:443", "192.0.2.2:443", "[2001:db8::1]:443", "192.0.2.1:80"]
    "#;

    fn warnings(file_limit: u64, is_local: fn(IpAddr) -> bool) -> Vec<String> {
        let machine = Machine { file_limit, is_local };
        let config = parse_on(&machine, "edge.toml", CONFIG, Path::new("")).expect("valid");
        let shown = |warning: Warning<'_>| {
            let Warning { file, line: Some(line), column: Some(column), what, .. } = warning else {
                panic!("no place: {warning:?}");
            };
            format!("{file}:{line}:{column} {what}")
        };
        config.warnings.each().map(shown).collect()
    }

    #[test]
    fn limits_beyond_the_descriptors_are_told() {
        assert!(warnings(1000, |_| false).is_empty());
        let what = "`max_connections` needs more descriptors than a process may have on this \
                    machine";
        assert_eq!(warnings(999, |_| false), [format!("edge.toml:6:27 {what}")]);
        let both = [format!("edge.toml:6:27 {what}"), format!("edge.toml:11:27 {what}")];
        assert_eq!(warnings(997, |_| false), both);
        // 0 is not a valid number to suggest.
        assert_eq!(warnings(0, |_| false).len(), 2);
    }

    #[test]
    fn an_address_of_this_machine_is_probably_a_listener_of_every_address() {
        let expected = "edge.toml:16:22 the endpoint `192.0.2.1:443` probably leads back to its \
                        own cluster";
        assert_eq!(warnings(1000, |ip| ip == IpAddr::from([192, 0, 2, 1])), [expected]);
        // 0.0.0.0 does not include IPv6.
        assert!(warnings(1000, |ip| ip.is_ipv6()).is_empty());
    }
}
