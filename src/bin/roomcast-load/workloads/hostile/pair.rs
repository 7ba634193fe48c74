//! The healthy pair: two clients that chat by schedule in a room of their own, and notice all that goes wrong.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Deserialize;

use super::attack::{chat_with_id, join, resume};
use crate::client::{ClientIndex, ReadMode};
use crate::crowd::{Crowd, Opening};
use crate::error::LoadError;
use crate::marker::{MARKER_BYTES, Marker};
use crate::record;
use crate::wire::Wire;

/// The user ids of the two.
pub(super) const USERS: [&str; 2] = ["hostile-pair-a", "hostile-pair-b"];

const ROOM: &str = "hostile-pair";
/// Each of the two says half of them; a connection may say 50.
const PER_SECOND: u32 = 80;

/// How the ids of its messages begin.
const ID_PREFIX: &str = "pair-";

/// Messages of history that a room keeps by default.
const HISTORY_MESSAGES: u64 = 1000;

/// How long an answer may take when nothing else happens.
const PATIENCE: Duration = Duration::from_secs(5);

/// A message of the server's, as far as the pair is concerned with it.
#[derive(Debug, Deserialize)]
struct Answer {
    #[serde(rename = "type")]
    kind: String,
    id: Option<String>,
    code: Option<String>,
    duplicate: Option<bool>,
    epoch: Option<String>,
    seq: Option<u64>,
}

/// What a phase has shown.
pub(super) struct PairFindings {
    /// From the moment at which a message was due.
    pub(super) latency: Histogram<u64>,
    /// By how much the pair said its messages too late: that is the machine's and the load's, not the server's.
    pub(super) lateness: Histogram<u64>,
    pub(super) published: u64,
    /// Deliveries that never came, of messages that were not refused.
    pub(super) lost: u64,
    pub(super) refused: u64,
    /// What went wrong, each kind once.
    pub(super) troubles: Vec<String>,
}

/// What the server has forgotten too early.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Forgotten {
    pub(super) history_lost: u64,
    pub(super) ids_forgotten: u64,
}

/// The schedule of a phase, and what came of it so far.
struct Schedule {
    began: Instant,
    duration: Duration,
    due: u32,
    findings: PairFindings,
}

pub(super) struct Pair {
    crowd: Crowd,
    serial: u32,
    /// By serial number: how many deliveries are still to come.
    under_way: BTreeMap<u32, u64>,
    /// How many messages were delivered to both, and the first of this phase.
    delivered: u64,
    first_delivered: Option<Marker>,
    /// The position of the room before the first message: epoch and number.
    position: (String, u64),
    schedule: Schedule,
}

impl Pair {
    /// Opens both clients on 127.0.0.1 and has them join their room.
    pub(super) fn open(address: SocketAddr, wire: Wire) -> Result<Self, LoadError> {
        let mut crowd = Crowd::new(address, wire)?;
        let mut position = None;
        for user in USERS {
            let clients = crowd.open(1, opening(Some(user)))?;
            crowd.send(clients[0], &join(ROOM))?;
            wait_for(&mut crowd, clients[0], |answer| {
                position = answer.epoch.clone().zip(answer.seq);
                answer.kind == "joined"
            })?;
        }
        Ok(Self {
            crowd,
            serial: 0,
            under_way: BTreeMap::new(),
            delivered: 0,
            first_delivered: None,
            position: position.unwrap_or_default(),
            schedule: Schedule::new(Duration::ZERO),
        })
    }

    /// Publishes by schedule for some time, then waits for the deliveries that are under way, so long at most. Deliveries that
    /// have not come by then are lost.
    pub(super) fn chat_for(&mut self, duration: Duration, patience: Duration) -> Result<PairFindings, LoadError> {
        self.schedule = Schedule::new(duration);
        self.first_delivered = None;
        let give_up = Instant::now() + duration + patience;
        while Instant::now() < give_up && (!self.under_way.is_empty() || self.schedule.next_due().is_some()) {
            while let Some(due) = self.schedule.next_due().filter(|due| *due <= Instant::now()) {
                self.publish(due)?;
            }
            self.crowd.turn(Some(self.schedule.next_due().unwrap_or(give_up)))?;
            self.receive();
        }
        self.schedule.findings.lost += std::mem::take(&mut self.under_way).into_values().sum::<u64>();
        Ok(std::mem::replace(&mut self.schedule, Schedule::new(Duration::ZERO)).findings)
    }

    fn publish(&mut self, due: Instant) -> Result<(), LoadError> {
        let client = self.schedule.due % USERS.len() as u32;
        self.schedule.due += 1;
        self.schedule.findings.published += 1;
        let late = Instant::now().saturating_duration_since(due).as_micros() as u64;
        self.schedule.findings.lateness.saturating_record(late.max(1));
        let marker = Marker { publisher: client, serial: self.serial, due_micros: self.crowd.micros(due) };
        self.under_way.insert(self.serial, USERS.len() as u64);
        self.serial += 1;
        self.crowd.send(client, &message(marker))
    }

