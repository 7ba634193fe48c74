//! Publishers say things, at a rate or as answers come, while everything that reaches anybody is counted.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::client::{ClientIndex, HeardMarker};
use crate::crowd::{Counts, Crowd, Farewell};
use crate::error::LoadError;
use crate::machine::{self, Cpu};
use crate::marker::Marker;
use crate::record;

/// When a publisher says the next thing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Pace {
    /// When it has received one of its own: so many are under way at any time, of each publisher.
    Closed { window: u32 },
    /// By schedule, whatever the server does; so many a second, of all publishers in turn.
    Open { per_second: f64 },
}

/// Publishers of a kind, and what is measured of them together.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    /// Who, and in which room. They need ears for markers.
    pub(crate) publishers: Vec<(ClientIndex, u32)>,
    /// Who receives what one of them says.
    pub(crate) members: usize,
    pub(crate) pace: Pace,
}

/// Clients that read less than they might.
#[derive(Clone, Debug, Default)]
pub(crate) struct SlowReaders {
    pub(crate) clients: Vec<ClientIndex>,
    pub(crate) bytes_per_second: usize,
}

/// See the [module](self).
#[derive(Clone, Debug)]
pub(crate) struct Conversation {
    pub(crate) groups: Vec<Group>,
    pub(crate) slow: SlowReaders,
    pub(crate) text_bytes: usize,
    pub(crate) warm_up: Duration,
    pub(crate) duration: Duration,
    /// The server's process, if it is known.
    pub(crate) pid: Option<u32>,
    /// Whether it matters when the server closes what.
    pub(crate) watches_files: bool,
}

/// What came of it.
pub(crate) struct Findings {
    /// How long was measured.
    pub(crate) seconds: f64,
    /// What was received meanwhile.
    pub(crate) counts: Counts,
    /// Latency of each group, from the moment at which a message was due to be said.
    pub(crate) latency: Vec<Histogram<u64>>,
    /// Deliveries of each tenth of a second.
    pub(crate) timeline: Vec<u64>,
    pub(crate) server: Option<Cpu>,
    pub(crate) load: Cpu,
    /// What was said, and what should have reached somebody and did not; warm-up included.
    pub(crate) said: u64,
    pub(crate) lost: u64,
    /// Whose connections ended.
    pub(crate) farewells: Vec<Farewell>,
    /// How often slow readers were told that something is missing.
    pub(crate) holes_told: u64,
    /// When the talking began.
    pub(crate) began: Instant,
    /// When the server had how many files open, at every change.
    pub(crate) files: Vec<(Instant, usize)>,
}

/// How often slow readers read.
const SIP: Duration = Duration::from_millis(20);

const BUCKET: Duration = Duration::from_millis(100);

/// A conversation that goes on.
struct Talk<'a> {
    crowd: &'a mut Crowd,
    conversation: &'a Conversation,
    /// By client: which group it publishes in.
    group_of: Vec<Option<u32>>,
    /// By group: what it has said.
    said: Vec<u64>,
    serial: u32,
    latency: Vec<Histogram<u64>>,
    /// Whose latency counts: what is due between these.
    measured: (u64, u64),
    markers_before: u64,
    began: Instant,
    next_sip: Instant,
    /// By client: whether it reads less than it might, so that its latency is its own doing.
    is_slow: Vec<bool>,
    holes_told: u64,
    markers: Vec<HeardMarker>,
}

