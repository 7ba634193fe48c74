//! The names of keys in Redis: readable, and explained in docs/redis.md without exception.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use serde_json::json;

use crate::harness::attendance::{join, until};
use crate::harness::nodes::{is_text, node_with, recv_long};
use crate::harness::redis::{LONG, Redis, eventually};
use crate::support::api::{KEY, command};
use crate::support::chat::{chat, is};

/// The keys and channels in the table of docs/redis.md.
fn documented() -> Vec<String> {
    let page = include_str!("../../docs/redis.md");
    let rows = page.lines().skip_while(|line| !line.starts_with("| key or channel |")).skip(2);
    let names = rows.map_while(|row| Some(row.strip_prefix("| `")?.split_once('`')?.0.to_owned()));
    names.collect()
}

/// Whether a key of the lobby, or of the room of commands, is called like this; `<…>` stands for anything.
fn is_called(key: &str, name: &str) -> bool {
    let name = name.replace("{room}", if key.contains("{lobby}") { "{lobby}" } else { "{%control}" });
    match name.split_once('<') {
        None => key == name,
        Some((before, _)) => key.strip_prefix(before).is_some_and(|rest| !rest.is_empty() && !rest.contains(':')),
    }
}

/// The words of a line of MONITOR. Characters that cannot be printed stay escaped.
fn words(line: &str) -> Vec<String> {
    let (_, rest) = line.split_once("] ").unwrap_or_else(|| panic!("not of MONITOR: {line}"));
    let (mut words, mut word, mut is_within) = (Vec::new(), String::new(), false);
    let mut letters = rest.trim_end().chars();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if is_within => words.push(std::mem::take(&mut word)),
            '"' | ' ' if !is_within => {}
            '\\' => word.extend([letter, letters.next().expect("what is escaped")]),
            _ => word.push(letter),
        }
        is_within ^= letter == '"';
    }
    words
}

/// The keys and channels of a command; a command that is not known here is none that may go unseen.
fn names(words: &[String]) -> &[String] {
    match words[0].to_ascii_uppercase().as_str() {
        "EVALSHA" => &words[3..3 + words[2].parse::<usize>().expect("a number of keys")],
        "SUBSCRIBE" | "UNSUBSCRIBE" | "DEL" => &words[1..],
        "HGET" | "HMGET" | "HSET" | "HDEL" | "HLEN" | "HGETALL" | "HINCRBY" | "GET" | "SET" | "PEXPIRE" | "PUBLISH"
        | "XADD" | "XRANGE" | "XREVRANGE" | "XTRIM" | "XDEL" | "HSCAN" | "ZADD" | "ZRANGE" | "ZREM" | "ZCOUNT" => {
            &words[1..2]
        }
        "PING" | "INFO" | "CLIENT" | "SCRIPT" | "TIME" | "MONITOR" => &[],
        other => panic!("{other} is not known here: {words:?}"),
    }
}

#[test]
fn all_keys_and_channels_can_be_read_and_are_explained() {
    let redis = Redis::start();
    let mut monitor = TcpStream::connect(("127.0.0.1", redis.port)).unwrap();
    monitor.set_read_timeout(Some(LONG)).unwrap();
    monitor.write_all(b"MONITOR\r\n").unwrap();
    let mut lines = BufReader::new(monitor).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), "+OK");

    let flags = ["--presence-lease", "3s", "--presence-grace", "0s", "--api-key", KEY];
    let [one, two] = [(); 2].map(|()| node_with(&redis, &flags));
    let mut bob = join(&two, "bob", "lobby");
    let mut ann = join(&one, "ann", "lobby");
    until(&mut bob, "ann", "online");
    ann.send_json(&json!({"type": "typing", "room": "lobby", "status": "start"}));
    recv_long(&mut bob, "that she types", |message| is(message, "typing"));
    ann.send_json(&chat("lobby", "with an id", "x"));
    ann.say("lobby", "without one");
    recv_long(&mut bob, "the messages", |message| is_text(message, "without one"));
    command(one.address(), "/api/delete", &json!({"room": "lobby", "seq": 1}));
    recv_long(&mut bob, "the deletion", |message| is(message, "deleted"));
    ann.send_json(&json!({"type": "leave", "room": "lobby"}));
    until(&mut bob, "ann", "offline");
    drop((one, two));
    eventually("the nodes have gone", || !redis.ask::<String>(&["CLIENT", "LIST"]).contains(" name=roomcast "));
    // The last line is not from a node.
    redis.ask::<String>(&["ECHO", "the end"]);

    let documented = documented();
    assert!(documented.len() > 5, "{documented:?}");
    let mut seen = BTreeSet::new();
    let is_ours = |line: &String| !line.contains("\"CLIENT\" \"LIST\"") && !line.contains("\"CLIENT\" \"SETINFO\"");
    for line in lines.take_while(|line| !line.contains("\"ECHO\" \"the end\"")).filter(is_ours) {
        let words = words(&line);
        for name in names(&words) {
            let is_plain = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
            assert!(name.bytes().all(is_plain) && !name.contains('\\'), "it cannot be read: {line}");
            let found = documented.iter().find(|documented| is_called(name, documented));
            seen.extend(Some(found.unwrap_or_else(|| panic!("docs/redis.md does not know {name}: {line}"))));
        }
    }
    assert_eq!(seen.len(), documented.len(), "not all of {documented:?} were used: {seen:?}");
}
