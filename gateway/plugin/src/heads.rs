//! The hooks `request` and `response`, called on the thread that has the message.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use http::request::Parts;
use http::{HeaderMap, StatusCode};

use super::bindings::types;
use super::error::CallError;
use super::guest::GuestBlueprint;
use super::reads::DeclaredReads;
use super::{Hook, RequestDecision, ResponseChange, calls, check, local};

/// A request, in the form in which these hooks see it.
#[derive(Clone, Copy, Debug)]
pub struct HookRequest<'a> {
    pub parts: &'a Parts,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// The host that the client named, in lower case.
    pub host: &'a str,
    /// The client's address, if it is known.
    pub client: Option<IpAddr>,
    /// The name of the route.
    pub route: &'a str,
}

/// The hooks of one version of a plugin.
pub(super) struct MessageHooks {
    pub(super) blueprint: Arc<GuestBlueprint>,
    pub(super) reads: DeclaredReads,
}

impl MessageHooks {
    pub(super) fn on_request(&self, head: HookRequest<'_>) -> Result<RequestDecision, CallError> {
        let inputs = (self.for_guest(head),);
        let kept = || calls::head(&self.for_guest(head), None);
        self.call(Hook::Request, kept, |version| {
            let timeout = (Hook::Request, version.limits.hook_timeout);
            let max_body = version.limits.max_body.as_usize();
            let check = |decision| check::request_decision(decision, max_body);
            local::with(version, |slot| {
                slot.call(version, timeout, |guest| guest.on_request, inputs, check)
            })
        })
    }

    pub(super) fn on_response(
        &self,
        head: HookRequest<'_>,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> Result<Option<ResponseChange>, CallError> {
        let response = || types::ResponseHead {
            status: status.as_u16(),
            headers: headers.iter().map(types::Header::from).collect(),
        };
        let inputs = (self.for_guest(head), response());
        let kept = || calls::head(&self.for_guest(head), Some(&response()));
        self.call(Hook::Response, kept, |version| {
            let timeout = (Hook::Response, version.limits.hook_timeout);
            let check = check::response_decision;
            local::with(version, |slot| {
                slot.call(version, timeout, |guest| guest.on_response, inputs, check)
            })
        })
    }

    fn call<T>(
        &self,
        hook: Hook,
        inputs: impl FnOnce() -> serde_json::Value,
        call: impl FnOnce(&Arc<GuestBlueprint>) -> Result<T, CallError>,
    ) -> Result<T, CallError> {
        let turn = self.blueprint.admit(hook)?;
        let started = Instant::now();
        let answer = call(&self.blueprint);
        self.blueprint.ended(turn, (hook, started), &answer, inputs);
        answer
    }

    fn for_guest(&self, head: HookRequest<'_>) -> types::RequestHead {
        let uri = &head.parts.uri;
        types::RequestHead {
            method: head.parts.method.to_string(),
            scheme: head.scheme.to_owned(),
            host: head.host.to_owned(),
            path_and_query: uri.path_and_query().map_or("/", |p| p.as_str()).to_owned(),
            headers: self.reads.of(&head.parts.headers),
            client: head
                .client
                .map_or(String::new(), |address| address.to_string()),
            route: head.route.to_owned(),
        }
    }
}
