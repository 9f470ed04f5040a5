//! Counts look-ups in test builds, so that tests can bound the work of a hit without measuring
//! time. In other builds it does nothing.

#[cfg(test)]
use std::cell::Cell;

#[cfg(test)]
thread_local! {
    static STEPS: Cell<usize> = const { Cell::new(0) };
}

#[cfg(test)]
pub(super) fn count() {
    STEPS.with(|steps| steps.set(steps.get() + 1));
}

#[cfg(not(test))]
pub(super) fn count() {}

/// The result of `work` and the number of steps it takes on this thread.
#[cfg(test)]
pub(super) fn of<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = STEPS.with(Cell::get);
    let done = work();
    (done, STEPS.with(Cell::get) - before)
}
