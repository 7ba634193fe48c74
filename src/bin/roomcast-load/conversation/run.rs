//! A conversation while it runs: which message is due, who publishes next, how long each took.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::{Conversation, Group, Pace, SlowReaders, Totals};
use crate::client::{ClientIndex, Counts, ReceivedMarker};
use crate::crowd::Crowd;
use crate::error::LoadError;
use crate::marker::Marker;
use crate::record;

/// How often slow readers read.
const SLOW_READ_INTERVAL: Duration = Duration::from_millis(20);

pub(super) struct ConversationRun<'a> {
    crowd: &'a mut Crowd,
    conversation: &'a Conversation,
    began: Instant,
    markers_before: u64,
    /// By client: the group in which it publishes.
    group_of: Vec<Option<u32>>,
    /// By group: how many messages it has published.
    published: Vec<u64>,
    serial: u32,
    latency: Latency,
    slow_reads: SlowReads,
    /// Kept for its allocation.
    markers: Vec<ReceivedMarker>,
}

/// Latency of each group.
struct Latency {
    histograms: Vec<Histogram<u64>>,
    /// Only messages that are due between these count, in microseconds of the crowd.
    measured: (u64, u64),
    /// By client: whether it is a slow reader. Its latency is its own fault.
    is_slow: Vec<bool>,
}

/// When slow readers read next, and what they were told.
struct SlowReads {
    next: Instant,
    gap_notices: u64,
}

impl<'a> ConversationRun<'a> {
    pub(super) fn new(crowd: &'a mut Crowd, conversation: &'a Conversation) -> Self {
        let began = Instant::now();
        let mut group_of = vec![None; crowd.len()];
        for (index, group) in conversation.groups.iter().enumerate() {
            for (client, _) in &group.publishers {
                group_of[*client as usize] = Some(index as u32);
            }
        }
        let begin = crowd.micros(began + conversation.warm_up);
        let end = begin + conversation.duration.as_micros() as u64;
        // They belong to an earlier conversation.
        crowd.take_markers(&mut Vec::new());
        crowd.take_messages();
        let mut is_slow = vec![false; crowd.len()];
        conversation.slow.clients.iter().for_each(|client| is_slow[*client as usize] = true);
        let histograms = conversation.groups.iter().map(|_| record::latencies()).collect();
        Self {
            group_of,
            published: vec![0; conversation.groups.len()],
            serial: 0,
            latency: Latency { histograms, measured: (begin, end), is_slow },
            slow_reads: SlowReads { next: began, gap_notices: 0 },
            markers_before: crowd.counts().markers,
            crowd,
            conversation,
            began,
            markers: Vec::new(),
        }
    }

    pub(super) fn began(&self) -> Instant {
        self.began
    }

    pub(super) fn counts(&self) -> Counts {
        self.crowd.counts()
    }

    /// Every publisher of a closed group sends as many messages as may be under way.
    pub(super) fn open_windows(&mut self) -> Result<(), LoadError> {
        for (index, group) in self.conversation.groups.iter().enumerate() {
            let Pace::Closed { window } = group.pace else { continue };
            for nth in 0..group.publishers.len() {
                self.publish(index, nth, window, Instant::now())?;
            }
        }
        Ok(())
    }

    /// Sends messages of one publisher, in one write.
    fn publish(&mut self, group: usize, nth: usize, count: u32, due: Instant) -> Result<(), LoadError> {
        let (client, room) = self.conversation.groups[group].publishers[nth];
        if self.crowd.is_closed(client) {
            return Ok(());
        }
        let mut bytes = Vec::new();
        for _ in 0..count {
            let marker = Marker { publisher: client, serial: self.serial, due_micros: self.crowd.micros(due) };
            self.serial = self.serial.wrapping_add(1);
            bytes.extend(self.crowd.chat_bytes(room, &marker.text(self.conversation.text_bytes)));
        }
        self.published[group] += u64::from(count);
        self.crowd.send(client, &bytes)
    }

    /// Publishes and reads until a moment.
    pub(super) fn go_on_until(&mut self, end: Instant) -> Result<(), LoadError> {
        while Instant::now() < end {
            let next = self.publish_due()?;
            let slow_read = if self.conversation.slow.clients.is_empty() { end } else { self.read_slowly() };
            self.crowd.turn(Some(next.unwrap_or(end).min(end).min(slow_read)))?;
            self.receive(true)?;
        }
        Ok(())
    }

