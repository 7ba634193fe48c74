//! The reassembler of a room against a small Redis that loses, doubles, reorders and forgets, under seeded chance.

mod cases;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::bus::message::Numbered;
use crate::bus::redis::chance::Chance;
use crate::bus::redis::connection::RunId;
use crate::bus::redis::ordering::history::{
    ChannelMessage, HistoryQuery, HistorySlice, OrderingStep, RoomPosition, fingerprint_of,
};
use crate::bus::redis::ordering::reassembler::Reassembler;
use crate::id::Epoch;

/// One room of Redis, as the scripts keep it.
struct Redis {
    run: u32,
    /// The run in which the epoch was confirmed.
    confirmed: u32,
    epochs: u64,
    epoch: Epoch,
    seq: u64,
    /// The fingerprint of message `seq`, whether the stream has it or not.
    fingerprint: Option<u64>,
    stream: BTreeMap<u64, Bytes>,
    bodies: u64,
    /// Which number each body was given, ever.
    truth: BTreeMap<Bytes, u64>,
}

impl Redis {
    fn begin_epoch(&mut self) {
        self.epochs += 1;
        self.epoch = Epoch::new(&format!("e{}", self.epochs));
        self.confirmed = self.run;
    }

    fn publish(&mut self) -> ChannelMessage {
        self.seq += 1;
        self.bodies += 1;
        let body = Bytes::from(format!("m{}", self.bodies));
        self.stream.insert(self.seq, body.clone());
        self.truth.insert(body.clone(), self.seq);
        self.fingerprint = Some(fingerprint_of(&body));
        ChannelMessage { run_id: RunId::new(self.run), epoch: self.epoch.clone(), seq: self.seq, body }
    }

    fn renew(&mut self) -> ChannelMessage {
        self.begin_epoch();
        ChannelMessage { run_id: RunId::new(self.run), epoch: self.epoch.clone(), seq: self.seq, body: Bytes::new() }
    }

    fn slice(&self, from: Option<u64>, most: usize) -> HistorySlice {
        let found = self.stream.range(from.unwrap_or(u64::MAX)..);
        let all: Vec<Numbered> = found.map(|(seq, body)| Numbered { seq: *seq, body: body.clone() }).collect();
        let complete = all.len() <= most;
        let messages = all.into_iter().take(most).collect();
        let (run_id, fingerprint) = (RunId::new(self.run), self.fingerprint);
        let position = RoomPosition { run_id, epoch: self.epoch.clone(), top: self.seq, fingerprint };
        HistorySlice { position, is_confirmed: self.confirmed == self.run, complete, messages }
    }
}

/// What is under way on the link that asks.
enum Call {
    Ask(HistoryQuery),
    Read,
    Answered(HistorySlice),
    Observed(HistorySlice),
    Failed,
}

