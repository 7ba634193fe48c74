//! Roomcast: a real-time WebSocket chat server that runs in your mio loop.
//!
//! One thread owns everything. A room keeps one log of encoded frames, and each member has a cursor in it. A broadcast
//! appends once; each member is then sent `log[cursor..end]` in one system call.
//!
//! Start with [`Server`], which has the contract of the loop and an example. [`Server::builder`] takes an
//! [`Authenticator`], which decides whose a connection is, a [`Policy`], which decides what its user may do, and a
//! [`Bus`](bus::Bus), which keeps history and reaches other nodes. [`Remote`] is for other threads, [`Notice`] for what
//! happens.
//!
//! The sources have pages: `docs/embedding.md` goes through all of this with complete programs, `docs/protocol.md` is what
//! clients speak, `docs/operating.md` and `docs/security.md` are for production, and `ARCHITECTURE.md` says how it works.
//!
//! | layer | module | what |
//! |---|---|---|
//! | 4 | [`server`] | the order of one turn |
//! | 3 | [`hub`], [`net`], [`bus`] | what is said to whom; sockets; how publications travel and are kept |
//! | 2 | [`protocol`], [`frame`], [`bus::message`] | the JSON, the frames, what passes between hub and bus |
//! | 1 | [`room_log`], [`inbox`], [`timer_wheel`], [`name_index`] | the log, the way in for other threads, the timer wheel, finding by name |
//! | 0 | [`settings`], [`error`](mod@error), [`id`], [`time`] | settings, errors, names, time |

pub mod bus;
pub mod error;
pub mod frame;
pub mod hub;
pub mod id;
pub mod inbox;
mod memory;
pub mod name_index;
pub mod net;
pub mod protocol;
pub mod room_log;
pub mod server;
pub mod settings;
pub mod time;
pub mod timer_wheel;

pub use error::Error;
/// The types of requests and statuses that an [`Authenticator`] and a [`net::Handler`] see.
pub use http;
pub use hub::{Caller, ChatFields, HostPublication, Moderation, Notice, OpenPolicy, Policy};
pub use id::{ConnectionId, RoomName, UserId};
pub use net::{AdmissionTicket, Listener};
pub use server::{
    Authentication, Authenticator, HostLoop, Identity, OpenAuthenticator, Refusal, Remote, Server, ServerBuilder,
    Stats, open_identity,
};
pub use settings::Config;
pub use time::Now;

/// The Rust blocks of the pages are doctests.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../README.md")]
    struct Readme;
    #[doc = include_str!("../docs/embedding.md")]
    struct Embedding;
}
