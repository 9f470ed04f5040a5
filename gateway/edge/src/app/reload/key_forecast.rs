//! How many of the last requests would get another key from a new version of their key plugin.
//!
//! The plugin's decision is compared, not the whole key: what a route's own rules add to it is the
//! same for both, or is what [`EntryForecast`](super::forecast::EntryForecast) is about. Both
//! versions are asked about the head as the plugin saw it then, after the route's request plugin.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::plugin::{Hook, KeyDecision, Plugin};
use crate::proxy::Generation;
use crate::proxy::record::recent::RecentRequestLog;

/// What a new version of one plugin does to the keys of the last requests.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct KeyForecast {
    /// The recorded requests of its routes that both versions were asked about.
    pub requests: u64,
    /// Those that would get another key, or would bypass the cache or be refused in place of it.
    pub other_key: u64,
    /// Some of their URLs.
    pub examples: Vec<String>,
    /// Those about which a version failed.
    pub failed: u64,
    /// Those that were not asked about: the time was over, or a version failed too often.
    pub left_out: u64,
}

/// The forecasts, by the plugins' names.
pub type KeyForecasts = BTreeMap<String, KeyForecast>;

/// How long all calls may take together.
const MOST_TIME: Duration = Duration::from_secs(2);
/// After so many failures a version is not asked any more, so that it is not set aside for them.
const MOST_FAILURES: u64 = 3;
/// The most URLs that are told as examples.
const EXAMPLES: usize = 5;

/// Asks both versions of each plugin that is another one in `after`. It calls plugins: never on a
/// thread that serves requests.
pub fn of_recent(
    recent: &RecentRequestLog,
    (before, after): (&Generation, &Generation),
) -> KeyForecasts {
    let until = Instant::now() + MOST_TIME;
    let changed: HashSet<String> = before
        .plugins
        .iter()
        .filter(|plugin| plugin.has(Hook::Key) && is_another(plugin, after))
        .map(|plugin| plugin.name().to_owned())
        .collect();
    let none = |name: &String| (name.clone(), KeyForecast::default());
    // What nobody asked for lately is told as well.
    let mut forecasts: KeyForecasts = changed.iter().map(none).collect();
    if changed.is_empty() {
        return forecasts;
    }
    for record in recent.all() {
        let Some(head) = record.head.as_deref() else {
            continue;
        };
        if !changed.contains(&*head.plugin) {
            continue;
        }
        let both = [before, after].map(|generation| generation.plugins.get(&head.plugin));
        let [Some(plugin), Some(next)] = both else {
            continue;
        };
        let parts = head.parts();
        let forecast = forecasts.entry(plugin.name().to_owned()).or_default();
        if Instant::now() >= until || forecast.failed >= MOST_FAILURES {
            forecast.left_out += 1;
            continue;
        }
        let now = plugin.key(&parts, &head.host);
        let then = next.key_of_next_version(&parts, &head.host);
        let (Ok(now), Ok(then)) = (now, then) else {
            forecast.failed += 1;
            continue;
        };
        forecast.requests += 1;
        if !gives_same_key(&now, &then) {
            forecast.other_key += 1;
            let url = format!("{}://{}{}", record.scheme, record.host, record.path);
            if forecast.examples.len() < EXAMPLES && !forecast.examples.contains(&url) {
                forecast.examples.push(url);
            }
        }
    }
    forecasts
}

/// Whether another version of this plugin, or one with other settings, would derive keys. A plugin
/// that is gone derives none.
fn is_another(plugin: &Arc<Plugin>, after: &Generation) -> bool {
    let next = after.plugins.get(plugin.name());
    next.is_some_and(|next| !Arc::ptr_eq(plugin, &next) || next.has_next_version())
}

/// Tags are no part of a key, and a reason is for the log.
fn gives_same_key(now: &KeyDecision, then: &KeyDecision) -> bool {
    match (now, then) {
        (
            KeyDecision::Key { text, parts, .. },
            KeyDecision::Key {
                text: other,
                parts: others,
                ..
            },
        ) => text == other && parts == others,
        (KeyDecision::Bypass { .. }, KeyDecision::Bypass { .. }) => true,
        (now, then) => now == then,
    }
}
