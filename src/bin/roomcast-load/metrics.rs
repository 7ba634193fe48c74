//! Reads a node's `/metrics`, and whether it is ready.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(15);

/// The whole answer, head included.
pub(crate) fn read(address: SocketAddr) -> io::Result<String> {
    get(address, "/metrics")
}

/// Whether a node takes connections: before, it may listen already, but not know yet who is banned.
pub(crate) fn is_ready(address: SocketAddr) -> io::Result<bool> {
    Ok(!get(address, "/readyz")?.starts_with("HTTP/1.1 503"))
}

fn get(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
