//! The way of one request to an answer: to which targets it goes, and how often.
//!
//! Two things are told apart. A request that no origin has processed is sent again to the same
//! target (`repeat`). After a failure of the target the request may go to another one: that is a
//! retry, and retries have a budget. `hedge` sends a load to a second target before the first has
//! failed.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::header::RETRY_AFTER;
use http::{HeaderMap, Response, StatusCode};
use lamina_base::turn_clock;
use smallvec::SmallVec;

use super::Origin;
use super::attempt::{OnAttempt, PendingAttempt};
use super::call_deadline::CallDeadline;
use super::concurrency::LoadSign;
use super::config::FailureKind;
use super::error::{self, OriginError};
use super::exchange::{self, OriginUploadState};
use super::metrics::RetryOutcome;
use super::outgoing::{FailureFallback, LoadAudience, OutgoingRequest, SendTerms};
use super::pool::body::OriginBody;
use super::pool::{ConnectionChoice, RequestProgress, SendFailure};
use super::sticky::StickyPin;
use super::target::{InFlightRequest, OriginTarget};
use super::targets::{AnswerQuality, ChoiceSituation, TargetChoice};
use crate::http::cache_control::delta_seconds;
use crate::http::{date, grpc};

use self::repeat::{REPEATS, RepeatCost};

mod hedge;
mod repeat;

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
    /// The target that the client stays with, if it can.
    pin: Option<StickyPin>,
    /// How long the caller waits.
    deadline: CallDeadline,
    awaited: AwaitedLoad,
}

/// Until when, and whether at all, somebody waits for an answer.
#[derive(Default)]
pub(super) struct AwaitedLoad {
    until: Option<Instant>,
    audience: Option<LoadAudience>,
}

/// The targets that a request was sent to.
type TriedTargets = SmallVec<[Arc<OriginTarget>; 2]>;

/// An attempt without a response.
struct FailedAttempt {
    error: OriginError,
    progress: RequestProgress,
}

type AttemptResult = Result<DeliveredResponse, FailedAttempt>;

/// The statuses of gRPC that say the same as 503 and 429.
const UNAVAILABLE: &str = "14";
const RESOURCE_EXHAUSTED: &str = "8";
/// The longest pause before the first retry; before each further one it is twice as long.
const PAUSE: Duration = Duration::from_millis(25);
/// The share of answers that are the quickest: an attempt that has less time than they need is not
/// begun.
const QUICK_ANSWERS: f64 = 0.05;

impl<'a> RequestDelivery<'a> {
    pub(super) fn new(
        origin: &'a Origin,
        outgoing: OutgoingRequest,
        told: Option<&'a OnAttempt>,
        fallback: FailureFallback,
    ) -> Self {
        Self {
            origin,
            hash: origin.hash_of(&outgoing),
            pin: outgoing.pin(),
            outgoing,
            told,
            fallback,
            deadline: CallDeadline::default(),
            awaited: AwaitedLoad::default(),
        }
    }

    /// Asks no further target that nobody would wait for.
    pub(super) fn while_awaited(self, awaited: AwaitedLoad) -> Self {
        Self { awaited, ..self }
    }

    /// Sends nothing after this deadline, and waits no longer.
    pub(super) fn within(self, deadline: CallDeadline) -> Self {
        Self { deadline, ..self }
    }

