//! A client for bytes: requests and frames that no well-behaved library would send.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use serde_json::Value;
use socket2::{Domain, Socket, Type};

use super::PATIENCE;

pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// Not zero in any byte, so that a server that forgets to unmask is found out.
const MASK: [u8; 4] = [0x5a, 0xa5, 0x3c, 0xc3];

/// The key of RFC 6455 section 1.3, whose answer is known.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A masked frame.
pub fn frame(opcode: u8, fin: bool, payload: &[u8]) -> Vec<u8> {
    frame_of(u8::from(fin) << 7 | opcode, Some(MASK), payload)
}

/// A frame with any first byte, masked or not.
pub fn frame_of(first: u8, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    let masked = u8::from(mask.is_some()) << 7;
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..126 => bytes.push(masked | length as u8),
        length @ 126..65536 => {
            bytes.push(masked | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(masked | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend(mask.iter().flatten());
    let mask = mask.unwrap_or_default();
    bytes.extend(payload.iter().enumerate().map(|(index, byte)| byte ^ mask[index % 4]));
    bytes
}

/// A masked Close with a code and no reason.
pub fn close_frame(code: u16) -> Vec<u8> {
    frame(CLOSE, true, &code.to_be_bytes())
}

/// The head of a request with a `Host` and the given headers.
pub fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> String {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("{method} {path} HTTP/1.1\r\nHost: roomcast.test\r\n{headers}\r\n")
}

/// A complete and correct upgrade request, with more headers if wanted.
pub fn upgrade_request(path: &str, headers: &[(&str, &str)]) -> String {
    let upgrade = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", KEY),
    ];
    request("GET", path, &[&upgrade, headers].concat())
}

/// A socket as a raw client needs it.
pub trait Stream: Read + Write {
    /// See [`TcpStream::set_read_timeout`].
    ///
    /// # Errors
    /// The error of the system.
    fn read_timeout(&self, timeout: Duration) -> io::Result<()>;
}

impl Stream for TcpStream {
    fn read_timeout(&self, timeout: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(timeout))
    }
}

impl Stream for UnixStream {
    fn read_timeout(&self, timeout: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(timeout))
    }
}

/// An answer to an HTTP request.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    /// The first header of that name (in lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is UTF-8")
    }
}

/// A frame as the server sent it.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    pub fin: bool,
    pub opcode: u8,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The payload as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.payload).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The code of a Close; 1005 when it has none.
    pub fn close_code(&self) -> u16 {
        assert_eq!(self.opcode, CLOSE, "{self:?}");
        self.payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code))
    }
}

/// A socket, and the bytes that were read ahead.
pub struct Raw<S = TcpStream> {
    pub stream: S,
    buffer: Vec<u8>,
}

impl Raw {
    /// Connects over TCP, with `TCP_NODELAY` so that every write is a segment of its own.
    pub fn connect(address: SocketAddr) -> Self {
        let stream =
            TcpStream::connect_timeout(&address, PATIENCE).unwrap_or_else(|error| panic!("{address}: {error}"));
        stream.set_nodelay(true).expect("set TCP_NODELAY");
        stream.set_write_timeout(Some(PATIENCE)).expect("set the write timeout");
        Self::over(stream)
    }

    /// Connects from an address of this machine, for example 127.0.0.2.
    pub fn connect_from(source: &str, address: SocketAddr) -> Self {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
        let source: SocketAddr = format!("{source}:0").parse().expect("an address to connect from");
        socket.bind(&source.into()).expect("bind to the address to connect from");
        socket.connect_timeout(&address.into(), PATIENCE).unwrap_or_else(|error| panic!("{address}: {error}"));
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true).expect("set TCP_NODELAY");
        stream.set_write_timeout(Some(PATIENCE)).expect("set the write timeout");
        Self::over(stream)
    }

    /// Connects and does the handshake by hand; the `welcome` is still to come.
    pub fn open(address: SocketAddr, path: &str) -> Self {
        let mut raw = Self::connect(address);
        raw.send(upgrade_request(path, &[]).as_bytes());
        raw.upgraded();
        raw
    }
}

