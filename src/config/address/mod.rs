//! Parses the addresses and names in a configuration: listen addresses, endpoints and host names.
//!
//! These are pure functions from text to a value or a [`Fault`]; nothing is resolved, opened or
//! bound. The advice covers spellings that other programs accept and ringgate does not: `:80`,
//! `*:80`, `localhost:80`.

mod host;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use self::host::name_fault;
pub(super) use self::host::{exact_host, host_and_port, host_name};
use super::report::{Fault, quoted};
use super::{DnsName, Network};
use crate::sys::Address;

const LINK_LOCAL: &str =
    "a link-local address needs an interface, and this version has no syntax for one";
/// The maximum number of ports in one range: each port is a socket in every worker.
const MAX_PORTS: usize = 1024;
/// The longest path of a Unix socket in bytes. `sun_path` including its final zero has 108, see
/// unix(7).
const MAX_UNIX_PATH: usize = 107;

/// Parses one element of `listen`: `IP:port`, `IP:port-port` or `unix:/path`. For port 0 the kernel
/// chooses the port.
pub(super) fn listen(text: &str) -> Result<Vec<Address>, Fault> {
    if let Some(path) = text.strip_prefix("unix:") {
        return Ok(vec![unix(path)?]);
    }
    let invalid =
        |note: String| Fault::new(format!("{} is not an address to listen on", quoted(text)), note);
    let Some((host, ports)) = text.rsplit_once(':') else {
        let note = match text.parse::<u16>() {
            Ok(port) => format!("write \"0.0.0.0:{port}\", and \"[::]:{port}\" for IPv6 as well"),
            Err(_) => String::from("write \"IP:port\" such as \"0.0.0.0:80\", or \"unix:/path\""),
        };
        return Err(invalid(note));
    };
    if host.is_empty() || host == "*" {
        let note =
            format!("write \"0.0.0.0:{ports}\" for IPv4, \"[::]:{ports}\" for IPv6, or both");
        return Err(invalid(note));
    }
    if text.ends_with(']') {
        return Err(invalid(format!("the port is missing: \"{text}:80\"")));
    }
    let ports = port_range(ports, text)?;
    let ip = ip(host).ok_or_else(|| {
        invalid(match host.parse::<Ipv6Addr>() {
            Ok(_) => format!("write an IPv6 address in brackets: \"[{host}]:{}\"", ports.start()),
            Err(_) if host.contains('%') => String::from(LINK_LOCAL),
            Err(_) if host == "localhost" => {
                format!(
                    "`listen` takes IP addresses, not names: write \"127.0.0.1:{}\"",
                    ports.start()
                )
            }
            Err(_) => String::from(
                "`listen` takes IP addresses, not names; 0.0.0.0 is every IPv4 address of this \
                 machine",
            ),
        })
    })?;
    if let Some(note) = unusable(ip) {
        return Err(invalid(note));
    }
    if let IpAddr::V6(mapped) = ip
        && let Some(ip) = mapped.to_ipv4_mapped()
    {
        // IPv6 sockets accept only IPv6 here (IPV6_V6ONLY, ipv6(7)).
        return Err(invalid(format!("write it as the IPv4 address: \"{ip}:{}\"", ports.start())));
    }
    Ok(ports.map(|port| Address::Ip(SocketAddr::new(ip, port))).collect())
}

/// The reason why a socket cannot use this address: it is a group address, or it needs an
/// interface.
fn unusable(ip: IpAddr) -> Option<String> {
    let note = match ip {
        IpAddr::V4(ip) if ip.is_broadcast() => {
            "this is the broadcast address of a network, not \
                                                the address of a machine"
        }
        _ if ip.is_multicast() => "this is a multicast address, not the address of a machine",
        IpAddr::V6(ip) if ip.is_unicast_link_local() => LINK_LOCAL,
        _ => return None,
    };
    Some(String::from(note))
}

/// Parses `80` or `12345-12399`.
fn port_range(ports: &str, text: &str) -> Result<RangeInclusive<u16>, Fault> {
    let (low, high) = ports.split_once('-').unwrap_or((ports, ports));
    let (Some(first), Some(last)) = (port(low), port(high)) else {
        return Err(Fault::new(
            format!("{} is not a port", quoted(ports)),
            "a port is a number from 0 to 65535 (0: the kernel chooses); a range is 8000-8010",
        ));
    };
    if low != high && (first == 0 || first >= last) {
        let note = "write the lower port first, and at least 1: 12345-12399";
        return Err(Fault::new(format!("the port range of {} is empty", quoted(text)), note));
    }
    let count = usize::from(last - first) + 1;
    if count > MAX_PORTS {
        return Err(Fault::new(
            format!("a range of {count} ports is too long"),
            format!(
                "each port needs a socket in every worker: at most {MAX_PORTS} ports in one \
                     range"
            ),
        ));
    }
    Ok(first..=last)
}

