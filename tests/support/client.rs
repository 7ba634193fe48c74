//! A blocking WebSocket client that speaks the chat protocol.

use std::{
    collections::VecDeque,
    io::ErrorKind,
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use socket2::{Domain, SockRef, Socket, Type};
use tungstenite::{
    ClientRequestBuilder, Error, HandshakeError, Message, WebSocket,
    handshake::client::Response,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

use super::{PATIENCE, Server};

/// How many of the last messages a failing test prints.
const SEEN_MAX: usize = 64;

/// A receive buffer so small that a writing peer soon notices that nobody reads.
const SMALL_RECEIVE_BUFFER_BYTES: usize = 4096;

/// The parameters of a connection.
pub struct Connect {
    address: SocketAddr,
    path: String,
    headers: Vec<(String, String)>,
    protocols: Vec<String>,
    receive_buffer_bytes: Option<usize>,
}

impl Connect {
    /// To `/ws` of an address, as a guest.
    pub fn to(address: SocketAddr) -> Self {
        let path = "/ws".to_owned();
        Self { address, path, headers: Vec::new(), protocols: Vec::new(), receive_buffer_bytes: None }
    }

    /// Another path.
    pub fn path(mut self, path: &str) -> Self {
        path.clone_into(&mut self.path);
        self
    }

    /// Asks for a user id, which stands in the query as it is given here.
    pub fn user(self, user_id: &str) -> Self {
        self.path(&format!("/ws?userId={user_id}"))
    }

    /// One more header of the request.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// One more subprotocol on offer.
    pub fn protocol(mut self, name: &str) -> Self {
        self.protocols.push(name.to_owned());
        self
    }

    /// A receive buffer so small that a client that does not read is soon a slow one.
    pub fn small_receive_buffer(mut self) -> Self {
        self.receive_buffer_bytes = Some(SMALL_RECEIVE_BUFFER_BYTES);
        self
    }

    /// Connects and does the handshake; the `welcome` is still to come.
    ///
    /// # Errors
    /// The answer of the server instead of 101, or the error of the socket.
    pub fn try_open(&self) -> Result<(WebSocket<TcpStream>, Response), Box<Error>> {
        let socket = Socket::new(Domain::for_address(self.address), Type::STREAM, None).expect("a socket");
        if let Some(bytes) = self.receive_buffer_bytes {
            socket.set_recv_buffer_size(bytes).expect("set the receive buffer before connecting");
        }
        socket.connect_timeout(&self.address.into(), PATIENCE).map_err(|error| Box::new(error.into()))?;
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true).expect("set TCP_NODELAY");
        stream.set_read_timeout(Some(PATIENCE)).expect("set the read timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("set the write timeout");

        let uri = format!("ws://{}{}", self.address, self.path).parse().expect("a valid URI");
        let mut request = ClientRequestBuilder::new(uri);
        for (name, value) in &self.headers {
            request = request.with_header(name, value);
        }
        for protocol in &self.protocols {
            request = request.with_sub_protocol(protocol);
        }
        tungstenite::client(request, stream).map_err(|error| match error {
            HandshakeError::Failure(error) => Box::new(error),
            HandshakeError::Interrupted(_) => Box::new(Error::Io(ErrorKind::TimedOut.into())),
        })
    }

    /// Connects, does the handshake and reads the `welcome`.
    ///
    /// # Panics
    /// When any of that fails.
    pub fn connect(&self) -> Client {
        let (socket, response) = self.try_open().unwrap_or_else(|error| panic!("cannot connect: {error:?}"));
        let mut client = Client { socket, response, welcome: Value::Null, seen: VecDeque::new() };
        client.welcome = client.recv();
        assert_eq!(client.welcome["type"], "welcome", "the first message of every connection");
        client
    }
}

/// A connected client that has been welcomed.
pub struct Client {
    socket: WebSocket<TcpStream>,
    /// The answer to the handshake.
    pub response: Response,
    /// The first message.
    pub welcome: Value,
    seen: VecDeque<String>,
}

impl Client {
    /// Connects as a guest.
    pub fn connect(server: &Server) -> Self {
        Connect::to(server.address()).connect()
    }

    /// Connects with a user id.
    pub fn connect_as(server: &Server, user_id: &str) -> Self {
        Connect::to(server.address()).user(user_id).connect()
    }

    /// To connect with headers, subprotocols or socket options.
    pub fn build(server: &Server) -> Connect {
        Connect::to(server.address())
    }

    /// The user id that the server gave.
    pub fn user_id(&self) -> &str {
        self.welcome["userId"].as_str().expect("the welcome has a userId")
    }

    /// The socket itself.
    pub fn stream(&self) -> &TcpStream {
        self.socket.get_ref()
    }

    /// The WebSocket itself, for everything beyond the methods below.
    pub fn socket(&mut self) -> &mut WebSocket<TcpStream> {
        &mut self.socket
    }

    /// Sends any message.
    pub fn send(&mut self, message: Message) {
        self.socket.send(message).unwrap_or_else(|error| panic!("cannot send: {error:?}; {}", self.story()));
    }

    /// Sends any message to a server that may have closed the connection.
    ///
    /// # Errors
    /// The connection is closed.
    pub fn try_send(&mut self, message: Message) -> Result<(), Box<Error>> {
        self.socket.send(message).map_err(Box::new)
    }

    /// Sends one JSON object as a text frame.
    pub fn send_json(&mut self, message: &Value) {
        self.send(Message::text(message.to_string()));
    }

    /// Joins a room and returns the `joined`, skipping what comes before it.
    pub fn join(&mut self, room: &str) -> Value {
        self.send_json(&json!({"type": "join", "room": room}));
        let mut messages =
            self.recv_until(|message| message["type"] == "error" || is(message, "joined") && message["room"] == room);
        let joined = messages.pop().expect("the one that was waited for");
        assert_eq!(joined["type"], "joined", "{joined}");
        joined
    }

    /// Sends a chat message.
    pub fn say(&mut self, room: &str, text: &str) {
        self.send_json(&json!({"type": "chat", "room": room, "text": text}));
    }

    /// The next message.
    ///
    /// # Panics
    /// When none comes within [`PATIENCE`], or the connection closes first.
    pub fn recv(&mut self) -> Value {
        match self.try_recv(PATIENCE) {
            Some(message) => message,
            None => panic!("no message within {PATIENCE:?}; {}", self.story()),
        }
    }

    /// The next message if one comes within `patience`; for messages that must *not* arrive.
    pub fn try_recv(&mut self, patience: Duration) -> Option<Value> {
        let deadline = Instant::now() + patience;
        loop {
            match self.recv_frame(deadline)? {
                Ok(Message::Text(text)) => {
                    return Some(serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")));
                }
                Ok(Message::Ping(_) | Message::Pong(_)) => {}
                other => panic!("{other:?} instead of a message; {}", self.story()),
            }
        }
    }

    /// The next message of a type, skipping others.
    pub fn recv_type(&mut self, wanted: &str) -> Value {
        self.recv_until(|message| is(message, wanted)).pop().expect("the one that was waited for")
    }

    /// All messages up to and including the first for which `wanted` holds.
    pub fn recv_until(&mut self, mut wanted: impl FnMut(&Value) -> bool) -> Vec<Value> {
        let deadline = Instant::now() + PATIENCE;
        let mut messages = Vec::new();
        while !messages.last().is_some_and(&mut wanted) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.try_recv(left) {
                Some(message) => messages.push(message),
                None => panic!("what was waited for did not come within {PATIENCE:?}; {}", self.story()),
            }
        }
        messages
    }

    /// The next message of any kind before `deadline`, or the error that ended the connection.
    pub fn recv_frame(&mut self, deadline: Instant) -> Option<Result<Message, Box<Error>>> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.stream().set_read_timeout(Some(left)).expect("set the read timeout");
            let result = match self.socket.read() {
                Err(Error::Io(error)) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if Instant::now() >= deadline {
                        return None;
                    }
                    continue;
                }
                result => result.map_err(Box::new),
            };
            self.seen.truncate(SEEN_MAX - 1);
            self.seen.push_front(format!("{result:?}").chars().take(240).collect());
            return Some(result);
        }
    }

    /// Reads on until the server's Close and returns its code (1005 when it has none); the Close is answered.
    pub fn expect_close(&mut self) -> u16 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.recv_frame(deadline) {
                Some(Ok(Message::Close(frame))) => {
                    let _ = self.socket.flush();
                    return frame.map_or(1005, |frame| frame.code.into());
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => panic!("{error:?} instead of a Close; {}", self.story()),
                None => panic!("no Close within {PATIENCE:?}; {}", self.story()),
            }
        }
    }

    /// Says goodbye with 1000 and reads on until the server has answered; returns the code of its Close.
    pub fn close(mut self) -> u16 {
        let goodbye = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        self.socket.close(Some(goodbye)).unwrap_or_else(|error| panic!("cannot close: {error:?}"));
        self.expect_close()
    }

    /// Ends the connection with a reset instead of a FIN.
    pub fn reset(self) {
        SockRef::from(self.stream()).set_linger(Some(Duration::ZERO)).expect("set SO_LINGER");
    }

    /// The last messages, for the text of a failure.
    fn story(&self) -> String {
        let seen: Vec<_> = self.seen.iter().rev().map(String::as_str).collect();
        format!("received so far ({} at most):\n  {}", SEEN_MAX, seen.join("\n  "))
    }
}

fn is(message: &Value, kind: &str) -> bool {
    message["type"] == kind
}