    /// Sends the request until there is an answer or no further attempt is allowed. An answer that
    /// says that the server can't is an answer, too.
    pub(super) async fn run(&self) -> Result<DeliveredResponse, OriginError> {
        let origin = self.origin;
        origin.budget.earn();
        // How often it may still be sent again because no origin has processed it.
        let mut repeats = REPEATS;
        let mut tried = TriedTargets::new();
        let settled = origin.targets.settle(origin.timeouts.connect.0);
        self.deadline.bound(settled).await?;
        let choice = self.choose(&tried).ok_or(OriginError::NoTarget)?;
        let TargetChoice { target, situation } = choice;
        if situation == ChoiceSituation::Panic && self.fallback == FailureFallback::StaleCopy {
            return Err(OriginError::FewTargets);
        }
        let mut outcome = self.first_attempt(target, &mut tried, &mut repeats).await;
        while let Some(failure) = self.may_try_another(&outcome, &tried) {
            let pause = self.pause(&tried);
            if !self.is_awaited_after(pause) {
                break;
            }
            if !origin.budget.take(Instant::now()) {
                origin
                    .targets
                    .metrics
                    .retried(failure, RetryOutcome::Refused);
                break;
            }
            tokio::time::sleep(pause).await;
            let (targets, now) = (&origin.targets, turn_clock::now());
            let choice = targets.choose_another(self.hash, &tried, now);
            let Some(TargetChoice { target, .. }) = choice else {
                break;
            };
            tried.push(Arc::clone(&target));
            outcome = self.attempt(&target, &tried, &mut repeats).await;
            let came_of_it = match failure_of(&outcome) {
                None => RetryOutcome::Answered,
                Some(_) => RetryOutcome::Failed,
            };
            origin.targets.metrics.retried(failure, came_of_it);
        }
        outcome.map_err(|failed| failed.error)
    }

    fn choose(&self, tried: &TriedTargets) -> Option<TargetChoice> {
        let (now, targets) = (turn_clock::now(), &self.origin.targets);
        let pin = self.pin.filter(|_| tried.is_empty());
        match pin.and_then(|pin| targets.pinned(pin, now)) {
            Some(target) => Some(TargetChoice {
                target,
                situation: ChoiceSituation::Usual,
            }),
            None => targets.choose(self.hash, tried, now),
        }
    }

    /// The failure after which the request goes to another target, if it may.
    fn may_try_another(
        &self,
        outcome: &AttemptResult,
        tried: &TriedTargets,
    ) -> Option<FailureKind> {
        let failure = failure_of(outcome)?;
        let progress = match outcome {
            Ok(_) => RequestProgress::Unknown,
            Err(failed) => failed.progress,
        };
        let allowed = self.may_go_elsewhere(failure, progress, tried);
        allowed.then_some(failure)
    }

    fn may_go_elsewhere(
        &self,
        failure: FailureKind,
        progress: RequestProgress,
        tried: &[Arc<OriginTarget>],
    ) -> bool {
        let rules = &self.origin.retry;
        let repeatable = match progress {
            RequestProgress::NotConnected
            | RequestProgress::NotProcessed
            | RequestProgress::Refused => self.outgoing.can_be_sent(),
            RequestProgress::ClosedWhileIdle | RequestProgress::Unknown => {
                self.outgoing.has_method_of(&rules.methods)
            }
        };
        repeatable
            && !self.deadline.is_over()
            && self.fallback == FailureFallback::Error
            && tried.len() < rules.attempts as usize
            && rules.on.iter().any(|listed| listed.covers(failure))
            && self.origin.targets.has_another(tried, Instant::now())
    }

    /// Whether somebody waits for a further attempt that begins after this pause, and for longer
    /// than all but the quickest answers take.
    fn is_awaited_after(&self, pause: Duration) -> bool {
        let quick = self.origin.targets.time_of(QUICK_ANSWERS, Instant::now());
        // The time is rounded up, to twice of what it was at most.
        let needed = pause + quick.unwrap_or_default() / 2;
        self.deadline.leaves(needed) && self.awaited.leaves(needed)
    }

    fn pause(&self, tried: &TriedTargets) -> Duration {
        let doubled = PAUSE * 2_u32.saturating_pow(tried.len() as u32 - 1);
        doubled.mul_f64(self.origin.targets.random_fraction())
    }

