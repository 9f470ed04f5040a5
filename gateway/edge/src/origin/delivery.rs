//! The way of one request to an answer: to which targets it goes, and how often.
//!
//! Two things are told apart. A request that no origin has processed is sent again to the same
//! target, which counts for nothing. After a failure of the target the request may go to another
//! one: that is a retry, and retries have a budget.
//!
//! In between is a request on a connection that had served before and ended without a byte of an
//! answer. While its target is well, the origin has most likely closed an idle connection, and the
//! request is sent again for nothing. If that fails, too, it was not so: then it is owed to the
//! budget, and while the target is not well such a request is like any other that failed. So targets
//! that all fail get no more than the budget allows, however many connections stood before.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::header::RETRY_AFTER;
use http::{HeaderMap, Response, StatusCode};
use smallvec::SmallVec;

use super::attempt::PendingAttempt;
use super::call_deadline::CallDeadline;
use super::config::FailureKind;
use super::error::{self, OriginError};
use super::exchange::{self, OriginUploadState};
use super::metrics::RetryOutcome;
use super::outgoing::OutgoingRequest;
use super::pool::body::OriginBody;
use super::pool::{ConnectionChoice, RequestProgress, SendFailure};
use super::target::{InFlightRequest, OriginTarget};
use super::targets::{AnswerQuality, ChoiceSituation, TargetChoice};
use super::{OnAttempt, Origin};
use crate::http::cache_control::delta_seconds;
use crate::http::date;

/// What the client gets if there is no good answer.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum FailureFallback {
    /// An error.
    #[default]
    Error,
    /// A stale copy. It is not worth a second attempt, and none at all while most targets fail.
    StaleCopy,
}

/// A response, and what is held until its body ends.
pub(super) struct DeliveredResponse {
    pub(super) response: Response<OriginBody>,
    pub(super) upload: OriginUploadState,
    pub(super) in_flight: InFlightRequest,
}

/// A request on its way.
pub(super) struct RequestDelivery<'a> {
    origin: &'a Origin,
    outgoing: OutgoingRequest,
    told: Option<&'a OnAttempt>,
    fallback: FailureFallback,
    hash: Option<u64>,
    tried: SmallVec<[Arc<OriginTarget>; 2]>,
    /// How often it may still be sent again because no origin has processed it.
    repeats: u32,
    /// How long the caller waits.
    deadline: CallDeadline,
}

/// What sending a request to the same target again takes from the budget.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum RepeatCost {
    Nothing,
    /// One attempt, if this one fails, too.
    OnFailure,
}

/// An attempt without a response.
struct FailedAttempt {
    error: OriginError,
    progress: RequestProgress,
}

type AttemptResult = Result<DeliveredResponse, FailedAttempt>;

/// How often a request is sent again because no origin has processed it.
const REPEATS: u32 = 3;
/// The statuses of gRPC that say the same as 503 and 429.
const UNAVAILABLE: &str = "14";
const RESOURCE_EXHAUSTED: &str = "8";
/// The longest pause before the first retry; before each further one it is twice as long.
const PAUSE: Duration = Duration::from_millis(25);

impl<'a> RequestDelivery<'a> {
    pub(super) fn new(
        origin: &'a Origin,
        outgoing: OutgoingRequest,
        told: Option<&'a OnAttempt>,
        fallback: FailureFallback,
    ) -> Self {
        Self {
            origin,
            hash: origin.hash_of(outgoing.headers(), outgoing.client()),
            outgoing,
            told,
            fallback,
            tried: SmallVec::new(),
            repeats: REPEATS,
            deadline: CallDeadline::default(),
        }
    }

    /// Sends nothing after this deadline, and waits no longer.
    pub(super) fn within(self, deadline: CallDeadline) -> Self {
        Self { deadline, ..self }
    }

    /// Sends the request until there is an answer or no further attempt is allowed. An answer that
    /// says that the server can't is an answer, too.
    pub(super) async fn run(mut self) -> Result<DeliveredResponse, OriginError> {
        let origin = self.origin;
        origin.budget.earn();
        let TargetChoice { target, situation } = self.choose().ok_or(OriginError::NoTarget)?;
        if situation == ChoiceSituation::Panic && self.fallback == FailureFallback::StaleCopy {
            return Err(OriginError::FewTargets);
        }
        let mut outcome = self.attempt(target).await;
        while let Some(failure) = self.may_try_another(&outcome) {
            if !origin.budget.take(Instant::now()) {
                origin
                    .targets
                    .metrics
                    .retried(failure, RetryOutcome::Refused);
                break;
            }
            tokio::time::sleep(self.pause()).await;
            let Some(TargetChoice { target, .. }) = self.choose() else {
                break;
            };
            outcome = self.attempt(target).await;
            let came_of_it = match failure_of(&outcome) {
                None => RetryOutcome::Answered,
                Some(_) => RetryOutcome::Failed,
            };
            origin.targets.metrics.retried(failure, came_of_it);
        }
        outcome.map_err(|failed| failed.error)
    }

