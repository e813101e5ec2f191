//! One look-up: the hosts file, then DNS with the search list, by the present configuration of the
//! system. A changed file needs no restart.
//!
//! The search list is applied here and not by the resolver, because that reports only the result
//! for the last name it tried. If a server failed for the name itself and denied its variant in the
//! search domain, the result would look like a denial.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use hickory_resolver::proto::rr::{Name, RecordType};
use serde::{Deserialize, Serialize};

use super::error::LookupError;
use super::files::{Files, Source};
use super::server::{self, Resolution};
use super::system::{Resolver, candidates};

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
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

/// The result of a look-up that has not failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// At least one address, with the smallest time to live of the chain if there is one.
    Addresses(Vec<IpAddr>, Option<Duration>),
    /// It is certain that there are none.
    Empty(Absence),
}

/// Why a name has no address of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Absence {
    /// The answer was NXDOMAIN for the name and each of its variants.
    NoSuchName,
    /// The name or one of its variants exists.
    NoAddress,
}

/// Looks a host up.
///
/// # Errors
/// It is not known whether there are addresses.
pub(super) async fn look_up(
    files: &Files,
    host: &str,
    family: Family,
) -> Result<Found, LookupError> {
    let source = match host.parse::<IpAddr>() {
        Ok(ip) => Source::Hosts(vec![ip]),
        Err(_) => files.source(host).await?,
    };
    match source {
        Source::Hosts(mut addresses) => {
            addresses.retain(|ip| Family::of(*ip) == family);
            Ok(found(addresses, None))
        }
        Source::Dns(resolver) => {
            let names = candidates(host, &resolver.search, resolver.options.ndots)?;
            query_names(&resolver, names, family).await
        }
    }
}

fn found(addresses: Vec<IpAddr>, ttl: Option<Duration>) -> Found {
    if addresses.is_empty() {
        Found::Empty(Absence::NoAddress)
    } else {
        Found::Addresses(addresses, ttl)
    }
}

/// Tries the name and its variants in order. Returns `Empty` only if every answer does.
async fn query_names(
    resolver: &Resolver,
    names: Vec<Name>,
    family: Family,
) -> Result<Found, LookupError> {
    let (mut failed, mut absence) = (None, Absence::NoSuchName);
    for name in names {
        match query_servers(resolver, name, family).await {
            Ok(found @ Found::Addresses(..)) => return Ok(found),
            Ok(Found::Empty(Absence::NoAddress)) => absence = Absence::NoAddress,
            Ok(Found::Empty(Absence::NoSuchName)) => {}
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(Found::Empty(absence)), Err)
}

/// Queries the servers in order, up to the configured number of attempts, until one of them has an
/// answer about the name. The error lists the failures of the last attempt.
async fn query_servers(
    resolver: &Resolver,
    name: Name,
    family: Family,
) -> Result<Found, LookupError> {
    let (record, options) = (family.record(), &resolver.options);
    let mut failures = Vec::new();
    for _ in 0..resolver.attempts {
        failures.clear();
        for server in &resolver.servers {
            match server::query(*server, name.clone(), record, options).await {
                Ok(Resolution::Addresses(addresses, ttl)) => {
                    return Ok(found(addresses, Some(ttl)));
                }
                Ok(Resolution::NoSuchName) => return Ok(Found::Empty(Absence::NoSuchName)),
                Ok(Resolution::NoAddress) => return Ok(Found::Empty(Absence::NoAddress)),
                Err(error) => failures.push((server.ip(), error)),
            }
        }
    }
    Err(LookupError::Servers(failures))
}
