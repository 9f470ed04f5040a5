//! A purge that a caller waits for: on which nodes it is applied, and what can't be known.
//!
//! Every node counts that was heard since this node joined, until it left with a message or was
//! silent for `bus.nodes.forget_after`: a node that does not answer may still serve what was
//! purged. A purge that was not published is applied on this node only, whatever is known of the
//! others.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::receipts::AwaitedReceipts;
use super::receipts::NodeReceipt;
use super::{Cluster, announce};
use crate::bus::outbox::{self, PublishStatus};
use crate::cache::l2::store::LogNumber;
use crate::cache::peers::PeerNotifier;
use crate::cache::purge::{PurgeKind, PurgeOrder, Selector};

/// The result of some purges.
pub struct ClusterPurgeReport {
    pub purges: Vec<ClusterPurge>,
    /// Why it is not known where they are applied.
    pub unknown: Option<UnconfirmedReason>,
    /// The number of nodes of `bus.expect` that were never heard.
    pub missing: usize,
    /// Nodes that are silent, and for how long; by name.
    pub silent: Vec<(String, Duration)>,
}

/// A purge, and the answers of all nodes.
pub struct ClusterPurge {
    /// Its place in our own order.
    pub order: PurgeOrder,
    /// Receives its number in the second tier's log once it is there.
    pub logged: Option<oneshot::Receiver<LogNumber>>,
    /// Every node that is known, and its answer if it came in time; by name.
    pub nodes: Vec<(String, Option<NodeReceipt>)>,
}

/// Why it is not known where a purge is applied.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum UnconfirmedReason {
    #[error(
        "the event bus has not accepted the purge ({0}); it waits, and is published as soon as \
         that works"
    )]
    NotPublished(String),
    #[error("this node receives no events from the event bus, and so no answers of other nodes")]
    HearsNothing,
    #[error(
        "this node does not listen to the event bus (`bus.subscribe_to_events: false`), and so gets \
         no answers of other nodes"
    )]
    DoesNotListen,
    #[error("this node has just joined the event bus and does not know yet who else is there")]
    JustJoined,
}

/// The number of heartbeats after which every node that is there has been heard.
const HEARTBEATS: u32 = 2;

impl Cluster {
    /// Purges everywhere and waits for at most `patience`, until every known node has answered that
    /// the purge is applied there. If this node has just joined, it purges a second time when it
    /// then knows of nodes that it did not know at first.
    pub async fn purge_and_wait(
        &self,
        selectors: &[Selector],
        kind: PurgeKind,
        patience: Duration,
    ) -> ClusterPurgeReport {
        let until = Instant::now() + patience;
        let first = self.purge_once(selectors, kind, until).await;
        let all_known = self.all_known().filter(|at| *at <= until);
        let (Some(UnconfirmedReason::JustJoined), Some(all_known)) = (&first.unknown, all_known)
        else {
            return first;
        };
        tokio::time::sleep_until(all_known).await;
        let known = self.nodes(std::time::Instant::now()).len();
        let is_same = first.purges.iter().all(|told| told.nodes.len() == known);
        match is_same {
            true => ClusterPurgeReport {
                unknown: None,
                ..first
            },
            false => self.purge_once(selectors, kind, until).await,
        }
    }

    async fn purge_once(
        &self,
        selectors: &[Selector],
        kind: PurgeKind,
        until: Instant,
    ) -> ClusterPurgeReport {
        let began = Instant::now();
        let known = self.nodes(began.into_std());
        let nodes: Vec<String> = known.into_iter().map(|(name, _)| name).collect();
        let missing = self.rules.expect.unwrap_or(0);
        let missing = missing.saturating_sub(nodes.len() + 1);
        let knows_all = self.all_known().is_some_and(|at| at <= began)
            || (self.rules.expect.is_some() && missing == 0);
        let purges = selectors.iter().map(|selector| {
            let id = outbox::new_id();
            let awaited = self.receipts.open(id.clone(), &nodes);
            self.purging();
            let (order, logged) = self.cache.purge_untold(selector, kind);
            self.outbox.purge(outbox::QueuedPurge {
                receipt: Some(id),
                ..announce::purge(selector, kind, order)
            });
            (order, logged, awaited)
        });
        let purges: Vec<_> = purges.collect();
        let told = purges.into_iter().map(async |(order, logged, awaited)| {
            let published = self.published(&awaited, until).await;
            let answers = awaited.all(until.saturating_duration_since(Instant::now()));
            let answers = answers.await;
            let nodes = nodes.iter();
            let nodes = nodes.map(|node| (node.clone(), answers.get(node).copied()));
            let told = ClusterPurge {
                order,
                logged,
                nodes: nodes.collect(),
            };
            (told, published)
        });
        let (told, published): (Vec<_>, Vec<_>) = join_all(told).await.into_iter().unzip();
        let unknown = published.into_iter().find_map(Result::err);
        let unknown = unknown.or_else(|| self.hears_too_little(knows_all));
        ClusterPurgeReport {
            purges: told,
            unknown,
            missing,
            silent: self.silent(),
        }
    }

    /// The time when every other node has had the time to be heard.
    fn all_known(&self) -> Option<Instant> {
        let joined = self.joined.get()?;
        Some(*joined + self.rules.heartbeat * HEARTBEATS)
    }

    async fn published(
        &self,
        awaited: &AwaitedReceipts<'_>,
        until: Instant,
    ) -> Result<(), UnconfirmedReason> {
        let taken = self.outbox.until_taken(|| awaited.number());
        if timeout_at(until, taken).await.is_ok() {
            return Ok(());
        }
        let why = match self.outbox.publishing() {
            PublishStatus::Works => {
                "publishing takes longer than the time that was waited".to_owned()
            }
            PublishStatus::Fails { why, .. } => why,
        };
        Err(UnconfirmedReason::NotPublished(why))
    }

    fn hears_too_little(&self, knows_all: bool) -> Option<UnconfirmedReason> {
        match (self.standing().hears, knows_all) {
            _ if !self.rules.listens => Some(UnconfirmedReason::DoesNotListen),
            (false, _) => Some(UnconfirmedReason::HearsNothing),
            (true, false) => Some(UnconfirmedReason::JustJoined),
            (true, true) => None,
        }
    }

    fn silent(&self) -> Vec<(String, Duration)> {
        let now = std::time::Instant::now();
        let nodes = self.nodes(now).into_iter();
        let silent = nodes.filter(|(_, node)| self.is_silent(node, now));
        silent
            .map(|(name, node)| (name, now.saturating_duration_since(node.heard)))
            .collect()
    }
}
