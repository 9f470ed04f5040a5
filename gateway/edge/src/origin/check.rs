//! Active checks: each target is asked from time to time how it is.
//!
//! A check goes over the target's own connections and is no request: it takes no place among
//! `max_concurrent`, and says nothing about the target's times. Each target has one check at a
//! time, whatever routes lead to it, and whatever other upstreams have the same address. The first
//! checks are spread over the interval, and each pause is a tenth longer or shorter, so that targets
//! are not all asked at the same moment by all gateways.

use std::future::pending;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::header::{HOST, USER_AGENT};
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Response, Uri};
use http_body_util::BodyExt;
use tokio::time::{Instant, interval, sleep_until, timeout};

use super::Origin;
use super::config::{ActiveHealthConfig, FailureKind, StatusRange, UpstreamConfig};
use super::control::AdministrativeState;
use super::error::{self, BuildError, with_cause};
use super::health::{CheckChange, CheckOutcome};
use super::pool::body::OriginBody;
use super::pool::{ConnectionChoice, RequestProgress, SendFailure};
use super::target::OriginTarget;
use crate::http::body::Body;
use crate::units::ConfigDuration;

/// How targets of one upstream are checked.
pub(super) struct HealthCheck {
    method: Method,
    rules: ActiveHealthConfig,
    path: PathAndQuery,
    host: Option<HeaderValue>,
}

const AGENT: HeaderValue = HeaderValue::from_static("lamina-health");
/// The longest that a trial waits for an answer.
const TRIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// How often targets are looked for that have come since.
const NEW_TARGETS: Duration = Duration::from_secs(1);
/// The most bytes that are read of the answer to a check, so that its connection can be kept.
const MAX_BODY: usize = 64 << 10;

/// Checks the targets of an upstream, if it has checks. Never ends.
pub(super) async fn repeat(origin: &Origin) {
    let Some(check) = &origin.check else {
        return pending().await;
    };
    let mut checked = FuturesUnordered::new();
    let mut turns = interval(NEW_TARGETS);
    loop {
        tokio::select! {
            _ = turns.tick() => {
                let targets = origin.targets.all();
                let new = targets.iter().filter(|target| target.needs_checks());
                checked.extend(new.map(|target| check.repeat(origin, Arc::downgrade(target))));
            }
            Some(()) = checked.next(), if !checked.is_empty() => {}
        }
    }
}

impl HealthCheck {
    pub(super) fn new(upstream: &str, rules: &ActiveHealthConfig) -> Result<Self, BuildError> {
        let wrong = |what: &str| BuildError::HealthCheck {
            upstream: upstream.to_owned(),
            what: what.to_owned(),
        };
        let host = rules.host.as_deref();
        let host = host.map(|host| HeaderValue::from_str(host).map_err(|_| wrong(host)));
        Ok(Self {
            method: Method::GET,
            rules: rules.clone(),
            path: rules.path.parse().map_err(|_| wrong(&rules.path))?,
            host: host.transpose()?,
        })
    }

    /// The one question to a target that `lamina doctor` tries: the upstream's check, or HEAD of `/`,
    /// to which every status below 500 is a good answer.
    pub(super) fn trial(name: &str, upstream: &UpstreamConfig) -> Result<Self, BuildError> {
        if let Some(rules) = &upstream.health.active {
            return Self::new(name, rules);
        }
        let rules = ActiveHealthConfig {
            timeout: ConfigDuration(upstream.timeouts.first_byte.0.min(TRIAL_TIMEOUT)),
            ..ActiveHealthConfig::accepting("/", StatusRange::BELOW_500)
        };
        let check = Self::new(name, &rules)?;
        Ok(Self {
            method: Method::HEAD,
            ..check
        })
    }

