//! A client: one user's device, which loses its connection and comes back, and checks all that it is told.

use std::collections::{BTreeMap, BTreeSet};

use roomcast::Owner;
use serde_json::Value;

use super::coverage::Coverage;
use super::look_back::LooksBack;
use super::transport::{Link, text_payload};
use super::truth::{Position, Truth, is_tombstone, room_number};
use super::view::{Joined, Phase, View};

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) user: usize,
    /// What its costs are charged to.
    pub(crate) owner: Owner,
    pub(crate) link: Option<Link>,
    pub(crate) views: Vec<View>,
    /// Up to where it has seen each room, over all its connections.
    pub(crate) known: Vec<Option<Position>>,
    /// Messages that it was told are deleted, over all its connections.
    deleted: BTreeSet<(usize, Position)>,
    is_welcome: bool,
    /// Chats that nothing has come back for: room by id.
    unanswered: BTreeMap<String, usize>,
    pub(crate) looks_back: LooksBack,
}

pub(crate) fn user_name(user: usize) -> String {
    format!("u{user}")
}

type Checked = Result<(), String>;

impl Seat {
    pub(crate) fn new(user: usize, owner: Owner, rooms: usize) -> Self {
        Self {
            user,
            owner,
            link: None,
            views: (0..rooms).map(|_| View::default()).collect(),
            known: vec![None; rooms],
            deleted: BTreeSet::new(),
            is_welcome: false,
            unanswered: BTreeMap::new(),
            looks_back: LooksBack::default(),
        }
    }

    pub(crate) fn connect(&mut self, link: Link) {
        self.link = Some(link);
        self.is_welcome = false;
    }

    /// The connection is gone, and with it the received part of a frame.
    pub(crate) fn lose_link(&mut self) {
        self.link = None;
        self.unanswered.clear();
        self.looks_back.clear();
        self.views.iter_mut().for_each(|view| *view = View::default());
    }

    pub(crate) fn chat_sent(&mut self, id: &str, room: usize) {
        self.unanswered.insert(id.to_owned(), room);
    }

    pub(crate) fn unanswered(&self) -> Option<&String> {
        self.unanswered.keys().next()
    }

    /// How many rooms it is in, or on its way into.
    pub(crate) fn memberships(&self) -> usize {
        self.views.iter().filter(|view| view.is_in() || !view.is_settled()).count()
    }

