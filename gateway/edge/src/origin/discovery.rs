//! Which targets an upstream has: those that are listed, those of its file, and those that names
//! lead to.
//!
//! Listed servers stay the same. A name is followed by [`names`](super::names): each of its addresses
//! is a target with a health of its own. A target whose address a name has left gets no new request;
//! what is under way there ends, and its idle connections are closed.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use http::Uri;
use http::uri::{Authority, Scheme};
use parking_lot::Mutex;

use self::named_targets::NamedTargets;
use super::SharedOriginState;
use super::address::TargetAddresses;
use super::config::{
    NamedLocation, ServiceLocation, TargetConfig, TargetLocation, TargetScheme, UpstreamConfig,
};
use super::control::TargetOrders;
use super::error::BuildError;
use super::metrics::{TargetLabel, UpstreamMetrics};
use super::names::{NameQuestion, NameRecords, NameStatus, OriginNames, ResolvedName};
use super::target::{OriginTarget, TargetDescription};
use super::targets_file::{FileChange, TargetsFile};
use super::tls_report::UpstreamTlsReport;

mod named_targets;

/// The targets of one upstream, as they are found.
pub(super) struct TargetDiscovery {
    maker: TargetMaker,
    listed: Vec<TargetSource>,
    file: Option<Mutex<FollowedFile>>,
}

/// The targets of an upstream at one moment, those with a smaller priority number first.
pub(super) type TargetList = Vec<Arc<OriginTarget>>;

/// Ends when the state of a name changes.
pub(super) type NameChange = BoxFuture<'static, ()>;

/// Makes the targets of one upstream.
struct TargetMaker {
    upstream: Arc<str>,
    config: UpstreamConfig,
    watch: Arc<UpstreamTlsReport>,
    metrics: UpstreamMetrics,
    names: Arc<OriginNames>,
    orders: Arc<TargetOrders>,
}

/// What one entry of a list of targets stands for.
#[derive(Clone)]
enum TargetSource {
    Server(Arc<OriginTarget>),
    Name(Arc<NamedTargets>),
}

/// The file of targets, and what its entries stand for.
struct FollowedFile {
    file: TargetsFile,
    sources: Vec<(TargetConfig, TargetSource)>,
}

impl TargetDiscovery {
    /// Reads the targets of the upstream, and the files of its TLS.
    pub(super) fn new(
        name: &str,
        config: &UpstreamConfig,
        watch: &Arc<UpstreamTlsReport>,
        metrics: UpstreamMetrics,
        shared: &SharedOriginState,
    ) -> Result<Self, BuildError> {
        let maker = TargetMaker {
            upstream: name.into(),
            config: config.clone(),
            watch: Arc::clone(watch),
            metrics,
            names: Arc::clone(&shared.names),
            orders: Arc::clone(&shared.orders),
        };
        if config.targets.is_empty() && config.targets_file.is_none() {
            return Err(BuildError::NoTargets {
                upstream: name.to_owned(),
            });
        }
        let listed = config.targets.iter().map(|target| maker.source(target));
        let listed = listed.collect::<Result<_, _>>()?;
        let file = config.targets_file.as_deref();
        let file = file.map(|path| maker.file(path, shared)).transpose()?;
        Ok(Self {
            maker,
            listed,
            file: file.map(Mutex::new),
        })
    }

    /// The targets as they are now. Those that were there `before` stay the same.
    pub(super) fn targets(&self, before: &[Arc<OriginTarget>]) -> TargetList {
        let mut targets = TargetList::new();
        for source in self.sources() {
            match source {
                TargetSource::Server(target) => targets.push(target),
                TargetSource::Name(named) => self.maker.expand(&named, before, &mut targets),
            }
        }
        targets.sort_by_key(|target| target.priority());
        targets
    }

    fn sources(&self) -> Vec<TargetSource> {
        let mut sources = self.listed.clone();
        if let Some(file) = &self.file {
            let file = file.lock();
            sources.extend(file.sources.iter().map(|(_, source)| source.clone()));
        }
        sources
    }

    /// The names that lead to targets, or to the addresses of one.
    fn names(&self) -> Vec<Arc<ResolvedName>> {
        let sources = self.sources().into_iter();
        let names = sources.filter_map(|source| match source {
            TargetSource::Server(target) => target.addresses.name().cloned(),
            TargetSource::Name(named) => Some(Arc::clone(&named.name)),
        });
        names.collect()
    }

    /// The names as operators see them.
    pub(super) fn name_statuses(&self, now: Instant) -> Vec<NameStatus> {
        let names = self.names();
        names.iter().map(|name| name.status(now)).collect()
    }

    /// Asks for all names, and waits for the first answers for `limit` at most.
    pub(super) async fn ask_for_names(&self, limit: Duration) -> Vec<NameStatus> {
        let names = self.names();
        for name in &names {
            name.follow();
        }
        // What came of it is in the status.
        let settled = names.iter().map(|name| name.addresses(limit));
        futures_util::future::join_all(settled).await;
        self.name_statuses(Instant::now())
    }

