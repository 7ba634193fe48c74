//! Owners: what the costs that peers cause are charged to.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU64;
use std::path::Path;

use crate::id::UserId;

/// A user whose identity was verified, an address, an API key, a listener, or the host: what a cost is charged to.
///
/// It is a keyed hash: eight bytes that nobody outside can aim at, so no table has to remember which owner has which number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Owner(NonZeroU64);

impl Owner {
    /// The embedding program.
    pub const HOST: Self = Self(NonZeroU64::MIN);

    /// All that no owner here has caused: messages of other nodes, and counts of members.
    pub(crate) const OTHERS: Self = Self(NonZeroU64::MIN.saturating_add(3));

    /// A hash of it: itself, which nobody can aim at.
    pub(crate) fn hash(self) -> u64 {
        self.0.get()
    }
}

/// Names owners, by a key of this process.
#[derive(Clone, Copy, Debug)]
pub struct Owners {
    key: u64,
}

impl Owners {
    /// Names by a key that comes of this seed.
    pub fn new(seed: u64) -> Self {
        Self { key: seed ^ 0x6f77_6e65_7273_2121 }
    }

    /// A user whose identity was verified.
    pub fn user(self, user: &UserId) -> Owner {
        self.owner((0, user.as_str()))
    }

    /// All peers of an IPv4 address, or of an IPv6 network of 64 bits: so many addresses a subscriber has at least.
    pub fn address(self, address: IpAddr) -> Owner {
        const NETWORK: u128 = !0 << 64;
        let network = match address.to_canonical() {
            IpAddr::V4(address) => IpAddr::V4(address),
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & NETWORK)),
        };
        self.owner((1, network))
    }

    /// An API key, by its digest.
    pub fn api_key(self, digest: &[u8; 32]) -> Owner {
        self.owner((2, digest))
    }

    /// All peers of a Unix socket, by the file of its listener. All sockets without a file are one owner.
    pub fn listener(self, file: Option<&Path>) -> Owner {
        self.owner((3, file))
    }

    fn owner(self, name: impl Hash) -> Owner {
        // SipHash with the key in front of the name. The second bit keeps it apart from the constants.
        let mut hasher = DefaultHasher::new();
        (self.key, name).hash(&mut hasher);
        Owner(NonZeroU64::new(hasher.finish() | 2).unwrap_or(NonZeroU64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_stands_for_its_network_and_each_kind_of_name_for_itself() {
        let owners = Owners::new(7);
        let address = |text: &str| owners.address(text.parse().unwrap());
        assert_eq!(address("192.0.2.1"), address("::ffff:192.0.2.1"));
        assert_ne!(address("192.0.2.1"), address("192.0.2.2"));
        assert_eq!(address("2001:db8::1"), address("2001:db8::ffff:0:0:1"));
        assert_ne!(address("2001:db8::1"), address("2001:db8:0:1::1"));
        assert_ne!(owners.user(&UserId::new("192.0.2.1").unwrap()), address("192.0.2.1"));
        assert_ne!(address("192.0.2.1"), Owners::new(8).address("192.0.2.1".parse().unwrap()));
        let all = [
            owners.listener(None),
            owners.listener(Some(Path::new("/run/a"))),
            owners.listener(Some(Path::new("/run/b"))),
            owners.api_key(&[0; 32]),
            owners.api_key(&[1; 32]),
            Owner::HOST,
            Owner::OTHERS,
        ];
        for (at, owner) in all.iter().enumerate() {
            assert!(all[..at].iter().all(|other| other != owner));
        }
    }
}
