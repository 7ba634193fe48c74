//! Runs a target for a time, one case for each seed.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use fastrand::Rng;

/// How long each target is tried unless the environment says otherwise.
const SECONDS: u64 = 1;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{variable} is {text:?}: {error}")))
}

/// Makes an input from each seed and checks it, until the time is over, and once at least.
///
/// # Panics
/// When a check fails; the output says how to repeat it.
pub(crate) fn run(target: &str, mut make: impl FnMut(&mut Rng) -> Vec<u8>, mut check: impl FnMut(&mut Rng, &[u8])) {
    let first = number("ROOMCAST_FUZZ_SEED").unwrap_or(0);
    let time = Duration::from_secs(number("ROOMCAST_FUZZ_SECONDS").unwrap_or(SECONDS));
    let (start, mut seed) = (Instant::now(), first);
    loop {
        let mut rng = Rng::with_seed(seed);
        let input = make(&mut rng);
        let result = catch_unwind(AssertUnwindSafe(|| check(&mut rng, &input)));
        if let Err(panic) = result {
            eprintln!("target {target}, seed {seed}, input:\nb\"{}\"", input.escape_ascii());
            eprintln!("once more: ROOMCAST_FUZZ_SECONDS=0 ROOMCAST_FUZZ_SEED={seed} cargo test --test fuzz {target}");
            resume_unwind(panic);
        }
        seed += 1;
        if start.elapsed() >= time {
            println!("target {target}: seeds {first} to {}", seed - 1);
            return;
        }
    }
}
