//! The result of one attempt to get a response from a target, reported to whoever asks for it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Response, StatusCode};

use super::error::OriginError;

/// One exchange with one target, up to the head of the answer.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub upstream: Arc<str>,
    /// The name of the target.
    pub target: Arc<str>,
    pub took: Duration,
    pub outcome: AttemptOutcome,
}

/// The result of an attempt.
#[derive(Clone, Debug)]
pub enum AttemptOutcome {
    Answered(StatusCode),
    /// Why there was no answer.
    Failed(Box<str>),
    /// The caller stopped waiting for the answer.
    GivenUp,
}

/// The callback for each attempt of a request. It is attached to the request as an extension.
#[derive(Clone)]
pub struct OnAttempt(Arc<AttemptCallback>);

type AttemptCallback = dyn Fn(Attempt) + Send + Sync;

impl OnAttempt {
    pub fn new(told: impl Fn(Attempt) + Send + Sync + 'static) -> Self {
        Self(Arc::new(told))
    }
}

/// An attempt that is under way. It is reported when it ends or when this is dropped.
pub(super) struct PendingAttempt<'a> {
    told: Option<&'a OnAttempt>,
    upstream: &'a Arc<str>,
    target: &'a Arc<str>,
    began: Instant,
}

impl<'a> PendingAttempt<'a> {
    /// An attempt that begins at `began`.
    pub fn begin(
        told: Option<&'a OnAttempt>,
        upstream: &'a Arc<str>,
        target: &'a Arc<str>,
        began: Instant,
    ) -> Self {
        Self {
            told,
            upstream,
            target,
            began,
        }
    }

    /// Reports the attempt with this outcome, which has come at `now`.
    pub fn ended<B>(mut self, outcome: Result<&Response<B>, &OriginError>, now: Instant) {
        self.tell(now, || match outcome {
            Ok(response) => AttemptOutcome::Answered(response.status()),
            Err(error) => AttemptOutcome::Failed(error.to_string().into()),
        });
    }

    fn tell(&mut self, now: Instant, outcome: impl FnOnce() -> AttemptOutcome) {
        if let Some(OnAttempt(told)) = self.told.take() {
            told(Attempt {
                upstream: Arc::clone(self.upstream),
                target: Arc::clone(self.target),
                took: now.saturating_duration_since(self.began),
                outcome: outcome(),
            });
        }
    }
}

impl Drop for PendingAttempt<'_> {
    fn drop(&mut self) {
        if self.told.is_some() {
            self.tell(Instant::now(), || AttemptOutcome::GivenUp);
        }
    }
}

impl AttemptOutcome {
    /// Whether the target gave no answer, or said that it can't.
    pub fn is_failure(&self) -> bool {
        match self {
            Self::Answered(status) => status.is_server_error(),
            Self::Failed(_) => true,
            Self::GivenUp => false,
        }
    }
}

impl fmt::Display for AttemptOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered(status) => write!(f, "answered {}", status.as_u16()),
            Self::Failed(error) => write!(f, "failed: {error}"),
            Self::GivenUp => f.write_str("was given up before it answered"),
        }
    }
}
