//! How much of the loop a room may take: when it rests, when it does not, and that nothing is lost by it.

#[path = "support/local_room.rs"]
mod local_room;
mod support;

use std::cell::Cell;
use std::time::Duration;

use local_room::run_bus;
use roomcast::bus::LocalBus;
use roomcast::hub::{Hub, OpenPolicy};
use roomcast::{Config, ConnectionId, Now, RoomName, UserId};
use support::host::{self, Host, LOOK};
use support::{Raw, TEXT, frame};

const MILLI: Duration = Duration::from_millis(1);

/// A hub under a clock that stands still but for sends, and for what a test lets pass.
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
    /// What was for single connections.
    own: String,
}

fn id(slot: u32) -> ConnectionId {
    ConnectionId { slot, generation: 1 }
}

fn shared(percent: u32) -> Config {
    let mut config = Config::default();
    config.limits.room_share_percent = percent;
    config.limits.message_rate = 0;
    // Sends take a thousand times as long as real ones, so that all times are whole; only their number ends a turn.
    config.limits.send_time_per_turn = Duration::from_secs(1);
    // No presence when somebody joins or leaves: it would be sent, too.
    config.limits.users_listed_max = 1;
    config.timing.members_interval = Duration::from_secs(3600);
    config.timing.presence_grace = Duration::ZERO;
    config
}

