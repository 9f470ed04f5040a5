//! The process state: it outlives configurations, and makes a generation from each one.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use futures_util::FutureExt;
use http::HeaderName;
use parking_lot::Mutex;

use super::GatewayStartError;
use super::warming::WarmKeeper;
use crate::cache::Cache;
use crate::cache::l2::store::Store;
use crate::cache::record::Seal;
use crate::config::{self, GatewayConfig};
use crate::http::body::{self, Body, BodyError};
use crate::http::config::ListenerConfig;
use crate::http::forward::{self, TrustedProxies};
use crate::http::server::QuicMetrics;
use crate::http::tls::listeners::TlsListeners;
use crate::origin::config::{TargetConfig, UpstreamConfig};
use crate::origin::{Origin, Origins, SharedOriginState, TargetsFileReader};
use crate::plugin::{
    Compiler, FetchCall, FetchError, PluginHost, PluginHostOptions, PluginSet, UpstreamFetcher,
};
use crate::proxy::metrics::RequestFamilies;
use crate::proxy::protocol::ProtocolCounts;
use crate::proxy::record::RequestRecorder;
use crate::proxy::record::recent::RecentRequestLog;
use crate::proxy::route::{RouteDependencies, Routes};
use crate::proxy::rules::auth::AuthMemory;
use crate::proxy::rules::auth::config::KeyLocation;
use crate::proxy::rules::compress::CompressDependencies;
use crate::proxy::{Generation, Proxy, PurgeMethod};
use crate::rate_limit::{LimitRedisSettings, RateLimitSet, RateLimiter};
use crate::telemetry::metrics::{self, Registry};

/// The cache, the metric families and the last requests: created once, whatever configurations
/// follow.
pub struct ProcessState {
    pub cache: Arc<Cache>,
    pub registry: Registry,
    pub recent: Arc<RecentRequestLog>,
    pub tls: Arc<TlsListeners>,
    pub quic: Arc<QuicMetrics>,
    pub limiter: Arc<RateLimiter>,
    pub origins: SharedOriginState,
    pub warm: Arc<WarmKeeper>,
    requests: RequestFamilies,
    auth: AuthMemory,
    protocols: ProtocolCounts,
    plugins: PluginHost,
    /// The upstreams of the generations that serve, the newest last.
    serving: ServingOrigins,
}

/// The upstreams of generations that are still there, the newest last.
type ServingOrigins = Arc<Mutex<Vec<Weak<Origins>>>>;

impl ProcessState {
    /// Creates an empty cache, on this store if there is a second tier.
    ///
    /// # Errors
    /// Never in practice: the registry is new.
    pub fn new(config: &GatewayConfig, store: Option<Arc<dyn Store>>) -> prometheus::Result<Self> {
        let registry = metrics::registry()?;
        let mut cache = Cache::new(&config.cache, &registry)?;
        if let Some(store) = store {
            cache
                .attach(store, &config.cache, seal(config), &registry)?
                .run();
        }
        let cache = Arc::new(cache);
        Ok(Self {
            warm: Arc::new(WarmKeeper::new(&cache, seal(config), &registry)?),
            cache,
            recent: Arc::new(RecentRequestLog::new(&config.telemetry.recent_requests)),
            requests: RequestFamilies::new(&registry, config.telemetry.max_series)?,
            auth: AuthMemory::default(),
            plugins: PluginHost::new(&registry, config.plugins.max_total_memory)?,
            serving: Arc::default(),
            tls: TlsListeners::register(&registry)?,
            protocols: ProtocolCounts::register(&registry)?,
            quic: QuicMetrics::register(&registry)?,
            limiter: RateLimiter::register(&registry, limit_redis(config))?,
            origins: SharedOriginState::register(&registry, target_states(), target_file_reader())?,
            registry,
        })
    }

    /// Creates a proxy that serves this configuration from the cache.
    ///
    /// # Errors
    /// As [`generation`](Self::generation).
    pub async fn proxy(&self, config: &GatewayConfig) -> Result<Arc<Proxy>, GatewayStartError> {
        let generation = self.generation(config, None).await?;
        self.begin_serving(&generation);
        let (cache, tls) = (Arc::clone(&self.cache), Arc::clone(&self.tls));
        let protocols = self.protocols.clone();
        Ok(Arc::new(Proxy::new(cache, tls, protocols, generation)))
    }

    /// Lets a generation serve: its plugins and upstreams do their work from now on.
    pub fn begin_serving(&self, generation: &Generation) {
        generation.begin_serving();
        let mut serving = self.serving.lock();
        serving.retain(|origins| origins.strong_count() > 0);
        serving.push(Arc::downgrade(&generation.origins));
    }

