//! Which stored entries another configuration can't reach any more.
//!
//! A key says what it was made of, so the request that an entry was loaded for can be asked of both
//! configurations. Where the present one would not give that request the key that is stored, because
//! a plugin or a header that is no part of the key has decided, it can't be known: such entries are
//! counted apart, unless their route and all plugins stay as they are. So are those whose key would cover a header or a
//! cookie in addition.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use serde::Serialize;

use super::changes::{ConfigChanges, NamedChanges};
use super::lifetime_forecast::{self, LifetimeForecasts};
use crate::cache::Cache;
use crate::cache::entry::Entry;
use crate::cache::key::StoredKeyFields;
use crate::http::config::ListenerConfig;
use crate::http::tls::config::{RedirectSwitch, RedirectToHttps};
use crate::proxy::Generation;

/// What a change of the configuration does to the first tier.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct EntryForecast {
    /// The entries that can be used now.
    pub entries: u64,
    /// Those that no request will find.
    pub unreachable: u64,
    pub unreachable_bytes: u64,
    /// Unreachable entries by the route that they were stored by.
    pub unreachable_by_route: BTreeMap<String, u64>,
    /// Those of which it can't be known.
    pub unknown: u64,
    /// Some URLs that are served by another route.
    pub rerouted: Vec<ReroutedUrl>,
    /// What becomes of the lifetimes of those that stay reachable.
    pub lifetimes: LifetimeForecasts,
}

/// A URL that is served by another route.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ReroutedUrl {
    pub url: String,
    pub before: String,
    /// None: no route takes it.
    pub after: Option<String>,
}

/// The schemes with which clients can ask by a configuration.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ClientSchemes {
    http: bool,
    https: bool,
}

impl ClientSchemes {
    /// Those that its listeners give. A proxy that a listener trusts may tell either one.
    pub fn of(listeners: &[ListenerConfig]) -> Self {
        let mut schemes = Self::default();
        for listener in listeners {
            let is_told = !listener.trusted_proxies.is_empty();
            let redirect = listener.redirect_to_https;
            let is_served = redirect == RedirectToHttps::Switch(RedirectSwitch::Off);
            schemes.https |= is_told || listener.tls.is_some();
            schemes.http |= is_told || (listener.tls.is_none() && is_served);
        }
        schemes
    }

    fn include(&self, scheme: &str) -> bool {
        match scheme {
            "https" => self.https,
            _ => self.http,
        }
    }
}

/// What becomes of one entry.
enum EntryFate {
    Reachable,
    Unreachable,
    Unknown,
}

/// The most URLs that are told as examples.
const EXAMPLES: usize = 10;

impl EntryForecast {
    /// Looks at every entry of the first tier: never on a thread that serves requests.
    pub fn of(
        cache: &Cache,
        (before, after): (&Generation, &Generation),
        schemes: &ClientSchemes,
        changes: &ConfigChanges,
    ) -> Self {
        let mut forecast = Self::default();
        cache.for_each_entry(|entry| {
            forecast.entries += 1;
            let stored = StoredKeyFields::read(entry.key.as_bytes());
            let can_be_asked = |stored: &StoredKeyFields<'_>| schemes.include(stored.scheme);
            let fate = match stored.as_ref().is_none_or(can_be_asked) {
                true => forecast.judge(entry, (before, after), changes),
                false => EntryFate::Unreachable,
            };
            match fate {
                EntryFate::Reachable => {}
                EntryFate::Unknown => forecast.unknown += 1,
                EntryFate::Unreachable => {
                    forecast.unreachable += 1;
                    forecast.unreachable_bytes += entry.size() as u64;
                    if let Some(stored) = stored {
                        let route = stored.route.to_owned();
                        *forecast.unreachable_by_route.entry(route).or_default() += 1;
                    }
                }
            }
        });
        forecast
    }

