//! What JetStream needs on the server: the stream of all nodes, and this node's consumer.
//!
//! Decision: an existing stream is used, whoever made it; if it differs from the configuration,
//! that is logged once. The consumer belongs to this node alone, so it is changed to match the
//! configuration. A new consumer begins with the next message, since its node's cache is empty.
//! Messages that were delivered to a connection that has ended are requested again at once:
//! otherwise the server would wait for `ack_wait`, and newer messages would be taken in their
//! place.

use std::collections::HashSet;
use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::consumer::{
    AckPolicy, Consumer, DeliverPolicy, FromConsumer, Info, pull,
};
use async_nats::jetstream::context::{ConsumerInfoErrorKind, GetStreamErrorKind};
use async_nats::jetstream::stream::{self, Stream};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::{sleep, timeout};

use super::config::{JetStreamConfig, NatsConfig, StreamStorage};
use super::link::chain;
use super::memory::StreamMemory;

/// The position of this node in the stream.
pub(super) struct ConsumerPosition {
    pub(super) consumer: Consumer<pull::Config>,
    /// The number of messages that wait for this node; none if some may have been dropped unread.
    pub(super) behind: Option<u64>,
    pub(super) track: GapDetection,
    /// The largest message in bytes that the stream takes; none: as large as the server takes.
    pub(super) max_message_bytes: Option<usize>,
    /// How the stream shows that it lacks messages that were in it.
    pub(super) forgot: Option<String>,
}

/// What this process knows of the stream from its earlier connections.
pub(super) struct StreamKnowledge<'a> {
    pub(super) hands: &'a PendingSequences,
    pub(super) said: &'a StreamDifferenceLog,
    pub(super) memory: &'a StreamMemory,
}

/// Whether the numbers of the messages show a gap.
pub(super) enum GapDetection {
    /// The stream has messages for others, so holes in the numbers mean nothing.
    Blind,
    /// The number of the last message; this node's next messages follow it without holes.
    Last(u64),
}

/// Messages that this process has taken and not acknowledged yet, by their numbers in the stream.
/// They must not be taken a second time.
#[derive(Default)]
pub(super) struct PendingSequences(Mutex<HashSet<u64>>);

/// The differences that were last logged, so that each is logged once.
#[derive(Default)]
pub(super) struct StreamDifferenceLog(Mutex<String>);

/// The most messages that this node may have taken and not yet acknowledged.
pub(super) const UNANSWERED: i64 = 4_096;
/// The time limit for the server's answers about stream and consumer.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// The longest range of numbers that is searched for messages that were not acknowledged.
const RANGE: u64 = 4 * UNANSWERED as u64;
/// The pauses in milliseconds between the looks for messages that went to a former connection.
const LOOKS: [u64; 10] = [100, 150, 150, 200, 200, 200, 500, 1_000, 2_000, 4_000];
/// The negative acknowledgement on the wire.
const NOT_APPLIED: Bytes = Bytes::from_static(b"-NAK");

/// Finds or makes the stream and the consumer.
pub(super) async fn find_or_make(
    context: &Context,
    config: &NatsConfig,
    known: StreamKnowledge<'_>,
) -> Result<ConsumerPosition, String> {
    let jetstream = &config.jetstream;
    let StreamKnowledge {
        hands,
        said,
        memory,
    } = known;
    let stream = find(context, config).await?;
    let forgot = memory.compare(stream.cached_info());
    let mut differences = differences(&stream.cached_info().config, config);
    let name = jetstream.durable_name.as_deref().unwrap_or_default();
    let info = match stream.consumer_info(name).await {
        Ok(info) => info,
        Err(error) if error.kind() == ConsumerInfoErrorKind::NotFound => {
            said.say(jetstream, &differences);
            let place = begin(&stream, config, name).await?;
            return Ok(ConsumerPosition { forgot, ..place });
        }
        Err(error) => return Err(format!("consumer {name}: {}", chain(&error))),
    };
    let wanted = consumer(config, name);
    let had = pull::Config::try_from_consumer_config(info.config.clone());
    let had = had.map_err(|e| format!("consumer {name}: {e}"))?;
    let fits = adapted(&had, &wanted) == had;
    let changed = if fits {
        Ok(None)
    } else {
        adapt(&stream, &had, &wanted, jetstream).await
    };
    if let Err(why) = &changed {
        differences.push(format!("consumer {name}: {why}"));
    }
    said.say(jetstream, &differences);
    Ok(ConsumerPosition {
        max_message_bytes: max_message_bytes(&stream),
        forgot,
        behind: again(context, &info, &stream, hands).await,
        track: GapDetection::of(&stream, config, info.delivered.stream_sequence),
        consumer: match changed {
            Ok(Some(consumer)) => consumer,
            Ok(None) | Err(_) => Consumer::new(had, info, context.clone()),
        },
    })
}

