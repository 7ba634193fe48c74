//! The warning about a turn that takes long.

use std::cell::RefCell;
use std::sync::Once;
use std::thread;
use std::time::Duration;

use http::Request;
use log::{LevelFilter, Log, Metadata, Record};
use roomcast::{Authentication, Authenticator, Caller, Now, Policy, RoomName, open_identity};
use rustix::time::{ClockId, clock_gettime};

use crate::support::Connect;
use crate::support::host::{Host, config};

thread_local! {
    /// What the server of this thread has said.
    static WARNINGS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

struct Collector;

impl Log for Collector {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        WARNINGS.with_borrow_mut(|warnings| warnings.push(record.args().to_string()));
    }

    fn flush(&self) {}
}

/// The slow turns that this thread has been told of.
fn slow_turns() -> Vec<String> {
    let is_slow_turn = |line: &String| line.contains("ms of CPU time");
    WARNINGS.with_borrow_mut(std::mem::take).into_iter().filter(is_slow_turn).collect()
}

fn collect_warnings() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| log::set_logger(&Collector).expect("no other test sets a logger"));
    log::set_max_level(LevelFilter::Warn);
}

/// The CPU time that this thread has used.
fn used() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap()
}

fn burn() {
    let end = used() + Duration::from_millis(120);
    while used() < end {}
}

fn sleep() {
    thread::sleep(Duration::from_millis(120));
}

/// Takes its time to admit somebody, or to let them join.
struct Slow(fn());

impl Authenticator for Slow {
    fn authenticate(&mut self, _: Now, request: &Request<()>) -> Authentication {
        (self.0)();
        match open_identity(request) {
            Ok(identity) => Authentication::Admit(identity),
            Err(refusal) => Authentication::Refuse(refusal),
        }
    }
}

impl Policy for Slow {
    fn allow_join(&mut self, _: &Caller<'_>, _: &RoomName) -> Result<(), String> {
        (self.0)();
        Ok(())
    }
}

/// What the log says of two people who come.
fn warnings_of(mut host: Host) -> Vec<String> {
    collect_warnings();
    let address = host.listen();
    host.serve(|| {
        for user in ["ann", "ben"] {
            let mut client = Connect::to(address).user(user).connect();
            client.join("lobby");
        }
    });
    slow_turns()
}

#[test]
fn a_turn_that_uses_the_cpu_for_long_is_told_with_its_slowest_phase() {
    for metrics in [false, true] {
        let mut config = config();
        config.metrics = metrics;
        let lines = warnings_of(Host::build(config.clone(), |builder| builder.authenticator(Slow(burn))));
        // The second turn comes too soon after the first.
        let [line] = &lines[..] else { panic!("{lines:?}") };
        assert!(line.contains("the phase: reads"), "{line}");
        assert_eq!(warnings_of(Host::build(config, |builder| builder.policy(Slow(burn)))).len(), 1);
    }
}

#[test]
fn a_turn_in_which_the_thread_sleeps_is_not_told() {
    assert_eq!(warnings_of(Host::build(config(), |builder| builder.authenticator(Slow(sleep)))), [""; 0]);
}
