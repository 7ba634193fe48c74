//! A server under `strace`: every system call that it makes, in order.
//!
//! It is the example `tuned`, whose turns end after a number of sends, however long sends take under a tracer.

use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::support::host::example;
use crate::support::{Raw, Server, Stream, TEXT, frame_of, program, wait_until};

/// How many bytes of each read and write the trace shows: more than a [`mark`] and the log line
/// `listening on` have.
const STRING_BYTES: &str = "64";

/// One system call.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) name: String,
    /// As `strace` prints them.
    pub(crate) arguments: String,
    /// The returned value, `-1 EAGAIN` for example.
    pub(crate) outcome: String,
}

impl Call {
    /// From a line of the trace; nothing for a signal or the end of the process.
    fn parse(line: &str) -> Option<Self> {
        let (name, rest) = line.split_once('(').filter(|(name, _)| !name.contains([' ', '-', '+']))?;
        let (arguments, outcome) = rest.rsplit_once(" = ").unwrap_or_else(|| panic!("no outcome: {line:?}"));
        let outcome = outcome.split(" (").next().unwrap_or_default();
        Some(Self {
            name: name.to_owned(),
            arguments: arguments.trim_end().trim_end_matches(')').to_owned(),
            outcome: outcome.to_owned(),
        })
    }

    /// The name, and the error if there was one: `accept4`, `accept4 EAGAIN`.
    pub(crate) fn label(&self) -> String {
        match self.outcome.strip_prefix("-1 ") {
            Some(error) => format!("{} {error}", self.name),
            None => self.name.clone(),
        }
    }

    /// How many bytes, events, or whatever it counts.
    pub(crate) fn count(&self) -> usize {
        self.outcome.parse().unwrap_or_else(|_| panic!("not a count: {self:?}"))
    }

    /// The descriptor that it is about; for an `accept4` the new one.
    pub(crate) fn descriptor(&self) -> &str {
        let index = if self.name == "epoll_ctl" { 2 } else { 0 };
        match &*self.name {
            "accept4" => &self.outcome,
            _ => self.arguments.split(", ").nth(index).unwrap_or_default(),
        }
    }

    /// Whether it waited for something to happen until a deadline came: how many do depends on how long a test takes.
    fn is_deadline(&self) -> bool {
        self.found_nothing() && !self.arguments.ends_with(", 0")
    }

    fn found_nothing(&self) -> bool {
        self.name == "epoll_wait" && self.outcome == "0"
    }

    /// Turns that have taken ten milliseconds together, as under a tracer they soon have, read the CPU time once.
    fn reads_processor_time(&self) -> bool {
        self.name == "clock_gettime" && self.arguments.contains("CPUTIME")
    }

    /// In debug builds the standard library asks whether a descriptor is open before it closes it.
    fn is_debug_assertion(&self) -> bool {
        cfg!(debug_assertions) && self.name == "fcntl" && self.arguments.ends_with("F_GETFD")
    }
}

/// The labels of calls, one by one.
pub(crate) fn labels<'a>(calls: impl IntoIterator<Item = &'a Call>) -> Vec<String> {
    calls.into_iter().map(Call::label).collect()
}

/// A server whose system calls are recorded.
pub(crate) struct Traced {
    pub(crate) server: Server,
    folder: TempDir,
}

impl Traced {
    /// Starts the server under `strace`; it listens on one address, `127.0.0.1:0` or `unix:/path`.
    ///
    /// # Panics
    /// If there is no `strace` or it may not trace, since the tests could show nothing then.
    pub(crate) fn spawn(listen: &str) -> Self {
        if let Err(error) = Command::new("strace").arg("--version").output() {
            assert_eq!(error.kind(), ErrorKind::NotFound, "cannot run strace: {error}");
            panic!("strace is not installed: `apt-get install strace`, or let scripts/test do it");
        }
        let folder = TempDir::new().expect("a folder for the trace");
        let mut command = program(Path::new("strace"));
        // As a grandchild, so that the child is the server itself.
        command.args(["--daemonize=grandchild", "--follow-forks", "-s", STRING_BYTES, "-o"]);
        let path = folder.path().join("trace");
        command.arg(&path).arg(example("tuned")).arg(listen);
        let server = Server::spawn_command(command, 1);
        // Where it must not trace, strace says so and lets the server run.
        let is_traced = std::fs::metadata(path).is_ok_and(|metadata| metadata.len() > 0);
        assert!(is_traced, "strace cannot trace here (ptrace is not permitted?):\n{}", server.log().join("\n"));
        Self { server, folder }
    }

