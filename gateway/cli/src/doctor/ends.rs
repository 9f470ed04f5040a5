//! Both ends of the bus: one that publishes and one that listens, over connections of their own, so
//! that every event that is received has passed through the broker.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::AGAIN;
use super::probe_events::{self, ProbeEventWriter};
use lamina_base::description::InvalidSetting;
use lamina_cluster::bus::event::EventShape;
use lamina_cluster::bus::seal::SealKeys;
use lamina_cluster::bus::transport::{
    BusTransport, PublishError, TransportEvent, TransportEventReceiver, TransportEventSender,
};
use lamina_cluster::bus::trial::TransportTrial;

/// The names of the two ends.
pub(super) const NAMES: [&str; 2] = ["speaker", "listener"];
/// How long a published event may take to arrive.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Both ends of the bus.
pub(super) struct BusProbe {
    speaker: Arc<dyn BusTransport>,
    listener: Arc<dyn BusTransport>,
    words: TransportEventReceiver,
    writer: ProbeEventWriter,
    /// The numbers of our events that arrived, in the order of their arrival.
    pub(super) came: Vec<u64>,
    _deaf: DiscardTask,
}

/// Discards the events that arrive at the publishing end.
struct DiscardTask(JoinHandle<()>);

impl Drop for DiscardTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl BusProbe {
    /// Starts to connect.
    pub(super) fn open(
        trial: &dyn TransportTrial,
        seal: Option<SealKeys>,
    ) -> Result<Self, InvalidSetting> {
        let [speaker, listener] = NAMES.map(|name| trial.open(name));
        let (speaker, listener) = (speaker?, listener?);
        let (mail, mut unread) = TransportEventSender::new();
        speaker.run(mail);
        let deaf = tokio::spawn(async move { while take(unread.recv().await).is_some() {} });
        let (mail, words) = TransportEventSender::new();
        listener.run(mail);
        Ok(Self {
            speaker,
            listener,
            words,
            writer: ProbeEventWriter::new(seal),
            came: Vec::new(),
            _deaf: DiscardTask(deaf),
        })
    }

    /// Waits until both ends are connected.
    pub(super) async fn up(&mut self, limit: Duration) -> Result<(), String> {
        let began = Instant::now();
        for end in [&self.speaker, &self.listener] {
            loop {
                let why = match timeout(PATIENCE, end.publish(&[])).await {
                    Ok((_, None)) => break,
                    Ok((_, Some(PublishError::Down(why)))) => why,
                    Ok((_, Some(error))) => error.to_string(),
                    Err(_) => PublishError::Timeout.to_string(),
                };
                if began.elapsed() >= limit {
                    return Err(why);
                }
                sleep(AGAIN / 10).await;
            }
        }
        Ok(())
    }

    /// This many events with the next numbers.
    pub(super) fn events(&mut self, count: usize) -> Vec<Bytes> {
        let inert = (0..count).map(|_| EventShape::inert());
        inert.map(|shape| self.writer.next_event(shape)).collect()
    }

    /// One event of about this size.
    pub(super) fn event_of(&mut self, bytes: usize) -> Bytes {
        self.writer.next_event(probe_events::keys(bytes))
    }

    /// Takes back the number of the last event, which is not published.
    pub(super) fn forget_last(&mut self) {
        self.writer.written -= 1;
    }

    /// Publishes all events. Returns how long the broker took to accept them.
    pub(super) async fn publish(
        &self,
        events: &[Bytes],
        limit: Duration,
    ) -> Result<Duration, String> {
        let began = Instant::now();
        accepted(&*self.speaker, events, limit).await?;
        Ok(began.elapsed())
    }

    /// Publishes one event and waits for it. Returns how long the broker took to accept it, and the
    /// time of the whole round trip.
    pub(super) async fn round_trip(
        &mut self,
        limit: Duration,
    ) -> Result<(Duration, Duration), String> {
        let (event, began) = (self.events(1), Instant::now());
        let number = self.writer.written;
        let speaker = Arc::clone(&self.speaker);
        let publish = async {
            accepted(&*speaker, &event, limit).await?;
            Ok(began.elapsed())
        };
        let hear = async {
            self.hear(number, PATIENCE).await?;
            Ok(began.elapsed())
        };
        tokio::try_join!(publish, hear)
    }

