//! Tests of one server over real sockets: the program as a child process, and the library in a host's loop.

#[path = "../support/mod.rs"]
pub mod support;

mod addresses;
mod admin_listen;
mod admission;
mod api;
mod api_keys;
mod api_reads;
mod api_waiting;
mod attacks;
mod broadcast;
mod budgets;
mod chat;
mod closing;
mod deletion;
mod echo;
mod embedding;
mod fairness;
mod frames;
#[cfg(feature = "tokens")]
mod grants;
mod heartbeat;
mod history;
mod http;
#[cfg(feature = "tokens")]
mod jwks_tls;
mod limits;
mod log_lines;
mod memory;
mod metrics;
mod moderation;
mod names;
mod openapi;
#[cfg(feature = "tls")]
mod openssl;
mod pauses;
mod presence;
mod program;
mod proxies;
#[cfg(feature = "tokens")]
mod refresh;
mod refusals;
mod restrictions;
mod resume;
#[cfg(feature = "tokens")]
mod room_rules;
mod rounds;
mod shutdown;
mod slow;
mod slow_turns;
#[cfg(feature = "tokens")]
mod static_files;
#[cfg(feature = "tls")]
mod tls;
#[cfg(feature = "tls")]
mod tls_identity;
#[cfg(feature = "tls")]
mod tls_names;
#[cfg(feature = "tokens")]
mod token_keys;
#[cfg(feature = "tokens")]
mod tokens;
mod upgrade;
mod user_limit;
#[cfg(feature = "webhook")]
mod webhook;
#[cfg(feature = "webhook")]
mod webhook_bounds;
#[cfg(feature = "webhook")]
mod webhook_faults;
#[cfg(feature = "webhook")]
mod webhook_tls;
