//! A program that embeds the server, driven turn by turn, and the embedding example as a process.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    ops::Range,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use mio::{Events, Poll, Token, Waker};
use roomcast::{
    Config, Error, HostLoop, HostPublication, LISTENERS_MAX, Notice, Now, OpenPolicy, Policy, RoomName, Server,
    ServerBuilder, UserId, bus::Bus,
};

use super::{PATIENCE, program};

pub const WAKE: Token = Token(0);
pub const OWN: Token = Token(1);
pub const TOKENS_START: usize = 10;

/// The longest wait of a turn while a test checks something between turns.
pub const LOOK: Duration = Duration::from_millis(20);

/// A program that embeds the server; its tests drive it turn by turn.
pub struct Host {
    pub poll: Poll,
    events: Events,
    pub server: Server,
    pub notices: Vec<Notice>,
}

impl Host {
    pub fn new(config: Config) -> Self {
        Self::with(config, OpenPolicy, Now::system)
    }

    pub fn with(config: Config, policy: impl Policy + 'static, clock: fn() -> Now) -> Self {
        Self::start(config, |config, host| Server::builder(config, HostLoop { clock, ..host }).policy(policy).build())
    }

    pub fn build(config: Config, parts: impl FnOnce(ServerBuilder) -> ServerBuilder) -> Self {
        Self::start(config, |config, host| parts(Server::builder(config, host)).build())
    }

    pub fn with_bus(config: Config, bus: impl Bus + 'static) -> Self {
        Self::start(config, |config, host| Server::builder(config, host).bus(bus).build())
    }

    /// With a bus that wakes the loop.
    pub fn over<B: Bus + 'static>(config: Config, bus: impl FnOnce(&Config, Arc<Waker>) -> B) -> Self {
        Self::start(config, |config, host| {
            let bus = bus(&config, Arc::clone(&host.waker));
            Server::builder(config, host).bus(bus).build()
        })
    }

    pub fn start(config: Config, server: impl FnOnce(Config, HostLoop) -> Result<Server, Error>) -> Self {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), WAKE).unwrap());
        let host = host_loop(&poll, &waker, tokens(&config));
        let server = server(config, host).unwrap();
        // So few that a turn never sees all events of a test with many sockets.
        Self { poll, events: Events::with_capacity(4), server, notices: Vec::new() }
    }

    pub fn listen(&mut self) -> SocketAddr {
        self.server.listen("127.0.0.1:0".parse().unwrap()).unwrap()
    }

    /// From now on a turn sees up to so many events.
    pub fn see_events(&mut self, count: usize) {
        self.events = Events::with_capacity(count);
    }

    /// Waits no longer than `most`; says whether the host's own socket had something.
    pub fn turn(&mut self, most: Duration) -> bool {
        let timeout = self.server.timeout().map_or(most, |timeout| timeout.min(most));
        self.poll.poll(&mut self.events, Some(timeout)).unwrap();
        let mut is_own = false;
        for event in &self.events {
            match event.token() {
                WAKE => {}
                OWN => is_own = true,
                token => {
                    assert!(self.server.owns(token), "{token:?} is nobody's");
                    self.server.handle_event(event);
                }
            }
        }
        self.server.turn();
        is_own
    }

    /// Turns until a client on a thread of its own has done its work, and collects the notices.
    pub fn serve<T: Send>(&mut self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let client = scope.spawn(work);
            while !client.is_finished() {
                self.turn(LOOK);
                self.notices.extend(std::iter::from_fn(|| self.server.poll_notice()));
            }
            client.join().unwrap()
        })
    }

    /// Turns until `is_done`.
    pub fn turn_until(&mut self, what: &str, mut is_done: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_done(self) {
            assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}; {:?}", self.server);
            self.turn(LOOK);
        }
    }
}

pub fn host_loop(poll: &Poll, waker: &Arc<Waker>, tokens: Range<usize>) -> HostLoop {
    let registry = poll.registry().try_clone().unwrap();
    HostLoop { registry, tokens, waker: Arc::clone(waker), clock: Now::system, seed: 7 }
}

pub fn config() -> Config {
    let mut config = Config::default();
    config.net.connections_max = 30;
    config.net.connections_reserved = 4;
    config.notices = true;
    config
}

/// As many tokens as `config` needs, and not one more.
pub fn tokens(config: &Config) -> Range<usize> {
    let connections = config.net.connections_max + config.net.connections_reserved;
    TOKENS_START..TOKENS_START + LISTENERS_MAX + connections as usize
}

pub fn publication(text: &str, id: Option<&str>) -> HostPublication {
    let (room, user) = (RoomName::new("lobby").unwrap(), UserId::new("host").unwrap());
    HostPublication { id: id.map(str::to_owned), ..HostPublication::new(room, user, text) }
}

/// The path of an example, which `cargo test` builds beside the program.
pub fn example(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_roomcast")).with_file_name("examples").join(name);
    assert!(path.exists(), "`cargo test --test …` does not build it: run `cargo build --example {name}`");
    path
}

/// The embedding example as a process, with the lines that it prints.
pub struct Example {
    pub child: Child,
    lines: mpsc::Receiver<String>,
}

impl Example {
    pub fn spawn() -> Self {
        let mut command = program(&example("embed"));
        let mut child = command.args(["127.0.0.1:0"; 2]).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, lines }
    }

    /// Waits for a line that contains `needle`, and returns the text behind it.
    pub fn line(&self, needle: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let line = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now()));
            let line = line.unwrap_or_else(|error| panic!("{error} instead of {needle:?}"));
            if let Some((_, rest)) = line.split_once(needle) {
                return rest.to_owned();
            }
        }
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