    fn judge(
        &mut self,
        entry: &Entry,
        (before, after): (&Generation, &Generation),
        changes: &ConfigChanges,
    ) -> EntryFate {
        let Some(stored) = StoredKeyFields::read(entry.key.as_bytes()) else {
            return EntryFate::Unknown;
        };
        let asked = AskedRequest::all(entry, &stored).find(|asked| {
            let key = asked.key_in(before, &stored);
            key.is_some_and(|key| key == stored.primary)
        });
        let Some(asked) = asked else {
            let stays = |name: &str| {
                !changes.routes.removed.iter().any(|gone| gone == name)
                    && !changes.routes.changed.contains_key(name)
                    && changes.routes.added.is_empty()
                    && changes.moved_routes.is_empty()
                    && changes.plugins == NamedChanges::default()
            };
            return match stays(stored.route) {
                true => EntryFate::Reachable,
                false => EntryFate::Unknown,
            };
        };
        if stored.text.is_some() && after.plugins.has_prepared_version() {
            // The version that would derive the key can't be called yet.
            return EntryFate::Unknown;
        }
        if !asked.is_found_in(before, &stored) {
            // No request finds it now: that does not change.
            return EntryFate::Reachable;
        }
        let keys = asked.keys_of_lookup_in(after, &stored);
        let stays = keys.iter().any(|key| key == stored.primary);
        let route = keys.first().and_then(|key| StoredKeyFields::read(key));
        let route = route.map(|read| read.route.to_owned());
        if !stays && route.as_deref() != Some(stored.route) && self.rerouted.len() < EXAMPLES {
            self.rerouted.push(ReroutedUrl {
                url: entry.marks.url.to_string(),
                before: stored.route.to_owned(),
                after: route,
            });
        }
        match stays {
            true if asked.lacks_what_counts((before, after), &stored) => EntryFate::Unknown,
            true => {
                let asked_for = (stored.route, asked.uri.path(), &asked.headers);
                let generations = (before, after);
                lifetime_forecast::count(&mut self.lifetimes, entry, asked_for, generations);
                EntryFate::Reachable
            }
            false => EntryFate::Unreachable,
        }
    }
}

/// A request that an entry may have been loaded for.
struct AskedRequest {
    uri: Uri,
    headers: HeaderMap,
}

impl AskedRequest {
    /// With the URL as the client wrote it, and as the key has it.
    fn all(entry: &Entry, stored: &StoredKeyFields<'_>) -> impl Iterator<Item = Self> {
        let query = stored.query.map(|query| format!("?{query}"));
        let keyed = format!("{}{}", stored.path, query.unwrap_or_default());
        let written = entry.marks.url.strip_prefix(stored.host);
        let written = written.filter(|rest| rest.starts_with('/'));
        let headers = headers(stored);
        let targets = [written.map(str::to_owned), Some(keyed)];
        let uris = targets.into_iter().flatten();
        let uris = uris.filter_map(|target| target.parse::<Uri>().ok());
        uris.map(move |uri| Self {
            uri,
            headers: headers.clone(),
        })
    }

    fn key_in(&self, generation: &Generation, stored: &StoredKeyFields<'_>) -> Option<Vec<u8>> {
        let (scheme, host) = (stored.scheme, stored.host);
        let key = generation.key_of_seen(scheme, host, &self.uri, self.headers.clone())?;
        Some(key.as_bytes().to_vec())
    }

    /// The keys under which it is looked up, on every listener.
    fn keys_of_lookup_in(
        &self,
        generation: &Generation,
        stored: &StoredKeyFields<'_>,
    ) -> Vec<Vec<u8>> {
        let (scheme, host) = (stored.scheme, stored.host);
        let keys = generation.keys_of_lookup(scheme, host, &self.uri, self.headers.clone());
        keys.iter().map(|key| key.as_bytes().to_vec()).collect()
    }

    fn is_found_in(&self, generation: &Generation, stored: &StoredKeyFields<'_>) -> bool {
        let keys = self.keys_of_lookup_in(generation, stored);
        keys.iter().any(|key| key == stored.primary)
    }

    /// Whether the key covers in `after` what the stored key does not tell of the request.
    fn lacks_what_counts(
        &self,
        (before, after): (&Generation, &Generation),
        stored: &StoredKeyFields<'_>,
    ) -> bool {
        let place = (stored.scheme, stored.host);
        after.key_covers_more(before, place, &self.uri, self.headers.clone())
    }
}

/// The headers and cookies that the key has.
fn headers(stored: &StoredKeyFields<'_>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let pairs = stored.headers.iter().filter_map(|(name, value)| {
        let name = HeaderName::from_bytes(name).ok()?;
        Some((name, HeaderValue::from_bytes(value).ok()?))
    });
    for (name, value) in pairs {
        headers.append(name, value);
    }
    let cookies = stored.cookies.iter();
    let cookies: Vec<_> = cookies
        .map(|(name, value)| [*name, b"=", *value].concat())
        .collect();
    if let Ok(cookies) = HeaderValue::from_bytes(&cookies.join(&b"; "[..]))
        && !stored.cookies.is_empty()
    {
        headers.insert(http::header::COOKIE, cookies);
    }
    headers
}
