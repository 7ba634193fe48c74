//! A chat server with settings that the program has no flags for: the library takes them as fields of its configuration.
//!
//! ```text
//! cargo run --example tuned -- 127.0.0.1:8080
//! cargo run --example tuned -- unix:/tmp/chat.sock
//! ```
//!
//! SIGTERM ends it gracefully. The tests that count system calls run it under `strace`.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use mio::{Events, Interest, Poll, Token, Waker};
use roomcast::{Config, HostLoop, Now, Server};
use signal_hook::consts::SIGTERM;
use signal_hook_mio::v1_0::Signals;

const WAKE: Token = Token(0);
const SIGNAL: Token = Token(1);

fn config() -> Config {
    let mut config = Config::default();
    config.net.connections_max = 1000;
    config.hub.message_rate = 0;
    // Ten messages fill the history, so that it allocates nothing after the first ten.
    config.history.messages_max = 10;
    // A budget that a machine with slow system calls never reaches: a turn ends after `sends_per_turn` sends.
    config.hub.send_time_per_turn = Duration::from_secs(1);
    config.timing.ping_interval = Duration::from_secs(60 * 60);
    config
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let mut poll = Poll::new()?;
    let mut signals = Signals::new([SIGTERM])?;
    poll.registry().register(&mut signals, SIGNAL, Interest::READABLE)?;
    let host = HostLoop {
        registry: poll.registry().try_clone()?,
        tokens: 100..10_000,
        waker: Arc::new(Waker::new(poll.registry(), WAKE)?),
        clock: Now::system,
        seed: Now::system().unix_ms,
    };
    let mut server = Server::builder(config(), host).build()?;
    let listening = match address.strip_prefix("unix:") {
        Some(path) => server.listen_unix(path.as_ref()).map(|()| address)?,
        None => format!("http://{}", server.listen(address.parse()?)?),
    };
    std::io::stderr().write_all(format!("listening on {listening}\n").as_bytes())?;
    let mut events = Events::with_capacity(1024);
    while !server.has_ended() {
        match poll.poll(&mut events, server.timeout()) {
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        for event in &events {
            match event.token() {
                SIGNAL => signals.pending().for_each(|_| server.shutdown()),
                token if server.owns(token) => server.handle_event(event),
                _ => {}
            }
        }
        server.turn();
    }
    Ok(())
}
