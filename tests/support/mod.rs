//! The parts that the tests over sockets share: the real server as a child process or in a host's loop, a
//! WebSocket client, and a client for raw bytes.
//!
//! Each test binary declares it as `pub mod support`: public items are not dead code, so a binary may use a part of them.
#![allow(missing_docs, reason = "public for the sake of the lint on dead code alone; names say what most items are")]

pub mod api;
pub mod back_end;
pub mod chat;
mod client;
pub mod host;
#[cfg(any(feature = "tokens", feature = "webhook"))]
pub mod https;
pub mod local_room;
mod raw;
mod server;
#[cfg(feature = "tls")]
pub mod tls;
pub mod tokens;

use std::time::{Duration, Instant};

pub use client::{Client, Connect};
pub use raw::{
    BINARY, CLOSE, CONTINUATION, Frame, PING, PONG, Raw, Response, Stream, TEXT, close_frame, frame, frame_of, request,
    upgrade_request,
};
pub use server::{Server, program, roomcast};

/// How long anything may take before a test gives up: generous, since nothing here measures speed.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The time between two looks at a condition.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Waits until `condition` holds.
///
/// # Panics
/// When it does not hold within [`PATIENCE`]. `what` names the condition.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Raises the soft limit on open files to the hard one, for tests with a thousand sockets; child processes inherit it.
pub fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).expect("raise the soft file limit to the hard one");
}
