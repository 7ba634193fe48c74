//! The bus of a single node: history in memory, every answer in the same turn.

use std::collections::VecDeque;
use std::time::Duration;

use super::Bus;
use super::control::ControlRoom;
use super::dedupe::{DedupePool, RememberedIds, TRIMMED_MAX};
use super::history::{Erased, History, HistoryBounds, HistoryPool, RoomHistory};
use super::message::{
    BusEvent, BusRefusal, BusRequest, Deletion, Numbered, Outcome, Page, Publication, ReadFrom, tombstone,
};
use crate::block_slab::BlockSlab;
use crate::id::{Epoch, RoomName, Unique, name_heap_bytes};
use crate::metric::{Metric, counts};
use crate::name_index::NameIndex;
use crate::settings::{Config, RoomLimitsTable, RuleIndex};
use crate::time::Now;
use crate::timer_wheel::{LOOKS_PER_TURN, Tick, Wheel};

/// Keeps everything in memory.
///
/// **Bounds:** messages of a room by number and age; bytes of all rooms, where the oldest of the [owner](crate::Owner) with the most go
/// first; remembered ids of all rooms, of which each owner has its [share](crate::Owner), and beyond which publications with
/// an id are refused. A room is forgotten, and its epoch with it, when it is not open, its history is empty and all its ids
/// have lapsed.
#[derive(Debug)]
pub struct LocalBus {
    rooms: BlockSlab<Room>,
    keys: NameIndex,
    limits: RoomLimitsTable,
    history: HistoryPool,
    dedupe: DedupePool,
    unique: Unique,
    /// One entry for each room that is watched.
    wheel: Wheel<u32>,
    /// A room that is looked at and has more to drop.
    unfinished: Option<u32>,
    control: ControlRoom,
    events: VecDeque<BusEvent>,
    now: Now,
}

counts! {
    /// What is held in memory.
    struct LocalStats {
        /// Bytes of history of all rooms, with what keeping it costs.
        history_bytes: usize = Share("history");
        /// Bytes of remembered message ids of all rooms, with what remembering them costs.
        dedupe_bytes: usize = Share("dedupe");
    }
}

#[derive(Debug)]
struct Room {
    name: RoomName,
    epoch: Epoch,
    history: History,
    ids: RememberedIds,
    is_open: bool,
    /// Whether the wheel has an entry for it: all but those that are open and keep nothing, for which there is nothing to do. Only when
    /// the entry comes up may the room be forgotten.
    is_watched: bool,
    rule: RuleIndex,
}

/// The memory of a room: its place in the table, and entries in the index and on the wheel. The hub is charged for one that is open, its
/// history for one that has any.
const ROOM_BYTES: usize = 128;

/// What was dropped of a room.
struct Trimmed {
    messages: usize,
    ids: usize,
}

/// How many messages and ids of rooms that are looked at are dropped in a turn, but for the last of these rooms. Those of a crowd are
/// due at one time.
const TRIMMED_PER_TURN: usize = 1024;

/// How long until a room is looked at again that keeps something.
const WATCH_INTERVAL: Duration = Duration::from_secs(10);

impl LocalBus {
    /// Counts, as of now.
    pub fn stats(&self) -> LocalStats {
        LocalStats { history_bytes: self.history.bytes(), dedupe_bytes: self.dedupe.bytes() }
    }

    /// An empty bus with the history bounds of `config`, which has been checked. `seed` makes its epochs.
    pub fn new(config: &Config, seed: u64) -> Self {
        Self {
            rooms: BlockSlab::default(),
            keys: NameIndex::default(),
            limits: config.room_limits(),
            history: HistoryPool::new(config),
            dedupe: DedupePool::new(config),
            unique: Unique::new(seed),
            wheel: Wheel::new(),
            unfinished: None,
            control: ControlRoom::default(),
            events: VecDeque::new(),
            now: Now::default(),
        }
    }

    fn find(&self, name: &RoomName) -> Option<u32> {
        self.keys.find(name.as_str(), |key| self.rooms[key].name.as_str())
    }

    /// The key of a room, new or not.
    fn room(&mut self, name: &RoomName) -> u32 {
        if let Some(key) = self.find(name) {
            return key;
        }
        let key = self.rooms.insert(Room {
            name: name.clone(),
            epoch: self.unique.epoch(),
            history: History::default(),
            ids: RememberedIds::default(),
            is_open: false,
            is_watched: false,
            rule: self.limits.find(name),
        });
        let rooms = &self.rooms;
        self.keys.insert(name.as_str(), key, |key| rooms[key].name.as_str());
        key
    }

