//! Counts look-ups where tests are built, so that they can bound the work of a hit without
//! measuring time. Elsewhere it is nothing.

#[cfg(test)]
mod tally {
    use std::cell::Cell;

    thread_local! {
        static STEPS: Cell<usize> = const { Cell::new(0) };
    }

    pub(in super::super) fn count() {
        STEPS.with(|steps| steps.set(steps.get() + 1));
    }

    /// How many steps `work` takes on this thread.
    pub(in super::super) fn of<T>(work: impl FnOnce() -> T) -> (T, usize) {
        let before = STEPS.with(Cell::get);
        let done = work();
        (done, STEPS.with(Cell::get) - before)
    }
}

#[cfg(test)]
pub(super) use tally::{count, of};

#[cfg(not(test))]
pub(super) fn count() {}
