//! A plugin's versions: a new one is made beside the one that serves, and takes its place
//! between two calls; one that fails too often gives way to the one before.
//!
//! Invariant: a version that can't be made, or lacks a hook that a route uses, changes
//! nothing. Calls in flight end on the version that they began on. What an operator decided
//! about a plugin, and what its failures decided, no file and no signal undoes.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::error::{Cause, LoadError};
use super::setup::{Job, Workshop};
use super::version::Version;
use super::{Hook, artifact};

/// The versions of one plugin.
pub(super) struct Versions {
    pub(super) job: Job,
    workshop: Arc<Workshop>,
    pub(super) current: ArcSwap<Version>,
    /// The one before, which served well when it was replaced.
    before: Mutex<Option<Arc<Version>>>,
    /// The one that gave way to the one that serves.
    gave_way: Mutex<Option<GaveWay>>,
    /// Hooks that routes use.
    needed: Mutex<Vec<Hook>>,
    /// One reload at a time.
    reloading: tokio::sync::Mutex<()>,
    /// What the file looked like when it was last read.
    seen: Mutex<Option<Look>>,
}

/// A version that failed too often, so that the one before it serves again.
#[derive(Clone, Debug)]
pub struct GaveWay {
    pub number: u64,
    /// What it says of itself.
    pub version: String,
    /// Of its file.
    pub sha256: Arc<str>,
    pub reason: String,
}

/// Whose word a reload is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum By {
    /// That of an operator who names the plugin: it counts more than what was decided before.
    Operator,
    /// A new file, or a signal to the whole process.
    File,
}

/// What came of a reload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reloaded {
    /// The file's content is what serves.
    Same,
    /// The file's content is the version that failed and gave way to the one that serves,
    /// and no operator asked for it.
    Failed,
    /// The version with this number serves from now on.
    Swapped(u64),
}

/// What tells that a file was written anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Look {
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

/// Between two looks at the files.
const WATCH: Duration = Duration::from_secs(1);

impl Versions {
    pub(super) fn new(job: Job, workshop: Arc<Workshop>, first: Version) -> Self {
        let seen = look(&workshop.base.join(&job.config.file));
        Self {
            job,
            workshop,
            current: ArcSwap::from_pointee(first),
            before: Mutex::default(),
            gave_way: Mutex::default(),
            needed: Mutex::default(),
            reloading: tokio::sync::Mutex::default(),
            seen: Mutex::new(seen),
        }
    }

    /// Notes that a route uses this hook.
    ///
    /// # Errors
    /// When the version that serves does not have it.
    pub(super) fn require(&self, hook: Hook) -> Result<(), LoadError> {
        if !self.current.load().has(hook) {
            return Err(self.error(Cause::MissingHook(hook)));
        }
        self.needed.lock().push(hook);
        Ok(())
    }

    /// Makes a version of what the file holds now, and has it serve.
    ///
    /// # Errors
    /// When it can't be made; what served goes on.
    pub(super) async fn reload(self: &Arc<Self>, by: By) -> Result<Reloaded, LoadError> {
        let _one = self.reloading.lock().await;
        let this = Arc::clone(self);
        *self.seen.lock() = look(&self.workshop.base.join(&self.job.config.file));
        let making = tokio::task::spawn_blocking(move || this.make(by));
        let made = making
            .await
            .unwrap_or_else(|e| Err(Cause::Engine(e.to_string())));
        let Some(made) = made.map_err(|cause| self.error(cause))? else {
            return Ok(Reloaded::Failed);
        };
        let lacking = self
            .needed
            .lock()
            .iter()
            .copied()
            .find(|hook| !made.has(*hook));
        if let Some(hook) = lacking {
            return Err(self.error(Cause::MissingHook(hook)));
        }
        let current = self.current.load_full();
        let same = made.identity().sha256 == current.identity().sha256;
        if same && !current.blueprint.health.gave_out() {
            return Ok(Reloaded::Same);
        }
        let number = made.identity().number;
        self.take_over(Arc::new(made), by);
        Ok(Reloaded::Swapped(number))
    }

    /// A version of what the file holds now. None: it is the one that failed.
    fn make(&self, by: By) -> Result<Option<Version>, Cause> {
        let wasm = self.workshop.read(&self.job)?;
        let digest = artifact::digest(&wasm);
        let failed = |gone: &GaveWay| *gone.sha256 == *digest;
        if by == By::File && self.gave_way.lock().as_ref().is_some_and(failed) {
            return Ok(None);
        }
        self.workshop.make(&self.job, &wasm).map(Some)
    }

    fn take_over(&self, version: Arc<Version>, by: By) {
        let (plugin, number) = (&*self.job.name, version.identity().number);
        let (name, of) = (&version.manifest.name, &version.manifest.version);
        tracing::info!(
            plugin,
            number,
            name,
            version = of,
            "a plugin's new version serves"
        );
        let mut before = self.before.lock();
        let kept_aside = self.current.load().blueprint.health.kept_aside();
        if let Some(since) = kept_aside.filter(|_| by == By::File) {
            version.blueprint.health.set_aside(since);
            tracing::warn!(plugin, number, "it is set aside, as an operator wanted");
        }
        *self.gave_way.lock() = None;
        let old = self.current.swap(version);
        old.retire();
        let good = old.blueprint.health.serves();
        if good {
            *before = Some(old);
        }
    }

    /// After a failed call: a version that was set aside for it gives way to the one before.
    pub(super) fn fall_back(&self, failed: &Arc<Version>) {
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
            "a plugin's earlier version serves again"
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

    /// Sets the version that serves aside, and those that files bring after it.
    pub(super) fn set_aside(&self) {
        let _no_other_takes_over = self.before.lock();
        let version = self.current.load();
        version.blueprint.health.set_aside(Instant::now());
    }

    /// The version that failed, while the one before it serves again.
    pub(super) fn gave_way(&self) -> Option<GaveWay> {
        self.gave_way.lock().clone()
    }

    /// Reloads it whenever its file was written anew and has been left alone for a while.
    pub(super) async fn watch(self: Arc<Self>) {
        let file = self.workshop.base.join(&self.job.config.file);
        let mut last = *self.seen.lock();
        loop {
            tokio::time::sleep(WATCH).await;
            let now = look(&file);
            // Whoever writes it may not be done before it looks the same twice.
            let settled = now.is_some() && now == last;
            last = now;
            if settled && now != *self.seen.lock() {
                self.reload_and_say().await;
            }
        }
    }

    /// Reloads it where its file says so, with a line in the log where that comes to nothing.
    pub(super) async fn reload_and_say(self: &Arc<Self>) {
        match self.reload(By::File).await {
            Ok(Reloaded::Same | Reloaded::Swapped(_)) => {}
            Ok(Reloaded::Failed) => tracing::warn!(
                plugin = &*self.job.name,
                "the file holds the version that failed: the earlier one serves on until there \
                 is another, or until somebody asks for it by `POST /v1/plugins/NAME/reload`"
            ),
            Err(error) => {
                tracing::error!(%error, "a plugin's new version is refused; the old one serves on");
            }
        }
    }

    fn error(&self, cause: Cause) -> LoadError {
        LoadError {
            plugin: self.job.name.to_string(),
            cause,
        }
    }
}

fn look(file: &Path) -> Option<Look> {
    let about = fs::metadata(file).ok()?;
    Some(Look {
        inode: about.ino(),
        bytes: about.len(),
        modified: (about.mtime(), about.mtime_nsec()),
    })
}
