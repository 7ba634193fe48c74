//! What a page of history costs Redis.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::{SystemTime, UNIX_EPOCH};

use roomcast::Config;
use roomcast::bus::ReadFrom;

use crate::harness::bus::Node;
use crate::harness::redis::{LONG, Redis};

/// How many entries each call of a command has asked for while `act` ran.
fn counts(redis: &Redis, command: &str, act: impl FnOnce()) -> Vec<usize> {
    let mut monitor = TcpStream::connect(("127.0.0.1", redis.port)).unwrap();
    monitor.set_read_timeout(Some(LONG)).unwrap();
    monitor.write_all(b"MONITOR\r\n").unwrap();
    let mut lines = BufReader::new(monitor).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), "+OK");
    act();
    redis.ask::<String>(&["ECHO", "the end"]);
    let lines = lines.take_while(|line| !line.contains("\"ECHO\" \"the end\""));
    let command = format!("\"{command}\"");
    let ranges = lines.filter(|line| line.contains(&command));
    ranges.map(|line| line.rsplit('"').nth(1).and_then(|count| count.parse().ok()).expect("a count")).collect()
}

/// Reads all of history in pages, and says how many pages and messages there were.
fn read_all(node: &mut Node, bytes_max: usize) -> (usize, usize) {
    let (mut pages, mut reached) = (0, 0);
    loop {
        let page = node.read(ReadFrom::After(reached), bytes_max);
        pages += 1;
        for message in &page.messages {
            assert_eq!(message.seq, reached + 1);
            reached = message.seq;
        }
        if page.complete {
            return (pages, reached as usize);
        }
    }
}

#[test]
fn a_page_fetches_hardly_more_of_history_than_it_gives() {
    for (size, messages) in [(15_000, 100), (100, 1000), (40_000, 5)] {
        let redis = Redis::start();
        let mut node = Node::start(&redis, &Config::default(), 1);
        let tickets: Vec<_> = (0..messages).map(|_| node.publish(&"x".repeat(size))).collect();
        for ticket in tickets {
            node.outcome(ticket);
        }
        let mut found = (0, 0);
        let counts = counts(&redis, "XRANGE", || found = read_all(&mut node, 64 * 1024));
        let (pages, read) = found;
        assert_eq!(read, messages);
        // One more is fetched to look at the age, and two to see that no more fit.
        let most = messages + 3 * pages;
        assert!(counts.iter().sum::<usize>() <= most, "{pages} pages of {size} bytes each: {counts:?}");
        assert!(counts.len() <= 10 * pages + messages / 32, "{pages} pages: {counts:?}");
    }
}

#[test]
fn history_is_cut_off_just_before_the_first_message_that_is_young_enough() {
    let redis = Redis::start();
    let mut node = Node::start(&redis, &Config::default(), 1);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis().to_string();
    // Numbers need not follow each other.
    let seqs = [2, 3, 4, 9, 20, 21, 100, 150_u64];
    for old in 0..=seqs.len() {
        redis.ask::<u32>(&["DEL", "roomcast:{lobby}:log"]);
        redis.ask::<u32>(&["HSET", "roomcast:{lobby}:meta", "epoch", "e", "line", "e", "seq", "150"]);
        for (index, seq) in seqs.iter().enumerate() {
            let time = if index < old { "1" } else { &now };
            redis.ask::<String>(&["XADD", "roomcast:{lobby}:log", &format!("{seq}-0"), "b", "body", "t", time]);
        }
        let counts = counts(&redis, "XRANGE", || {
            let page = node.read(ReadFrom::After(0), 64 * 1024);
            assert_eq!(page.messages.iter().map(|message| message.seq).collect::<Vec<_>>(), seqs[old..]);
        });
        assert_eq!(redis.ask::<usize>(&["XLEN", "roomcast:{lobby}:log"]), seqs.len() - old);
        assert!(counts.len() <= 14, "{counts:?}");
    }
}

/// Reads all of history backwards, in pages of at most so many messages and bytes. Gives the numbers of each page.
fn read_back(node: &mut Node, count: u32, bytes_max: usize) -> Vec<Vec<u64>> {
    let (mut pages, mut seq) = (Vec::new(), None);
    loop {
        let page = node.read(ReadFrom::Before { seq, count }, bytes_max);
        let seqs: Vec<_> = page.messages.iter().map(|message| message.seq).collect();
        seq = seqs.first().copied();
        pages.push(seqs);
        if page.complete {
            return pages;
        }
    }
}

#[test]
fn a_page_of_older_messages_fetches_hardly_more_of_history_than_it_gives() {
    for (size, messages, per_page) in [(15_000, 20, 4), (100, 250, 100), (100_000, 3, 1), (100, 100, 100)] {
        let redis = Redis::start();
        let mut node = Node::start(&redis, &Config::default(), 1);
        let tickets: Vec<_> = (0..messages).map(|_| node.publish(&"x".repeat(size))).collect();
        for ticket in tickets {
            node.outcome(ticket);
        }
        let mut pages = Vec::new();
        let counts = counts(&redis, "XREVRANGE", || pages = read_back(&mut node, 100, 64 * 1024));
        assert!(pages.iter().rev().flatten().copied().eq(1..=messages), "{pages:?}");
        let (last, full) = pages.split_last().unwrap();
        assert!(full.iter().all(|page| page.len() == per_page) && (1..=per_page).contains(&last.len()), "{pages:?}");
        // One more is fetched for the position, and two to see that no more fit.
        let most = messages as usize + 3 * pages.len();
        assert!(counts.iter().sum::<usize>() <= most, "{} pages of {size} bytes each: {counts:?}", pages.len());
        assert!(counts.len() <= 10 * pages.len(), "{} pages: {counts:?}", pages.len());
    }
}

#[test]
fn pages_of_older_messages_end_where_history_is_too_old() {
    let redis = Redis::start();
    let mut node = Node::start(&redis, &Config::default(), 1);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis().to_string();
    let run = redis.info("run_id").expect("a run");
    redis.ask::<u32>(&["HSET", "roomcast:{lobby}:meta", "epoch", "e", "line", "e", "seq", "150", "run", &run[..8]]);
    for (seq, time) in [("2", "1"), ("3", "1"), ("9", &now), ("20", &now), ("150", &now)] {
        redis.ask::<String>(&["XADD", "roomcast:{lobby}:log", &format!("{seq}-0"), "b", "body", "t", time]);
    }
    let mut check = |seq, count, expected: &[u64], complete| {
        let page = node.read(ReadFrom::Before { seq, count }, 64 * 1024);
        let seqs: Vec<_> = page.messages.iter().map(|message| message.seq).collect();
        let found = (page.epoch.as_str(), page.top, seqs.as_slice(), page.complete);
        assert_eq!(found, ("e", 150, expected, complete), "{count} before {seq:?}");
    };
    check(None, 2, &[20, 150], false);
    check(Some(u64::MAX), 3, &[9, 20, 150], true);
    check(Some(151), 100, &[9, 20, 150], true);
    check(Some(150), 1, &[20], false);
    check(Some(20), 1, &[9], true);
    for gone in [0, 1, 2, 3, 4, 9] {
        check(Some(gone), 10, &[], true);
    }
}
