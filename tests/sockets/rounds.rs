//! The rounds of rooms: the delay between two rounds of a room, and the order of several rooms. Neither
//! loses messages.

use std::cell::Cell;
use std::time::Duration;

use roomcast::OpenPolicy;
use roomcast::bus::LocalBus;
use roomcast::internals::{Hub, NewConnection};
use roomcast::net::Slot;
use roomcast::{Config, ConnectionId, Now, Owner, RoomName, UserId};

use crate::support::host::{self, Host, LOOK};
use crate::support::local_room::run_bus;
use crate::support::{Raw, TEXT, frame};

const MILLI: Duration = Duration::from_millis(1);

/// A hub under a clock that moves only for sends and where a test moves it.
struct Hall {
    hub: Hub,
    bus: LocalBus,
    uptime: Duration,
    /// How long a send takes.
    send: Duration,
    /// The slot whose socket takes nothing.
    full: Option<u32>,
    /// The numbers that each slot was sent at once, in the order of the sends.
    sent: Vec<(u32, Vec<u64>)>,
    /// Output for single connections.
    own: String,
}

fn id(slot: u32) -> ConnectionId {
    ConnectionId::new(slot, 1)
}

fn delayed(millis: u64) -> Config {
    let mut config = Config::default();
    config.timing.batch_delay = Duration::from_millis(millis);
    config.hub.message_rate = 0;
    // Sends take a thousand times as long as real ones, so that all times are whole; only their number ends a turn.
    config.hub.send_time_per_turn = Duration::from_secs(1);
    // No presence when somebody joins or leaves: it would be sent, too.
    config.hub.users_listed_max = 1;
    config.timing.members_interval = Duration::from_secs(3600);
    config.timing.presence_grace = Duration::ZERO;
    config
}

/// The same with logs that are soon full.
fn with_small_log(millis: u64) -> Config {
    let mut config = delayed(millis);
    config.hub.log_bytes_max = 16 * 1024;
    config.net.message_bytes_max = 4 * 1024;
    config.hub.data_bytes_max = 1024;
    config
}

impl Hall {
    /// So many members in room `a`, each send taking a millisecond.
    fn new(config: &Config, members: u32) -> Self {
        let mut hall = Self {
            hub: Hub::new(config, Box::new(OpenPolicy)),
            bus: LocalBus::new(config, 1),
            uptime: Duration::from_secs(1),
            send: MILLI,
            full: None,
            sent: Vec::new(),
            own: String::new(),
        };
        (0..members).for_each(|slot| hall.join(slot, "a"));
        hall.be_quiet();
        hall
    }

    fn now(&self) -> Now {
        Now { uptime: self.uptime, unix_ms: 0 }
    }