/// The same with logs that are soon full.
fn with_small_log(percent: u32) -> Config {
    let mut config = shared(percent);
    config.limits.log_bytes_max = 16 * 1024;
    config.limits.message_bytes_max = 4 * 1024;
    config.limits.data_bytes_max = 1024;
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
        hall.rest_long();
        hall
    }

    fn now(&self) -> Now {
        Now { uptime: self.uptime, unix_ms: 0 }
    }

    /// Joins a room, with a connection of its own if there is none yet.
    fn join(&mut self, slot: u32, room: &str) {
        let user = UserId::new(&format!("user-{slot}")).unwrap();
        self.hub.connect(id(slot), &user, None);
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
        self.hub.handle_deadlines(now);
        self.run_bus();
        let own = &mut self.own;
        self.hub.drain_output(|output| {
            if let roomcast::hub::Output::Frames(_, frames) = output {
                own.push_str(&String::from_utf8_lossy(frames));
            }
        });
        let before = self.sent.len();
        let (uptime, sent, full) = (Cell::new(self.uptime), &mut self.sent, self.full);
        let clock = &mut || Now { uptime: uptime.get(), unix_ms: 0 };
        self.hub.flush_rooms(now, sends_max, clock, &mut |slot, frames| {
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

    /// Lets everything come to rest, and all that is owed be paid.
    fn rest_long(&mut self) {
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
fn what_a_round_took_is_paid_back_before_the_next() {
    // A round of 20 members takes 20 ms.
    for (percent, rest_micros) in [(80, 5_000), (67, 9_850), (50, 20_000), (10, 180_000), (2, 980_000)] {
        let mut hall = Hall::new(&shared(percent), 20);
        hall.say("a", 0);
        assert_eq!(hall.turns(), 20, "after quiet, at once");
        let end = hall.uptime;
        hall.say("a", 1);
        hall.say("a", 2);
        let timeout = hall.timeout().unwrap();
        assert!(timeout.abs_diff(Duration::from_micros(rest_micros)) < MILLI / 100, "{percent} %: {timeout:?}");
        hall.uptime += timeout - Duration::from_nanos(1);
        hall.say("a", 3);
        assert_eq!(hall.turn(64), 0, "{percent} %: it has not paid yet");
        assert!(!hall.hub.is_flushed());
        hall.uptime = end + timeout;
        assert_eq!(hall.timeout(), Some(Duration::ZERO));
        hall.turn(64);
        assert_eq!(hall.turns(), 0);
        (0..20).for_each(|slot| assert_eq!(hall.received(slot), (vec![1, 2, 3, 4], 2), "{percent} %"));
        assert!(hall.hub.is_flushed());
    }
}

#[test]
fn no_room_rests_longer_than_a_second() {
    // A round that takes two seconds, of itself or because the process stood still.
    let mut hall = Hall::new(&shared(10), 20);
    hall.send = 100 * MILLI;
    for _ in 0..2 {
        hall.say("a", 0);
        hall.turns();
        hall.say("a", 0);
        assert_eq!(hall.timeout(), Some(1000 * MILLI));
        hall.uptime += 1000 * MILLI;
        hall.turn(64);
        hall.turns();
    }
    assert_eq!(hall.received(7).0, [1, 2, 3, 4]);
}

#[test]
fn a_room_that_may_take_all_of_the_loop_never_rests() {
    let mut hall = Hall::new(&shared(100), 20);
    for said in 1..=5 {
        hall.say("a", 0);
        assert_eq!(hall.turns(), 20);
        assert_eq!(hall.received(7).1, said);
    }
    assert_eq!(hall.hub.stats().rests, 0);
}

#[test]
fn a_small_room_does_not_wait_for_a_slice_of_a_giant_one() {
    let mut hall = Hall::new(&shared(100), 300);
    (400..402).for_each(|slot| hall.join(slot, "small"));
    hall.rest_long();
    hall.say("a", 0);
    assert_eq!(hall.turn(64), 64);
    hall.say("small", 400);
    assert_eq!(hall.turn(64), 64);
    assert_eq!((hall.received(400).1, hall.received(401).1), (1, 1));
}

#[test]
fn rooms_get_on_while_connections_drain_all_the_time() {
    let mut hall = Hall::new(&shared(100), 100);
    for slot in 200..202 {
        hall.join(slot, "other");
    }
    hall.rest_long();
    // None of a's sockets takes anything.
    hall.say("a", 0);
    while hall.hub.has_work() {
        let now = hall.now();
        hall.hub.flush_rooms(now, 64, &mut || now, &mut |_, _| 0);
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
fn a_giant_room_gets_on_while_small_ones_never_rest() {
    let mut hall = Hall::new(&shared(100), 300);
    for slot in 400..500 {
        hall.join(slot, &format!("small-{slot}"));
    }
    hall.rest_long();
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

#[test]
fn only_its_own_slices_count_when_rounds_interleave() {
    let mut hall = Hall::new(&shared(50), 100);
    (200..300).for_each(|slot| hall.join(slot, "b"));
    hall.rest_long();
    hall.say("a", 0);
    hall.say("b", 200);
    // 64 for a; 32 for b, which has just begun, and 32 for a; 64 for b; 4 for each; and what else a loop does.
    for sends in [64, 64, 64, 8] {
        assert_eq!(hall.turn(64), sends);
        hall.uptime += 7 * MILLI;
    }
    hall.say("a", 0);
    hall.say("b", 200);
    // Each owes 100 ms, a since its end 4 + 7 ms ago.
    assert_eq!(hall.timeout(), Some(89 * MILLI));
    hall.uptime += 89 * MILLI;
    assert_eq!(hall.turn(64), 64);
    // What a takes pays for b.
    assert_eq!((hall.turn(64), hall.turn(64), hall.turn(64)), (64, 64, 8));
    assert_eq!((hall.received(0).1, hall.received(200).1), (2, 2));
}

#[test]
fn quiet_time_pays() {
    let mut hall = Hall::new(&shared(50), 20);
    hall.say("a", 0);
    hall.turns();
    hall.uptime += 20 * MILLI;
    hall.say("a", 0);
    assert_eq!(hall.turns(), 20);
    assert_eq!(hall.hub.stats().rests, 0);
}

#[test]
fn what_comes_during_a_round_waits_for_the_end_of_the_rest() {
    let mut hall = Hall::new(&shared(50), 100);
    hall.say("a", 0);
    assert_eq!(hall.turn(64), 64);
    hall.say("a", 0);
    assert_eq!(hall.turn(64), 36);
    assert_eq!(hall.timeout(), Some(100 * MILLI));
    hall.uptime += 100 * MILLI;
    assert_eq!(hall.turn(64), 64);
    hall.turns();
    // Whom the first round reached late already has both.
    assert_eq!((hall.received(0), hall.received(99)), ((vec![1, 2], 1), (vec![1, 2], 2)));
}

#[test]
fn a_small_room_rests_only_when_it_owes_a_millisecond() {
    let mut hall = Hall::new(&shared(50), 2);
    hall.send = MILLI / 10;
    let mut rounds = 0;
    for _ in 0..100 {
        hall.say("a", 0);
        rounds += u32::from(hall.turns() > 0);
        if !hall.hub.is_flushed() {
            // It paid nothing between: each round took 0.2 ms.
            assert_eq!((rounds, hall.timeout()), (5, Some(MILLI)));
            hall.uptime += MILLI;
            assert_eq!(hall.turn(64), 2);
            // That one is owed again.
            rounds = 1;
        }
    }
    assert_eq!(hall.hub.stats().rests, 19);
}

#[test]
fn a_rest_ends_before_a_full_log_would_refuse_anything() {
    let config = with_small_log(1);
    let mut hall = Hall::new(&config, 20);
    for said in 1..=100 {
        hall.say("a", 0);
        hall.tell(0, &format!(r#"{{"type":"chat","room":"a","text":"{}"}}"#, "x".repeat(900)));
        hall.turns();
        assert_eq!(hall.hub.stats().errors, 0, "after {said} messages: {}", hall.own);
    }
    let stats = hall.hub.stats();
    assert!((10..=20).contains(&stats.rests_cut), "{stats:?}");
    // What was not taken as rest is not owed for ever: 1.98 s are what one round costs.
    hall.uptime += Duration::from_millis(1_980);
    hall.turn(64);
    assert!(hall.hub.is_flushed());
    assert_eq!(hall.received(5).0, (1..=200).collect::<Vec<_>>());
    assert_eq!((stats.fallbacks, stats.errors), (0, 0));
}

#[test]
fn all_rests_end_before_the_logs_together_refuse_anything() {
    let mut config = shared(1);
    config.limits.log_bytes_max = 64 * 1024;
    config.limits.log_bytes_total_max = 64 * 1024;
    config.limits.message_bytes_max = 4 * 1024;
    let mut hall = Hall::new(&config, 20);
    for slot in 20..24 {
        hall.join(slot, &format!("r{slot}"));
    }
    hall.rest_long();
    hall.say("a", 0);
    (20..24).for_each(|slot| hall.say(&format!("r{slot}"), slot));
    hall.turns();
    for _ in 0..200 {
        for slot in 20..24 {
            hall.tell(slot, &format!(r#"{{"type":"chat","room":"r{slot}","text":"{}"}}"#, "x".repeat(900)));
        }
        hall.say("a", 0);
        hall.turns();
        assert!(hall.hub.stats().log_bytes <= 32 * 1024);
    }
    assert_eq!(hall.hub.stats().errors, 0, "{}", hall.own);
    assert!(hall.hub.stats().rests_cut > 20);
}

#[test]
fn a_room_with_half_a_log_at_the_end_of_a_round_does_not_rest() {
    let config = with_small_log(1);
    let mut hall = Hall::new(&config, 100);
    hall.say("a", 0);
    assert_eq!(hall.turn(64), 64);
    for _ in 0..9 {
        hall.tell(0, &format!(r#"{{"type":"chat","room":"a","text":"{}"}}"#, "x".repeat(900)));
    }
    // The rest of the round, and at once the beginning of the next.
    assert_eq!(hall.turn(64), 36 + 28);
    assert_eq!(hall.turns(), 36);
    assert_eq!((hall.hub.stats().rests, hall.hub.stats().rests_cut), (0, 1));
}

#[test]
fn what_a_laggard_holds_of_the_log_does_not_end_rests() {
    let config = with_small_log(50);
    let mut hall = Hall::new(&config, 20);
    hall.full = Some(4);
    let mut most = 0;
    for _ in 0..60 {
        hall.tell(0, &format!(r#"{{"type":"chat","room":"a","text":"{}"}}"#, "x".repeat(900)));
        hall.turns();
        most = most.max(hall.hub.stats().log_bytes);
        hall.uptime += hall.hub.timeout(hall.now()).filter(|timeout| *timeout < 30 * MILLI).unwrap_or_default();
        hall.turn(64);
    }
    let stats = hall.hub.stats();
    assert!(most > 12 * 1024 && stats.fallbacks > 0, "{most} bytes, {stats:?}");
    assert_eq!((stats.rests, stats.rests_cut, stats.errors), (59, 0, 0));
}

#[test]
fn no_room_rests_while_all_logs_together_are_half_full() {
    let mut config = shared(1);
    config.limits.log_bytes_max = 64 * 1024;
    config.limits.log_bytes_total_max = 64 * 1024;
    config.limits.message_bytes_max = 4 * 1024;
    let mut hall = Hall::new(&config, 20);
    hall.join(30, "b");
    hall.rest_long();
    // What is owed to somebody whose socket is full stays in the log of b.
    hall.full = Some(30);
    for _ in 0..37 {
        hall.tell(30, &format!(r#"{{"type":"chat","room":"b","text":"{}"}}"#, "x".repeat(900)));
        hall.turns();
    }
    assert!(hall.hub.stats().log_bytes > 32 * 1024);
    let before = hall.hub.stats();
    for _ in 0..4 {
        hall.say("a", 0);
        assert_eq!(hall.turns(), 20);
    }
    let after = hall.hub.stats();
    assert_eq!((after.rests - before.rests, after.rests_cut - before.rests_cut), (0, 3));
}

#[test]
fn what_is_promised_to_a_slow_bus_ends_a_rest_too() {
    let config = with_small_log(1);
    let mut hall = Hall::new(&config, 20);
    hall.say("a", 0);
    hall.turns();
    hall.say("a", 0);
    assert!(!hall.hub.is_flushed() && hall.hub.stats().rests == 1);
    let chat = format!(r#"{{"type":"chat","room":"a","text":"{}"}}"#, "x".repeat(900));
    for _ in 0..9 {
        hall.hub.handle_text(hall.now(), id(0), &chat);
    }
    // The bus takes them, and answers some other time.
    while hall.hub.poll_bus_request().is_some() {}
    assert!(hall.hub.has_work(), "the room still rests");
    let now = hall.now();
    let mut sends = 0;
    hall.hub.flush_rooms(now, 64, &mut || now, &mut |_, frames| {
        sends += 1;
        frames.len()
    });
    assert_eq!(sends, 20);
    assert_eq!(hall.hub.stats().errors, 0);
}

#[test]
fn what_the_host_says_ends_a_rest_too() {
    let config = with_small_log(1);
    let mut hall = Hall::new(&config, 20);
    hall.say("a", 0);
    hall.turns();
    let mut publication = host::publication(&"x".repeat(900), None);
    publication.room = RoomName::new("a").unwrap();
    while hall.hub.stats().log_bytes <= 8 * 1024 {
        assert!(!hall.hub.has_work());
        hall.hub.publish_for_host(hall.now(), &publication).unwrap();
        hall.run_bus();
    }
    assert_eq!((hall.hub.stats().rests, hall.turns()), (1, 20));
}

#[test]
fn a_shutdown_does_not_wait_for_a_rest() {
    let mut hall = Hall::new(&shared(1), 20);
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
fn what_is_still_on_its_way_when_a_shutdown_begins_does_not_rest_either() {
    let mut hall = Hall::new(&shared(1), 20);
    hall.say("a", 0);
    hall.turns();
    hall.hub.handle_text(hall.now(), id(0), r#"{"type":"chat","room":"a","text":"last"}"#);
    hall.hub.start_draining();
    hall.run_bus();
    assert_eq!(hall.turns(), 20);
    assert!(hall.hub.is_flushed());
}

#[test]
fn who_takes_bytes_again_is_served_while_the_room_rests() {
    let mut hall = Hall::new(&shared(10), 20);
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
fn who_leaves_while_the_room_rests_is_sent_first_what_is_owed() {
    let mut hall = Hall::new(&shared(50), 20);
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
fn a_room_that_ends_while_it_rests_leaves_nothing_behind() {
    let mut hall = Hall::new(&shared(1), 20);
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
    /// What the clock of this test's server shows, and how much later it is at every look.
    static CLOCK: Cell<(Duration, Duration)> = const { Cell::new((Duration::from_secs(5), Duration::ZERO)) };
}

/// A clock that is a little later at every look: everything takes time, however fast the machine is.
fn ticking() -> Now {
    let (uptime, step) = CLOCK.get();
    CLOCK.set((uptime + step, step));
    Now { uptime, unix_ms: 0 }
}

/// Sends of the room's log for 30 messages, one a turn, and what the only member got.
fn thirty_messages(percent: u32) -> (u64, Vec<u64>) {
    CLOCK.set((Duration::from_secs(5), Duration::ZERO));
    let mut config = host::config();
    config.limits.room_share_percent = percent;
    let mut host = Host::with(config, OpenPolicy, ticking);
    let address = host.listen();
    let mut member = host.serve(|| {
        let mut raw = Raw::open(address, "/ws");
        raw.send(&frame(TEXT, true, br#"{"type":"join","room":"lobby"}"#));
        raw.json_of("presence");
        raw
    });
    let before = host.server.stats().hub;
    CLOCK.set((CLOCK.get().0, MILLI));
    for number in 1..=30 {
        member.send(&frame(TEXT, true, br#"{"type":"chat","room":"lobby","text":"hello"}"#));
        host.turn_until("the message", |host| host.server.stats().hub.messages_delivered == number);
    }
    host.turn_until("the last send", |host| host.server.stats().hub.log_bytes == 0);
    let seqs = host.serve(|| (0..30).map(|_| member.json_of("chat")["seq"].as_u64().unwrap()).collect());
    (host.server.stats().hub.sends - before.sends, seqs)
}

#[test]
fn messages_that_come_one_by_one_go_out_together() {
    let all: Vec<u64> = (1..=30).collect();
    assert_eq!(thirty_messages(100), (30, all.clone()));
    // At one percent a round of some milliseconds is paid back by hundreds, which is dozens of turns.
    let (sends, seqs) = thirty_messages(1);
    assert_eq!(seqs, all);
    assert!(sends <= 5, "{sends} sends");
}

#[test]
fn the_loop_sleeps_while_a_room_rests() {
    CLOCK.set((Duration::from_secs(5), Duration::ZERO));
    let mut config = host::config();
    config.limits.room_share_percent = 1;
    let mut host = Host::with(config, OpenPolicy, ticking);
    let address = host.listen();
    let mut member = host.serve(|| {
        let mut raw = Raw::open(address, "/ws");
        raw.send(&frame(TEXT, true, br#"{"type":"join","room":"lobby"}"#));
        raw.json_of("presence");
        raw
    });
    CLOCK.set((CLOCK.get().0, MILLI));
    for number in 1..=2 {
        member.send(&frame(TEXT, true, br#"{"type":"chat","room":"lobby","text":"hello"}"#));
        host.turn_until("the message", |host| host.server.stats().hub.messages_delivered == number);
    }
    CLOCK.set((CLOCK.get().0, Duration::ZERO));
    host.turn(LOOK);
    let timeout = host.server.timeout().expect("a room rests");
    assert!(timeout > 10 * MILLI && timeout < Duration::from_secs(1), "{timeout:?}");
    let turns = host.server.stats().turns;
    CLOCK.set((CLOCK.get().0 + timeout, Duration::ZERO));
    assert_eq!(host.server.timeout(), Some(Duration::ZERO));
    host.turn(LOOK);
    assert_eq!((host.server.stats().hub.log_bytes, host.server.stats().turns), (0, turns + 1));
}