    /// Waits until the server sleeps.
    pub(crate) fn wait_asleep(&self) {
        let path = format!("/proc/{}/stat", self.server.pid().as_raw_nonzero());
        wait_until("the server's sleep", || {
            let stat = std::fs::read_to_string(&path).expect("the server runs");
            stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S'))
        });
    }

    /// Waits until so many calls of a name were made since it listens.
    pub(crate) fn wait_for_calls(&self, name: &str, count: usize) {
        wait_until("the calls", || {
            let text = self.text();
            let whole_lines = text.rfind('\n').map_or("", |end| &text[..end]);
            Trace::parse(whole_lines).calls.iter().filter(|call| call.name == name).count() >= count
        });
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("trace")).expect("a trace")
    }

    /// Ends the server and returns its calls since it listens, up to the signal.
    pub(crate) fn end(mut self) -> Trace {
        self.server.sigterm();
        assert!(self.server.wait_exit().success(), "the server failed");
        let mut text = String::new();
        // The server is our child, strace is not: it may still be writing.
        wait_until("the end of the trace", || {
            text = self.text();
            text.ends_with("+++ exited with 0 +++\n")
        });
        Trace::parse(&text)
    }
}

/// The calls of a server.
pub(crate) struct Trace {
    calls: Vec<Call>,
}

impl Trace {
    fn parse(text: &str) -> Self {
        let (threads, lines): (Vec<_>, Vec<_>) =
            text.lines().map(|line| line.split_once(char::is_whitespace).expect("a thread and its call")).unzip();
        assert!(threads.iter().all(|thread| *thread == threads[0]), "more than one thread");
        let lines = lines.into_iter().map(str::trim_start).skip_while(|line| !line.contains("listening on "));
        let lines = lines.skip(1).take_while(|line| !line.starts_with("--- SIGTERM"));
        let calls = lines.filter_map(Call::parse).filter(|call| !call.is_deadline() && !call.is_debug_assertion());
        let calls = calls.filter(|call| !call.reads_processor_time());
        Self { calls: without_due_turns(calls.collect()) }
    }

    /// All calls.
    pub(crate) fn calls(&self) -> &[Call] {
        &self.calls
    }

    /// The calls between the answer to one [`mark`] and the read of another.
    pub(crate) fn between(&self, begin: &str, end: &str) -> &[Call] {
        let find = |name: &str, mark: &str| {
            let found = self.calls.iter().position(|call| call.name == name && call.arguments.contains(mark));
            found.unwrap_or_else(|| panic!("no {name} with {mark}"))
        };
        &self.calls[find("sendto", begin) + 1..find("recvfrom", end)]
    }

    /// The calls for the connection that was accepted as number `index`, from its beginning to its end.
    pub(crate) fn life(&self, index: usize) -> Vec<&Call> {
        let accepts = |call: &Call| call.label() == "accept4";
        let begin = self.calls.iter().enumerate().filter(|(_, call)| accepts(call)).nth(index);
        let (begin, accept) = begin.unwrap_or_else(|| panic!("no connection {index}"));
        let mut life = Vec::new();
        for call in self.calls[begin..].iter().filter(|call| call.descriptor() == accept.descriptor()) {
            life.push(call);
            if call.name == "close" {
                break;
            }
        }
        life
    }
}

/// Leaves out the waits that did not wait, found nothing, and had nothing to do behind them.
///
/// A deadline that comes between the beginning and the end of a turn causes one. There are few deadlines in the seconds
/// that a test takes; whatever else causes such turns does so for every message.
fn without_due_turns(calls: Vec<Call>) -> Vec<Call> {
    const DUE_TURNS_MAX: usize = 3;
    let is_due = |index: usize| {
        calls[index].found_nothing() && calls.get(index + 1).is_some_and(|next| next.name == "epoll_wait")
    };
    let due: Vec<_> = (0..calls.len()).map(is_due).collect();
    let due_turns = due.iter().filter(|is_due| **is_due).count();
    assert!(due_turns <= DUE_TURNS_MAX, "{due_turns} turns had nothing to do");
    calls.into_iter().zip(due).filter(|(_, is_due)| !is_due).map(|(call, _)| call).collect()
}

/// Makes a place in the trace that can be found again: a ping, not masked away, and its pong.
pub(crate) fn mark<S: Stream>(raw: &mut Raw<S>, name: &str) {
    raw.send(&plain_frame(&format!(r#"{{"type":"ping","id":"{name}"}}"#)));
    while raw.json_of("pong")["id"] != name {}
}

/// A text frame that can be read in a trace.
pub(crate) fn plain_frame(text: &str) -> Vec<u8> {
    frame_of(0x80 | TEXT, Some([0; 4]), text.as_bytes())
}
