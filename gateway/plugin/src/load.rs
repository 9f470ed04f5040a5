//! The hook `load`, called on the loaders' own threads.
//!
//! Instances are kept and reused; at most `max_concurrent` calls run at the same time, and a
//! further call is refused at once instead of waiting in a queue. When the caller drops the future,
//! its call ends.

use std::sync::Arc;
use std::time::Instant;

use http::HeaderMap;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;
use wasmtime_wasi_http::p2::bindings::ProxyPre;

use super::bindings::types;
use super::engine::{LoaderThreads, TICK};
use super::error::CallError;
use super::fetch::FetchAllowance;
use super::guest::{Guest, GuestBlueprint, GuestState};
use super::health::CallAdmission;
use super::load_request::LoadRequest;
use super::reads::DeclaredReads;
use super::seen::RequestReads;
use super::{Hook, LoadDecision, calls, check, wasi_http};
use crate::http::forward;

/// The most idle instances that are kept after a burst; the others release their memory.
const MAX_IDLE: usize = 32;

/// The load hook of one plugin.
pub(super) struct Loader {
    pub(super) blueprint: Arc<GuestBlueprint>,
    reads: DeclaredReads,
    threads: Arc<LoaderThreads>,
    /// What one call may fetch.
    fetches: FetchAllowance,
    /// Idle instances; the one that became idle last is used first.
    idle: Mutex<Vec<Guest>>,
    permits: Arc<Semaphore>,
}

/// A call whose end is counted, even if the caller drops it.
struct LoadInProgress<'a> {
    loader: &'a Loader,
    request: &'a LoadRequest,
    /// Taken when the call has ended.
    turn: Option<CallAdmission>,
    started: Instant,
}

impl LoadInProgress<'_> {
    fn ended<T>(&mut self, answer: &Result<T, CallError>) {
        if let Some(turn) = self.turn.take() {
            let (loader, request) = (self.loader, self.request);
            let inputs = || calls::load(request, &loader.reads.of(&request.headers));
            let call = (Hook::Load, self.started);
            loader.blueprint.ended(turn, call, answer, inputs);
        }
    }
}

impl Drop for LoadInProgress<'_> {
    fn drop(&mut self) {
        // The caller's deadline may pass shortly before the call notices its own.
        if Instant::now() >= self.request.deadline {
            self.ended::<()>(&Err(CallError::Timeout(Some(Hook::Load))));
        } else if let Some(turn) = self.turn.take() {
            self.loader.blueprint.health.given_up(turn);
        }
    }
}

impl Loader {
    pub(super) fn new(
        blueprint: Arc<GuestBlueprint>,
        reads: DeclaredReads,
        threads: Arc<LoaderThreads>,
        fetches: FetchAllowance,
    ) -> Arc<Self> {
        let permits = blueprint.limits.max_concurrent.min(Semaphore::MAX_PERMITS);
        Arc::new(Self {
            blueprint,
            reads,
            threads,
            fetches,
            idle: Mutex::default(),
            permits: Arc::new(Semaphore::new(permits)),
        })
    }

    /// Calls the guest for its decision about a request.
    pub(super) async fn load(
        self: &Arc<Self>,
        request: LoadRequest,
    ) -> Result<(LoadDecision, RequestReads), CallError> {
        let request = Arc::new(request);
        let mut call = LoadInProgress {
            loader: self,
            request: &request,
            turn: Some(self.blueprint.admit(Hook::Load)?),
            started: Instant::now(),
        };
        let answer = self.admit(Arc::clone(&request), call.started).await;
        call.ended(&answer);
        answer
    }

    async fn admit(
        self: &Arc<Self>,
        request: Arc<LoadRequest>,
        now: Instant,
    ) -> Result<(LoadDecision, RequestReads), CallError> {
        let permit = self
            .permits
            .clone()
            .try_acquire_owned()
            .map_err(|_| CallError::Overloaded)?;
        let deadline = request
            .deadline
            .min(now + self.blueprint.limits.load_timeout.0);
        let this = self.clone();
        let call = async move {
            // The guest itself is stopped at its deadline; this also ends a call that waits.
            let answer =
                tokio::time::timeout_at((deadline + 2 * TICK).into(), this.call(request, deadline))
                    .await;
            drop(permit);
            answer.unwrap_or(Err(CallError::Timeout(Some(Hook::Load))))
        };
        let ended = AbortOnDropHandle::new(self.threads.spawn(call)).await;
        ended.unwrap_or_else(|error| {
            Err(CallError::Trap {
                reason: format!("the host failed: {error}"),
            })
        })
    }

