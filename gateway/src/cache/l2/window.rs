//! Which numbers of the store's purge log stand where in our own order.
//!
//! A window begins at a number of the store and at a place of our own; from there each
//! purge of the store's log is one number further here, too. A window grows by purges that
//! are there, without a hole. Where some are missing, or the log is another one, a new
//! window begins above everything that was given out here so far: what is older is hidden,
//! and what the store has from before its beginning can't be judged. So our own order grows
//! by what was appended, and not by what numbers the store shows.
//!
//! Pure: [`Window::next`] says what a stretch of the log means for what was known.

use super::store::{Log, LogFault, Logged};
use crate::cache::event::Look;
use crate::cache::purge::{MAX_NUMBER, Order, number_of, numbered};

/// Numbers that one purge may stand for, of those that a node has not read: else whoever can
/// forge one would push our order to its end by it. A node that was away for so long hides
/// what is older.
const SPAN: u64 = 1 << 20;

/// A stretch of one generation of the log, applied here without a hole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Window {
    pub(super) generation: u64,
    /// The number after which it begins.
    first: u64,
    /// The number of our own order that stands for `first`.
    base: u64,
    /// The newest number that is in it.
    pub(super) newest: u64,
}

/// What a stretch of the log means for what was known of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Next {
    /// It is known already.
    Nothing,
    /// The window goes on, or is the first one and begins with the log.
    Further(Window),
    /// A new window: what was born before it can't be judged. The fault is what is wrong
    /// with the log; none where this node just comes late to it.
    Anew(Window, Option<LogFault>),
}

impl Window {
    /// What `log` means where `known` was known and `order` is the newest of our own.
    pub(super) fn next(known: Option<Self>, log: &Log, order: Order) -> Next {
        let same = known.filter(|window| window.generation == log.generation);
        let Some(window) = same else {
            let is_all_there = leads_to(log.purges.iter(), 0, log.newest, u64::MAX);
            return match (known, log.whole) {
                (None, true) if is_all_there => Next::Further(Self::over(log, 0, number_of(order))),
                (None, true) => Next::Anew(Self::anew(log, order), Some(LogFault::Missing)),
                (None, false) => Next::Anew(Self::anew(log, order), None),
                (Some(_), _) => Next::Anew(Self::anew(log, order), Some(LogFault::Lost)),
            };
        };
        if log.newest <= window.newest {
            return Next::Nothing;
        }
        let grown = Self {
            newest: log.newest,
            ..window
        };
        let news = log
            .purges
            .iter()
            .filter(|logged| logged.number > window.newest);
        let leads = leads_to(news, window.newest, log.newest, SPAN);
        match leads && !grown.is_used_up() {
            true => Next::Further(grown),
            false => Next::Anew(Self::anew(log, order), Some(LogFault::Missing)),
        }
    }

    /// The longest stretch without a hole that ends with the log.
    fn anew(log: &Log, order: Order) -> Self {
        let mut first = log.newest;
        for logged in log.purges.iter().rev() {
            match first.checked_sub(1) {
                Some(_) if logged.number == first => first = logged.since.saturating_sub(1),
                Some(_) | None => break,
            }
        }
        // It begins above everything that was given out here.
        Self::over(log, first, number_of(order).saturating_add(1))
    }

    fn over(log: &Log, first: u64, base: u64) -> Self {
        Self {
            generation: log.generation,
            first,
            base,
            newest: log.newest,
        }
    }

    fn local(&self, number: u64) -> u64 {
        self.base.saturating_add(number.saturating_sub(self.first))
    }

    /// Whether our own order has come to its end, after some 2³⁵ purges in one life of the
    /// process. Nothing of the store can be judged then.
    pub(super) fn is_used_up(&self) -> bool {
        self.local(self.newest) >= MAX_NUMBER
    }

    /// The number of our own order from which on things can be judged.
    pub(super) fn begins_at(&self) -> u64 {
        self.base
    }

    /// Whether a purge of the log is to be applied that was not in `known`.
    pub(super) fn is_new(&self, known: Option<Self>, number: u64) -> bool {
        let continued =
            known.filter(|known| (known.generation, known.base) == (self.generation, self.base));
        number > continued.map_or(self.first, |known| known.newest)
    }

    /// Where a purge with this number stands in our own order.
    pub(super) fn order_at(&self, number: u64) -> Order {
        numbered(self.local(number))
    }

    /// Where a record that was born at this number stands in our own order.
    ///
    /// # Errors
    /// Why it can't be judged.
    pub(super) fn order_of(&self, number: u64) -> Result<Order, Look> {
        match number {
            _ if self.is_used_up() => Err(Look::Skipped),
            _ if number > self.newest => Err(Look::Ahead),
            _ if number < self.first => Err(Look::Outdated),
            _ => Ok(self.order_at(number)),
        }
    }

    /// Where in the store's log something stands that began at this place of our own order.
    /// None: before this window.
    pub(super) fn place_of(&self, order: Order) -> Option<Order> {
        let since = number_of(order)
            .checked_sub(self.base)
            .filter(|_| !self.is_used_up())?;
        // While another window takes the place of this one, our order is ahead of it.
        let number = self.first.saturating_add(since).min(self.newest);
        Some(numbered(number))
    }
}

/// Whether purges lead from one number to another, without a hole and in order, and none
/// stands for more than `span` numbers.
fn leads_to<'a>(purges: impl Iterator<Item = &'a Logged>, from: u64, to: u64, span: u64) -> bool {
    let mut reached = from;
    for logged in purges {
        let numbers = logged.since..=logged.number;
        let next = reached.checked_add(1);
        let leads = next.is_some_and(|next| numbers.contains(&next));
        if !leads || logged.number - reached > span {
            return false;
        }
        reached = logged.number;
    }
    reached == to
}

#[cfg(test)]
mod tests;
