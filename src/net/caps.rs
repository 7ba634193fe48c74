//! What a net knows of addresses: which proxies it trusts, and what each address has and may.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::id::Slot;
use crate::owner::Owners;
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
}

/// When the log last said something that a peer can bring about as often as it likes.
#[derive(Debug, Default)]
pub(super) struct Warnings {
    capped_at: Option<Duration>,
    ignored_header_at: Option<Duration>,
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
        }
    }

    /// A connection is freed.
    pub(super) fn release(&mut self, slot: Slot, address: Option<AddressIndex>) {
        if let Some(address) = address {
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
    /// Whether a warning of a header that is ignored is due; if so, the next one is due later.
    pub(super) fn take_ignored_header(&mut self, now: Duration) -> bool {
        is_due(&mut self.ignored_header_at, now)
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

    /// Warns that connections are closed because memory is short, now and then. They come from `place`, and are charged to it or
    /// to somebody else.
    pub(super) fn warn_short_of_memory(
        &mut self,
        now: Duration,
        (place, is_charged): (&str, bool),
        bytes: usize,
        bytes_max: usize,
    ) {
        if !is_due(&mut self.short_of_memory_at, now) {
            return;
        }
        let (owner, proxy) = match is_charged {
            true => ("", format!("if that is your proxy, start the server with --trusted-proxy {place}; ")),
            false => ("a user, an API key or a client of a proxy at ", String::new()),
        };
        log::warn!(
            "write buffers and unfinished messages hold {bytes} bytes, and {bytes_max} are allowed; connections of \
             {owner}{place} hold the most and are closed; {proxy}if that much is needed, start the server with a larger \
             --memory"
        );
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
