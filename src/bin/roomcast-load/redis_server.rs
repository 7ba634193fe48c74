//! A Redis of the load test's own: on a port of its own, without anything on disk, gone when it is dropped.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis::{Client, Connection, FromRedisValue, cmd};

use crate::error::LoadError;
use crate::machine;
use crate::target::Cores;

/// How long Redis may take for whatever it is asked.
const PATIENCE: Duration = Duration::from_secs(15);

/// See the [module](self).
pub(crate) struct RedisServer {
    pub(crate) port: u16,
    child: Child,
    folder: PathBuf,
}

/// Where a program is, if it is in PATH.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).map(|folder| folder.join(program)).find(|path| path.is_file())
}

impl RedisServer {
    /// Starts it on the server's core and waits until it answers.
    pub(crate) fn start(program: &Path, cores: &Cores) -> Result<Self, LoadError> {
        // Somebody else might take the port in between; then Redis ends, and that is said.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let folder = std::env::temp_dir().join(format!("roomcast-load-{}-{port}", std::process::id()));
        std::fs::create_dir(&folder)?;
        let mut command = Command::new(program);
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        // A subscriber of this program that waits for the other end of a step must not be cut for being slow.
        command.args(["--daemonize", "no", "--client-output-buffer-limit", "pubsub 0 0 0", "--dir"]).arg(&folder);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        // What is started inherits where it may run; where that is not possible it was said at the start.
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

    /// Forgets what a database has.
    pub(crate) fn clear(&self, database: u32) -> Result<(), LoadError> {
        let mut connection = self.connection()?;
        ask::<()>(&mut connection, &["SELECT", &database.to_string()])?;
        ask(&mut connection, &["FLUSHDB", "SYNC"])
    }

    /// A figure of `INFO`: `stats`, `pubsub_channels`.
    pub(crate) fn info(connection: &mut Connection, section: &str, name: &str) -> Result<String, LoadError> {
        let info: String = ask(connection, &["INFO", section])?;
        let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(str::to_owned).ok_or_else(|| LoadError::Silence(format!("{name} in INFO {section} of redis")))
    }
}

/// Asks Redis something.
pub(crate) fn ask<T: FromRedisValue>(connection: &mut Connection, words: &[&str]) -> Result<T, LoadError> {
    Ok(cmd(words[0]).arg(&words[1..]).query(connection)?)
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