/// The limit of the stream; -1 means that there is none.
fn max_message_bytes(stream: &Stream) -> Option<usize> {
    let most = stream.cached_info().config.max_message_size;
    usize::try_from(most).ok().filter(|most| *most > 0)
}

async fn find(context: &Context, config: &NatsConfig) -> Result<Stream, String> {
    let jetstream = &config.jetstream;
    let failed =
        |error: &dyn std::error::Error| format!("stream {}: {}", jetstream.stream, chain(error));
    match context.get_stream(&jetstream.stream).await {
        Ok(stream) => Ok(stream),
        Err(error) if jetstream.ensure_stream && is_missing(&error.kind()) => {
            let made = context.create_stream(stream(config)).await;
            made.map_err(|e| failed(&e))?;
            // Another node may have made it at the same time.
            let found = context.get_stream(&jetstream.stream).await;
            found.map_err(|e| failed(&e))
        }
        Err(error) => Err(failed(&error)),
    }
}

pub(super) fn is_missing(kind: &GetStreamErrorKind) -> bool {
    matches!(kind, GetStreamErrorKind::JetStream(e) if e.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

fn stream(config: &NatsConfig) -> stream::Config {
    let jetstream = &config.jetstream;
    stream::Config {
        name: jetstream.stream.clone(),
        subjects: vec![config.subject.clone()],
        storage: storage(jetstream.storage),
        num_replicas: jetstream.replicas,
        max_age: Duration::from_millis(jetstream.max_age_ms.unwrap_or(0)),
        max_messages: jetstream.max_msgs,
        max_bytes: -1,
        max_messages_per_subject: -1,
        max_consumers: -1,
        ..stream::Config::default()
    }
}

fn storage(storage: StreamStorage) -> stream::StorageType {
    match storage {
        StreamStorage::File => stream::StorageType::File,
        StreamStorage::Memory => stream::StorageType::Memory,
    }
}

/// How a stream differs from the configuration of this node.
pub(super) fn differences(has: &stream::Config, config: &NatsConfig) -> Vec<String> {
    let wants = stream(config);
    let mut found = Vec::new();
    let mut compare = |what: &str, has: String, wants: String| {
        if has != wants {
            found.push(format!("{what} is {has}, configured is {wants}"));
        }
    };
    compare("subjects", has.subjects.join(" "), wants.subjects.join(" "));
    compare(
        "storage",
        format!("{:?}", has.storage),
        format!("{:?}", wants.storage),
    );
    compare(
        "replicas",
        has.num_replicas.to_string(),
        wants.num_replicas.to_string(),
    );
    compare(
        "max_age",
        format!("{:?}", has.max_age),
        format!("{:?}", wants.max_age),
    );
    compare(
        "max_msgs",
        has.max_messages.to_string(),
        wants.max_messages.to_string(),
    );
    compare("max_bytes", limit(has.max_bytes), limit(wants.max_bytes));
    compare(
        "max_msgs_per_subject",
        limit(has.max_messages_per_subject),
        limit(wants.max_messages_per_subject),
    );
    compare("no_ack", has.no_ack.to_string(), wants.no_ack.to_string());
    compare("sealed", has.sealed.to_string(), wants.sealed.to_string());
    compare(
        "retention",
        format!("{:?}", has.retention),
        format!("{:?}", wants.retention),
    );
    compare(
        "discard",
        format!("{:?}", has.discard),
        format!("{:?}", wants.discard),
    );
    found
}

/// A limit, where 0 and -1 both mean that there is none.
fn limit(most: i64) -> String {
    match most {
        0 => -1,
        most => most,
    }
    .to_string()
}

fn consumer(config: &NatsConfig, name: &str) -> pull::Config {
    let jetstream = &config.jetstream;
    pull::Config {
        durable_name: Some(name.to_owned()),
        deliver_policy: DeliverPolicy::New,
        ack_policy: AckPolicy::Explicit,
        ack_wait: Duration::from_millis(jetstream.ack_wait_ms),
        max_deliver: i64::from(jetstream.max_deliver) + 1,
        filter_subject: config.subject.clone(),
        max_ack_pending: UNANSWERED,
        inactive_threshold: jetstream.inactive_threshold.0,
        ..pull::Config::default()
    }
}

/// `had`, with the wanted values of those settings of a consumer that can be changed.
fn adapted(had: &pull::Config, wanted: &pull::Config) -> pull::Config {
    pull::Config {
        ack_wait: wanted.ack_wait,
        max_deliver: wanted.max_deliver,
        max_ack_pending: wanted.max_ack_pending,
        inactive_threshold: wanted.inactive_threshold,
        filter_subject: wanted.filter_subject.clone(),
        ack_policy: wanted.ack_policy,
        ..had.clone()
    }
}

async fn adapt(
    stream: &Stream,
    had: &pull::Config,
    wanted: &pull::Config,
    jetstream: &JetStreamConfig,
) -> Result<Option<Consumer<pull::Config>>, String> {
    if !jetstream.ensure_consumer {
        return Err(format!("is {}, configured is {}", told(had), told(wanted)));
    }
    let changed = stream.create_consumer(adapted(had, wanted)).await;
    changed.map(Some).map_err(|e| chain(&e))
}

fn told(config: &pull::Config) -> String {
    format!(
        "ack_wait {:?}, max_deliver {}, max_ack_pending {}, inactive_threshold {:?}, filter {:?}, {:?} acks",
        config.ack_wait,
        config.max_deliver,
        config.max_ack_pending,
        config.inactive_threshold,
        config.filter_subject,
        config.ack_policy,
    )
}

/// Makes a consumer because the server does not know this node yet, or has forgotten it.
async fn begin(
    stream: &Stream,
    config: &NatsConfig,
    name: &str,
) -> Result<ConsumerPosition, String> {
    if !config.jetstream.ensure_consumer {
        return Err(format!(
            "consumer {name}: there is none, and `ensure_consumer` is off"
        ));
    }
    let made = stream.create_consumer(consumer(config, name)).await;
    let consumer = made.map_err(|e| format!("consumer {name}: {}", chain(&e)))?;
    let last = consumer.cached_info().delivered.stream_sequence;
    Ok(ConsumerPosition {
        consumer,
        behind: None,
        track: GapDetection::of(stream, config, last),
        max_message_bytes: max_message_bytes(stream),
        forgot: None,
    })
}

/// How many messages come next, including those that were delivered to a connection that has ended.
/// None if some will not come, or will come later.
async fn again(
    context: &Context,
    info: &Info,
    stream: &Stream,
    hands: &PendingSequences,
) -> Option<u64> {
    let (floor, last) = (
        info.ack_floor.stream_sequence,
        info.delivered.stream_sequence,
    );
    if floor.saturating_add(1) < stream.cached_info().state.first_sequence {
        return None;
    }
    let unanswered = info.num_ack_pending.saturating_sub(hands.count());
    if unanswered == 0 {
        return Some(info.num_pending);
    }
    if last.saturating_sub(floor) > RANGE {
        return None;
    }
    let missing = hands.lack(info);
    // A server counts a message that it could not deliver twice: as pending and as unanswered.
    let unanswered = unanswered.min(missing.len()) as u64;
    let asked = timeout(PATIENCE, ask_again(context, info, missing)).await;
    asked.ok()??;
    Some(info.num_pending.saturating_add(unanswered))
}

/// Looks for messages that were delivered and did not come, and requests them again, for some
/// seconds after a connection began: where its network was away, the server takes the former
/// connection for a living one until TCP or a ping tells it otherwise, and delivers there what that
/// one had requested. Never ends.
pub(super) async fn recover_strays(
    context: &Context,
    consumer: &Consumer<pull::Config>,
    hands: &PendingSequences,
) -> String {
    let mut before = HashSet::new();
    for pause in LOOKS.map(Duration::from_millis) {
        sleep(pause).await;
        let Ok(Ok(info)) = timeout(PATIENCE, consumer.get_info()).await else {
            continue;
        };
        let missing: HashSet<u64> = hands.lack(&info).into_iter().collect();
        // Those that are missing for the first time may be on their way.
        let strays = missing.intersection(&before).copied().collect();
        let _ = timeout(PATIENCE, ask_again(context, &info, strays)).await;
        before = missing;
    }
    std::future::pending().await
}

/// Sends a negative acknowledgement for each message; the server ignores those that were
/// acknowledged.
async fn ask_again(context: &Context, info: &Info, missing: Vec<u64>) -> Option<()> {
    let client = context.client();
    let (stream, name, place) = (
        &info.stream_name,
        &info.name,
        info.delivered.consumer_sequence,
    );
    let mut last = None;
    for number in missing {
        let to = format!("$JS.ACK.{stream}.{name}.1.{number}.{place}.0.0");
        if let Some(to) = last.replace(to) {
            client.publish(to, NOT_APPLIED).await.ok()?;
        }
    }
    match last {
        // The server answers when it has handled all messages before this one.
        Some(to) => client.request(to, NOT_APPLIED).await.ok().map(drop),
        None => Some(()),
    }
}

impl GapDetection {
    fn of(stream: &Stream, config: &NatsConfig, last: u64) -> Self {
        let alone = stream.cached_info().config.subjects == [config.subject.as_str()];
        if alone { Self::Last(last) } else { Self::Blind }
    }

    /// Records a message's number. True: it is delivered for the first time, and messages before it
    /// never came.
    pub(super) fn hole(&mut self, number: u64, delivered: u32) -> bool {
        let Self::Last(last) = self else {
            return false;
        };
        let hole = delivered == 1 && number > *last + 1;
        *last = number.max(*last);
        hole
    }
}

impl PendingSequences {
    /// False: it is held already.
    pub(super) fn take(&self, number: u64) -> bool {
        self.0.lock().insert(number)
    }

    pub(super) fn give(&self, number: u64) {
        self.0.lock().remove(&number);
    }

    fn hold(&self, number: u64) -> bool {
        self.0.lock().contains(&number)
    }

    fn count(&self) -> usize {
        self.0.lock().len()
    }

    /// The numbers of messages that may have been delivered and are not held, if the server waits
    /// for more acknowledgements than are to come; none where they are too many to be listed.
    fn lack(&self, info: &Info) -> Vec<u64> {
        let floor = info.ack_floor.stream_sequence;
        let last = info.delivered.stream_sequence;
        if info.num_ack_pending <= self.count() || last.saturating_sub(floor) > RANGE {
            return Vec::new();
        }
        (floor + 1..=last).filter(|n| !self.hold(*n)).collect()
    }
}

impl StreamDifferenceLog {
    fn say(&self, jetstream: &JetStreamConfig, differences: &[String]) {
        let text = differences.join("; ");
        let mut last = self.0.lock();
        if *last != text && !text.is_empty() {
            tracing::warn!(
                bus = "jetstream",
                stream = %jetstream.stream,
                differences = %text,
                "the stream is used as it is, although it differs from the configuration"
            );
        }
        *last = text;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_is_told_once_and_from_the_first_message_on() {
        let mut track = GapDetection::Last(4);
        assert!(!track.hole(5, 1));
        assert!(!track.hole(6, 1));
        assert!(track.hole(8, 1));
        assert!(!track.hole(9, 1));
        assert!(!track.hole(7, 2), "late and again, so it is not lost");
        assert!(!track.hole(10, 1));
        assert!(GapDetection::Last(4).hole(6, 1), "the first that comes");
        assert!(
            !GapDetection::Blind.hole(6, 1),
            "numbers of others mean nothing"
        );
    }

    #[test]
    fn what_is_delivered_again_after_what_never_came_is_no_hole() {
        let mut track = GapDetection::Last(0);
        assert!(
            !track.hole(3, 2),
            "it was given out before, and so were those before it"
        );
        assert!(!track.hole(4, 1));
    }
}
