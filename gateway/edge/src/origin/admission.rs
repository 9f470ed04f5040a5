//! Limits how many requests one upstream gets at once: a number of places, and a bounded queue for
//! them. With `load.adaptive` the number follows what `concurrency` finds out.
//!
//! Invariants: `waiting` counts exactly the callers in the queue. A caller that stops waiting leaves
//! the queue when its [`QueuedRequest`] is dropped. The places that are taken and those that are
//! free are together as many as the limit says, plus `surplus`: places that were taken when the limit
//! sank, and that end when they are given back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::concurrency::{AdaptiveLimit, LoadSign};
use super::config::UpstreamLoadLimits;
use super::error::{OriginError, OverloadReason};

/// A place among `max_concurrent`. Dropping it gives the place back.
pub(super) struct AdmissionPermit {
    permit: Option<OwnedSemaphorePermit>,
    places: Arc<AdmissionPlaces>,
}

pub(super) struct UpstreamAdmission {
    places: Arc<AdmissionPlaces>,
    max_concurrent: usize,
    adaptive: Option<Mutex<AdaptiveLimit>>,
    waiting: AtomicUsize,
    max_queued: usize,
    queue_timeout: Duration,
}

struct AdmissionPlaces {
    free: Arc<Semaphore>,
    taken: AtomicUsize,
    surplus: AtomicUsize,
}

struct QueuedRequest<'a>(&'a AtomicUsize);

impl UpstreamAdmission {
    pub(super) fn new(load: &UpstreamLoadLimits) -> Self {
        let max_concurrent = load.max_concurrent.clamp(1, Semaphore::MAX_PERMITS);
        let adaptive = load.adaptive.as_ref();
        let adaptive =
            adaptive.map(|rules| AdaptiveLimit::new(rules.min, max_concurrent, Instant::now()));
        let places = adaptive
            .as_ref()
            .map_or(max_concurrent, AdaptiveLimit::limit);
        Self {
            places: Arc::new(AdmissionPlaces {
                free: Arc::new(Semaphore::new(places)),
                taken: AtomicUsize::new(0),
                surplus: AtomicUsize::new(0),
            }),
            max_concurrent,
            adaptive: adaptive.map(Mutex::new),
            waiting: AtomicUsize::new(0),
            max_queued: load.max_queued,
            queue_timeout: load.queue_timeout.0,
        }
    }

    /// Takes a place, or waits in the queue for one.
    ///
    /// # Errors
    /// `Overloaded` if the queue is full or the wait takes too long.
    pub(super) async fn enter(&self) -> Result<AdmissionPermit, OriginError> {
        if let Some(place) = self.enter_if_free() {
            return Ok(place);
        }
        let overloaded = |reason| OriginError::Overloaded { reason };
        let _waiting = self
            .join_queue()
            .ok_or(overloaded(OverloadReason::QueueFull))?;
        let free = Arc::clone(&self.places.free);
        match timeout(self.queue_timeout, free.acquire_owned()).await {
            Ok(Ok(permit)) => Ok(AdmissionPermit::new(permit, &self.places)),
            // The semaphore is never closed.
            Ok(Err(_)) | Err(_) => Err(overloaded(OverloadReason::QueueTimeout)),
        }
    }

    /// Takes a place if one is free and nobody waits.
    pub(super) fn enter_if_free(&self) -> Option<AdmissionPermit> {
        // tokio's semaphore is fair: this fails while others wait.
        let permit = Arc::clone(&self.places.free).try_acquire_owned().ok()?;
        Some(AdmissionPermit::new(permit, &self.places))
    }

    /// The most requests at once.
    pub(super) fn limit(&self) -> usize {
        let adaptive = self.adaptive.as_ref();
        adaptive.map_or(self.max_concurrent, |adaptive| adaptive.lock().limit())
    }

    /// Notes what an attempt has shown of the load that the origin can take.
    pub(super) fn observe(&self, sign: LoadSign) {
        let Some(adaptive) = &self.adaptive else {
            return;
        };
        let mut adaptive = adaptive.lock();
        let before = adaptive.limit();
        adaptive.observe(sign, self.places.taken.load(Relaxed), Instant::now());
        // Under the lock, so that two changes do not pass each other.
        self.places.resize(before, adaptive.limit());
    }

    /// Goes on from the limit that another configuration of this upstream has found out.
    pub(super) fn take_over(&self, before: &Self) {
        let (Some(adaptive), Some(known)) = (&self.adaptive, &before.adaptive) else {
            return;
        };
        let known = known.lock().clone();
        let mut adaptive = adaptive.lock();
        let limit = adaptive.limit();
        adaptive.take_over(&known);
        self.places.resize(limit, adaptive.limit());
    }

