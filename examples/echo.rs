//! A WebSocket echo server on `roomcast::net` alone, without the chat, so that conformance suites can be run against
//! exactly the code that carries it: `cargo run --release --example echo -- --listen 127.0.0.1:9001 --message-bytes 16MiB`.

use std::convert::Infallible;
use std::net::SocketAddr;

use clap::Parser;
use mio::{Events, Poll};
use roomcast::net::{BodyDecision, Capacity, Handler, Handshake, HeadDecision, Listener, Net, Verdict, WriteBuffer};
use roomcast::{Config, ConnectionId, Now};

/// Sends every message back.
#[derive(Parser)]
struct Flags {
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1:9001")]
    listen: SocketAddr,
    /// Largest message, all fragments together.
    #[arg(long, default_value = "16MiB", value_parser = |text: &str| parse_size::parse_size(text))]
    message_bytes: u64,
}

struct Echo;

impl Handler for Echo {
    type Admission = ();
    type Route = Infallible;

    fn on_request(
        &mut self,
        _id: ConnectionId,
        request: &http::Request<()>,
        _capacity: Capacity,
    ) -> HeadDecision<(), Infallible> {
        match Handshake::check(request) {
            Ok(handshake) => HeadDecision::Upgrade(handshake, ()),
            Err(response) => HeadDecision::Respond(response),
        }
    }

    fn on_body(&mut self, _id: ConnectionId, route: Infallible, _body: &[u8]) -> BodyDecision {
        // No request has a body that is read.
        match route {}
    }

    fn on_text(&mut self, _id: ConnectionId, text: &str, answers: &mut WriteBuffer) -> Verdict {
        answers.text(text);
        Verdict::Continue
    }

    fn on_binary(&mut self, _id: ConnectionId, bytes: &[u8], answers: &mut WriteBuffer) -> Verdict {
        answers.binary(bytes);
        Verdict::Continue
    }

    fn on_open(&mut self, _id: ConnectionId, _admission: ()) {}
    fn on_drained(&mut self, _id: ConnectionId) {}
    fn on_stalled(&mut self, _id: ConnectionId) {}
    fn on_closed(&mut self, _id: ConnectionId) {}
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let flags = Flags::parse();
    let mut config = Config::default();
    config.net.message_bytes_max = flags.message_bytes.try_into()?;
    // An echo may wait while another is written.
    config.net.output_bytes_max = config.net.output_bytes_max.max(4 * config.net.message_bytes_max);
    let mut poll = Poll::new()?;
    let seed = Now::system().unix_ms;
    let mut net = Net::new(&config, poll.registry().try_clone()?, 0..1_000_000, seed)?;
    let listener = Listener::tcp(flags.listen)?;
    eprintln!("listening on {}", net.listen(listener)?);
    let mut events = Events::with_capacity(1024);
    loop {
        let timeout = if net.has_work() { Some(std::time::Duration::ZERO) } else { net.timeout(Now::system()) };
        // A signal, also that of being continued after a stop, interrupts the wait; that is no event.
        if let Err(error) = poll.poll(&mut events, timeout)
            && error.kind() != std::io::ErrorKind::Interrupted
        {
            return Err(error.into());
        }
        for event in &events {
            net.handle_event(event);
        }
        net.begin_turn(Now::system());
        net.accept(&mut Now::system, &mut Echo);
        net.read(&mut Now::system, &mut Echo);
        net.handle_deadlines(&mut Now::system, &mut Echo);
        net.flush(&mut Now::system, &mut Echo);
        net.free(&mut Now::system);
    }
}
