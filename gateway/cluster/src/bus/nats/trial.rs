//! NATS under names that no gateway uses.
//!
//! Decision: with JetStream each end has a consumer of its own, which the server forgets by itself
//! if we can't delete it. What is published stays in the stream until the stream's limits remove
//! it, as with any event: to remove it would leave holes in the numbers, which nodes that are away
//! would take for a loss. A stream that does not exist yet is not made; instead, the trial makes
//! and deletes one of its own, with a subject below the configured one.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{ConsumerInfoErrorKind, ContextBuilder};
use async_nats::jetstream::stream::{ConsumerErrorKind, Stream};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::config::{NatsConfig, NatsMode};
use super::link::{NatsConnection, chain, connect};
use super::stream::{PATIENCE, differences, is_missing};
use crate::bus::transport::BusTransport;
use crate::bus::trial::{BrokerFinding, PreparedTrial, TransportTrial};
use crate::description::InvalidSetting;
use crate::units;

/// From what the ends are made.
pub(super) struct NatsTrial {
    config: NatsConfig,
    mark: String,
    /// The trial uses a stream of its own.
    own_stream: bool,
}

/// The server forgets a consumer that was not used for this long.
const FORGOTTEN: units::ConfigDuration = units::ConfigDuration::secs(60);
/// The first letters of a configured name, with which our own names begin: rights may depend on
/// them.
const KEPT: usize = 64;

impl NatsTrial {
    pub(super) async fn prepare(config: &NatsConfig, mark: &str) -> Result<PreparedTrial, String> {
        let mut trial = Self {
            config: config.clone(),
            mark: mark.to_owned(),
            own_stream: false,
        };
        if config.mode == NatsMode::Core {
            return Ok((Box::new(trial), Vec::new()));
        }
        let line = connect(config, &mut Vec::new()).await?;
        let (own_stream, seen) = while_connected(&line, look(&context(&line), config)).await?;
        trial.own_stream = own_stream;
        Ok((Box::new(trial), seen))
    }

    /// The configuration of one end.
    fn end(&self, name: &str) -> NatsConfig {
        let mut config = self.config.clone();
        config.name = Some("lamina doctor".to_owned());
        let mark = &self.mark;
        if self.own_stream {
            config.subject = format!("{}.doctor-{mark}", config.subject);
            config.jetstream.stream = self.stream();
        }
        if config.mode == NatsMode::Jetstream {
            config.jetstream.durable_name = Some(self.consumer(name));
            config.jetstream.ensure_consumer = true;
            config.jetstream.inactive_threshold = FORGOTTEN;
        }
        config
    }

    fn stream(&self) -> String {
        let (stream, mark) = (&self.config.jetstream.stream, &self.mark);
        match self.own_stream {
            true => format!("{stream:.KEPT$}-doctor-{mark}"),
            false => stream.clone(),
        }
    }

    fn consumer(&self, name: &str) -> String {
        let durable = self.config.jetstream.durable_name.as_deref();
        let (durable, mark) = (durable.unwrap_or_default(), &self.mark);
        format!("{durable:.KEPT$}-doctor-{mark}-{name}")
    }

    async fn remove(&self, names: &[&str]) -> Result<(), String> {
        if self.config.mode == NatsMode::Core {
            return Ok(());
        }
        let line = connect(&self.config, &mut Vec::new()).await?;
        while_connected(&line, self.remove_from(&context(&line), names)).await
    }

    async fn remove_from(&self, context: &Context, names: &[&str]) -> Result<(), String> {
        let name = self.stream();
        if self.own_stream {
            let gone = context.delete_stream(&name).await;
            return gone
                .map(drop)
                .map_err(|e| format!("stream {name}: {}", chain(&e)));
        }
        let stream = context.get_stream(&name).await;
        let stream = stream.map_err(|e| format!("stream {name}: {}", chain(&e)))?;
        for name in names {
            delete(&stream, &self.consumer(name)).await?;
        }
        Ok(())
    }
}

impl TransportTrial for NatsTrial {
    fn open(&self, name: &str) -> Result<Arc<dyn BusTransport>, InvalidSetting> {
        Ok(super::open(&self.end(name))?)
    }

