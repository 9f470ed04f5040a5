//! Takes up another configuration while the gateway runs, as a whole or not at all.
//!
//! The order: read and check, refuse what can't change (`fixed`), make the generation, open the
//! listeners that are new; nothing of that can be seen from outside. Then the generation is swapped,
//! and the listeners that are gone are closed. `changes` and `certificate_changes` say what is
//! different, `forecast` what that means for stored entries, `watch` when files have changed, `repair`
//! when files that were refused say again what runs, `outcome` and `metrics` what came of it.

mod certificate_changes;
pub mod changes;
mod fixed;
pub mod forecast;
pub mod key_forecast;
pub mod lifetime_forecast;
mod metrics;
pub mod outcome;
mod repair;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::time::{interval, sleep};

use super::GatewayStartError;
use super::ports::RunningPorts;
use super::process::ProcessState;
use super::process_settings::ProcessSettings;
use crate::acme::AcmeManager;
use crate::admin::AdminGate;
use crate::admin::audit::AdminActionSource;
use crate::config::{ConfigProblem, ConfigProblems, ConfigWatch, GatewayConfig};
use crate::http::endpoint::Endpoint;
use crate::http::memory;
use crate::http::server::PreparedListeners;
use crate::local_authority;
use crate::proxy::{Generation, Proxy};
use crate::shared_tickets::SharedTicketKeeper;
use crate::telemetry::logs::LevelSetter;
use certificate_changes::CertificateChanges;
use changes::ConfigChanges;
use forecast::{ClientSchemes, EntryForecast};
use key_forecast::KeyForecasts;
use metrics::ReloadMetrics;
use outcome::{
    MOST_REPLACED, NotLiveConfig, ReloadAct, ReloadEffects, ReloadError, ReloadReport,
    ReloadTrigger, located, unusable, with_causes,
};
use repair::RepairWatch;
use watch::{ConfigFileWatch, ContentDigest};

/// Where the configuration comes from.
pub struct ConfigOrigin {
    /// None: there is no file.
    pub file: Option<PathBuf>,
    /// Reads and checks a file as the start did.
    pub load: fn(&Path) -> Result<GatewayConfig, ConfigProblems>,
    /// Changes what the command line decides.
    pub adapt: Box<dyn Fn(&mut GatewayConfig) + Send + Sync>,
}

/// Takes configurations up.
pub struct ConfigReloader {
    origin: ConfigOrigin,
    process: Arc<ProcessState>,
    proxy: Arc<Proxy>,
    ports: Arc<RunningPorts>,
    settings: Arc<ProcessSettings>,
    current: Mutex<CurrentConfig>,
    /// Replaced generations.
    old: Mutex<Vec<Weak<Generation>>>,
    acme: Option<Arc<AcmeManager>>,
    gate: Arc<ArcSwap<AdminGate>>,
    admin: Endpoint,
    set_level: LevelSetter,
    metrics: ReloadMetrics,
    /// What was last logged as wrong, so that the same is not said each second.
    last_failure: Mutex<Option<String>>,
    repair: RepairWatch,
    /// Held by the reload that runs.
    running: tokio::sync::Mutex<()>,
    /// Another process has the place of this one.
    is_replaced: AtomicBool,
}

/// What a reloader works with.
pub struct ReloadParts {
    pub process: Arc<ProcessState>,
    pub proxy: Arc<Proxy>,
    pub ports: Arc<RunningPorts>,
    pub settings: Arc<ProcessSettings>,
    pub acme: Option<Arc<AcmeManager>>,
    pub gate: Arc<ArcSwap<AdminGate>>,
    pub admin: Endpoint,
    pub set_level: LevelSetter,
}

struct CurrentConfig {
    config: Arc<GatewayConfig>,
    hash: String,
}

impl CurrentConfig {
    fn of(config: GatewayConfig) -> Self {
        // Nodes that use the same files have the same hash, whenever each has read them.
        let of_all_nodes = changes::without_origin_files(&config);
        let text = changes::compared(&of_all_nodes).to_string();
        let digest = Sha256::digest(text);
        Self {
            config: Arc::new(config),
            hash: format!("{digest:x}").chars().take(16).collect(),
        }
    }
}

