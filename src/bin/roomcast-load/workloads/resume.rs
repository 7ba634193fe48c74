//! A thousand members lose their connections at once and come back while messages flow.

use std::time::{Duration, Instant};

use serde::Deserialize;

use super::fan_out::PUBLISHERS;
use crate::bench::Bench;
use crate::client::{ClientIndex, Ear, HeardMarker};
use crate::crowd::Crowd;
use crate::error::LoadError;
use crate::marker::Marker;
use crate::wire;

const MESSAGES_PER_SECOND: u32 = 100;

/// Roomcast's position of a member, as far as it is needed.
#[derive(Clone, Debug, Default, Deserialize)]
struct Joined {
    epoch: String,
    seq: u64,
    recovered: Option<bool>,
}

/// What a member has.
#[derive(Clone, Debug, Default)]
struct Member {
    epoch: String,
    seq: u64,
    /// How often it has received each message, by serial number.
    received: Vec<u8>,
    is_joined: bool,
    was_told_of_hole: bool,
}

struct Flow {
    publishers: Vec<ClientIndex>,
    members: Vec<Member>,
    said: u32,
    began: Instant,
}

pub(super) fn run(bench: &mut Bench<'_>) -> Result<(), LoadError> {
    let count = if bench.flags.quick { 500 } else { 1000 };
    let (_running, mut crowd) = bench.start("")?;
    let step = format!("{count} come back");
    bench.announce(&step);
    let members = crowd.open(count, Ear::Messages)?;
    let publishers = crowd.open(PUBLISHERS, Ear::Counts)?;
    let all = [&members[..], &publishers].concat();
    crowd.join(&all, |_| 0)?;
    let mut flow = Flow { publishers, members: vec![Member::default(); count], said: 0, began: Instant::now() };
    flow.listen(&mut crowd);
    if flow.members.iter().any(|member| member.epoch.is_empty()) {
        return bench.record(&step, |record| {
            record.remark("this server tells no position to come back to");
        });
    }
    flow.go_on_for(&mut crowd, Duration::from_secs(1))?;
    for client in &members {
        crowd.cut(*client)?;
    }
    let cut = Instant::now();
    // For a moment nobody is there and messages are said.
    flow.go_on_for(&mut crowd, Duration::from_millis(500))?;
    let returning = Instant::now();
    flow.come_back(&mut crowd, &members)?;
    let level_after = returning.elapsed();
    flow.go_on_for(&mut crowd, Duration::from_millis(500))?;
    crowd.settle(Duration::from_millis(300))?;
    flow.listen(&mut crowd);
    let copies = |wanted: fn(u8) -> bool| {
        let of = |member: &Member| (0..flow.said as usize).filter(|serial| wanted(member.copies(*serial))).count();
        flow.members.iter().map(of).sum::<usize>() as f64
    };
    bench.record(&step, |record| {
        record.set("level_after_s", level_after.as_secs_f64());
        record.set("away_s", (returning - cut).as_secs_f64());
        record.set("said", f64::from(flow.said));
        record.set("lost", copies(|copies| copies == 0));
        record.set("doubled", copies(|copies| copies > 1));
        record.set("holes_told", flow.members.iter().filter(|member| member.was_told_of_hole).count() as f64);
    })
}

impl Member {
    fn copies(&self, serial: usize) -> u8 {
        self.received.get(serial).copied().unwrap_or(0)
    }
}

impl Flow {
    fn go_on_for(&mut self, crowd: &mut Crowd, time: Duration) -> Result<(), LoadError> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.go_on(crowd, end)?;
        }
        Ok(())
    }

    /// Says what is due, waits for something to happen, and takes note of it.
    fn go_on(&mut self, crowd: &mut Crowd, end: Instant) -> Result<(), LoadError> {
        let mut due = self.began + Duration::from_secs(1) * self.said / MESSAGES_PER_SECOND;
        while due <= Instant::now() {
            let publisher = self.publishers[self.said as usize % self.publishers.len()];
            let marker = Marker { publisher, serial: self.said, due_micros: 0 };
            let message = crowd.chat_bytes(0, &marker.text(64));
            crowd.say(publisher, &message)?;
            self.said += 1;
            due = self.began + Duration::from_secs(1) * self.said / MESSAGES_PER_SECOND;
        }
        crowd.turn(Some(due.min(end)))?;
        self.listen(crowd);
        Ok(())
    }

    fn listen(&mut self, crowd: &mut Crowd) {
        let mut markers = Vec::new();
        crowd.take_markers(&mut markers);
        for HeardMarker { client, marker, .. } in markers {
            let Some(member) = self.members.get_mut(client as usize) else { continue };
            let serial = marker.serial as usize;
            if member.received.len() <= serial {
                member.received.resize(serial + 1, 0);
            }
            member.received[serial] += 1;
        }
        for (client, message) in crowd.take_messages() {
            let Some(member) = self.members.get_mut(client as usize) else { continue };
            if message.starts_with(r#"{"type":"chat""#) {
                let seq = message.rsplit_once(r#""seq":"#).and_then(|(_, seq)| seq.trim_end_matches('}').parse().ok());
                member.seq = seq.unwrap_or(member.seq);
            } else if let Ok(joined) = serde_json::from_str::<Joined>(&message) {
                member.was_told_of_hole |= joined.recovered == Some(false);
                (member.epoch, member.seq, member.is_joined) = (joined.epoch, joined.seq, true);
            }
        }
    }

    /// All at once; until all are level again.
    fn come_back(&mut self, crowd: &mut Crowd, members: &[ClientIndex]) -> Result<(), LoadError> {
        crowd.take_farewells();
        for client in members {
            crowd.begin_reopen(*client, Ear::Messages.into())?;
            self.members[*client as usize].is_joined = false;
        }
        let mut asked = vec![false; members.len()];
        let give_up = Instant::now() + Duration::from_secs(30);
        while !self.members.iter().all(|member| member.is_joined) {
            if Instant::now() > give_up {
                return Err(LoadError::Silence("everybody to be level again".to_owned()));
            }
            self.go_on(crowd, give_up)?;
            crowd.expect_nobody_gone()?;
            for client in members {
                if !asked[*client as usize] && crowd.is_open(*client) {
                    asked[*client as usize] = true;
                    let Member { epoch, seq, .. } = &self.members[*client as usize];
                    let room = crowd.room_name(0);
                    let join =
                        format!(r#"{{"type":"join","room":"{room}","since":{{"epoch":"{epoch}","seq":{seq}}}}}"#);
                    crowd.say(*client, &wire::text(&join))?;
                }
            }
        }
        Ok(())
    }
}
