//! The plain request: what a background refresh sends.
//!
//! Its answer is for everybody who may get the stale copy. So it has only those fields of the
//! client's request that select the copy: the host, the fields in the key, the fields that answers
//! of this key vary by, the fields in the route's `match`, the fields that its plugins declare to
//! read, and the fields that its request plugin has set. Thus cookies, credentials, `User-Agent`
//! and anything unusual in one client's request cannot decide what all others get.

use std::sync::Arc;

use http::header::{COOKIE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};

use crate::cache::Cache;
use crate::cache::entry::Entry;
use crate::cache::key::KeyBuf;
use crate::http::cookies;
use crate::http::forward::HopWishes;
use crate::http::vary::Vary;
use crate::plugin::{Plugin, SeenField};
use crate::proxy::context::RequestContext;
use crate::proxy::cover::{self, KeyCoverage};
use crate::proxy::message_hooks::PluginHeadChanges;
use crate::proxy::route::Route;
use crate::proxy::rules::compress::ClientCodings;
use crate::proxy::rules::request_id::RequestId;

/// The request that refreshes `copy`, whose key without the variant is `primary`.
pub(super) fn request(
    ask: &RequestContext,
    cache: &Cache,
    primary: &KeyBuf,
    copy: &Entry,
) -> RequestContext {
    let selection = SelectingFields::of(ask, cache, primary, copy);
    let mut parts = Request::new(()).into_parts().0;
    parts.method = Method::GET;
    parts.uri = ask.parts.uri.clone();
    parts.version = ask.parts.version;
    parts.headers = selection.of_headers(&ask.parts.headers);
    // The fields that the plugin set are sent as well, so the record of its changes is needed, too.
    // The refresh is known by the name of the request that it stands behind.
    if let Some(id) = ask.parts.extensions.get::<RequestId>() {
        parts.extensions.insert(id.clone());
    }
    if let Some(by) = ask.parts.extensions.get::<PluginHeadChanges>() {
        parts.extensions.insert(by.clone());
    }
    // On a route that compresses, the origin is asked with the same word for every client.
    if let Some(client) = ClientCodings::of(&ask.parts) {
        client.ask_for_all(&mut parts.headers);
        parts.extensions.insert(Arc::clone(client));
    }
    RequestContext {
        generation: Arc::clone(&ask.generation),
        parts,
        host: ask.host.clone(),
        scheme: ask.scheme,
        caller: ask.caller.clone(),
        wishes: HopWishes::default(),
        path_rules: ask.path_rules,
        route: Arc::clone(&ask.route),
        started: ask.started,
        interim: None,
        // The refresh is for everybody, so its memory is not charged to one connection.
        memory: None,
        trail: ask.trail.clone(),
    }
}

/// The fields of a request that select a representation.
struct SelectingFields<'a> {
    cover: KeyCoverage<'a>,
    /// The plugins that see the request's fields.
    plugins: [Option<&'a Plugin>; 2],
    key_plugin: Option<&'a Plugin>,
}

impl<'a> SelectingFields<'a> {
    fn of(ask: &'a RequestContext, cache: &Cache, primary: &KeyBuf, copy: &Entry) -> Self {
        let route: &Route = &ask.route;
        let varying = cache.vary_lists(&primary.to_key()).into_iter().flatten();
        let by = ask.parts.extensions.get::<PluginHeadChanges>();
        let set = by.map_or(&[][..], |by| &by.set).iter().cloned();
        let cover = KeyCoverage::of(route, primary, Vary::parse(&copy.headers))
            .and_fields(varying)
            .and_fields(route.matched_fields().cloned())
            .and_fields(set);
        Self {
            cover,
            plugins: [
                route.loader.as_ref().map(|(plugin, _)| &**plugin),
                route.response_plugin.as_ref().map(|(plugin, _)| &**plugin),
            ],
            key_plugin: route.key_plugin.as_ref().map(|(plugin, _)| &**plugin),
        }
    }

    fn has(&self, field: &SeenField) -> bool {
        let read = |plugin: &Plugin| plugin.reads(field);
        self.cover.has(field)
            || self.plugins.into_iter().flatten().any(read)
            || self.key_plugin.is_some_and(|plugin| plugin.keys_by(field))
    }

    fn of_headers(&self, given: &HeaderMap) -> HeaderMap {
        let wanted =
            |name: &HeaderName| *name == HOST || self.has(&SeenField::Header(name.clone()));
        let mut headers = HeaderMap::new();
        for name in given.keys().filter(|name| wanted(name)) {
            for value in given.get_all(name) {
                headers.append(name.clone(), value.clone());
            }
        }
        if !headers.contains_key(COOKIE) {
            headers.extend(self.cookies(given).map(|line| (COOKIE, line)));
        }
        headers
    }

    /// One `Cookie` line with only the selected cookies.
    fn cookies(&self, given: &HeaderMap) -> Option<HeaderValue> {
        let named = |pair: &&[u8]| cover::name_of(pair).is_some_and(|cookie| self.has(&cookie));
        let pairs: Vec<&[u8]> = cookies::pairs(given).filter(named).collect();
        match pairs.is_empty() {
            true => None,
            false => HeaderValue::from_bytes(&pairs.join(&b"; "[..])).ok(),
        }
    }
}