/// A configuration of which everything is ready to serve.
struct PreparedConfig {
    next: CurrentConfig,
    generation: Arc<Generation>,
    listeners: PreparedListeners,
    sharing: Option<SharedTicketKeeper>,
}

impl ConfigReloader {
    /// `config` is what the gateway was started with.
    ///
    /// # Errors
    /// If the registry has its metrics already.
    pub fn new(
        origin: ConfigOrigin,
        config: &GatewayConfig,
        parts: ReloadParts,
    ) -> prometheus::Result<Arc<Self>> {
        let current = CurrentConfig::of(config.clone());
        let metrics = ReloadMetrics::register(&parts.process.registry)?;
        metrics.in_use(&current.hash);
        let ReloadParts {
            process,
            proxy,
            ports,
            settings,
            acme,
            gate,
            admin,
            set_level,
        } = parts;
        Ok(Arc::new(Self {
            origin,
            process,
            proxy,
            ports,
            settings,
            current: Mutex::new(current),
            old: Mutex::default(),
            acme,
            gate,
            admin,
            set_level,
            metrics,
            last_failure: Mutex::default(),
            repair: RepairWatch::default(),
            running: tokio::sync::Mutex::default(),
            is_replaced: AtomicBool::new(false),
        }))
    }

    /// No other configuration is taken up as long as this is held. A reload that runs ends first.
    pub(super) async fn hold(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.running.lock().await
    }

    /// Nothing is taken up any more, also not what waits for its turn: another process has the place
    /// of this one, and its listeners.
    pub(super) fn leave_to_the_next_process(&self) {
        self.is_replaced.store(true, Ordering::Release);
    }

    /// The configuration that is in use.
    pub fn config(&self) -> Arc<GatewayConfig> {
        Arc::clone(&self.current.lock().config)
    }

    /// Updates the gauges before a scrape.
    pub fn update_metrics(&self) {
        let old = i64::try_from(self.old_engines()).unwrap_or(i64::MAX);
        self.metrics.old_engines.set(old);
    }

    fn old_engines(&self) -> usize {
        let mut old = self.old.lock();
        old.retain(|generation| generation.strong_count() > 0);
        old.len()
    }

    /// Reads the file again and takes it up, or says what that would do.
    ///
    /// # Errors
    /// Why it can't be taken up; the present configuration then goes on.
    pub async fn reload(
        self: &Arc<Self>,
        trigger: ReloadTrigger,
        act: ReloadAct,
    ) -> Result<ReloadReport, ReloadError> {
        let applies = act == ReloadAct::Apply;
        // A client that leaves must not stop it half way.
        let this = Arc::clone(self);
        let asked = trigger.clone();
        let task = tokio::spawn(async move { this.attempt(&asked, act).await });
        let outcome = match task.await {
            Ok(outcome) => outcome,
            Err(error) => Err(ReloadError::Failed(format!("it broke off: {error}"))),
        };
        if applies {
            self.tell(&trigger, &outcome);
        }
        outcome
    }

    async fn attempt(
        &self,
        trigger: &ReloadTrigger,
        act: ReloadAct,
    ) -> Result<ReloadReport, ReloadError> {
        let _one = match trigger {
            // Nobody would ask again: what the file says now must not be missed.
            ReloadTrigger::Signal | ReloadTrigger::Watch => self.running.lock().await,
            ReloadTrigger::Admin(_) => self.running.try_lock().map_err(|_| ReloadError::Busy)?,
        };
        if self.is_replaced.load(Ordering::Acquire) {
            return Err(ReloadError::Replaced);
        }
        let outcome = self.take_or_plan(trigger, act).await;
        // Of a plan, or of what could not be taken, nothing stays.
        self.proxy.generation().plugins.give_up_prepared();
        outcome
    }

