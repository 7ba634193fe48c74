//! The parts that every workload uses: a server, clients, and a place for the records.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::time::Duration;

use indicatif::{HumanDuration, ProgressBar, ProgressState, ProgressStyle};

use crate::conversation::{Conversation, Findings, Group, SlowReaders};
use crate::crowd::Crowd;
use crate::error::LoadError;
use crate::flags::Flags;
use crate::machine::Cores;
use crate::record::{self, Record};
use crate::target::{RateLimits, Running, Target};

/// The step of a record that says why a workload ended early.
const FAILED: &str = "failed";

pub(crate) struct Bench<'a> {
    pub(crate) flags: &'a Flags,
    pub(crate) cores: &'a Cores,
    pub(crate) target: &'a Target,
    pub(crate) workload: &'static str,
    pub(crate) round: u32,
    pub(crate) results: &'a mut Results,
}

/// All records. Each is also written to the file of `--json` at once.
pub(crate) struct Results {
    pub(crate) records: Vec<Record>,
    json: Option<BufWriter<File>>,
    progress: ProgressBar,
}

impl Results {
    pub(crate) fn new(flags: &Flags, steps: u64) -> Result<Self, LoadError> {
        let json = match &flags.json {
            Some(path) => {
                let error = |source| LoadError::Write { path: path.display().to_string(), source };
                Some(BufWriter::new(File::create(path).map_err(error)?))
            }
            None => None,
        };
        let progress = ProgressBar::new(steps);
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len}  {msg}  {time}").expect("the template is valid");
        let time = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            // A progress bar that cannot be drawn is not worth an error.
            let _ = out.write_str(&time(state.elapsed(), state.pos(), state.duration()));
        };
        progress.set_style(style.with_key("time", time));
        progress.enable_steady_tick(Duration::from_millis(250));
        Ok(Self { records: Vec::new(), json, progress })
    }

    pub(crate) fn announce(&self, message: String) {
        self.progress.set_message(message);
    }

    /// Prints a line above the progress bar.
    pub(crate) fn note(&self, line: &str) {
        self.progress.suspend(|| eprintln!("{line}"));
    }

    pub(crate) fn push(&mut self, record: Record) -> Result<(), LoadError> {
        if let Some(json) = &mut self.json {
            serde_json::to_writer(&mut *json, &record).map_err(std::io::Error::other)?;
            json.write_all(b"\n")?;
            json.flush()?;
        }
        if let Some(failure) = &record.failure {
            let Record { workload, step, target, .. } = &record;
            let step = if step == FAILED { String::new() } else { format!(", {step}") };
            self.note(&format!("error: {workload}{step} of {target}: {failure}"));
        }
        self.records.push(record);
        self.progress.inc(1);
        Ok(())
    }

    pub(crate) fn finish(&self) {
        self.progress.finish_and_clear();
    }

    /// # Errors
    /// If something failed. The records say what.
    pub(crate) fn verdict(&self) -> Result<(), LoadError> {
        let failed = self.records.iter().filter(|record| record.failure.is_some()).count();
        if failed == 0 { Ok(()) } else { Err(LoadError::Failed { failed, of: self.records.len() }) }
    }
}

/// The time so far, and the estimate of the whole once a step has ended.
fn time(elapsed: Duration, steps_done: u64, estimate: Duration) -> String {
    let elapsed = HumanDuration(elapsed);
    if steps_done == 0 { format!("{elapsed:#}") } else { format!("{elapsed:#} of about {:#}", HumanDuration(estimate)) }
}

impl Bench<'_> {
    /// Starts the target, with these flags if it is a Roomcast, and a crowd without clients.
    pub(crate) fn start(&self, flags: &str) -> Result<(Running, Crowd), LoadError> {
        let running = self.target.start(flags, RateLimits::Off, self.cores)?;
        let crowd = Crowd::new(running.address, running.wire.clone())?;
        Ok((running, crowd))
    }

    /// The same, but a Roomcast limits what clients may do, as it does by default.
    pub(crate) fn start_limited(&self, flags: &str) -> Result<Running, LoadError> {
        self.target.start(flags, RateLimits::Default, self.cores)
    }

    /// How long a step is measured.
    pub(crate) fn duration(&self) -> Duration {
        let default = if self.flags.quick { Duration::from_millis(800) } else { Duration::from_secs(4) };
        self.flags.duration.unwrap_or(default)
    }

    pub(crate) fn warm_up(&self) -> Duration {
        self.duration() / 5
    }

    pub(crate) fn text_bytes(&self) -> usize {
        self.flags.text_bytes as usize
    }

    /// A conversation without slow readers, as long as the flags say.
    pub(crate) fn conversation(&self, groups: Vec<Group>, pid: Option<u32>) -> Conversation {
        Conversation {
            groups,
            slow: SlowReaders::default(),
            text_bytes: self.text_bytes(),
            warm_up: self.warm_up(),
            duration: self.duration(),
            pid,
            counts_files: false,
        }
    }

    /// Shows a step on the progress bar.
    pub(crate) fn announce(&self, step: &str) {
        self.results.announce(format!("{} {step} {}", self.workload, self.target.name));
    }

    /// Keeps the record of a step.
    pub(crate) fn record(&mut self, step: &str, fill: impl FnOnce(&mut Record)) -> Result<(), LoadError> {
        let mut record = Record {
            workload: self.workload.to_owned(),
            step: step.to_owned(),
            target: self.target.name.clone(),
            round: self.round,
            ..Record::default()
        };
        fill(&mut record);
        self.results.push(record)
    }

    /// Records that a workload ended early, and why.
    pub(crate) fn record_failure(&mut self, error: &LoadError) -> Result<(), LoadError> {
        self.record(FAILED, |record| record.failure = Some(error.to_string()))
    }
}

/// Sets the figures that every conversation has.
pub(crate) fn describe(record: &mut Record, findings: &Findings) {
    let deliveries = findings.counts.markers as f64;
    record.set_rate("deliveries_per_s", deliveries / findings.seconds);
    record.set("messages_per_read", deliveries / findings.counts.reads as f64);
    record.set("bytes_per_message", findings.counts.bytes as f64 / deliveries);
    record.set("load_busy", findings.load.total().as_secs_f64() / findings.seconds);
    if let Some(server) = findings.server {
        record.set("server_busy", server.total().as_secs_f64() / findings.seconds);
        record.set("cpu_per_delivery_us", server.total().as_secs_f64() * 1e6 / deliveries);
        record.set("user_per_delivery_us", server.user.as_secs_f64() * 1e6 / deliveries);
    }
    let lost = findings.totals.lost;
    record.set("lost", lost as f64);
    if let Some(latency) = findings.latency.first() {
        record.set_latency("", latency);
        record.latency_curve = record::curve(latency);
    }
    record.timeline.clone_from(&findings.timeline);
    let load = record.get("load_busy").unwrap_or(0.0);
    if load > 0.9 && record.get("server_busy").is_some_and(|server| server < load.min(0.95)) {
        record.remark("the load was the bottleneck, not the server");
    }
    if lost > 0 {
        record.remark(format!("{lost} deliveries of {} messages never came", findings.totals.published));
    }
    if let Some(disconnect) = findings.disconnects.first() {
        record.remark(format!("{} connections ended: {}", findings.disconnects.len(), disconnect.why));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_time_is_estimated_only_when_a_step_has_ended() {
        assert_eq!(time(Duration::from_secs(3), 0, Duration::ZERO), "3s");
        assert_eq!(time(Duration::from_secs(3), 1, Duration::from_secs(12)), "3s of about 12s");
    }
}
