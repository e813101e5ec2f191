//! Parses the addresses and names in a configuration: listen addresses, endpoints and host names.
//!
//! These are pure functions from text to a value or a [`Fault`]; nothing is resolved, opened or
//! bound. The advice covers spellings that other programs accept and ringgate does not: `:80`,
//! `*:80`, `localhost:80`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use super::report::{Fault, quoted};
use super::{DnsName, HostName};
use crate::sys::Address;

/// The maximum number of ports in one range: each port is a socket in every worker.
const MOST_PORTS: usize = 1024;
/// The longest path of a Unix socket in bytes. `sun_path` including its final zero has 108, see
/// unix(7).
const LONGEST_UNIX_PATH: usize = 107;
/// The longest host name in characters, without the final dot (RFC 1035 section 2.3.4).
const LONGEST_NAME: usize = 253;

/// Parses one element of `listen`: `IP:port`, `IP:port-port` or `unix:/path`. For port 0 the kernel
/// chooses the port.
pub(super) fn listen(text: &str) -> Result<Vec<Address>, Fault> {
    if let Some(path) = text.strip_prefix("unix:") {
        return Ok(vec![unix(path)?]);
    }
    let not_one =
        |note: String| Fault::new(format!("{} is not an address to listen on", quoted(text)), note);
    let Some((host, ports)) = text.rsplit_once(':') else {
        let note = match text.parse::<u16>() {
            Ok(port) => format!("write \"0.0.0.0:{port}\", and \"[::]:{port}\" for IPv6 as well"),
            Err(_) => String::from("write \"IP:port\" such as \"0.0.0.0:80\", or \"unix:/path\""),
        };
        return Err(not_one(note));
    };
    if host.is_empty() || host == "*" {
        let note =
            format!("write \"0.0.0.0:{ports}\" for IPv4, \"[::]:{ports}\" for IPv6, or both");
        return Err(not_one(note));
    }
    let ports = port_range(ports, text)?;
    let ip = ip(host).ok_or_else(|| {
        not_one(match host.parse::<Ipv6Addr>() {
            Ok(_) => format!("an IPv6 address stands in brackets: \"[{host}]:{}\"", ports.start()),
            Err(_) if host == "localhost" => {
                format!("names are not looked up to listen; write \"127.0.0.1:{}\"", ports.start())
            }
            Err(_) => String::from(
                "names are not looked up to listen; write an IP address, 0.0.0.0 for all of them",
            ),
        })
    })?;
    if let Some(note) = no_host(ip) {
        return Err(not_one(note));
    }
    if let IpAddr::V6(mapped) = ip
        && let Some(ip) = mapped.to_ipv4_mapped()
    {
        // IPv6 sockets accept only IPv6 here (IPV6_V6ONLY, ipv6(7)).
        return Err(not_one(format!("write it as the IPv4 address: \"{ip}:{}\"", ports.start())));
    }
    Ok(ports.map(|port| Address::Ip(SocketAddr::new(ip, port))).collect())
}

/// The reason why a socket cannot use this address: it is a group address, or it needs an
/// interface.
fn no_host(ip: IpAddr) -> Option<String> {
    let note = match ip {
        IpAddr::V4(ip) if ip.is_broadcast() => "that is every machine of a network, not one",
        _ if ip.is_multicast() => "that is a multicast group, and not an address of a machine",
        IpAddr::V6(ip) if ip.is_unicast_link_local() => {
            "a link-local address means nothing without its interface, which cannot be named here"
        }
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
            "a port is a number from 0 to 65535 (0: the kernel chooses), a range is 8000-8010",
        ));
    };
    if low != high && (first == 0 || first >= last) {
        let note = "write the lower port first, from 1 up: 12345-12399";
        return Err(Fault::new(format!("the port range of {} is empty", quoted(text)), note));
    }
    let count = usize::from(last - first) + 1;
    if count > MOST_PORTS {
        return Err(Fault::new(
            format!("a range of {count} ports is too long"),
            format!("each port is a socket in every worker: at most {MOST_PORTS} in one range"),
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
            "a static cluster takes IP addresses: add discovery = \"strict_dns\" to look names up",
        )),
    }
}

