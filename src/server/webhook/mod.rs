//! Identity by a webhook: the operator's back-end is asked about each handshake.

mod answer;
mod authenticator;
mod back_end;
mod question;
mod question_queue;
mod threads;

pub use self::authenticator::{WebhookAuthenticator, WebhookStats};