    /// The same with a large event, published as values are.
    pub(super) async fn round_trip_of(
        &mut self,
        event: Bytes,
        limit: Duration,
    ) -> Result<Duration, String> {
        let (began, number) = (Instant::now(), self.writer.written);
        let event = [event];
        let answer = timeout(limit, self.speaker.whisper(&event)).await;
        taken(answer.unwrap_or((0, Some(PublishError::Timeout))))?;
        self.hear(number, PATIENCE).await?;
        Ok(began.elapsed())
    }

    /// Waits until our event with this number has arrived.
    pub(super) async fn hear(&mut self, number: u64, limit: Duration) -> Result<(), String> {
        let heard = timeout(limit, async {
            while !self.came.contains(&number) {
                self.next().await?;
            }
            Ok(())
        });
        let late = |_| "a published event was not received in time".to_owned();
        heard.await.map_err(late)?
    }

    /// Waits until all events so far have arrived. Returns the numbers of those that have not.
    pub(super) async fn hear_all(&mut self) -> Vec<u64> {
        let _ = timeout(PATIENCE, async {
            while !self.unheard().is_empty() && self.next().await.is_ok() {}
        })
        .await;
        self.unheard()
    }

    fn unheard(&self) -> Vec<u64> {
        let said = 1..=self.writer.written;
        said.filter(|number| !self.came.contains(number)).collect()
    }

    /// Cuts the listener's connection, and waits until the listener notices.
    pub(super) async fn cut_listener(&mut self) -> Result<(), String> {
        self.listener.cut();
        let down = timeout(PATIENCE, async {
            while !matches!(self.next().await?, ListenerEvent::Down) {}
            Ok(())
        });
        let late = |_| "the connection was cut, but it still works".to_owned();
        down.await.map_err(late)?
    }

    /// Cuts both connections. Returns how long it took until events arrived again.
    pub(super) async fn reconnect(&mut self, limit: Duration) -> Result<Duration, String> {
        let (began, before) = (Instant::now(), self.writer.written);
        self.speaker.cut();
        self.cut_listener().await?;
        let mut why = "no event arrived in time".to_owned();
        while began.elapsed() < limit {
            let event = self.events(1);
            match self.publish(&event, PATIENCE).await {
                Ok(_) => {
                    let _ = self.hear(self.writer.written, AGAIN).await;
                }
                Err(error) => {
                    why = error;
                    sleep(AGAIN / 10).await;
                }
            }
            if self.came.iter().any(|number| *number > before) {
                return Ok(began.elapsed());
            }
        }
        Err(format!("after the connection was cut: {why}"))
    }

    async fn next(&mut self) -> Result<ListenerEvent, String> {
        match take(self.words.recv().await) {
            None => Err("the transport has ended".to_owned()),
            Some(TransportEvent::Down(_)) => Ok(ListenerEvent::Down),
            Some(TransportEvent::Message(delivery)) => {
                self.came.extend(self.writer.number(&delivery.bytes));
                Ok(ListenerEvent::Other)
            }
            Some(TransportEvent::Up { .. } | TransportEvent::Lost(_) | TransportEvent::Forgot) => {
                Ok(ListenerEvent::Other)
            }
        }
    }
}

/// What the listener received.
enum ListenerEvent {
    Down,
    Other,
}

/// Confirms that a message was applied, so that it is not delivered again.
fn take(word: Option<TransportEvent>) -> Option<TransportEvent> {
    match word? {
        TransportEvent::Message(mut delivery) => {
            if let Some(receipt) = delivery.receipt.take() {
                receipt.done();
            }
            Some(TransportEvent::Message(delivery))
        }
        other => Some(other),
    }
}

/// Publishes events. A broker may say why it takes none only after the first one was sent to it, as
/// RabbitMQ does with an alarm: after a silence, the transport is asked what it knows by then.
async fn accepted(
    speaker: &dyn BusTransport,
    events: &[Bytes],
    limit: Duration,
) -> Result<(), String> {
    let answer = timeout(limit, speaker.publish(events)).await;
    let answer = answer.unwrap_or((0, Some(PublishError::Timeout)));
    let (_, Some(PublishError::Timeout)) = answer else {
        return taken(answer);
    };
    let known = timeout(AGAIN, speaker.publish(&[])).await;
    let (_, why) = known.unwrap_or((0, None));
    taken((0, why.or(Some(PublishError::Timeout))))
}

fn taken((_, error): (usize, Option<PublishError>)) -> Result<(), String> {
    error.map_or(Ok(()), |error| Err(error.to_string()))
}
