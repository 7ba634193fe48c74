//! A Redis of the load test's own: on a free port, without persistence, ended when it is dropped.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis::{Client, Connection, FromRedisValue, cmd};

use crate::error::LoadError;
use crate::machine::{self, Cores};

/// How long Redis may take to answer.
const PATIENCE: Duration = Duration::from_secs(15);

pub(crate) struct RedisServer {
    pub(crate) port: u16,
    child: Child,
    folder: PathBuf,
}

impl RedisServer {
    /// Starts it on the server's core and waits until it answers.
    pub(crate) fn start(program: &Path, cores: &Cores) -> Result<Self, LoadError> {
        // Another program could take the port in between; Redis then ends with an error.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let folder = std::env::temp_dir().join(format!("roomcast-load-{}-{port}", std::process::id()));
        std::fs::create_dir(&folder)?;
        let mut command = Command::new(program);
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        // Redis must not close a subscriber of this program that does not read during a step.
        command.args(["--daemonize", "no", "--client-output-buffer-limit", "pubsub 0 0 0", "--dir"]).arg(&folder);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        // A child inherits its parent's cores. If pinning fails, the program has warned at the start.
        let _ = machine::pin_to(&cores.server);
        let child = command.spawn();
        let _ = machine::pin_to(&cores.load);
        let failed = |source| LoadError::Start { command: format!("{command:?}"), source };
        let child = child.map_err(failed).inspect_err(|_| drop(std::fs::remove_dir_all(&folder)))?;
        let mut redis = Self { port, child, folder };
        redis.wait_until_it_answers()?;
        Ok(redis)
    }

    fn wait_until_it_answers(&mut self) -> Result<(), LoadError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let error = match self.connection().and_then(|mut connection| Ok(cmd("PING").exec(&mut connection)?)) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if self.child.try_wait()?.is_some() || Instant::now() > deadline {
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn connection(&self) -> Result<Connection, LoadError> {
        let connection = Client::open(self.url())?.get_connection_with_timeout(PATIENCE)?;
        connection.set_read_timeout(Some(PATIENCE))?;
        Ok(connection)
    }

    /// Empties a database.
    pub(crate) fn clear(&self, database: u32) -> Result<(), LoadError> {
        let mut connection = self.connection()?;
        ask::<()>(&mut connection, &["SELECT", &database.to_string()])?;
        ask(&mut connection, &["FLUSHDB", "SYNC"])
    }

    /// A field of `INFO`, such as `pubsub_channels` of `stats`.
    pub(crate) fn info(connection: &mut Connection, section: &str, name: &str) -> Result<String, LoadError> {
        let info: String = ask(connection, &["INFO", section])?;
        let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(str::to_owned).ok_or_else(|| LoadError::Timeout(format!("{name} in INFO {section} of redis")))
    }
}

/// Sends a command and reads the answer.
pub(crate) fn ask<T: FromRedisValue>(connection: &mut Connection, command: &[&str]) -> Result<T, LoadError> {
    Ok(cmd(command[0]).arg(&command[1..]).query(connection)?)
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // They fail if Redis has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
