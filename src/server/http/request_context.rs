//! What a request is answered by, beside what it says.

use crate::net::Capacity;
use crate::server::metrics::MetricsSnapshot;
use crate::time::Now;

/// What a server can do for a request at the moment.
#[derive(Clone, Debug)]
pub(in crate::server) struct RequestContext {
    pub(in crate::server) now: Now,
    pub(in crate::server) is_draining: bool,
    pub(in crate::server) is_bus_ready: bool,
    /// Whether another WebSocket is allowed.
    pub(in crate::server) capacity: Capacity,
    /// What `/metrics` tells, if there is such a path.
    pub(in crate::server) metrics: Option<MetricsSnapshot>,
}