    fn choose(&self) -> Option<TargetChoice> {
        let now = Instant::now();
        self.origin.targets.choose(self.hash, &self.tried, now)
    }

    /// The failure after which the request goes to another target, if it may.
    fn may_try_another(&self, outcome: &AttemptResult) -> Option<FailureKind> {
        let failure = failure_of(outcome)?;
        let progress = match outcome {
            Ok(_) => RequestProgress::Unknown,
            Err(failed) => failed.progress,
        };
        self.may_go_elsewhere(failure, progress).then_some(failure)
    }

    fn may_go_elsewhere(&self, failure: FailureKind, progress: RequestProgress) -> bool {
        let rules = &self.origin.retry;
        let repeatable = match progress {
            RequestProgress::NotConnected | RequestProgress::NotProcessed => {
                self.outgoing.can_be_sent()
            }
            RequestProgress::ClosedWhileIdle | RequestProgress::Unknown => {
                self.outgoing.has_method_of(&rules.methods)
            }
        };
        repeatable
            && !self.deadline.is_over()
            && self.fallback == FailureFallback::Error
            && self.tried.len() < rules.attempts as usize
            && rules.on.iter().any(|listed| listed.covers(failure))
            && self.origin.targets.has_another(&self.tried, Instant::now())
    }

    fn pause(&self) -> Duration {
        let doubled = PAUSE * 2_u32.saturating_pow(self.tried.len() as u32 - 1);
        doubled.mul_f64(self.origin.targets.random_fraction())
    }

    /// Sends the request to one target; again, as long as nobody has processed it.
    async fn attempt(&mut self, target: Arc<OriginTarget>) -> AttemptResult {
        let origin = self.origin;
        self.tried.push(Arc::clone(&target));
        let mut choice = ConnectionChoice::Standing;
        let mut cost = RepeatCost::Nothing;
        loop {
            let pending = PendingAttempt::begin(self.told, &origin.name, &target.name);
            let began = Instant::now();
            let outcome = self.exchange(&target, choice).await;
            let known = outcome.as_ref();
            pending.ended(
                known
                    .map(|delivered| &delivered.response)
                    .map_err(|failed| &failed.error),
            );
            if let Err(failed) = &outcome
                && let Some(costs) = self.may_be_repeated(failed, &target)
            {
                self.repeats -= 1;
                (choice, cost) = (ConnectionChoice::New, costs);
                continue;
            }
            if cost == RepeatCost::OnFailure && failure_of(&outcome).is_some() {
                origin.budget.owe();
            }
            self.note(&target, &outcome, began.elapsed());
            return outcome;
        }
    }

    /// Whether it may be sent to the same target again, and what that costs.
    fn may_be_repeated(&self, failed: &FailedAttempt, target: &OriginTarget) -> Option<RepeatCost> {
        if self.repeats == 0 || self.deadline.is_over() {
            return None;
        }
        match failed.progress {
            RequestProgress::NotProcessed => {
                self.outgoing.can_be_sent().then_some(RepeatCost::Nothing)
            }
            // Over TLS this counts as a retry, since something was sent.
            RequestProgress::ClosedWhileIdle
                if target.tls.is_none() && self.outgoing.may_be_repeated() =>
            {
                self.may_be_repeated_after_a_close(failed, target)
            }
            RequestProgress::ClosedWhileIdle
            | RequestProgress::NotConnected
            | RequestProgress::Unknown => None,
        }
    }

    /// The same where a connection that had served before was closed.
    fn may_be_repeated_after_a_close(
        &self,
        failed: &FailedAttempt,
        target: &OriginTarget,
    ) -> Option<RepeatCost> {
        if target.health.is_well() {
            return Some(RepeatCost::OnFailure);
        }
        let failure = failed.error.failure_kind()?;
        let allowed = !self.may_go_elsewhere(failure, failed.progress)
            && self.origin.budget.take(Instant::now());
        allowed.then_some(RepeatCost::Nothing)
    }

    /// Sends the request once and waits for the response's head.
    async fn exchange(
        &mut self,
        target: &Arc<OriginTarget>,
        choice: ConnectionChoice,
    ) -> AttemptResult {
        let origin = self.origin;
        let limit = self.deadline.limit(origin.head_limit());
        let mut request = self.outgoing.next().ok_or(OriginError::Request)?;
        origin.address(&mut request, target);
        let began = Instant::now();
        let in_flight = target.begin_request();
        let (request, upload) = exchange::watched(request);
        let response = target.connections.send(request, target, choice);
        match upload.limit(response, limit.time).await {
            None => Err(FailedAttempt::from(OriginError::Timeout {
                phase: limit.phase,
            })),
            Some(Ok(mut response)) => {
                if upload.is_under_way() {
                    response.body_mut().work_in_a_task();
                }
                Ok(DeliveredResponse {
                    response,
                    upload,
                    in_flight,
                })
            }
            Some(Err(SendFailure { error, progress })) => {
                let tls = target.tls.as_ref();
                let alert = tls.and_then(|tls| tls.alert_since(began));
                let error = error::classify(error).because_of(alert.as_ref());
                if progress == RequestProgress::NotConnected {
                    tracing::warn!(upstream = &*origin.name, target = &*target.name, %error, "cannot connect to an origin");
                }
                Err(FailedAttempt { error, progress })
            }
        }
    }