impl Conversation {
    /// Has it, and waits for what is under way at the end.
    pub(crate) fn run(&self, crowd: &mut Crowd) -> Result<Findings, LoadError> {
        let mut talk = Talk::new(crowd, self);
        talk.open_windows()?;
        let begin = talk.began + self.warm_up;
        talk.go_on_until(begin)?;
        let me = std::process::id();
        let (server, load, counts) = (self.pid.and_then(Cpu::of), Cpu::of(me), talk.crowd.counts());
        let started = Instant::now();
        let mut timeline = Vec::new();
        let mut until_now = counts.markers;
        let mut files: Vec<(Instant, usize)> = Vec::new();
        while started.elapsed() < self.duration {
            let end = started + BUCKET * (timeline.len() as u32 + 1);
            talk.go_on_until(end)?;
            let markers = talk.crowd.counts().markers;
            timeline.push(markers - until_now);
            until_now = markers;
            // A client that reads nothing does not see that its connection has ended; the server's files tell.
            if let Some(now) = self.pid.filter(|_| self.watches_files).and_then(machine::open_files)
                && files.last().is_none_or(|(_, before)| *before != now)
            {
                files.push((Instant::now(), now));
            }
        }
        let seconds = started.elapsed().as_secs_f64();
        let after = talk.crowd.counts();
        let since = |before: Option<Cpu>, pid| Some(Cpu::of(pid)?.since(before?));
        let server = self.pid.and_then(|pid| since(server, pid));
        let load = since(load, me).unwrap_or_default();
        talk.finish()?;
        let lost = talk.missing();
        let Talk { said, latency, began, holes_told, .. } = talk;
        let farewells = crowd.take_farewells();
        Ok(Findings {
            seconds,
            counts: Counts {
                markers: after.markers - counts.markers,
                bytes: after.bytes - counts.bytes,
                reads: after.reads - counts.reads,
            },
            latency,
            timeline,
            server,
            load,
            lost,
            said: said.iter().sum(),
            farewells,
            holes_told,
            began,
            files,
        })
    }
}

impl<'a> Talk<'a> {
    fn new(crowd: &'a mut Crowd, conversation: &'a Conversation) -> Self {
        let began = Instant::now();
        let mut group_of = vec![None; crowd.len()];
        for (index, group) in conversation.groups.iter().enumerate() {
            for (client, _) in &group.publishers {
                group_of[*client as usize] = Some(index as u32);
            }
        }
        let begin = crowd.micros(began + conversation.warm_up);
        let end = begin + conversation.duration.as_micros() as u64;
        // What earlier conversations left behind is not of this one.
        crowd.take_markers(&mut Vec::new());
        crowd.take_messages();
        let mut is_slow = vec![false; crowd.len()];
        conversation.slow.clients.iter().for_each(|client| is_slow[*client as usize] = true);
        Self {
            group_of,
            is_slow,
            said: vec![0; conversation.groups.len()],
            latency: conversation.groups.iter().map(|_| record::latencies()).collect(),
            measured: (begin, end),
            markers_before: crowd.counts().markers,
            crowd,
            conversation,
            serial: 0,
            began,
            next_sip: began,
            holes_told: 0,
            markers: Vec::new(),
        }
    }

    /// Every publisher of a closed group says as much as may be under way.
    fn open_windows(&mut self) -> Result<(), LoadError> {
        for (index, group) in self.conversation.groups.iter().enumerate() {
            let Pace::Closed { window } = group.pace else { continue };
            for nth in 0..group.publishers.len() {
                self.say(index, nth, window, Instant::now())?;
            }
        }
        Ok(())
    }

    fn say(&mut self, group: usize, nth: usize, count: u32, due: Instant) -> Result<(), LoadError> {
        let (client, room) = self.conversation.groups[group].publishers[nth];
        if self.crowd.is_gone(client) {
            return Ok(());
        }
        let mut bytes = Vec::new();
        for _ in 0..count {
            let marker = Marker { publisher: client, serial: self.serial, due_micros: self.crowd.micros(due) };
            self.serial = self.serial.wrapping_add(1);
            bytes.extend(self.crowd.chat_bytes(room, &marker.text(self.conversation.text_bytes)));
        }
        self.said[group] += u64::from(count);
        self.crowd.say(client, &bytes)
    }

    /// Talks and listens until then.
    fn go_on_until(&mut self, end: Instant) -> Result<(), LoadError> {
        while Instant::now() < end {
            let next = self.say_what_is_due()?;
            let sip = if self.conversation.slow.clients.is_empty() { end } else { self.sip() };
            self.crowd.turn(Some(next.unwrap_or(end).min(end).min(sip)))?;
            self.listen(true)?;
        }
        Ok(())
    }

