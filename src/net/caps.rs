//! What a net knows of addresses: which proxies it trusts, and what each address has and may.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::id::Slot;
use crate::owner::{Owner, Owners};
use crate::settings::Config;

use super::addresses::{AddressIndex, Addresses};
use super::forwarded::TrustedProxies;

/// The least time between two warnings of one kind.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// What a net knows of addresses.
#[derive(Debug)]
pub(super) struct Caps {
    pub(super) proxies: TrustedProxies,
    pub(super) owners: Owners,
    pub(super) addresses: Addresses,
    /// Where connections come from whose proxy has said so first, until they are WebSockets.
    pub(super) told_addresses: HashMap<Slot, SocketAddr>,
    pub(super) warnings: Warnings,
    /// The addresses that connections are charged to, by slot. Apart from the connections, of which most have none where no
    /// address is capped or a proxy of the same machine is in front: these slots cost nothing.
    charged: Vec<Option<AddressIndex>>,
}

/// When the log last said something that a peer can bring about as often as it likes.
#[derive(Debug, Default)]
pub(super) struct Warnings {
    capped_at: Option<Duration>,
    /// Of peers in private networks, among which a proxy may be, and of others. A stranger must not hide the proxy.
    ignored_header_at: [Option<Duration>; 2],
    short_of_memory_at: Option<Duration>,
}

impl Caps {
    pub(super) fn new(config: &Config, owners: Owners) -> Self {
        Self {
            proxies: TrustedProxies::new(&config.trusted_proxies),
            owners,
            addresses: Addresses::new(&config.net),
            told_addresses: HashMap::new(),
            warnings: Warnings::default(),
            charged: Vec::new(),
        }
    }

    /// The address that a connection is charged to, if any.
    pub(super) fn charged(&self, slot: Slot) -> Option<AddressIndex> {
        self.charged.get(slot.index()).copied().flatten()
    }

    /// The owner of the address that a connection is charged to, if it has one of its own.
    pub(super) fn owner(&self, slot: Slot) -> Option<Owner> {
        self.addresses.owner(self.charged(slot)?)
    }

    /// A connection that was charged to nobody is charged to an address from now on, to which it was added.
    pub(super) fn charge(&mut self, slot: Slot, address: AddressIndex) {
        if slot.index() >= self.charged.len() {
            self.charged.resize(slot.index() + 1, None);
        }
        self.charged[slot.index()] = Some(address);
    }

    /// A connection is freed.
    pub(super) fn release(&mut self, slot: Slot) {
        if let Some(address) = self.charged.get_mut(slot.index()).and_then(Option::take) {
            self.addresses.disconnect(address);
        }
        self.forget_told(slot);
    }

    /// No further request comes over a connection.
    pub(super) fn forget_told(&mut self, slot: Slot) {
        if !self.told_addresses.is_empty() {
            self.told_addresses.remove(&slot);
            if self.told_addresses.is_empty() {
                self.told_addresses = HashMap::new();
            }
        }
    }
}

impl Warnings {
    /// Whether a warning of a header that is ignored is due, which a peer of a socket or of this address has sent; if so, the next one is
    /// due later.
    pub(super) fn take_ignored_header(&mut self, now: Duration, peer: Option<IpAddr>) -> bool {
        let is_near = peer.is_none_or(is_private);
        is_due(&mut self.ignored_header_at[usize::from(!is_near)], now)
    }

    /// Warns that an address is at a cap, now and then.
    pub(super) fn warn_capped(&mut self, now: Duration, address: IpAddr, cap: &str) {
        if is_due(&mut self.capped_at, now) {
            log::warn!(
                "{address} is at {cap}, beyond which it is refused; if that is your proxy, start the server with \
                 --trusted-proxy {address}"
            );
        }
    }

    /// Warns that connections of a peer are closed because memory is short, now and then. It is the owner, or a proxy or program
    /// through which the owner connects.
    pub(super) fn warn_short_of_memory(
        &mut self,
        now: Duration,
        (peer, is_owner): (Option<IpAddr>, bool),
        bytes: usize,
        bytes_max: usize,
    ) {
        if !is_due(&mut self.short_of_memory_at, now) {
            return;
        }
        let (peer, flag) = match peer {
            Some(peer) => (peer.to_string(), peer.to_string()),
            None => ("Unix sockets".to_owned(), "unix".to_owned()),
        };
        let (owner, proxy) = match is_owner {
            true => (peer, format!("if that is your proxy, start the server with --trusted-proxy {flag}; ")),
            false => (format!("a user, an API key or a client of a proxy, which come from {peer},"), String::new()),
        };
        log::warn!(
            "write buffers and unfinished messages hold {bytes} bytes, and {bytes_max} are allowed; connections of \
             {owner} hold the most and are closed; {proxy}if that much is needed, start the server with a larger --memory"
        );
    }
}

/// Whether an address is of a network that the internet does not reach.
fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => address.is_loopback() || address.is_private() || address.is_link_local(),
        IpAddr::V6(address) => address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local(),
    }
}

/// Whether a warning is due; if so, the next one is due later.
fn is_due(last: &mut Option<Duration>, now: Duration) -> bool {
    let is_due = last.is_none_or(|last| now >= last + WARNING_INTERVAL);
    if is_due {
        *last = Some(now);
    }
    is_due
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_does_not_use_up_the_warning_of_a_proxy() {
        let mut warnings = Warnings::default();
        let mut warns = |second, peer: &str| {
            warnings.take_ignored_header(Duration::from_secs(second), (!peer.is_empty()).then(|| peer.parse().unwrap()))
        };
        let said = ["192.0.2.1", "192.0.2.2", "10.0.0.1", "::ffff:127.0.0.1", ""].map(|peer| warns(100, peer));
        assert_eq!(said, [true, false, true, false, false]);
        assert!(warns(160, "") && !warns(160, "fd00::1") && warns(160, "2001:db8::1"));
    }
}