/// Parses an endpoint of a static cluster: `IP:port` or `unix:/path`.
pub(super) fn static_endpoint(text: &str) -> Result<Address, Fault> {
    if let Some(path) = text.strip_prefix("unix:") {
        return unix(path);
    }
    let name = dns_endpoint(text)?;
    match name.host.parse() {
        Ok(ip) => Ok(Address::Ip(SocketAddr::new(ip, name.port))),
        Err(_) => Err(Fault::new(
            format!("the endpoint {} is a name", quoted(text)),
            "a static cluster takes IP addresses: add discovery = \"strict_dns\" to look up names",
        )),
    }
}

/// Parses an endpoint of a strict_dns cluster: `name:port` or `IP:port`.
pub(super) fn dns_endpoint(text: &str) -> Result<DnsName, Fault> {
    let invalid =
        |note: &str| Fault::new(format!("{} is not an endpoint", quoted(text)), note.to_owned());
    if text.contains("://") {
        return Err(invalid("write only \"host:port\", without scheme and path"));
    }
    if text.starts_with("unix:") {
        return Err(invalid(
            "a strict_dns cluster takes names; use discovery = \"static\" for Unix \
                            sockets",
        ));
    }
    // `::1:80` is itself a valid address, so its last part may not be a port.
    if text.parse::<Ipv6Addr>().is_ok() {
        return Err(invalid("write an IPv6 address in brackets before the port: \"[::1]:80\""));
    }
    let Some((host, digits)) = text.rsplit_once(':').filter(|_| !text.ends_with(']')) else {
        return Err(invalid(&format!("the port is missing: \"{text}:80\"")));
    };
    let Some(port) = port(digits).filter(|port| *port > 0) else {
        return Err(invalid("the port after the colon is a number from 1 to 65535"));
    };
    if let Some(ip) = ip(host) {
        unusable(ip).map_or(Ok(()), |note| Err(invalid(&note)))?;
        return Ok(DnsName { host: ip.to_string(), port });
    }
    if host.parse::<Ipv6Addr>().is_ok() {
        return Err(invalid(&format!("write an IPv6 address in brackets: \"[{host}]:{port}\"")));
    }
    // The trailing dot is kept for the resolver: it prevents the use of search domains.
    let name = host.strip_suffix('.').unwrap_or(host);
    name_fault(name).map_or(Ok(()), |note| Err(invalid(note)))?;
    Ok(DnsName { host: host.to_ascii_lowercase(), port })
}

/// Parses an address or a network: `10.0.0.1` or `10.0.0.0/8`.
pub(super) fn network(text: &str) -> Result<Network, Fault> {
    let invalid =
        |note: String| Fault::new(format!("{} is not an address or a network", quoted(text)), note);
    let (host, length) = match text.split_once('/') {
        Some((host, length)) => (host, Some(length)),
        None => (text, None),
    };
    let Ok(ip) = host.parse::<IpAddr>() else {
        let bare = host.trim_matches(['[', ']']);
        let note = match bare.parse::<IpAddr>() {
            Ok(ip) => format!("write it without brackets: \"{ip}\""),
            Err(_) => String::from("write an IP address, or a network such as \"10.0.0.0/8\""),
        };
        return Err(invalid(note));
    };
    if let IpAddr::V6(mapped) = ip
        && let Some(ip) = mapped.to_ipv4_mapped()
    {
        return Err(invalid(format!("clients by IPv4 have IPv4 addresses here: write \"{ip}\"")));
    }
    let Some(digits) = length else { return Ok(Network::only(ip)) };
    let longest = if ip.is_ipv4() { 32 } else { 128 };
    let length = digits.parse().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()));
    let Some(network) = length.and_then(|length| Network::around(ip, length)) else {
        return Err(invalid(format!("behind the `/` stands a number from 0 to {longest}")));
    };
    if network.first() == ip {
        return Ok(network);
    }
    let note = format!("write \"{network}\", or \"{ip}\" for this address alone");
    Err(Fault::new(format!("{} has bits behind its prefix", quoted(text)), note))
}

/// Parses `127.0.0.1` or `[::1]`.
fn ip(text: &str) -> Option<IpAddr> {
    match text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        Some(bare) => bare.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

/// Parses digits only; `u16::from_str` would also accept a sign.
fn port(digits: &str) -> Option<u16> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

fn unix(path: &str) -> Result<Address, Fault> {
    let note = if !path.starts_with('/') {
        "the path of a socket must be absolute: \"unix:/run/ringgate/web.sock\""
    } else if path.len() > MAX_UNIX_PATH {
        "the path of a socket has at most 107 bytes, see unix(7)"
    } else if path.chars().any(char::is_control) || path.ends_with('/') {
        "the path has control characters or ends with `/`"
    } else {
        return Ok(Address::Unix(PathBuf::from(path)));
    };
    Err(Fault::new(format!("{} is not a Unix socket", quoted(&format!("unix:{path}"))), note))
}

#[cfg(test)]
mod tests;
