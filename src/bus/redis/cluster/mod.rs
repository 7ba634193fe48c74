//! The masters of a cluster: which of them has which slots, and one link to each.

pub(crate) mod discovery;
pub(crate) mod pool;
pub(crate) mod redirect;
pub(crate) mod slot_map;
pub(crate) mod topology;
