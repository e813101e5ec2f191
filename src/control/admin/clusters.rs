//! Clusters and their endpoints as JSON and as metrics.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use serde::Serialize;

use super::exposition::Out;
use super::stats::Counts;
use super::view::View;
use crate::config::Discovery;
use crate::observe::endpoints::{ClusterNumbers, EndpointNumbers, FailureKind, Numbers};
use crate::observe::histogram::Times;

/// What `/clusters` shows.
#[derive(Serialize)]
pub(super) struct Clusters {
    clusters: Vec<Cluster>,
}

/// One cluster.
#[derive(Serialize)]
pub(super) struct Cluster {
    name: String,
    /// `static` or `strict_dns`. `None` if the configuration has it no more, and connections use
    /// it.
    discovery: Option<&'static str>,
    /// Its endpoints at present, those that get nothing new, those whose last attempt has failed,
    /// and those without a route.
    listed: usize,
    drained: usize,
    failing: usize,
    unreachable: usize,
    /// Whether its endpoints were set, in place of those of the configuration or of DNS.
    is_set: bool,
    #[serde(flatten)]
    traffic: Traffic,
    connect: Seconds,
    first_byte: Seconds,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoints: Option<Vec<Endpoint>>,
}

/// One endpoint.
#[derive(Serialize)]
struct Endpoint {
    address: String,
    is_listed: bool,
    /// `drained`, or what the last attempt of all workers has shown.
    state: &'static str,
    failing_workers: usize,
    #[serde(flatten)]
    traffic: Traffic,
}

/// What went to an endpoint or to all of a cluster.
#[derive(Serialize)]
struct Traffic {
    connections: Counts,
    bytes_up: u64,
    bytes_down: u64,
    /// Failed attempts; only the kinds that there were.
    failures: BTreeMap<&'static str, u64>,
}

/// How long something took, in all.
#[derive(Serialize)]
struct Seconds {
    count: u64,
    sum_seconds: f64,
}

impl From<Times> for Seconds {
    fn from(times: Times) -> Seconds {
        Seconds { count: times.count(), sum_seconds: times.seconds() }
    }
}

impl From<Numbers> for Traffic {
    fn from(numbers: Numbers) -> Traffic {
        Traffic {
            connections: Counts { total: numbers.begun, open: numbers.open },
            bytes_up: numbers.bytes_up,
            bytes_down: numbers.bytes_down,
            failures: failures(&numbers)
                .filter(|(_, count)| *count > 0)
                .map(|(kind, count)| (kind.as_str(), count))
                .collect(),
        }
    }
}

fn failures(numbers: &Numbers) -> impl Iterator<Item = (FailureKind, u64)> {
    FailureKind::ALL.into_iter().zip(numbers.failures)
}

/// All clusters with their endpoints.
pub(super) fn of(view: &View) -> Clusters {
    Clusters { clusters: all(view, true) }
}

/// All clusters, with their endpoints or without.
pub(super) fn all(view: &View, with_endpoints: bool) -> Vec<Cluster> {
    let cluster = |one: ClusterNumbers| Cluster {
        name: one.name.to_string(),
        discovery: view.config.cluster(&one.name).map(|cluster| match cluster.discovery {
            Discovery::Static(_) => "static",
            Discovery::StrictDns { .. } => "strict_dns",
        }),
        listed: one.listed,
        drained: one.drained,
        is_set: view.facts.roster.is_set(&one.name),
        failing: one.failing,
        unreachable: one.unreachable,
        traffic: one.numbers.into(),
        connect: one.connect.into(),
        first_byte: one.first_byte.into(),
        endpoints: with_endpoints.then(|| {
            let elsewhere = view.facts.roster.drained_elsewhere(&one.name);
            // Those that connections still use are among the others.
            let is_shown = |address: &String| {
                one.endpoints.iter().any(|one| one.address.to_string() == *address)
            };
            let elsewhere: Vec<String> =
                elsewhere.into_iter().filter(|address| !is_shown(address)).collect();
            let shown = one.endpoints.into_iter().map(endpoint);
            shown.chain(elsewhere.into_iter().map(drained)).collect()
        }),
    };
    view.facts.roster.show().into_iter().map(cluster).collect()
}

fn endpoint(one: EndpointNumbers) -> Endpoint {
    Endpoint {
        address: one.address.to_string(),
        is_listed: one.is_listed,
        state: if one.is_drained { "drained" } else { one.state.as_str() },
        failing_workers: one.failing_workers,
        traffic: one.numbers.into(),
    }
}

/// An endpoint that its cluster does not have at present, and that would get nothing if it did.
fn drained(address: String) -> Endpoint {
    Endpoint {
        address,
        is_listed: false,
        state: "drained",
        failing_workers: 0,
        traffic: Numbers::default().into(),
    }
}

/// The metrics of all clusters and of the endpoints that are shown.
pub(super) fn encode(out: &mut Out<'_>, view: &View) -> fmt::Result {
    let all = view.facts.roster.show();
    of_configured(out, view, &all)?;
    of_clusters(out, &all)?;
    let endpoints: Vec<(&str, String, &EndpointNumbers)> = all
        .iter()
        .flat_map(|cluster| cluster.endpoints.iter().map(|one| (&*cluster.name, one)))
        .map(|(cluster, one)| (cluster, one.address.to_string(), one))
        .collect();
    of_endpoints(out, &endpoints)
}

