//! A chat server on tokio and tokio-tungstenite: a task a connection with a queue of 256 messages, one thread.

mod connection;
mod hub;
mod messages;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{SignalKind, signal};

use crate::hub::Hub;

const BACKLOG: u32 = 4096;

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let Some(address) = std::env::args().nth(1).and_then(|address| address.parse().ok()) else {
        eprintln!("usage: tokio-tungstenite ADDRESS");
        std::process::exit(2);
    };
    raise_file_limit();
    let listener = listen(address)?;
    println!("listening on {}", listener.local_addr()?);
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        () = accept(listener) => {}
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    Ok(())
}

/// The hard limit cannot be above what is allowed, so this fails only where it does no harm.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn accept(listener: TcpListener) {
    // All tasks run on this thread, so the lock is never contended; it is here because `spawn` asks for `Send`.
    let hub = Arc::new(Mutex::new(Hub::default()));
    let mut id = 0;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                id += 1;
                tokio::spawn(connection::run(stream, id, Arc::clone(&hub)));
            }
            // Out of descriptors, most likely: others have to go first.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}
