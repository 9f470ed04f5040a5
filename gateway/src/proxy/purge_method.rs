//! The `PURGE` method on the listeners: off by default, by address and token.

use std::time::Instant;

use http::request::Parts;
use http::{Method, Response, StatusCode};
use tracing::field::display;

use crate::cache::purge::Kind;
use crate::http::bearer;
use crate::http::body::Body;
use crate::http::cidr::Cidr;
use crate::http::forward::Caller;
use crate::proxy::by_url::ByUrl;
use crate::proxy::{Proxy, config, respond};
use crate::telemetry::limit::LineLimiter;

/// Who may purge by method.
pub struct PurgeMethod {
    enabled: bool,
    allow: Box<[Cidr]>,
    token: Option<Box<str>>,
    method: Method,
    /// Of warnings about refused requests: anybody may send them.
    warnings: LineLimiter,
}

/// Why the purge method can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("purge_method.allow: {0}")]
    Address(#[from] crate::http::cidr::CidrError),
    #[error("the method PURGE can't be made: {0}")]
    Method(#[from] http::method::InvalidMethod),
}

impl PurgeMethod {
    pub fn new(config: &config::PurgeMethod) -> Result<Self, TokenError> {
        Ok(Self {
            enabled: config.enabled,
            allow: config
                .allow
                .iter()
                .map(|text| text.parse())
                .collect::<Result<_, _>>()?,
            token: config.token.as_deref().map(Into::into),
            method: Method::from_bytes(b"PURGE")?,
            warnings: LineLimiter::new(Instant::now()),
        })
    }

    /// Whether this request is one. It never reaches an origin.
    pub fn takes(&self, parts: &Parts) -> bool {
        parts.method == self.method
    }

    /// Purges the request's URL; soft with `X-Purge: soft`.
    pub fn answer(
        &self,
        proxy: &Proxy,
        parts: &Parts,
        host: &str,
        caller: &Caller,
    ) -> Response<Body> {
        if !self.enabled {
            return respond::method_not_allowed("405 PURGE is off\n");
        }
        if !self.allows(parts, caller) {
            if let Some(dropped) = self.warnings.admit(Instant::now()) {
                let (client, peer) = (caller.client().map(display), caller.connected());
                tracing::warn!(client, %peer, dropped, "a PURGE was refused");
            }
            return respond::plain(StatusCode::FORBIDDEN, "403 not allowed to purge\n");
        }
        let soft = parts
            .headers
            .get("x-purge")
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"soft"));
        let kind = if soft { Kind::Soft } else { Kind::Hard };
        let ByUrl { selectors, note } = proxy.by_url(caller.scheme(), host, &parts.uri);
        if selectors.is_empty() {
            let why = note.map_or_else(String::new, |note| format!(": {note}"));
            let text = format!("404 no route caches this{why}\n");
            return respond::plain(StatusCode::NOT_FOUND, text);
        }
        for selector in &selectors {
            proxy.cache.purge(selector, kind);
        }
        let mut purged = respond::plain(StatusCode::OK, "purged\n");
        if let Some(note) = note {
            *purged.body_mut() = Body::full(format!("purged\n{note}\n"));
        }
        purged
    }

    /// The address that counts is the client's, as trusted proxies report it; one that nobody
    /// knows is on no list.
    fn allows(&self, parts: &Parts, caller: &Caller) -> bool {
        let listed = |client| self.allow.iter().any(|network| network.contains(client));
        let address = self.allow.is_empty() || caller.client().is_some_and(listed);
        let token = self.token.as_ref();
        let token = token.is_none_or(|token| bearer::brings(&parts.headers, token));
        address && token && (!self.allow.is_empty() || self.token.is_some())
    }
}
