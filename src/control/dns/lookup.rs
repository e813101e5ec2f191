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

use super::files::{Files, Source};
use super::server::{self, Said};
use super::system::{Resolver, candidates};

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

/// The result of one look-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// At least one address, with the smallest time to live of the chain if there is one.
    Addresses(Vec<IpAddr>, Option<Duration>),
    /// It is certain that there are none.
    Empty(Absence),
    /// The look-up failed.
    Failed(String),
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
pub(super) async fn look_up(files: &Files, host: &str, family: Family) -> Found {
    let own = |ip: &IpAddr| Family::of(*ip) == family;
    let source = match host.parse::<IpAddr>() {
        Ok(ip) => Ok(Source::Hosts(vec![ip])),
        Err(_) => files.source(host).await,
    };
    match source {
        Ok(Source::Hosts(mut addresses)) => {
            addresses.retain(own);
            found(addresses, None)
        }
        Ok(Source::Dns(resolver)) => {
            match candidates(host, &resolver.search, resolver.options.ndots) {
                Ok(names) => from_dns(&resolver, names, family).await,
                Err(error) => Found::Failed(error.to_string()),
            }
        }
        Err(error) => Found::Failed(error.to_string()),
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
async fn from_dns(resolver: &Resolver, names: Vec<Name>, family: Family) -> Found {
    let (mut failed, mut absence) = (None, Absence::NoSuchName);
    for name in names {
        match ask(resolver, name, family).await {
            found @ Found::Addresses(..) => return found,
            Found::Failed(error) => failed = Some(error),
            Found::Empty(Absence::NoAddress) => absence = Absence::NoAddress,
            Found::Empty(Absence::NoSuchName) => {}
        }
    }
    failed.map_or(Found::Empty(absence), Found::Failed)
}

/// Asks the servers in order, up to the configured number of attempts, until one of them has an
/// answer about the name.
async fn ask(resolver: &Resolver, name: Name, family: Family) -> Found {
    let mut failures = Vec::new();
    for _ in 0..resolver.attempts {
        failures.clear();
        for server in &resolver.servers {
            match server::ask(*server, name.clone(), family.record(), &resolver.options).await {
                Said::Addresses(addresses, ttl) => return found(addresses, Some(ttl)),
                Said::NoSuchName => return Found::Empty(Absence::NoSuchName),
                Said::NoAddress => return Found::Empty(Absence::NoAddress),
                Said::Failed(error) => failures.push((server.ip(), error)),
            }
        }
    }
    Found::Failed(describe(&failures))
}

/// Formats errors: `127.0.0.2, 127.0.0.3: request timed out; 127.0.0.4: Query Refused`.
fn describe(failures: &[(IpAddr, String)]) -> String {
    let alike = failures.chunk_by(|one, next| one.1 == next.1);
    let described = alike.map(|alike| {
        let servers: Vec<String> = alike.iter().map(|(ip, _)| ip.to_string()).collect();
        let error = alike.first().map_or("", |(_, error)| error);
        format!("{}: {error}", servers.join(", "))
    });
    described.collect::<Vec<_>>().join("; ")
}