    /// Sees to it that a room is looked at soon.
    fn watch(&mut self, now: Now, key: u32) {
        if !std::mem::replace(&mut self.rooms[key].is_watched, true) {
            self.wheel.insert(Tick::of(now).after(Duration::from_secs(1)), key);
        }
    }

    fn accept(&mut self, now: Now, publication: Publication) -> Outcome {
        let Publication { room: name, user, owner, id, body, .. } = publication;
        let key = self.room(&name);
        self.watch(now, key);
        let Room { history, ids, rule, .. } = &mut self.rooms[key];
        let bounds = HistoryBounds::new(self.limits.get(*rule));
        let id = id.map(|id| self.dedupe.message_id(&user, &id));
        if let Some(id) = id {
            if let Some(seq) = ids.find(id) {
                return Outcome::Duplicate(seq);
            }
            if let Err(refusal) = self.dedupe.make_space(now, ids, owner) {
                return Outcome::Refused(refusal);
            }
        }
        let seq =
            self.history.append(now, RoomHistory { room: key, name: &name, bounds, history }, owner, body.clone());
        if let Some(id) = id {
            self.dedupe.remember(now, ids, owner, (id, seq));
        }
        self.trim(now, key);
        self.drop_surplus();
        let message = Numbered { seq, body };
        self.events.push_back(BusEvent::Delivered { room: name, message, owner: Some(owner) });
        Outcome::Accepted(seq)
    }

    /// Puts tombstones in place of messages, and announces that.
    fn delete(&mut self, now: Now, deletion: Deletion) -> Outcome {
        let Deletion { announcement, targets } = deletion;
        let Some(key) = self.find(&announcement.room) else { return Outcome::Refused(BusRefusal::NO_MESSAGE) };
        self.trim(now, key);
        let Room { name, epoch, history, rule, .. } = &mut self.rooms[key];
        if targets.epoch.is_some_and(|wanted| wanted != *epoch) {
            return Outcome::Refused(BusRefusal::NO_MESSAGE);
        }
        let tombstone = tombstone(name);
        let bounds = HistoryBounds::new(self.limits.get(*rule));
        let mut erase =
            |seq: &u64| self.history.erase(RoomHistory { room: key, name, bounds, history }, *seq, &tombstone);
        let found: Vec<_> = targets.seqs.iter().map(&mut erase).collect();
        if found.iter().any(|found| matches!(found, Erased::Message | Erased::Nothing)) {
            return self.accept(now, announcement);
        }
        match targets.seqs.first() {
            Some(first) if found.contains(&Erased::Tombstone) => Outcome::Duplicate(*first),
            _ => Outcome::Refused(BusRefusal::NO_MESSAGE),
        }
    }

    /// Drops what a room need not keep any longer, some of its ids at a time.
    fn trim(&mut self, now: Now, key: u32) -> Trimmed {
        let Room { name, history, ids, rule, .. } = &mut self.rooms[key];
        let bounds = HistoryBounds::new(self.limits.get(*rule));
        let messages = self.history.trim(now, RoomHistory { room: key, name, bounds, history });
        let trimmed = Trimmed { messages, ids: self.dedupe.trim(now, ids, history.first_seq()) };
        self.charge_for_ids(key);
        trimmed
    }

    /// A room whose history is empty and which is not open is kept for its ids.
    fn charge_for_ids(&mut self, key: u32) {
        let Room { name, history, ids, is_open, .. } = &mut self.rooms[key];
        let is_kept_for_ids = history.is_empty() && !*is_open;
        let bytes = if is_kept_for_ids { ROOM_BYTES + name_heap_bytes(name.as_str()) } else { 0 };
        self.dedupe.set_room_bytes(ids, bytes);
    }

    /// Drops messages of the heaviest owners until the rest fits.
    fn drop_surplus(&mut self) {
        while let Some((owner, key)) = self.history.next_surplus() {
            let room = self.rooms.get_mut(key);
            let drops = |room: &mut Room| self.history.drop_oldest_of(owner, (key, &room.name), &mut room.history);
            if !room.is_some_and(drops) {
                return log::error!("history: an account of room {key} has no messages");
            }
            self.charge_for_ids(key);
        }
    }