    /// Publishes what the schedules of open groups have due; returns when the next message is due.
    fn publish_due(&mut self) -> Result<Option<Instant>, LoadError> {
        let mut next: Option<Instant> = None;
        for (index, group) in self.conversation.groups.iter().enumerate() {
            let Pace::Open { per_second } = group.pace else { continue };
            loop {
                let nth = self.published[index];
                let due = self.began + Duration::from_secs_f64(nth as f64 / per_second);
                if due > Instant::now() {
                    next = Some(next.map_or(due, |next| next.min(due)));
                    break;
                }
                let publisher = nth as usize % group.publishers.len();
                self.publish(index, publisher, 1, due)?;
                // The turn of a closed publisher counts: the schedule goes on.
                self.published[index] = nth + 1;
            }
        }
        Ok(next)
    }

    /// Handles what was received. While the conversation goes on, a publisher of a closed group sends a message for each
    /// of its own that came back.
    fn receive(&mut self, goes_on: bool) -> Result<(), LoadError> {
        let mut markers = std::mem::take(&mut self.markers);
        self.crowd.take_markers(&mut markers);
        let mut returned: Option<(ClientIndex, u32)> = None;
        for ReceivedMarker { client, marker, at } in &markers {
            let Some(group) = self.group_of.get(marker.publisher as usize).copied().flatten() else { continue };
            if (self.latency.measured.0..self.latency.measured.1).contains(&marker.due_micros)
                && !self.latency.is_slow[*client as usize]
            {
                let waited = self.crowd.micros(*at).saturating_sub(marker.due_micros);
                self.latency.histograms[group as usize].saturating_record(waited.max(1));
            }
            if *client != marker.publisher || !goes_on {
                continue;
            }
            match &mut returned {
                Some((who, count)) if who == client => *count += 1,
                other => {
                    let before = other.replace((*client, 1));
                    self.publish_again(before)?;
                }
            }
        }
        self.publish_again(returned)?;
        self.markers = markers;
        for (_, message) in self.crowd.take_messages() {
            self.slow_reads.gap_notices += u64::from(message.contains(r#""recovered":false"#));
        }
        Ok(())
    }

    /// Sends as many messages as have come back to a publisher, if its group is closed.
    fn publish_again(&mut self, returned: Option<(ClientIndex, u32)>) -> Result<(), LoadError> {
        let Some((client, count)) = returned else { return Ok(()) };
        let Some(group) = self.group_of[client as usize] else { return Ok(()) };
        let Group { pace, publishers, .. } = &self.conversation.groups[group as usize];
        if matches!(pace, Pace::Closed { .. })
            && let Ok(nth) = publishers.binary_search_by_key(&client, |(client, _)| *client)
        {
            self.publish(group as usize, nth, count, Instant::now())?;
        }
        Ok(())
    }

    /// Lets slow readers read if it is time; returns when it is time again.
    fn read_slowly(&mut self) -> Instant {
        let SlowReaders { clients, bytes_per_second } = &self.conversation.slow;
        if Instant::now() >= self.slow_reads.next {
            let bytes = (*bytes_per_second as f64 * SLOW_READ_INTERVAL.as_secs_f64()) as usize;
            for client in clients {
                self.crowd.read_on_demand(*client, bytes);
            }
            self.slow_reads.next += SLOW_READ_INTERVAL;
        }
        self.slow_reads.next
    }

    /// Deliveries that have not come so far.
    fn missing(&self) -> u64 {
        let groups = self.conversation.groups.iter().zip(&self.published);
        let expected = groups.map(|(group, published)| group.members as u64 * published).sum::<u64>();
        expected.saturating_sub(self.crowd.counts().markers - self.markers_before)
    }

    /// Publishes nothing more, and waits until all deliveries have come or no more do.
    pub(super) fn finish(mut self) -> Result<(Totals, Vec<Histogram<u64>>), LoadError> {
        // Longer than a pause of the machine, and than slow readers rest when they change from the live log to history
        // and back.
        const QUIET: Duration = Duration::from_millis(1500);
        const PATIENCE: Duration = Duration::from_secs(30);
        let give_up = Instant::now() + PATIENCE;
        let mut last_read = Instant::now();
        let mut bytes = self.crowd.counts().bytes;
        while self.missing() > 0 && last_read.elapsed() < QUIET && Instant::now() < give_up {
            let wake = if self.conversation.slow.clients.is_empty() { last_read + QUIET } else { self.read_slowly() };
            self.crowd.turn(Some(wake))?;
            self.receive(false)?;
            if self.crowd.counts().bytes != bytes {
                (bytes, last_read) = (self.crowd.counts().bytes, Instant::now());
            }
        }
        let totals = Totals {
            published: self.published.iter().sum(),
            lost: self.missing(),
            gap_notices: self.slow_reads.gap_notices,
        };
        Ok((totals, self.latency.histograms))
    }
}
