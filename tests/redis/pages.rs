//! What a page of history costs Redis.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::{SystemTime, UNIX_EPOCH};

use roomcast::Config;
use roomcast::bus::ReadFrom;

use crate::harness::bus::Node;
use crate::harness::redis::{LONG, Redis};

/// How many entries each XRANGE has asked for while `act` ran.
fn counts(redis: &Redis, act: impl FnOnce()) -> Vec<usize> {
    let mut monitor = TcpStream::connect(("127.0.0.1", redis.port)).unwrap();
    monitor.set_read_timeout(Some(LONG)).unwrap();
    monitor.write_all(b"MONITOR\r\n").unwrap();
    let mut lines = BufReader::new(monitor).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), "+OK");
    act();
    redis.ask::<String>(&["ECHO", "the end"]);
    let lines = lines.take_while(|line| !line.contains("\"ECHO\" \"the end\""));
    let ranges = lines.filter(|line| line.contains("\"XRANGE\""));
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
        let counts = counts(&redis, || found = read_all(&mut node, 64 * 1024));
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
        let counts = counts(&redis, || {
            let page = node.read(ReadFrom::After(0), 64 * 1024);
            assert_eq!(page.messages.iter().map(|message| message.seq).collect::<Vec<_>>(), seqs[old..]);
        });
        assert_eq!(redis.ask::<usize>(&["XLEN", "roomcast:{lobby}:log"]), seqs.len() - old);
        assert!(counts.len() <= 14, "{counts:?}");
    }
}
