//! The limits of a request body that its route sets in place of those of its listener.
//!
//! A body gets its limits before the route is known. So the listener leaves [`UploadTerms`] with
//! the request, and the limits that the route sets in them apply from the first piece that is
//! read.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;

/// The limits that a route sets; `None` means the listener's.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct UploadLimits {
    /// The most bytes of the body.
    pub bytes: Option<u64>,
    /// The longest pause between two pieces.
    pub pause: Option<Duration>,
    /// Time for the whole body, counted from its head.
    pub total: Option<Duration>,
}

/// Passes limits from a request's route to its body.
#[derive(Clone, Debug)]
pub struct UploadTerms(Arc<UploadTermsState>);

#[derive(Debug)]
struct UploadTermsState {
    began: Instant,
    /// The most bytes that the listener allows.
    bytes: u64,
    said: OnceLock<UploadLimits>,
}

impl UploadTerms {
    /// For a body that begins now, on a listener that allows this many bytes.
    pub fn new(bytes: u64) -> Self {
        Self(Arc::new(UploadTermsState {
            began: Instant::now(),
            bytes,
            said: OnceLock::new(),
        }))
    }

    /// Sets the limits of the route, once. Returns how many bytes the body may have.
    pub fn set(&self, limits: UploadLimits) -> u64 {
        self.0
            .said
            .get_or_init(|| limits)
            .bytes
            .unwrap_or(self.0.bytes)
    }

    /// The limits that were set, and when the body began.
    pub(super) fn said(&self) -> Option<(UploadLimits, Instant)> {
        self.0.said.get().map(|said| (*said, self.0.began))
    }
}
