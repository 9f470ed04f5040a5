//! The generation: everything that one configuration sets up for requests, apart from what outlives
//! it.
//!
//! The process keeps the cache, its listeners and its metric families. A [`Generation`] has the
//! routes with their policies, key rules, upstreams and plugins, and the rules by which requests
//! are read, logged and purged. [`Proxy`](super::Proxy) holds the current one. A request and its
//! loads keep the generation that the request began on, and the last of them frees it.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use tokio_util::task::AbortOnDropHandle;

use super::purge_method::PurgeMethod;
use super::record::RequestRecorder;
use super::route::Routes;
use crate::http::forward::TrustedProxies;
use crate::http::path::PathRules;
use crate::origin::Origins;
use crate::plugin::PluginSet;
use crate::telemetry::limit::LineLimiter;

/// One configuration at work.
pub struct Generation {
    pub(super) routes: Routes,
    pub plugins: Arc<PluginSet>,
    pub origins: Arc<Origins>,
    pub(super) purge_method: PurgeMethod,
    /// The distinct rules by which the listeners read paths; at least one.
    pub(super) path_rules: Box<[PathRules]>,
    pub(super) recorder: RequestRecorder,
    /// What is accepted from a trusted proxy in front of the gateway. None: no proxy is trusted.
    pub(super) trust: Option<TrustedProxies>,
    /// Limits the warnings about refused paths.
    pub(super) refused_paths: LineLimiter,
    /// The periodic work of the generation; it ends with the generation.
    periodic_work: OnceLock<AbortOnDropHandle<()>>,
}

impl Generation {
    /// Creates a generation for requests to listeners with these rules.
    pub fn new(
        routes: Routes,
        plugins: Arc<PluginSet>,
        origins: Arc<Origins>,
        purge_method: PurgeMethod,
        listeners: impl Iterator<Item = PathRules>,
        recorder: RequestRecorder,
        trust: Option<TrustedProxies>,
    ) -> Arc<Self> {
        let mut path_rules: Vec<PathRules> = Vec::new();
        for rules in listeners {
            if !path_rules.contains(&rules) {
                path_rules.push(rules);
            }
        }
        if path_rules.is_empty() {
            path_rules.push(PathRules::default());
        }
        Arc::new(Self {
            routes,
            plugins,
            origins,
            purge_method,
            path_rules: path_rules.into(),
            recorder,
            trust,
            refused_paths: LineLimiter::new(Instant::now()),
            periodic_work: OnceLock::new(),
        })
    }

    /// Starts the periodic work of the generation: it loads new files of watched plugins, and closes
    /// connections to origins that nobody uses.
    pub fn begin_periodic_work(&self) {
        self.periodic_work.get_or_init(|| {
            let plugins = Arc::clone(&self.plugins);
            let origins = Arc::clone(&self.origins);
            let work = async move {
                tokio::join!(plugins.watch(), origins.maintain());
            };
            AbortOnDropHandle::new(tokio::spawn(work))
        });
    }

    /// The routes that answer with an error while this plugin can't be called.
    pub fn routes_that_fail_without(&self, plugin: &str) -> Vec<&str> {
        self.routes.that_fail_without(plugin)
    }
}
