//! The hub as a whole, under seeded chance: `ROOMCAST_SIM_SEED`, `ROOMCAST_SIM_SEEDS` and `ROOMCAST_SIM_STEPS` choose
//! which seed, or how many, and for how long.

mod simulation;

use simulation::Coverage;

const SEEDS: u64 = 100;
const STEPS: u64 = 10_000;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{variable} is {text:?}: {error}")))
}

#[test]
fn members_are_told_the_truth_whatever_happens() {
    let steps = number("ROOMCAST_SIM_STEPS").unwrap_or(STEPS);
    if let Some(seed) = number("ROOMCAST_SIM_SEED") {
        println!("seed {seed}: {:#?}", simulation::run(seed, steps));
        return;
    }
    let seeds = number("ROOMCAST_SIM_SEEDS").unwrap_or(SEEDS);
    let mut coverage = Coverage::default();
    for seed in 0..seeds {
        coverage.add(&simulation::run(seed, steps).1);
    }
    println!("{seeds} seeds of {steps} steps: {coverage:#?}");
    if seeds >= SEEDS && steps >= STEPS {
        assert_eq!(coverage.missing(), [""; 0], "these never happened");
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    for seed in 1000..1004 {
        assert_eq!(simulation::run(seed, 1500), simulation::run(seed, 1500), "seed {seed}");
    }
}
