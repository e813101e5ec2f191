//! One look-up: the hosts file, then DNS with the search list, as the system's configuration is
//! now. Both files are read anew each time, so that a change needs no restart.
//!
//! The search is done here and not by the resolver, which reports the last name it tried: a server
//! that fails for the name itself and denies its variant in the search domain would pass for a
//! denial.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::{Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::{Hosts, TokioResolver, system_conf};

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) const BOTH: [Family; 2] = [Family::V4, Family::V6];

    fn record(self) -> RecordType {
        match self {
            Family::V4 => RecordType::A,
            Family::V6 => RecordType::AAAA,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Family::V4 { "IPv4" } else { "IPv6" })
    }
}

/// What one look-up gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// At least one address; the smallest time to live of the chain, where there is one.
    Addresses(Vec<IpAddr>, Option<Duration>),
    /// Surely none.
    Empty,
    /// Nobody knows.
    Failed(String),
}

/// Looks a host up.
pub(super) async fn look_up(host: &str, family: Family) -> Found {
    if let Ok(ip) = host.parse::<IpAddr>() {
        let own = ip.is_ipv4() == (family == Family::V4);
        return if own { Found::Addresses(vec![ip], None) } else { Found::Empty };
    }
    // A name that stands in the hosts file is not asked for elsewhere, in either family.
    let hosts = Hosts::from_system().unwrap_or_default();
    let local = Family::BOTH.map(|family| from_hosts(&hosts, host, family));
    if local.iter().any(|found| *found != Found::Empty) {
        let [v4, v6] = local;
        return if family == Family::V4 { v4 } else { v6 };
    }
    match from_dns(host, family).await {
        Ok(found) => found,
        Err(error) => Found::Failed(error.to_string()),
    }
}

fn from_hosts(hosts: &Hosts, host: &str, family: Family) -> Found {
    let Ok(name) = Name::from_utf8(host) else { return Found::Empty };
    let lookup = hosts.lookup_static_host(&Query::query(name, family.record()));
    let records = lookup.iter().flat_map(|lookup| lookup.answers());
    let addresses: Vec<IpAddr> = records.filter_map(|record| record.data.ip_addr()).collect();
    if addresses.is_empty() { Found::Empty } else { Found::Addresses(addresses, None) }
}

/// Tries the name and its variants in order; none of them has addresses only when each says so.
async fn from_dns(host: &str, family: Family) -> Result<Found, NetError> {
    let (config, mut options) = system_conf::read_system_conf()?;
    let search = match config.search() {
        [] => config.domain().cloned().into_iter().collect(),
        search => search.to_vec(),
    };
    let names = candidates(host, &search, options.ndots)?;
    // Answers are kept by whoever follows the name; the aliases on the way have times to live, too.
    options.cache_size = 0;
    options.preserve_intermediates = true;
    let resolver = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        .with_options(options)
        .build()?;
    let mut failed = None;
    for name in names {
        match ask(&resolver, name, family).await {
            found @ Found::Addresses(..) => return Ok(found),
            Found::Failed(error) => failed = Some(error),
            Found::Empty => {}
        }
    }
    Ok(failed.map_or(Found::Empty, Found::Failed))
}

/// The names to ask for, fully qualified, as resolv.conf(5) orders them.
fn candidates(host: &str, search: &[Name], ndots: usize) -> Result<Vec<Name>, NetError> {
    let mut name = Name::from_utf8(host)?;
    if name.is_fqdn() {
        return Ok(vec![name]);
    }
    let dots = host.matches('.').count();
    let mut names = Vec::with_capacity(search.len() + 1);
    for domain in search {
        names.push(name.clone().append_domain(domain)?);
    }
    name.set_fqdn(true);
    names.insert(if dots >= ndots { 0 } else { names.len() }, name);
    Ok(names)
}

async fn ask(resolver: &TokioResolver, name: Name, family: Family) -> Found {
    match resolver.lookup(name, family.record()).await {
        Ok(lookup) => {
            let records = lookup.answers();
            let ttl = records.iter().map(|record| record.ttl).min().unwrap_or(0);
            let addresses: Vec<IpAddr> =
                records.iter().filter_map(|record| record.data.ip_addr()).collect();
            if addresses.is_empty() {
                Found::Empty
            } else {
                Found::Addresses(addresses, Some(Duration::from_secs(ttl.into())))
            }
        }
        Err(NetError::Dns(DnsError::NoRecordsFound(none)))
            if matches!(none.response_code, ResponseCode::NXDomain | ResponseCode::NoError) =>
        {
            Found::Empty
        }
        Err(error) => Found::Failed(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ordered(host: &str, ndots: usize) -> Vec<String> {
        let search = ["a.test", "b.test"].map(|domain| Name::from_utf8(domain).unwrap());
        let names = candidates(host, &search, ndots).unwrap();
        names.iter().map(Name::to_string).collect()
    }

    #[test]
    fn the_search_list_comes_first_for_names_with_few_dots() {
        assert_eq!(ordered("node", 1), ["node.a.test.", "node.b.test.", "node."]);
        assert_eq!(ordered("x.y", 1), ["x.y.", "x.y.a.test.", "x.y.b.test."]);
        assert_eq!(ordered("x.y", 5), ["x.y.a.test.", "x.y.b.test.", "x.y."]);
        assert_eq!(ordered("x.y.", 5), ["x.y."]);
    }
}
