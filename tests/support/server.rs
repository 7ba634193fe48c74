//! The program under test as a child process, with its log.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use rustix::process::{Pid, Signal, kill_process};

use super::{
    PATIENCE, Response,
    raw::{Raw, request},
    wait_until,
};

/// The text before the address in the line that each listener logs at start.
const LISTENING: &str = "listening on ";

/// The log of a child process as its lines arrive, and whether it has ended.
#[derive(Default)]
struct Log {
    lines: Mutex<(Vec<String>, bool)>,
    changed: Condvar,
}

impl Log {
    /// The lines. They explain a failure, so a lock that a failed assertion has poisoned is taken as well.
    fn lines(&self) -> MutexGuard<'_, (Vec<String>, bool)> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows a stream on a thread of its own until it ends.
    fn follow(stderr: ChildStderr) -> Arc<Self> {
        let log = Arc::new(Self::default());
        let writer = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                writer.lines().0.push(String::from_utf8_lossy(&line).into_owned());
                writer.changed.notify_all();
            }
            writer.lines().1 = true;
            writer.changed.notify_all();
        });
        log
    }

    /// Waits until `find` finds something in the lines so far.
    fn wait<T>(&self, what: &str, find: impl Fn(&[String]) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = self.lines();
        loop {
            if let Some(found) = find(&lines.0) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!lines.1, "the log ended without {what}:\n{}", lines.0.join("\n"));
            assert!(!left.is_zero(), "not in the log within {PATIENCE:?}: {what}:\n{}", lines.0.join("\n"));
            lines = self.changed.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// A running server; killed when dropped.
pub struct Server {
    child: Child,
    log: Arc<Log>,
    listeners: Vec<String>,
}

/// The command that runs `roomcast` with none of the caller's settings in its environment.
pub fn roomcast() -> Command {
    program(Path::new(env!("CARGO_BIN_EXE_roomcast")))
}

/// The command that runs `path` with none of the caller's settings in its environment.
pub fn program(path: &Path) -> Command {
    let mut command = Command::new(path);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ROOMCAST_")) {
        command.env_remove(name);
    }
    command.env("RUST_LOG", "info");
    command
}

impl Server {
    /// Starts the server with `flags`, and `--listen 127.0.0.1:0` unless they have a `--listen`.
    pub fn spawn(flags: &[&str]) -> Self {
        let mut command = roomcast();
        let listeners = flags.iter().filter(|flag| flag.starts_with("--listen")).count();
        if listeners == 0 {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        command.args(flags);
        Self::spawn_command(command, listeners.max(1))
    }

    /// Starts any command that logs `listening on …` on its standard error once for each of its listeners.
    pub fn spawn_command(command: Command, listeners: usize) -> Self {
        Self::spawn_with_input(command, Stdio::null(), listeners)
    }

    /// As [`Server::spawn_command`], with something as its standard input.
    pub fn spawn_with_input(mut command: Command, input: Stdio, listeners: usize) -> Self {
        command.stdin(input).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let log = Log::follow(child.stderr.take().expect("stderr is piped"));
        let mut server = Self { child, log, listeners: Vec::new() };
        server.listeners = server.log.wait("all listeners", |lines| {
            let found: Vec<_> =
                lines.iter().filter_map(|line| Some(line.rsplit_once(LISTENING)?.1.trim_end().to_owned())).collect();
            (found.len() >= listeners).then_some(found)
        });
        server
    }

    /// The addresses that the server has logged, in order: `http://127.0.0.1:41234`, `unix:/path`.
    pub fn listeners(&self) -> &[String] {
        &self.listeners
    }

    /// The address of the first TCP listener without TLS.
    pub fn address(&self) -> SocketAddr {
        self.address_of("http://")
    }

    /// The address of the first listener with TLS.
    pub fn tls_address(&self) -> SocketAddr {
        self.address_of("https://")
    }

    fn address_of(&self, scheme: &str) -> SocketAddr {
        let address = self.listeners.iter().find_map(|listener| {
            let address = listener.strip_prefix(scheme).unwrap_or(listener);
            address.trim_end_matches('/').parse().ok()
        });
        address.unwrap_or_else(|| panic!("no TCP address in {:?}", self.listeners))
    }

    /// The process id, for `/proc` and signals.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("signal the server");
    }

    /// Asks the server to drain and end.
    pub fn sigterm(&self) {
        self.signal(Signal::TERM);
    }

    /// Waits for the end of the process.
    pub fn wait_exit(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the server's end", || {
            status = self.child.try_wait().expect("wait for the server");
            status.is_some()
        });
        status.expect("the loop above ended with a status")
    }

    /// The status of a process that has ended.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("wait for the server")
    }

    /// The log so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lines().0.clone()
    }

    /// The lines so far that contain `needle`.
    pub fn log_lines(&self, needle: &str) -> Vec<String> {
        self.log().into_iter().filter(|line| line.contains(needle)).collect()
    }

    /// Waits for a line that contains `needle` and returns it.
    pub fn wait_for_log(&self, needle: &str) -> String {
        self.log.wait(needle, |lines| lines.iter().find(|line| line.contains(needle)).cloned())
    }

    /// One GET on a connection of its own.
    pub fn get(&self, path: &str) -> Response {
        let mut raw = Raw::connect(self.address());
        raw.send(request("GET", path, &[("Connection", "close")]).as_bytes());
        raw.response()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the server's log ---\n{}\n--- end of the server's log ---", self.log().join("\n"));
        }
    }
}
