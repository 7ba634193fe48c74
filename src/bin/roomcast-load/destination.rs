//! Where the clients of a crowd connect, how they speak there, and the names of their rooms.

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;

use crate::wire::Wire;

pub(crate) struct Destination {
    pub(crate) address: SocketAddr,
    pub(crate) wire: Wire,
    /// No other run uses it.
    room_prefix: String,
}

impl Destination {
    pub(crate) fn new(address: SocketAddr, wire: Wire) -> Self {
        let room_prefix = format!("load-{:08x}", RandomState::new().hash_one(address) as u32);
        Self { address, wire, room_prefix }
    }

    pub(crate) fn room_name(&self, room: u32) -> String {
        format!("{}-{room:06}", self.room_prefix)
    }

    /// The bytes that join a room.
    pub(crate) fn join(&self, room: u32) -> Vec<u8> {
        self.wire.join(room, &self.room_name(room))
    }

    /// The bytes that publish a text in a room.
    pub(crate) fn chat(&self, room: u32, text: &str) -> Vec<u8> {
        self.wire.chat(&self.room_name(room), text)
    }
}
