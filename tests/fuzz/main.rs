//! Everything that comes from outside, under seeded mutation: `ROOMCAST_FUZZ_SECONDS` says for how long each target is
//! tried, and `ROOMCAST_FUZZ_SEED` the first seed.

#[path = "../support/mod.rs"]
pub mod support;

mod api_bodies;
mod embedded;
mod frames;
mod heads;
mod messages;
mod mutation;
mod proxy_headers;
#[cfg(feature = "redis")]
mod replies;
mod run;
mod tables;
#[cfg(feature = "tokens")]
mod tokens;