impl<S: Stream> Raw<S> {
    /// Over a connected socket of any kind.
    pub fn over(stream: S) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// Sends bytes in one write.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap_or_else(|error| panic!("cannot send {} bytes: {error}", bytes.len()));
    }

    /// Sends bytes to a server that may have closed the connection.
    ///
    /// # Errors
    /// The connection is closed.
    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Reads the answer to an upgrade request and checks it.
    pub fn upgraded(&mut self) -> Response {
        let response = self.response();
        assert_eq!(response.status, 101, "{response:?}");
        assert_eq!(response.header("sec-websocket-accept"), Some(ACCEPT), "{response:?}");
        response
    }

    /// Reads an answer to the end of its body, which `Content-Length` or the end of the stream tells.
    pub fn response(&mut self) -> Response {
        let mut response = self.response_head();
        let length = response.header("content-length").map(|text| text.parse().expect("a length"));
        response.body = match (response.status, length) {
            (101 | 204 | 304, _) => Vec::new(),
            (_, Some(length)) => self.take(length),
            (_, None) => self.rest(),
        };
        response
    }

    /// Reads the head of an answer, as for HEAD.
    pub fn response_head(&mut self) -> Response {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(self.fill(), "the stream ended within a head: {:?}", String::from_utf8_lossy(&self.buffer));
        };
        let head = String::from_utf8(self.take(end)).expect("the head is UTF-8");
        let mut lines = head.trim_end().split("\r\n");
        let status_line = lines.next().expect("a status line");
        let status = status_line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
        let headers = lines.map(|line| {
            let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("not a header: {line:?}"));
            (name.to_ascii_lowercase(), value.trim().to_owned())
        });
        let status = status.unwrap_or_else(|| panic!("not a status line: {status_line:?}"));
        Response { status, headers: headers.collect(), body: Vec::new() }
    }

    /// Reads one frame, which must not be masked.
    pub fn frame(&mut self) -> Frame {
        self.frame_or_end().unwrap_or_else(|| panic!("the stream ended instead of a frame"))
    }

    /// Reads one frame, or the end of the stream.
    pub fn frame_or_end(&mut self) -> Option<Frame> {
        if self.buffer.is_empty() && !self.fill() {
            return None;
        }
        let head = self.take(2);
        assert_eq!(head[1] & 0x80, 0, "a server must not mask");
        assert_eq!(head[0] & 0x70, 0, "reserved bits of a server's frame");
        let length = match head[1] {
            126 => u16::from_be_bytes(self.take(2).try_into().expect("two bytes")).into(),
            127 => u64::from_be_bytes(self.take(8).try_into().expect("eight bytes")) as usize,
            length => usize::from(length),
        };
        Some(Frame { fin: head[0] & 0x80 != 0, opcode: head[0] & 0x0f, payload: self.take(length) })
    }

    /// The next frame if one begins within `patience`; for frames that must *not* arrive.
    pub fn frame_within(&mut self, patience: Duration) -> Option<Frame> {
        if self.buffer.is_empty() {
            self.fill_within(patience)?;
        }
        Some(self.frame())
    }

    /// The next text frame as JSON, skipping control frames; data frames are never fragmented by the server.
    pub fn json(&mut self) -> Value {
        loop {
            let frame = self.frame();
            match frame.opcode {
                TEXT => return frame.json(),
                PING | PONG => {}
                _ => panic!("{frame:?} instead of a message"),
            }
        }
    }

    /// The next message of a type, skipping others.
    pub fn json_of(&mut self, kind: &str) -> Value {
        loop {
            let message = self.json();
            if message["type"] == kind {
                return message;
            }
        }
    }

    /// Reads on until the server's Close and returns its code.
    pub fn expect_close(&mut self) -> u16 {
        loop {
            let frame = self.frame();
            if frame.opcode == CLOSE {
                return frame.close_code();
            }
        }
    }

    /// Whether nothing but the end of the stream (or a reset) is left.
    pub fn at_end(&mut self) -> bool {
        self.buffer.is_empty() && !self.fill()
    }

    /// All bytes to the end of the stream.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.fill() {}
        std::mem::take(&mut self.buffer)
    }

    /// As [`Raw::rest`], for a stream that may end with an error.
    ///
    /// # Errors
    /// How the stream ended.
    pub fn try_rest(&mut self) -> io::Result<Vec<u8>> {
        self.stream.read_timeout(PATIENCE)?;
        self.stream.read_to_end(&mut self.buffer)?;
        Ok(std::mem::take(&mut self.buffer))
    }

    /// Exactly `count` bytes.
    pub fn take(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            let missing = count - self.buffer.len();
            assert!(self.fill(), "the stream ended {missing} bytes too early");
        }
        let rest = self.buffer.split_off(count);
        std::mem::replace(&mut self.buffer, rest)
    }

    /// Reads more; false at the end of the stream or after a reset.
    fn fill(&mut self) -> bool {
        let more = self.fill_within(PATIENCE);
        more.unwrap_or_else(|| panic!("nothing to read within {PATIENCE:?}, {} bytes left over", self.buffer.len()))
    }

    /// Reads more; nothing when no bytes come in time.
    fn fill_within(&mut self, patience: Duration) -> Option<bool> {
        let deadline = Instant::now() + patience;
        let mut chunk = [0; 16 * 1024];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            self.stream.read_timeout(left).expect("set the read timeout");
            match self.stream.read(&mut chunk) {
                Ok(0) => return Some(false),
                Ok(count) => {
                    self.buffer.extend_from_slice(&chunk[..count]);
                    return Some(true);
                }
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Some(false),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                // A socket with a timeout is not read on by itself after a signal.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("cannot read: {error}"),
            }
        }
    }
}
