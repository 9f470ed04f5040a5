//! One call of one hook with a given request, and the answers of upstreams to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use http::uri::{PathAndQuery, Scheme};
use http::{Response, StatusCode};
use parking_lot::Mutex;
use serde_json::Value;

use super::cases::{CaseFetchAnswer, CaseRequest, CaseResponse, PreparedCaseRequest};
use super::{decision_json, opened};
use lamina_plugin_host::{
    CallError, FetchCall, FetchError, Hook, HookRequest, LoadRequest, Plugin, UpstreamFetcher,
};

/// The name of the route that plugins get.
const ROUTE: &str = "kit";

/// A call.
pub(super) struct HookInvocation<'a> {
    pub(super) hook: Hook,
    pub(super) request: &'a CaseRequest,
    /// The response for the hook `response`.
    pub(super) response: Option<&'a CaseResponse>,
}

/// A call that is ready to be made many times.
pub(super) struct PreparedInvocation {
    hook: Hook,
    ready: PreparedCaseRequest,
    client: Option<std::net::IpAddr>,
    body: Bytes,
    response: Option<(StatusCode, http::HeaderMap)>,
}

/// The answers of upstreams, and the requests that have no answer.
#[derive(Clone, Default)]
pub(super) struct StubUpstreams(Arc<Mutex<StubAnswers>>);

#[derive(Default)]
struct StubAnswers {
    known: BTreeMap<String, CaseFetchAnswer>,
    unknown: Vec<String>,
}

impl HookInvocation<'_> {
    /// Prepares the call. Errors are messages.
    pub(super) fn prepare(&self) -> Result<PreparedInvocation, String> {
        let response = match (self.hook, self.response) {
            (Hook::Response, None) => {
                return Err(
                    "the hook `response` needs a `response: {status, headers}` to look at".into(),
                );
            }
            (_, None) => None,
            (_, Some(given)) => {
                let status = StatusCode::from_u16(given.status)
                    .map_err(|_| format!("{} is not a status", given.status))?;
                Some((status, given.headers.map()?))
            }
        };
        Ok(PreparedInvocation {
            hook: self.hook,
            ready: self.request.ready()?,
            client: self.request.client,
            body: Bytes::from(self.request.body.clone()),
            response,
        })
    }
}

impl PreparedInvocation {
    /// Makes the call and returns its result or its error as JSON.
    pub(super) async fn tell(&self, plugin: &Plugin) -> Value {
        match self.call(plugin).await {
            Ok(told) => told,
            Err(error) => decision_json::failed(&error),
        }
    }

    /// Makes the call.
    pub(super) async fn call(&self, plugin: &Plugin) -> Result<Value, CallError> {
        let PreparedCaseRequest { parts, host, .. } = &self.ready;
        match self.hook {
            Hook::Key => plugin
                .key(parts, host)
                .map(|decision| decision_json::key(&decision)),
            Hook::Load => plugin
                .load(self.for_loader())
                .await
                .map(|(decision, _)| decision_json::load(&decision)),
            Hook::Request => plugin
                .on_request(self.head())
                .map(|decision| decision_json::request(&decision)),
            Hook::Response => {
                let none = Default::default();
                let (status, headers) = self.response.as_ref().unwrap_or(&none);
                let change = plugin.on_response(self.head(), *status, headers)?;
                Ok(decision_json::response(change.as_ref()))
            }
        }
    }

    fn head(&self) -> HookRequest<'_> {
        HookRequest {
            parts: &self.ready.parts,
            scheme: &self.ready.scheme,
            host: &self.ready.host,
            client: self.client,
            route: ROUTE,
        }
    }

    fn for_loader(&self) -> LoadRequest {
        let PreparedCaseRequest {
            parts,
            scheme,
            host,
        } = &self.ready;
        let path = parts.uri.path_and_query().cloned();
        LoadRequest {
            method: parts.method.clone(),
            scheme: match &**scheme {
                "https" => Scheme::HTTPS,
                _ => Scheme::HTTP,
            },
            host: host.clone(),
            path_and_query: path.unwrap_or_else(|| PathAndQuery::from_static("/")),
            headers: parts.headers.clone(),
            body: self.body.clone(),
            route: ROUTE.into(),
            deadline: opened::load_deadline(),
        }
    }
}

impl StubUpstreams {
    /// Sets the answers from now on.
    pub(super) fn answer(&self, known: &BTreeMap<String, CaseFetchAnswer>) {
        *self.0.lock() = StubAnswers {
            known: known.clone(),
            unknown: Vec::new(),
        };
    }

    /// The requests since then that have no answer.
    pub(super) fn asked_in_vain(&self) -> Vec<String> {
        self.0.lock().unknown.clone()
    }

    /// The fetcher that gives these answers.
    pub(super) fn fetch(&self) -> UpstreamFetcher {
        let answers = Arc::clone(&self.0);
        Arc::new(move |call: FetchCall| {
            let answer = answers.lock().to(&call);
            std::future::ready(answer).boxed()
        })
    }
}

impl StubAnswers {
    fn to(&mut self, call: &FetchCall) -> Result<Response<Bytes>, FetchError> {
        let path = call.request.uri().path_and_query();
        let asked = format!(
            "{} {}",
            call.upstream,
            path.map_or("/", |path| path.as_str())
        );
        let Some(answer) = self.known.get(&asked) else {
            let why = format!("no answer is given for `{asked}`");
            self.unknown.push(asked);
            return Err(FetchError::Unavailable(why));
        };
        if let Some(fault) = answer.error {
            return Err(fault.into());
        }
        if answer.body.len() > call.max_body {
            return Err(FetchError::TooLarge);
        }
        let unusable = FetchError::Unavailable;
        let mut response = Response::new(Bytes::from(answer.body.clone()));
        *response.status_mut() =
            StatusCode::from_u16(answer.status).map_err(|e| unusable(e.to_string()))?;
        *response.headers_mut() = answer.headers.map().map_err(unusable)?;
        Ok(response)
    }
}

/// The upstreams that keys like `users /api/1` name.
pub(super) fn upstreams<'a>(keys: impl Iterator<Item = &'a String>) -> Vec<String> {
    let named = keys.filter_map(|key| key.split_once(' '));
    let names: std::collections::BTreeSet<_> = named.map(|(name, _)| name.to_owned()).collect();
    names.into_iter().collect()
}
