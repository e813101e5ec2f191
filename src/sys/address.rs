//! A socket address in the form that configurations and records use: `IP:port`, `[IPv6]:port` or
//! `unix:/path`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::{fmt, io};

use socket2::SockAddr;

/// Where a stream socket listens or connects to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// An IPv4 or IPv6 address with its port.
    Ip(SocketAddr),
    /// The path of a Unix stream socket.
    Unix(PathBuf),
}

impl Address {
    /// The form that system calls take.
    ///
    /// # Errors
    /// The path is longer than 107 bytes (unix(7)).
    pub(super) fn to_sock_addr(&self) -> io::Result<SockAddr> {
        match self {
            Address::Ip(ip) => Ok((*ip).into()),
            Address::Unix(path) => SockAddr::unix(path),
        }
    }

    /// The address of a peer. That of a Unix client that is bound to no path has an empty path.
    pub(super) fn of_peer(peer: &SockAddr) -> Address {
        match peer.as_socket() {
            Some(ip) => Address::Ip(ip),
            None => Address::Unix(peer.as_pathname().unwrap_or(Path::new("")).to_owned()),
        }
    }
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
