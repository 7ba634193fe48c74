//! One query to one server, on a thread that may block. Sentinels and cluster nodes are asked
//! this way.

use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use redis::Cmd;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use super::endpoint::HostPort;
use super::error::LinkError;
use super::hello::Login;
use super::resp::{self, Value};
use super::stream::ReadWrite;

/// How long connecting to an address may take, and then each read and write.
const STEP_MAX: Duration = Duration::from_secs(1);

/// The largest answer. The slot map of a thousand masters is smaller.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Sends a command and hands the answer to `read`, which returns `None` for an unexpected answer.
///
/// # Errors
/// What went wrong, with the name of the server. The error never contains the password.
pub(crate) fn blocking_query<T>(
    node: &HostPort,
    login: &Login,
    command: &[&str],
    read: impl FnOnce(Value<'_>) -> Option<T>,
) -> io::Result<T> {
    let named = |reason: &dyn std::fmt::Display| io::Error::other(format!("{node}: {reason}"));
    let mut wire = connect(node, login).map_err(|error| named(&error))?;
    let mut out = Vec::new();
    let mut replies_before = login.write_auth(&mut out);
    Cmd::new().arg(command).write_packed_command(&mut out);
    wire.write_all(&out).and_then(|()| wire.flush()).map_err(|error| named(&error))?;
    let mut input = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        while let Some((value, used)) = resp::parse(&input).map_err(|error| named(&error))? {
            if let Value::Error(text) = value {
                return Err(named(&LinkError::reply(text)));
            }
            if replies_before == 0 {
                return read(value).ok_or_else(|| named(&format!("an unexpected answer to {}", command.join(" "))));
            }
            replies_before -= 1;
            input.drain(..used);
        }
        let count = match wire.read(&mut buffer) {
            Ok(0) => return Err(named(&"the connection was closed")),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(named(&"no answer in time")),
            Err(error) => return Err(named(&error)),
        };
        input.extend_from_slice(&buffer[..count]);
        if input.len() > ANSWER_BYTES_MAX {
            return Err(named(&"the answer does not end"));
        }
    }
}

fn connect(node: &HostPort, login: &Login) -> io::Result<Box<dyn ReadWrite>> {
    let mut result = Err(io::Error::other("the name has no address"));
    for address in (node.host.as_str(), node.port).to_socket_addrs()? {
        result = TcpStream::connect_timeout(&address, STEP_MAX);
        if result.is_ok() {
            break;
        }
    }
    let stream = result?;
    stream.set_read_timeout(Some(STEP_MAX))?;
    stream.set_write_timeout(Some(STEP_MAX))?;
    let Some(tls) = &login.tls else { return Ok(Box::new(stream)) };
    let name = ServerName::try_from(node.host.clone()).map_err(io::Error::other)?;
    let connection = ClientConnection::new(Arc::clone(tls), name).map_err(io::Error::other)?;
    Ok(Box::new(StreamOwned::new(connection, stream)))
}