    /// Sends the request to one target, the last one of `tried`; again, as long as nobody has
    /// processed it.
    async fn attempt(
        &self,
        target: &Arc<OriginTarget>,
        tried: &[Arc<OriginTarget>],
        repeats: &mut u32,
    ) -> AttemptResult {
        let origin = self.origin;
        let mut choice = ConnectionChoice::Standing;
        let mut cost = RepeatCost::Nothing;
        loop {
            let began = turn_clock::now();
            let pending = PendingAttempt::begin(self.told, &origin.name, &target.name, began);
            let outcome = self.exchange(target, choice, began).await;
            let ended = turn_clock::now();
            let known = outcome.as_ref();
            let known = known.map(|delivered| &delivered.response);
            pending.ended(known.map_err(|failed| &failed.error), ended);
            if cost == RepeatCost::OnFailure && failure_of(&outcome).is_some() {
                origin.budget.owe();
            }
            if let Err(failed) = &outcome
                && let Some(repeat) = self.may_be_repeated(failed, target, tried, *repeats)
            {
                *repeats -= 1;
                (choice, cost) = (repeat.connection, repeat.cost);
                continue;
            }
            self.note(target, &outcome, began, ended);
            return outcome;
        }
    }

    /// Sends the request once, at `began`, and waits for the response's head.
    async fn exchange(
        &self,
        target: &Arc<OriginTarget>,
        choice: ConnectionChoice,
        began: Instant,
    ) -> AttemptResult {
        let origin = self.origin;
        let limit = self.deadline.limit(origin.head_limit());
        let timeout = |phase| FailedAttempt::from(OriginError::Timeout { phase });
        if self.deadline.is_over() {
            return Err(timeout(limit.phase));
        }
        let mut request = self.outgoing.next().ok_or(OriginError::Request)?;
        origin.address(&mut request, target);
        let in_flight = target.begin_request();
        let (request, upload) = exchange::watched(request);
        let response = pin!(target.connections.send(request, target, choice));
        match upload.limit(response, limit.time).await {
            None => Err(timeout(limit.phase)),
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
                if !error.may_be_the_requests() {
                    let error = error::with_cause(&error);
                    tracing::warn!(
                        upstream = &*origin.name,
                        target = &*target.name,
                        error,
                        "cannot connect to an origin"
                    );
                }
                Err(FailedAttempt { error, progress })
            }
        }
    }

    /// Notes what the outcome says about the target.
    fn note(
        &self,
        target: &Arc<OriginTarget>,
        outcome: &AttemptResult,
        began: Instant,
        ended: Instant,
    ) {
        let took = ended.saturating_duration_since(began);
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
                metrics.request(target.label.as_str(), class_of(delivered.response.status()));
            }
            (Err(_), AnswerQuality::Failed(failure)) => {
                metrics.request(target.label.as_str(), &failure.word());
            }
            (Err(_), _) => metrics.request(target.label.as_str(), "other"),
        }
        if let Some(sign) = sign_of(quality, took) {
            self.origin.admission.observe(sign);
        }
        self.origin.targets.note(target, quality, took, rest, ended);
    }
}

impl AwaitedLoad {
    /// What the caller says in the terms of a request.
    pub(super) fn of(terms: &SendTerms) -> Self {
        Self {
            until: terms.deadline,
            audience: terms.audience.clone(),
        }
    }

    /// Whether somebody waits, and for more than this time.
    fn leaves(&self, time: Duration) -> bool {
        let is_left = |until: Instant| until.saturating_duration_since(Instant::now()) > time;
        self.until.is_none_or(is_left) && self.audience.as_ref().is_none_or(LoadAudience::waits)
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
            let grpc = grpc::status(headers);
            // Who has no more capacity (429) refuses quickly, and is not the better target for that.
            let refused = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
            match refused {
                true => Some(FailureKind::Status(status.as_u16())),
                false if grpc.is_some_and(|told| told == UNAVAILABLE) => {
                    Some(FailureKind::Status(503))
                }
                false if grpc.is_some_and(|told| told == RESOURCE_EXHAUSTED) => {
                    Some(FailureKind::Status(429))
                }
                false => None,
            }
        }
        Err(failed) => failed.error.failure_kind(),
    }
}

/// What an attempt says about the load of the origin.
fn sign_of(quality: AnswerQuality, took: Duration) -> Option<LoadSign> {
    match quality {
        AnswerQuality::Good => Some(LoadSign::Answered(took)),
        AnswerQuality::Failed(FailureKind::Timeout | FailureKind::Status(429 | 503)) => {
            Some(LoadSign::Overloaded)
        }
        AnswerQuality::Failed(_) | AnswerQuality::Neutral => None,
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
