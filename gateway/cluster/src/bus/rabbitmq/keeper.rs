//! Keeps a link up: after each link ends it opens another one, with growing, jittered pauses.
//!
//! lapin's own recovery is off: it gives up after some attempts, and does not report how much the
//! queue has kept.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::KIND;
use super::config::RabbitMqConfig;
use super::fault::RabbitMqFault;
use super::link::RabbitMqLink;
use super::publish::{BrokerSizeLimit, RabbitMqPublisher};
use super::target::RabbitMqTarget;
use crate::backoff::{self, OutageTracker};
use crate::bus::inbox::ExpectedNamesake;
use crate::bus::transport::{ConnectionCutter, TransportEvent, TransportEventSender};

/// Whether there is a link, and its publishing side.
pub(super) struct RabbitMqLinkState(RwLock<Result<Arc<RabbitMqPublisher>, String>>);

impl RabbitMqLinkState {
    pub(super) fn new() -> Self {
        Self(RwLock::new(Err("not connected yet".to_owned())))
    }

    /// The publisher, or why there is none.
    pub(super) fn publisher(&self) -> Result<Arc<RabbitMqPublisher>, String> {
        self.0.read().clone()
    }

    fn set(&self, standing: Result<Arc<RabbitMqPublisher>, String>) {
        *self.0.write() = standing;
    }
}

/// Opens links, one after another.
pub(super) struct RabbitMqReconnector {
    pub(super) config: Arc<RabbitMqConfig>,
    pub(super) target: Arc<RabbitMqTarget>,
    pub(super) standing: Arc<RabbitMqLinkState>,
    pub(super) knife: Arc<ConnectionCutter>,
    pub(super) largest: Arc<BrokerSizeLimit>,
    pub(super) namesake: Arc<ExpectedNamesake>,
    pub(super) stop: CancellationToken,
    pub(super) mail: TransportEventSender,
}

/// The pause after the first failure.
const PAUSE_MIN: Duration = Duration::from_millis(200);
/// A link that lived this long does not count as a failure.
const GOOD: Duration = Duration::from_secs(10);

/// Who has the queue that this node may not use.
#[derive(Clone, Copy, PartialEq, Eq)]
enum QueueOwner {
    /// The process whose place this one takes, which is about to give it up.
    ReplacedProcess,
    /// Nobody, or nobody that should.
    Unknown,
}

impl RabbitMqReconnector {
    pub(super) async fn keep(self) {
        let mut failures: u32 = 0;
        let mut told: Option<RabbitMqFault> = None;
        let mut awaited = QueueOwner::Unknown;
        let mut outages = OutageTracker::default();
        for attempt in 0.. {
            let began = Instant::now();
            let Some(why) = self.once(attempt, &mut told, &mut outages).await else {
                break;
            };
            if told.is_none() && !self.mail.tell(TransportEvent::Down(why.to_string())).await {
                break;
            }
            if began.elapsed() > GOOD {
                failures = 0;
            }
            let owner = self.queue_owner(&why);
            let is_new = owner != std::mem::replace(&mut awaited, owner);
            match owner {
                QueueOwner::ReplacedProcess if is_new => tracing::info!(
                    bus = KIND,
                    "the process before still has the queue of this node on RabbitMQ; this one gets \
                     it when that gives it up"
                ),
                QueueOwner::ReplacedProcess => {}
                // One line for an outage, not for every attempt and reason.
                QueueOwner::Unknown if outages.fails(failures == 0 || is_new) => {
                    tracing::warn!(bus = KIND, error = %why, "no consumer on RabbitMQ; reconnecting");
                }
                QueueOwner::Unknown => {
                    tracing::debug!(bus = KIND, error = %why, "no consumer on RabbitMQ");
                }
            }
            told = Some(why);
            failures = failures.saturating_add(1);
            let pause = backoff::pause(failures, PAUSE_MIN, self.config.reconnect_max.0);
            tokio::select! {
                () = sleep(pause) => {}
                () = self.stop.cancelled() => break,
            }
        }
        self.standing
            .set(Err("the transport was closed".to_owned()));
    }

    fn queue_owner(&self, why: &RabbitMqFault) -> QueueOwner {
        match why {
            RabbitMqFault::Locked(_) if self.namesake.is_expected() => QueueOwner::ReplacedProcess,
            _ => QueueOwner::Unknown,
        }
    }

    /// Runs one link from its beginning to its end. Returns why it ended, or none to stop for good.
    async fn once(
        &self,
        attempt: usize,
        told: &mut Option<RabbitMqFault>,
        outages: &mut OutageTracker,
    ) -> Option<RabbitMqFault> {
        let opened = tokio::select! {
            opened = RabbitMqLink::open(&self.config, &self.target, attempt, &self.largest) => opened,
            () = self.stop.cancelled() => return None,
        };
        let ended = match opened {
            Ok(link) => {
                *told = None;
                let behind = link.behind();
                if let Some(after_seconds) = outages.end().line() {
                    tracing::info!(bus = KIND, behind, after_seconds, "consuming from RabbitMQ");
                }
                self.standing.set(Ok(Arc::clone(&link.publisher)));
                if !self.mail.tell(TransportEvent::Up { behind }).await {
                    return None;
                }
                tokio::select! {
                    ended = link.serve(&self.mail, &self.stop) => ended,
                    why = self.knife.falls() => Err(RabbitMqFault::Broken(why.to_owned())),
                }
            }
            Err(fault) => Err(fault),
        };
        let why = ended.err()?;
        self.standing.set(Err(why.to_string()));
        if why == RabbitMqFault::Cancelled {
            // Messages that were in the queue arrived before the cancel, and are lost.
            let lost = TransportEvent::Lost("the broker deleted the queue");
            self.mail.tell(lost).await.then_some(why)
        } else {
            Some(why)
        }
    }
}
