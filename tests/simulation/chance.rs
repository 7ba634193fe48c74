//! Seeded chance: the same seed gives the same values on every machine.

use fastrand::Rng;

#[derive(Debug)]
pub(crate) struct Chance(Rng);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Rng::with_seed(seed))
    }

    /// A number from 0 to `bound - 1`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0.u64(..bound)
    }

    /// An index into a list of `bound` entries.
    pub(crate) fn index(&mut self, bound: usize) -> usize {
        self.0.usize(..bound)
    }

    /// True once in so many times.
    pub(crate) fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    pub(crate) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.index(choices.len())]
    }

    /// One of some choices, each as likely as it weighs.
    pub(crate) fn weighted<T: Copy>(&mut self, choices: &[(u32, T)]) -> T {
        let sum: u32 = choices.iter().map(|(weight, _)| weight).sum();
        let mut left = self.0.u32(..sum);
        let chosen = choices.iter().find(|(weight, _)| {
            let is_reached = left < *weight;
            left = left.saturating_sub(*weight);
            is_reached
        });
        chosen.expect("the weights of all are more than what was drawn").1
    }
}
