//! The bytes that the load sends to a server: the request that opens a connection, and frames.

use roomcast::internals::frame::{self, Payload};

use crate::error::LoadError;
use crate::tls::TlsConnector;

/// How a client speaks to a kind of server.
#[derive(Clone, Debug)]
pub(crate) enum Wire {
    /// A WebSocket server, with the templates of its chat.
    WebSocket(Templates),
    /// The bare sender: no handshake, and it passes frames on as they are.
    Bare,
}

/// The address of a server's chat and its messages, in which `{room}` and `{text}` are replaced.
#[derive(Clone, Debug)]
pub(crate) struct Templates {
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) join: String,
    pub(crate) chat: String,
    /// There is one if the server speaks TLS.
    pub(crate) tls: Option<TlsConnector>,
}

const OPCODE_CONTINUATION: u8 = 0;
const OPCODE_TEXT: u8 = 1;
const OPCODE_CLOSE: u8 = 8;
const OPCODE_PONG: u8 = 10;

/// Any mask does: servers do not check that it is random.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

impl Wire {
    /// The request for an upgrade.
    pub(crate) fn hello(&self) -> Vec<u8> {
        self.hello_with("")
    }

    /// The same as a user of Roomcast's.
    pub(crate) fn hello_as(&self, user: &str) -> Vec<u8> {
        self.hello_with(&format!("?userId={user}"))
    }

    fn hello_with(&self, query: &str) -> Vec<u8> {
        match self {
            // The load does not check the answer to the key: no cache stands in between.
            Wire::WebSocket(Templates { host, path, .. }) => format!(
                "GET {path}{query} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
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

    /// The same over TLS.
    pub(crate) fn with_tls(self, connector: TlsConnector) -> Self {
        match self {
            Wire::WebSocket(templates) => Wire::WebSocket(Templates { tls: Some(connector), ..templates }),
            Wire::Bare => Wire::Bare,
        }
    }

    /// The connector for TLS, if the server speaks it.
    pub(crate) fn tls(&self) -> Option<&TlsConnector> {
        match self {
            Wire::WebSocket(templates) => templates.tls.as_ref(),
            Wire::Bare => None,
        }
    }

    /// The bytes that join a room.
    pub(crate) fn join(&self, room: u32, name: &str) -> Vec<u8> {
        match self {
            Wire::WebSocket(templates) => client_frame(OPCODE_TEXT, templates.join.replace("{room}", name).as_bytes()),
            Wire::Bare => room.to_le_bytes().to_vec(),
        }
    }

    /// The bytes that publish a text.
    pub(crate) fn chat(&self, room: &str, text: &str) -> Vec<u8> {
        match self {
            Wire::WebSocket(templates) => {
                let message = templates.chat.replace("{room}", room).replace("{text}", text);
                client_frame(OPCODE_TEXT, message.as_bytes())
            }
            // As long as the frame that Roomcast makes of a chat message.
            Wire::Bare => {
                let message = format!(
                    r#"{{"type":"chat","room":"{room}","userId":"guest-abcdefghjkmnp","text":"{text}","ts":1700000000000,"seq":12345}}"#
                );
                let mut frame = Vec::with_capacity(message.len() + 10);
                frame::append_header(&mut frame, Payload::Text, message.len());
                frame.extend_from_slice(message.as_bytes());
                frame
            }
        }
    }
}

/// A text frame.
pub(crate) fn text(message: &str) -> Vec<u8> {
    client_frame(OPCODE_TEXT, message.as_bytes())
}

/// A text message in fragments of one byte.
pub(crate) fn fragments(message: &[u8]) -> Vec<u8> {
    const FINAL: u8 = 0x80;
    let mut bytes = Vec::new();
    for (nth, byte) in message.iter().enumerate() {
        let opcode = if nth == 0 { OPCODE_TEXT } else { OPCODE_CONTINUATION };
        let end = if nth + 1 == message.len() { FINAL } else { 0 };
        bytes.extend([end | opcode, 0x81]);
        bytes.extend(MASK);
        bytes.push(byte ^ MASK[0]);
    }
    bytes
}

pub(crate) fn pong(payload: &[u8]) -> Vec<u8> {
    client_frame(OPCODE_PONG, payload)
}

/// A Close frame with code 1000.
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
    /// # Errors
    /// If a placeholder is missing.
    pub(crate) fn check(&self) -> Result<(), LoadError> {
        let lacks = |what: &str, flag: &str| {
            Err(LoadError::Usage(format!("{flag} contains no {{{what}}}; put it where the {what} goes")))
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
