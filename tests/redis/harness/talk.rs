//! Clients that talk while something happens to Redis, and checks of the histories afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::nodes::history;
use crate::harness::redis::LONG;
use crate::support::chat::{chat, is, seqs};
use crate::support::{Client, Server};

/// The messages that a talker has sent, and what it was told about them.
pub(crate) struct Said {
    pub(crate) user: String,
    pub(crate) room: String,
    pub(crate) acknowledged: BTreeSet<String>,
    /// The highest number seen.
    pub(crate) top: u64,
    /// How often it was told that an epoch is not continued.
    pub(crate) breaks: usize,
}

/// A client that sends unacknowledged messages again under the same id, as the protocol wants it.
pub(crate) struct Talker {
    client: Client,
    next: usize,
    open: BTreeMap<String, Instant>,
    said: Said,
}

impl Talker {
    /// Sends again after so long without an answer.
    const AGAIN_AFTER: Duration = Duration::from_secs(2);
    const OPEN_MAX: usize = 4;

    pub(crate) fn new(server: &Server, user: &str, room: &str) -> Self {
        let mut client = Client::connect_as(server, user);
        client.join(room);
        let (user, room) = (user.to_owned(), room.to_owned());
        let said = Said { user, room, acknowledged: BTreeSet::new(), top: 0, breaks: 0 };
        Self { client, next: 0, open: BTreeMap::new(), said }
    }

    fn send(&mut self, id: String) {
        let text = format!("{} {id}", self.said.user);
        self.client.send_json(&chat(&self.said.room, &text, &id));
        self.open.insert(id, Instant::now());
    }

    fn turn(&mut self, says_more: bool) {
        if says_more && self.open.len() < Self::OPEN_MAX {
            self.next += 1;
            self.send(format!("m{}", self.next));
        }
        while let Some(message) = self.client.try_recv(Duration::from_millis(2)) {
            let seq = message["seq"].as_u64().unwrap_or(0);
            if is(&message, "joined") {
                self.said.top = seq;
                self.said.breaks += usize::from(message["recovered"] == false);
            }
            self.said.top = self.said.top.max(seq);
            let id = message["id"].as_str().unwrap_or_default();
            let is_own = is(&message, "ack") || is(&message, "chat") && message["userId"] == *self.said.user;
            if is_own && self.open.remove(id).is_some() {
                self.said.acknowledged.insert(id.to_owned());
            }
            if is(&message, "error") {
                assert_eq!(message["temporary"], true, "{message}");
            }
        }
        let late: Vec<String> =
            self.open.iter().filter(|(_, at)| at.elapsed() > Self::AGAIN_AFTER).map(|(id, _)| id.clone()).collect();
        late.into_iter().for_each(|id| self.send(id));
    }

    /// Talks until `stop`, then on until everything is acknowledged.
    fn run(mut self, stop: &AtomicBool) -> Said {
        while !stop.load(SeqCst) {
            self.turn(true);
        }
        let deadline = Instant::now() + LONG;
        while !self.open.is_empty() {
            assert!(Instant::now() < deadline, "{} has no answer to {:?}", self.said.user, self.open);
            self.turn(false);
        }
        assert_eq!(self.said.acknowledged.len(), self.next);
        self.said
    }
}

struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// Two clients a room talk, each on the next node, while `disturb` is at work.
pub(crate) fn talk(servers: &[Server], rooms: &[&str], disturb: impl FnOnce()) -> Vec<Said> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        // Also when something fails: the scope waits for all of them.
        let at_end = StopAtEnd(&stop);
        let talkers: Vec<_> = (0..2 * rooms.len())
            .map(|i| {
                let talker = Talker::new(&servers[i % servers.len()], &format!("t{i}"), rooms[i / 2]);
                scope.spawn(|| talker.run(&stop))
            })
            .collect();
        disturb();
        drop(at_end);
        talkers.into_iter().map(|talker| talker.join().expect("a talker")).collect()
    })
}

/// How often everything that was said in a room is in its history; the numbers have no holes.
pub(crate) fn counts(server: &Server, room: &str, said: &[Said]) -> BTreeMap<(String, String), usize> {
    let top = said.iter().filter(|said| said.room == room).map(|said| said.top).max().unwrap_or(0);
    let messages = history(server, room, top);
    let mut found = BTreeMap::new();
    for message in &messages {
        let key = (message["userId"].as_str().unwrap().to_owned(), message["id"].as_str().unwrap().to_owned());
        *found.entry(key).or_insert(0) += 1;
    }
    assert_eq!(seqs(&messages), (1..=messages.len() as u64).collect::<Vec<_>>());
    found
}

/// Everything that was acknowledged is in history exactly once, on every node, and nothing else is.
pub(crate) fn check_all_kept(servers: &[Server], said: &[Said]) {
    let rooms: BTreeSet<&str> = said.iter().map(|said| said.room.as_str()).collect();
    for (server, room) in servers.iter().flat_map(|server| rooms.iter().map(move |room| (server, *room))) {
        let mut found = counts(server, room, said);
        for Said { user, acknowledged, .. } in said.iter().filter(|said| said.room == room) {
            for id in acknowledged {
                let count = found.remove(&(user.clone(), id.clone())).unwrap_or(0);
                assert_eq!(count, 1, "{user} {id} was acknowledged and is in history {count} times");
            }
        }
        assert!(found.is_empty(), "nobody said {found:?}");
    }
}

/// Everything that is in history is there once, on every node; who was acknowledged something that is not was told that the epoch ended.
pub(crate) fn check_lost_is_told(servers: &[Server], said: &[Said]) {
    for (server, Said { user, room, acknowledged, breaks, .. }) in
        servers.iter().flat_map(|server| said.iter().map(move |said| (server, said)))
    {
        let counts = counts(server, room, said);
        assert!(counts.values().all(|count| *count == 1), "{counts:?}");
        let is_there = |id: &String| counts.contains_key(&(user.clone(), id.clone()));
        assert!(*breaks > 0 || acknowledged.iter().all(is_there), "{user} was not told");
    }
}

/// Ten clients talk in one room while `disturb` is at work; every message acknowledged is then in history exactly once.
pub(crate) fn talk_through(servers: &[Server], disturb: impl FnOnce()) {
    let said = talk(servers, &["lobby"; 5], disturb);
    check_all_kept(servers, &said);
}
