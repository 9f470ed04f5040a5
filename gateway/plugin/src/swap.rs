//! A plugin's versions. A new one is made while the present one serves, and replaces it between two
//! calls; one that fails too often is replaced by the version before it.
//!
//! Invariant: a version that can't be made, or lacks a hook that a route uses, changes nothing.
//! Calls in flight end on the version on which they began. Neither a new file nor a signal undoes
//! what an operator, or the plugin's failures, decided about it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::error::{LoadError, PluginFault};
use super::setup::{PluginContext, VersionFactory};
use super::version::PluginVersion;
use super::{Hook, artifact};

/// The versions of one plugin.
pub(super) struct PluginVersions {
    pub(super) job: PluginContext,
    workshop: Arc<VersionFactory>,
    pub(super) current: ArcSwap<PluginVersion>,
    /// The version before the present one, if it served well when it was replaced.
    before: Mutex<Option<Arc<PluginVersion>>>,
    /// The version that failed and was replaced by the one that serves.
    gave_way: Mutex<Option<GaveWay>>,
    /// The hooks that routes use.
    needed: Mutex<Vec<Hook>>,
    /// What the next configuration brings.
    next: Mutex<PreparedChange>,
    /// Allows one reload at a time.
    reloading: tokio::sync::Mutex<()>,
    /// The reload that is running, or the last one.
    newest: Mutex<StartedReload>,
}

/// A version that failed too often and was replaced by the one before it.
#[derive(Clone, Debug)]
pub struct GaveWay {
    pub number: u64,
    /// The version that it gives itself.
    pub version: String,
    /// SHA-256 of its file, in hex.
    pub sha256: Arc<str>,
    pub reason: String,
}

/// Who asked for a reload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ReloadInitiator {
    /// An operator who named the plugin: this overrides earlier decisions.
    Operator,
    /// A new file, or a signal to the whole process.
    File,
}

/// The result of a reload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PluginReloadOutcome {
    /// The file's content is the version that serves.
    Same,
    /// The file's content is the version that failed and was replaced by the one that serves, and
    /// no operator asked for it.
    Failed,
    /// The version with this number serves from now on.
    Swapped(u64),
}

/// A reload: what the file looked like then, and the token that ends the reload when the file
/// changes.
struct StartedReload {
    seen: Option<PluginFileStamp>,
    superseded: CancellationToken,
}

/// What the next configuration brings to a plugin, until it serves or is given up.
#[derive(Default)]
struct PreparedChange {
    /// None: the version that serves goes on.
    version: Option<Arc<PluginVersion>>,
    /// The hooks that its routes use.
    needed: Vec<Hook>,
}

/// What a plugin is to the next configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PreparedPlugin {
    /// It goes on, perhaps with another version.
    GoesOn,
    /// Its file lacks a hook that the present routes use: the next configuration needs one of its
    /// own.
    ApartFromThis,
}

/// Metadata that shows whether a file was written again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct PluginFileStamp {
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

/// The time between two looks at the files.
const WATCH: Duration = Duration::from_secs(1);

impl PluginVersions {
    /// `seen` is what the file looked like before `first` was read from it.
    pub(super) fn new(
        job: PluginContext,
        workshop: Arc<VersionFactory>,
        first: PluginVersion,
        seen: Option<PluginFileStamp>,
    ) -> Self {
        Self {
            job,
            workshop,
            current: ArcSwap::from_pointee(first),
            before: Mutex::default(),
            gave_way: Mutex::default(),
            needed: Mutex::default(),
            next: Mutex::default(),
            reloading: tokio::sync::Mutex::default(),
            newest: Mutex::new(StartedReload {
                seen,
                superseded: CancellationToken::new(),
            }),
        }
    }

    /// Notes that a route of the next configuration uses this hook.
    ///
    /// # Errors
    /// When the version that will serve does not have it.
    pub(super) fn require(&self, hook: Hook) -> Result<(), LoadError> {
        let mut next = self.next.lock();
        let has = match &next.version {
            Some(version) => version.has(hook),
            None => self.current.load().has(hook),
        };
        if !has {
            return Err(self.error(PluginFault::MissingHook(hook)));
        }
        next.needed.push(hook);
        Ok(())
    }

