//! Errors by which a cluster sends a request elsewhere.

use crate::bus::redis::connection::HostPort;

/// Where a request has to go instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Redirect {
    /// The slot now belongs to this node.
    Moved(HostPort),
    /// This request, but not the slot, belongs to this node.
    Ask(HostPort),
    /// Some of the keys are being moved; try again later.
    Later,
    /// No node has the slot; try again later.
    Nobody,
}

impl Redirect {
    /// Reads an error reply. `from` is the node that sent it, which may omit its own host.
    pub(crate) fn read(error: &[u8], from: Option<&HostPort>) -> Option<Self> {
        let from = from?;
        let mut words = std::str::from_utf8(error).ok()?.split(' ');
        let word = words.next()?;
        let mut node = || {
            let (host, port) = words.nth(1)?.rsplit_once(':')?;
            let host = if host.is_empty() { &from.host } else { host.trim_matches(['[', ']']) };
            Some(HostPort { host: host.to_owned(), port: port.parse().ok()? })
        };
        match word {
            "MOVED" => node().map(Self::Moved),
            "ASK" => node().map(Self::Ask),
            "TRYAGAIN" => Some(Self::Later),
            "CLUSTERDOWN" => Some(Self::Nobody),
            _ => None,
        }
    }
}