    /// Why the file of targets can't be used as it is now.
    pub(super) fn file_problem(&self) -> Option<String> {
        self.file.as_ref()?.lock().file.problem()
    }

    /// Whether there is a file of targets that can't be used as it is now.
    pub(super) fn file_failing(&self) -> Option<bool> {
        self.file.as_ref()?;
        Some(self.file_problem().is_some())
    }

    /// Why there may be no target: what the name servers say.
    pub(super) fn why_none(&self) -> String {
        let mut states = self.names().into_iter().map(|name| name.state());
        let failure = states.find_map(|state| state.failure);
        let unknown = || "no address of a target is known yet".to_owned();
        failure.map_or_else(unknown, |failure| failure.reason)
    }

    /// Whether all names have had an answer or a failure.
    pub(super) fn is_settled(&self) -> bool {
        let names = self.names();
        names.iter().all(|name| name.state().is_settled())
    }

    /// Begins to ask for all names, and tells of each that changes from now on.
    pub(super) fn begin_following(&self) -> FuturesUnordered<NameChange> {
        let changes = self.names().into_iter().map(|name| {
            name.follow();
            let mut state = name.changes();
            let change = async move {
                // The name is in use as long as its target is.
                let _ = state.changed().await;
            };
            change.boxed()
        });
        changes.collect()
    }

    /// Looks at the file of targets, and at addresses that name servers do not confirm any more.
    /// Returns whether the targets have changed.
    pub(super) fn look(&self, targets: &[Arc<OriginTarget>], now: Instant) -> bool {
        let read = self.read_file();
        let hold = self.maker.config.resolver.hold.0;
        let mut dropped = false;
        for source in self.sources() {
            if let TargetSource::Name(named) = source {
                dropped |= named.drop_silent(targets, hold, now);
            }
        }
        read || dropped
    }

    fn read_file(&self) -> bool {
        let Some(file) = &self.file else {
            return false;
        };
        let mut file = file.lock();
        let listed = match file.file.look() {
            FileChange::Nothing => return false,
            FileChange::Targets(listed) => listed,
        };
        let upstream = &*self.maker.upstream;
        match self.maker.sources(&listed, &file.sources) {
            Ok(sources) => {
                tracing::info!(
                    upstream,
                    targets = listed.len(),
                    "the file of targets was read again"
                );
                file.sources = sources;
                true
            }
            Err(error) => {
                tracing::warn!(upstream, %error, "the file of targets can't be used; the targets stay as they are");
                file.file.refuse(error.to_string());
                false
            }
        }
    }
}

impl TargetMaker {
    fn file(&self, path: &Path, shared: &SharedOriginState) -> Result<FollowedFile, BuildError> {
        let path = PathBuf::from(path);
        let (file, listed) =
            TargetsFile::open(path, shared.read_targets.clone()).map_err(|message| {
                BuildError::TargetsFile {
                    upstream: self.upstream.to_string(),
                    message,
                }
            })?;
        let sources = self.sources(&listed, &[])?;
        Ok(FollowedFile { file, sources })
    }

    /// What the entries of the file stand for. Those that were there `before` stay the same, also
    /// with another weight or priority.
    fn sources(
        &self,
        listed: &[TargetConfig],
        before: &[(TargetConfig, TargetSource)],
    ) -> Result<Vec<(TargetConfig, TargetSource)>, BuildError> {
        let mut left: Vec<_> = before.iter().collect();
        let sources = listed.iter().map(|config| {
            let the_same = left.iter().position(|(known, _)| known == config);
            let ranked = || {
                left.iter()
                    .position(|(known, _)| known.is_server_of(config))
            };
            if let Some(nth) = the_same.or_else(ranked) {
                let (_, source) = left.swap_remove(nth);
                return Ok((config.clone(), source.clone()));
            }
            let source = self.source(config)?;
            if let TargetSource::Server(target) = &source
                && !before.is_empty()
            {
                target.health.came_back(Instant::now());
            }
            Ok((config.clone(), source))
        });
        let sources: Vec<(TargetConfig, TargetSource)> = sources.collect::<Result<_, _>>()?;
        // Only now, since a file that can't be used changes nothing.
        for (config, source) in &sources {
            if let TargetSource::Server(target) = source {
                target.rank(f64::from(config.weight.get()), config.priority.into());
            }
        }
        Ok(sources)
    }

    fn source(&self, config: &TargetConfig) -> Result<TargetSource, BuildError> {
        let question = |name: &str, records| NameQuestion {
            name: name.to_owned(),
            records,
            rules: self.config.resolver.clone(),
        };
        let named = |scheme, port, question| {
            TargetSource::Name(Arc::new(NamedTargets {
                config: config.clone(),
                scheme,
                port,
                name: self.names.get(question),
                has_led: AtomicBool::new(false),
                dropped: Mutex::default(),
            }))
        };
        Ok(match &config.location {
            TargetLocation::Url(url) => TargetSource::Server(self.server(config, url)?),
            TargetLocation::Dns(NamedLocation { name, scheme, port }) => {
                let port = port.unwrap_or(scheme.usual_port());
                named(*scheme, Some(port), question(name, NameRecords::Addresses))
            }
            TargetLocation::Srv(ServiceLocation { name, scheme }) => {
                named(*scheme, None, question(name, NameRecords::Services))
            }
        })
    }