/// Parses an endpoint of a strict_dns cluster: `name:port` or `IP:port`.
pub(super) fn dns_endpoint(text: &str) -> Result<DnsName, Fault> {
    let not_one =
        |note: &str| Fault::new(format!("{} is not an endpoint", quoted(text)), note.to_owned());
    if text.contains("://") {
        return Err(not_one("write it without scheme and path, only \"host:port\""));
    }
    if text.starts_with("unix:") {
        return Err(not_one("a strict_dns cluster looks names up; use discovery = \"static\""));
    }
    // `::1:80` is itself a valid address, so its last part may not be a port.
    if text.parse::<Ipv6Addr>().is_ok() {
        return Err(not_one("an IPv6 address stands in brackets, then its port: \"[::1]:80\""));
    }
    let Some((host, digits)) = text.rsplit_once(':') else {
        return Err(not_one(&format!("the port is missing: \"{text}:80\"")));
    };
    let Some(port) = port(digits).filter(|port| *port > 0) else {
        return Err(not_one("the part behind the colon is a port, a number from 1 to 65535"));
    };
    if let Some(ip) = ip(host) {
        no_host(ip).map_or(Ok(()), |note| Err(not_one(&note)))?;
        return Ok(DnsName { host: ip.to_string(), port });
    }
    if host.parse::<Ipv6Addr>().is_ok() {
        return Err(not_one(&format!("an IPv6 address stands in brackets: \"[{host}]:{port}\"")));
    }
    // The trailing dot is kept for the resolver: it prevents the use of search domains.
    let name = host.strip_suffix('.').unwrap_or(host);
    name_fault(name).map_or(Ok(()), |note| Err(not_one(note)))?;
    Ok(DnsName { host: host.to_ascii_lowercase(), port })
}

/// Parses one of `host.names` and converts it to lower case: a name, `*.name`, `name.*` or an IP
/// address.
pub(super) fn host_name(text: &str) -> Result<HostName, Fault> {
    if text == "*" {
        return Err(Fault::new(
            "`*` is not a host name",
            "for every other host, leave `names` out",
        ));
    }
    match (text.strip_prefix("*."), text.strip_suffix(".*")) {
        (Some(_), Some(_)) => Err(Fault::new(
            format!("{} has a `*` at both ends", quoted(text)),
            "one is possible: \"*.example.com\" or \"example.*\"",
        )),
        (Some(name), None) => Ok(HostName::Suffix(format!(".{}", plain_name(text, name)?))),
        (None, Some(name)) => Ok(HostName::Prefix(format!("{}.", plain_name(text, name)?))),
        (None, None) => Ok(HostName::Exact(exact_host(text)?)),
    }
}

/// Parses a host without port into the form of a Host header: lower case, IPv6 addresses in
/// brackets.
pub(super) fn exact_host(text: &str) -> Result<String, Fault> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    match bare.parse::<Ipv6Addr>() {
        Ok(ip) => Ok(format!("[{ip}]")),
        Err(_) => plain_name(text, text),
    }
}

/// Checks `name`, which is `text` without its star.
fn plain_name(text: &str, name: &str) -> Result<String, Fault> {
    match name_fault(name) {
        None => Ok(name.to_ascii_lowercase()),
        Some(note) => Err(Fault::new(format!("{} is not a host name", quoted(text)), note)),
    }
}

