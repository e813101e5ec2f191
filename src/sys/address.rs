//! A socket address in the form that configurations and records use: `IP:port`, `[IPv6]:port` or
//! `unix:/path`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;

/// Where a stream socket listens or connects to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// An IPv4 or IPv6 address with its port.
    Ip(SocketAddr),
    /// The path of a Unix stream socket.
    Unix(PathBuf),
}

/// Returns true if an IP address is one of this machine's own, according to its routes. The check
/// uses a temporary UDP socket and sends nothing.
pub fn is_local(ip: IpAddr) -> bool {
    let any =
        if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let source = UdpSocket::bind(SocketAddr::new(any, 0)).and_then(|socket| {
        // connect(2) chooses the source address. For one of this machine's addresses it is that
        // address.
        socket.connect(SocketAddr::new(ip, 9))?;
        socket.local_addr()
    });
    source.is_ok_and(|source| source.ip() == ip)
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Ip(address) => address.fmt(f),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Address::Ip(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_knows_its_own_addresses() {
        assert!(is_local(Ipv4Addr::LOCALHOST.into()));
        // TEST-NET-1 of RFC 5737, and the documentation prefix of RFC 3849.
        assert!(!is_local(IpAddr::from([192, 0, 2, 1])));
        assert!(!is_local(IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1])));
    }
}
