//! A back-end that decides about connections: a small HTTP server that keeps its connections.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use serde_json::{Value, json};

use super::PATIENCE;

/// A request that has come.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The first line, and the header fields with names in lower case.
    pub head: Vec<String>,
    pub body: Value,
    /// The number of its connection, from 0.
    pub connection: usize,
}

impl Asked {
    pub fn user(&self) -> &str {
        self.body["user"].as_str().unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// What it answers.
pub enum Reply {
    /// Status, media type, body.
    Answer(u16, &'static str, Vec<u8>),
    /// These bytes, and the end of the connection.
    Bytes(Vec<u8>),
    /// An answer, and the end of the connection, of which the answer says nothing.
    AnswerAndEnd(Value),
}

impl Reply {
    pub fn json(status: u16, body: &Value) -> Self {
        Self::Answer(status, "application/json", body.to_string().into_bytes())
    }

    /// Admits a user.
    pub fn user(user: &str) -> Self {
        Self::json(200, &json!({"user": user}))
    }
}

type Decide = dyn Fn(&Asked) -> Reply + Send + Sync;

struct State {
    decide: Box<Decide>,
    asked: Mutex<Vec<Asked>>,
    streams: Mutex<Vec<TcpStream>>,
    is_stopped: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// See the [module](self).
pub struct BackEnd {
    pub address: SocketAddr,
    state: Arc<State>,
    acceptor: Option<JoinHandle<()>>,
}

impl BackEnd {
    pub fn new(decide: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        Self::at("127.0.0.1:0".parse().expect("an address"), decide)
    }

    pub fn at(address: SocketAddr, decide: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).expect("a socket for the back-end");
        let address = listener.local_addr().expect("its address");
        let state = Arc::new(State {
            decide: Box::new(decide),
            asked: Mutex::default(),
            streams: Mutex::default(),
            is_stopped: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&state);
        let acceptor = thread::spawn(move || accept(&listener, &accepting));
        Self { address, state, acceptor: Some(acceptor) }
    }

    /// Admits everybody as the user that they ask for.
    pub fn obliging() -> Self {
        Self::new(|asked| Reply::user(asked.user()))
    }

    pub fn url(&self) -> String {
        format!("http://{}/auth", self.address)
    }

    /// What was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        lock(&self.state.asked).clone()
    }

    /// How many connections there were.
    pub fn connections(&self) -> usize {
        lock(&self.state.streams).len()
    }

    /// Ends the listener and all connections.
    pub fn stop(&mut self) {
        let Some(acceptor) = self.acceptor.take() else { return };
        self.state.is_stopped.store(true, Ordering::SeqCst);
        // The one who accepts has to be woken.
        let _ = TcpStream::connect_timeout(&self.address, PATIENCE);
        let _ = acceptor.join();
        for stream in lock(&self.state.streams).iter() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for BackEnd {
    fn drop(&mut self) {
        self.stop();
    }
}

fn accept(listener: &TcpListener, state: &Arc<State>) {
    for (number, stream) in listener.incoming().map_while(Result::ok).enumerate() {
        if state.is_stopped.load(Ordering::SeqCst) {
            return;
        }
        lock(&state.streams).push(stream.try_clone().expect("another handle"));
        let state = Arc::clone(state);
        thread::spawn(move || serve(stream, number, &state));
    }
}

/// Answers the requests of a connection until it ends.
fn serve(stream: TcpStream, connection: usize, state: &State) {
    let mut reader = BufReader::new(stream.try_clone().expect("another handle"));
    let mut stream = stream;
    while let Some(asked) = read_request(&mut reader, connection) {
        lock(&state.asked).push(asked.clone());
        let (bytes, ends) = match (state.decide)(&asked) {
            Reply::Answer(status, media_type, body) => (answer(status, media_type, &body), false),
            Reply::AnswerAndEnd(body) => (answer(200, "application/json", body.to_string().as_bytes()), true),
            Reply::Bytes(bytes) => (bytes, true),
        };
        if stream.write_all(&bytes).is_err() || ends {
            let _ = stream.shutdown(Shutdown::Both);
            return;
        }
    }
}

fn answer(status: u16, media_type: &str, body: &[u8]) -> Vec<u8> {
    let location = if status / 100 == 3 { "Location: /elsewhere\r\n" } else { "" };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} Some Reason\r\nContent-Type: {media_type}\r\n{location}Content-Length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

fn read_request(reader: &mut BufReader<TcpStream>, connection: usize) -> Option<Asked> {
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => head.push(match line.split_once(": ") {
                Some((name, value)) => format!("{}: {value}", name.to_ascii_lowercase()),
                None => line.to_owned(),
            }),
        }
    }
    let mut asked = Asked { head, body: Value::Null, connection };
    let mut body = vec![0; asked.header("content-length")?.parse().expect("a length")];
    reader.read_exact(&mut body).ok()?;
    asked.body = serde_json::from_slice(&body).expect("the body is JSON");
    Some(asked)
}
