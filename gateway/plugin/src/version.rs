//! One version of a plugin: compiled, checked, started once, ready to be called.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use super::calls::VersionIdentity;
use super::guest::GuestBlueprint;
use super::heads::MessageHooks;
use super::key::KeyHook;
use super::load::Loader;
use super::manifest::Manifest;
use super::{Hook, local};

/// A version of a plugin.
pub(super) struct PluginVersion {
    pub(super) made: SystemTime,
    pub(super) manifest: Manifest,
    pub(super) keys: Option<KeyHook>,
    pub(super) heads: Option<MessageHooks>,
    pub(super) loader: Option<Arc<Loader>>,
    pub(super) blueprint: Arc<GuestBlueprint>,
}

impl PluginVersion {
    /// The number and the digest of this version.
    pub(super) fn identity(&self) -> &VersionIdentity {
        &self.blueprint.identity
    }

    /// Whether it has this hook, by an export or by declaration.
    pub(super) fn has(&self, hook: Hook) -> bool {
        let exports = &self.blueprint.exports;
        match hook {
            Hook::Key => exports.derive.is_some() || self.manifest.declarative.is_some(),
            Hook::Load => exports.loads(),
            Hook::Request => exports.on_request.is_some(),
            Hook::Response => exports.on_response.is_some(),
        }
    }

    /// Another version has replaced it: calls in flight still end on it, and its instances are
    /// dropped, including those of threads that would not call it again for a long time.
    pub(super) fn retire(&self) {
        self.blueprint.retired.store(true, Ordering::Relaxed);
        if let Some(loader) = &self.loader {
            loader.rest();
        }
        self.blueprint.places.clear();
        local::sweep();
    }

    /// Makes it serve again.
    pub(super) fn recall(&self) {
        self.blueprint.retired.store(false, Ordering::Relaxed);
    }
}

impl Drop for PluginVersion {
    fn drop(&mut self) {
        self.blueprint.places.clear();
        local::sweep();
    }
}