    /// Follows the settings of this configuration that are not of a generation.
    pub fn follow(&self, config: &GatewayConfig) {
        self.cache.follow(&config.cache);
        self.warm.follow(config.cache.warm.as_ref());
        let total = config.plugins.max_total_memory;
        self.plugins.limit_total_memory(total);
    }

    /// Makes a generation from this configuration, beside any existing ones. It shares with the one
    /// `before` what has the same settings. In `config`, the paths of plugin files are already
    /// resolved.
    ///
    /// # Errors
    /// If an upstream, a plugin, a route or a token can't be used; then nothing remains of the
    /// generation.
    pub async fn generation(
        &self,
        config: &GatewayConfig,
        before: Option<&Generation>,
    ) -> Result<Arc<Generation>, GatewayStartError> {
        let standing = before.map(|before| &*before.origins);
        let upstreams = with_key_servers(config);
        let origins = Origins::new(&upstreams, &self.origins, standing)?;
        let origins = Arc::new(origins);
        let limits = before.map(|before| &before.limits);
        let limits = RateLimitSet::new(&config.limits, &self.limiter, limits);
        let options = PluginHostOptions {
            base: PathBuf::new(),
            cache_dir: code_cache(),
            compiler: Compiler::of_this_program(config.plugins.compile.clone()),
            fetch: fetch(Arc::clone(&self.serving)),
            upstreams: targets(config),
            host: &self.plugins,
            before: before.map(|before| &*before.plugins),
        };
        let plugins = Arc::new(PluginSet::load(&config.plugins.by_name, options).await?);
        let by_name = config.plugins.by_name.iter();
        let on_error = by_name.map(|(name, plugin)| (name.clone(), plugin.on_error));
        let trust = trust(&config.listeners);
        let needs = RouteDependencies {
            defaults: &config.defaults.policy,
            origins: &origins,
            plugins: &plugins,
            on_error: &on_error.collect(),
            trusted_headers: trust.as_ref().map_or(&[], TrustedProxies::headers),
            metrics: &self.requests,
            compress: CompressDependencies {
                defaults: config.defaults.compress.as_ref(),
                encoder: self.cache.encoder(),
                most: config.cache.l1.max_object_bytes.as_usize(),
            },
            limits: &limits,
            cache: &self.cache,
            auth: &self.auth,
            before: before.map(Generation::routes),
        };
        let routes = Routes::new(&config.routes, &needs)?;
        let ports = config.listeners.iter().map(|l| l.address.port());
        let named = tag_fields(config);
        let purge_method = PurgeMethod::new(&config.purge_method, ports, named, &self.requests)?;
        let path_rules = config.listeners.iter().map(|listener| listener.path);
        let recorder = RequestRecorder::new(config.telemetry.access_log, Arc::clone(&self.recent));
        Ok(Generation::new(
            (routes, limits),
            plugins,
            origins,
            purge_method,
            path_rules,
            recorder,
            trust,
        ))
    }
}

/// The fields in which responses name tags by the configuration of any route.
fn tag_fields(config: &GatewayConfig) -> Vec<HeaderName> {
    let of_routes = config.routes.iter().map(|route| &route.policy);
    let policies = std::iter::once(&config.defaults.policy).chain(of_routes);
    let fields = policies.flat_map(|policy| policy.tags_from.iter().flatten());
    // The check of the configuration has read these names.
    let names = fields.filter_map(|field| field.header.to_ascii_lowercase().parse().ok());
    names.collect()
}

/// The Redis that shared limits are in. None: there is none. Settings that describe no Redis are
/// refused where the second tier is opened.
fn limit_redis(config: &GatewayConfig) -> Option<LimitRedisSettings> {
    let namespace = config.bus.as_ref().and_then(|bus| bus.namespace.as_deref());
    let shared = config.cache.l2.shared_redis(namespace)?;
    LimitRedisSettings::new(&shared.settings, shared.prefix).ok()
}

/// The upstreams of a configuration, and one for each server that has keys of tokens. Its name is the
/// URL, which no other upstream can have.
fn with_key_servers(config: &GatewayConfig) -> Cow<'_, BTreeMap<String, UpstreamConfig>> {
    let mut upstreams = Cow::Borrowed(&config.upstreams);
    let auths = config.routes.iter().filter_map(|route| route.auth.as_ref());
    for jwt in auths.filter_map(|auth| auth.jwt.as_ref()) {
        if let KeyLocation::Server { server, .. } = jwt.location() {
            let upstream = UpstreamConfig::from_url(server);
            upstreams.to_mut().insert(server.to_owned(), upstream);
        }
    }
    upstreams
}

