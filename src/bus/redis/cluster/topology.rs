//! Whether there is a single Redis or a cluster.

use std::sync::Arc;

use super::discovery::Cluster;
use crate::bus::redis::connection::Endpoint;

/// One server that does everything, or many servers with some slots each.
#[derive(Clone)]
pub(crate) enum Topology {
    One(Arc<dyn Endpoint>),
    Cluster(Arc<Cluster>),
}
