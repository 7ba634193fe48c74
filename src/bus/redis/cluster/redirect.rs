//! What an error of a cluster says about where to send a request.

use crate::bus::redis::connection::endpoint::HostPort;

/// Where in a cluster a call has to go instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Redirect {
    /// From now on there.
    Moved(HostPort),
    /// This once, there.
    Ask(HostPort),
    /// Wherever, but later: some of the keys are on their way.
    Later,
    /// Wherever, when somebody has the slot.
    Nobody,
}

impl Redirect {
    /// From an error of a node of a cluster, which may leave out its own host.
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
