//! The hook `key`, called on the request's own thread.
//!
//! Each thread has its own instance and its own memory of answers for each plugin, so
//! threads share nothing here. What belongs to a plugin that is gone is swept when
//! the thread calls a plugin next.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use http::request::Parts;

use super::check;
use super::error::CallError;
use super::guest::{Blueprint, Guest};
use super::manifest::KeyNeeds;
use super::memo::Memo;
use super::{Hook, KeyDecision};

/// Grows when a plugin goes, so that threads know when to sweep.
static GONE: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static SLOTS: RefCell<Slots> = const { RefCell::new(Slots { swept: 0, slots: Vec::new() }) };
}

/// What one thread holds, for all plugins.
struct Slots {
    /// `GONE` when it was last swept.
    swept: u64,
    slots: Vec<Slot>,
}

/// What one thread holds for one plugin.
struct Slot {
    plugin: Weak<Keys>,
    guest: Option<Guest>,
    memo: Memo<KeyDecision>,
    /// The inputs of the current request; kept so that a look-up allocates nothing.
    inputs: Vec<u8>,
}

/// The key hook of one plugin.
pub(super) struct Keys {
    pub(super) blueprint: Arc<Blueprint>,
    pub(super) needs: KeyNeeds,
}

impl Keys {
    /// The decision for a request, from memory or from the guest.
    pub(super) fn derive(
        self: &Arc<Self>,
        request: &Parts,
        host: &str,
    ) -> Result<Arc<KeyDecision>, CallError> {
        SLOTS.with_borrow_mut(|slots| self.derive_in(slots.of(self), request, host))
    }

    fn derive_in(
        &self,
        slot: &mut Slot,
        request: &Parts,
        host: &str,
    ) -> Result<Arc<KeyDecision>, CallError> {
        slot.inputs.clear();
        self.needs.gather(request, host, &mut slot.inputs);
        let metrics = &self.blueprint.metrics;
        if let Some(known) = slot.memo.get(&slot.inputs) {
            metrics.memo_hits.inc();
            return Ok(known);
        }
        metrics.memo_misses.inc();
        let started = Instant::now();
        let answer = self.call(slot, started);
        metrics.called(Hook::Key, &answer, started.elapsed().as_secs_f64());
        let decision = Arc::new(answer?);
        slot.memo.put(&slot.inputs, decision.clone());
        Ok(decision)
    }

    fn call(&self, slot: &mut Slot, now: Instant) -> Result<KeyDecision, CallError> {
        let limits = &self.blueprint.limits;
        let mut guest = match slot.guest.take() {
            Some(guest) if !guest.is_worn_out(limits) => guest,
            _ => self.blueprint.start()?.0,
        };
        guest.arm(now + limits.key_timeout.0);
        let derive = guest
            .derive
            .ok_or_else(|| CallError::invalid("there is no `key` hook"))?;
        let answer = derive.call(&mut guest.store, (self.needs.decode(&slot.inputs),));
        let (decision,) = answer.map_err(|error| guest.store.data().explain(&error))?;
        if !guest.is_worn_out(limits) {
            slot.guest = Some(guest);
        }
        check::key(decision)
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        GONE.fetch_add(1, Ordering::Relaxed);
    }
}

impl Slots {
    fn of(&mut self, keys: &Arc<Keys>) -> &mut Slot {
        let gone = GONE.load(Ordering::Relaxed);
        if self.swept != gone {
            self.slots.retain(|slot| slot.plugin.strong_count() > 0);
            self.swept = gone;
        }
        let here = |slot: &Slot| std::ptr::eq(slot.plugin.as_ptr(), Arc::as_ptr(keys));
        let at = self.slots.iter().position(here).unwrap_or_else(|| {
            self.slots.push(Slot::new(keys));
            self.slots.len() - 1
        });
        &mut self.slots[at]
    }
}

impl Slot {
    fn new(keys: &Arc<Keys>) -> Self {
        let entries = usize::try_from(keys.blueprint.limits.memo_entries).unwrap_or(usize::MAX);
        Self {
            plugin: Arc::downgrade(keys),
            guest: None,
            memo: Memo::new(entries),
            inputs: Vec::new(),
        }
    }
}
