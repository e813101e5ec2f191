//! One look-up: the hosts file, then DNS with the search list, as the system's configuration is
//! now. Both files are read anew each time, so that a change needs no restart.
//!
//! The search is done here and not by the resolver, which reports the last name it tried: a server
//! that fails for the name itself and denies its variant in the search domain would pass for a
//! denial.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RecordType};

use super::system::{self, candidates, from_hosts};

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) fn of(ip: IpAddr) -> Family {
        if ip.is_ipv4() { Family::V4 } else { Family::V6 }
    }

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
    Empty(Absence),
    /// The look-up failed.
    Failed(String),
}

/// Why a name has no address of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Absence {
    /// NXDOMAIN for the name and each of its variants.
    NoSuchName,
    /// The name is there, or one of its variants.
    NoAddress,
}

/// Looks a host up.
pub(super) async fn look_up(host: &str, family: Family) -> Found {
    let own = |ip: &IpAddr| Family::of(*ip) == family;
    let known = match host.parse::<IpAddr>() {
        Ok(ip) => Some(vec![ip]),
        // A name that stands in the hosts file is not asked for elsewhere, in either family.
        Err(_) => from_hosts(host),
    };
    match known {
        Some(mut addresses) => {
            addresses.retain(own);
            found(addresses, None)
        }
        None => match from_dns(host, family).await {
            Ok(found) => found,
            Err(error) => Found::Failed(error.to_string()),
        },
    }
}

fn found(addresses: Vec<IpAddr>, ttl: Option<Duration>) -> Found {
    if addresses.is_empty() {
        Found::Empty(Absence::NoAddress)
    } else {
        Found::Addresses(addresses, ttl)
    }
}

/// Tries the name and its variants in order; none of them has addresses only when each says so.
async fn from_dns(host: &str, family: Family) -> Result<Found, NetError> {
    let system::Resolver { config, options, search } = system::resolver()?;
    let names = candidates(host, &search, options.ndots)?;
    let resolver = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        .with_options(options)
        .build()?;
    let (mut failed, mut absence) = (None, Absence::NoSuchName);
    for name in names {
        match ask(&resolver, name, family).await {
            found @ Found::Addresses(..) => return Ok(found),
            Found::Failed(error) => failed = Some(error),
            Found::Empty(Absence::NoAddress) => absence = Absence::NoAddress,
            Found::Empty(Absence::NoSuchName) => {}
        }
    }
    Ok(failed.map_or(Found::Empty(absence), Found::Failed))
}

async fn ask(resolver: &TokioResolver, name: Name, family: Family) -> Found {
    match resolver.lookup(name, family.record()).await {
        Ok(lookup) => {
            let records = lookup.answers();
            let ttl = records.iter().map(|record| record.ttl).min().unwrap_or(0);
            let addresses = records.iter().filter_map(|record| record.data.ip_addr()).collect();
            found(addresses, Some(Duration::from_secs(ttl.into())))
        }
        Err(NetError::Dns(DnsError::NoRecordsFound(none))) => match none.response_code {
            ResponseCode::NXDomain => Found::Empty(Absence::NoSuchName),
            ResponseCode::NoError => Found::Empty(Absence::NoAddress),
            _ => Found::Failed(NetError::Dns(DnsError::NoRecordsFound(none)).to_string()),
        },
        Err(error) => Found::Failed(error.to_string()),
    }
}