    fn submit_control(&mut self) {
        while let Some(request) = self.control.poll_request(self.now) {
            self.submit(request);
        }
    }

    fn open(&mut self, room: &RoomName) {
        let key = self.room(room);
        self.rooms[key].is_open = true;
    }

    fn close(&mut self, room: &RoomName) {
        if let Some(key) = self.find(room) {
            self.rooms[key].is_open = false;
            self.watch(self.now, key);
        }
    }

    fn read(&mut self, room: &RoomName, from: ReadFrom, bytes_max: usize) -> Page {
        let key = self.room(room);
        self.trim(self.now, key);
        if !self.rooms[key].is_open {
            self.watch(self.now, key);
        }
        let Room { history, epoch, .. } = &self.rooms[key];
        let (messages, complete) = history.page(from, bytes_max);
        Page { epoch: epoch.clone(), top: history.top(), messages, complete }
    }

    fn handle_deadlines(&mut self, now: Now) {
        let mut work = 0;
        for _ in 0..LOOKS_PER_TURN {
            let next = self.unfinished.take().or_else(|| self.wheel.pop(Tick::of(now)).map(|(_, key)| key));
            let Some(key) = next else { return };
            let trimmed = self.trim(now, key);
            work += trimmed.messages + trimmed.ids;
            if trimmed.ids == TRIMMED_MAX {
                self.unfinished = Some(key);
            } else {
                self.finish_look(now, key);
            }
            if work >= TRIMMED_PER_TURN {
                return;
            }
        }
    }

    /// A room that was looked at keeps what it has to, and ends if that is nothing.
    fn finish_look(&mut self, now: Now, key: u32) {
        let room = &mut self.rooms[key];
        room.history.give_back();
        if !(room.history.is_empty() && room.ids.is_empty()) {
            self.wheel.insert(Tick::of(now).after(WATCH_INTERVAL), key);
        } else if room.is_open {
            room.is_watched = false;
        } else {
            if let Some(room) = self.rooms.remove(key) {
                self.keys.remove(room.name.as_str(), key);
            }
        }
    }
}

impl Bus for LocalBus {
    fn begin_turn(&mut self, now: Now) {
        self.now = now;
        self.handle_deadlines(now);
        self.submit_control();
    }

    fn submit(&mut self, request: BusRequest) {
        match request {
            BusRequest::Open(room) => self.open(&room),
            BusRequest::Close(room) => self.close(&room),
            BusRequest::Publish { ticket, publication } => {
                let outcome = self.accept(self.now, publication);
                self.events.push_back(BusEvent::Published { ticket, outcome });
            }
            BusRequest::Delete { ticket, deletion } => {
                let outcome = self.delete(self.now, *deletion);
                self.events.push_back(BusEvent::Published { ticket, outcome });
            }
            BusRequest::Control { ticket, body } => {
                self.control.submit(ticket, body);
                self.submit_control();
            }
            // The hub has the only copy, and bounds how many there are.
            BusRequest::Restrict { ticket, change, body } => {
                self.control.submit_restriction(ticket, change, body);
                self.submit_control();
            }
            BusRequest::Read { ticket, room, from, bytes_max } => {
                let page = Ok(self.read(&room, from, bytes_max));
                self.events.push_back(BusEvent::Page { ticket, page });
            }
            // There is no other node.
            BusRequest::Presence { .. } | BusRequest::CheckPresence(_) | BusRequest::Signal(_) => {}
        }
    }

    fn poll_event(&mut self) -> Option<BusEvent> {
        loop {
            if let Some(event) = self.control.poll_event() {
                return Some(event);
            }
            let event = self.events.pop_front()?;
            if let Some(event) = self.control.translate(self.now, event) {
                return Some(event);
            }
            self.submit_control();
        }
    }

    fn metrics(&self) -> Vec<Metric> {
        self.stats().metrics()
    }