struct World {
    chance: Chance,
    redis: Redis,
    reassembler: Reassembler,
    channel: VecDeque<ChannelMessage>,
    calls: VecDeque<Call>,
    /// What the hub was told: the epoch, where it began, and what was delivered in it.
    told: Option<(Epoch, u64, BTreeMap<u64, Bytes>)>,
    /// The message at which the hub was told that it begins.
    began_with: Option<u64>,
    renewals: u64,
    fills: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let redis = Redis {
            run: 1,
            confirmed: 1,
            fingerprint: None,
            epochs: 0,
            epoch: Epoch::new("e0"),
            seq: 0,
            stream: BTreeMap::new(),
            bodies: 0,
            truth: BTreeMap::new(),
        };
        Self {
            chance: Chance::new(seed),
            redis,
            reassembler: Reassembler::new(),
            channel: VecDeque::new(),
            calls: VecDeque::from([Call::Read]),
            told: None,
            began_with: None,
            renewals: 0,
            fills: 0,
        }
    }

    fn step(&mut self) {
        match self.chance.below(100) {
            0..30 => {
                let arrival = self.redis.publish();
                self.channel.push_back(arrival);
            }
            30..60 => self.arrive(),
            60..75 => self.execute(),
            75..90 => self.reply(),
            90..93 if self.calls.len() < 8 => self.calls.push_back(Call::Read),
            93 => self.reassembler.check_awaited(),
            94 => self.reassembler.check_position(),
            95 => self.trim(),
            96 => self.interrupt(),
            97..99 if self.chance.one_in(3) => self.misfortune(),
            _ => {}
        }
        self.ask();
    }

    /// The next message arrives; or it does not, or twice, or out of order.
    fn arrive(&mut self) {
        if self.chance.one_in(20) && self.channel.len() > 1 {
            self.channel.swap(0, 1);
        }
        let Some(arrival) = self.channel.pop_front() else { return };
        if self.chance.one_in(40) {
            return;
        }
        if self.chance.one_in(20) {
            self.channel.push_front(arrival.clone());
        }
        self.apply(|reassembler, steps| reassembler.take(arrival, steps));
    }

    /// Redis does what is asked next; some of it fails.
    fn execute(&mut self) {
        let is_open = |call: &Call| matches!(call, Call::Ask(_) | Call::Read);
        let Some(at) = self.calls.iter().position(is_open) else { return };
        let most = 1 + self.chance.below(6) as usize;
        let fails = self.chance.one_in(15);
        let done = match &self.calls[at] {
            Call::Ask(_) if fails => Call::Failed,
            Call::Ask(HistoryQuery::Position) => Call::Answered(self.redis.slice(None, 0)),
            Call::Ask(HistoryQuery::Since(from)) => {
                self.fills += 1;
                Call::Answered(self.redis.slice(Some(*from), most + 1))
            }
            Call::Ask(HistoryQuery::Confirm(epoch, run_id)) => {
                if *epoch == self.redis.epoch && *run_id == RunId::new(self.redis.run) {
                    self.redis.confirmed = self.redis.run;
                }
                Call::Answered(self.redis.slice(None, 0))
            }
            Call::Ask(HistoryQuery::Renew(old)) => {
                if *old == self.redis.epoch {
                    let notice = self.redis.renew();
                    self.channel.push_back(notice);
                    self.renewals += 1;
                }
                Call::Answered(self.redis.slice(None, 0))
            }
            _ => {
                if self.told.is_none() && self.redis.confirmed != self.redis.run {
                    let notice = self.redis.renew();
                    self.channel.push_back(notice);
                }
                Call::Observed(self.redis.slice(None, 0))
            }
        };
        self.calls[at] = done;
    }

    fn reply(&mut self) {
        if matches!(self.calls.front(), None | Some(Call::Ask(_) | Call::Read)) {
            return;
        }
        let call = self.calls.pop_front();
        match call {
            Some(Call::Answered(slice)) => self.apply(|reassembler, steps| reassembler.answer(slice, steps)),
            Some(Call::Failed) => self.reassembler.fail(),
            Some(Call::Observed(HistorySlice { position, is_confirmed, .. })) => {
                if self.told.is_none() {
                    assert!(is_confirmed, "a first read renews the epoch if nobody has confirmed it");
                    self.told = Some((position.epoch.clone(), position.top, BTreeMap::new()));
                    self.began_with = position.fingerprint;
                } else if !is_confirmed {
                    // The bus shows no such page.
                    return self.reassembler.check_position();
                }
                self.apply(|reassembler, steps| reassembler.observe(position, steps));
            }
            _ => {}
        }
    }

    fn ask(&mut self) {
        if let Some(question) = self.reassembler.poll_query() {
            self.calls.push_back(Call::Ask(question));
        }
    }

    fn trim(&mut self) {
        let most = self.chance.below(20) as usize;
        while self.redis.stream.len() > most {
            self.redis.stream.pop_first();
        }
    }

    /// The subscription is cut, and stands again.
    fn interrupt(&mut self) {
        self.channel.clear();
        self.reassembler.require_resync();
    }

    fn misfortune(&mut self) {
        self.redis.run += u32::from(!self.chance.one_in(4));
        match self.chance.below(5) {
            0 => {
                let notice = self.redis.renew();
                self.channel.push_back(notice);
                return;
            }
            // It has lost nothing.
            1 => {}
            2 => {
                // All is lost.
                self.redis.begin_epoch();
                self.redis.seq = 0;
                self.redis.stream.clear();
            }
            _ => {
                // The newest messages are lost, and their numbers are given out again.
                self.redis.run += 1;
                let lost = self.chance.below(5).min(self.redis.seq);
                if lost > 0 {
                    self.redis.seq -= lost;
                    self.redis.stream.split_off(&(self.redis.seq + 1));
                    self.redis.fingerprint = self.redis.stream.get(&self.redis.seq).map(|body| fingerprint_of(body));
                }
            }
        }
        for _ in 0..self.chance.below(5) {
            self.redis.publish();
        }
        self.interrupt();
    }

    fn apply(&mut self, act: impl FnOnce(&mut Reassembler, &mut Vec<OrderingStep>)) {
        let mut steps = Vec::new();
        act(&mut self.reassembler, &mut steps);
        for step in steps {
            let told = self.told.as_mut().expect("nothing is told before the first page");
            match step {
                OrderingStep::EpochChanged { epoch, top } => {
                    *told = (epoch, top, BTreeMap::new());
                    self.began_with = None;
                }
                OrderingStep::Deliver(Numbered { seq, body }) => {
                    let (_, start, delivered) = told;
                    assert_eq!(seq, *start + delivered.len() as u64 + 1, "not consecutive");
                    assert_eq!(self.redis.truth.get(&body), Some(&seq), "a message that never was");
                    delivered.insert(seq, body);
                }
            }
        }
    }

    /// Nothing goes wrong any more: in the end all is as Redis has it.
    fn settle(&mut self) {
        while let Some(arrival) = self.channel.pop_front() {
            self.apply(|reassembler, steps| reassembler.take(arrival, steps));
            self.ask();
        }
        self.reassembler.require_resync();
        for _ in 0..10_000 {
            self.ask();
            if self.calls.is_empty() {
                if !self.reassembler.awaits() {
                    break;
                }
                self.reassembler.check_awaited();
                continue;
            }
            self.execute();
            self.reply();
            while let Some(arrival) = self.channel.pop_front() {
                self.apply(|reassembler, steps| reassembler.take(arrival, steps));
            }
        }
        assert!(self.calls.is_empty() && !self.reassembler.wants_query(), "it asks forever");
        let Some((epoch, start, delivered)) = &self.told else { panic!("it was never told where it is") };
        assert_eq!(*epoch, self.redis.epoch);
        assert_eq!(start + delivered.len() as u64, self.redis.seq, "not level");
        for (seq, body) in self.redis.stream.iter().filter(|(seq, _)| *seq > start) {
            assert_eq!(delivered.get(seq), Some(body), "another message {seq} than history has");
        }
        if let Some(began_with) = self.began_with
            && let Some(body) = self.redis.stream.get(start)
        {
            assert_eq!(began_with, fingerprint_of(body), "it goes on behind another message {start} than history has");
        }
        assert!(self.reassembler.buffer.is_empty());
        assert_eq!(self.redis.confirmed, self.redis.run, "nobody has confirmed the epoch");
    }
}

#[test]
fn deliveries_are_consecutive_and_nothing_that_history_holds_is_missing() {
    let seeds = std::env::var("ROOMCAST_SIM_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(3000);
    let (mut renewals, mut fills) = (0, 0);
    for seed in 0..seeds {
        let result = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            (0..400).for_each(|_| world.step());
            world.settle();
            (world.renewals, world.fills)
        });
        let counts = result.unwrap_or_else(|_| panic!("seed {seed}"));
        renewals += counts.0;
        fills += counts.1;
    }
    assert!(renewals > seeds / 10 && fills > seeds, "{renewals} renewals and {fills} fills are too few to mean much");
}
