//! The outcome of each message: it is passed on, and then acknowledged, or passed on again, or
//! given up.
//!
//! Decision: a message that can't be applied is passed on again from here, after a pause, while the
//! broker still holds it as unacknowledged. If it were returned to the queue, it would come again
//! at once and without a count: classic queues keep no count, and messages of other services have
//! no id by which we could count. The count belongs to this connection; after the connection ends,
//! the broker delivers unacknowledged messages once more.
//!
//! Invariant: acknowledgements of an earlier connection have no effect: their [`AckTracker`] is
//! gone.

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

/// The messages of one connection that are not acknowledged: at most as many as `prefetch`, which
/// also bounds the unbounded channel and the list of pauses here.
pub(super) struct AckTracker {
    max_redeliveries: u32,
    slips: UnboundedSender<(UnacknowledgedMessage, AckVerdict)>,
    verdicts: UnboundedReceiver<(UnacknowledgedMessage, AckVerdict)>,
    resting: FuturesUnordered<BoxFuture<'static, UnacknowledgedMessage>>,
}

struct UnacknowledgedMessage {
    acker: Acker,
    bytes: Bytes,
    /// How often it was passed on again.
    again: u32,
}

enum AckVerdict {
    Done,
    Again,
}

/// The pause before a message is passed on again the first time; doubled each time.
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

    /// The transport event for a message that arrived.
    pub(super) fn receive(&self, came: Came) -> TransportEvent {
        self.word(UnacknowledgedMessage {
            acker: came.acker,
            bytes: came.data.into(),
            again: 0,
        })
    }

    /// The next transport event that follows from an acknowledgement: a message is passed on again,
    /// or was given up.
    pub(super) async fn next(&mut self) -> TransportEvent {
        loop {
            tokio::select! {
                verdict = self.verdicts.recv() => {
                    // Never none: this struct holds a sender.
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
                // It is sent when it is first polled; nobody needs to wait until it is written.
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
                // Without requeue: the message goes to a dead-letter exchange if a policy names
                // one.
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
                verdicts: self.slips.clone(),
            })),
        })
    }
}

fn rest(again: u32) -> Duration {
    REST_MIN.saturating_mul(1 << again.min(16)).min(REST_MAX)
}

/// The acknowledgement of one message.
struct RabbitMqAck {
    held: Option<UnacknowledgedMessage>,
    verdicts: UnboundedSender<(UnacknowledgedMessage, AckVerdict)>,
}

impl RabbitMqAck {
    fn hand_in(&mut self, verdict: AckVerdict) {
        if let Some(held) = self.held.take() {
            // If the receiver is gone, the connection has ended, and the broker delivers the
            // message again.
            let _ = self.verdicts.send((held, verdict));
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
        let mut acks = AckTracker::new(2);
        receipt(acks.receive(came())).again();
        receipt(acks.next().await).again();
        // Dropping the acknowledgement counts as a failure.
        drop(receipt(acks.next().await));
        assert!(matches!(acks.next().await, TransportEvent::Lost(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_done_does_not_come_again() {
        let mut acks = AckTracker::new(2);
        receipt(acks.receive(came())).done();
        let more = tokio::time::timeout(Duration::from_secs(60), acks.next());
        assert!(more.await.is_err());
    }

    #[tokio::test]
    async fn a_receipt_of_a_former_connection_does_nothing() {
        let acks = AckTracker::new(2);
        let old = receipt(acks.receive(came()));
        drop(acks);
        old.done();
    }

    #[test]
    fn rests_grow_to_their_bound() {
        assert_eq!(rest(0), REST_MIN);
        assert_eq!(rest(1), REST_MIN * 2);
        assert_eq!(rest(u32::MAX), REST_MAX);
    }
}
