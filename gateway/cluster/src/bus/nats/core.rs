//! NATS without a store: at most once, to the nodes that are connected.
//!
//! Decision: a batch counts as published when its marker has come back. The marker is a message to
//! ourselves after the batch. The server handles the messages of one client in order, so when the
//! marker returns, the server has taken the batch, or has said before that it refuses it. A flush
//! alone only shows that bytes were written to a socket. A marker also shows that a subscription
//! exists. It is sent twice, since a refusal arrives before the first marker does, but another task
//! reports it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_nats::Subscriber;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use tokio::sync::watch;
use tokio::time::timeout;

use super::config::NatsConfig;
use super::link::{NatsConnection, chain};
use super::transport::{NatsConnectionState, NatsSession};
use crate::bus::transport::{PublishError, PublishOutcome, TransportEventSender};

/// The number of markers that are awaited, one after the other.
const MARKERS: usize = 2;

pub(super) struct NatsCoreSession {
    config: NatsConfig,
    standing: NatsConnectionState<NatsCorePublisher>,
}

/// A connection, and the markers that were sent and came back on it.
#[derive(Clone)]
pub(super) struct NatsCorePublisher {
    line: NatsConnection,
    marks: Arc<PublishMarks>,
}

struct PublishMarks {
    inbox: String,
    sent: AtomicU64,
    back: watch::Sender<u64>,
}

impl NatsSession for NatsCoreSession {
    type Publisher = NatsCorePublisher;

    fn config(&self) -> &NatsConfig {
        &self.config
    }

    fn standing(&self) -> &NatsConnectionState<NatsCorePublisher> {
        &self.standing
    }

    async fn consume(&self, line: &NatsConnection, mail: &TransportEventSender) -> String {
        let begun = tokio::select! {
            begun = timeout(self.config.connect_timeout.0, self.begin(line)) => begun,
            why = line.ended() => return why,
        };
        let (messages, marks, publisher) = match begun {
            Ok(Ok(begun)) => begun,
            Ok(Err(why)) => return why,
            Err(_) => return "no answer to the subscription".to_owned(),
        };
        self.standing.limit_messages(line.client.max_payload());
        if !self.standing.up(publisher.clone(), None, mail).await {
            return "the receiver of events has ended".to_owned();
        }
        let dropped = stream::repeat(()).then(|()| line.dropped());
        let messages = stream::select(messages.map(|m| Some(m.payload)), dropped.map(|()| None));
        tokio::select! {
            biased;
            why = line.ended() => why,
            () = publisher.marks.come_back(marks) => "the subscription ended".to_owned(),
            () = mail.forward(messages) => "the subscription ended".to_owned(),
        }
    }

    async fn publish(&self, publisher: NatsCorePublisher, messages: &[Bytes]) -> PublishOutcome {
        tokio::select! {
            done = self.send(&publisher, messages) => done,
            why = publisher.line.ended() => (0, Some(PublishError::Down(why))),
        }
    }
}

impl NatsCoreSession {
    pub(super) fn new(config: NatsConfig) -> Self {
        let standing = NatsConnectionState::new();
        Self { config, standing }
    }

    async fn send(&self, publisher: &NatsCorePublisher, messages: &[Bytes]) -> PublishOutcome {
        let subject = &self.config.subject;
        let (sent, refused) = publisher.line.send(subject, messages).await;
        for _ in 0..MARKERS {
            if let Err(why) = publisher.there_and_back().await {
                return (0, Some(PublishError::Down(why)));
            }
        }
        match publisher.line.refusal(subject) {
            Some(said) => (0, Some(PublishError::Refused(said))),
            None => (sent, refused),
        }
    }

    /// Subscribes, and waits until the server confirms it.
    async fn begin(
        &self,
        line: &NatsConnection,
    ) -> Result<(Subscriber, Subscriber, NatsCorePublisher), String> {
        let client = &line.client;
        let inbox = client.new_inbox();
        let mut marks = client
            .subscribe(inbox.clone())
            .await
            .map_err(|e| chain(&e))?;
        let messages = client.subscribe(self.config.subject.clone()).await;
        let messages = messages.map_err(|e| chain(&e))?;
        let publisher = NatsCorePublisher {
            line: line.clone(),
            marks: Arc::new(PublishMarks {
                inbox,
                sent: AtomicU64::new(0),
                back: watch::Sender::new(0),
            }),
        };
        for _ in 0..MARKERS {
            publisher.send_mark().await?;
            tokio::select! {
                mark = marks.next() => mark.ok_or("the subscription ended")?,
                said = line.refused(&publisher.marks.inbox) => return Err(said),
            };
        }
        Ok((messages, marks, publisher))
    }
}

impl NatsCorePublisher {
    /// Returns when the server has handled everything that was sent before.
    async fn there_and_back(&self) -> Result<(), String> {
        let mut back = self.marks.back.subscribe();
        let mark = self.send_mark().await?;
        let came = back.wait_for(|number| *number >= mark).await;
        came.map(drop)
            .map_err(|_| "the connection ended".to_owned())
    }

    async fn send_mark(&self) -> Result<u64, String> {
        let mark = self.marks.sent.fetch_add(1, Ordering::Relaxed) + 1;
        let payload = Bytes::copy_from_slice(&mark.to_be_bytes());
        let sent = self
            .line
            .client
            .publish(self.marks.inbox.clone(), payload)
            .await;
        sent.map(|()| mark).map_err(|e| chain(&e))
    }
}

impl PublishMarks {
    /// Records the markers that come back, until the subscription ends.
    async fn come_back(&self, mut marks: Subscriber) {
        while let Some(mark) = marks.next().await {
            if let Ok(number) = <[u8; 8]>::try_from(&*mark.payload) {
                let number = u64::from_be_bytes(number);
                self.back.send_if_modified(|back| {
                    let newer = number > *back;
                    *back = number.max(*back);
                    newer
                });
            }
        }
    }
}