    async fn take_or_plan(
        &self,
        trigger: &ReloadTrigger,
        act: ReloadAct,
    ) -> Result<ReloadReport, ReloadError> {
        let file = self.file_for(&act)?;
        let applies = act == ReloadAct::Apply;
        if applies {
            self.repair.tries();
        }
        let config = self.load(file.clone()).await?;
        let before = self.config();
        let hash_before = self.current.lock().hash.clone();
        let changes = ConfigChanges::between(&before, &config);
        if applies && changes.is_empty() {
            self.repair.say_what_runs();
        }
        let fixed = located(&file, fixed::fixed(&changes));
        if !fixed.is_empty() {
            let refused = self.not_live(trigger, &file, config, changes, fixed).await;
            return Err(ReloadError::NotLive(Box::new(refused)));
        }
        if applies && self.old_engines() >= MOST_REPLACED {
            return Err(ReloadError::TooManyOld);
        }
        let warnings = config
            .warnings
            .iter()
            .map(ConfigProblem::headline)
            .collect();
        let prepared = self.prepare(&file, config).await?;
        let hash_after = prepared.next.hash.clone();
        let effects = match trigger {
            ReloadTrigger::Admin(_) => Some(self.effects(&prepared, &changes).await?),
            ReloadTrigger::Signal | ReloadTrigger::Watch => None,
        };
        if applies {
            self.commit(prepared).await?;
        }
        Ok(ReloadReport {
            hash_before,
            hash_after,
            changes,
            effects,
            warnings,
        })
    }

    /// What is told of a configuration in which these keys can't be changed.
    async fn not_live(
        &self,
        trigger: &ReloadTrigger,
        file: &Path,
        config: GatewayConfig,
        changes: ConfigChanges,
        problems: Vec<ConfigProblem>,
    ) -> NotLiveConfig {
        let effects = match trigger {
            ReloadTrigger::Admin(_) => self.effects_if_taken_up(file, config, &changes).await.ok(),
            ReloadTrigger::Signal | ReloadTrigger::Watch => None,
        };
        NotLiveConfig {
            problems,
            changes,
            effects,
        }
    }

    async fn effects_if_taken_up(
        &self,
        file: &Path,
        config: GatewayConfig,
        changes: &ConfigChanges,
    ) -> Result<ReloadEffects, ReloadError> {
        let prepared = self.prepare(file, config).await?;
        self.effects(&prepared, changes).await
    }

    /// What a configuration does to certificates, stored entries and keys.
    async fn effects(
        &self,
        prepared: &PreparedConfig,
        changes: &ConfigChanges,
    ) -> Result<ReloadEffects, ReloadError> {
        let in_use = self.ports.certificates().await;
        let (before, after) = (self.config(), Arc::clone(&prepared.next.config));
        let tls = Arc::clone(&self.process.tls);
        let certificates =
            blocking(move || CertificateChanges::of((&before, in_use), &after, &tls));
        let certificates = certificates
            .await?
            .map_err(|error| ReloadError::Failed(with_causes(&error)))?;
        let (entries, keys) = self.forecast(prepared, changes).await?;
        Ok(ReloadEffects {
            certificates,
            entries,
            keys,
        })
    }

    /// The file that is to be read.
    fn file_for(&self, act: &ReloadAct) -> Result<PathBuf, ReloadError> {
        let own = self.origin.file.as_ref().ok_or(ReloadError::NoFile)?;
        let ReloadAct::Plan(Some(other)) = act else {
            return Ok(own.clone());
        };
        // Messages show lines of the file, so it must not be any file of the machine. Nor may it be
        // named in any folder, since the paths in it are relative to that. Either file may be a link.
        let folder_of = |file: &Path| Some(file.parent()?.to_owned());
        let real = |file: &Path| file.canonicalize().ok();
        let own = std::path::absolute(own).unwrap_or_else(|_| own.clone());
        let folders = [
            folder_of(&own).as_deref().and_then(real),
            real(&own).as_deref().and_then(folder_of),
        ];
        let is_below = |path: PathBuf| {
            folders
                .iter()
                .flatten()
                .any(|folder| path.starts_with(folder))
        };
        let named_in = folder_of(other).as_deref().and_then(real);
        match (real(other), named_in) {
            (Some(file), Some(folder)) if is_below(file.clone()) && is_below(folder.clone()) => {
                Ok(other.clone())
            }
            _ => Err(ReloadError::Elsewhere),
        }
    }