    /// Notes what the outcome says about the target.
    fn note(&self, target: &Arc<OriginTarget>, outcome: &AttemptResult, took: Duration) {
        let (quality, rest) = match outcome {
            Ok(delivered) => {
                let response = &delivered.response;
                let (status, headers) = (response.status(), response.headers());
                let rest = retry_after(status, headers, SystemTime::now());
                match failure_of(outcome) {
                    Some(failure) => (AnswerQuality::Failed(failure), rest),
                    None => (AnswerQuality::Good, rest),
                }
            }
            Err(_) => match failure_of(outcome) {
                Some(failure) => (AnswerQuality::Failed(failure), None),
                None => (AnswerQuality::Neutral, None),
            },
        };
        let metrics = &self.origin.targets.metrics;
        match (outcome, quality) {
            (Ok(delivered), _) => {
                metrics.head_after(took);
                metrics.request(&target.name, class_of(delivered.response.status()));
            }
            (Err(_), AnswerQuality::Failed(failure)) => {
                metrics.request(&target.name, &failure.word());
            }
            (Err(_), _) => metrics.request(&target.name, "other"),
        }
        self.origin.targets.note(target, quality, took, rest);
    }
}

impl From<OriginError> for FailedAttempt {
    fn from(error: OriginError) -> Self {
        Self {
            error,
            progress: RequestProgress::Unknown,
        }
    }
}

/// In which way the target has failed, if it has.
fn failure_of(outcome: &AttemptResult) -> Option<FailureKind> {
    match outcome {
        Ok(delivered) => {
            let (status, headers) = (delivered.response.status(), delivered.response.headers());
            // In a response without a body, gRPC has its status among the fields.
            let grpc = |code| headers.get("grpc-status").is_some_and(|told| told == code);
            // Who has no more capacity (429) refuses quickly, and is not the better target for that.
            let refused = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
            match refused {
                true => Some(FailureKind::Status(status.as_u16())),
                false if grpc(UNAVAILABLE) => Some(FailureKind::Status(503)),
                false if grpc(RESOURCE_EXHAUSTED) => Some(FailureKind::Status(429)),
                false => None,
            }
        }
        Err(failed) => failed.error.failure_kind(),
    }
}

fn class_of(status: StatusCode) -> &'static str {
    match status.as_u16() / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
}

/// For how long a target asks to be left alone (RFC 9110 §10.2.3): seconds, or a date.
fn retry_after(status: StatusCode, headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    if !matches!(
        status,
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
    ) {
        return None;
    }
    let value = headers.get(RETRY_AFTER)?.as_bytes();
    if let Some(seconds) = delta_seconds(value.trim_ascii()) {
        return Some(Duration::from_secs(seconds.into()));
    }
    let date = date::field(headers, &RETRY_AFTER, now).at()?;
    date.duration_since(now).ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_rest_is_asked_for_in_seconds_or_by_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        for (lines, seconds) in [
            (&["20"][..], Some(20)),
            (&["0"], Some(0)),
            (&["Sun, 06 Nov 1994 08:49:57 GMT"], Some(20)),
            (&["Sunday, 06-Nov-94 08:49:57 GMT"], Some(20)),
            (&["Sun Nov  6 08:49:57 1994"], Some(20)),
            (&["Sun, 06 Nov 1994 08:49:17 GMT"], None),
            (&["Fri, 31 Dec 9999 23:59:59 GMT"], Some(252_618_189_022)),
            // More than any number here: as long as can be.
            (&["1000000000000000000000000000000"], Some(1 << 31)),
            (&["-5"], None),
            (&["+5"], None),
            (&["1.5"], None),
            (&["5 minutes"], None),
            (&["soon"], None),
            (&[""], None),
            (&["\u{e9}"], None),
            (&["Sun, 06 Nov 1994 08:49:57 GMT", "later"], None),
            (&[], None),
        ] {
            let lines = lines
                .iter()
                .map(|line| HeaderValue::from_str(line).unwrap());
            let headers = lines.map(|line| (RETRY_AFTER, line)).collect();
            let rest = retry_after(StatusCode::SERVICE_UNAVAILABLE, &headers, now);
            assert_eq!(rest.map(|rest| rest.as_secs()), seconds, "{headers:?}");
            assert_eq!(retry_after(StatusCode::OK, &headers, now), None);
        }
    }
}
