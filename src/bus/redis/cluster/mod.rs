//! The masters of a cluster: which of them has which slots, and one link to each.

mod discovery;
mod pool;
mod redirect;
mod slot_map;

pub(crate) use self::discovery::{Cluster, Topology};
pub(crate) use self::pool::{ConnectionPool, Master};
pub(crate) use self::redirect::Redirect;
pub(crate) use self::slot_map::slot_of_key;
