//! Whether requests should come: not yet, now, or not any more.

use tokio::sync::watch;

/// How far the gateway is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ServingPhase {
    /// Requests are served already, and the first tier is still being filled.
    Warming,
    Serving,
    Draining,
}

/// Tells those who ask.
pub type ServingPhaseSender = watch::Sender<ServingPhase>;
/// Asks.
pub type ServingPhaseReceiver = watch::Receiver<ServingPhase>;

impl ServingPhase {
    /// The word in `/readyz`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Warming => "warming",
            Self::Serving => "serving",
            Self::Draining => "draining",
        }
    }
}
