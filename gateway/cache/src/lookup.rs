//! What a look-up in the first tier found.

use std::sync::Arc;

use crate::entry::Entry;
use crate::freshness::StaleWindows;
use crate::key::EntryKey;

/// What a look-up found.
pub enum Lookup {
    Fresh(Arc<Entry>),
    /// May be served within the stale windows given here, or validated.
    Stale(Arc<Entry>, StaleWindows),
    /// Nothing is stored under this key. A load must use the key given here.
    Miss(EntryKey, LookupMissKind),
}

/// What was missing in a miss.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LookupMissKind {
    Uri,
    Variant,
}
