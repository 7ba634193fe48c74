//! A hub under a virtual clock, with fake sockets, a bus that is slow and forgetful, and clients that check every frame.

mod actions;
mod chance;
mod coverage;
mod fake_bus;
mod finale;
mod seat;
mod settings;
mod trace;
mod transport;
mod truth;
mod view;
mod world;

use std::hash::Hasher;

pub(crate) use coverage::Coverage;

use self::actions::Action;
use self::world::World;

/// Runs one seed for so many steps. Panics, and prints how to repeat it, where something is not as it should be.
/// Gives a digest of everything that was sent, and what happened.
pub(crate) fn run(seed: u64, steps: u64) -> (u64, Coverage) {
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
