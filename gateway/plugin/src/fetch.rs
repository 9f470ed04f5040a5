//! The import `fetch`: requests of a guest to upstreams that the YAML grants.
//!
//! The guest names an upstream, never an address; `origin` decides which server answers. Redirects
//! are returned to the guest, not followed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all};
use http::uri::Authority;
use http::{Request, Response};
use prometheus::IntCounter;

use super::bindings::fetch::{FetchError as GuestError, FetchRequest, FetchResponse, Host};
use super::bindings::types::Header;
use super::check;
use super::contract::FETCH;
use super::error::CallError;
use super::guest::GuestState;
use super::log_text::one_line;
use super::outcome::NotAllowed;
use crate::telemetry::limit::LineLimiter;

/// The time that remains for the guest after its last fetch has timed out, so that it can answer
/// with what it has: at most this, and at most a tenth of the time that is left.
const MARGIN: Duration = Duration::from_millis(100);

/// How the program sends a request to an upstream and reads the whole answer. The gateway
/// implements it with `origin`. It runs on the threads of the loaders.
pub type UpstreamFetcher =
    Arc<dyn Fn(FetchCall) -> BoxFuture<'static, Result<Response<Bytes>, FetchError>> + Send + Sync>;

/// A request of a plugin.
#[derive(Debug)]
pub struct FetchCall {
    /// The name of the upstream: one of those that the YAML grants.
    pub upstream: Arc<str>,
    /// In origin form, without `Host` and without headers of the connection.
    pub request: Request<Bytes>,
    /// The most bytes that the answer's body may have.
    pub max_body: usize,
    /// The time when the answer is not awaited any more.
    pub deadline: Instant,
}

/// Why a fetch has no answer.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No answer before the deadline.
    #[error("no answer in time")]
    Timeout,
    /// The body is larger than `max_body`.
    #[error("the body is too large (`limits.max_body`)")]
    TooLarge,
    /// There is no connection, or it broke. The text is passed to the plugin, so it must not
    /// contain secrets.
    #[error("unavailable: {0}")]
    Unavailable(String),
}

/// What one `load` call may fetch.
#[derive(Clone)]
pub(super) struct FetchAllowance {
    pub(super) send: UpstreamFetcher,
    pub(super) granted: Arc<[GrantedUpstream]>,
    pub(super) denied: DeniedFetches,
    /// The number of fetches that are left.
    pub(super) left: usize,
    pub(super) max_body: usize,
}

/// A limit that a fetch met.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum FetchLimit {
    /// The call has made as many as it may.
    Count,
    /// Bytes of a body.
    Body,
}

/// An upstream that YAML grants.
pub(super) struct GrantedUpstream {
    pub(super) name: Arc<str>,
    /// The URLs of its servers.
    pub(super) targets: Vec<String>,
}

/// Counts and logs fetches to targets that are not granted.
#[derive(Clone)]
pub(super) struct DeniedFetches {
    pub(super) plugin: Arc<str>,
    pub(super) count: IntCounter,
    pub(super) log: Arc<LineLimiter>,
}

impl Host for GuestState {
    async fn fetch(
        &mut self,
        request: FetchRequest,
    ) -> wasmtime::Result<Result<FetchResponse, GuestError>> {
        let mut answers = self.fetch_all(vec![request]).await?;
        Ok(answers.pop().unwrap_or(Err(GuestError::TooMany)))
    }

    async fn fetch_all(
        &mut self,
        requests: Vec<FetchRequest>,
    ) -> wasmtime::Result<Vec<Result<FetchResponse, GuestError>>> {
        let deadline = self.deadline();
        let Some(fetches) = &mut self.fetches else {
            return Err(wasmtime::Error::new(NotAllowed(FETCH)));
        };
        let calls: Vec<_> = requests
            .into_iter()
            .map(|request| fetches.admit(request, deadline))
            .collect();
        let fetches = fetches.clone();
        Ok(join_all(calls.into_iter().map(|call| answer(&fetches, call))).await)
    }
}

impl FetchAllowance {
    /// The granted upstream that a URL's scheme and host mean: by its name, or by one of its
    /// servers.
    pub(super) fn upstream_at(&self, scheme: Option<&str>, host: &Authority) -> Option<Arc<str>> {
        let default = if scheme == Some("http") { 80 } else { 443 };
        let (name, port) = (host.host(), host.port_u16().unwrap_or(default));
        let is_at = |url: &String| {
            host_and_port(url)
                .is_some_and(|(host, at)| at == port && host.eq_ignore_ascii_case(name))
        };
        // The runtimes of some languages write hosts in lower case.
        let is_it = |granted: &&GrantedUpstream| {
            granted.name.eq_ignore_ascii_case(name) || granted.targets.iter().any(is_at)
        };
        let granted = self.granted.iter().find(is_it)?;
        Some(Arc::clone(&granted.name))
    }

