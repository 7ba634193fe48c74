//! The state of the server that answers depend on.

use crate::net::Capacity;
use crate::server::metrics::MetricsSnapshot;
use crate::time::Now;

/// The state of the server at the time of a request.
#[derive(Clone, Debug)]
pub(in crate::server) struct RequestContext {
    pub(in crate::server) now: Now,
    pub(in crate::server) is_draining: bool,
    pub(in crate::server) is_bus_ready: bool,
    /// Whether it is known who is banned.
    pub(in crate::server) are_restrictions_loaded: bool,
    /// Whether another WebSocket is allowed.
    pub(in crate::server) capacity: Capacity,
    /// The counts for `/metrics`, if there is such a path.
    pub(in crate::server) metrics: Option<MetricsSnapshot>,
}
