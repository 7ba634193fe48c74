//! Slow members go on from history and do not affect others. Only a member that takes nothing at all
//! is closed.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

use serde_json::{Value, json};

use crate::support::chat::{View, chat, is, seqs};
use crate::support::{Client, PATIENCE, Server};

/// A log that is soon full, and no limit on how fast the others speak.
const SMALL_LOG: [&str; 8] =
    ["--message-rate", "0", "--log-bytes", "64KiB", "--message-bytes", "2KiB", "--history-messages", "100000"];

/// A healthy member and one that reads nothing until it is asked to, both in the lobby.
fn ann_and_slow(server: &Server) -> (Client, Client) {
    let mut ann = Client::connect_as(server, "ann");
    ann.join("lobby");
    let mut slow = Client::build(server).user("slow").small_receive_buffer().connect();
    slow.join("lobby");
    (ann, slow)
}

/// Says `count` messages of a kibibyte and reads them all back: the healthy are served whatever the slow do.
fn flood(ann: &mut Client, count: u64) {
    let text = "x".repeat(1024);
    for batch in 0..count / 10 {
        for _ in 0..10 {
            ann.say("lobby", &text);
        }
        let last = (batch + 1) * 10;
        ann.recv_until(|message| message["type"] == "chat" && message["seq"] == last);
    }
}

/// Everything that the slow one is sent until it has seen `last`; says whether it was told of a hole, and the numbers.
fn read_all(slow: &mut Client, last: u64) -> (Vec<u64>, Vec<bool>) {
    let (mut seqs, mut recovered) = (Vec::new(), Vec::new());
    while seqs.last() != Some(&last) {
        let message = slow.recv();
        match message["type"].as_str() {
            Some("chat") => seqs.push(message["seq"].as_u64().unwrap()),
            Some("joined") => recovered.push(message["recovered"].as_bool().unwrap()),
            _ => {}
        }
    }
    (seqs, recovered)
}

#[test]
fn a_slow_reader_falls_back_and_loses_nothing() {
    let server = Server::spawn(&SMALL_LOG);
    let (mut ann, mut slow) = ann_and_slow(&server);
    // More than the socket buffers of both ends and the log hold.
    flood(&mut ann, 4000);
    let (seqs, _) = read_all(&mut slow, 4000);
    assert_eq!(seqs, (1..=4000).collect::<Vec<_>>());
    // It becomes level again, and is told so.
    ann.say("lobby", "are you there?");
    let seen = slow.recv_until(|message| message["text"] == "are you there?");
    assert!(seen.iter().all(|message| message["recovered"] != false), "{seen:?}");
}

#[test]
fn a_slow_reader_is_told_what_history_no_longer_holds() {
    let flags = [&SMALL_LOG[..6], &["--history-messages", "20"]].concat();
    let server = Server::spawn(&flags);
    let (mut ann, mut slow) = ann_and_slow(&server);
    flood(&mut ann, 4000);
    let (seqs, _) = read_all(&mut slow, 4000);
    assert!(seqs.len() < 4000 && seqs.is_sorted(), "nothing was dropped, so nothing is shown");
    let joined = slow.recv_until(|message| message["type"] == "joined");
    assert_eq!(joined.last().unwrap()["recovered"], false, "a hole must be told");
}

#[test]
fn a_client_that_takes_nothing_is_closed_and_the_third_time_for_good() {
    let flags = [&SMALL_LOG[..], &["--stall-timeout", "500ms", "--presence-grace", "0s"]].concat();
    let server = Server::spawn(&flags);
    let mut ann = Client::connect_as(&server, "ann");
    ann.join("lobby");
    let mut said = 0;
    for expected in [4002, 4002, 4502] {
        let mut stalled = Client::build(&server).user("stalled").small_receive_buffer().connect();
        stalled.join("lobby");
        let text = "x".repeat(1024);
        let is_gone = |message: &Value| {
            message == &json!({"type": "presence", "room": "lobby", "userId": "stalled", "status": "offline"})
        };
        // It may be closed while ann still speaks.
        let mut was_gone = false;
        for _ in 0..4000 {
            ann.say("lobby", &text);
            said += 1;
            if said % 10 == 0 {
                let seen = ann.recv_until(|message| message["type"] == "chat" && message["seq"] == said);
                was_gone |= seen.iter().any(is_gone);
            }
        }
        if !was_gone {
            ann.recv_until(is_gone);
        }
        // The sockets hold whole frames, and Close behind them.
        assert_eq!(stalled.expect_close(), expected);
    }
}

