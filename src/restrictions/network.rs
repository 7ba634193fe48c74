//! Networks of addresses.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};

use super::PeerAddress;

/// How much of an IPv6 address says whose it is: a subscriber has a network of so many bits at least.
const SUBSCRIBER_BITS: u8 = 64;

/// The bits before an IPv4 address that is written as one of IPv6 (`::ffff:192.0.2.1`).
const MAPPED_BITS: u8 = 96;

/// A network of addresses, or a single one.
///
/// It is read from `192.0.2.0/24`, `2001:db8::/32`, or an address: one of IPv4 stands for itself, and one of IPv6 for its
/// network of 64 bits, as in all that Roomcast counts by address. `2001:db8::1/128` is a single one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network(IpNet);

impl Network {
    /// The network of an address with a prefix of so many bits, or as many as there are.
    pub(crate) fn of(address: PeerAddress, bits: u8) -> Self {
        let address = IpAddr::from(address);
        let bits = bits.min(if address.is_ipv4() { 32 } else { 128 });
        // It never fails: the prefix is not too long.
        Self(IpNet::new(address, bits).map_or_else(|_| IpNet::from(address), |network| network.trunc()))
    }

    /// How many bits its addresses share.
    pub(crate) fn bits(self) -> u8 {
        self.0.prefix_len()
    }

    pub(crate) fn is_ipv4(self) -> bool {
        matches!(self.0, IpNet::V4(_))
    }

    /// Whether an address belongs to it.
    pub fn contains(self, address: impl Into<PeerAddress>) -> bool {
        self.0.contains(&IpAddr::from(address.into()))
    }
}

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        let bits = if address.to_canonical().is_ipv4() { 32 } else { SUBSCRIBER_BITS };
        Self::of(address.into(), bits)
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(address.into());
        }
        let network: IpNet = text.parse().map_err(|_| {
            format!("{text:?} is no network; 192.0.2.0/24, 2001:db8::/32 and a single address are allowed")
        })?;
        Ok(Self(unmapped(network).trunc()))
    }
}

/// A network of IPv4 that is written as one of IPv6 is the one of IPv4, since its peers have such addresses.
fn unmapped(network: IpNet) -> IpNet {
    let mapped = |address: Ipv6Addr| address.to_ipv4_mapped().zip(network.prefix_len().checked_sub(MAPPED_BITS));
    match network {
        IpNet::V6(six) => {
            mapped(six.addr()).and_then(|(address, bits)| Ipv4Net::new(address, bits).ok()).map_or(network, IpNet::V4)
        }
        IpNet::V4(_) => network,
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read_and_written_in_one_form() {
        let read = |text: &str| text.parse::<Network>().map(|network| network.to_string());
        for (text, expected) in [
            ("192.0.2.1", "192.0.2.1/32"),
            ("192.0.2.77/24", "192.0.2.0/24"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("2001:db8::1", "2001:db8::/64"),
            ("2001:db8::1/128", "2001:db8::1/128"),
            ("2001:DB8::/32", "2001:db8::/32"),
            ("::ffff:192.0.2.1", "192.0.2.1/32"),
            ("::ffff:192.0.2.1/120", "192.0.2.0/24"),
            ("::ffff:0:0/95", "::fffe:0:0/95"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(expected), "{text}");
        }
        for bad in ["", "192.0.2", "192.0.2.0/33", "2001:db8::/129", "localhost", "*", "192.0.2.0/24 "] {
            assert!(read(bad).unwrap_err().contains(&format!("{bad:?}")));
        }
    }

    #[test]
    fn a_network_contains_its_addresses_however_they_are_written() {
        let network: Network = "192.0.2.0/24".parse().unwrap();
        for (address, expected) in
            [("192.0.2.255", true), ("::ffff:192.0.2.7", true), ("192.0.3.0", false), ("2001:db8::", false)]
        {
            assert_eq!(network.contains(address.parse::<IpAddr>().unwrap()), expected, "{address}");
        }
    }
}
