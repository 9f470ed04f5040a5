//! The generation: everything that one configuration sets up for requests, apart from what outlives
//! it.
//!
//! The process keeps the cache, its listeners and its metric families. A [`Generation`] has the
//! routes with their policies, key rules, upstreams and plugins, and the rules by which requests
//! are read, logged and purged. [`Proxy`](super::Proxy) holds the current one. A request and its
//! loads keep the generation that the request began on, and the last of them frees it.

use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::purge_method::PurgeMethod;
use super::record::RequestRecorder;
use super::route::Routes;
use super::rules::maintenance::RouteMaintenance;
use crate::http::forward::TrustedProxies;
use crate::http::path::PathRules;
use crate::origin::Origins;
use crate::plugin::PluginSet;
use crate::rate_limit::RateLimitSet;
use crate::telemetry::limit::LineLimiter;

/// One configuration at work.
pub struct Generation {
    pub(super) routes: Routes,
    pub plugins: Arc<PluginSet>,
    pub origins: Arc<Origins>,
    pub limits: RateLimitSet,
    pub(super) purge_method: PurgeMethod,
    /// The distinct rules by which the listeners read paths; at least one.
    pub(super) path_rules: Box<[PathRules]>,
    pub(super) recorder: RequestRecorder,
    /// What is accepted from a trusted proxy in front of the gateway. None: no proxy is trusted.
    pub(super) trust: Option<TrustedProxies>,
    /// Limits the warnings about refused paths.
    pub(super) refused_paths: LineLimiter,
    /// Ends tunnels a long time after another generation has taken the place of this one.
    overdue: CancellationToken,
}

impl Generation {
    /// Creates a generation for requests to listeners with these rules.
    pub fn new(
        (routes, limits): (Routes, RateLimitSet),
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
            limits,
            purge_method,
            path_rules: path_rules.into(),
            recorder,
            trust,
            refused_paths: LineLimiter::new(Instant::now()),
            overdue: CancellationToken::new(),
        })
    }

    /// Lets the plugins, upstreams and limits serve: new files of watched plugins are loaded, names
    /// followed, targets checked, and the store of shared limits is connected.
    pub fn begin_serving(&self) {
        self.plugins.begin_serving();
        self.origins.begin_work();
        self.limits.begin_serving();
        self.routes.begin_work();
    }

    /// Cancelled when tunnels that were begun on the generation must end, which may be after the
    /// generation has ended.
    pub fn overdue(&self) -> CancellationToken {
        self.overdue.clone()
    }

    /// The most things that one request may purge.
    pub fn max_selectors(&self) -> usize {
        self.purge_method.max_selectors()
    }

    /// The routes.
    pub fn routes(&self) -> &Routes {
        &self.routes
    }

    /// The maintenance of the route of this name.
    pub fn maintenance_of(&self, route: &str) -> Option<&RouteMaintenance> {
        self.routes.named(route).map(|route| &*route.maintenance)
    }

    /// The routes that answer with an error while this plugin can't be called.
    pub fn routes_that_fail_without(&self, plugin: &str) -> Vec<&str> {
        self.routes.that_fail_without(plugin)
    }
}
