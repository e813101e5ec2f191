//! Reads `/etc/resolv.conf` (resolv.conf(5)) like the system's own resolver.
//!
//! Names are compared as text and sent as they are written, so underscores and leading hyphens are
//! accepted. An entry that cannot be parsed is skipped, and the rest of the file still counts.

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::time::Duration;

use hickory_resolver::config::{ResolveHosts, ResolverOpts};
use hickory_resolver::proto::rr::Name;
use rustix::net::netdevice;

use super::error::LookupError;

const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The most servers that are used (MAXNS of resolv.conf(5)).
const MAX_SERVERS: usize = 3;
const DNS_PORT: u16 = 53;
/// Limits of `options timeout:` and `attempts:`. 0 means 1 (resolv.conf(5)).
const TIMEOUT: (u32, u32) = (1, 30);
const ATTEMPTS: (u32, u32) = (1, 5);

/// How to ask DNS for names.
pub(super) struct Resolver {
    /// In the order in which they are asked.
    pub(super) servers: Vec<SocketAddr>,
    /// How often each server is asked while none answers.
    pub(super) attempts: u32,
    /// The other options, for one question to one server.
    pub(super) options: ResolverOpts,
    /// Domains that complete a short name.
    pub(super) search: Vec<Name>,
}

/// Reads the resolver's configuration.
///
/// # Errors
/// The file exists but cannot be read now, because descriptors are short or the disk fails. Or none
/// of its name servers can be asked.
pub(super) fn resolver() -> Result<Resolver, LookupError> {
    match fs::read(RESOLV_CONF) {
        Ok(file) => parse(&file),
        Err(error) if counts_as_empty(error.kind()) => parse(b""),
        Err(source) => Err(LookupError::File { path: RESOLV_CONF, source }),
    }
}

/// The errors for which glibc's res_init uses its defaults.
fn counts_as_empty(error: ErrorKind) -> bool {
    use ErrorKind::{IsADirectory, NotADirectory, NotFound, PermissionDenied};
    matches!(error, IsADirectory | NotADirectory | NotFound | PermissionDenied)
}

fn parse(file: &[u8]) -> Result<Resolver, LookupError> {
    // Errors concern single lines and options, which are skipped.
    let (parsed, _) = resolv_conf::Config::parse_with_errors(file);
    let domain = |text: &String| Name::from_str_relaxed(text).ok();
    let mut search: Vec<Name> = parsed.get_last_search_or_domain().filter_map(domain).collect();
    if search.is_empty() {
        search.extend(parsed.get_system_domain().as_ref().and_then(domain));
    }
    let mut options = ResolverOpts::default();
    options.ndots = parsed.ndots as usize;
    options.timeout = Duration::from_secs(parsed.timeout.clamp(TIMEOUT.0, TIMEOUT.1).into());
    options.edns0 = parsed.edns0;
    // By default the library would parse the hosts file for each question.
    options.use_hosts_file = ResolveHosts::Never;
    // The caller counts attempts; the library's would come in addition.
    options.attempts = 0;
    // No cache: followers look up again when the time to live is over. Aliases (CNAME) are kept,
    // because the smallest time to live of the chain counts.
    options.cache_size = 0;
    options.preserve_intermediates = true;
    let attempts = parsed.attempts.clamp(ATTEMPTS.0, ATTEMPTS.1);
    Ok(Resolver { servers: servers(file)?, attempts, options, search })
}

/// The name servers, or the local machine if the file names none.
///
/// They are parsed here because the parser for the rest rejects zones with a hyphen or a dot
/// (`%br-lan`, `%eth0.5`).
fn servers(file: &[u8]) -> Result<Vec<SocketAddr>, LookupError> {
    let lines = file.split(|byte| *byte == b'\n').filter_map(|line| {
        let value = line.strip_prefix(b"nameserver")?;
        let value = std::str::from_utf8(value).ok().filter(|value| value.starts_with([' ', '\t']));
        value?.split([';', '#']).next()?.split_ascii_whitespace().next()
    });
    let parsed = lines.filter_map(|text| {
        let (address, zone) = text.split_once('%').map_or((text, None), |(a, z)| (a, Some(z)));
        let ip = address.parse::<IpAddr>().ok()?;
        Some((ip, zone)).filter(|_| ip.is_ipv6() || zone.is_none())
    });
    let named: Vec<_> = parsed.take(MAX_SERVERS).collect();
    if named.is_empty() {
        return Ok(vec![(Ipv4Addr::LOCALHOST, DNS_PORT).into()]);
    }
    // A link-local address without its zone could be that of another server.
    let usable: Vec<SocketAddr> = named.iter().filter_map(|named| in_zone(*named)).collect();
    if usable.is_empty() { Err(LookupError::NoServer) } else { Ok(usable) }
}

/// The address with its zone as a number. `None` if there is no such interface.
fn in_zone((ip, zone): (IpAddr, Option<&str>)) -> Option<SocketAddr> {
    match (ip, zone) {
        (IpAddr::V6(ip), Some(zone)) => {
            let index = zone.parse().ok().or_else(|| interface(zone))?;
            Some(SocketAddrV6::new(ip, DNS_PORT, 0, index).into())
        }
        _ => Some((ip, DNS_PORT).into()),
    }
}

fn interface(name: &str) -> Option<u32> {
    let any = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    netdevice::name_to_index(any, name).ok()
}

/// The names to ask for, fully qualified, as resolv.conf(5) orders them.
///
/// # Errors
/// The name itself is too long.
pub(super) fn candidates(
    host: &str,
    search: &[Name],
    ndots: usize,
) -> Result<Vec<Name>, LookupError> {
    let labels = host.strip_suffix('.').unwrap_or(host);
    // Any bytes are allowed: the server decides whether a name exists, not a syntax rule.
    let name = Name::from_labels(labels.split('.').map(str::as_bytes));
    let mut name = name.map_err(LookupError::InvalidName)?;
    if host.ends_with('.') {
        name.set_fqdn(true);
        return Ok(vec![name]);
    }
    name.set_fqdn(false);
    let dots = host.matches('.').count();
    // A search domain that makes the name too long is skipped.
    let complete = |domain: &Name| name.clone().append_domain(domain).ok();
    let mut names: Vec<Name> = search.iter().filter_map(complete).collect();
    name.set_fqdn(true);
    names.insert(if dots >= ndots { 0 } else { names.len() }, name);
    Ok(names)
}

#[cfg(test)]
mod tests;