    async fn call(
        &self,
        request: Arc<LoadRequest>,
        deadline: Instant,
    ) -> Result<(LoadDecision, RequestReads), CallError> {
        let limits = &self.blueprint.limits;
        let max_body = limits.max_body.as_usize();
        if request.body.len() > max_body {
            return Err(CallError::invalid(format!(
                "the request's body is over {max_body} bytes (`limits.max_body`)"
            )));
        }
        if let Some(handler) = self.http_handler() {
            let mut store = self.blueprint.waiting_store();
            store.data_mut().begin(Hook::Load, deadline);
            let fetches = (self.fetches.clone(), deadline);
            return wasi_http::answer(&mut store, handler, &request, fetches).await;
        }
        let mut guest = self.guest().await?;
        guest.arm(Hook::Load, deadline);
        guest.store.data_mut().fetches = Some(self.fetches.clone());
        let load = guest
            .load
            .ok_or_else(|| CallError::invalid("there is no `load` hook"))?;
        let inputs = self.for_guest(&request, deadline);
        let answer = load.call_async(&mut guest.store, inputs).await;
        let (decision,) = answer.map_err(|error| guest.store.data().explain(&error))?;
        guest.store.data_mut().fetches = None;
        let mut decision = check::load(decision, max_body)?;
        self.keep(guest);
        if let LoadDecision::Pass(pass) = &mut decision {
            keep_unread(pass.headers_mut(), self.reads.rest(request.headers.clone()));
        }
        let query = request.path_and_query.query();
        let seen = RequestReads::declared(&self.reads, &request.headers, query);
        Ok((decision, seen))
    }

    fn for_guest(
        &self,
        request: &LoadRequest,
        deadline: Instant,
    ) -> (types::Request, types::Context) {
        let left = deadline.saturating_duration_since(Instant::now());
        let context = types::Context {
            route: request.route.to_string(),
            deadline_ms: u32::try_from(left.as_millis()).unwrap_or(u32::MAX),
            max_body: self.blueprint.limits.max_body.0,
        };
        let request = types::Request {
            method: request.method.to_string(),
            scheme: request.scheme.to_string(),
            host: request.host.clone(),
            path_and_query: request.path_and_query.to_string(),
            headers: self.reads.of(&request.headers),
            body: request.body.to_vec(),
        };
        (request, context)
    }

    /// Drops the idle instances, to release their memory.
    pub(super) fn rest(&self) {
        self.idle.lock().clear();
    }

    /// Whether its manifest declares what it reads.
    pub(super) fn is_declared(&self) -> bool {
        self.http_handler().is_none()
    }

    /// The `wasi:http` handler; if the plugin exports the contract's own hook as well, that one is
    /// used instead.
    fn http_handler(&self) -> Option<&ProxyPre<GuestState>> {
        let handler = self.blueprint.handler.as_ref();
        handler.filter(|_| self.blueprint.exports.load.is_none())
    }

    /// An idle instance, or a fresh one. If there is no memory for a fresh one, the idle instances
    /// are dropped, so that the next call can start.
    async fn guest(&self) -> Result<Guest, CallError> {
        // The lock is released before anything waits.
        while let Some(guest) = { self.idle.lock().pop() } {
            if !guest.is_worn_out(&self.blueprint.limits) {
                return Ok(guest);
            }
        }
        let started = self.blueprint.start_async().await;
        let started = started.map_err(CallError::from);
        if let Err(CallError::TotalMemory(_)) = started {
            self.rest();
        }
        started
    }

    fn keep(&self, guest: Guest) {
        if !guest.is_worn_out(&self.blueprint.limits) {
            let mut idle = self.idle.lock();
            // Checked under the lock, so that `rest` leaves none behind.
            if idle.len() < MAX_IDLE && !self.blueprint.is_retired() {
                idle.push(guest);
            }
        }
    }
}

/// Adds the headers that the guest did not see, except those that the guest set itself: a client's
/// own `Authorization` must not replace the plugin's.
fn keep_unread(given: &mut HeaderMap, unread: HeaderMap) {
    for name in unread
        .keys()
        .filter(|name| !forward::has_spelling(given, name))
        .cloned()
        .collect::<Vec<_>>()
    {
        for value in unread.get_all(&name) {
            given.append(&name, value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_guest_set_stands_alone() {
        let map = |pairs: &[(&'static str, &'static str)]| -> HeaderMap {
            let fields = pairs.iter().map(|(name, value)| {
                (
                    http::HeaderName::from_static(name),
                    http::HeaderValue::from_static(value),
                )
            });
            fields.collect()
        };
        let mut given = map(&[("authorization", "ours")]);
        keep_unread(
            &mut given,
            map(&[
                ("authorization", "theirs"),
                ("accept", "a"),
                ("accept", "b"),
            ]),
        );
        assert_eq!(given.get_all("authorization").iter().count(), 1);
        assert_eq!(given["authorization"], "ours");
        assert_eq!(given.get_all("accept").iter().count(), 2);
    }
}