    fn timeout(&self, now: Now) -> Option<Duration> {
        if self.unfinished.is_some() {
            return Some(Duration::ZERO);
        }
        [self.wheel.timeout(now), self.control.timeout(now)].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::bus::history::{MESSAGE_OVERHEAD_BYTES, SHARE_OVERHEAD_BYTES};
    use crate::bus::message::Ticket;
    use crate::id::UserId;
    use crate::owner::{Owner, Owners};
    use crate::protocol::ErrorCode;

    fn at(seconds: u64) -> Now {
        Now { uptime: Duration::from_secs(seconds), unix_ms: 0 }
    }

    fn owner(number: u8) -> Owner {
        Owners::new(1).api_key(&[number; 32])
    }

    struct Fixture {
        bus: LocalBus,
        tickets: u64,
    }

    impl Fixture {
        fn new(change: impl FnOnce(&mut Config)) -> Self {
            let mut config = Config::default();
            change(&mut config);
            let mut fixture = Self { bus: LocalBus::new(&config, 1), tickets: 0 };
            // The room of control messages is opened, and its position read.
            fixture.bus.begin_turn(at(0));
            assert!(matches!(fixture.bus.poll_event(), Some(BusEvent::Restrictions(_))));
            assert!(fixture.bus.poll_event().is_none());
            fixture
        }

        /// How many rooms there are beside the one of control messages.
        fn rooms(&self) -> usize {
            self.bus.rooms.len() - 1
        }

        fn publish(&mut self, seconds: u64, room: &str, id: Option<&str>) -> Outcome {
            self.publish_as(owner(0), seconds, room, id)
        }

        fn publish_as(&mut self, owner: Owner, seconds: u64, room: &str, id: Option<&str>) -> Outcome {
            self.tickets += 1;
            let publication = Publication {
                room: RoomName::new(room).unwrap(),
                user: UserId::new("ann").unwrap(),
                owner,
                id: id.map(Into::into),
                body: Bytes::from(vec![b'x'; 100]),
                restriction: None,
            };
            self.bus.now = at(seconds);
            self.bus.submit(BusRequest::Publish { ticket: Ticket(self.tickets), publication });
            std::iter::from_fn(|| self.bus.poll_event())
                .find_map(|event| match event {
                    BusEvent::Published { outcome, .. } => Some(outcome),
                    _ => None,
                })
                .unwrap()
        }

        fn read(&mut self, seconds: u64, room: &str, from: ReadFrom, bytes_max: usize) -> (Page, Vec<u64>) {
            let room = RoomName::new(room).unwrap();
            self.bus.now = at(seconds);
            self.bus.submit(BusRequest::Read { ticket: Ticket(1), room, from, bytes_max });
            let Some(BusEvent::Page { page: Ok(page), .. }) = self.bus.poll_event() else { panic!("no page") };
            let seqs = page.messages.iter().map(|message| message.seq).collect();
            (page, seqs)
        }
    }

    #[test]
    fn a_room_without_messages_is_small() {
        let bytes = std::mem::size_of::<Room>();
        assert!(bytes <= 104, "{bytes} bytes");
    }

    #[test]
    fn an_open_room_that_keeps_nothing_wakes_nobody_and_is_forgotten_once_it_is_closed() {
        let mut fixture = Fixture::new(|config| config.history.messages_max = 0);
        let room = RoomName::new("r").unwrap();
        fixture.bus.now = at(1);
        fixture.bus.open(&room);
        fixture.read(1, "r", ReadFrom::Newest(0), 0);
        assert_eq!(fixture.bus.timeout(at(1)), None);
        fixture.publish(1, "r", None);
        assert!(fixture.bus.timeout(at(1)).is_some());
        fixture.bus.begin_turn(at(5));
        assert_eq!((fixture.bus.timeout(at(5)), fixture.rooms()), (None, 1));
        fixture.bus.close(&room);
        fixture.bus.begin_turn(at(9));
        assert_eq!(fixture.rooms(), 0);
    }

    #[test]
    fn without_history_nothing_is_kept_but_ids() {
        for change in [
            |config: &mut Config| config.history.messages_max = 0,
            |config: &mut Config| {
                config.history.age_max = Duration::ZERO;
            },
        ] {
            let mut fixture = Fixture::new(change);
            assert_eq!(fixture.publish(1, "r", Some("a")), Outcome::Accepted(1));
            assert_eq!(fixture.publish(1, "r", None), Outcome::Accepted(2));
            assert_eq!(fixture.publish(1, "r", Some("a")), Outcome::Duplicate(1));
            let (page, seqs) = fixture.read(1, "r", ReadFrom::After(0), 1000);
            assert_eq!((seqs.len(), page.top, page.complete), (0, 2, true));
            assert_eq!(fixture.bus.history.bytes(), 0);
        }
    }

    #[test]
    fn pages_are_consecutive_and_bounded() {
        let mut fixture = Fixture::new(|_| {});
        for _ in 0..10 {
            fixture.publish(1, "r", None);
        }
        let mut check = |from, bytes_max, expected: &[u64], complete| {
            let (page, seqs) = fixture.read(1, "r", from, bytes_max);
            assert_eq!((seqs.as_slice(), page.complete, page.top), (expected, complete, 10), "{from:?}");
        };
        check(ReadFrom::After(7), 1000, &[8, 9, 10], true);
        check(ReadFrom::After(10), 1000, &[], true);
        check(ReadFrom::After(11), 1000, &[], true);
        check(ReadFrom::Newest(2), 1000, &[9, 10], true);
        check(ReadFrom::Newest(50), 300, &[1, 2, 3], false);
        check(ReadFrom::After(3), 1, &[4], false);
        check(ReadFrom::Newest(5), 0, &[], true);
    }

    #[test]
    fn pages_of_older_messages_are_read_backwards() {
        let mut fixture = Fixture::new(|config| config.history.messages_max = 8);
        for seq in [None, Some(0), Some(7)] {
            let (page, seqs) = fixture.read(1, "r", ReadFrom::Before { seq, count: 5 }, 1000);
            assert_eq!((seqs.len(), page.complete, page.top), (0, true, 0));
        }
        for _ in 0..10 {
            fixture.publish(1, "r", None);
        }
        let mut check = |seq, count, bytes_max, expected: &[u64], complete| {
            let (page, seqs) = fixture.read(1, "r", ReadFrom::Before { seq, count }, bytes_max);
            let found = (seqs.as_slice(), page.complete, page.top);
            assert_eq!(found, (expected, complete, 10), "{count} before {seq:?}");
        };
        // 1 and 2 are not held any more.
        check(None, 3, 1000, &[8, 9, 10], false);
        check(Some(u64::MAX), 3, 1000, &[8, 9, 10], false);
        check(Some(11), 3, 1000, &[8, 9, 10], false);
        check(Some(8), 3, 1000, &[5, 6, 7], false);
        check(Some(5), 2, 1000, &[3, 4], true);
        check(Some(5), 50, 1000, &[3, 4], true);
        check(Some(4), 50, 1000, &[3], true);
        for gone in [0, 1, 2, 3] {
            check(Some(gone), 50, 1000, &[], true);
        }
        check(Some(9), 50, 300, &[6, 7, 8], false);
        check(Some(9), 50, 1, &[8], false);
        check(Some(4), 50, 1, &[3], true);
    }

    #[test]
    fn ids_are_remembered_while_in_history_and_for_the_window() {
        let mut fixture = Fixture::new(|config| {
            config.history.messages_max = 1;
            config.history.dedupe_ids_max = 4;
        });
        assert_eq!(fixture.publish(0, "r", Some("a")), Outcome::Accepted(1));
        assert_eq!(fixture.publish(1, "r", Some("b")), Outcome::Accepted(2));
        assert_eq!(fixture.publish(100, "r", Some("a")), Outcome::Duplicate(1));
        let refused = fixture.publish(100, "r", Some("c"));
        assert!(matches!(refused, Outcome::Refused(refusal) if refusal.code() == ErrorCode::ServerBusy), "{refused:?}");
        // The window of "a" is over and it is not in history; "b" still is.
        fixture.read(1000, "r", ReadFrom::Newest(0), 0);
        assert_eq!(fixture.publish(1000, "r", Some("b")), Outcome::Duplicate(2));
        assert_eq!(fixture.publish(1000, "r", Some("a")), Outcome::Accepted(3));
    }

    /// What a message of the fixture costs.
    const COST: usize = 100 + MESSAGE_OVERHEAD_BYTES;

    #[test]
    fn a_room_that_is_kept_for_its_ids_alone_is_charged_to_them() {
        let mut fixture = Fixture::new(|config| config.history.age_max = Duration::from_secs(10));
        let name = "r".repeat(128);
        fixture.publish(1, &name, Some("a"));
        let beside_history = fixture.bus.stats().dedupe_bytes;
        fixture.bus.begin_turn(at(60));
        assert_eq!(fixture.bus.stats().history_bytes, 0);
        assert_eq!(fixture.bus.stats().dedupe_bytes, beside_history + ROOM_BYTES + 144);
        fixture.publish(61, &name, None);
        assert_eq!(fixture.bus.stats().dedupe_bytes, beside_history);
        fixture.bus.begin_turn(at(200));
        fixture.bus.begin_turn(at(220));
        assert_eq!((fixture.bus.stats().dedupe_bytes, fixture.rooms()), (0, 0));
    }

    #[test]
    fn a_room_that_is_only_history_is_charged_for_its_name() {
        let mut fixture = Fixture::new(|config| config.history.age_max = Duration::from_secs(10));
        let charged = |fixture: &mut Fixture, room: &str| {
            let before = fixture.bus.stats().history_bytes;
            fixture.publish(1, room, None);
            fixture.publish(1, room, None);
            fixture.bus.stats().history_bytes - before
        };
        assert_eq!(charged(&mut fixture, "short"), SHARE_OVERHEAD_BYTES + 2 * COST);
        assert_eq!(charged(&mut fixture, &"r".repeat(128)), SHARE_OVERHEAD_BYTES + 144 + 2 * COST);
        fixture.bus.begin_turn(at(60));
        assert_eq!(fixture.bus.stats().history_bytes, 0);
    }

    #[test]
    fn the_owner_of_the_most_history_gives_way_in_its_fullest_room() {
        let mut fixture = Fixture::new(|config| config.history.bytes_max = 8 * SHARE_OVERHEAD_BYTES + 40 * COST);
        for room in ["a", "a", "a", "b", "common"] {
            fixture.publish_as(owner(1), 1, room, None);
        }
        for room in ["b", "common", "a", "a"] {
            fixture.publish_as(owner(2), 1, room, None);
        }
        let mut seqs = |room: &str| fixture.read(1, room, ReadFrom::After(0), 10_000).1;
        assert_eq!((seqs("a"), seqs("b"), seqs("common")), (vec![1, 2, 3, 4, 5], vec![1, 2], vec![1, 2]));
        // A crowd behind one address says much, in rooms of its own and in one that others use.
        for number in 0..100 {
            fixture.publish_as(owner(3), 1, ["flood", "flood", "b"][number % 3], None);
            assert!(fixture.bus.history.bytes() <= 8 * SHARE_OVERHEAD_BYTES + 40 * COST);
        }
        let mut seqs = |room: &str| fixture.read(1, room, ReadFrom::After(0), 10_000).1;
        assert_eq!((seqs("a").len(), seqs("common")), (5, vec![1, 2]), "owners that hold little lose nothing");
        let flood = seqs("flood");
        assert!(flood.is_sorted() && flood.last() == Some(&67), "the newest are kept: {flood:?}");
    }

    #[test]
    fn an_owner_that_sends_many_ids_leaves_space_for_others() {
        let mut fixture = Fixture::new(|config| config.history.dedupe_ids_max = 100);
        let accepted = |outcome: &Outcome| matches!(outcome, Outcome::Accepted(_));
        let mut say = |owner, id: usize| fixture.publish_as(owner, 1, "r", Some(&format!("{id}")));
        let taken = (0..200).map(|id| say(owner(1), id)).filter(accepted).count();
        assert_eq!(taken, 38, "three eighths of them");
        let taken = (200..400).map(|id| say(owner(2), id)).filter(accepted).count();
        assert_eq!(taken, 19);
        assert!(accepted(&say(owner(3), 400)));
        // Ids are forgotten when their window is over, although their messages are still in history.
        assert!(!accepted(&fixture.publish_as(owner(1), 100, "r", Some("new"))));
        assert!(accepted(&fixture.publish_as(owner(1), 200, "r", Some("new"))));
        assert_eq!(fixture.publish_as(owner(1), 200, "r", Some("new")), Outcome::Duplicate(59));
    }

    #[test]
    fn a_forgotten_room_begins_a_new_epoch() {
        let mut fixture = Fixture::new(|_| {});
        fixture.publish(0, "r", Some("a"));
        let (before, _) = fixture.read(0, "r", ReadFrom::Newest(0), 0);
        fixture.bus.begin_turn(at(3000));
        assert_eq!(fixture.read(3000, "r", ReadFrom::Newest(0), 0).0.epoch, before.epoch);
        fixture.bus.begin_turn(at(8000));
        assert_eq!(fixture.rooms(), 0);
        let (after, _) = fixture.read(8000, "r", ReadFrom::Newest(0), 0);
        assert_ne!(after.epoch, before.epoch);
        assert_eq!(after.top, 0);
    }
}
