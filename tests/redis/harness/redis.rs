//! A Redis of the test's own, on a port of its own, gone when the test is.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis::{Client, Connection, FromRedisValue, cmd};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// How long anything may take that involves a Redis which was ended, stopped, or has to be connected again.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// The configuration file of those that need one.
const FILE: &str = "redis.conf";

/// Waits until `condition` holds.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {LONG:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A port that nobody listens at now.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}

/// A certificate for this machine, signed by itself.
pub(crate) struct Certificate {
    folder: TempDir,
}

impl Certificate {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let key = rcgen::KeyPair::generate().expect("a key");
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let certificate = rcgen::CertificateParams::new(names).expect("names").self_signed(&key);
        let new = Self { folder };
        std::fs::write(new.path(), certificate.expect("a certificate").pem()).expect("write the certificate");
        std::fs::write(new.key(), key.serialize_pem()).expect("write the key");
        new
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().expect("a path").to_owned()
    }

    pub(crate) fn path(&self) -> String {
        self.file("cert.pem")
    }

    fn key(&self) -> String {
        self.file("key.pem")
    }

    /// The options of a Redis that speaks TLS at a port.
    pub(crate) fn options(&self, port: u16) -> Vec<String> {
        let (port, certificate, key) = (port.to_string(), self.path(), self.key());
        let words = ["--tls-port", &port, "--tls-cert-file", &certificate, "--tls-key-file", &key];
        let rest = ["--tls-ca-cert-file", &certificate, "--tls-auth-clients", "no"];
        words.into_iter().chain(rest).map(str::to_owned).collect()
    }
}

/// See the [module](self).
pub(crate) struct Redis {
    child: Child,
    folder: TempDir,
    options: Vec<String>,
    pub(crate) port: u16,
}

impl Redis {
    /// Starts one that keeps nothing on disk.
    pub(crate) fn start() -> Self {
        Self::with(&["--save", "", "--appendonly", "no"])
    }

    pub(crate) fn with(options: &[&str]) -> Self {
        Self::with_file(None, options)
    }

    /// With a configuration file, into which it may write.
    fn with_file(text: Option<&str>, options: &[&str]) -> Self {
        let mut folder = tempfile::tempdir().expect("a folder");
        let mut options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        // Somebody else may take the port between the look and the start.
        for _ in 0..10 {
            let port = free_port();
            if let Some(text) = text {
                std::fs::write(folder.path().join(FILE), text).expect("write the configuration");
            }
            let child = Self::spawn(&folder, &options, port);
            let mut redis = Self { child, folder, options, port };
            if redis.wait_until_ready() {
                return redis;
            }
            (folder, options) = redis.into_parts();
        }
        panic!("no Redis could be started; is redis-server installed?")
    }

    /// With options and TLS at a port.
    pub(crate) fn with_tls(options: &[&str], certificate: &Certificate, port: u16) -> Self {
        let tls = certificate.options(port);
        Self::with(&options.iter().copied().chain(tls.iter().map(String::as_str)).collect::<Vec<_>>())
    }

    /// A sentinel that fails over as soon as it may; it has found the master and `replicas` of it.
    pub(crate) fn sentinel(master: &Self, name: &str, replicas: usize) -> Self {
        Self::sentinel_of(&format!("127.0.0.1 {}", master.port), name, replicas, &[])
    }

    /// The same of a master at a host and port, which it goes on calling like this.
    pub(crate) fn sentinel_of(master: &str, name: &str, replicas: usize, options: &[&str]) -> Self {
        let text = format!(
            "sentinel resolve-hostnames yes\nsentinel announce-hostnames yes\nsentinel monitor {name} {master} 1\n\
             sentinel down-after-milliseconds {name} 500\nsentinel failover-timeout {name} 2000\n"
        );
        let sentinel = Self::with_file(Some(&text), &[&["--sentinel"], options].concat());
        eventually("the sentinel knows the replicas", || {
            let found: Vec<BTreeMap<String, String>> = sentinel.ask(&["SENTINEL", "REPLICAS", name]);
            found.len() == replicas && found.iter().all(|replica| replica["master-link-status"] == "ok")
        });
        sentinel
    }