    /// Takes a frame in. Returns what is wrong with it.
    pub(crate) fn receive(&mut self, frame: &[u8], truth: &mut Truth, coverage: &mut Coverage) -> Checked {
        coverage.frames += 1;
        let text = text_payload(frame)?;
        if !self.is_welcome {
            self.is_welcome = true;
            let wanted = format!(r#"{{"type":"welcome","userId":"{}""#, user_name(self.user));
            return if text.starts_with(&wanted) { Ok(()) } else { Err(format!("not a welcome: {text}")) };
        }
        let is_deletion = text.starts_with(r#"{"type":"deleted""#);
        let result = if is_deletion || text.starts_with(r#"{"type":"chat""#) {
            self.on_chat(text, frame, truth, coverage)
        } else {
            self.on_message(text, truth, coverage)
        };
        result.map_err(|words| format!("{words}\n  received: {text}"))
    }

    /// Most frames are chats, so their fields are found without parsing.
    fn on_chat(&mut self, text: &str, frame: &[u8], truth: &Truth, coverage: &mut Coverage) -> Checked {
        coverage.chats += 1;
        let room = room_number(field(text, r#""room":""#).ok_or("no room")?);
        let seq = text.rsplit_once(r#","seq":"#).and_then(|(_, rest)| rest.strip_suffix('}')).ok_or("no seq")?;
        let seq = seq.parse().map_err(|_| format!("seq {seq}"))?;
        let view_epoch = self.views[room].epoch();
        let found = match is_tombstone(frame) {
            true => truth.identify_tombstone(room, (seq, frame), view_epoch),
            false => truth.identify(room, seq, frame),
        };
        let at = found.ok_or("an entry that the bus did not deliver")?;
        self.check_deletions(room, at, (text, frame), coverage)?;
        if field(text, r#""userId":""#) == Some(&user_name(self.user))
            && let Some(id) = field(text, r#","id":""#)
        {
            self.unanswered.remove(id);
        }
        let view = &mut self.views[room];
        if is_tombstone(frame) {
            view.expect_tombstone();
        }
        view.on_chat(at)?;
        self.known[room] = view.position().or(self.known[room]);
        Ok(())
    }

    /// What is said to be deleted does not come again, over any connection.
    fn check_deletions(
        &mut self,
        room: usize,
        at: Position,
        (text, frame): (&str, &[u8]),
        coverage: &mut Coverage,
    ) -> Checked {
        if is_tombstone(frame) {
            coverage.tombstones += 1;
            // It may stand for a message of this user, which a client sends again to learn so.
            self.unanswered.retain(|_, of| *of != room);
        } else if text.starts_with(r#"{"type":"deleted""#) {
            coverage.deletions += 1;
            let message: Value = serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
            let deletes = message["deletes"].as_array().ok_or("no deletes")?;
            for seq in deletes.iter().filter_map(Value::as_u64) {
                if seq >= at.seq {
                    return Err(format!("{at:?} deletes {seq}"));
                }
                self.deleted.insert((room, Position { seq, ..at }));
            }
        } else if self.deleted.contains(&(room, at)) {
            return Err(format!("{at:?} came, though it was deleted"));
        }
        Ok(())
    }

    /// A page of older messages has no text that was said to be deleted.
    fn check_page(&self, room: usize, page: &Value, truth: &mut Truth) -> Checked {
        let epoch = truth.epoch(room, page["epoch"].as_str().ok_or("no epoch")?);
        let chats = page["messages"].as_array().into_iter().flatten().filter(|message| message["type"] == "chat");
        let positions = chats.filter_map(|message| message["seq"].as_u64()).map(|seq| Position { epoch, seq });
        match positions.into_iter().find(|at| self.deleted.contains(&(room, *at))) {
            Some(at) => Err(format!("{at:?} is in a page, though it was deleted")),
            None => Ok(()),
        }
    }

    fn on_message(&mut self, text: &str, truth: &mut Truth, coverage: &mut Coverage) -> Checked {
        let message: Value = serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
        let kind = message["type"].as_str().ok_or("no type")?;
        let id = message["id"].as_str();
        match kind {
            "pong" => return Ok(()),
            "refreshed" => {
                coverage.refreshed += 1;
                return Ok(());
            }
            "error" => return self.on_error(&message, coverage),
            "history" => {
                let room = self.looks_back.on_history(text, truth, coverage)?;
                self.check_page(room, &message, truth)?;
                return self.views[room].on_any(kind);
            }
            _ => {}
        }
        let room = room_number(message["room"].as_str().ok_or("no room")?);
        let view = &mut self.views[room];
        match kind {
            "joined" => {
                view.on_any(kind)?;
                self.on_joined(room, &message, truth, coverage)?;
            }
            "left" => view.on_left(id)?,
            "presence" => {
                view.on_any(kind)?;
                view.on_presence(message["userId"].as_str().ok_or("no user")?, message["status"] == "online");
            }
            "members" => {
                coverage.members += 1;
                view.on_any(kind)?;
                view.on_members(&message)?;
            }
            "typing" => {
                coverage.typing += 1;
                view.on_any(kind)?;
            }
            "ack" => {
                coverage.acks += 1;
                coverage.duplicates += u64::from(message["duplicate"] == true);
                self.unanswered.remove(id.ok_or("ack without id")?);
            }
            other => return Err(format!("unknown type {other}")),
        }
        Ok(())
    }

    fn on_joined(&mut self, room: usize, message: &Value, truth: &mut Truth, coverage: &mut Coverage) -> Checked {
        let epoch = truth.epoch(room, message["epoch"].as_str().ok_or("no epoch")?);
        let at = Position { epoch, seq: message["seq"].as_u64().ok_or("no seq")? };
        let joined = Joined { at, recovered: message["recovered"].as_bool(), id: message["id"].as_str() };
        let view = &mut self.views[room];
        view.on_joined(&joined, coverage)?;
        view.on_members(message)?;
        self.known[room] = Some(at);
        // Its own messages may be among those that it does not see: it says again what was not acknowledged.
        if joined.recovered != Some(true) {
            self.unanswered.retain(|_, in_room| *in_room != room);
        }
        Ok(())
    }

    fn on_error(&mut self, message: &Value, coverage: &mut Coverage) -> Checked {
        let code = message["code"].as_str().ok_or("no code")?;
        match code {
            "muted" => coverage.muted += 1,
            "room_busy" => coverage.room_busy += 1,
            "server_busy" => coverage.server_busy += 1,
            "unavailable" => coverage.unavailable += 1,
            "shutting_down" => coverage.shutting_down += 1,
            "rate_limited" => coverage.rate_limited += 1,
            "invalid_token" => coverage.invalid_tokens += 1,
            _ => {}
        }
        let is_temporary = message["temporary"] == true;
        if is_temporary != message["retryAfterMs"].is_u64() {
            return Err("temporary errors, and only those, say when to try again".to_owned());
        }
        if code == "removed" {
            coverage.removed += 1;
            let room = room_number(message["room"].as_str().ok_or("removed from no room")?);
            self.views[room].on_removed()?;
            // Copies that it was owed do not come any more.
            self.unanswered.retain(|_, in_room| *in_room != room);
        }
        if let Some(id) = message["id"].as_str() {
            self.unanswered.remove(id);
            self.looks_back.on_error(id, coverage);
            self.views.iter_mut().for_each(|view| view.on_error(id, code));
        }
        Ok(())
    }

    /// Whether it stands where deliveries do, and nothing is under way.
    pub(crate) fn check_level(&self, room: usize, truth: &Truth) -> Checked {
        let view = &self.views[room];
        if !view.is_settled() {
            return Err(format!("r{room} is not settled: {view:?}"));
        }
        match view.phase {
            Phase::Out => Ok(()),
            Phase::Live(at) if Some(at) == truth.live(room) => Ok(()),
            Phase::Live(at) => Err(format!("r{room}: stands at {at:?}, not {:?}", truth.live(room))),
        }
    }
}

/// The text behind the first occurrence of `key`, up to the next quotation mark.
fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(key)?;
    rest.split('"').next()
}
