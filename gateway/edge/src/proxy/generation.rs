//! What one configuration makes of requests, apart from what outlives it.
//!
//! The process keeps the cache, its listeners and its families of metrics; a [`Generation`]
//! has the routes with their policies, key rules, upstreams and plugins, and how requests are
//! read, logged and purged by. [`Proxy`](super::Proxy) holds the one that serves. A request
//! keeps the generation that it began on, also in its loads, and the last one frees it.

use std::sync::Arc;
use std::time::Instant;

use super::purge_method::PurgeMethod;
use super::record::Recorder;
use super::route::Routes;
use crate::http::forward::Trust;
use crate::http::path::Rules;
use crate::plugin::Plugins;
use crate::telemetry::limit::LineLimiter;

/// One configuration at work.
pub struct Generation {
    pub(super) routes: Routes,
    pub plugins: Arc<Plugins>,
    pub(super) purge_method: PurgeMethod,
    /// The different rules by which listeners read paths; at least one.
    pub(super) path_rules: Box<[Rules]>,
    pub(super) recorder: Recorder,
    /// What is believed of some proxy in front. None: there is no trusted one.
    pub(super) trust: Option<Trust>,
    /// Of warnings about paths that were refused.
    pub(super) refused_paths: LineLimiter,
}

impl Generation {
    /// Answers requests that came to listeners with these rules.
    pub fn new(
        routes: Routes,
        plugins: Arc<Plugins>,
        purge_method: PurgeMethod,
        listeners: impl Iterator<Item = Rules>,
        recorder: Recorder,
        trust: Option<Trust>,
    ) -> Arc<Self> {
        let mut path_rules: Vec<Rules> = Vec::new();
        for rules in listeners {
            if !path_rules.contains(&rules) {
                path_rules.push(rules);
            }
        }
        if path_rules.is_empty() {
            path_rules.push(Rules::default());
        }
        Arc::new(Self {
            routes,
            plugins,
            purge_method,
            path_rules: path_rules.into(),
            recorder,
            trust,
            refused_paths: LineLimiter::new(Instant::now()),
        })
    }

    /// The routes that answer with an error while this plugin can't be called.
    pub fn routes_that_fail_without(&self, plugin: &str) -> Vec<&str> {
        self.routes.that_fail_without(plugin)
    }
}
