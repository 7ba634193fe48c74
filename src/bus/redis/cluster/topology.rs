//! Whether there is one Redis or a cluster.

use super::discovery::Cluster;
use crate::bus::redis::connection::endpoint::Endpoint;
use std::sync::Arc;

/// One server that does everything, or many with some slots each.
#[derive(Clone)]
pub(crate) enum Topology {
    One(Arc<dyn Endpoint>),
    Cluster(Arc<Cluster>),
}
