//! A thousand members lose their connections at once and come back while messages flow.

use std::time::{Duration, Instant};

use serde::Deserialize;

use super::one_room::PUBLISHERS;
use crate::bench::Bench;
use crate::client::{ClientIndex, ReadMode, ReceivedMarker};
use crate::crowd::Crowd;
use crate::error::LoadError;
use crate::marker::Marker;
use crate::wire;

const MESSAGES_PER_SECOND: u32 = 100;

/// The fields of Roomcast's `joined` that tell a member's position.
#[derive(Clone, Debug, Default, Deserialize)]
struct Joined {
    epoch: String,
    seq: u64,
    recovered: Option<bool>,
}

/// What a member has received.
#[derive(Clone, Debug, Default)]
struct Member {
    epoch: String,
    seq: u64,
    /// How often it has received each message, by serial number.
    received: Vec<u8>,
    is_joined: bool,
    was_told_of_gap: bool,
}

struct Flow {
    publishers: Vec<ClientIndex>,
    members: Vec<Member>,
    published: u32,
    began: Instant,
}

pub(super) fn run(bench: &mut Bench<'_>) -> Result<(), LoadError> {
    let count = if bench.flags.quick { 500 } else { 1000 };
    let (_running, mut crowd) = bench.start("")?;
    let step = format!("{count} come back");
    bench.announce(&step);
    let members = crowd.open(count, ReadMode::Messages)?;
    let publishers = crowd.open(PUBLISHERS, ReadMode::Count)?;
    let all = [&members[..], &publishers].concat();
    crowd.join(&all, |_| 0)?;
    let mut flow = Flow { publishers, members: vec![Member::default(); count], published: 0, began: Instant::now() };
    flow.receive(&mut crowd);
    if flow.members.iter().any(|member| member.epoch.is_empty()) {
        return bench.record(&step, |record| {
            record.remark("this server gives members no position to resume from");
        });
    }
    flow.go_on_for(&mut crowd, Duration::from_secs(1))?;
    for client in &members {
        crowd.cut(*client)?;
    }
    let cut = Instant::now();
    // Messages are published while no member is connected.
    flow.go_on_for(&mut crowd, Duration::from_millis(500))?;
    let returning = Instant::now();
    flow.come_back(&mut crowd, &members)?;
    let caught_up_after = returning.elapsed();
    flow.go_on_for(&mut crowd, Duration::from_millis(500))?;
    crowd.wait_until_quiet(Duration::from_millis(300))?;
    flow.receive(&mut crowd);
    let copies = |wanted: fn(u8) -> bool| {
        let of = |member: &Member| (0..flow.published as usize).filter(|serial| wanted(member.copies(*serial))).count();
        flow.members.iter().map(of).sum::<usize>() as f64
    };
    bench.record(&step, |record| {
        record.set("level_after_s", caught_up_after.as_secs_f64());
        record.set("away_s", (returning - cut).as_secs_f64());
        record.set("said", f64::from(flow.published));
        record.set("lost", copies(|copies| copies == 0));
        record.set("doubled", copies(|copies| copies > 1));
        record.set("holes_told", flow.members.iter().filter(|member| member.was_told_of_gap).count() as f64);
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

    /// Publishes what is due, waits for events, and handles what is received.
    fn go_on(&mut self, crowd: &mut Crowd, end: Instant) -> Result<(), LoadError> {
        let mut due = self.began + Duration::from_secs(1) * self.published / MESSAGES_PER_SECOND;
        while due <= Instant::now() {
            let publisher = self.publishers[self.published as usize % self.publishers.len()];
            let marker = Marker { publisher, serial: self.published, due_micros: 0 };
            let message = crowd.chat_bytes(0, &marker.text(64));
            crowd.send(publisher, &message)?;
            self.published += 1;
            due = self.began + Duration::from_secs(1) * self.published / MESSAGES_PER_SECOND;
        }
        crowd.turn(Some(due.min(end)))?;
        self.receive(crowd);
        Ok(())
    }

    fn receive(&mut self, crowd: &mut Crowd) {
        let mut markers = Vec::new();
        crowd.take_markers(&mut markers);
        for ReceivedMarker { client, marker, .. } in markers {
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
                member.was_told_of_gap |= joined.recovered == Some(false);
                (member.epoch, member.seq, member.is_joined) = (joined.epoch, joined.seq, true);
            }
        }
    }

    /// Connects all members at once, and waits until all have joined again.
    fn come_back(&mut self, crowd: &mut Crowd, members: &[ClientIndex]) -> Result<(), LoadError> {
        crowd.take_disconnects();
        for client in members {
            crowd.begin_reopen(*client, ReadMode::Messages.into())?;
            self.members[*client as usize].is_joined = false;
        }
        let mut asked = vec![false; members.len()];
        let give_up = Instant::now() + Duration::from_secs(30);
        while !self.members.iter().all(|member| member.is_joined) {
            if Instant::now() > give_up {
                return Err(LoadError::Timeout("all members to have joined again".to_owned()));
            }
            self.go_on(crowd, give_up)?;
            crowd.check_all_connected()?;
            for client in members {
                if !asked[*client as usize] && crowd.is_open(*client) {
                    asked[*client as usize] = true;
                    let Member { epoch, seq, .. } = &self.members[*client as usize];
                    let room = crowd.room_name(0);
                    let join =
                        format!(r#"{{"type":"join","room":"{room}","since":{{"epoch":"{epoch}","seq":{seq}}}}}"#);
                    crowd.send(*client, &wire::text(&join))?;
                }
            }
        }
        Ok(())
    }
}
