//! The chat in another program's loop: a small program with a UDP socket of its own, which shares poll,
//! waker and thread with the server. It publishes each datagram `room text …` in that room, and prints the
//! messages of all rooms.
//!
//! ```text
//! cargo run --example embed -- 127.0.0.1:8080 127.0.0.1:8081
//! echo "lobby the build is green" | nc -u -q0 127.0.0.1 8081
//! ```

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token, Waker};
use roomcast::{Config, HostLoop, HostPublication, Notice, Now, RoomName, Server, UserId};

const WAKE: Token = Token(0);
const UDP: Token = Token(1);

/// The largest datagram that is taken.
const DATAGRAM_BYTES_MAX: usize = 2048;

/// How many datagrams a turn takes, so that a flood of them does not starve the chat.
const DATAGRAMS_PER_TURN: usize = 64;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut addresses = std::env::args().skip(1).map(|address| address.parse::<SocketAddr>());
    let chat_address = addresses.next().unwrap_or_else(|| "127.0.0.1:8080".parse())?;
    let udp_address = addresses.next().unwrap_or_else(|| "127.0.0.1:8081".parse())?;

    let mut poll = Poll::new()?;
    let mut udp = UdpSocket::bind(udp_address)?;
    poll.registry().register(&mut udp, UDP, Interest::READABLE)?;

    let mut config = Config::default();
    // The server is to give notices.
    config.notices = true;
    let host = HostLoop {
        registry: poll.registry().try_clone()?,
        tokens: 100..100_000,
        waker: Arc::new(Waker::new(poll.registry(), WAKE)?),
        clock: Now::system,
        // Different for every run.
        seed: Now::system().unix_ms,
    };
    let mut server = Server::builder(config, host).build()?;
    println!("chat on http://{}", server.listen(chat_address)?);
    println!("udp on {}", udp.local_addr()?);

    let mut events = Events::with_capacity(1024);
    let mut is_udp_ready = false;
    while !server.has_ended() {
        // Datagrams that the budget left in our own socket cause no further event.
        let timeout = if is_udp_ready { Some(std::time::Duration::ZERO) } else { server.timeout() };
        // A signal interrupts the wait, for example that of being continued after a stop. The turn goes on without events.
        if let Err(error) = poll.poll(&mut events, timeout)
            && error.kind() != io::ErrorKind::Interrupted
        {
            return Err(error.into());
        }
        for event in &events {
            match event.token() {
                UDP => is_udp_ready = true,
                // Another thread has spoken to the server, which looks for that in every turn.
                WAKE => {}
                token if server.owns(token) => server.handle_event(event),
                _ => {}
            }
        }
        if is_udp_ready {
            is_udp_ready = !take_datagrams(&udp, &mut server)?;
        }
        server.turn();
        while let Some(notice) = server.poll_notice() {
            print_notice(&notice);
        }
    }
    Ok(())
}

/// Publishes the datagrams that have come, up to the budget. Returns whether these were all.
fn take_datagrams(udp: &UdpSocket, server: &mut Server) -> io::Result<bool> {
    let mut buffer = [0; DATAGRAM_BYTES_MAX];
    for _ in 0..DATAGRAMS_PER_TURN {
        match udp.recv_from(&mut buffer) {
            Ok((bytes, from)) => {
                let published = publication(&buffer[..bytes])
                    .and_then(|publication| server.publish(&publication).map_err(|error| error.to_string()));
                if let Err(why) = published {
                    println!("datagram of {from} was dropped: {why}");
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// Reads `room text …`.
fn publication(datagram: &[u8]) -> Result<HostPublication, String> {
    let text = str::from_utf8(datagram).map_err(|error| error.to_string())?;
    let (room, text) = text.trim_end().split_once(' ').ok_or("no text behind the room's name")?;
    let room = RoomName::new(room).map_err(|error| error.to_string())?;
    let user = UserId::new("udp").map_err(|error| error.to_string())?;
    Ok(HostPublication::new(room, user, text))
}

fn print_notice(notice: &Notice) {
    match notice {
        Notice::Chat { room, seq, .. } => {
            if let Some(chat) = notice.chat() {
                println!("{room} {seq}: {}: {}", chat.user_id, chat.text);
            }
        }
        Notice::Missed(count) => println!("{count} notices were missed"),
        other => println!("{other:?}"),
    }
}