/// Reads what a room owes until nothing is missing up to `last`.
fn read_until_level(client: &mut Client, view: &mut View, last: u64) {
    let deadline = Instant::now() + PATIENCE;
    while !view.is_level(last) {
        assert!(Instant::now() < deadline, "it has come to {} of {last}", view.seq());
        view.take(&client.recv());
    }
}

#[test]
fn one_that_does_not_read_delays_nobody_and_recovers() {
    let server = Server::spawn(&SMALL_LOG);
    let mut ann = Client::connect_as(&server, "ann");
    ann.join("lobby");
    let mut slow = Client::build(&server).user("slow").small_receive_buffer().connect();
    let mut view = View::default();
    view.take(&slow.join("lobby"));
    let healthy: Vec<_> = (0..3).map(|number| Client::connect_as(&server, &format!("healthy-{number}"))).collect();
    std::thread::scope(|scope| {
        for mut client in healthy {
            client.join("lobby");
            scope.spawn(move || {
                let seen = client.recv_until(|message| is(message, "chat") && message["seq"] == 3000);
                assert_eq!(seqs(&seen), (1..=3000).collect::<Vec<_>>());
            });
        }
        flood(&mut ann, 3000);
    });
    read_until_level(&mut slow, &mut view, 3000);
    assert_eq!((view.chats, view.lost), (3000, 0));
    // When it has caught up it is told so; the others talk on, and it is one of them again.
    while view.recovered == 0 {
        view.take(&slow.recv());
    }
    ann.say("lobby", "welcome back");
    let seen = slow.recv_until(|message| message["text"] == "welcome back");
    seen.iter().for_each(|message| view.take(message));
    assert!(view.is_level(3001));
}

/// One reads with a tiny window while another floods, and pings in between; every answer and every frame is whole.
fn check_reading_while_others_talk(history_messages: &str) -> View {
    const SAID: u64 = 3000;
    let flags = [&SMALL_LOG[..6], &["--history-messages", history_messages]].concat();
    let server = Server::spawn(&flags);
    let mut ann = Client::connect_as(&server, "ann");
    ann.join("lobby");
    let mut slow = Client::build(&server).user("slow").small_receive_buffer().connect();
    let mut view = View::default();
    view.take(&slow.join("lobby"));
    let (mut read, mut pings, mut pongs) = (0, 0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| flood(&mut ann, SAID));
        let deadline = Instant::now() + 2 * PATIENCE;
        while !(view.is_level(SAID) && pongs == pings) {
            assert!(Instant::now() < deadline, "{} of {SAID}, {pongs} of {pings} pongs", view.seq());
            let message = slow.recv();
            view.take(&message);
            read += 1;
            if is(&message, "pong") {
                pongs += 1;
                assert_eq!(message["id"], pongs.to_string(), "pongs come in the order of the pings");
            } else if read % 10 == 0 {
                pings += 1;
                slow.send_json(&json!({"type": "ping", "id": pings.to_string()}));
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        }
    });
    view
}

#[test]
fn one_that_reads_slowly_gets_whole_frames_and_every_message() {
    let view = check_reading_while_others_talk("100000");
    assert_eq!((view.chats, view.lost), (3000, 0));
}

#[test]
fn one_that_reads_slowly_is_told_of_every_hole() {
    // The view panics at a hole that no `joined` owns up to; whether there is one depends on the machine.
    check_reading_while_others_talk("20");
}