    fn receive(&mut self) {
        let mut markers = Vec::new();
        self.crowd.take_markers(&mut markers);
        for received in markers {
            let serial = received.marker.serial;
            let Some(to_come) = self.under_way.get_mut(&serial) else { continue };
            let waited = self.crowd.micros(received.at).saturating_sub(received.marker.due_micros);
            self.schedule.findings.latency.saturating_record(waited.max(1));
            *to_come -= 1;
            if *to_come == 0 {
                self.under_way.remove(&serial);
                self.delivered += 1;
                self.first_delivered.get_or_insert(received.marker);
            }
        }
        for (_, text) in self.crowd.take_messages() {
            let Some(answer) = Answer::parse(&text).filter(|answer| answer.kind == "error") else { continue };
            let serial = answer.serial();
            self.schedule.findings.refused += 1;
            self.schedule.findings.note(format!("refused: {}", answer.code.unwrap_or_default()));
            if let Some(serial) = serial {
                self.under_way.remove(&serial);
            }
        }
        for disconnect in self.crowd.take_disconnects() {
            self.schedule.findings.note(format!("disconnected: {}", disconnect.why));
        }
    }

    /// Looks at what the server still knows: a newcomer reads all that the pair has said, and the first message of the
    /// phase is sent again under its id.
    pub(super) fn check_memory(&mut self) -> Result<Forgotten, LoadError> {
        let newcomer = self.crowd.open(1, opening(None))?[0];
        let (epoch, seq) = &self.position;
        self.crowd.send(newcomer, &resume(ROOM, epoch, *seq))?;
        let mut messages = 0;
        wait_for(&mut self.crowd, newcomer, |answer| {
            messages += u64::from(answer.kind == "chat");
            answer.kind == "joined"
        })?;
        self.crowd.cut(newcomer)?;
        let history_lost = self.delivered.min(HISTORY_MESSAGES).saturating_sub(messages);
        let mut forgotten = Forgotten { history_lost, ids_forgotten: 0 };
        let Some(first) = self.first_delivered else { return Ok(forgotten) };
        self.crowd.send(first.publisher, &message(first))?;
        wait_for(&mut self.crowd, first.publisher, |answer| {
            let is_it = answer.serial() == Some(first.serial);
            forgotten.ids_forgotten += u64::from(is_it && answer.duplicate != Some(true));
            is_it
        })?;
        Ok(forgotten)
    }
}

impl Schedule {
    fn new(duration: Duration) -> Self {
        let (latency, lateness) = (record::latencies(), record::latencies());
        let findings = PairFindings { latency, lateness, published: 0, lost: 0, refused: 0, troubles: Vec::new() };
        Self { began: Instant::now(), duration, due: 0, findings }
    }

    /// When the next message is due, if there is one more.
    fn next_due(&self) -> Option<Instant> {
        let after = Duration::from_secs(1) * self.due / PER_SECOND;
        (after < self.duration).then(|| self.began + after)
    }
}

impl PairFindings {
    fn note(&mut self, trouble: String) {
        if !self.troubles.contains(&trouble) {
            self.troubles.push(trouble);
        }
    }
}

impl Answer {
    fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// The serial number of the pair's message that it is about.
    fn serial(&self) -> Option<u32> {
        u32::from_str_radix(self.id.as_deref()?.strip_prefix(ID_PREFIX)?, 16).ok()
    }
}

fn opening(user: Option<&'static str>) -> Opening {
    Opening { source: Some(Ipv4Addr::LOCALHOST), user, ..ReadMode::Messages.into() }
}

/// The bytes that publish a marker under an id of its own.
fn message(marker: Marker) -> Vec<u8> {
    chat_with_id(ROOM, &marker.text(MARKER_BYTES), &format!("{ID_PREFIX}{:08x}", marker.serial))
}

/// Reads until a message has come to a client that is the awaited one.
fn wait_for(
    crowd: &mut Crowd,
    client: ClientIndex,
    mut is_awaited: impl FnMut(&Answer) -> bool,
) -> Result<(), LoadError> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        crowd.turn(Some(deadline))?;
        crowd.check_all_connected()?;
        let messages = crowd.take_messages();
        let mut answers = messages.iter().filter(|(to, _)| *to == client).filter_map(|(_, text)| Answer::parse(text));
        if answers.any(|answer| is_awaited(&answer)) {
            return Ok(());
        }
    }
    Err(LoadError::Timeout("an answer to the healthy pair".to_owned()))
}
