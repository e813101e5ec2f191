//! `[cluster.NAME]`

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::ClusterTls;
use super::patterns::{DNS_ENDPOINT, ENDPOINT};
use crate::config::contract::When;
use crate::config::contract::rules::has;
use crate::config::types::{CountOrOff, Field, List, Time};

/// Servers that connections go to. Listeners, routes and rules refer to the name. It consists of 1
/// to 64 letters, digits, `-`, `_` and dots.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-foreign" = {
    "hosts": "endpoints",
    "servers": "endpoints",
    "server": "endpoints",
    "lb_policy": "balance",
    "type": "discovery",
    "dns_refresh_rate": "dns_refresh",
    "dns_lookup_family": "dns_family",
    "retries": "connect_attempts",
    "keepalive": "keepalive_connections",
}))]
#[schemars(extend(
    "x-rules" = [json!({
        "if": has("discovery", ["strict_dns"]),
        "then": endpoints(DNS_ENDPOINT),
        "else": endpoints(ENDPOINT),
    })],
    "x-planned" = [
        "max_connections", "send_proxy_protocol", "source", "health_check", "outlier",
    ],
))]
pub(in crate::config) struct Cluster {
    /// How the addresses of the endpoints are found.
    #[schemars(extend("default" = "static"))]
    pub(in crate::config) discovery: Field<DiscoveryWord>,
    /// The endpoints, at least one. In a static cluster `IP:port`, `[IPv6]:port` or `unix:/path`;
    /// in a strict_dns cluster `name:port` or `IP:port`.
    #[schemars(example = ["127.0.0.1:8388", "unix:/run/site.sock"], extend(
        "uniqueItems" = true,
        "x-empty" = "add at least one: endpoints = [\"127.0.0.1:8388\"]",
        "x-required" = "list the addresses that connections go to: endpoints = [\"127.0.0.1:8388\"]"
    ))]
    pub(in crate::config) endpoints: Field<List<String>>,
    /// The time between look-ups if the TTL of the answer is unknown or 0. Otherwise the TTL is the
    /// time.
    #[schemars(example = "5s", extend("default" = "5s", "x-when" = [with_names()]))]
    pub(in crate::config) dns_refresh: Field<Time>,
    /// Which addresses of the names become endpoints.
    #[schemars(extend("default" = "auto", "x-when" = [with_names()]))]
    pub(in crate::config) dns_family: Field<DnsFamily>,
    /// How new connections are shared out among the endpoints.
    #[schemars(extend("default" = "round_robin"))]
    #[expect(dead_code, reason = "there is only one way, so the word changes nothing yet")]
    pub(in crate::config) balance: Field<BalanceWord>,
    /// How long one connect may take.
    #[schemars(example = "250ms", extend("default" = "5s"))]
    pub(in crate::config) connect_timeout: Field<Time>,
    /// How many endpoints are tried for one connection. Each attempt uses another endpoint if there
    /// is one.
    #[schemars(range(min = 1, max = 16), example = 3, extend(
        "default" = 2, "x-unit" = "attempts",
        "x-advice" = "with 1 no second endpoint is tried"
    ))]
    pub(in crate::config) connect_attempts: Field<u64>,
    /// How many idle connections are kept for the next requests, for each worker and endpoint.
    /// `"off"` closes each connection behind its response. It matters for requests alone: raw bytes
    /// and tunnels have a connection each.
    #[schemars(example = 16, example = &"off", extend(
        "minimum" = 1, "maximum" = 10_000, "default" = 64, "x-unit" = "connections",
        "x-type" = "number of connections from 1 to 10000, or \"off\"",
        "x-advice" = "write a number of connections from 1 to 10000, or \"off\""
    ))]
    pub(in crate::config) keepalive_connections: Field<CountOrOff>,
    /// How long such a connection may be idle before it is closed. It should be less than what the
    /// endpoints allow, so that they do not close one that is about to be used.
    #[schemars(example = "30s", extend("default" = "30s", "x-when" = [When::is_not(
        "keepalive_connections", &["off"], "remove it; no connection is kept"
    )]))]
    pub(in crate::config) keepalive_timeout: Field<Time>,
    /// Connections to the endpoints use TLS.
    pub(in crate::config) tls: Field<Box<ClusterTls>>,
}

/// `cluster.discovery`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(extend("x-planned" = ["logical_dns", "srv"]))]
pub(in crate::config) enum DiscoveryWord {
    /// The endpoints are addresses.
    Static,
    /// The endpoints are names or addresses. Every address of a name is an endpoint.
    StrictDns,
}

/// Which addresses of the names of a cluster become endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DnsFamily {
    /// Both families. An address that this machine has no route to does not count as an attempt.
    Auto,
    /// A records only.
    Ipv4,
    /// AAAA records only.
    Ipv6,
}

/// `cluster.balance`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(extend("x-planned" = ["least_connections", "random", "maglev"]))]
pub(in crate::config) enum BalanceWord {
    /// In turns.
    RoundRobin,
}

/// Each of the endpoints has this pattern.
fn endpoints(pattern: &str) -> Value {
    json!({ "properties": { "endpoints": { "items": { "pattern": pattern } } } })
}

/// The key is about names.
fn with_names() -> When {
    When::is(
        "discovery",
        &["strict_dns"],
        &[(
            "static",
            "a static cluster looks up no names: remove it, or add discovery = \"strict_dns\"",
        )],
    )
}
