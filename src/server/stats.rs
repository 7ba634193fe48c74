//! What a server counts.

use crate::hub::HubStats;
use crate::net::NetStats;

use super::http::api::ApiStats;

/// Counts of everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Of rooms and members.
    pub hub: HubStats,
    /// Of sockets.
    pub net: NetStats,
    /// Of the HTTP API.
    pub api: ApiStats,
    /// Turns since the server was made.
    pub turns: u64,
}