    async fn load(&self, file: PathBuf) -> Result<GatewayConfig, ReloadError> {
        let load = self.origin.load;
        let mut config = blocking(move || load(&file))
            .await?
            .map_err(ReloadError::Invalid)?;
        (self.origin.adapt)(&mut config);
        Ok(config)
    }

    /// Makes everything that the configuration needs. Nothing of it is in use then.
    async fn prepare(
        &self,
        file: &Path,
        config: GatewayConfig,
    ) -> Result<PreparedConfig, ReloadError> {
        let issuing = config.clone();
        let issued = blocking(move || local_authority::issue_all(&issuing)).await?;
        issued.map_err(|error| ReloadError::Failed(with_causes(&error)))?;
        let present = self.proxy.generation();
        let made = self.process.generation(&config, Some(&present)).await;
        let generation = made.map_err(|error| unusable(file, error))?;
        let listeners = self.ports.prepare(&config.listeners).await;
        let listeners = listeners.map_err(|error| match error {
            None => ReloadError::Ending,
            Some(error) => unusable(file, GatewayStartError::Bind(error)),
        })?;
        let sharing = self.settings.sharing(&config);
        let sharing = sharing.map_err(|error| unusable(file, error))?;
        Ok(PreparedConfig {
            next: CurrentConfig::of(config),
            generation,
            listeners,
            sharing,
        })
    }

    async fn forecast(
        &self,
        prepared: &PreparedConfig,
        changes: &ConfigChanges,
    ) -> Result<(EntryForecast, KeyForecasts), ReloadError> {
        let cache = Arc::clone(&self.process.cache);
        let recent = Arc::clone(&self.process.recent);
        let (before, after) = (self.proxy.generation(), Arc::clone(&prepared.generation));
        let changes = changes.clone();
        let schemes = ClientSchemes::of(&prepared.next.config.listeners);
        blocking(move || {
            let generations = (&*before, &*after);
            let entries = EntryForecast::of(&cache, generations, &schemes, &changes);
            (entries, key_forecast::of_recent(&recent, generations))
        })
        .await
    }

    /// Lets a prepared configuration serve.
    async fn commit(&self, prepared: PreparedConfig) -> Result<(), ReloadError> {
        let PreparedConfig {
            next,
            generation,
            listeners,
            sharing,
        } = prepared;
        let config = Arc::clone(&next.config);
        let (process, followed) = (Arc::clone(&self.process), Arc::clone(&config));
        blocking(move || process.follow(&followed)).await?;
        self.settings.follow(&config, sharing);
        memory::PROCESS.set_bound(config.server.max_held_bytes.0);
        (self.set_level)(config.telemetry.log_level);
        self.gate
            .store(Arc::new(AdminGate::new(&config.admin, &self.admin)));
        self.process.begin_serving(&generation);
        let patience = config.server.old_engine_max.0;
        self.retire(self.proxy.swap(generation), patience);
        *self.current.lock() = next;
        if let Some(acme) = &self.acme {
            acme.want(&config.listeners).await;
        }
        self.ports.commit(listeners, patience).await;
        // A listener whose settings are the same stays, and what its files hold may be something else.
        let tls = Arc::clone(&self.process.tls);
        blocking(move || tls.look_at_files()).await
    }

    /// Lets a replaced generation end with its last request; its tunnels end after `patience`.
    fn retire(&self, old: Arc<Generation>, patience: Duration) {
        self.old.lock().push(Arc::downgrade(&old));
        let overdue = old.overdue();
        tokio::spawn(async move {
            sleep(patience).await;
            overdue.cancel();
        });
    }

