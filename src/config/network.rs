//! A set of IP addresses in CIDR notation, such as `10.0.0.0/8`.

use std::fmt;
use std::net::IpAddr;

/// The addresses that have the same first bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network {
    /// The first address: all bits behind the prefix are 0.
    first: IpAddr,
    /// The number of bits that all addresses share: 0 to 32, or to 128 for IPv6.
    length: u8,
}

impl Network {
    /// The network of this prefix length that has the address. `None` if the length is too large
    /// for the family of the address.
    pub fn around(address: IpAddr, length: u8) -> Option<Network> {
        let first = match address {
            IpAddr::V4(ip) => {
                let unused = 32_u32.checked_sub(length.into())?;
                let mask = u32::MAX.checked_shl(unused).unwrap_or(0);
                IpAddr::V4((ip.to_bits() & mask).into())
            }
            IpAddr::V6(ip) => {
                let unused = 128_u32.checked_sub(length.into())?;
                let mask = u128::MAX.checked_shl(unused).unwrap_or(0);
                IpAddr::V6((ip.to_bits() & mask).into())
            }
        };
        Some(Network { first, length })
    }

    /// The network that has this address alone.
    pub fn only(address: IpAddr) -> Network {
        Network { first: address, length: if address.is_ipv4() { 32 } else { 128 } }
    }

    /// The first address.
    pub fn first(&self) -> IpAddr {
        self.first
    }

    /// The number of bits that all addresses share.
    pub fn length(&self) -> u8 {
        self.length
    }

    /// Returns true if the address is in the network. An IPv4 address that is written as an IPv6
    /// address counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        Network::around(address.to_canonical(), self.length)
            .is_some_and(|around| around.first == self.first)
    }

    /// Returns true if every address of the other network is in this one.
    pub fn includes(&self, other: &Network) -> bool {
        self.length <= other.length && self.contains(other.first)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(address: &str, length: u8) -> Network {
        let address = address.parse().expect("an address");
        Network::around(address, length).expect("the length fits")
    }

    #[test]
    fn a_network_has_the_addresses_with_its_first_bits() {
        for (address, length, inside, outside) in [
            ("10.1.2.3", 8, "10.255.0.1", "11.0.0.0"),
            ("192.0.2.128", 25, "192.0.2.255", "192.0.2.127"),
            ("192.0.2.1", 32, "192.0.2.1", "192.0.2.0"),
            ("0.0.0.0", 0, "255.255.255.255", "::1"),
            ("0.0.0.0", 0, "::ffff:1.2.3.4", "::1.2.3.4"),
            ("2001:db8::1", 32, "2001:db8:ffff::", "2001:db9::"),
            ("::1", 128, "::1", "::"),
            ("::", 0, "ffff::", "127.0.0.1"),
        ] {
            let network = network(address, length);
            let contains = |text: &str| network.contains(text.parse().expect("an address"));
            assert!(contains(address) && contains(inside), "{network}");
            assert!(!contains(outside), "{network}");
        }
    }

    #[test]
    fn a_network_includes_its_parts() {
        assert!(network("10.0.0.0", 8).includes(&network("10.1.0.0", 16)));
        assert!(network("10.0.0.0", 8).includes(&network("10.0.0.0", 8)));
        assert!(!network("10.1.0.0", 16).includes(&network("10.0.0.0", 8)));
        assert!(!network("::", 0).includes(&network("10.0.0.0", 8)));
        assert_eq!(network("10.1.2.3", 8).to_string(), "10.0.0.0/8");
        assert_eq!(Network::only(IpAddr::from([10, 1, 2, 3])), network("10.1.2.3", 32));
    }

    #[test]
    fn a_prefix_longer_than_the_address_is_refused() {
        assert_eq!(Network::around(IpAddr::from([10, 0, 0, 0]), 33), None);
        assert_eq!(Network::around(IpAddr::from([0_u16; 8]), 129), None);
    }
}
