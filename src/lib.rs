//! Roomcast: a real-time WebSocket chat server that runs in your mio loop.
//!
//! One thread owns everything. A room keeps one log of encoded frames, and each member has a cursor in it. A broadcast
//! appends once; each member is then sent `log[cursor..end]` in one system call.
//!
//! | to | begin with |
//! |---|---|
//! | run a server in your loop | [`Server`], which has the contract of the loop and an example; [`HostLoop`], [`Config`] |
//! | decide whose a connection is | [`Authenticator`], of which `TokenAuthenticator` and `WebhookAuthenticator` are two |
//! | decide what a user may do | [`Grants`] of an [`Identity`], [`Policy`] |
//! | say something, or put a user out | [`Server::publish`], [`Server::kick`], [`Server::disconnect_user`] |
//! | learn what happens | [`Notice`] |
//! | do this from another thread | [`Remote`] |
//! | be several nodes | `RedisBus` in [`bus`], with the feature `redis` |
//! | bring a bus of your own | [`bus::Bus`] |
//! | serve WebSockets without chat | [`net`] |
//! | set limits and times | [`settings`] |
//!
//! The program `roomcast` is a host like any other. The sources have pages: `docs/embedding.md` goes through all of this with
//! complete programs, `docs/protocol.md` is what clients speak, `docs/operating.md` and `docs/security.md` are for production, and
//! `ARCHITECTURE.md` says how it works.
//!
//! # Features
//!
//! | feature | default | what it brings |
//! |---|---|---|
//! | `program` | yes | what the program needs: flags, logger, signals; a library can do without |
//! | `redis` | yes | `RedisBus` |
//! | `tls` | yes | listeners that speak TLS, and `TlsIdentity` |
//! | `tokens` | yes | `TokenAuthenticator`: identity by JSON Web Tokens |
//! | `webhook` | yes | `WebhookAuthenticator`: identity by a back-end that is asked |
//! | `load` | no | the load test |
//! | `in-memory` | no | connections without sockets, for a bench |

// These are for the library alone: tests and programs read clocks, block, print and panic.
#![cfg_attr(
    not(test),
    warn(
        clippy::disallowed_methods,
        clippy::disallowed_types,
        clippy::exit,
        clippy::expect_used,
        clippy::panic,
        clippy::print_stderr,
        clippy::print_stdout,
        clippy::unreachable,
        clippy::unwrap_used,
    )
)]

mod block_slab;
mod budget;
pub mod bus;
mod error;
mod fair_queue;
mod frame;
mod hub;
mod id;
mod inbox;
mod memory;
mod metric;
mod name_index;
mod name_order;
pub mod net;
mod owner;
mod protocol;
mod quota;
mod restrictions;
mod rights;
mod room_log;
mod server;
pub mod settings;
mod sharded_map;
mod steps;
mod text_check;
mod time;
mod timer_wheel;
mod unicode;
mod weights;

#[doc(inline)]
pub use bus::{BusRefusal, Outcome, RefusalKind, Ticket};
pub use error::Error;
/// The types of requests and statuses that an [`Authenticator`] and a [`net::Handler`] see.
pub use http;
pub use hub::{Caller, ChatFields, HostPublication, HubStats, MessageRef, Notice, OpenPolicy, Policy};
pub use id::{ConnectionId, KeyNumber, NameError, RoomName, UserId};
pub use inbox::PushError;
#[doc(inline)]
#[cfg(feature = "tls")]
pub use net::TlsIdentity;
#[doc(inline)]
pub use net::{
    AdmissionTicket, LISTENERS_MAX, ListenAddress, Listener, ListenerRole, NetStats, Opening, Preamble, Security,
};
pub use owner::Owner;
pub use protocol::{CloseReason, ErrorCode};
pub use restrictions::{Network, Restriction, RestrictionTarget};
pub use rights::{Grant, Grants, Right, Rights, RoomPattern};
pub use server::{
    ApiStats, Authentication, Authenticator, HostLoop, Identity, OpenAuthenticator, PhaseUnits, Refusal, Remote,
    Server, ServerBuilder, Stats, TokenPolicy, open_identity,
};
#[cfg(feature = "tokens")]
pub use server::{TokenAuthenticator, TokenConfig, TokenRequest, issue_token};
#[cfg(feature = "webhook")]
pub use server::{WebhookAuthenticator, WebhookStats};
#[doc(inline)]
pub use settings::Config;
pub use time::Now;
pub use unicode::Escaped;

/// What the programs, tests and benches of this crate use besides. It may change in any version.
#[doc(hidden)]
pub mod internals {
    #[cfg(feature = "redis")]
    pub use crate::bus::redis::PublishScript;
    pub use crate::hub::{Hub, Moderation, NewConnection, Output, Purged, RefreshedIdentity, TokenRefresh, Validity};
    pub use crate::id::Slot;
    #[cfg(feature = "in-memory")]
    pub use crate::net::memory::taken_bytes;
    pub use crate::owner::Owners;
    pub use crate::restrictions::PeerAddress;
    pub use crate::room_log::{LogBuffer, Offset, RoomLog};
    pub use crate::settings::declare::{Setting, Unit};

    #[cfg(feature = "redis")]
    pub mod resp {
        pub use crate::bus::redis::resp::{Items, Malformed, Value, parse};
    }

    pub mod frame {
        pub use crate::frame::{Head, PING, Payload, append_header, boundary_after};
    }

    pub mod protocol {
        pub use crate::protocol::client::*;
        pub use crate::protocol::{Chat, TypingStatus, append_chat, chat_body};
    }
}

/// The Rust blocks of the pages are doctests.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../README.md")]
    struct Readme;
    #[doc = include_str!("../docs/embedding.md")]
    struct Embedding;
}
