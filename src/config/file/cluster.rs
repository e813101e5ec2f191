//! `[cluster.NAME]` as typed.

use std::time::Duration;

use crate::config::DnsFamily;
use crate::config::table::{At, Field, Table};

/// `cluster.discovery`
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum DiscoveryWord {
    Static,
    StrictDns,
}

/// `[cluster.NAME]`
pub(in crate::config) struct Cluster {
    pub(in crate::config) discovery: Field<DiscoveryWord>,
    pub(in crate::config) endpoints: Field<Vec<At<String>>>,
    pub(in crate::config) dns_refresh: Field<Duration>,
    pub(in crate::config) dns_family: Field<DnsFamily>,
    pub(in crate::config) connect_timeout: Field<Duration>,
    pub(in crate::config) connect_attempts: Field<u64>,
}

impl Cluster {
    pub(super) fn read(mut table: Table<'_>) -> Cluster {
        let discoveries =
            [("static", DiscoveryWord::Static), ("strict_dns", DiscoveryWord::StrictDns)];
        let families =
            [("auto", DnsFamily::Auto), ("ipv4", DnsFamily::Ipv4), ("ipv6", DnsFamily::Ipv6)];
        let balances = [("round_robin", ())];
        // There is only one balance so far. Its name has no effect, and another name is an error.
        table.word("balance", &balances, &["least_connections", "random", "maglev"]);
        let endpoints = table.strings("endpoints", false);
        let cluster = Cluster {
            discovery: table.word("discovery", &discoveries, &["logical_dns", "srv"]),
            endpoints: table.required(
                "endpoints",
                endpoints,
                "list the addresses that connections go to: endpoints = [\"127.0.0.1:8388\"]",
            ),
            dns_refresh: table.duration("dns_refresh"),
            dns_family: table.word("dns_family", &families, &[]),
            connect_timeout: table.duration("connect_timeout"),
            connect_attempts: table.integer(
                "connect_attempts",
                1..=16,
                "with 1 no second endpoint is tried; the default is 2",
            ),
        };
        table.report_unknown_keys(&[
            "max_connections",
            "send_proxy_protocol",
            "health_check",
            "outlier",
        ]);
        cluster
    }
}
