//! The addresses that connections come from, for bans of networks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::id::Slot;

/// The address that a connection comes from. One of IPv4 is the same in each of its two forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddress(IpAddr);

impl From<IpAddr> for PeerAddress {
    fn from(address: IpAddr) -> Self {
        Self(address.to_canonical())
    }
}

impl From<PeerAddress> for IpAddr {
    fn from(PeerAddress(address): PeerAddress) -> Self {
        address
    }
}

/// By slot. Addresses of IPv4 take four bytes a slot; those of IPv6 sixteen, once there is one.
#[derive(Debug, Default)]
pub(crate) struct PeerAddresses {
    /// 0.0.0.0, from which nobody comes, stands for none.
    v4: Vec<Ipv4Addr>,
    /// So does `::`.
    v6: Vec<Ipv6Addr>,
}

impl PeerAddresses {
    /// The connection in a slot comes from an address, or from none: a Unix socket.
    pub(crate) fn set(&mut self, slot: Slot, address: Option<PeerAddress>) {
        let (mut v4, mut v6) = (Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED);
        match address {
            Some(PeerAddress(IpAddr::V4(address))) => v4 = address,
            Some(PeerAddress(IpAddr::V6(address))) => v6 = address,
            None => {}
        }
        put(&mut self.v4, slot, (v4, Ipv4Addr::UNSPECIFIED));
        if !v6.is_unspecified() || !self.v6.is_empty() {
            put(&mut self.v6, slot, (v6, Ipv6Addr::UNSPECIFIED));
        }
    }

    pub(crate) fn get(&self, slot: Slot) -> Option<PeerAddress> {
        let v4 = self.v4.get(slot.index()).filter(|address| !address.is_unspecified());
        let v6 = self.v6.get(slot.index()).filter(|address| !address.is_unspecified());
        v4.map(|address| IpAddr::V4(*address)).or_else(|| v6.map(|address| IpAddr::V6(*address))).map(PeerAddress)
    }
}

fn put<A: Copy>(list: &mut Vec<A>, slot: Slot, (address, none): (A, A)) {
    if slot.index() >= list.len() {
        list.resize(slot.index() + 1, none);
    }
    list[slot.index()] = address;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_has_the_address_of_its_last_connection() {
        let mut addresses = PeerAddresses::default();
        let address = |text: &str| Some(PeerAddress::from(text.parse::<IpAddr>().unwrap()));
        let mut set = |slot, text: &str| {
            let given = if text.is_empty() { None } else { address(text) };
            addresses.set(Slot(slot), given);
            addresses.get(Slot(slot))
        };
        assert_eq!((set(3, "192.0.2.1"), set(3, "::ffff:192.0.2.2")), (address("192.0.2.1"), address("192.0.2.2")));
        assert_eq!((set(1, "2001:db8::1"), set(3, "2001:db8::2")), (address("2001:db8::1"), address("2001:db8::2")));
        assert_eq!((set(1, ""), set(3, "192.0.2.3"), set(3, "")), (None, address("192.0.2.3"), None));
        assert_eq!((addresses.get(Slot(0)), addresses.get(Slot(9))), (None, None));
    }
}
