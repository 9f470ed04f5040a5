//! Compiled routes: which one takes a request, and what it does with it.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::HeaderName;
use http::request::Parts;

use crate::cache::Cache;
use crate::cache::config::{CachePolicyConfig as PolicyConfig, OriginQuery};
use crate::cache::key::{CacheKeyTemplate, PurgeHash};
use crate::cache::policy::Policy;
use crate::http::body::UploadLimits;
use crate::http::path::PathRuleOverrides;
use crate::origin::{Origin, Origins};
use crate::plugin::config::{KeyError, LoaderError, OnError, RequestError, ResponseError};
use crate::plugin::{LoadError, Plugin, PluginSet};
use crate::proxy::config;
use crate::proxy::esi::config::EsiConfig;
use crate::proxy::invalidate::InvalidateRule;
use crate::proxy::metrics::{RequestFamilies, RouteMetrics};
use crate::proxy::mirror::RequestMirror;
use crate::proxy::record::{RecordedRoute, RouteInfluence};
use crate::proxy::rules::RouteRules;
use crate::proxy::rules::auth::AuthMemory;
use crate::proxy::rules::compress::CompressDependencies;
use crate::proxy::rules::maintenance::RouteMaintenance;
use crate::proxy::split::UpstreamSplit;
use crate::proxy::unkeyed::UnkeyedWatch;
use crate::rate_limit::RateLimitSet;
use crate::telemetry::limit::LineLimiter;

mod assembly;
mod index;
pub mod matching;

use index::RouteIndex;
use matching::RouteConditions;

/// One route.
pub struct Route {
    pub name: Arc<str>,
    pub hash: PurgeHash,
    matches: RouteConditions,
    pub origin: Option<Arc<Origin>>,
    /// Some: each request goes on as one of the routes that this chooses from.
    pub split: Option<UpstreamSplit>,
    pub mirror: Option<Arc<RequestMirror>>,
    /// Some: pages are put together from fragments.
    pub esi: Option<EsiConfig>,
    pub maintenance: Arc<RouteMaintenance>,
    /// None: the route has no rules beside those of the cache.
    pub rules: Option<Arc<RouteRules>>,
    pub cached: bool,
    /// Whether TRACE is answered and passed on. Its answer repeats the request.
    pub reflects: bool,
    /// How paths are read, overriding the listener's rules.
    pub path: PathRuleOverrides,
    /// The limits for request bodies, overriding those of the listener.
    pub upload: UploadLimits,
    pub timeouts: config::RouteTimeouts,
    pub policy: Policy,
    pub key: CacheKeyTemplate,
    pub key_plugin: Option<(Arc<Plugin>, KeyError)>,
    /// Which part of the query the origin gets, for requests that are looked up.
    pub origin_query: OriginQuery,
    pub loader: Option<(Arc<Plugin>, LoaderError)>,
    /// Watches what the loader sees.
    pub unkeyed: Option<UnkeyedWatch>,
    /// Watches what the origin gets although the key plugin leaves it out of the key.
    pub forwarded: Option<UnkeyedWatch>,
    /// Watches what the response plugin sees.
    pub looked: Option<UnkeyedWatch>,
    /// Watches what the request plugin sets.
    pub changed: Option<UnkeyedWatch>,
    pub request_plugin: Option<(Arc<Plugin>, RequestError)>,
    pub response_plugin: Option<(Arc<Plugin>, ResponseError)>,
    pub tags: Box<[PurgeHash]>,
    pub invalidate: Box<[InvalidateRule]>,
    pub metrics: RouteMetrics,
    /// Limits the warnings about failed requests. The access log and the metrics include all of
    /// them.
    pub warnings: LineLimiter,
}

/// All routes, in the order of the file.
pub struct Routes {
    in_order: Box<[Arc<Route>]>,
    /// None if there are so few routes that they are tried one after the other.
    index: Option<RouteIndex>,
    assemble_pages: bool,
}

/// Something that a route needs and that does not exist. The checks of the configuration should
/// have reported it before.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    #[error("route {route}: there is no upstream {upstream:?}")]
    NoUpstream { route: String, upstream: String },
    #[error("route {route}: there is no plugin {plugin:?}")]
    NoPlugin { route: String, plugin: String },
    #[error(
        "route {route}: plugin {plugin:?} looks at requests, and may protect something; set what \
         happens when a call fails: `on_error: {{request: refuse}}` or `continue`"
    )]
    NoRequestError { route: String, plugin: String },
    #[error("route {route}")]
    NoHook { route: String, source: LoadError },
    #[error(
        "route {route}: `unkeyed: {unkeyed}` can have no effect with plugin {plugin:?}, a \
         `wasi:http` component: it may read every field of a request and does not declare which; \
         expected `warn` or `allow`, and in `key` the fields that its answer depends on"
    )]
    Undeclared {
        route: String,
        unkeyed: &'static str,
        plugin: String,
    },
}

