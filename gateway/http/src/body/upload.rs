//! The limits of a request body that its route sets in place of those of its listener.
//!
//! A body gets its limits before the route is known. So the listener leaves [`UploadTerms`] with
//! the request, and the limits that the route sets in them apply from the first piece that is
//! read.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;

use super::MinimumRate;

/// The limits that a route sets; `None` means the listener's.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct UploadLimits {
    /// The most bytes of the body.
    pub bytes: Option<u64>,
    /// The longest pause between two pieces.
    pub pause: Option<Duration>,
    /// Time for the whole body, counted from its head.
    pub total: Option<Duration>,
    /// The lowest rate in bytes a second; 0 means none.
    pub rate: Option<u64>,
    /// The time over which the rate is measured.
    pub grace: Option<Duration>,
}

/// The limits of the listener that those of a route replace one by one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ListenerUploadLimits {
    /// The most bytes of the body.
    pub bytes: u64,
    /// The lowest rate in bytes a second; 0 means none.
    pub rate: u64,
    /// The time over which the rate is measured.
    pub grace: Duration,
}

/// Passes limits from a request's route to its body.
#[derive(Clone, Debug)]
pub struct UploadTerms(Arc<UploadTermsState>);

#[derive(Debug)]
struct UploadTermsState {
    began: Instant,
    listener: ListenerUploadLimits,
    said: OnceLock<UploadLimits>,
}

impl UploadTerms {
    /// For a body that begins now, on a listener with these limits.
    pub fn new(listener: ListenerUploadLimits) -> Self {
        Self(Arc::new(UploadTermsState {
            began: Instant::now(),
            listener,
            said: OnceLock::new(),
        }))
    }

    /// Sets the limits of the route, once. Returns how many bytes the body may have.
    pub fn set(&self, limits: UploadLimits) -> u64 {
        self.0
            .said
            .get_or_init(|| limits)
            .bytes
            .unwrap_or(self.0.listener.bytes)
    }

    /// The limits that were set, and when the body began.
    pub(super) fn said(&self) -> Option<(UploadLimits, Instant)> {
        self.0.said.get().map(|said| (*said, self.0.began))
    }

    /// The lowest rate of a body with these limits of its route.
    pub(super) fn pace(&self, limits: UploadLimits) -> Option<MinimumRate> {
        let ListenerUploadLimits { rate, grace, .. } = self.0.listener;
        MinimumRate::new(limits.rate.unwrap_or(rate), limits.grace.unwrap_or(grace))
    }
}
