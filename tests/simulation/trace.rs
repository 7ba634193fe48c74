//! The text of a failure: the way to repeat it, and the last actions.

use std::collections::VecDeque;

use super::actions::Action;
use super::settings::Settings;

const KEPT: usize = 20;

/// Prints itself when it is dropped by a panic.
#[derive(Debug)]
pub(crate) struct Trace {
    seed: u64,
    settings: String,
    pub(crate) step: u64,
    last: VecDeque<(u64, Action)>,
}

impl Trace {
    pub(crate) fn new(seed: u64, settings: &Settings) -> Self {
        Self { seed, settings: format!("{settings:?}"), step: 0, last: VecDeque::with_capacity(KEPT + 1) }
    }

    pub(crate) fn note(&mut self, action: Action) {
        self.last.push_back((self.step, action));
        if self.last.len() > KEPT {
            self.last.pop_front();
        }
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("simulation failed: seed {}, step {}; the last actions:", self.seed, self.step);
            for (step, action) in &self.last {
                eprintln!("  {step}: {action:?}");
            }
            eprintln!("settings: {}", self.settings);
            eprintln!("repeat with ROOMCAST_SIM_SEED={}", self.seed);
        }
    }
}
