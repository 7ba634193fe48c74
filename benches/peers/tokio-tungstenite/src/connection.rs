//! One connection: handshake, reading, writing, heartbeat.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::StatusCode;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Bytes, Error, Message, Utf8Bytes};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config};

use crate::hub::Hub;
use crate::messages::Sent;

const QUEUE_MESSAGES_MAX: usize = 256;
const MESSAGE_BYTES_MAX: usize = 16 << 10;
/// The default of 128 KiB is allocated for each connection at once and costs memory and speed: chat messages are small.
const READ_BUFFER_BYTES: usize = 4 << 10;
const PING_INTERVAL: Duration = Duration::from_secs(25);
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

pub async fn run(stream: TcpStream, id: u64, hub: Arc<Mutex<Hub>>) {
    let _ = stream.set_nodelay(true);
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    let handshake = accept_hdr_async_with_config(stream, check_path, Some(config));
    let Ok(Ok(socket)) = timeout(HANDSHAKE_TIMEOUT, handshake).await else { return };

    let (sender, queue) = channel(QUEUE_MESSAGES_MAX);
    let user_id = format!("guest-{id:x}");
    let welcome = Sent::Welcome { user_id: &user_id, ping_interval: PING_INTERVAL.as_millis() as u64 }.encode();
    // The queue is empty, so there is room.
    let _ = sender.try_send(welcome);
    lock(&hub).come(id, user_id, sender);
    // An error only means that the connection is at its end.
    let _ = Connection { socket, queue, id, hub: Arc::clone(&hub) }.talk().await;
    lock(&hub).leave(id);
}

// How big the error is was decided by tungstenite.
#[allow(clippy::result_large_err)]
fn check_path(request: &Request, response: Response) -> Result<Response, ErrorResponse> {
    if request.uri().path() == "/ws" {
        return Ok(response);
    }
    let mut refusal = ErrorResponse::new(None);
    *refusal.status_mut() = StatusCode::NOT_FOUND;
    Err(refusal)
}

fn lock(hub: &Mutex<Hub>) -> MutexGuard<'_, Hub> {
    hub.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The socket is not split into halves: these share it through a lock, and one task does both anyway.
struct Connection {
    socket: WebSocketStream<TcpStream>,
    queue: Receiver<Utf8Bytes>,
    id: u64,
    hub: Arc<Mutex<Hub>>,
}

impl Connection {
    async fn talk(mut self) -> Result<(), Error> {
        let mut ticks = interval_at(Instant::now() + PING_INTERVAL, PING_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut alive = true;
        loop {
            tokio::select! {
                received = self.socket.next() => {
                    alive = true;
                    match received {
                        Some(Ok(Message::Text(text))) => lock(&self.hub).receive(self.id, &text),
                        // Pings and a close are answered by tungstenite while it is read on.
                        Some(Ok(_)) => {}
                        Some(Err(error)) => return Err(error),
                        None => return Ok(()),
                    }
                }
                message = self.queue.recv() => match message {
                    Some(message) => within(WRITE_TIMEOUT, self.write(message)).await?,
                    None => return within(WRITE_TIMEOUT, self.socket.close(None)).await,
                },
                _ = ticks.tick() => {
                    if !alive {
                        return Ok(());
                    }
                    alive = false;
                    within(WRITE_TIMEOUT, self.socket.send(Message::Ping(Bytes::new()))).await?;
                }
            }
        }
    }

    /// Writes this message and all else that is queued in one system call.
    async fn write(&mut self, message: Utf8Bytes) -> Result<(), Error> {
        self.socket.feed(Message::Text(message)).await?;
        while let Ok(message) = self.queue.try_recv() {
            self.socket.feed(Message::Text(message)).await?;
        }
        self.socket.flush().await
    }
}

async fn within(limit: Duration, write: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
    timeout(limit, write).await.unwrap_or(Err(Error::ConnectionClosed))
}
