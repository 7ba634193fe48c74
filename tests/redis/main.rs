//! Tests of several nodes over a real Redis, which each test starts for itself.

#[path = "../support/mod.rs"]
pub mod support;

mod harness;

mod api;
mod api_reads;
mod cluster;
mod crowd_of_rooms;
mod deletion;
mod faults;
mod history;
mod keys;
mod links;
mod moderation;
mod order;
mod pages;
mod presence;
mod restored;
mod restrictions;
mod rights;
mod room_rules;
mod sentinel;
mod shutdown;