    /// The server that a URL names.
    fn server(&self, config: &TargetConfig, url: &str) -> Result<Arc<OriginTarget>, BuildError> {
        let bad = || BuildError::Target {
            upstream: self.upstream.to_string(),
            target: url.to_owned(),
        };
        let (scheme, authority, addresses) = match url.strip_prefix("unix:") {
            Some(path) => {
                let authority = Authority::from_static("localhost");
                let path: Arc<Path> = Path::new(path).into();
                (TargetScheme::Http, authority, TargetAddresses::Socket(path))
            }
            None => {
                let (scheme, authority) = parse_url(url).ok_or_else(bad)?;
                let addresses = self.addresses(scheme, &authority);
                (scheme, authority, addresses)
            }
        };
        let usual_name = match &addresses {
            TargetAddresses::Socket(_) => url,
            _ => authority.as_str(),
        };
        let name = config.name.as_deref().unwrap_or(usual_name).into();
        let label = TargetLabel::configured(&name);
        self.target(
            TargetDescription {
                name,
                scheme,
                authority,
                addresses,
                weight: f64::from(config.weight.get()),
                priority: config.priority.into(),
            },
            label,
        )
    }

    fn addresses(&self, scheme: TargetScheme, authority: &Authority) -> TargetAddresses {
        let port = authority.port_u16().unwrap_or(scheme.usual_port());
        let host = authority.host().trim_matches(['[', ']']);
        match host.parse::<IpAddr>() {
            Ok(ip) => TargetAddresses::Fixed(SocketAddr::new(ip, port)),
            Err(_) => {
                let question = NameQuestion {
                    name: host.to_owned(),
                    records: NameRecords::Addresses,
                    rules: self.config.resolver.clone(),
                };
                TargetAddresses::named(self.names.get(question), port)
            }
        }
    }

    fn target(
        &self,
        described: TargetDescription,
        label: TargetLabel,
    ) -> Result<Arc<OriginTarget>, BuildError> {
        let upstream = (&*self.upstream, &self.config);
        let target = OriginTarget::new(described, label, upstream, &self.watch)?;
        if let Some(order) = self.orders.get(&self.upstream, &target.name) {
            target.control.follow(order);
        }
        Ok(Arc::new(target))
    }

    /// Adds the targets that a name leads to now.
    fn expand(&self, named: &NamedTargets, before: &[Arc<OriginTarget>], targets: &mut TargetList) {
        let Some(answer) = named.name.state().answer else {
            return;
        };
        let was_known = named.has_led.swap(true, Relaxed);
        let dropped = named.dropped.lock().clone();
        for endpoint in &answer.endpoints {
            if dropped.contains(endpoint) {
                continue;
            }
            let Some(described) = named.describe(endpoint) else {
                continue;
            };
            // Of two records that differ in weight or priority alone, each is a target.
            let is_taken = |target| targets.iter().any(|one| Arc::ptr_eq(one, target));
            let known = before
                .iter()
                .find(|target| target.matches(&described) && !is_taken(target));
            if let Some(known) = known {
                known.rank(described.weight, described.priority);
                targets.push(Arc::clone(known));
                continue;
            }
            let label = self.metrics.discovered(&described.name);
            match self.target(described, label) {
                Ok(target) => {
                    if was_known {
                        target.health.came_back(Instant::now());
                    }
                    targets.push(target);
                }
                Err(error) => {
                    let upstream = &*self.upstream;
                    tracing::error!(upstream, %error, "an address that a name leads to can't be used");
                }
            }
        }
    }
}

impl OriginTarget {
    /// Closes connections to addresses that the target's name has left.
    pub(super) fn follow_its_name(&self) {
        let name = self.addresses.name();
        if let Some(answer) = name.and_then(|name| name.state().answer) {
            let addresses = answer.endpoints.iter().map(|endpoint| endpoint.address);
            self.connections.keep_only(addresses.collect());
        }
    }
}

/// Scheme and authority of a URL that has nothing else.
fn parse_url(url: &str) -> Option<(TargetScheme, Authority)> {
    let uri: Uri = url.parse().ok()?;
    let is_bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
    let scheme = match uri.scheme() {
        Some(scheme) if *scheme == Scheme::HTTPS => TargetScheme::Https,
        Some(scheme) if *scheme == Scheme::HTTP => TargetScheme::Http,
        _ => return None,
    };
    let authority = uri.authority()?;
    let is_usable = is_bare && !authority.as_str().contains('@');
    is_usable.then(|| (scheme, authority.clone()))
}
