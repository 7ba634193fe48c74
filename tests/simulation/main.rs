//! The hub as a whole, under seeded chance: `ROOMCAST_SIM_SEED`, `ROOMCAST_SIM_SEEDS` and `ROOMCAST_SIM_STEPS` choose
//! which seed, or how many, and for how long.

mod actions;
mod chance;
mod coverage;
mod fake_bus;
mod finale;
mod look_back;
mod seat;
mod settings;
mod trace;
mod transport;
mod truth;
mod view;
mod world;

use std::hash::Hasher;

use actions::Action;
use coverage::Coverage;
use world::World;

const SEEDS: u64 = 100;
const STEPS: u64 = 10_000;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{variable} is {text:?}: {error}")))
}

#[test]
fn members_are_told_the_truth_in_every_simulation() {
    let steps = number("ROOMCAST_SIM_STEPS").unwrap_or(STEPS);
    if let Some(seed) = number("ROOMCAST_SIM_SEED") {
        println!("seed {seed}: {:#?}", run(seed, steps));
        return;
    }
    let seeds = number("ROOMCAST_SIM_SEEDS").unwrap_or(SEEDS);
    let mut coverage = Coverage::default();
    for seed in 0..seeds {
        coverage.add(&run(seed, steps).1);
    }
    println!("{seeds} seeds of {steps} steps: {coverage:#?}");
    if seeds >= SEEDS && steps >= STEPS {
        assert_eq!(coverage.missing(), [""; 0], "these never happened");
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    for seed in 1000..1004 {
        assert_eq!(run(seed, 1500), run(seed, 1500), "seed {seed}");
    }
}

/// Runs one seed for so many steps. Returns a digest of everything that was sent, and counts of events.
///
/// # Panics
/// When a check fails; the text says how to repeat it.
fn run(seed: u64, steps: u64) -> (u64, Coverage) {
    let mut world = World::new(seed);
    for step in 0..steps {
        world.trace.step = step;
        let pause = world.chance.below(40);
        world.advance_clock(pause);
        let action = Action::draw(&mut world);
        world.trace.note(action);
        world.perform(action);
        if !world.chance.one_in(4) {
            world.exchange();
        }
        world.handle_deadlines();
        if !world.chance.one_in(3) {
            world.drain();
        }
        while world.chance.one_in(2) && world.hub.poll_notice().is_some() {}
        world.check_bounds();
    }
    world.trace.step = steps;
    world.end();
    world.digest.write(format!("{:?}", world.hub.stats()).as_bytes());
    (world.digest.finish(), world.coverage.clone())
}