    /// Logs, counts and notes what came of a reload.
    fn tell(&self, trigger: &ReloadTrigger, outcome: &Result<ReloadReport, ReloadError>) {
        let (who, source) = match trigger {
            ReloadTrigger::Signal => ("SIGHUP", None),
            ReloadTrigger::Watch => ("server.watch", None),
            ReloadTrigger::Admin(source) => ("admin", Some(source)),
        };
        let caller = source.map(|source| &*source.who);
        let from = source.map(|source| &*source.from);
        match outcome {
            Ok(report) => {
                self.metrics.count("applied");
                self.metrics.in_use(&report.hash_after);
                self.repair.say_what_runs();
                *self.last_failure.lock() = None;
                tracing::info!(
                    target: "lamina::audit",
                    who,
                    caller,
                    from,
                    hash_before = report.hash_before,
                    hash_after = report.hash_after,
                    changed = !report.changes.is_empty(),
                    "the configuration was taken up"
                );
                for warning in &report.warnings {
                    tracing::warn!("{warning}");
                }
            }
            // Whoever has taken the place of this process takes up what the files say.
            Err(ReloadError::Replaced) => {}
            Err(error) => {
                self.metrics.count(error.word());
                if !matches!(error, ReloadError::Busy) {
                    self.metrics.failed();
                    self.repair.refused();
                }
                let text = error.to_string();
                let before = self.last_failure.lock().replace(text.clone());
                if before.as_ref() != Some(&text) {
                    tracing::error!(
                        target: "lamina::audit",
                        who,
                        caller,
                        from,
                        error = text,
                        "the configuration was not taken up; the present one goes on"
                    );
                }
            }
        }
    }

    /// Takes files up that have changed, while `server.watch` is on, and notices when files that
    /// were refused say again what runs. Never ends.
    pub async fn follow_files(self: Arc<Self>) {
        let Some(file) = self.origin.file.clone() else {
            return;
        };
        let mut looks = interval(watch::LOOK);
        let mut watching: Option<ConfigFileWatch> = None;
        loop {
            looks.tick().await;
            let takes_up = self.config().server.watch != ConfigWatch::Off;
            if !takes_up {
                watching = None;
            }
            if !takes_up && !self.repair.is_waiting() {
                continue;
            }
            let looked = file.clone();
            let Ok(now) = blocking(move || watch::digest(&looked)).await else {
                continue;
            };
            if self.repair.look(now) {
                self.note_repair(&file).await;
            }
            if !takes_up {
                continue;
            }
            let watching = match &mut watching {
                Some(watching) => watching,
                none => none.insert(self.first_look(&file, now).await),
            };
            if watching.look(now) {
                // What came of it is logged.
                let outcome = self.reload(ReloadTrigger::Watch, ReloadAct::Apply).await;
                if let Err(ReloadError::TooManyOld) = outcome {
                    watching.try_again();
                }
            }
        }
    }

    /// Takes a refusal back if the files say what runs.
    async fn note_repair(&self, file: &Path) {
        let Ok(config) = self.load(file.to_owned()).await else {
            return;
        };
        let used = self.config();
        let [running, read] = [&*used, &config].map(changes::without_origin_files);
        if !ConfigChanges::between(&running, &read).is_empty() {
            return;
        }
        // Whoever takes them up meanwhile knows better.
        let _one = self.running.lock().await;
        if Arc::ptr_eq(&used, &self.config()) && self.repair.is_waiting() {
            self.repair.say_what_runs();
            self.metrics.repaired();
            *self.last_failure.lock() = None;
            tracing::info!("the files of the configuration say again what is in use");
        }
    }

    /// Begins to watch files that say this now. They may have changed since they were read.
    async fn first_look(&self, file: &Path, now: ContentDigest) -> ConfigFileWatch {
        let mut watching = ConfigFileWatch::new(now);
        let read = self.load(file.to_owned()).await;
        let read = read.map(|config| CurrentConfig::of(config).hash);
        if !read.is_ok_and(|hash| hash == self.current.lock().hash) {
            watching.try_again();
        }
        watching
    }

    /// Answers `POST /v1/config/reload`: a report, or what is wrong, with the word for the status.
    pub async fn answer(
        self: Arc<Self>,
        act: ReloadAct,
        source: AdminActionSource,
    ) -> Result<Value, (&'static str, Value)> {
        let outcome = self.reload(ReloadTrigger::Admin(source), act.clone()).await;
        outcome
            .map(|report| report.json(&act))
            .map_err(|error| (error.word(), error.json()))
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ReloadError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| ReloadError::Failed(format!("it broke off: {error}")))
}