    /// Says what the schedules of open groups have due; when the next is.
    fn say_what_is_due(&mut self) -> Result<Option<Instant>, LoadError> {
        let mut next: Option<Instant> = None;
        for (index, group) in self.conversation.groups.iter().enumerate() {
            let Pace::Open { per_second } = group.pace else { continue };
            loop {
                let nth = self.said[index];
                let due = self.began + Duration::from_secs_f64(nth as f64 / per_second);
                if due > Instant::now() {
                    next = Some(next.map_or(due, |next| next.min(due)));
                    break;
                }
                let publisher = nth as usize % group.publishers.len();
                self.say(index, publisher, 1, due)?;
                // Whoever has gone is passed over.
                self.said[index] = nth + 1;
            }
        }
        Ok(next)
    }

    /// Takes what was heard; answers to a publisher's own have it say the next, if the talk goes on.
    fn listen(&mut self, goes_on: bool) -> Result<(), LoadError> {
        let mut markers = std::mem::take(&mut self.markers);
        self.crowd.take_markers(&mut markers);
        let mut answers: Option<(ClientIndex, u32)> = None;
        for HeardMarker { client, marker, at } in &markers {
            let Some(group) = self.group_of.get(marker.publisher as usize).copied().flatten() else { continue };
            if (self.measured.0..self.measured.1).contains(&marker.due_micros) && !self.is_slow[*client as usize] {
                let waited = self.crowd.micros(*at).saturating_sub(marker.due_micros);
                self.latency[group as usize].saturating_record(waited.max(1));
            }
            if *client != marker.publisher || !goes_on {
                continue;
            }
            match &mut answers {
                Some((who, count)) if who == client => *count += 1,
                other => {
                    let before = other.replace((*client, 1));
                    self.answer(before)?;
                }
            }
        }
        self.answer(answers)?;
        self.markers = markers;
        for (_, message) in self.crowd.take_messages() {
            self.holes_told += u64::from(message.contains(r#""recovered":false"#));
        }
        Ok(())
    }

    fn answer(&mut self, heard: Option<(ClientIndex, u32)>) -> Result<(), LoadError> {
        let Some((client, count)) = heard else { return Ok(()) };
        let Some(group) = self.group_of[client as usize] else { return Ok(()) };
        let Group { pace, publishers, .. } = &self.conversation.groups[group as usize];
        if matches!(pace, Pace::Closed { .. })
            && let Ok(nth) = publishers.binary_search_by_key(&client, |(client, _)| *client)
        {
            self.say(group as usize, nth, count, Instant::now())?;
        }
        Ok(())
    }

    /// Has slow readers read if it is time; when it is again.
    fn sip(&mut self) -> Instant {
        let slow = &self.conversation.slow;
        if Instant::now() >= self.next_sip {
            let bytes = (slow.bytes_per_second as f64 * SIP.as_secs_f64()) as usize;
            for client in &slow.clients {
                self.crowd.read_slowly(*client, bytes);
            }
            self.next_sip += SIP;
        }
        self.next_sip
    }

    /// How much of what was said has not reached somebody, so far.
    fn missing(&self) -> u64 {
        let owed = self.conversation.groups.iter().zip(&self.said).map(|(group, said)| group.members as u64 * said);
        owed.sum::<u64>().saturating_sub(self.crowd.counts().markers - self.markers_before)
    }

    /// Says nothing more and waits until everything has come, or nothing more does.
    fn finish(&mut self) -> Result<(), LoadError> {
        // Nobody is called lossy for a pause of the machine; and slow readers rest when they change from the live log to
        // history and back.
        const QUIET: Duration = Duration::from_millis(1500);
        const PATIENCE: Duration = Duration::from_secs(30);
        let give_up = Instant::now() + PATIENCE;
        let mut last_read = Instant::now();
        let mut bytes = self.crowd.counts().bytes;
        while self.missing() > 0 && last_read.elapsed() < QUIET && Instant::now() < give_up {
            let sip = if self.conversation.slow.clients.is_empty() { last_read + QUIET } else { self.sip() };
            self.crowd.turn(Some(sip))?;
            self.listen(false)?;
            if self.crowd.counts().bytes != bytes {
                (bytes, last_read) = (self.crowd.counts().bytes, Instant::now());
            }
        }
        Ok(())
    }
}
