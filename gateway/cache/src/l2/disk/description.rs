//! The disk as one of the stores.

use std::path::PathBuf;
use std::sync::Arc;

use super::config::DiskTierConfig;
use super::{DiskStoreOpenError, open};
use crate::description::{FailureSubject, SectionDescription, SectionSecret};
use crate::l2::description::{
    SharedStoreSettings, StoreDescription, StoreOpenError, StorePromiseConditions,
};
use crate::l2::store::Store;

impl SectionDescription for DiskTierConfig {
    fn name(&self) -> &'static str {
        "disk"
    }

    fn servers(&self) -> Vec<&str> {
        Vec::new()
    }

    fn secrets(&mut self) -> Vec<SectionSecret<'_>> {
        Vec::new()
    }

    fn files(&mut self) -> Vec<&mut PathBuf> {
        vec![&mut self.path]
    }

    fn key_of(&self, _subject: FailureSubject) -> &'static str {
        "path"
    }
}

impl StoreDescription for DiskTierConfig {
    fn open(&self, common: SharedStoreSettings<'_>) -> Result<Arc<dyn Store>, StoreOpenError> {
        open(self, common.before).map_err(|error| match error {
            DiskStoreOpenError::InUse { .. } => StoreOpenError::InUse(Box::new(error)),
            _ => StoreOpenError::Machine(Box::new(error)),
        })
    }

    fn location(&self) -> String {
        format!("disk {}", self.path.display())
    }

    fn promises(&self, _conditions: &StorePromiseConditions<'_>) -> Vec<String> {
        vec![
            format!(
                "stored entries are there after a restart; after a crash, those that were stored \
                 at least {} before it",
                self.sync_interval
            ),
            "a purge whose receipt says `logged: true` is never lost on this node, not even in a \
             crash"
                .to_owned(),
            "the file shares nothing with other nodes: each gateway needs its own file".to_owned(),
        ]
    }

    fn kept_over_kill(&self) -> &'static str {
        "what is on its disk, and validates it as after any absence"
    }
}