/// The seal that binds records to their keys, in the second tier and on the way to peers.
pub(super) fn seal(config: &GatewayConfig) -> Seal {
    let secret = config.cache.l2.seal_key.as_ref();
    secret.map_or_else(Seal::public, |secret| Seal::new(secret.as_bytes()))
}

/// Lets plugins call origins, by the names that the configuration grants and the plugin host
/// checks.
fn fetch(serving: ServingOrigins) -> UpstreamFetcher {
    Arc::new(move |call: FetchCall| {
        let serving = Arc::clone(&serving);
        async move {
            let FetchCall {
                upstream,
                request,
                max_body,
                deadline,
            } = call;
            let origin = newest(&serving, &upstream).ok_or(FetchError::Unavailable(format!(
                "there is no upstream {upstream}"
            )))?;
            let exchange = async {
                let response = origin
                    .send(request.map(Body::full))
                    .await
                    .map_err(|error| FetchError::Unavailable(error.to_string()))?;
                let (parts, body) = response.into_parts();
                let body = body::collect(body, max_body).await.map_err(unreadable)?;
                Ok(http::Response::from_parts(parts, body))
            };
            tokio::time::timeout_at(deadline.into(), exchange)
                .await
                .unwrap_or(Err(FetchError::Timeout))
        }
        .boxed()
    })
}

/// The upstream of this name, as the newest generation has it: a plugin outlives configurations.
fn newest(serving: &ServingOrigins, upstream: &str) -> Option<Arc<Origin>> {
    let serving = serving.lock();
    let mut newest_first = serving.iter().rev().filter_map(Weak::upgrade);
    newest_first.find_map(|origins| origins.get(upstream))
}

fn unreadable(error: BodyError) -> FetchError {
    match error {
        BodyError::TooLarge { .. } => FetchError::TooLarge,
        BodyError::Timeout => FetchError::Timeout,
        BodyError::Aborted | BodyError::Transport(_) => FetchError::Unavailable(error.to_string()),
    }
}

/// Collects what the listeners accept from trusted proxies. None if no listener trusts one. These
/// fields can change an answer, so every key holds them.
fn trust(listeners: &[ListenerConfig]) -> Option<TrustedProxies> {
    let trusting = |listener: &&ListenerConfig| !listener.trusted_proxies.is_empty();
    let mut listeners = listeners.iter().filter(trusting).peekable();
    listeners.peek()?;
    let listed = listeners.flat_map(|listener| &listener.trusted_headers);
    let mut names: Vec<_> = listed
        .filter_map(|name| forward::trusted_header(name).ok())
        .collect();
    names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
    names.dedup();
    Some(TrustedProxies::listing(names))
}

/// The addresses of each upstream's servers.
fn targets(config: &GatewayConfig) -> BTreeMap<String, Vec<String>> {
    let upstreams = config.upstreams.iter();
    let targets = upstreams.map(|(name, upstream)| {
        let urls = upstream.targets.iter().map(TargetConfig::url);
        (name.clone(), urls.collect())
    });
    targets.collect()
}

/// Reads files of targets as the configuration is read.
pub fn target_file_reader() -> TargetsFileReader {
    TargetsFileReader::new(|file| {
        let loaded = config::load_targets(file).map_err(|problems| problems.to_string())?;
        if let Some(warning) = loaded.warning {
            tracing::warn!(%warning, "a file of targets is doubtful");
        }
        Ok(loaded.targets)
    })
}

/// The folder, owned by the user, where compiled plugins are kept between starts.
pub fn code_cache() -> Option<PathBuf> {
    cache_folder("code")
}

/// The file, owned by the user, with the states of targets that outlive the process.
fn target_states() -> Option<PathBuf> {
    cache_folder("").map(|folder| folder.join("targets.json"))
}

/// The folder for what outlives the process. Only that of `LAMINA_CACHE_DIR` has parts.
fn cache_folder(part: &str) -> Option<PathBuf> {
    let home =
        |name: &str, below: &str| std::env::var_os(name).map(|dir| PathBuf::from(dir).join(below));
    home("LAMINA_CACHE_DIR", part)
        .or_else(|| home("XDG_CACHE_HOME", "lamina"))
        .or_else(|| home("HOME", ".cache/lamina"))
}

#[cfg(test)]
mod tests;