/// What clusters of the configuration have. A cluster that a reload has removed has no endpoints,
/// and that is no fault.
fn of_configured(out: &mut Out<'_>, view: &View, all: &[ClusterNumbers]) -> fmt::Result {
    let names: HashSet<&str> = view.config.clusters.iter().map(|cluster| &*cluster.name).collect();
    let of = |number: fn(&ClusterNumbers) -> usize| {
        let configured = all.iter().filter(|one| names.contains(&*one.name));
        configured.map(move |one| ([("cluster", &*one.name)], number(one) as f64))
    };
    let help = "Endpoints that a cluster has and that are not drained";
    out.gauge("cluster_endpoints", help, of(|one| one.listed - one.drained))?;
    let help = "Endpoints that a cluster has and that are drained: they get nothing new";
    out.gauge("cluster_drained_endpoints", help, of(|one| one.drained))?;
    let help = "Endpoints of a cluster whose last attempt has failed";
    out.gauge("cluster_failing_endpoints", help, of(|one| one.failing))?;
    let help = "Endpoints of a cluster to which this machine had no route at the last attempt";
    out.gauge("cluster_unreachable_endpoints", help, of(|one| one.unreachable))
}

fn of_clusters(out: &mut Out<'_>, all: &[ClusterNumbers]) -> fmt::Result {
    let of = |number: fn(&ClusterNumbers) -> u64| {
        all.iter().map(move |one| ([("cluster", &*one.name)], number(one) as f64))
    };
    let help = "Relays, requests and UDP sessions that have used an endpoint of a cluster";
    out.counter("cluster_connections", help, of(|one| one.numbers.begun))?;
    let help = "Relays, requests and UDP sessions that use an endpoint of a cluster";
    out.gauge("cluster_open_connections", help, of(|one| one.numbers.open))?;
    let bytes = all.iter().flat_map(|one| {
        let of = move |direction, bytes| {
            ([("cluster", &*one.name), ("direction", direction)], bytes as f64)
        };
        [of("up", one.numbers.bytes_up), of("down", one.numbers.bytes_down)]
    });
    let help = "Bytes to the endpoints of a cluster (up) and from them (down), counted when what \
                they belong to has ended";
    out.counter("cluster_bytes", help, bytes)?;
    let failed = all.iter().flat_map(|one| {
        failures(&one.numbers).map(move |(kind, count)| {
            ([("cluster", &*one.name), ("reason", kind.as_str())], count as f64)
        })
    });
    out.counter("cluster_connect_failures", "Failed attempts at endpoints of a cluster", failed)?;
    let times = |times: fn(&ClusterNumbers) -> Times| {
        all.iter().map(move |one| ([("cluster", &*one.name)], times(one)))
    };
    let help = "Time of connects to a cluster that have succeeded, retries and TLS included";
    out.histogram("cluster_connect_seconds", help, times(|one| one.connect))?;
    let help = "Time from the end of a request to the first byte of its response";
    out.histogram("cluster_first_byte_seconds", help, times(|one| one.first_byte))
}

fn of_endpoints(out: &mut Out<'_>, all: &[(&str, String, &EndpointNumbers)]) -> fmt::Result {
    let of = |number: fn(&EndpointNumbers) -> u64| {
        all.iter().map(move |(cluster, endpoint, one)| {
            ([("cluster", *cluster), ("endpoint", endpoint.as_str())], number(one) as f64)
        })
    };
    let help = "Workers whose last attempt at an endpoint failed, while no other had success since";
    out.gauge("endpoint_failing_workers", help, of(|one| one.failing_workers as u64))?;
    let help = "1 if the cluster has the endpoint and it is not drained, 0 if connections use it \
                alone";
    out.gauge("endpoint_listed", help, of(|one| u64::from(one.is_listed && !one.is_drained)))?;
    let help = "Relays, requests and UDP sessions that have used an endpoint";
    out.counter("endpoint_connections", help, of(|one| one.numbers.begun))?;
    let help = "Relays, requests and UDP sessions that use an endpoint";
    out.gauge("endpoint_open_connections", help, of(|one| one.numbers.open))?;
    let bytes = all.iter().flat_map(|(cluster, endpoint, one)| {
        let labels =
            |way| [("cluster", *cluster), ("endpoint", endpoint.as_str()), ("direction", way)];
        let Numbers { bytes_up, bytes_down, .. } = one.numbers;
        [(labels("up"), bytes_up as f64), (labels("down"), bytes_down as f64)]
    });
    let help = "Bytes to an endpoint (up) and from it (down), counted when what they belong to \
                has ended";
    out.counter("endpoint_bytes", help, bytes)?;
    // Only the kinds that there were: there may be a thousand endpoints.
    let failed = all.iter().flat_map(|(cluster, endpoint, one)| {
        let labels =
            |reason| [("cluster", *cluster), ("endpoint", endpoint.as_str()), ("reason", reason)];
        failures(&one.numbers)
            .filter(|(_, count)| *count > 0)
            .map(move |(kind, count)| (labels(kind.as_str()), count as f64))
    });
    out.counter("endpoint_connect_failures", "Failed attempts at an endpoint", failed)
}