    /// Method and path of the question.
    pub(super) fn question(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    /// Checks one target until it is gone.
    async fn repeat(&self, origin: &Origin, target: Weak<OriginTarget>) {
        let interval = self.rules.interval.0;
        let mut next = Instant::now() + interval.mul_f64(origin.targets.random_fraction());
        loop {
            sleep_until(next).await;
            let Some(target) = target.upgrade() else {
                return;
            };
            if target.control.state() == AdministrativeState::Out {
                next += interval;
                continue;
            }
            next = Instant::now() + pause(interval, origin.targets.random_fraction());
            let outcome = self.run(&target).await;
            self.note(origin, &target, &outcome);
        }
    }

    /// Checks a target once.
    pub(super) async fn run(&self, target: &OriginTarget) -> CheckOutcome {
        let limit = self.rules.timeout;
        match timeout(limit.0, self.ask(target)).await {
            Ok(outcome) => outcome,
            Err(_) => CheckOutcome::Failed {
                kind: Some(FailureKind::Timeout),
                why: format!("there was no answer within {limit}"),
            },
        }
    }

    async fn ask(&self, target: &OriginTarget) -> CheckOutcome {
        let send = |choice| {
            let request = self.request(target);
            target.connections.send(request, target, choice)
        };
        match send(ConnectionChoice::Standing).await {
            Err(lost)
                if matches!(
                    lost.progress,
                    RequestProgress::ClosedWhileIdle
                        | RequestProgress::NotProcessed
                        | RequestProgress::Refused
                ) =>
            {
                self.judge(send(ConnectionChoice::New).await).await
            }
            answer => self.judge(answer).await,
        }
    }

    fn request(&self, target: &OriginTarget) -> Request<Body> {
        let mut request = Request::new(Body::empty());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = Uri::from(self.path.clone());
        let headers = request.headers_mut();
        let host = self.host.as_ref().unwrap_or(&target.host);
        headers.insert(HOST, host.clone());
        headers.insert(USER_AGENT, AGENT);
        request
    }

    async fn judge(&self, answer: Result<Response<OriginBody>, SendFailure>) -> CheckOutcome {
        let response = match answer {
            Ok(response) => response,
            Err(SendFailure { error, .. }) => {
                let error = error::classify(error);
                return CheckOutcome::Failed {
                    kind: error.failure_kind(),
                    why: with_cause(&error),
                };
            }
        };
        let status = response.status();
        let has_body = self.method != Method::HEAD;
        if has_body && !read_to_end(response.into_body()).await {
            return CheckOutcome::Failed {
                kind: Some(FailureKind::Reset),
                why: "the answer broke off".to_owned(),
            };
        }
        let mut good = self.rules.statuses.iter();
        match good.any(|range| range.contains(status)) {
            true => CheckOutcome::Passed(status),
            false => CheckOutcome::WrongStatus(status),
        }
    }

    /// Counts a result, and says in the log what it changes.
    fn note(&self, origin: &Origin, target: &OriginTarget, outcome: &CheckOutcome) {
        let now = std::time::Instant::now();
        let metrics = &origin.targets.metrics;
        metrics.checked(target.label.as_str(), &outcome.word());
        let (upstream, name) = (&*origin.name, &*target.name);
        match target.health.checked(outcome, &self.rules, now) {
            CheckChange::Nothing => {}
            CheckChange::WentDown => tracing::warn!(
                upstream,
                target = name,
                reason = outcome.reason(),
                failed_checks = self.rules.fall,
                "a target of an upstream is down by its active check"
            ),
            CheckChange::CameBack => {
                origin.targets.restart_estimate(target, now, now);
                tracing::info!(
                    upstream,
                    target = name,
                    good_checks = self.rules.rise,
                    "a target of an upstream is up again by its active check"
                );
            }
        }
    }
}

/// The time from one check to the next: a tenth more or less than the interval. `random` is between 0
/// and 1.
fn pause(interval: Duration, random: f64) -> Duration {
    interval.mul_f64(0.9 + 0.2 * random)
}

/// Reads a body to its end, or to [`MAX_BODY`]. Returns whether it did not break off.
async fn read_to_end(mut body: OriginBody) -> bool {
    let mut read = 0;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return false;
        };
        read += frame.data_ref().map_or(0, bytes::Bytes::len);
        if read > MAX_BODY {
            break;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_the_interval_and_a_tenth_more_or_less() {
        let millis = |random| pause(Duration::from_secs(5), random).as_millis();
        assert_eq!([0.0, 0.5, 1.0].map(millis), [4_500, 5_000, 5_500]);
    }
}
