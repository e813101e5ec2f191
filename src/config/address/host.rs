//! Parses the names of hosts.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::config::HostName;
use crate::config::report::{Fault, quoted};

/// The longest host name in characters, without the final dot (RFC 1035 section 2.3.4).
const MAX_NAME_LENGTH: usize = 253;

/// Parses one of `host.names` and converts it to lower case: a name, `*.name`, `name.*` or an IP
/// address.
pub(in crate::config) fn host_name(text: &str) -> Result<HostName, Fault> {
    if text == "*" {
        return Err(Fault::new(
            "`*` is not a host name",
            "leave `names` out to match every other host",
        ));
    }
    match (text.strip_prefix("*."), text.strip_suffix(".*")) {
        (Some(_), Some(_)) => Err(Fault::new(
            format!("{} has a `*` at both ends", quoted(text)),
            "write a `*` at one end only: \"*.example.com\" or \"example.*\"",
        )),
        (Some(name), None) => Ok(HostName::Suffix(format!(".{}", plain_name(text, name)?))),
        (None, Some(name)) => Ok(HostName::Prefix(format!("{}.", plain_name(text, name)?))),
        (None, None) => Ok(HostName::Exact(exact_host(text)?)),
    }
}

/// Parses a host without port into the form of a Host header: lower case, IPv6 addresses in
/// brackets.
pub(in crate::config) fn exact_host(text: &str) -> Result<String, Fault> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    match bare.parse::<Ipv6Addr>() {
        Ok(ip) => Ok(format!("[{ip}]")),
        Err(_) => plain_name(text, text),
    }
}

/// Parses a host with or without port into the form of a Host header: lower case, IPv6 addresses in
/// brackets.
pub(in crate::config) fn host_and_port(text: &str) -> Result<String, Fault> {
    // `::1:80` is itself an address.
    let is_address = text.parse::<Ipv6Addr>().is_ok() || text.ends_with(']');
    let Some((host, port)) = text.rsplit_once(':').filter(|_| !is_address) else {
        return exact_host(text);
    };
    let digits = Some(port).filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
    match digits.and_then(|port| port.parse::<u16>().ok()) {
        Some(number) if number > 0 => Ok(format!("{}:{number}", exact_host(host)?)),
        // Not a port. What is wrong with it as a host says more.
        _ if text.contains('/') => exact_host(text),
        _ => Err(Fault::new(
            format!("{} is not a host", quoted(text)),
            "the port after the colon is a number from 1 to 65535",
        )),
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
pub(super) fn name_fault(name: &str) -> Option<&'static str> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let last = name.rsplit('.').next().unwrap_or_default();
    if name.is_empty() {
        Some("the name is empty")
    } else if name.chars().any(char::is_control) {
        Some("the name has control characters")
    } else if name.contains("://") || name.contains('/') {
        Some("write the name alone, without scheme and path")
    } else if name.contains(':') {
        Some("write the name without a port: it matches on every port")
    } else if name.contains('*') {
        Some("a `*` replaces whole labels at one end: \"*.example.com\" or \"example.*\"")
    } else if !name.is_ascii() {
        Some("write the name in Punycode, which starts with xn--")
    } else if !name.bytes().all(allowed) {
        Some("a name consists of letters, digits, `-`, `_` and dots")
    } else if name.ends_with('.') {
        Some("write it without the dot at the end")
    } else if name.split('.').any(str::is_empty) {
        Some("a label of the name is empty: two dots in a row, or a dot at the start")
    } else if name.len() > MAX_NAME_LENGTH || name.split('.').any(|label| label.len() > 63) {
        Some("a name has at most 253 characters, and at most 63 between two dots")
    } else if last.bytes().all(|byte| byte.is_ascii_digit()) && name.parse::<Ipv4Addr>().is_err() {
        Some("it looks like an IPv4 address, which has four numbers from 0 to 255")
    } else {
        None
    }
}
