//! Slow members read on from history and hurt nobody; only who takes nothing at all is closed.

mod support;

use serde_json::json;
use support::{Client, Server};

/// A log that is soon full, and no limit on how fast the others speak.
const SMALL_LOG: [&str; 8] =
    ["--message-rate", "0", "--log-bytes", "64KiB", "--message-bytes", "2KiB", "--history-messages", "100000"];

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
    let mut ann = Client::connect_as(&server, "ann");
    ann.join("lobby");
    let mut slow = Client::build(&server).user("slow").small_receive_buffer().connect();
    slow.join("lobby");
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
    let mut ann = Client::connect_as(&server, "ann");
    ann.join("lobby");
    let mut slow = Client::build(&server).user("slow").small_receive_buffer().connect();
    slow.join("lobby");
    flood(&mut ann, 4000);
    let (seqs, _) = read_all(&mut slow, 4000);
    assert!(seqs.len() < 4000 && seqs.is_sorted(), "nothing was dropped, so nothing is shown");
    let joined = slow.recv_until(|message| message["type"] == "joined");
    assert_eq!(joined.last().unwrap()["recovered"], false, "a hole must be told");
}

#[test]
fn who_takes_nothing_is_closed_and_the_third_time_for_good() {
    let flags = [&SMALL_LOG[..], &["--stall-timeout", "500ms", "--presence-grace", "0s"]].concat();
    let server = Server::spawn(&flags);
    let mut ann = Client::connect_as(&server, "ann");
    ann.join("lobby");
    let mut said = 0;
    for expected in [4002, 4002, 4502] {
        let mut stalled = Client::build(&server).user("stalled").small_receive_buffer().connect();
        stalled.join("lobby");
        let text = "x".repeat(1024);
        for _ in 0..4000 {
            ann.say("lobby", &text);
            said += 1;
            if said % 10 == 0 {
                ann.recv_until(|message| message["type"] == "chat" && message["seq"] == said);
            }
        }
        ann.recv_until(|message| {
            message == &json!({"type": "presence", "room": "lobby", "userId": "stalled", "status": "offline"})
        });
        // What the sockets hold is whole frames, and Close behind them.
        assert_eq!(stalled.expect_close(), expected);
    }
}