/// A client that keeps at most 20 messages unacknowledged, and sends refused ones again.
fn talk_under_load(client: &mut Client, name: &str, count: usize) -> BTreeMap<String, u64> {
    let text = "x".repeat(1024);
    let mut waiting: VecDeque<String> = (0..count).map(|number| format!("{name}-{number}")).collect();
    let (mut in_flight, mut told) = (0, BTreeMap::new());
    let deadline = Instant::now() + 2 * PATIENCE;
    while told.len() < count {
        assert!(Instant::now() < deadline, "{} of {count} were taken", told.len());
        while in_flight < 20 {
            let Some(id) = waiting.pop_front() else { break };
            client.send_json(&chat("lobby", &text, &id));
            in_flight += 1;
        }
        let message = client.recv();
        let Some(id) = message["id"].as_str().filter(|id| id.starts_with(name)) else { continue };
        if is(&message, "error") {
            assert_eq!((&message["code"], &message["temporary"]), (&json!("room_busy"), &json!(true)), "{message}");
            waiting.push_back(id.to_owned());
            in_flight -= 1;
        } else if told.insert(id.to_owned(), message["seq"].as_u64().expect("a seq")).is_none() {
            in_flight -= 1;
        }
    }
    told
}

#[test]
fn many_talkers_and_a_full_log_cost_nobody_anything() {
    let flags = [&SMALL_LOG[..], &["--stall-timeout", "1m"]].concat();
    let server = Server::spawn(&flags);
    let _slow: Vec<_> = (0..5)
        .map(|number| {
            let mut slow = Client::build(&server).user(&format!("slow-{number}")).small_receive_buffer().connect();
            slow.join("lobby");
            slow
        })
        .collect();
    let numbers = std::thread::scope(|scope| {
        let talkers: Vec<_> = (0..4)
            .map(|number| {
                let name = format!("talker{number}");
                let mut client = Client::connect_as(&server, &name);
                client.join("lobby");
                scope.spawn(move || talk_under_load(&mut client, &name, 500))
            })
            .collect();
        talkers.into_iter().flat_map(|talker| talker.join().expect("it was served").into_values()).collect::<Vec<_>>()
    });
    let mut numbers = numbers;
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=2000).collect::<Vec<_>>(), "each message was taken once");
}

/// The memory that the server has in use, in bytes.
#[cfg(target_os = "linux")]
fn memory_bytes(server: &Server) -> usize {
    let path = format!("/proc/{}/status", server.pid().as_raw_nonzero());
    let status = std::fs::read_to_string(path).expect("the process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line VmRSS");
    let kibibytes: usize = line.trim().trim_end_matches(" kB").parse().expect("a number of kB");
    kibibytes * 1024
}

#[cfg(target_os = "linux")]
#[test]
fn slow_readers_in_fifty_rooms_cost_no_memory() {
    const ROOMS: usize = 50;
    let flags = [&SMALL_LOG[..], &["--history-bytes", "4MiB", "--stall-timeout", "1m"]].concat();
    let server = Server::spawn(&flags);
    let rooms: Vec<_> = (0..ROOMS).map(|number| format!("room-{number}")).collect();
    let slow = |number: usize| {
        let mut slow = Client::build(&server).user(&format!("slow-{number}")).small_receive_buffer().connect();
        rooms.iter().for_each(|room| drop(slow.join(room)));
        slow
    };
    let mut slow: Vec<_> = (0..10).map(slow).collect();
    let mut ann = Client::connect_as(&server, "ann");
    rooms.iter().for_each(|room| drop(ann.join(room)));
    let before = memory_bytes(&server);
    let text = "x".repeat(1900);
    let mut highest = before;
    for number in 1..=100 {
        for room in &rooms {
            ann.say(room, &text);
        }
        let last = rooms.last().expect("there are rooms");
        ann.recv_until(|message| is(message, "chat") && message["seq"] == number && message["room"] == *last);
        highest = highest.max(memory_bytes(&server));
    }
    // Ten megabytes were said, of which history keeps four and the logs three. Queues of ten clients would hold a hundred.
    let grown = highest - before;
    assert!(grown < 30 << 20, "grown by {grown} bytes from {before}");
    ann.say(&rooms[0], "still here");
    ann.recv_until(|message| message["text"] == "still here");
    slow[0].recv_until(|message| message["text"] == "still here");
}
