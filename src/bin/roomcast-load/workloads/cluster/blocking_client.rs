//! A client that blocks until it has read what it waits for.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::error::LoadError;
use crate::target::Running;

/// The room that [`BlockingClient::join`] joins.
pub(super) const ROOM: &str = "latency";

const PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct BlockingClient {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl BlockingClient {
    pub(super) fn connect(address: SocketAddr) -> Result<Self, LoadError> {
        let stream = TcpStream::connect(address).map_err(|source| LoadError::Connect { address, source })?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream, unread: Vec::new() })
    }

    /// Connects to a node and joins the room.
    pub(super) fn join(node: &Running) -> Result<Self, LoadError> {
        let mut client = Self::connect(node.address)?;
        client.send(&node.wire.hello())?;
        client.wait_for(b"\r\n\r\n")?;
        client.send(&node.wire.join(0, ROOM))?;
        client.wait_for(br#"{"type":"joined""#)?;
        Ok(client)
    }

    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<(), LoadError> {
        Ok(self.stream.write_all(bytes)?)
    }

    /// Reads until `bytes` come, and drops them and all before them.
    pub(super) fn wait_for(&mut self, bytes: &[u8]) -> Result<(), LoadError> {
        let mut chunk = [0; 4096];
        loop {
            if let Some(at) = memchr::memmem::find(&self.unread, bytes) {
                self.unread.drain(..at + bytes.len());
                return Ok(());
            }
            let read = self.stream.read(&mut chunk).map_err(|error| match error.kind() {
                ErrorKind::WouldBlock => LoadError::Timeout(String::from_utf8_lossy(bytes).into_owned()),
                _ => error.into(),
            })?;
            if read == 0 {
                return Err(LoadError::Disconnected { count: 1, why: "closed by the other end".to_owned() });
            }
            self.unread.extend_from_slice(&chunk[..read]);
        }
    }
}
