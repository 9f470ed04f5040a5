//! What operators say about a target, which is kept apart from what is observed of it.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// What an operator wants of a target.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AdministrativeState {
    /// It gets requests.
    #[default]
    Ready,
    /// It gets no new requests; those under way end.
    Drain,
    /// As `Drain`; its idle connections are closed, and it is not checked.
    Out,
}

/// What operators have said about one target.
pub(super) struct TargetControl(Mutex<ControlOrder>);

/// The last order about a target.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct ControlOrder {
    pub(super) state: AdministrativeState,
    /// When the target is ready again by itself.
    pub(super) until: Option<Instant>,
}

impl AdministrativeState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Out => "out",
        }
    }
}

impl TargetControl {
    pub(super) fn new() -> Self {
        Self(Mutex::default())
    }

    pub(super) fn state(&self) -> AdministrativeState {
        self.0.lock().state
    }

    pub(super) fn order(&self) -> ControlOrder {
        *self.0.lock()
    }

    /// Follows an order. Returns the state before.
    pub(super) fn follow(&self, order: ControlOrder) -> AdministrativeState {
        std::mem::replace(&mut *self.0.lock(), order).state
    }

    /// Makes the target ready if the time of its order is over. Returns the state before if so.
    pub(super) fn expire(&self, now: Instant) -> Option<AdministrativeState> {
        let mut order = self.0.lock();
        order.until.filter(|until| *until <= now)?;
        Some(std::mem::take(&mut *order).state)
    }
}

impl ControlOrder {
    /// How long it still holds. None: until the next order.
    pub(super) fn left(self, now: Instant) -> Option<Duration> {
        let until = self.until?;
        Some(until.saturating_duration_since(now))
    }
}