    /// Prepares for the next configuration: makes a version of what the file holds now, if that is
    /// something else. It serves from [`commit`](Self::commit) on.
    ///
    /// # Errors
    /// When the version can't be made.
    pub(super) async fn prepare(&self) -> Result<PreparedPlugin, PluginFault> {
        *self.next.lock() = PreparedChange::default();
        let wasm = self.workshop.read(&self.job).await?;
        let digest = artifact::digest(&wasm);
        let failed = |gone: &GaveWay| *gone.sha256 == *digest;
        if *self.current.load().identity().sha256 == *digest {
            return Ok(PreparedPlugin::GoesOn);
        }
        if self.gave_way.lock().as_ref().is_some_and(failed) {
            self.say_that_it_failed();
            return Ok(PreparedPlugin::GoesOn);
        }
        let made = self.workshop.make(&self.job, wasm).await?;
        let lacks = |hook: &Hook| !made.has(*hook);
        if self.needed.lock().iter().any(lacks) {
            return Ok(PreparedPlugin::ApartFromThis);
        }
        self.next.lock().version = Some(Arc::new(made));
        Ok(PreparedPlugin::GoesOn)
    }

    /// Follows what was prepared: the next configuration serves now.
    pub(super) fn commit(&self) {
        let PreparedChange { version, needed } = std::mem::take(&mut *self.next.lock());
        *self.needed.lock() = needed;
        let Some(version) = version else { return };
        if version.identity().sha256 != self.current.load().identity().sha256 {
            self.take_over(version, ReloadInitiator::File);
        }
    }

    /// Whether the next configuration brings another version.
    pub(super) fn has_prepared_version(&self) -> bool {
        self.next.lock().version.is_some()
    }

    /// The version that serves once the next configuration does.
    pub(super) fn next_version(&self) -> Arc<PluginVersion> {
        let prepared = self.next.lock().version.clone();
        prepared.unwrap_or_else(|| self.current.load_full())
    }

    /// Forgets what was prepared: the next configuration does not come to serve.
    pub(super) fn give_up_prepared(&self) {
        *self.next.lock() = PreparedChange::default();
    }

    /// A hook that routes use, of this configuration or of the next, and this version lacks.
    fn lacking(&self, version: &PluginVersion) -> Option<Hook> {
        let lacks = |hook: &Hook| !version.has(*hook);
        let now = self.needed.lock().iter().copied().find(lacks);
        now.or_else(|| self.next.lock().needed.iter().copied().find(lacks))
    }

    /// Makes a version of what the file holds now, and lets it serve. If a version of an earlier
    /// content is being made, that is cancelled.
    ///
    /// # Errors
    /// When the version can't be made; the present version then goes on serving.
    pub(super) async fn reload(
        self: &Arc<Self>,
        by: ReloadInitiator,
    ) -> Result<PluginReloadOutcome, LoadError> {
        let superseded = self.begin();
        let _one = self.reloading.lock().await;
        let made = tokio::select! {
            biased;
            () = superseded.cancelled() => Err(PluginFault::Superseded),
            made = self.make(by) => made,
        };
        let Some(made) = made.map_err(|cause| self.error(cause))? else {
            return Ok(PluginReloadOutcome::Failed);
        };
        if let Some(hook) = self.lacking(&made) {
            return Err(self.error(PluginFault::MissingHook(hook)));
        }
        let current = self.current.load_full();
        let same = made.identity().sha256 == current.identity().sha256;
        if same && !current.blueprint.health.gave_out() {
            return Ok(PluginReloadOutcome::Same);
        }
        let number = made.identity().number;
        self.take_over(Arc::new(made), by);
        Ok(PluginReloadOutcome::Swapped(number))
    }

    /// Ends the running reload if the file has changed since it began. The returned token is
    /// cancelled when the same happens to this reload.
    fn begin(&self) -> CancellationToken {
        let seen = self.job.look(&self.workshop);
        let mut newest = self.newest.lock();
        if newest.seen != seen {
            newest.superseded.cancel();
            *newest = StartedReload {
                seen,
                superseded: CancellationToken::new(),
            };
        }
        newest.superseded.clone()
    }

    /// Makes a version of what the file holds now. None: it is the version that failed.
    async fn make(&self, by: ReloadInitiator) -> Result<Option<PluginVersion>, PluginFault> {
        let wasm = self.workshop.read(&self.job).await?;
        let digest = artifact::digest(&wasm);
        let failed = |gone: &GaveWay| *gone.sha256 == *digest;
        if by == ReloadInitiator::File && self.gave_way.lock().as_ref().is_some_and(failed) {
            return Ok(None);
        }
        self.workshop.make(&self.job, wasm).await.map(Some)
    }

