//! Time in which the host did not run: suspended, stopped by a signal, or busy with something else.

use std::cell::Cell;
use std::time::Duration;

use roomcast::CloseReason;
use roomcast::OpenPolicy;
use roomcast::{Config, Now, UserId};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::host::{Example, Host, LOOK, config};
use crate::support::{Connect, PING, PONG, Raw, TEXT, frame, upgrade_request, wait_until};

const HOUR: Duration = Duration::from_secs(60 * 60);

thread_local! {
    /// The time on the clock of this test's server.
    static UPTIME: Cell<Duration> = const { Cell::new(Duration::from_secs(5)) };
}

fn pass(time: Duration) {
    UPTIME.set(UPTIME.get() + time);
}

/// A host whose clock stands still unless the thread of the test lets time [`pass`].
fn host(config: Config) -> Host {
    Host::with(config, OpenPolicy, || Now { uptime: UPTIME.get(), unix_ms: 0 })
}

/// Lets time pass in steps in which the host keeps running.
fn live(host: &mut Host, time: Duration) {
    let step = Duration::from_millis(250);
    for _ in 0..time.as_millis() / step.as_millis() {
        pass(step);
        host.turn(Duration::from_millis(1));
    }
}

fn turns(host: &mut Host, count: usize) {
    for _ in 0..count {
        host.turn(LOOK);
    }
}

/// A host and clients that have just been pinged, and have not answered.
fn pinged(config: Config, clients: usize) -> (Host, Vec<Raw>) {
    let mut host = host(config);
    let address = host.listen();
    let open = || {
        let mut raw = Raw::open(address, "/ws");
        raw.json_of("welcome");
        raw
    };
    let mut raws: Vec<_> = host.serve(|| (0..clients).map(|_| open()).collect());
    live(&mut host, Duration::from_secs(26));
    host.serve(|| raws.iter_mut().for_each(|raw| assert_eq!(raw.frame().opcode, PING)));
    (host, raws)
}

#[test]
fn an_hour_in_which_the_host_did_not_run_is_held_against_nobody() {
    let (mut host, mut raws) = pinged(config(), 1);
    let address = host.listen();
    let head = upgrade_request("/ws", &[]);
    let (begin, rest) = head.as_bytes().split_at(20);
    let mut unfinished = host.serve(|| {
        let mut raw = Raw::connect(address);
        raw.send(begin);
        raw
    });
    host.turn_until("both connections", |host| host.server.stats().net.sockets == 2);
    for _ in 0..5 {
        pass(HOUR);
        turns(&mut host, 3);
    }
    assert_eq!((host.server.stats().net.open, host.server.stats().net.heartbeat_timeouts), (1, 0));
    host.serve(|| {
        raws[0].send(&frame(TEXT, true, br#"{"type":"ping"}"#));
        raws[0].json_of("pong");
        unfinished.send(rest);
        unfinished.upgraded();
    });
    // The same silence, lived through, does count.
    live(&mut host, Duration::from_secs(40));
    assert_eq!(host.server.stats().net.heartbeat_timeouts, 2);
    assert_eq!(raws[0].expect_close(), 4001);
}

#[test]
fn a_pong_that_waits_to_be_read_is_an_answer() {
    let mut config = config();
    config.net.reads_per_turn = 1;
    let (mut host, mut raws) = pinged(config, 3);
    // In the tick before the last one; the next turn comes late, but not so late that it counts as a pause.
    live(&mut host, Duration::from_millis(9_250));
    raws.iter_mut().for_each(|raw| raw.send(&frame(PONG, true, b"")));
    pass(Duration::from_millis(500));
    turns(&mut host, 9);
    assert_eq!((host.server.stats().net.open, host.server.stats().net.heartbeat_timeouts), (3, 0));
}

#[test]
fn a_user_closed_right_after_a_pause_is_soon_offline() {
    let mut host = host(config());
    let address = host.listen();
    let (_ann, mut bob) = host.serve(|| {
        let join = |name| {
            let mut client = Connect::to(address).user(name).connect();
            client.join("lobby");
            client
        };
        (join("ann"), join("bob"))
    });
    pass(HOUR);
    host.server.disconnect_user(&UserId::new("ann").unwrap(), CloseReason::EXPELLED).unwrap();
    live(&mut host, Duration::from_secs(10));
    let offline = host.serve(|| bob.recv_until(|message| message["status"] == "offline").pop().unwrap());
    assert_eq!(offline["userId"], "ann");
}

#[test]
fn a_shutdown_right_after_a_pause_keeps_its_deadline() {
    let mut config = config();
    config.timing.drain_timeout = Duration::from_secs(1);
    let (mut host, _silent) = pinged(config, 1);
    pass(HOUR);
    host.server.shutdown();
    live(&mut host, Duration::from_secs(3));
    assert!(host.server.has_ended(), "{:?}", host.server);
}

#[test]
fn time_passes_also_for_a_host_that_is_always_late() {
    let mut config = config();
    config.timing.drain_timeout = Duration::from_secs(1);
    let (mut host, _silent) = pinged(config, 1);
    host.server.shutdown();
    turns(&mut host, 1);
    for _ in 0..100 {
        pass(Duration::from_secs(2));
        host.turn(Duration::ZERO);
    }
    assert!(host.server.has_ended(), "{:?}", host.server);
}

#[test]
fn a_shutdown_between_two_turns_does_not_let_the_loop_sleep() {
    let mut host = host(config());
    host.listen();
    turns(&mut host, 1);
    assert_eq!(host.server.timeout(), None);
    host.server.shutdown();
    assert_eq!(host.server.timeout(), Some(Duration::ZERO));
}

#[test]
fn the_example_survives_being_stopped_and_continued() {
    let example = Example::spawn();
    let address = example.line("chat on http://").parse().unwrap();
    Connect::to(address).connect();
    let state = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", example.child.id())).unwrap();
        stat.rsplit_once(") ").unwrap().1.chars().next()
    };
    let pid = Pid::from_child(&example.child);
    wait_until("the example sleeps", || state() == Some('S'));
    kill_process(pid, Signal::STOP).unwrap();
    wait_until("the example is stopped", || state() == Some('T'));
    kill_process(pid, Signal::CONT).unwrap();
    wait_until("the example goes on", || state() != Some('T'));
    Connect::to(address).connect();
}
