//! The query that the origin, a loader and a response plugin get: the part of the client's query
//! that the key holds. So nothing else that a client writes can get into a page that others get
//! under the same key.
//!
//! Invariant: two requests with one key send the same query, unless the route says
//! `origin_query: as_sent`, or code derives its key from the whole query. What such code leaves out
//! can only be found by trying: [`unheld`] derives the key again without a parameter and with
//! another value of it, once for each load and never for a hit.

use std::borrow::Cow;
use std::time::Instant;

use http::Uri;
use http::request::Parts;
use http::uri::PathAndQuery;

use crate::cache::config::OriginQuery;
use crate::cache::key::KeyBuf;
use crate::http::body::Body;
use crate::http::forward::HopWishes;
use crate::http::path;
use crate::plugin::{Plugin, RequestReads, SeenField};
use crate::proxy::context::{DerivedKey, RequestContext};
use crate::proxy::lookup::{HitSample, RoutedRequest};
use crate::proxy::plan::{self, RequestPlan};
use crate::proxy::route::Route;

/// The most parameters of one request that are tried; each takes two calls of the key plugin.
const MOST_TRIED: usize = 32;

/// Reduces the query to the part that this key holds.
pub fn narrow(uri: &mut Uri, route: &Route, key: &KeyBuf) {
    if let Some(target) = narrowed(uri, route, key) {
        path::set(uri, target);
    }
}

/// The path with the query for the origin. None if the query stays as it is.
pub fn narrowed(uri: &Uri, route: &Route, key: &KeyBuf) -> Option<PathAndQuery> {
    let query = uri.query()?;
    if route.origin_query == OriginQuery::AsSent {
        return None;
    }
    let held = match of_text(route, key) {
        Some(plugin) => plugin.keyed_query(query).map(Cow::Owned),
        None => route.key.query(query),
    };
    match held {
        Some(held) if held == query => None,
        Some(held) => target(uri.path(), Some(&held)),
        None => target(uri.path(), None),
    }
}

/// Joins path and query. Both come from a valid URI.
fn target(path: &str, query: Option<&str>) -> Option<PathAndQuery> {
    match query {
        Some(query) => format!("{path}?{query}").parse().ok(),
        None => path.parse().ok(),
    }
}

/// The plugin whose text replaces the query in this key.
fn of_text<'a>(route: &'a Route, key: &KeyBuf) -> Option<&'a Plugin> {
    let plugin = route.key_plugin.as_ref().filter(|_| key.is_text());
    plugin.map(|(plugin, _)| &**plugin)
}

/// The parameters that the origin gets although they make no difference to the key, if code derives
/// the key.
pub fn unheld(ask: &RequestContext, key: &KeyBuf) -> RequestReads {
    let Some(query) = ask.parts.uri.query() else {
        return RequestReads::default();
    };
    let by_code = of_text(&ask.route, key).is_some_and(Plugin::keys_by_code);
    if !by_code {
        return RequestReads::default();
    }
    let pieces: Vec<&str> = query.split('&').collect();
    let mut seen = RequestReads::default();
    for (n, piece) in pieces.iter().enumerate().take(MOST_TRIED) {
        if piece.is_empty() {
            continue;
        }
        let without: Vec<&str> = [&pieces[..n], &pieces[n + 1..]].concat();
        let altered = format!("{piece}{OTHER}");
        let mut other = pieces.clone();
        other[n] = &altered;
        if [without, other]
            .iter()
            .all(|pieces| gives(ask, key, pieces))
        {
            let name = piece.split('=').next().unwrap_or(piece);
            seen.fields.push(SeenField::Parameter(name.into()));
        }
    }
    seen
}

/// Appended to a value to make another one of it.
const OTHER: &str = "-lamina";

/// Whether the request has the same key if these pieces are its query.
fn gives(ask: &RequestContext, key: &KeyBuf, pieces: &[&str]) -> bool {
    let query = pieces.join("&");
    let query = (!query.is_empty()).then_some(&*query);
    let Some(target) = target(ask.parts.uri.path(), query) else {
        return false;
    };
    let mut parts: Parts = ask.parts.clone();
    path::set(&mut parts.uri, target);
    let visit = RoutedRequest {
        parts: &parts,
        body: &Body::empty(),
        host: &ask.host,
        scheme: ask.scheme,
        wishes: &HopWishes::default(),
        route: &ask.route,
        started: Instant::now(),
        trail: None,
        sample: HitSample::LeftOut,
        codings: None,
    };
    match plan::key(&visit) {
        RequestPlan::Cache(DerivedKey { key: other, .. }) => other.as_bytes() == key.as_bytes(),
        RequestPlan::AwaitBody | RequestPlan::Pass(..) | RequestPlan::Refuse(_) => false,
    }
}
