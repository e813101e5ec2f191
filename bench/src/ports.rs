//! Ports for servers and proxies, which have to be known before they are bound.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use crate::while_doing;

const RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// A port that this process gets only once, and that no other benchmark, test or demo of ringgate
/// gets while this process runs.
///
/// It lies outside the range from which the kernel gives ports to sockets that ask for any, so that
/// only its owner binds it, for TCP or UDP.
///
/// # Errors
/// There is none, or the range cannot be read.
pub(crate) fn lend() -> io::Result<u16> {
    let range = fs::read_to_string(RANGE).map_err(while_doing(RANGE))?;
    let bounds: Vec<u16> =
        range.split_ascii_whitespace().filter_map(|bound| bound.parse().ok()).collect();
    let [first, last] = bounds[..] else {
        return Err(io::Error::other(format!("{RANGE}: {range}")));
    };
    for number in (last..=u16::MAX).skip(1).chain(1024..first) {
        // An abstract Unix socket is a lock of this network namespace, as the port is, and the
        // kernel unlocks it when the process ends, in whichever way.
        let name = SocketAddr::from_abstract_name(format!("ringgate-port-{number}"))?;
        let Ok(lock) = UnixDatagram::bind_addr(&name) else { continue };
        if is_unused(number) {
            // It stays locked until then.
            std::mem::forget(lock);
            return Ok(number);
        }
    }
    Err(io::Error::other(format!(
        "no port is left outside the range that {RANGE} leaves to the kernel: {first} to {last}"
    )))
}

/// Whether no socket has the port, for TCP or UDP, over IPv4 or IPv6.
fn is_unused(port: u16) -> bool {
    let taken = |result: io::Result<()>| {
        // Any other error is about a machine without IPv6.
        result.is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
    };
    [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()].iter().all(|any| {
        !taken(TcpListener::bind((*any, port)).map(drop))
            && !taken(UdpSocket::bind((*any, port)).map(drop))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_lent_once_and_is_not_the_kernels() {
        let lent = [lend().unwrap(), lend().unwrap()];
        assert_ne!(lent[0], lent[1]);
        let range = fs::read_to_string(RANGE).unwrap();
        let mut bounds = range.split_ascii_whitespace().map(|bound| bound.parse::<u16>().unwrap());
        let kernels = bounds.next().unwrap()..=bounds.next().unwrap();
        assert!(lent.iter().all(|port| !kernels.contains(port)), "{lent:?} in {kernels:?}");
        TcpListener::bind((Ipv4Addr::LOCALHOST, lent[0])).unwrap();
        UdpSocket::bind((Ipv4Addr::LOCALHOST, lent[0])).unwrap();
    }
}