    /// A replica that has caught up.
    pub(crate) fn replica(master: &Self) -> Self {
        Self::replica_of(master.port, &[])
    }

    /// The same of a master at this port of its.
    pub(crate) fn replica_of(port: u16, options: &[&str]) -> Self {
        let port = port.to_string();
        let own = ["--save", "", "--replicaof", "127.0.0.1", &port, "--repl-diskless-sync-delay", "0"];
        let replica = Self::with(&[&own[..], options].concat());
        eventually("the replica has caught up", || replica.info("master_link_status").as_deref() == Some("up"));
        replica
    }

    /// A field of the answer to INFO; none where the connection ended before it, as a failover ends all of them.
    pub(crate) fn info(&self, field: &str) -> Option<String> {
        let info: String = self.try_ask(&["INFO"]).ok()?;
        info.lines().find_map(|line| Some(line.strip_prefix(field)?.strip_prefix(':')?.to_owned()))
    }

    /// Waits until its replica has acknowledged all that was written; WAIT would do so for the writes of its own connection.
    pub(crate) fn wait_until_replicated(&self) {
        eventually("all is replicated", || {
            let offset = self.info("master_repl_offset").expect("an offset");
            self.info("slave0").is_some_and(|replica| replica.contains(&format!("offset={offset},")))
        });
    }

    fn into_parts(mut self) -> (TempDir, Vec<String>) {
        let folder = std::mem::replace(&mut self.folder, tempfile::tempdir().expect("a folder"));
        (folder, std::mem::take(&mut self.options))
    }

    fn spawn(folder: &TempDir, options: &[String], port: u16) -> Child {
        let mut command = Command::new("redis-server");
        // It has to come first.
        command.args(Some(folder.path().join(FILE)).filter(|file| file.exists()));
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--daemonize", "no"]);
        command.arg("--dir").arg(folder.path()).args(options);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap_or_else(|error| panic!("cannot start redis-server: {error}"))
    }

    /// Whether it came up, and is the one that was started.
    fn wait_until_ready(&mut self) -> bool {
        let deadline = Instant::now() + LONG;
        while Instant::now() < deadline {
            if self.child.try_wait().expect("look after redis").is_some() {
                return false;
            }
            let result = self.try_connection().and_then(|mut connection| cmd("PING").query::<String>(&mut connection));
            match result {
                Ok(_) => return true,
                Err(error) if format!("{error:?}").to_lowercase().contains("auth") => return true,
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
        false
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    fn try_connection(&self) -> redis::RedisResult<Connection> {
        let password = self.options.iter().skip_while(|option| *option != "--requirepass").nth(1);
        let user = password.map(|password| format!(":{password}@")).unwrap_or_default();
        Client::open(format!("redis://{user}127.0.0.1:{}", self.port))?
            .get_connection_with_timeout(Duration::from_secs(2))
    }

    /// Asks it something.
    pub(crate) fn ask<T: FromRedisValue>(&self, words: &[&str]) -> T {
        self.try_ask(words).unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    pub(crate) fn try_ask<T: FromRedisValue>(&self, words: &[&str]) -> redis::RedisResult<T> {
        let mut command = cmd(words[0]);
        command.arg(&words[1..]).query(&mut self.try_connection()?)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("signal redis");
    }

    /// Ends it at once, as a crash does.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.child.wait().expect("wait for redis");
    }

    /// Starts it again, on the same port and with the data on its disk.
    pub(crate) fn restart(&mut self) {
        self.child = Self::spawn(&self.folder, &self.options, self.port);
        assert!(self.wait_until_ready(), "redis does not come back");
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
