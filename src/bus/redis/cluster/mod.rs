//! Which master has which slot, and the links to all pool.

pub(crate) mod discovery;
pub(crate) mod pool;
pub(crate) mod redirect;
pub(crate) mod slot_map;
pub(crate) mod topology;
