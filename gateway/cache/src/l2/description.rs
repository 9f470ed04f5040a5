//! What the rest of the program may ask of a configured store, and the table of all stores.
//!
//! Whoever adds a store writes a module whose configuration implements [`StoreDescription`], gives
//! [`L2Config`] its section, and names that section in the table at the end of this file. Nobody
//! else names a store.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use super::config::{L2Config, LeaseRules};
use super::store::{Durability, Store, StoreError, StoreRight};
use crate::description::{InvalidSetting, SectionDescription};

/// A configured store, before it is opened.
pub trait StoreDescription: SectionDescription + Send + Sync {
    /// Checks whether the configuration is valid, as far as that is known without reading files or
    /// using the network.
    ///
    /// # Errors
    /// The first setting that is not valid.
    fn check(&self) -> Result<(), InvalidSetting> {
        Ok(())
    }

    /// Opens the store. It needs a tokio runtime.
    ///
    /// # Errors
    /// When a setting is not valid, or the machine does not give what the store needs. A server
    /// that is down is not an error.
    fn open(&self, common: SharedStoreSettings<'_>) -> Result<Arc<dyn Store>, StoreOpenError>;

    /// Where it is, for `lamina doctor`.
    fn location(&self) -> String;

    /// The name of the server through which nodes share the store and its purge log. None: the
    /// store is of this node alone.
    fn shared_through(&self) -> Option<&'static str> {
        None
    }

    /// What a crash of its server may undo, from what the open store said of its durability.
    fn crash_findings(&self, _said: Result<Durability, StoreError>) -> Vec<StoreFinding> {
        Vec::new()
    }

    /// Tells what follows from the rights that the user of the open store lacks.
    fn rights_finding(&self, _lacks: &[StoreRight]) -> Option<StoreFinding> {
        None
    }

    /// What the store adds, in sentences for `lamina doctor`.
    fn promises(&self, conditions: &StorePromiseConditions<'_>) -> Vec<String>;

    /// What a node has when it comes back after it was killed, as the end of a sentence.
    fn kept_over_kill(&self) -> &'static str {
        NOTHING_KEPT
    }
}

/// What a node has when it comes back after it was killed, where no store keeps anything for it.
pub const NOTHING_KEPT: &str = "an empty L1";

/// The settings that all nodes sharing a store have in common.
#[derive(Clone, Copy, Debug)]
pub struct SharedStoreSettings<'a> {
    /// Seals purges and leases. None: they are not sealed.
    pub secret: Option<&'a str>,
    /// The longest life of a record.
    pub max_life: Duration,
    /// Nodes with another namespace share nothing with these, unless a prefix says so.
    pub namespace: Option<&'a str>,
    /// Whether another process may still have what one process alone can have.
    pub before: StoreOwnerBefore,
}

/// Who has the store when it is opened.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum StoreOwnerBefore {
    /// If another process has it, it can't be opened.
    #[default]
    Nobody,
    /// A process whose place this one takes, which closes it soon: until then the store is down.
    ReplacedProcess,
}

/// What the sentences about a store depend on, beside its own section.
pub struct StorePromiseConditions<'a> {
    pub lease: &'a LeaseRules,
    /// Whether nodes are told of purges over a bus as well.
    pub has_bus: bool,
}

/// What was found out about the server of a store.
#[derive(Debug)]
pub struct StoreFinding {
    /// What it is about, in a word or two.
    pub what: &'static str,
    pub says: String,
    pub gravity: FindingGravity,
}

/// What follows from a finding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FindingGravity {
    Sound,
    /// It works, but is risky.
    Risky,
    /// Something does not work.
    Broken,
}

/// Why a store can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoreOpenError {
    /// The configuration is the cause.
    #[error("cache.l2.{section}")]
    Setting {
        section: &'static str,
        #[source]
        why: InvalidSetting,
    },
    /// Another process uses it; to `doctor` that is most likely the gateway.
    #[error(transparent)]
    InUse(Box<dyn Error + Send + Sync>),
    /// The machine is the cause.
    #[error(transparent)]
    Machine(Box<dyn Error + Send + Sync>),
}

impl StoreOpenError {
    /// Whether the configuration is the cause, and not the machine.
    pub fn is_configuration(&self) -> bool {
        matches!(self, Self::Setting { .. })
    }
}

impl StoreFinding {
    pub(super) fn sound(what: &'static str, says: String) -> Self {
        let gravity = FindingGravity::Sound;
        Self {
            what,
            says,
            gravity,
        }
    }

    pub(super) fn broken(what: &'static str, says: String) -> Self {
        let gravity = FindingGravity::Broken;
        Self {
            what,
            says,
            gravity,
        }
    }

    pub(super) fn risky(what: &'static str, says: String) -> Self {
        let gravity = FindingGravity::Risky;
        Self {
            what,
            says,
            gravity,
        }
    }
}

impl Default for SharedStoreSettings<'_> {
    fn default() -> Self {
        Self {
            secret: None,
            max_life: L2Config::default().max_life.0,
            namespace: None,
            before: StoreOwnerBefore::Nobody,
        }
    }
}

impl L2Config {
    /// The store that is used, if there is a second tier.
    pub fn store(&self) -> Option<&dyn StoreDescription> {
        self.stores().into_iter().next()
    }
}

// The table of all stores. The first one that is configured is used.
lamina_base::described_sections! {
    L2Config, StoreDescription, STORES, stores, stores_mut: redis, disk
}