    fn clear<'a>(&'a self, names: &'a [&'a str]) -> BoxFuture<'a, Result<(), String>> {
        self.remove(names).boxed()
    }
}

fn context(line: &NatsConnection) -> Context {
    ContextBuilder::new()
        .timeout(PATIENCE)
        .build(line.client.clone())
}

/// Awaits this, or the end of the connection, which says more than a request without an answer.
async fn while_connected<T>(
    line: &NatsConnection,
    work: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    tokio::select! {
        done = work => done,
        why = line.ended() => Err(why),
    }
}

/// Finds out which stream there is, and whether the trial needs one of its own.
async fn look(
    context: &Context,
    config: &NatsConfig,
) -> Result<(bool, Vec<BrokerFinding>), String> {
    let Some(stream) = find(context, config).await? else {
        let says = format!(
            "{} does not exist yet: the first gateway creates it; a temporary one was used for \
             these checks",
            config.jetstream.stream
        );
        let (what, fault) = ("stream", None);
        return Ok((true, vec![BrokerFinding { what, says, fault }]));
    };
    let seen = vec![
        seen_stream(&stream, config),
        seen_consumer(&stream, config).await?,
    ];
    Ok((false, seen))
}

async fn find(context: &Context, config: &NatsConfig) -> Result<Option<Stream>, String> {
    let name = &config.jetstream.stream;
    match context.get_stream(name).await {
        Ok(stream) => Ok(Some(stream)),
        Err(error) if is_missing(&error.kind()) => match config.jetstream.ensure_stream {
            true => Ok(None),
            false => Err(format!(
                "there is no stream {name}, and `ensure_stream` is off"
            )),
        },
        Err(error) => Err(format!("stream {name}: {}", chain(&error))),
    }
}

fn seen_stream(stream: &Stream, config: &NatsConfig) -> BrokerFinding {
    let info = stream.cached_info();
    let (name, messages) = (&config.jetstream.stream, info.state.messages);
    let found = differences(&info.config, config);
    let (says, fault) = match found.is_empty() {
        true => (
            format!("{name} is as configured, {messages} messages"),
            None,
        ),
        false => (
            format!(
                "{name} is used as it is, although it differs from the configuration: {}",
                found.join("; ")
            ),
            Some("nats.jetstream.stream"),
        ),
    };
    let what = "stream";
    BrokerFinding { what, says, fault }
}

async fn seen_consumer(stream: &Stream, config: &NatsConfig) -> Result<BrokerFinding, String> {
    let name = config.jetstream.durable_name.as_deref().unwrap_or_default();
    let (says, fault) = match stream.consumer_info(name).await {
        Ok(info) => {
            let (waiting, taken) = (info.num_pending, info.num_ack_pending);
            (
                format!(
                    "{name}: {waiting} messages wait for this node, {taken} are not acknowledged"
                ),
                None,
            )
        }
        Err(error) if error.kind() != ConsumerInfoErrorKind::NotFound => {
            return Err(format!("consumer {name}: {}", chain(&error)));
        }
        Err(_) if config.jetstream.ensure_consumer => (
            format!("{name} does not exist yet: this node creates it when it starts"),
            None,
        ),
        Err(_) => (
            format!("there is no consumer {name}, and `ensure_consumer` is off"),
            Some("nats.jetstream.ensure_consumer"),
        ),
    };
    let what = "consumer";
    Ok(BrokerFinding { what, says, fault })
}

/// Deletes a consumer. One that does not exist was never made, which is not an error.
async fn delete(stream: &Stream, name: &str) -> Result<(), String> {
    let Err(error) = stream.delete_consumer(name).await else {
        return Ok(());
    };
    match error.kind() {
        ConsumerErrorKind::JetStream(said)
            if said.error_code() == ErrorCode::CONSUMER_NOT_FOUND =>
        {
            Ok(())
        }
        _ => {
            let wait = Duration::from(FORGOTTEN);
            Err(format!(
                "consumer {name}, which NATS forgets after {wait:?}: {}",
                chain(&error)
            ))
        }
    }
}
