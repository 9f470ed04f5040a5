//! For test builds: counts look-ups, so that tests can bound the work of a hit without measuring time,
//! and lets tests do at a given moment what another thread may do there. In other builds both do
//! nothing.

#[cfg(test)]
use std::cell::{Cell, RefCell};

/// A moment at which another thread may change what this one reads, or read what it changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LedgerMoment {
    /// A ledger is about to be looked at.
    Look,
    /// A ledger shows its readers another view.
    Replaced,
    /// An entry was marked, which is not noted as compared yet.
    Marked,
}

#[cfg(test)]
type Interruption = (LedgerMoment, usize, Box<dyn FnOnce()>);

#[cfg(test)]
thread_local! {
    static STEPS: Cell<usize> = const { Cell::new(0) };
    static INTERRUPTION: RefCell<Option<Interruption>> = const { RefCell::new(None) };
}

#[cfg(test)]
pub(super) fn count() {
    STEPS.with(|steps| steps.set(steps.get() + 1));
}

#[cfg(not(test))]
pub(super) fn count() {}

/// Lets a test do what another thread may do at this moment.
#[cfg(test)]
pub(super) fn reach(moment: LedgerMoment) {
    let due = INTERRUPTION.with_borrow_mut(|next| {
        let (awaited, times, _) = next.as_mut()?;
        if *awaited != moment {
            return None;
        }
        *times -= 1;
        (*times == 0).then(|| next.take()).flatten()
    });
    if let Some((_, _, act)) = due {
        act();
    }
}

#[cfg(not(test))]
pub(super) fn reach(_: LedgerMoment) {}

/// Acts the next time, or the so many-th time, that this thread reaches this moment.
#[cfg(test)]
pub(super) fn interrupt(moment: LedgerMoment, times: usize, act: impl FnOnce() + 'static) {
    INTERRUPTION.set(Some((moment, times, Box::new(act))));
}

/// The result of `work` and the number of steps it takes on this thread.
#[cfg(test)]
pub(super) fn of<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = STEPS.with(Cell::get);
    let done = work();
    (done, STEPS.with(Cell::get) - before)
}
