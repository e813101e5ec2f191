//! The range of local ports from which the kernel chooses for sockets that connect.
//!
//! A socket that connects to a port of this range on this machine may get the same port as its
//! local port, and is then connected to itself. The check for that costs a system call
//! (getsockname(2)), so it is made only for ports of this range. The default range begins at 32768,
//! above the ports of most servers and Kubernetes' NodePorts.

use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};

const FILE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// The value until the range is known. It includes every port.
const EVERY_PORT: u32 = 0xffff;

/// The lowest port in the upper half, the highest in the lower half. Workers read it for each
/// connect; the control plane writes it.
static RANGE: AtomicU32 = AtomicU32::new(EVERY_PORT);

/// Reads `net.ipv4.ip_local_port_range`, which is for IPv6 too. If it cannot be read, the range
/// includes every port. Reads a file, so workers must not call it.
pub fn refresh_local_ports() {
    let text = fs::read_to_string(FILE).unwrap_or_default();
    RANGE.store(parse(&text).unwrap_or(EVERY_PORT), Ordering::Relaxed);
}

/// Returns true if the kernel may choose this port for a socket that connects.
pub(super) fn may_be_chosen(port: u16) -> bool {
    within(RANGE.load(Ordering::Relaxed), port)
}

fn within(range: u32, port: u16) -> bool {
    (range >> 16..=range & 0xffff).contains(&port.into())
}

/// Parses two numbers, as in `32768 60999`.
fn parse(text: &str) -> Option<u32> {
    let mut ports = text.split_ascii_whitespace().map(str::parse::<u16>);
    let (low, high) = (ports.next()?.ok()?, ports.next()?.ok()?);
    (low <= high).then_some(u32::from(low) << 16 | u32::from(high))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_has_both_its_ends() {
        let range = parse("32768\t60999\n").unwrap();
        let inside = [0, 32767, 32768, 60999, 61000, 65535].map(|port| within(range, port));
        assert_eq!(inside, [false, false, true, true, false, false]);
        assert!(within(EVERY_PORT, 0) && within(EVERY_PORT, 65535));
    }

    #[test]
    fn what_is_no_range_is_none() {
        for text in ["", "32768", "2 1", "a b", "1 65536"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn this_machine_has_a_range() {
        refresh_local_ports();
        assert_ne!(RANGE.load(Ordering::Relaxed), EVERY_PORT);
    }
}
