//! Runs a conversation, and measures what is received and spent meanwhile.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::run::ConversationRun;
use super::{Conversation, Totals};
use crate::client::{Counts, Disconnect};
use crate::crowd::Crowd;
use crate::error::LoadError;
use crate::machine::{self, Cpu};

const BUCKET: Duration = Duration::from_millis(100);

/// The results of a conversation.
pub(crate) struct Findings {
    /// How long was measured.
    pub(crate) seconds: f64,
    /// Bytes and messages received in that time.
    pub(crate) counts: Counts,
    /// Latency of each group, from the moment at which a message was due.
    pub(crate) latency: Vec<Histogram<u64>>,
    /// Deliveries in each tenth of a second.
    pub(crate) timeline: Vec<u64>,
    pub(crate) server: Option<Cpu>,
    pub(crate) load: Cpu,
    pub(crate) totals: Totals,
    pub(crate) disconnects: Vec<Disconnect>,
    /// When publishing began.
    pub(crate) began: Instant,
    /// How many files the server had open, at every change.
    pub(crate) files: Vec<(Instant, usize)>,
}

impl Conversation {
    /// Runs it, and waits for the messages that are under way at the end.
    pub(crate) fn run(&self, crowd: &mut Crowd) -> Result<Findings, LoadError> {
        let mut run = ConversationRun::new(crowd, self);
        run.open_windows()?;
        let began = run.began();
        run.go_on_until(began + self.warm_up)?;
        let me = std::process::id();
        let (server, load, counts) = (self.pid.and_then(Cpu::of), Cpu::of(me), run.counts());
        let started = Instant::now();
        let mut timeline = Vec::new();
        let mut until_now = counts.markers;
        let mut files: Vec<(Instant, usize)> = Vec::new();
        while started.elapsed() < self.duration {
            let end = started + BUCKET * (timeline.len() as u32 + 1);
            run.go_on_until(end)?;
            let markers = run.counts().markers;
            timeline.push(markers - until_now);
            until_now = markers;
            // A client that reads nothing does not notice the end of its connection. The server's open files show it.
            if let Some(now) = self.pid.filter(|_| self.counts_files).and_then(machine::open_files)
                && files.last().is_none_or(|(_, before)| *before != now)
            {
                files.push((Instant::now(), now));
            }
        }
        let seconds = started.elapsed().as_secs_f64();
        let after = run.counts();
        let since = |before: Option<Cpu>, pid| Some(Cpu::of(pid)?.since(before?));
        let server = self.pid.and_then(|pid| since(server, pid));
        let load = since(load, me).unwrap_or_default();
        let (totals, latency) = run.finish()?;
        Ok(Findings {
            seconds,
            counts: after.since(counts),
            latency,
            timeline,
            server,
            load,
            totals,
            disconnects: crowd.take_disconnects(),
            began,
            files,
        })
    }
}
