//! Makes a route from its configuration: [`with_shares`].

use std::sync::Arc;
use std::time::Instant;

use http::HeaderName;

use super::{Route, RouteConditions, RouteDependencies, RouteError};
use crate::cache::key::{CacheKeyTemplate, hash64};
use crate::cache::policy::Policy;
use crate::http::body::UploadLimits;
use crate::origin::Origin;
use crate::plugin::config::{OnError, RequestError};
use crate::plugin::{Hook, Plugin};
use crate::proxy::config::{self, OnOffSwitch, RouteConfig, RoutePluginConfig, UnkeyedAction};
use crate::proxy::invalidate::InvalidateRule;
use crate::proxy::mirror::RequestMirror;
use crate::proxy::rules::RouteRules;
use crate::proxy::rules::cleaning::RequestCleaning;
use crate::proxy::rules::maintenance::{MaintenanceSwitch, RouteMaintenance};
use crate::proxy::split::UpstreamSplit;
use crate::proxy::split::config::UpstreamShareConfig;
use crate::proxy::unkeyed::{PluginInfluence, UnkeyedWatch};
use crate::telemetry::limit::LineLimiter;

/// The route, with one for each upstream that its requests are divided among.
///
/// # Errors
/// If it names an upstream or plugin that does not exist, or a plugin without the needed hook.
pub(super) fn with_shares(
    config: &RouteConfig,
    parts: &RouteDependencies<'_>,
) -> Result<Route, RouteError> {
    let before = parts.before.and_then(|before| before.named(&config.name));
    let switch = before.map(|before| Arc::clone(&before.maintenance.switch));
    let switch = switch.unwrap_or_default();
    let mut route = RouteAssembly::new(config, parts).route(&switch)?;
    let Some(split) = &config.split else {
        return Ok(route);
    };
    let of = |share: &UpstreamShareConfig| {
        let upstream = Some(share.upstream.clone());
        let config = RouteConfig {
            upstream,
            ..config.clone()
        };
        RouteAssembly::new(&config, parts)
            .route(&switch)
            .map(Arc::new)
    };
    let routes = split.to.iter().map(of).collect::<Result<Vec<_>, _>>()?;
    route.split = Some(UpstreamSplit::new(split, routes));
    Ok(route)
}

/// A route that is being made.
struct RouteAssembly<'a> {
    config: &'a RouteConfig,
    parts: &'a RouteDependencies<'a>,
    label: Arc<str>,
}

/// A plugin of the route, and what happens when a call of it fails.
type HookedPlugin = (Arc<Plugin>, OnError);

/// The plugins of the route, by their hooks.
struct RoutePlugins {
    key: Option<HookedPlugin>,
    loader: Option<HookedPlugin>,
    request: Option<(Arc<Plugin>, RequestError)>,
    response: Option<HookedPlugin>,
}

impl<'a> RouteAssembly<'a> {
    fn new(config: &'a RouteConfig, parts: &'a RouteDependencies<'a>) -> Self {
        Self {
            config,
            parts,
            label: config.name.as_str().into(),
        }
    }

    fn route(&self, switch: &Arc<MaintenanceSwitch>) -> Result<Route, RouteError> {
        let Self { config, parts, .. } = *self;
        let plugins = self.plugins()?;
        let maintenance = RouteMaintenance::new(&config.maintenance, Arc::clone(switch));
        let maintenance = Arc::new(maintenance);
        let rules = RouteRules::new(config, &self.label, &maintenance, parts)?;
        let key = self.key();
        let policy = &config.policy;
        let watches_anything = |watch: &UnkeyedWatch| watch.rule != UnkeyedAction::Allow;
        let watch = |plugin: &Option<HookedPlugin>, how| {
            let plugin = plugin.as_ref().map(|(plugin, _)| plugin.name())?;
            Some(self.unkeyed_watch(plugin, how))
        };
        Ok(Route {
            name: Arc::clone(&self.label),
            hash: hash64(config.name.as_bytes()),
            matches: RouteConditions::new(&config.matches),
            origin: self.origin()?,
            split: None,
            mirror: self.mirror()?,
            esi: config.esi.clone(),
            cached: config.cache == OnOffSwitch::On,
            reflects: config.trace == OnOffSwitch::On,
            path: config.path,
            upload: upload_limits(config.limits),
            timeouts: config.timeouts,
            policy: Policy::new(policy, parts.defaults, &key),
            key,
            origin_query: config.key.origin_query,
            unkeyed: watch(&plugins.loader, PluginInfluence::Sees),
            forwarded: watch(&plugins.key, PluginInfluence::LeavesOut).filter(watches_anything),
            looked: watch(&plugins.response, PluginInfluence::Sees).filter(watches_anything),
            changed: self.watch_of_changes(&plugins, rules.as_deref()),
            rules,
            maintenance,
            key_plugin: plugins.key.map(|(plugin, on_error)| (plugin, on_error.key)),
            loader: plugins
                .loader
                .map(|(plugin, on_error)| (plugin, on_error.loader)),
            request_plugin: plugins.request,
            response_plugin: plugins
                .response
                .map(|(plugin, on_error)| (plugin, on_error.response)),
            tags: config
                .tags
                .iter()
                .map(|tag| hash64(tag.as_bytes()))
                .collect(),
            invalidate: config.invalidate.iter().map(InvalidateRule::new).collect(),
            metrics: parts.metrics.route(&self.label),
            warnings: LineLimiter::new(Instant::now()),
        })
    }

