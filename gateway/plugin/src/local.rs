//! What each thread holds for the hooks that run on it: one instance of each plugin, and the keys
//! that it remembers.
//!
//! Threads share nothing here, with one exception: a version that is retired has its instances
//! removed from the places of all threads at once. Therefore each place has a lock, which is
//! otherwise not contended, and which an answer from memory does not take. The remembered keys of a
//! retired version are dropped when the thread next calls a plugin.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;
use wasmtime::component::{ComponentNamedList, Lift, Lower, TypedFunc};

use super::config::PluginLimits;
use super::error::CallError;
use super::guest::{Guest, GuestBlueprint};
use super::memo::Memo;
use super::{Hook, KeyDecision};
use crate::units::ConfigDuration;

/// Increases when a version is dropped or retired, so that threads know when to sweep.
static GONE: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static SLOTS: RefCell<ThreadSlots> = const { RefCell::new(ThreadSlots { swept: 0, slots: Vec::new() }) };
}

/// What one thread holds, for all plugins.
struct ThreadSlots {
    /// The value of `GONE` at the last sweep.
    swept: u64,
    slots: Vec<ThreadSlot>,
}

/// What one thread holds for one version of a plugin.
pub(super) struct ThreadSlot {
    version: Weak<GuestBlueprint>,
    place: Arc<InstancePlace>,
    pub(super) memo: Memo<KeyDecision>,
    /// The inputs of the current request; the buffer is reused so that a look-up allocates nothing.
    pub(super) inputs: Vec<u8>,
    /// The number of answers from memory until one is checked.
    unchecked: u64,
}

/// Where a thread keeps its instance of one version between two calls.
type InstancePlace = Mutex<Option<Guest>>;

/// The places of all threads for one version.
#[derive(Default)]
pub(super) struct InstancePlaces(Mutex<Vec<Weak<InstancePlace>>>);

impl InstancePlaces {
    /// Adds a place; removes those of threads that have ended.
    fn open(&self) -> Arc<InstancePlace> {
        let place = Arc::new(InstancePlace::default());
        let mut places = self.0.lock();
        places.retain(|place| place.strong_count() > 0);
        places.push(Arc::downgrade(&place));
        place
    }

    /// Drops the instances in all places. If the version was marked as retired before, no instance
    /// is put there afterwards.
    pub(super) fn clear(&self) {
        let places: Vec<_> = self.0.lock().iter().filter_map(Weak::upgrade).collect();
        for place in places {
            let guest = place.lock().take();
            drop(guest);
        }
    }
}

/// Tells the threads that a version was dropped or retired.
pub(super) fn sweep() {
    GONE.fetch_add(1, Ordering::Relaxed);
}

/// Runs `work` with what this thread holds for a version.
pub(super) fn with<R>(version: &Arc<GuestBlueprint>, work: impl FnOnce(&mut ThreadSlot) -> R) -> R {
    SLOTS.with_borrow_mut(|slots| work(slots.of(version)))
}

impl ThreadSlots {
    fn of(&mut self, version: &Arc<GuestBlueprint>) -> &mut ThreadSlot {
        let gone = GONE.load(Ordering::Relaxed);
        if self.swept != gone {
            self.slots.retain(ThreadSlot::is_needed);
            self.swept = gone;
        }
        let here = |slot: &ThreadSlot| std::ptr::eq(slot.version.as_ptr(), Arc::as_ptr(version));
        let at = self.slots.iter().position(here).unwrap_or_else(|| {
            self.slots.push(ThreadSlot::new(version));
            self.slots.len() - 1
        });
        &mut self.slots[at]
    }
}

impl ThreadSlot {
    fn new(version: &Arc<GuestBlueprint>) -> Self {
        let entries = usize::try_from(version.limits.memo_entries).unwrap_or(usize::MAX);
        Self {
            version: Arc::downgrade(version),
            place: version.places.open(),
            memo: Memo::new(entries),
            inputs: Vec::new(),
            unchecked: sampled(&version.limits),
        }
    }

    /// Counts an answer from memory. True: this one must be checked.
    pub(super) fn is_sampled(&mut self, limits: &PluginLimits) -> bool {
        self.unchecked -= 1;
        let due = self.unchecked == 0;
        if due {
            self.unchecked = sampled(limits);
        }
        due
    }

    fn is_needed(&self) -> bool {
        let version = self.version.upgrade();
        version.is_some_and(|version| !version.is_retired())
    }

    /// Calls a hook in this thread's instance, or in a fresh one, and lets `check` validate the
    /// answer. An instance whose answer is not valid is dropped like one that trapped.
    pub(super) fn call<P, R, T>(
        &mut self,
        version: &GuestBlueprint,
        (hook, timeout): (Hook, ConfigDuration),
        function: impl FnOnce(&Guest) -> Option<TypedFunc<P, (R,)>>,
        inputs: P,
        check: impl FnOnce(R) -> Result<T, CallError>,
    ) -> Result<T, CallError>
    where
        P: ComponentNamedList + Lower + Send + Sync,
        R: Send + Sync + 'static,
        (R,): ComponentNamedList + Lift,
    {
        let kept = self.place.lock().take();
        let mut guest = match kept {
            Some(guest) if !guest.is_worn_out(&version.limits) => guest,
            _ => started(version)?,
        };
        guest.arm(hook, Instant::now() + timeout.0);
        let function = function(&guest)
            .ok_or_else(|| CallError::invalid(format!("there is no `{hook}` hook")))?;
        let answer = check(guest.call(function, inputs)?)?;
        if !guest.is_worn_out(&version.limits) {
            let mut place = self.place.lock();
            // Checked under the lock: see `InstancePlaces::clear`.
            if !version.is_retired() {
                *place = Some(guest);
            }
        }
        Ok(answer)
    }
}

/// A fresh instance. If there is no memory for it, the idle instances of all threads are dropped,
/// so that the next call can start.
fn started(version: &GuestBlueprint) -> Result<Guest, CallError> {
    let started = version.start().map_err(CallError::from);
    if let Err(CallError::TotalMemory(_)) = started {
        version.places.clear();
    }
    started.map(|(guest, _)| guest)
}

/// The number of answers from memory for each one that is checked.
fn sampled(limits: &PluginLimits) -> u64 {
    match limits.sample_every {
        // Never reached within the life of a thread.
        0 => u64::MAX,
        every => every,
    }
}