    fn join_queue(&self) -> Option<QueuedRequest<'_>> {
        let joined = self.waiting.fetch_update(Relaxed, Relaxed, |waiting| {
            (waiting < self.max_queued).then_some(waiting + 1)
        });
        // One that was made for nothing would leave a queue that it never joined.
        joined.is_ok().then(|| QueuedRequest(&self.waiting))
    }
}

impl AdmissionPlaces {
    /// Makes the number of places that of another limit.
    fn resize(&self, before: usize, after: usize) {
        if after > before {
            let kept = (0..after - before).filter(|_| self.ends_surplus()).count();
            self.free.add_permits(after - before - kept);
        } else if after < before {
            let taken_away = self.free.forget_permits(before - after);
            self.surplus.fetch_add(before - after - taken_away, Relaxed);
        }
    }

    /// Whether there was a place too many, which is counted no more.
    fn ends_surplus(&self) -> bool {
        let one_less = |surplus: usize| surplus.checked_sub(1);
        let ended = self.surplus.fetch_update(Relaxed, Relaxed, one_less);
        ended.is_ok()
    }
}

impl AdmissionPermit {
    fn new(permit: OwnedSemaphorePermit, places: &Arc<AdmissionPlaces>) -> Self {
        places.taken.fetch_add(1, Relaxed);
        Self {
            permit: Some(permit),
            places: Arc::clone(places),
        }
    }
}

impl Drop for AdmissionPermit {
    fn drop(&mut self) {
        self.places.taken.fetch_sub(1, Relaxed);
        if self.places.ends_surplus()
            && let Some(permit) = self.permit.take()
        {
            permit.forget();
        }
    }
}

impl Drop for QueuedRequest<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::config::AdaptiveLimitConfig;

    fn admission(adaptive: Option<usize>) -> UpstreamAdmission {
        UpstreamAdmission::new(&UpstreamLoadLimits {
            max_concurrent: 64,
            adaptive: adaptive.map(|min| AdaptiveLimitConfig { min }),
            ..UpstreamLoadLimits::default()
        })
    }

    /// Takes all places that are free.
    fn fill(admission: &UpstreamAdmission) -> Vec<AdmissionPermit> {
        std::iter::from_fn(|| admission.enter_if_free()).collect()
    }

    #[test]
    fn there_are_as_many_places_as_the_limit_says_however_it_changes() {
        let admission = admission(Some(4));
        let places = &admission.places;
        assert_eq!(fill(&admission).len(), 4);
        let held = fill(&admission);
        places.resize(4, 10);
        assert_eq!(fill(&admission).len(), 6);
        let more = fill(&admission);
        places.resize(10, 3);
        drop(more);
        assert_eq!(
            fill(&admission).len(),
            0,
            "four are held, and three allowed"
        );
        places.resize(3, 5);
        assert_eq!(fill(&admission).len(), 1);
        places.resize(5, 2);
        drop(held);
        assert_eq!(fill(&admission).len(), 2);
        assert_eq!(places.taken.load(Relaxed), 0);
        assert_eq!(places.surplus.load(Relaxed), 0);
    }

    /// Guards against a count that sinks below zero by those that the queue has no room for, after
    /// which nobody could wait any more.
    #[tokio::test]
    async fn who_finds_the_queue_full_does_not_leave_it() {
        let admission = UpstreamAdmission::new(&UpstreamLoadLimits {
            max_concurrent: 1,
            max_queued: 1,
            ..UpstreamLoadLimits::default()
        });
        let held = fill(&admission);
        let waits = admission.enter();
        let refused = async {
            for _ in 0..5 {
                assert!(admission.enter().await.is_err());
                assert_eq!(admission.waiting.load(Relaxed), 1);
            }
            drop(held);
        };
        let (waited, ()) = tokio::join!(waits, refused);
        assert!(waited.is_ok());
        assert_eq!(admission.waiting.load(Relaxed), 0);
    }

    #[test]
    fn a_limit_outlives_its_configuration() {
        let before = admission(Some(4));
        for _ in 0..8 {
            let _all = fill(&before);
            before.observe(LoadSign::Answered(Duration::ZERO));
        }
        assert_eq!(before.limit(), 8);
        let after = admission(Some(2));
        after.take_over(&before);
        assert_eq!((after.limit(), fill(&after).len()), (8, 8));
        let fixed = admission(None);
        fixed.take_over(&before);
        assert_eq!((fixed.limit(), fill(&fixed).len()), (64, 64));
    }
}
