//! The parts that the tests over Redis share: Redis servers, nodes, a network between them, and clients.

pub(crate) mod attendance;
pub(crate) mod bus;
pub(crate) mod cluster;
pub(crate) mod nodes;
pub(crate) mod redis;
pub(crate) mod talk;
pub(crate) mod way;