/// What routes are built from.
pub struct RouteDependencies<'a> {
    pub defaults: &'a PolicyConfig,
    pub origins: &'a Origins,
    pub plugins: &'a PluginSet,
    pub on_error: &'a BTreeMap<String, OnError>,
    /// Fields that a listener trusts. Every key holds them.
    pub trusted_headers: &'a [HeaderName],
    pub metrics: &'a RequestFamilies,
    pub compress: CompressDependencies<'a>,
    pub limits: &'a RateLimitSet,
    pub cache: &'a Arc<Cache>,
    pub auth: &'a AuthMemory,
    /// The routes of the configuration before, whose switches stay.
    pub before: Option<&'a Routes>,
}

impl Routes {
    /// Whether a route names this host, and not just takes every host.
    pub fn name_host(&self, host: &str) -> bool {
        self.in_order
            .iter()
            .any(|route| route.matches.names_host(host))
    }

    /// The route of this name.
    pub fn named(&self, name: &str) -> Option<&Arc<Route>> {
        self.in_order.iter().find(|route| &*route.name == name)
    }

    /// Compiles the routes.
    ///
    /// # Errors
    /// If a route names an upstream or plugin that does not exist, or a plugin without the needed
    /// hook.
    pub fn new(
        routes: &[config::RouteConfig],
        parts: &RouteDependencies<'_>,
    ) -> Result<Self, RouteError> {
        let in_order = routes
            .iter()
            .map(|route| assembly::with_shares(route, parts).map(Arc::new))
            .collect::<Result<Box<[_]>, _>>()?;
        let index = RouteIndex::of(in_order.iter().map(|route| &route.matches));
        let assemble_pages = in_order.iter().any(|route| route.esi.is_some());
        Ok(Self {
            in_order,
            index,
            assemble_pages,
        })
    }

    /// Whether a route puts pages together from fragments.
    pub fn assemble_pages(&self) -> bool {
        self.assemble_pages
    }

    /// The first route that takes a request to `host`.
    pub fn find(&self, host: &str, parts: &Parts) -> Option<&Arc<Route>> {
        self.find_at(host, parts, parts.uri.path())
    }

    /// The first route that would take a request to `host` if it had this path.
    pub fn find_at(&self, host: &str, parts: &Parts, path: &str) -> Option<&Arc<Route>> {
        let takes = |route: &Route| route.matches.takes(host, parts, path);
        match &self.index {
            None => self.in_order.iter().find(|route| takes(route)),
            Some(index) => {
                let first = index.first(host, path, |at| takes(&self.in_order[at]))?;
                self.in_order.get(first)
            }
        }
    }

    /// Begins what is done for rules from time to time.
    pub fn begin_work(&self) {
        let rules = self
            .in_order
            .iter()
            .filter_map(|route| route.rules.as_ref());
        rules.for_each(|rules| rules.begin_work());
    }

    /// The names of the routes that answer with an error while this plugin can't be called.
    pub fn that_fail_without(&self, plugin: &str) -> Vec<&str> {
        let failing = self
            .in_order
            .iter()
            .filter(|route| route.fails_without(plugin));
        failing.map(|route| &*route.name).collect()
    }
}

impl Route {
    /// Whether a plugin takes part in deciding about a request before it is looked up.
    pub fn has_plugins(&self) -> bool {
        self.request_plugin.is_some() || self.key_plugin.is_some()
    }

    /// What records say of it.
    pub fn recorded(&self) -> RecordedRoute<'_> {
        RecordedRoute {
            name: &self.name,
            influence: match self.request_plugin.is_some() || self.rules.is_some() {
                true => RouteInfluence::MayChangeRequests,
                false => RouteInfluence::LeavesRequestsAlone,
            },
        }
    }

    /// Makes the same in the head of a request, by the rules of the route, what makes no difference.
    pub fn clean(&self, parts: &mut Parts) {
        if let Some(rules) = &self.rules {
            rules.clean(parts, false);
        }
    }

    /// The header fields that its `match` checks.
    pub fn matched_fields(&self) -> impl Iterator<Item = &HeaderName> {
        self.matches.headers.iter().map(|(name, _)| name)
    }

    fn fails_without(&self, plugin: &str) -> bool {
        let guards = |(guard, on_error): &(Arc<Plugin>, RequestError)| {
            guard.name() == plugin && *on_error == RequestError::Refuse
        };
        let keys = |(key, on_error): &(Arc<Plugin>, KeyError)| {
            key.name() == plugin && *on_error == KeyError::Refuse
        };
        let loads = |(loader, on_error): &(Arc<Plugin>, LoaderError)| {
            loader.name() == plugin && *on_error != LoaderError::Origin
        };
        self.request_plugin.as_ref().is_some_and(guards)
            || self.key_plugin.as_ref().is_some_and(keys)
            || self.loader.as_ref().is_some_and(loads)
    }
}
