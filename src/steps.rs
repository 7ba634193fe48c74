//! Counts steps in tests, of whatever could be quadratic; costs nothing otherwise.

#[cfg(test)]
thread_local! {
    static STEPS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// So many steps were made.
#[inline(always)]
pub(crate) fn note(steps: u64) {
    #[cfg(test)]
    STEPS.set(STEPS.get() + steps);
    #[cfg(not(test))]
    let _ = steps;
}

/// Steps since the last time.
#[cfg(test)]
pub(crate) fn take() -> u64 {
    STEPS.take()
}