    /// Counts and logs a fetch to a target that is not granted.
    pub(super) fn denied(&self, to: &str) {
        let DeniedFetches { plugin, count, log } = &self.denied;
        count.inc();
        if let Some(dropped) = log.admit(Instant::now()) {
            let to = one_line(to, 256);
            let plugin = &**plugin;
            tracing::warn!(
                plugin,
                to,
                dropped,
                "plugin fetch refused: its target is not granted"
            );
        }
    }

    /// Logs the key of a limit that a fetch met: the guest gets an error of which nobody else
    /// hears.
    pub(super) fn met(&self, limit: FetchLimit) {
        let DeniedFetches { plugin, log, .. } = &self.denied;
        if let Some(dropped) = log.admit(Instant::now()) {
            let plugin = &**plugin;
            match limit {
                FetchLimit::Count => tracing::warn!(
                    plugin,
                    dropped,
                    "plugin fetch refused: its call has made as many as it may \
                     (`limits.max_fetches`)"
                ),
                FetchLimit::Body => tracing::warn!(
                    plugin,
                    dropped,
                    max = self.max_body,
                    "plugin fetch refused: the body is too large (`limits.max_body`)"
                ),
            }
        }
    }

    /// Subtracts one from the fetches that are left. None: there is none.
    pub(super) fn take_one(&mut self) -> Option<()> {
        let left = self.left.checked_sub(1);
        match left {
            Some(left) => self.left = left,
            None => self.met(FetchLimit::Count),
        }
        left.map(drop)
    }

    /// Checks one request, and subtracts it from the fetches that are left.
    fn admit(&mut self, request: FetchRequest, deadline: Instant) -> Result<FetchCall, GuestError> {
        let upstream = self
            .granted
            .iter()
            .find(|granted| *granted.name == *request.upstream);
        let Some(upstream) = upstream.map(|granted| Arc::clone(&granted.name)) else {
            self.denied(&request.upstream);
            return Err(GuestError::Denied);
        };
        self.take_one().ok_or(GuestError::TooMany)?;
        let deadline = fetch_deadline(Instant::now(), deadline, request.timeout_ms);
        let request = check::request(
            &request.method,
            &request.path_and_query,
            request.headers,
            request.body,
        );
        let request = request.map_err(|error| match error {
            CallError::Invalid { what } => GuestError::Invalid(what),
            other => GuestError::Invalid(other.to_string()),
        })?;
        Ok(FetchCall {
            upstream,
            request,
            max_body: self.max_body,
            deadline,
        })
    }
}

/// Host and port of a target's URL.
fn host_and_port(url: &str) -> Option<(&str, u16)> {
    let (scheme, rest) = url.split_once("://")?;
    let host = rest.split('/').next()?;
    let default = if scheme == "https" { 443 } else { 80 };
    match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => Some((name, port.parse().ok()?)),
        _ => Some((host, default)),
    }
}

pub(super) fn fetch_deadline(now: Instant, call: Instant, timeout_ms: Option<u32>) -> Instant {
    let left = call.saturating_duration_since(now);
    let left = left - MARGIN.min(left / 10);
    now + timeout_ms.map_or(left, |ms| left.min(Duration::from_millis(ms.into())))
}

async fn answer(
    fetches: &FetchAllowance,
    call: Result<FetchCall, GuestError>,
) -> Result<FetchResponse, GuestError> {
    let call = call?;
    let (deadline, max_body) = (call.deadline, call.max_body);
    // The sender enforces the deadline as well; this one holds even if the sender does not.
    let response = tokio::time::timeout_at(deadline.into(), (fetches.send)(call)).await;
    match response.unwrap_or(Err(FetchError::Timeout)) {
        Ok(response) if response.body().len() <= max_body => Ok(for_guest(response)),
        Ok(_) | Err(FetchError::TooLarge) => {
            fetches.met(FetchLimit::Body);
            Err(GuestError::TooLarge)
        }
        Err(FetchError::Timeout) => Err(GuestError::Timeout),
        Err(FetchError::Unavailable(reason)) => Err(GuestError::Unavailable(reason)),
    }
}

fn for_guest(response: Response<Bytes>) -> FetchResponse {
    let (head, body) = response.into_parts();
    let lines = head
        .headers
        .iter()
        .filter(|(name, _)| !check::is_of_the_connection(name));
    FetchResponse {
        status: head.status.as_u16(),
        headers: lines.map(Header::from).collect(),
        body: body.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fetch_ends_before_its_call() {
        let now = Instant::now();
        let within =
            |call, timeout| fetch_deadline(now, now + Duration::from_millis(call), timeout) - now;
        assert_eq!(within(10_000, None), Duration::from_millis(9_900));
        assert_eq!(within(100, None), Duration::from_millis(90));
        assert_eq!(within(10_000, Some(5)), Duration::from_millis(5));
        assert_eq!(within(100, Some(5_000)), Duration::from_millis(90));
        assert_eq!(within(0, None), Duration::ZERO);
    }
}
