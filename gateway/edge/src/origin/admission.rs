//! Limits how many requests one upstream gets at once: a number of places, and a bounded queue for
//! them.
//!
//! Invariant: `waiting` counts exactly the callers in the queue. A caller that stops waiting leaves
//! the queue when its [`QueuedRequest`] is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::config::UpstreamLoadLimits;
use super::{OriginError, OverloadReason};

/// A place among `max_concurrent`. Dropping it gives the place back.
pub(super) type AdmissionPermit = OwnedSemaphorePermit;

pub(super) struct UpstreamAdmission {
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
    max_queued: usize,
    queue_timeout: Duration,
}

struct QueuedRequest<'a>(&'a AtomicUsize);

impl UpstreamAdmission {
    pub(super) fn new(load: &UpstreamLoadLimits) -> Self {
        let places = load.max_concurrent.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            places: Arc::new(Semaphore::new(places)),
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
        // tokio's semaphore is fair: this fails while others wait.
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            return Ok(place);
        }
        let overloaded = |reason| OriginError::Overloaded { reason };
        let _waiting = self
            .join_queue()
            .ok_or(overloaded(OverloadReason::QueueFull))?;
        match timeout(self.queue_timeout, Arc::clone(&self.places).acquire_owned()).await {
            Ok(Ok(place)) => Ok(place),
            // The semaphore is never closed.
            Ok(Err(_)) | Err(_) => Err(overloaded(OverloadReason::QueueTimeout)),
        }
    }

    /// Takes a place if one is free and nobody waits.
    pub(super) fn enter_if_free(&self) -> Option<AdmissionPermit> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }

    fn join_queue(&self) -> Option<QueuedRequest<'_>> {
        let joined = self.waiting.fetch_update(Relaxed, Relaxed, |waiting| {
            (waiting < self.max_queued).then_some(waiting + 1)
        });
        joined.is_ok().then_some(QueuedRequest(&self.waiting))
    }
}

impl Drop for QueuedRequest<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
