//! How long the caller of an upstream waits for the head of an answer: gRPC says so
//! (`grpc-timeout`), and neither an attempt nor a further one may outlast it.

use std::future::Future;
use std::time::Duration;

use http::HeaderMap;
use tokio::time::{Instant, timeout_at};

use super::error::{OriginError, TimeoutPhase};
use crate::http::grpc;

/// When the caller stops waiting; by default never.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct CallDeadline(Option<(Instant, Duration)>);

/// How long an attempt may take to the head of its response, and whose limit that is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct AttemptLimit {
    pub(super) time: Duration,
    pub(super) phase: TimeoutPhase,
}

/// A target that does not answer a call for that long has failed. If the caller waits for less, it
/// may ask for what nobody can do.
const TELLS_OF_THE_TARGET: Duration = Duration::from_secs(1);

impl CallDeadline {
    /// The deadline of a request with these fields that comes now.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let given = grpc::call_timeout(headers);
        // One that no clock can show is none.
        let deadline = given.and_then(|given| Some((Instant::now().checked_add(given)?, given)));
        Self(deadline)
    }

    /// Whether the caller has stopped waiting.
    pub(super) fn is_over(self) -> bool {
        self.0.is_some_and(|(at, _)| at <= Instant::now())
    }

    /// Waits for what comes before the first attempt, no longer than the caller does.
    ///
    /// # Errors
    /// That of the caller's limit, or of what was waited for.
    pub(super) async fn bound<T>(
        self,
        waited: impl Future<Output = Result<T, OriginError>>,
    ) -> Result<T, OriginError> {
        let Some((at, _)) = self.0 else {
            return waited.await;
        };
        let phase = TimeoutPhase::Call;
        let outcome = timeout_at(at, waited).await;
        outcome.unwrap_or(Err(OriginError::Timeout { phase }))
    }

    /// Whether the caller waits for more than this time.
    pub(super) fn leaves(self, time: Duration) -> bool {
        self.0
            .is_none_or(|(at, _)| at.saturating_duration_since(Instant::now()) > time)
    }

    /// The limit of an attempt that begins now, which is `usual` unless the caller waits for less.
    pub(super) fn limit(self, usual: Duration) -> AttemptLimit {
        let left = self.0.map(|(at, given)| {
            let left = at.saturating_duration_since(Instant::now());
            (left, given)
        });
        match left {
            Some((left, given)) if left < usual => AttemptLimit {
                time: left,
                phase: match given >= TELLS_OF_THE_TARGET {
                    true => TimeoutPhase::FirstByte,
                    false => TimeoutPhase::Call,
                },
            },
            _ => AttemptLimit {
                time: usual,
                phase: TimeoutPhase::FirstByte,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::CONTENT_TYPE;

    use super::*;

    fn call(timeout: &'static str) -> CallDeadline {
        let mut headers = HeaderMap::new();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/grpc+proto"),
        );
        headers.insert("grpc-timeout", HeaderValue::from_static(timeout));
        CallDeadline::of(&headers)
    }

    #[tokio::test(start_paused = true)]
    async fn the_caller_and_the_configuration_bound_an_attempt() {
        let usual = Duration::from_secs(5);
        let limit = |deadline: CallDeadline| {
            let AttemptLimit { time, phase } = deadline.limit(usual);
            (time, phase)
        };
        let none = CallDeadline::of(&HeaderMap::new());
        assert_eq!(limit(none), (usual, TimeoutPhase::FirstByte));
        assert_eq!(limit(call("1H")), (usual, TimeoutPhase::FirstByte));
        let (patient, hasty) = (call("2S"), call("200m"));
        assert_eq!(
            limit(patient),
            (Duration::from_secs(2), TimeoutPhase::FirstByte)
        );
        let of_the_call = TimeoutPhase::Call;
        assert_eq!(limit(hasty), (Duration::from_millis(200), of_the_call));
        tokio::time::advance(Duration::from_millis(1_500)).await;
        assert!(hasty.is_over() && !patient.is_over() && !none.is_over());
        assert_eq!(limit(hasty), (Duration::ZERO, of_the_call));
        assert_eq!(
            limit(patient),
            (Duration::from_millis(500), TimeoutPhase::FirstByte)
        );
    }
}
