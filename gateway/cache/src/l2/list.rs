//! Lists what the store holds, by means of its index.
//!
//! A listing is done in steps: each does a bounded amount of work and returns where the next one
//! begins. The store, and not the index, tells whether a record is there, so what expired, was
//! removed or evicted is not listed. Invariant: a listing changes nothing.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use super::L2;
use super::guard::{StoreCall, StoreCallError};
use super::store::{IndexMember, IndexedUrl, StoreKey};
use crate::purge::UrlSelector;

/// A record that exists in the store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordListingItem {
    pub key: StoreKey,
    pub text: IndexedUrl,
    /// The name of the record in the store.
    pub name: String,
    pub left: Duration,
}

/// The result of one step of a listing.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct RecordListingPage {
    pub keys: Vec<RecordListingItem>,
    /// Where the next step begins; None after the last step.
    pub next: Option<RecordListingCursor>,
}

/// A place in the index. It is valid as long as the number of shards does not change.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct RecordListingCursor {
    shard: u16,
    place: u64,
}

/// Why there is no listing.
#[derive(Debug, thiserror::Error)]
pub enum RecordListingError {
    #[error("the {kind} store keeps no index of what it holds: {remedy}")]
    NoIndex {
        kind: &'static str,
        remedy: &'static str,
    },
    #[error("the second tier does not answer: {0}")]
    Failed(#[from] StoreCallError),
}

/// The number of members that one call to the store returns.
pub(super) const PAGE: usize = 128;
/// The smallest number of members that one call asks for; the store treats it as approximate.
const PAGE_MIN: usize = 16;
/// How many members one step looks at, and how long it takes, before it returns what it has.
const STEP: usize = 8_192;
const STEP_TIME: Duration = Duration::from_secs(1);

impl L2 {
    /// Lists, starting at `from`, the records whose URL is among `urls` (all records without
    /// `urls`), until there are `limit` of them; the page in which that happens is not cut. A
    /// record may be listed twice during a walk. One that exists the whole time is listed.
    ///
    /// # Errors
    /// When there is no index, or the store fails.
    pub async fn list(
        &self,
        urls: Option<&UrlSelector>,
        limit: usize,
        from: RecordListingCursor,
    ) -> Result<RecordListingPage, RecordListingError> {
        let shards = self.index.shards();
        if shards == 0 {
            return Err(RecordListingError::NoIndex {
                kind: self.kind(),
                remedy: self.guard.store.index_remedy(),
            });
        }
        // Only one listing runs at a time: it is not urgent, and others need the connections.
        let _turn = self.listing.lock().await;
        let (began, size) = (Instant::now(), limit.clamp(PAGE_MIN, PAGE));
        let (mut at, mut seen) = (from, 0);
        let mut known = HashSet::new();
        let mut keys = Vec::new();
        let is_over = |seen| seen >= STEP || began.elapsed() >= STEP_TIME;
        while at.shard < shards && keys.len() < limit && !(seen > 0 && is_over(seen)) {
            let page = self.guard.call(StoreCall::List, |store| {
                store.page(at.shard, at.place, size)
            });
            let page = page.await?;
            // An empty page is work as well.
            seen += page.members.len().max(size);
            let wanted = |member: &IndexMember| urls.is_none_or(|urls| reaches(urls, &member.text));
            let mut members = page.members;
            members.retain(|member| wanted(member) && known.insert(member.key));
            keys.extend(self.there(members).await?);
            at = at.after(page.next);
        }
        Ok(RecordListingPage {
            keys,
            next: (at.shard < shards).then_some(at),
        })
    }

    /// The members whose records exist in the store.
    async fn there(
        &self,
        members: Vec<IndexMember>,
    ) -> Result<Vec<RecordListingItem>, StoreCallError> {
        let mut there = Vec::new();
        // A small shard is returned as one page, whatever its size.
        for some in members.chunks(PAGE) {
            let keys: Vec<_> = some.iter().map(|member| member.key).collect();
            let left = self.guard.call(StoreCall::List, |store| store.left(&keys));
            let lives = left.await?;
            let alive = some.iter().zip(lives).filter_map(|(member, left)| {
                left.map(|left| RecordListingItem {
                    key: member.key,
                    text: member.text.clone(),
                    name: member.name.clone(),
                    left,
                })
            });
            there.extend(alive);
        }
        Ok(there)
    }
}

/// Whether a URL is certainly among `urls`. If it was cut, this must hold for all its possible
/// endings.
pub(super) fn reaches(urls: &UrlSelector, text: &IndexedUrl) -> bool {
    match text.is_cut {
        true => urls.matches_all_from(&text.url),
        false => urls.matches(&text.url),
    }
}

impl RecordListingCursor {
    pub(super) fn shard(self) -> u16 {
        self.shard
    }

    pub(super) fn position(self) -> u64 {
        self.place
    }

    /// The place after a page that returned `next`.
    pub(super) fn after(self, next: u64) -> Self {
        match next {
            0 => Self {
                shard: self.shard.saturating_add(1),
                place: 0,
            },
            place => Self { place, ..self },
        }
    }
}

impl fmt::Display for RecordListingCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.shard, self.place)
    }
}

impl FromStr for RecordListingCursor {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let numbers = || {
            let (shard, place) = text.split_once('-')?;
            Some(Self {
                shard: shard.parse().ok()?,
                place: place.parse().ok()?,
            })
        };
        numbers().ok_or("expected the cursor of an earlier listing")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pattern::Pattern;

    #[test]
    fn a_cursor_is_read_as_it_is_written() {
        let cursor = RecordListingCursor {
            shard: 15,
            place: u64::MAX,
        };
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        assert_eq!(cursor.after(7).to_string(), "15-7");
        assert_eq!(cursor.after(0).to_string(), "16-0");
        for text in ["", "1", "1-", "-1", "1-2-3", "99999-0"] {
            assert!(text.parse::<RecordListingCursor>().is_err(), "{text}");
        }
    }

    /// A purge of `/a*b` must not free a record whose URL may end differently.
    #[test]
    fn what_was_cut_is_reached_only_where_its_end_does_not_matter() {
        let cut = IndexedUrl::of(&format!("shop.example/{}b", "a".repeat(2_000)));
        assert!(cut.is_cut);
        let whole = IndexedUrl::of("shop.example/ab");
        for (pattern, reaches_cut) in [
            ("/a*", true),
            ("*", true),
            ("shop.example/aa*a*", true),
            ("/a*b", false),
            ("/a*a", false),
            ("/b*", false),
        ] {
            let urls = UrlSelector::like(&Pattern::new(pattern));
            assert_eq!(reaches(&urls, &cut), reaches_cut, "{pattern}");
        }
        assert!(reaches(&UrlSelector::like(&Pattern::new("/a*b")), &whole));
        assert!(reaches(
            &UrlSelector::beginning("http://shop.example/a"),
            &cut
        ));
    }
}
