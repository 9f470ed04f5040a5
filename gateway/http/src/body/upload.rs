//! The limits of a request body that its route sets over those of its listener.
//!
//! A body has its limits before anybody knows the route. So the listener leaves
//! [`UploadTerms`] with the request, and what the route says by them holds from the first
//! piece that is read.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;

/// What a route says; none: as its listener does.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct UploadLimits {
    /// Bytes of the body.
    pub bytes: Option<u64>,
    /// The longest pause between two pieces.
    pub pause: Option<Duration>,
    /// Time for all of it, from its head on.
    pub total: Option<Duration>,
}

/// The way from a request's route to the limits of its body.
#[derive(Clone, Debug)]
pub struct UploadTerms(Arc<UploadTermsState>);

#[derive(Debug)]
struct UploadTermsState {
    began: Instant,
    /// What the listener allows.
    bytes: u64,
    said: OnceLock<UploadLimits>,
}

impl UploadTerms {
    /// For a body that begins now, on a listener that allows so many bytes.
    pub fn new(bytes: u64) -> Self {
        Self(Arc::new(UploadTermsState {
            began: Instant::now(),
            bytes,
            said: OnceLock::new(),
        }))
    }

    /// Sets what the route says, once. Answers how many bytes the body may have.
    pub fn set(&self, limits: UploadLimits) -> u64 {
        self.0
            .said
            .get_or_init(|| limits)
            .bytes
            .unwrap_or(self.0.bytes)
    }

    /// What was set, and when the body began.
    pub(super) fn said(&self) -> Option<(UploadLimits, Instant)> {
        self.0.said.get().map(|said| (*said, self.0.began))
    }
}
