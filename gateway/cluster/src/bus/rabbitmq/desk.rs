//! What becomes of each message: told, then acknowledged, or told again, or given up.
//!
//! Decision: a message that can't be applied is told again from here, after a pause, while
//! the broker goes on holding it as unacknowledged. Sent back to the queue it would
//! come again at once and without a count, which classic queues don't keep and messages
//! of others carry no name for. The count is of this connection; after it the broker delivers
//! what is unacknowledged once more.
//!
//! Invariant: receipts of a former connection do nothing: their desk is gone.

use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use lapin::Acker;
use lapin::message::Delivery as Came;
use lapin::options::{BasicAckOptions, BasicNackOptions};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::time::sleep;

use crate::bus::transport::{DeliveryAck, IncomingMessage, TransportEvent};

/// The messages of one connection that are not acknowledged; as many as `prefetch` at most,
/// which bounds all that is unbounded here.
pub(super) struct AckTracker {
    max_redeliveries: u32,
    slips: UnboundedSender<(UnacknowledgedMessage, AckVerdict)>,
    verdicts: UnboundedReceiver<(UnacknowledgedMessage, AckVerdict)>,
    resting: FuturesUnordered<BoxFuture<'static, UnacknowledgedMessage>>,
}

struct UnacknowledgedMessage {
    acker: Acker,
    bytes: Bytes,
    /// How often it was told again.
    again: u32,
}

enum AckVerdict {
    Done,
    Again,
}

/// Before a message is told again the first time; doubled each time.
const REST_MIN: Duration = Duration::from_millis(50);
const REST_MAX: Duration = Duration::from_secs(1);

impl AckTracker {
    pub(super) fn new(max_redeliveries: u32) -> Self {
        let (slips, verdicts) = mpsc::unbounded_channel();
        Self {
            max_redeliveries,
            slips,
            verdicts,
            resting: FuturesUnordered::new(),
        }
    }

    /// The word about a message that came.
    pub(super) fn receive(&self, came: Came) -> TransportEvent {
        self.word(UnacknowledgedMessage {
            acker: came.acker,
            bytes: came.data.into(),
            again: 0,
        })
    }

    /// The next word that follows from a verdict: a message again, or that one was given up.
    pub(super) async fn next(&mut self) -> TransportEvent {
        loop {
            tokio::select! {
                verdict = self.verdicts.recv() => {
                    // Never none: we have a sender of it.
                    let Some((held, verdict)) = verdict else { continue };
                    if let Some(word) = self.apply(held, verdict) {
                        return word;
                    }
                }
                Some(held) = self.resting.next() => return self.word(held),
            }
        }
    }

    fn apply(
        &self,
        mut held: UnacknowledgedMessage,
        verdict: AckVerdict,
    ) -> Option<TransportEvent> {
        match verdict {
            AckVerdict::Done => {
                // Sent when first polled; nobody needs to wait until it is written.
                let _ = held.acker.ack(BasicAckOptions::default()).now_or_never();
                None
            }
            AckVerdict::Again if held.again < self.max_redeliveries => {
                let rest = rest(held.again);
                held.again += 1;
                self.resting.push(sleep(rest).map(|()| held).boxed());
                None
            }
            AckVerdict::Again => {
                // Without requeue: to a dead-letter exchange where a policy names one.
                let _ = held.acker.nack(BasicNackOptions::default()).now_or_never();
                Some(TransportEvent::Lost(
                    "a message was given up after too many deliveries",
                ))
            }
        }
    }

    fn word(&self, held: UnacknowledgedMessage) -> TransportEvent {
        TransportEvent::Message(IncomingMessage {
            bytes: held.bytes.clone(),
            receipt: Some(Box::new(RabbitMqAck {
                held: Some(held),
                desk: self.slips.clone(),
            })),
        })
    }
}

fn rest(again: u32) -> Duration {
    REST_MIN.saturating_mul(1 << again.min(16)).min(REST_MAX)
}

/// The receipt of one message.
struct RabbitMqAck {
    held: Option<UnacknowledgedMessage>,
    desk: UnboundedSender<(UnacknowledgedMessage, AckVerdict)>,
}

impl RabbitMqAck {
    fn hand_in(&mut self, verdict: AckVerdict) {
        if let Some(held) = self.held.take() {
            // Nobody there: the connection ended, and the broker delivers it again.
            let _ = self.desk.send((held, verdict));
        }
    }
}

impl DeliveryAck for RabbitMqAck {
    fn done(mut self: Box<Self>) {
        self.hand_in(AckVerdict::Done);
    }

    fn again(mut self: Box<Self>) {
        self.hand_in(AckVerdict::Again);
    }
}

impl Drop for RabbitMqAck {
    fn drop(&mut self) {
        self.hand_in(AckVerdict::Again);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn came() -> Came {
        Came::mock(1, "x".into(), "".into(), false, b"hello".to_vec())
    }

    fn receipt(word: TransportEvent) -> Box<dyn DeliveryAck> {
        let TransportEvent::Message(delivery) = word else {
            panic!("expected a message, got {word:?}");
        };
        assert_eq!(delivery.bytes, "hello");
        delivery.receipt.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_applied_comes_again_so_often_and_is_given_up_then() {
        let mut desk = AckTracker::new(2);
        receipt(desk.receive(came())).again();
        receipt(desk.next().await).again();
        // Dropped without a word counts like a failure.
        drop(receipt(desk.next().await));
        assert!(matches!(desk.next().await, TransportEvent::Lost(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_done_does_not_come_again() {
        let mut desk = AckTracker::new(2);
        receipt(desk.receive(came())).done();
        let more = tokio::time::timeout(Duration::from_secs(60), desk.next());
        assert!(more.await.is_err());
    }

    #[tokio::test]
    async fn a_receipt_of_a_former_connection_does_nothing() {
        let desk = AckTracker::new(2);
        let old = receipt(desk.receive(came()));
        drop(desk);
        old.done();
    }

    #[test]
    fn rests_grow_to_their_bound() {
        assert_eq!(rest(0), REST_MIN);
        assert_eq!(rest(1), REST_MIN * 2);
        assert_eq!(rest(u32::MAX), REST_MAX);
    }
}