    fn origin(&self) -> Result<Option<Arc<Origin>>, RouteError> {
        let upstream = self.config.upstream.as_ref();
        upstream.map(|name| self.upstream(name)).transpose()
    }

    fn upstream(&self, upstream: &str) -> Result<Arc<Origin>, RouteError> {
        let found = self.parts.origins.get(upstream);
        found.ok_or_else(|| RouteError::NoUpstream {
            route: self.config.name.clone(),
            upstream: upstream.to_owned(),
        })
    }

    fn mirror(&self) -> Result<Option<Arc<RequestMirror>>, RouteError> {
        let Some(mirror) = &self.config.mirror else {
            return Ok(None);
        };
        let counts = self.parts.metrics.mirror(&self.label);
        let to = self.upstream(&mirror.upstream)?;
        Ok(Some(RequestMirror::new(mirror, to, counts)))
    }

    fn key(&self) -> CacheKeyTemplate {
        let config = self.config;
        let cleaned: Vec<HeaderName> = RequestCleaning::keyed_fields(config)
            .chain(UpstreamSplit::keyed_field(config.split.as_ref()))
            .collect();
        CacheKeyTemplate::new(&config.key)
            .with_headers(self.parts.trusted_headers)
            .with_headers(&cleaned)
    }

    fn plugins(&self) -> Result<RoutePlugins, RouteError> {
        let config = self.config;
        let key = config.key.plugin.as_ref();
        let key = key.map(|plugin| self.plugin(plugin, Hook::Key));
        Ok(RoutePlugins {
            key: key.transpose()?,
            loader: self.loader()?,
            response: self.hooked(config.response.as_ref(), Hook::Response)?,
            request: self.request_plugin()?,
        })
    }

    fn plugin(&self, plugin: &str, hook: Hook) -> Result<HookedPlugin, RouteError> {
        let (route, parts) = (&self.config.name, self.parts);
        let found = parts.plugins.get(plugin);
        let found = found.ok_or_else(|| RouteError::NoPlugin {
            route: route.clone(),
            plugin: plugin.to_owned(),
        })?;
        found.require(hook).map_err(|source| RouteError::NoHook {
            route: route.clone(),
            source,
        })?;
        let on_error = parts.on_error.get(plugin).copied().unwrap_or_default();
        Ok((found, on_error))
    }

    fn hooked(
        &self,
        hooked: Option<&RoutePluginConfig>,
        hook: Hook,
    ) -> Result<Option<HookedPlugin>, RouteError> {
        let found = hooked.map(|hooked| self.plugin(&hooked.plugin, hook));
        found.transpose()
    }

    fn loader(&self) -> Result<Option<HookedPlugin>, RouteError> {
        let unkeyed = self.config.unkeyed;
        let needs_reads = matches!(unkeyed, UnkeyedAction::Vary | UnkeyedAction::RefuseStore);
        match self.hooked(self.config.loader.as_ref(), Hook::Load)? {
            Some((plugin, _)) if needs_reads && !plugin.declares_reads() => {
                Err(RouteError::Undeclared {
                    route: self.config.name.clone(),
                    unkeyed: unkeyed.as_str(),
                    plugin: plugin.name().to_owned(),
                })
            }
            loader => Ok(loader),
        }
    }

    fn request_plugin(&self) -> Result<Option<(Arc<Plugin>, RequestError)>, RouteError> {
        let hooked = self.hooked(self.config.request.as_ref(), Hook::Request)?;
        let Some((plugin, on_error)) = hooked else {
            return Ok(None);
        };
        match on_error.request {
            Some(on_error) => Ok(Some((plugin, on_error))),
            None => Err(RouteError::NoRequestError {
                route: self.config.name.clone(),
                plugin: plugin.name().to_owned(),
            }),
        }
    }

    fn unkeyed_watch(&self, name: &str, how: PluginInfluence) -> UnkeyedWatch {
        let count = self.parts.metrics.unkeyed(&self.label, name);
        UnkeyedWatch::new(self.config.unkeyed, how, name, count)
    }

    /// Watches what is set in a request before its key is derived: by the request plugin, or by the
    /// application that was asked about its sender.
    fn watch_of_changes(
        &self,
        plugins: &RoutePlugins,
        rules: Option<&RouteRules>,
    ) -> Option<UnkeyedWatch> {
        let set_by = match (&plugins.request, rules) {
            (Some((plugin, _)), _) => plugin.name(),
            (None, Some(rules)) if rules.tell_origin() => "(auth)",
            _ => return None,
        };
        Some(self.unkeyed_watch(set_by, PluginInfluence::Sets))
    }
}

/// The limits of a route in the form that the body uses.
fn upload_limits(limits: config::RequestLimits) -> UploadLimits {
    UploadLimits {
        bytes: limits.max_body_bytes.map(|bytes| bytes.0),
        pause: limits.body_timeout.map(|time| time.0),
        total: limits.upload_timeout.map(|time| time.0),
        rate: limits.min_rate.map(|bytes| bytes.0),
        grace: limits.min_rate_grace.map(|time| time.0),
    }
}