/// The reason why a text is neither a host name nor an IPv4 address.
fn name_fault(name: &str) -> Option<&'static str> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let last = name.rsplit('.').next().unwrap_or_default();
    if name.is_empty() {
        Some("it is empty")
    } else if name.chars().any(char::is_control) {
        Some("it holds control characters")
    } else if name.contains("://") || name.contains('/') {
        Some("write the name alone, without scheme and path")
    } else if name.contains(':') {
        Some("write the name without its port: a host is the same on every port")
    } else if name.contains('*') {
        Some("a `*` stands for whole labels at one end: \"*.example.com\" or \"example.*\"")
    } else if !name.is_ascii() {
        Some("write the form that goes over the wire, which starts with xn-- (punycode)")
    } else if !name.bytes().all(allowed) {
        Some("a name has letters, digits, `-`, `_` and dots")
    } else if name.ends_with('.') {
        Some("write it without the dot at the end")
    } else if name.split('.').any(str::is_empty) {
        Some("there is nothing between two dots, or before the first")
    } else if name.len() > LONGEST_NAME || name.split('.').any(|label| label.len() > 63) {
        Some("a name has at most 253 characters, and 63 between two dots")
    } else if last.bytes().all(|byte| byte.is_ascii_digit()) && name.parse::<Ipv4Addr>().is_err() {
        Some("it looks like an IPv4 address, which has four numbers from 0 to 255")
    } else {
        None
    }
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
        "the path of a socket is absolute: \"unix:/run/ringgate/web.sock\""
    } else if path.len() > LONGEST_UNIX_PATH {
        "the path of a socket has at most 107 bytes, see unix(7)"
    } else if path.chars().any(char::is_control) || path.ends_with('/') {
        "that is no name a socket can have"
    } else {
        return Ok(Address::Unix(PathBuf::from(path)));
    };
    Err(Fault::new(format!("{} is not a Unix socket", quoted(&format!("unix:{path}"))), note))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn listening(text: &str) -> Vec<String> {
        let addresses = listen(text).expect("a valid address");
        addresses.iter().map(Address::to_string).collect()
    }

    #[test]
    fn every_form_of_listen_is_understood() {
        assert_eq!(listening("0.0.0.0:80"), ["0.0.0.0:80"]);
        assert_eq!(listening("[::]:80"), ["[::]:80"]);
        assert_eq!(listening("127.0.0.1:0"), ["127.0.0.1:0"]);
        assert_eq!(listening("127.0.0.1:80-82"), ["127.0.0.1:80", "127.0.0.1:81", "127.0.0.1:82"]);
        assert_eq!(listening("unix:/run/web.sock"), ["unix:/run/web.sock"]);
        assert_eq!(listening("0.0.0.0:1-1024").len(), 1024);
    }

    #[test]
    fn every_other_form_of_listen_is_refused() {
        for text in [
            "",
            "80",
            ":80",
            "*:80",
            "localhost:80",
            "::1:80",
            "[::1]",
            "1.2.3.4",
            "1.2.3.4:",
            "1.2:3",
            "1.2.3.4:65536",
            "1.2.3.4:+80",
            "1.2.3.4:82-80",
            "1.2.3.4:80-80-80",
            "1.2.3.4:0-5",
            "1.2.3.4:1-1025",
            "224.0.0.1:80",
            "255.255.255.255:80",
            "[ff02::1]:80",
            "[fe80::1]:80",
            "[::ffff:127.0.0.1]:80",
            "unix:",
            "unix:web.sock",
            "unix:/a\0b",
            "unix:/run/",
        ] {
            assert!(listen(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn endpoints_are_addresses_or_names_with_ports() {
        assert_eq!(
            static_endpoint("[::1]:80").map(|address| address.to_string()),
            Ok(String::from("[::1]:80"))
        );
        let name = DnsName { host: String::from("node.internal."), port: 31509 };
        assert_eq!(dns_endpoint("Node.Internal.:31509"), Ok(name));
        let name = DnsName { host: String::from("my_app_1.example"), port: 80 };
        assert_eq!(dns_endpoint("My_App_1.example:80"), Ok(name));
        let address = DnsName { host: String::from("::1"), port: 80 };
        assert_eq!(dns_endpoint("[::1]:80"), Ok(address));
        for text in [
            "",
            "a",
            ":80",
            "a:0",
            "a:b",
            "::1",
            "::1:80",
            "http://a:80",
            "a b:80",
            "unix:/a",
            "10.0.0.256:80",
            "a..b:80",
            "[a]:80",
            ".:80",
            "224.0.0.1:80",
            "[fe80::1]:80",
        ] {
            assert!(dns_endpoint(text).is_err(), "{text:?}");
        }
        assert!(static_endpoint("node.internal:80").is_err());
    }

    #[test]
    fn host_names_are_kept_in_lower_case() {
        let exact = |name: &str| Ok(HostName::Exact(name.to_owned()));
        assert_eq!(host_name("Live.Example.COM"), exact("live.example.com"));
        assert_eq!(host_name("a_b-c"), exact("a_b-c"));
        assert_eq!(host_name("127.0.0.1"), exact("127.0.0.1"));
        assert_eq!(host_name("::1"), exact("[::1]"));
        assert_eq!(host_name("[2001:DB8::1]"), exact("[2001:db8::1]"));
        assert_eq!(host_name("*.Example.com"), Ok(HostName::Suffix(String::from(".example.com"))));
        assert_eq!(host_name("Example.*"), Ok(HostName::Prefix(String::from("example."))));
    }

    #[test]
    fn what_cannot_be_a_host_is_refused() {
        for text in [
            "",
            "*",
            "*.",
            ".*",
            "*.a.*",
            "a.*.b",
            "a*",
            "a:80",
            "[::1]:80",
            "http://a",
            "a/b",
            "a b",
            "a.",
            ".a",
            "a..b",
            "bücher.de",
            "a\r\nb",
            "1.2.3",
            "1.2.3.256",
        ] {
            assert!(host_name(text).is_err(), "{text:?}");
        }
        assert!(host_name(&"a".repeat(64)).is_err());
        assert!(host_name(&["a"; 128].join(".")).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_understood_or_refused(text in "\\PC{0,24}") {
            let _ = (listen(&text), static_endpoint(&text), dns_endpoint(&text), host_name(&text));
        }

        #[test]
        fn an_accepted_host_is_safe_in_a_header(text in "[ -~]{1,16}|(?s).{1,8}") {
            if let Ok(host) = exact_host(&text) {
                prop_assert!(host.bytes().all(|byte| byte.is_ascii_graphic()), "{host:?}");
            }
        }
    }
}
