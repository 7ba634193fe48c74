//! How the load speaks to a server: the request that opens a connection, and what is said on it.

use crate::error::LoadError;

/// What a client sends, for the kinds of servers there are.
#[derive(Clone, Debug)]
pub(crate) enum Wire {
    /// A WebSocket server, with what its chat says.
    WebSocket(Templates),
    /// The bare sender: no handshake, and what is sent to it is sent on as it is.
    Bare,
}

/// The texts of a server's chat, with `{room}`, `{text}` to be filled in.
#[derive(Clone, Debug)]
pub(crate) struct Templates {
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) join: String,
    pub(crate) chat: String,
}

const OPCODE_TEXT: u8 = 1;
const OPCODE_CLOSE: u8 = 8;
const OPCODE_PONG: u8 = 10;

/// Any key does; a server undoes it without looking.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

impl Wire {
    /// What a client sends first: the request for an upgrade.
    pub(crate) fn hello(&self) -> Vec<u8> {
        match self {
            // The key and its answer need not be looked at: nothing here could be confused with a cached page.
            Wire::WebSocket(Templates { host, path, .. }) => format!(
                "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: cm9vbWNhc3QtbG9hZC0wMA==\r\n\r\n"
            )
            .into_bytes(),
            Wire::Bare => Vec::new(),
        }
    }

    /// Whether the server answers [`Wire::hello`].
    pub(crate) fn has_handshake(&self) -> bool {
        matches!(self, Wire::WebSocket(_))
    }

    /// Joins a room.
    pub(crate) fn join(&self, room: u32, name: &str) -> Vec<u8> {
        match self {
            Wire::WebSocket(templates) => client_frame(OPCODE_TEXT, templates.join.replace("{room}", name).as_bytes()),
            Wire::Bare => room.to_le_bytes().to_vec(),
        }
    }

    /// Says a text.
    pub(crate) fn chat(&self, room: &str, text: &str) -> Vec<u8> {
        match self {
            Wire::WebSocket(templates) => {
                let message = templates.chat.replace("{room}", room).replace("{text}", text);
                client_frame(OPCODE_TEXT, message.as_bytes())
            }
            // What Roomcast makes of a chat message, byte for byte as long.
            Wire::Bare => {
                let message = format!(
                    r#"{{"type":"chat","room":"{room}","userId":"guest-abcdef","text":"{text}","ts":1700000000000,"seq":12345}}"#
                );
                let mut frame = Vec::with_capacity(message.len() + 10);
                roomcast::internals::frame::append_header(
                    &mut frame,
                    roomcast::internals::frame::Payload::Text,
                    message.len(),
                );
                frame.extend_from_slice(message.as_bytes());
                frame
            }
        }
    }
}

/// A text frame with any message.
pub(crate) fn text(message: &str) -> Vec<u8> {
    client_frame(OPCODE_TEXT, message.as_bytes())
}

/// The answer to a ping, or a sign of life.
pub(crate) fn pong(payload: &[u8]) -> Vec<u8> {
    client_frame(OPCODE_PONG, payload)
}

/// The end of a conversation, without complaint.
pub(crate) fn close() -> Vec<u8> {
    client_frame(OPCODE_CLOSE, &1000_u16.to_be_bytes())
}

/// A masked frame (RFC 6455 section 5.2).
fn client_frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    match payload.len() {
        short @ 0..=125 => frame.push(0x80 | short as u8),
        medium @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(medium as u16).to_be_bytes());
        }
        long => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

impl Templates {
    /// Checks that what is needed is there.
    pub(crate) fn check(&self) -> Result<(), LoadError> {
        let lacks = |what: &str, flag: &str| {
            let words = format!("{flag} contains no {{{what}}}; it needs one, where the {what} goes");
            Err(LoadError::Usage(words))
        };
        if !self.join.contains("{room}") {
            return lacks("room", "--join-template");
        }
        if !self.chat.contains("{text}") {
            return lacks("text", "--chat-template");
        }
        Ok(())
    }
}
