//! What goes over the wire.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use tokio_tungstenite::tungstenite::Utf8Bytes;

/// Any message of a client. A struct, since serde buffers an enum that is tagged inside before it reads it.
#[derive(Deserialize)]
pub struct Received<'a> {
    #[serde(borrow, rename = "type")]
    pub kind: Cow<'a, str>,
    #[serde(borrow, default)]
    pub room: Cow<'a, str>,
    #[serde(borrow, default)]
    pub text: Cow<'a, str>,
    pub id: Option<Cow<'a, str>>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Sent<'a> {
    #[serde(rename_all = "camelCase")]
    Welcome {
        user_id: &'a str,
        ping_interval: u64,
    },
    Joined {
        room: &'a str,
        count: usize,
    },
    #[serde(rename_all = "camelCase")]
    Presence {
        room: &'a str,
        user_id: &'a str,
        status: &'a str,
    },
    #[serde(rename_all = "camelCase")]
    Chat {
        room: &'a str,
        user_id: &'a str,
        text: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a str>,
        ts: u64,
        seq: u64,
    },
    Error {
        code: &'a str,
        message: &'a str,
    },
}

impl Sent<'_> {
    /// Encoded once; a clone only counts a reference.
    pub fn encode(&self) -> Utf8Bytes {
        serde_json::to_string(self).expect("strings and numbers only").into()
    }
}

pub fn bad_message(message: &str) -> Utf8Bytes {
    Sent::Error { code: "bad_message", message }.encode()
}
