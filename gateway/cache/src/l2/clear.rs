//! Frees the space of records in the store that purges hide.
//!
//! A purge is a record in the log, and what it reaches is hidden from then on, wherever it is
//! stored. The node that appended the purge then walks the index, page by page with pauses, and
//! removes the records that were born before it. No other node does this, so nobody removes a
//! second time what may have been stored again in the meantime. Purges that come during a walk are
//! handled together in the next one.
//!
//! Invariant: no record is removed that was born after the purge: the store compares. A record that
//! stays although it is hidden (written late, not noted in the index, or the store failed) costs
//! space until it expires, and nothing else.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::{IntCounter, Registry};
use tokio::sync::Notify;

use super::L2;
use super::guard::{StoreCall, StoreCallError};
use super::list::{PAGE, RecordListingCursor, reaches};
use super::store::{IndexMember, IndexPage, LogPlace, LoggedPurge, StoreKey};
use crate::purge::{PurgeStatement, Selector, UrlSelector};

/// The largest number of purges that wait for a walk. Further purges free nothing.
const WAITING: usize = 256;
/// The pause between two pages: a walk looks at some 10,000 members a second at most.
const PAUSE: Duration = Duration::from_millis(10);
/// The pauses between two attempts at a page, growing, and the number of attempts: about a minute
/// in all.
const RETRY: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(10);
const ATTEMPTS: u32 = 10;

/// The purges whose records are to be removed.
pub(super) struct PurgedRecordCleanup {
    queue: Mutex<VecDeque<RecordCleanupTask>>,
    wake: Notify,
    /// Whether there is an index to walk.
    is_possible: bool,
    removed: IntCounter,
    given_up: IntCounter,
}

/// What was purged, and the place of the purge in the log.
struct RecordCleanupTask {
    what: RecordCleanupTarget,
    before: LogPlace,
}

enum RecordCleanupTarget {
    Urls(UrlSelector),
    All,
}

impl PurgedRecordCleanup {
    pub(super) fn new(is_possible: bool, registry: &Registry) -> prometheus::Result<Self> {
        let removed = IntCounter::new(
            "lamina_l2_cleared_total",
            "Records that were removed from the second tier because a purge hides them.",
        )?;
        let given_up = IntCounter::new(
            "lamina_l2_clearings_failed_total",
            "Purges whose hidden records were not all removed from the second tier; they stay \
             there until they expire.",
        )?;
        registry.register(Box::new(removed.clone()))?;
        registry.register(Box::new(given_up.clone()))?;
        Ok(Self {
            queue: Mutex::default(),
            wake: Notify::new(),
            is_possible,
            removed,
            given_up,
        })
    }

    /// Takes in a purge that has its place in the log.
    pub(super) fn logged(&self, purge: &LoggedPurge, before: LogPlace) {
        if !self.is_possible || purge.soft {
            return;
        }
        // The index knows records only by their URL.
        let what = match purge.selector.parse() {
            Ok(PurgeStatement::Purged(_, Selector::Prefix(prefix))) => {
                RecordCleanupTarget::Urls(UrlSelector::beginning(&prefix))
            }
            Ok(PurgeStatement::Purged(_, Selector::Pattern(pattern))) => {
                RecordCleanupTarget::Urls(UrlSelector::like(&pattern))
            }
            Ok(PurgeStatement::Purged(_, Selector::All)) => RecordCleanupTarget::All,
            Ok(_) | Err(_) => return,
        };
        let mut queue = self.queue.lock();
        match queue.len() < WAITING {
            true => queue.push_back(RecordCleanupTask { what, before }),
            false => self.given_up.inc(),
        }
        drop(queue);
        self.wake.notify_one();
    }
}

impl L2 {
    /// Removes what purges hide. It never returns.
    pub(super) async fn clear_behind(&self) {
        loop {
            let goals: Vec<_> = self.clearing.queue.lock().drain(..).collect();
            if goals.is_empty() {
                self.clearing.wake.notified().await;
                continue;
            }
            if let Err(error) = self.walk(&goals).await {
                self.clearing.given_up.inc_by(goals.len() as u64);
                tracing::warn!(
                    %error,
                    purges = goals.len(),
                    "purged records could not be removed from the second tier: they stay hidden \
                     there until they expire"
                );
            }
        }
    }

    async fn walk(&self, goals: &[RecordCleanupTask]) -> Result<(), StoreCallError> {
        let mut at = RecordListingCursor::default();
        while at.shard() < self.index.shards() {
            let next = self.clear_patiently(at, goals).await?;
            at = at.after(next);
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Clears one page, in several attempts: the store may be unavailable for a short time.
    async fn clear_patiently(
        &self,
        at: RecordListingCursor,
        goals: &[RecordCleanupTask],
    ) -> Result<u64, StoreCallError> {
        let mut pause = RETRY;
        for _ in 1..ATTEMPTS {
            if let Ok(next) = self.clear_page(at, goals).await {
                return Ok(next);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
        self.clear_page(at, goals).await
    }

    /// Clears one page. Returns where the next page begins.
    async fn clear_page(
        &self,
        at: RecordListingCursor,
        goals: &[RecordCleanupTask],
    ) -> Result<u64, StoreCallError> {
        let page = self.guard.call(StoreCall::List, |store| {
            store.page(at.shard(), at.position(), PAGE)
        });
        let IndexPage { members, next } = page.await?;
        for goal in goals {
            let hidden = members.iter().filter(|member| goal.reaches(member));
            let keys: Vec<StoreKey> = hidden.map(|member| member.key).collect();
            for some in keys.chunks(PAGE) {
                let removed = self.guard.call(StoreCall::Clear, |store| {
                    store.clear(at.shard(), some, goal.before)
                });
                self.clearing.removed.inc_by(removed.await? as u64);
            }
        }
        Ok(next)
    }
}

impl RecordCleanupTask {
    fn reaches(&self, member: &IndexMember) -> bool {
        member.born < self.before.order
            && match &self.what {
                RecordCleanupTarget::Urls(urls) => reaches(urls, &member.text),
                RecordCleanupTarget::All => true,
            }
    }
}