    fn take_over(&self, version: Arc<PluginVersion>, by: ReloadInitiator) {
        let (plugin, number) = (&*self.job.name, version.identity().number);
        let (name, of) = (&version.manifest.name, &version.manifest.version);
        tracing::info!(
            plugin,
            number,
            name,
            version = of,
            "new plugin version in use"
        );
        let mut before = self.before.lock();
        let kept_aside = self.current.load().blueprint.health.kept_aside();
        if let Some(since) = kept_aside.filter(|_| by == ReloadInitiator::File) {
            version.blueprint.health.set_aside(since);
            tracing::warn!(
                plugin,
                number,
                "the new plugin version stays in quarantine, because an operator put the plugin \
                 there"
            );
        }
        *self.gave_way.lock() = None;
        let old = self.current.swap(version);
        old.retire();
        let good = old.blueprint.health.serves();
        if good {
            *before = Some(old);
        }
    }

    /// Called after a failed call: if the version was set aside because of it, the version before
    /// it serves again.
    pub(super) fn fall_back(&self, failed: &Arc<PluginVersion>) {
        if !failed.blueprint.health.gave_out() {
            return;
        }
        let mut before = self.before.lock();
        if !Arc::ptr_eq(&self.current.load(), failed) {
            return;
        }
        let Some(good) = before.take() else { return };
        good.recall();
        let aside = failed.blueprint.health.aside(Instant::now());
        let reason = aside.map_or(String::new(), |aside| aside.reason);
        let (plugin, number) = (&*self.job.name, good.identity().number);
        tracing::error!(
            plugin,
            number,
            reason,
            "plugin rolled back: its new version failed, and the earlier version is in use again"
        );
        let of = failed.identity();
        *self.gave_way.lock() = Some(GaveWay {
            number: of.number,
            version: failed.manifest.version.clone(),
            sha256: Arc::clone(&of.sha256),
            reason,
        });
        self.current.store(good);
        failed.retire();
    }

    /// Sets the serving version aside, and with it the versions that later files bring.
    pub(super) fn set_aside(&self) {
        let _no_other_takes_over = self.before.lock();
        let version = self.current.load();
        version.blueprint.health.set_aside(Instant::now());
    }

    /// The version that failed, while the one before it serves again.
    pub(super) fn gave_way(&self) -> Option<GaveWay> {
        self.gave_way.lock().clone()
    }

    /// Reloads the plugin whenever its file was written again and then not changed for a while. It
    /// goes on looking while a reload runs, so that a good file need not wait for a slow one that
    /// it replaces.
    pub(super) async fn follow_files(self: Arc<Self>) {
        let mut under_way = JoinSet::new();
        let mut last = self.newest.lock().seen;
        loop {
            tokio::time::sleep(WATCH).await;
            while under_way.try_join_next().is_some() {}
            let now = self.job.look(&self.workshop);
            // The file may still be being written until it looks the same twice.
            let settled = now.is_some() && now == last;
            last = now;
            if settled && now != self.newest.lock().seen {
                let this = Arc::clone(&self);
                under_way.spawn(async move { this.reload_and_say().await });
            }
        }
    }

    /// Reloads the plugin if its file has changed, and logs a failure.
    pub(super) async fn reload_and_say(self: &Arc<Self>) {
        match self.reload(ReloadInitiator::File).await {
            Ok(PluginReloadOutcome::Same | PluginReloadOutcome::Swapped(_)) => {}
            Ok(PluginReloadOutcome::Failed) => self.say_that_it_failed(),
            Err(LoadError {
                cause: PluginFault::Superseded,
                ..
            }) => tracing::info!(
                plugin = &*self.job.name,
                "the plugin's file was replaced while it was being compiled; the newer file is used"
            ),
            Err(error) => {
                tracing::error!(
                    %error,
                    "new plugin version rejected; the old version stays in use"
                );
            }
        }
    }

    fn say_that_it_failed(&self) {
        tracing::warn!(
            plugin = &*self.job.name,
            "the plugin's file still contains the version that failed: the earlier version stays in \
             use until the file changes, or until it is loaded with `POST /v1/plugins/NAME/reload`"
        );
    }

    fn error(&self, cause: PluginFault) -> LoadError {
        LoadError {
            plugin: self.job.name.to_string(),
            cause,
        }
    }
}

impl PluginContext {
    /// What the file looks like. None: it does not exist.
    pub(super) fn look(&self, workshop: &VersionFactory) -> Option<PluginFileStamp> {
        let about = fs::metadata(workshop.base.join(&self.config.file)).ok()?;
        Some(PluginFileStamp {
            inode: about.ino(),
            bytes: about.len(),
            modified: (about.mtime(), about.mtime_nsec()),
        })
    }
}