    /// Joins a room, with a connection of its own if there is none yet.
    fn join(&mut self, slot: u32, room: &str) {
        let user = UserId::new(&format!("user-{slot}")).unwrap();
        self.hub.connect(Now::default(), id(slot), NewConnection::new(&user, Owner::HOST));
        self.tell(slot, &format!(r#"{{"type":"join","room":"{room}"}}"#));
    }

    fn say(&mut self, room: &str, slot: u32) {
        self.tell(slot, &format!(r#"{{"type":"chat","room":"{room}","text":"hello"}}"#));
    }

    fn tell(&mut self, slot: u32, text: &str) {
        self.hub.handle_text(self.now(), id(slot), text);
        self.run_bus();
    }

    fn run_bus(&mut self) {
        let now = self.now();
        run_bus(&mut self.hub, &mut self.bus, now);
    }

    /// One turn of the loop, with at most so many sends. Says how many there were.
    fn turn(&mut self, sends_max: u32) -> usize {
        let now = self.now();
        self.hub.handle_deadlines(now, &mut Now::default);
        self.run_bus();
        let own = &mut self.own;
        self.hub.poll_output(|output| {
            if let roomcast::internals::Output::Frames(_, frames) = output {
                own.push_str(&String::from_utf8_lossy(frames));
            }
        });
        let before = self.sent.len();
        let (uptime, sent, full) = (Cell::new(self.uptime), &mut self.sent, self.full);
        let clock = &mut || Now { uptime: uptime.get(), unix_ms: 0 };
        self.hub.poll_sends(now, sends_max, clock, &mut |Slot(slot), frames| {
            uptime.set(uptime.get() + self.send);
            if full == Some(slot) {
                return 0;
            }
            sent.push((slot, numbers(frames)));
            frames.len()
        });
        self.uptime = uptime.get();
        self.sent.len() - before
    }

    /// Turns as long as there is work; says how many sends that took.
    fn turns(&mut self) -> usize {
        let mut sends = 0;
        while self.hub.has_work() {
            sends += self.turn(64);
        }
        sends
    }

    /// Sends everything, and waits until no round can be delayed.
    fn be_quiet(&mut self) {
        for _ in 0..100 {
            self.turns();
            self.uptime += Duration::from_secs(60);
            self.turn(64);
        }
        assert!(self.hub.is_flushed() && self.hub.stats().log_bytes == 0);
        self.sent.clear();
        self.own.clear();
    }

    /// How long the loop may sleep.
    fn timeout(&self) -> Option<Duration> {
        assert!(!self.hub.has_work(), "it may not sleep at all");
        self.hub.timeout(self.now())
    }

    /// The numbers that a slot has been sent, and in how many sends.
    fn received(&self, slot: u32) -> (Vec<u64>, usize) {
        let of_slot = || self.sent.iter().filter(move |(to, _)| *to == slot);
        (of_slot().flat_map(|(_, numbers)| numbers.clone()).collect(), of_slot().count())
    }
}

/// The numbers of the messages in these frames.
fn numbers(frames: &[u8]) -> Vec<u64> {
    let text = String::from_utf8_lossy(frames);
    let digits = |rest: &str| rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap();
    text.split(r#""seq":"#).skip(1).map(digits).collect()
}

#[test]
fn a_round_begins_at_most_once_in_a_batch_delay() {
    // A round of 20 members takes 20 ms.
    for delay in [25, 50, 300, 1000] {
        let mut hall = Hall::new(&delayed(delay), 20);
        let begin = hall.uptime;
        hall.say("a", 0);
        assert_eq!(hall.turns(), 20, "after a quiet time, at once");
        hall.say("a", 1);
        hall.say("a", 2);
        let due = begin + Duration::from_millis(delay);
        assert_eq!(hall.timeout(), Some(due - hall.uptime), "{delay} ms");
        hall.uptime = due - Duration::from_nanos(1);
        hall.say("a", 3);
        assert_eq!(hall.turn(64), 0, "{delay} ms are not over yet");
        assert!(!hall.hub.is_flushed());
        hall.uptime = due;
        assert_eq!(hall.timeout(), Some(Duration::ZERO));
        assert_eq!(hall.turn(64), 20);
        assert_eq!(hall.turns(), 0);
        (0..20).for_each(|slot| assert_eq!(hall.received(slot), (vec![1, 2, 3, 4], 2), "{delay} ms"));
        assert!(hall.hub.is_flushed());
    }
}

#[test]
fn the_first_message_after_a_quiet_time_goes_out_at_once() {
    let mut hall = Hall::new(&delayed(50), 20);
    for _ in 0..3 {
        hall.say("a", 0);
        assert_eq!(hall.turns(), 20);
        hall.uptime += 30 * MILLI;
    }
    assert_eq!(hall.hub.stats().rounds_delayed, 0);
}

#[test]
fn a_round_that_takes_longer_than_the_delay_is_followed_at_once() {
    let mut hall = Hall::new(&delayed(50), 100);
    hall.say("a", 0);
    assert_eq!(hall.turn(64), 64);
    hall.say("a", 0);
    // This turn begins 64 ms after the round did: 36 sends end it, and 28 begin the next.
    assert_eq!(hall.turn(64), 64);
    assert_eq!((hall.turns(), hall.hub.stats().rounds_delayed), (36, 0));
    // Members that the first round reached late had both messages already.
    assert_eq!((hall.received(0), hall.received(99)), ((vec![1, 2], 1), (vec![1, 2], 2)));
}

#[test]
fn without_a_delay_every_message_has_a_round_of_its_own() {
    let mut hall = Hall::new(&delayed(0), 20);
    for said in 1..=5 {
        hall.say("a", 0);
        assert_eq!(hall.turns(), 20);
        assert_eq!(hall.received(7).1, said);
    }
    assert_eq!(hall.hub.stats().rounds_delayed, 0);
}

#[test]
fn a_small_room_does_not_wait_for_a_slice_of_a_giant_one() {
    let mut hall = Hall::new(&delayed(0), 300);
    (400..402).for_each(|slot| hall.join(slot, "small"));
    hall.be_quiet();
    hall.say("a", 0);
    assert_eq!(hall.turn(64), 64);
    hall.say("small", 400);
    assert_eq!(hall.turn(64), 64);
    assert_eq!((hall.received(400).1, hall.received(401).1), (1, 1));
}

#[test]
fn rooms_get_on_while_connections_drain_all_the_time() {
    let mut hall = Hall::new(&delayed(0), 100);
    for slot in 200..202 {
        hall.join(slot, "other");
    }
    hall.be_quiet();
    // None of a's sockets takes anything.
    hall.say("a", 0);
    while hall.hub.has_work() {
        let now = hall.now();
        hall.hub.poll_sends(now, 64, &mut || now, &mut |_, _| 0);
    }
    // All take bytes again, at the same time as somebody else speaks.
    (0..100).for_each(|slot| hall.hub.handle_drained(id(slot)));
    hall.say("other", 200);
    assert!(hall.turn(64) <= 64);
    assert_eq!((hall.received(200).1, hall.received(201).1), (1, 1));
    hall.turns();
    assert_eq!((0..100).map(|slot| hall.received(slot).1).sum::<usize>(), 100);
}

#[test]
fn a_giant_room_gets_on_while_small_ones_always_have_something_to_send() {
    let mut hall = Hall::new(&delayed(0), 300);
    for slot in 400..500 {
        hall.join(slot, &format!("small-{slot}"));
    }
    hall.be_quiet();
    hall.say("a", 0);
    let given = |hall: &Hall| (0..300).map(|slot| hall.received(slot).1).sum::<usize>();
    let before = given(&hall);
    for _ in 0..3 {
        (400..500).for_each(|slot| hall.say(&format!("small-{slot}"), slot));
        assert_eq!(hall.turn(64), 64);
    }
    // A whole turn, before anybody else was there, and half of each later one.
    assert_eq!(given(&hall) - before, 64 + 32 + 32);
}

/// A chat message of nearly a kibibyte.
fn long_chat(room: &str) -> String {
    format!(r#"{{"type":"chat","room":"{room}","text":"{}"}}"#, "x".repeat(900))
}

#[test]
fn the_delay_ends_before_a_full_log_would_refuse_anything() {
    let mut hall = Hall::new(&with_small_log(1000), 20);
    hall.send = Duration::ZERO;
    for said in 1..=100 {
        hall.say("a", 0);
        hall.tell(0, &long_chat("a"));
        hall.turns();
        assert_eq!(hall.hub.stats().errors, 0, "after {said} messages: {}", hall.own);
    }
    let stats = hall.hub.stats();
    assert!((10..=20).contains(&stats.rounds_hastened), "{stats:?}");
    hall.uptime += 1000 * MILLI;
    hall.turn(64);
    assert!(hall.hub.is_flushed());
    assert_eq!(hall.received(5).0, (1..=200).collect::<Vec<_>>());
    assert_eq!((stats.fallbacks, stats.errors), (0, 0));
}

#[test]
fn all_delays_end_before_the_logs_together_refuse_anything() {
    let mut config = delayed(1000);
    config.hub.log_bytes_max = 64 * 1024;
    config.hub.log_bytes_total_max = 64 * 1024;
    config.net.message_bytes_max = 4 * 1024;
    let mut hall = Hall::new(&config, 20);
    for slot in 20..24 {
        hall.join(slot, &format!("r{slot}"));
    }
    hall.be_quiet();
    hall.send = Duration::ZERO;
    hall.say("a", 0);
    (20..24).for_each(|slot| hall.say(&format!("r{slot}"), slot));
    hall.turns();
    for _ in 0..200 {
        (20..24).for_each(|slot| hall.tell(slot, &long_chat(&format!("r{slot}"))));
        hall.say("a", 0);
        hall.turns();
        assert!(hall.hub.stats().log_bytes <= 32 * 1024);
    }
    assert_eq!(hall.hub.stats().errors, 0, "{}", hall.own);
    assert!(hall.hub.stats().rounds_hastened > 20);
}

#[test]
fn a_room_with_half_a_log_at_the_end_of_a_round_is_not_delayed() {
    let mut hall = Hall::new(&with_small_log(1000), 100);
    hall.say("a", 0);
    assert_eq!(hall.turn(64), 64);
    (0..9).for_each(|_| hall.tell(0, &long_chat("a")));
    // The rest of the round, and at once the beginning of the next.
    assert_eq!(hall.turn(64), 36 + 28);
    assert_eq!(hall.turns(), 36);
    assert_eq!((hall.hub.stats().rounds_delayed, hall.hub.stats().rounds_hastened), (1, 1));
}

#[test]
fn log_space_held_by_a_blocked_member_does_not_end_the_delay() {
    let mut hall = Hall::new(&with_small_log(25), 20);
    hall.full = Some(4);
    let mut most = 0;
    for _ in 0..60 {
        hall.tell(0, &long_chat("a"));
        hall.turns();
        most = most.max(hall.hub.stats().log_bytes);
        hall.uptime += hall.hub.timeout(hall.now()).filter(|timeout| *timeout < 30 * MILLI).unwrap_or_default();
        hall.turn(64);
    }
    let stats = hall.hub.stats();
    assert!(most > 12 * 1024 && stats.fallbacks > 0, "{most} bytes, {stats:?}");
    assert!(stats.rounds_delayed >= 30, "{stats:?}");
    assert_eq!((stats.rounds_hastened, stats.errors), (0, 0));
}

#[test]
fn no_room_is_delayed_while_all_logs_together_are_half_full() {
    let mut config = delayed(1000);
    config.hub.log_bytes_max = 64 * 1024;
    config.hub.log_bytes_total_max = 64 * 1024;
    config.net.message_bytes_max = 4 * 1024;
    let mut hall = Hall::new(&config, 20);
    hall.join(30, "b");
    hall.be_quiet();
    // Bytes for a member whose socket is full stay in the log of b.
    hall.full = Some(30);
    for _ in 0..37 {
        hall.tell(30, &long_chat("b"));
        hall.turns();
    }
    assert!(hall.hub.stats().log_bytes > 32 * 1024);
    hall.uptime += 1000 * MILLI;
    let before = hall.hub.stats();
    for _ in 0..4 {
        hall.say("a", 0);
        assert_eq!(hall.turns(), 20);
    }
    let after = hall.hub.stats();
    assert_eq!(after.rounds_hastened - before.rounds_hastened, 3);
}

#[test]
fn bytes_promised_to_a_slow_bus_end_the_delay() {
    let mut hall = Hall::new(&with_small_log(1000), 20);
    hall.say("a", 0);
    hall.turns();
    hall.say("a", 0);
    assert!(!hall.hub.is_flushed() && hall.hub.stats().rounds_delayed == 1);
    (0..9).for_each(|_| hall.hub.handle_text(hall.now(), id(0), &long_chat("a")));
    // The bus takes them, and answers some other time.
    while hall.hub.poll_bus_request().is_some() {}
    assert!(hall.hub.has_work(), "the room is still delayed");
    let now = hall.now();
    let mut sends = 0;
    hall.hub.poll_sends(now, 64, &mut || now, &mut |_, frames| {
        sends += 1;
        frames.len()
    });
    assert_eq!(sends, 20);
    assert_eq!(hall.hub.stats().errors, 0);
}

#[test]
fn messages_of_the_host_end_the_delay() {
    let mut hall = Hall::new(&with_small_log(1000), 20);
    hall.say("a", 0);
    hall.turns();
    let mut publication = host::publication(&"x".repeat(900), None);
    publication.room = RoomName::new("a").unwrap();
    while hall.hub.stats().log_bytes <= 8 * 1024 {
        assert!(!hall.hub.has_work());
        hall.hub.publish_for_host(hall.now(), &publication).unwrap();
        hall.run_bus();
    }
    assert_eq!((hall.hub.stats().rounds_delayed, hall.turns()), (1, 20));
}

#[test]
fn a_drain_ends_the_delay() {
    let mut hall = Hall::new(&delayed(1000), 20);
    hall.say("a", 0);
    hall.turns();
    hall.say("a", 0);
    assert!(!hall.hub.has_work() && !hall.hub.is_flushed());
    hall.hub.start_draining();
    assert_eq!(hall.turns(), 20);
    assert!(hall.hub.is_flushed());
    assert_eq!(hall.received(3).0, [1, 2]);
}

#[test]
fn a_message_on_its_way_when_a_drain_begins_is_not_delayed_either() {
    let mut hall = Hall::new(&delayed(1000), 20);
    hall.say("a", 0);
    hall.turns();
    hall.hub.handle_text(hall.now(), id(0), r#"{"type":"chat","room":"a","text":"last"}"#);
    hall.hub.start_draining();
    hall.run_bus();
    assert_eq!(hall.turns(), 20);
    assert!(hall.hub.is_flushed());
}

#[test]
fn a_member_whose_socket_takes_bytes_again_is_served_during_the_delay() {
    let mut hall = Hall::new(&delayed(200), 20);
    hall.full = Some(4);
    hall.say("a", 0);
    assert_eq!(hall.turns(), 19);
    hall.say("a", 0);
    assert!(!hall.hub.has_work());
    hall.full = None;
    hall.hub.handle_drained(id(4));
    assert_eq!(hall.turns(), 1);
    assert_eq!(hall.received(4), (vec![1, 2], 1));
    assert!(!hall.hub.is_flushed(), "the others are owed the second");
    hall.uptime += 180 * MILLI;
    assert_eq!(hall.turn(64), 19);
    assert!(hall.hub.is_flushed());
}

#[test]
fn a_member_that_leaves_during_the_delay_is_sent_first_what_it_is_owed() {
    let mut hall = Hall::new(&delayed(40), 20);
    hall.say("a", 0);
    hall.turns();
    hall.say("a", 0);
    hall.tell(7, r#"{"type":"leave","room":"a","id":"bye"}"#);
    hall.turn(64);
    assert!(!hall.own.contains("left"));
    hall.uptime += 20 * MILLI;
    hall.turn(64);
    assert_eq!(hall.received(7).0, [1, 2]);
    hall.turn(64);
    assert!(hall.own.contains(r#"{"type":"left","room":"a","id":"bye"}"#), "{}", hall.own);
}

#[test]
fn a_room_that_ends_during_its_delay_leaves_nothing_behind() {
    let mut hall = Hall::new(&delayed(1000), 20);
    hall.say("a", 0);
    hall.turns();
    hall.say("a", 0);
    assert!(!hall.hub.is_flushed());
    for slot in 0..20 {
        assert!(hall.hub.disconnect(hall.now(), id(slot)));
    }
    hall.run_bus();
    assert_eq!((hall.hub.stats().rooms, hall.hub.is_flushed()), (0, true));
    // Another room takes its place.
    hall.join(30, "b");
    hall.turns();
    hall.uptime += Duration::from_secs(10);
    assert_eq!(hall.turn(64), 0);
    hall.say("b", 30);
    assert_eq!(hall.turns(), 1);
}

thread_local! {
    /// The time on the clock of this test's server, and how far each look moves it.
    static CLOCK: Cell<(Duration, Duration)> = const { Cell::new((Duration::from_secs(5), Duration::ZERO)) };
}

/// A clock that is a little later at every look: everything takes time, however fast the machine is.
fn ticking() -> Now {
    let (uptime, step) = CLOCK.get();
    CLOCK.set((uptime + step, step));
    Now { uptime, unix_ms: 0 }
}

/// A member of the lobby, over a socket, of a server with this delay.
fn member_with(delay: Duration) -> (Host, Raw) {
    CLOCK.set((Duration::from_secs(5), Duration::ZERO));
    let mut config = host::config();
    config.timing.batch_delay = delay;
    let mut host = Host::with(config, OpenPolicy, ticking);
    let address = host.listen();
    let member = host.serve(|| {
        let mut raw = Raw::open(address, "/ws");
        raw.send(&frame(TEXT, true, br#"{"type":"join","room":"lobby"}"#));
        raw.json_of("presence");
        raw
    });
    // The round in which the presence went out is long ago.
    CLOCK.set((CLOCK.get().0 + Duration::from_secs(5), Duration::ZERO));
    (host, member)
}

fn chat(host: &mut Host, member: &mut Raw) {
    let before = host.server.stats().hub.messages_delivered;
    member.send(&frame(TEXT, true, br#"{"type":"chat","room":"lobby","text":"hello"}"#));
    host.turn_until("the message", |host| host.server.stats().hub.messages_delivered > before);
}

/// Writes of the room's log for 30 messages, one a turn at least, and what the only member got.
fn thirty_messages(delay: Duration) -> (u64, Vec<u64>) {
    let (mut host, mut member) = member_with(delay);
    let before = host.server.stats().hub.sends;
    CLOCK.set((CLOCK.get().0, MILLI));
    (0..30).for_each(|_| chat(&mut host, &mut member));
    host.turn_until("the last send", |host| host.server.stats().hub.log_bytes == 0);
    let seqs = host.serve(|| (0..30).map(|_| member.json_of("chat")["seq"].as_u64().unwrap()).collect());
    (host.server.stats().hub.sends - before, seqs)
}

#[test]
fn messages_that_come_one_by_one_go_out_together() {
    let all: Vec<u64> = (1..=30).collect();
    assert_eq!(thirty_messages(Duration::ZERO), (30, all.clone()));
    // A turn looks at the clock a few times, each a millisecond: a second is dozens of turns.
    let (sends, seqs) = thirty_messages(Duration::from_secs(1));
    assert_eq!(seqs, all);
    assert!(sends <= 5, "{sends} sends");
}

#[test]
fn the_loop_sleeps_during_the_delay_and_wakes_at_its_end() {
    let (mut host, mut member) = member_with(20 * MILLI);
    let sends = host.server.stats().hub.sends;
    chat(&mut host, &mut member);
    chat(&mut host, &mut member);
    host.turn(LOOK);
    assert_eq!(host.server.stats().hub.sends, sends + 1, "the first goes at once, the second waits");
    assert_eq!(host.server.timeout(), Some(20 * MILLI));
    let turns = host.server.stats().turns;
    CLOCK.set((CLOCK.get().0 + 20 * MILLI, Duration::ZERO));
    assert_eq!(host.server.timeout(), Some(Duration::ZERO));
    host.turn(LOOK);
    let stats = host.server.stats();
    assert_eq!((stats.hub.sends, stats.hub.log_bytes, stats.turns), (sends + 2, 0, turns + 1));
}

#[test]
fn a_shutdown_does_not_wait_for_the_delay() {
    let (mut host, mut member) = member_with(1000 * MILLI);
    chat(&mut host, &mut member);
    chat(&mut host, &mut member);
    assert!(host.server.stats().hub.log_bytes > 0);
    host.server.shutdown();
    // The clock stands still: no delay ends by itself.
    host.turn_until("the second message", |host| host.server.stats().hub.log_bytes == 0);
    let seqs: Vec<_> = host.serve(|| (0..2).map(|_| member.json_of("chat")["seq"].as_u64().unwrap()).collect());
    assert_eq!(seqs, [1, 2]);
}
