//! Whether a configuration of NATS is valid, as far as that is known without reading files or using
//! the network.

use super::config::{JetStreamConfig, NatsConfig, NatsMode, NatsOpenError};
use super::link::address;
use crate::units::ConfigDuration;

/// The first setting that is not valid.
pub(super) fn check(config: &NatsConfig) -> Result<(), NatsOpenError> {
    if config.servers.is_empty() {
        return Err(NatsOpenError::Servers);
    }
    for server in &config.servers {
        address(server)?;
    }
    check_subjects(config)?;
    check_credentials(config)?;
    if config.ping_interval == ConfigDuration::ZERO {
        return Err(NatsOpenError::Ping);
    }
    match config.mode {
        NatsMode::Core => Ok(()),
        NatsMode::Jetstream => check_jetstream(&config.jetstream),
    }
}

fn check_subjects(config: &NatsConfig) -> Result<(), NatsOpenError> {
    let subjects = [
        ("subject", &config.subject),
        ("inbox_prefix", &config.inbox_prefix),
    ];
    let wrong = subjects.into_iter().find(|(_, given)| !is_subject(given));
    wrong.map_or(Ok(()), |(key, given)| {
        let given = given.clone();
        Err(NatsOpenError::Subject { key, given })
    })
}

fn check_credentials(config: &NatsConfig) -> Result<(), NatsOpenError> {
    let ways = [
        config.username.is_some() || config.password.is_some() || config.password_file.is_some(),
        config.token.is_some() || config.token_file.is_some(),
        config.credentials_file.is_some(),
    ];
    match ways.into_iter().filter(|way| *way).count() {
        0 | 1 => Ok(()),
        _ => Err(NatsOpenError::Ways),
    }
}

fn check_jetstream(config: &JetStreamConfig) -> Result<(), NatsOpenError> {
    let durable = config.durable_name.as_ref();
    let durable = durable.ok_or(NatsOpenError::DurableName)?;
    for (key, given) in [("stream", &config.stream), ("durable_name", durable)] {
        if !is_name(given) {
            let given = given.clone();
            return Err(NatsOpenError::Name { key, given });
        }
    }
    let numbers = [
        ("replicas", (1..=5).contains(&config.replicas)),
        ("max_deliver", config.max_deliver > 0),
        ("ack_wait_ms", config.ack_wait_ms > 0),
        ("max_age_ms", config.max_age_ms != Some(0)),
        ("max_msgs", config.max_msgs == -1 || config.max_msgs > 0),
    ];
    match numbers.into_iter().find(|(_, fits)| !fits) {
        Some((key, _)) => Err(NatsOpenError::Number(key)),
        None => Ok(()),
    }
}

/// Whether it is one subject, without wildcards.
fn is_subject(text: &str) -> bool {
    let token =
        |t: &str| !t.is_empty() && t.chars().all(|c| !c.is_whitespace() && !"*>".contains(c));
    text.split('.').all(token)
}

/// Whether it can be the name of a stream or consumer.
fn is_name(text: &str) -> bool {
    let plain = |c: char| !c.is_whitespace() && !c.is_control() && !".*>/\\".contains(c);
    !text.is_empty() && text.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(change: impl FnOnce(&mut NatsConfig)) -> Option<&'static str> {
        let mut nats = NatsConfig {
            mode: NatsMode::Jetstream,
            ..NatsConfig::default()
        };
        nats.jetstream.durable_name = Some("node-1".to_owned());
        change(&mut nats);
        check(&nats).err().map(|error| error.key())
    }

    #[test]
    fn what_can_be_no_nats_is_told_with_its_key() {
        assert_eq!(key(|_| {}), None);
        assert_eq!(key(|n| n.servers.clear()), Some("servers"));
        for wrong in ["", "http://a", "nats://me:pw@a", "nats://me@a", "nats://"] {
            assert_eq!(
                key(|n| n.servers[0] = wrong.to_owned()),
                Some("servers"),
                "{wrong}"
            );
        }
        for fine in ["a", "a:4223", "tls://a:1", "nats://[::1]:4222"] {
            assert_eq!(key(|n| n.servers[0] = fine.to_owned()), None, "{fine}");
        }
        for wrong in ["", "a..b", "a.*", ">", "a b", "a.\r\nPUB"] {
            assert_eq!(
                key(|n| n.subject = wrong.to_owned()),
                Some("subject"),
                "{wrong}"
            );
        }
        assert_eq!(
            key(|n| n.inbox_prefix = String::new()),
            Some("inbox_prefix")
        );
        let two = |n: &mut NatsConfig| {
            n.username = Some("a".to_owned());
            n.token = Some("b".to_owned());
        };
        assert_eq!(key(two), Some("username"));
        assert_eq!(
            key(|n| n.ping_interval = ConfigDuration::ZERO),
            Some("ping_interval")
        );
        assert_eq!(
            key(|n| n.jetstream.durable_name = None),
            Some("jetstream.durable_name")
        );
        assert_eq!(
            key(|n| n.jetstream.durable_name = Some("a.b".to_owned())),
            Some("jetstream.durable_name")
        );
        assert_eq!(
            key(|n| n.jetstream.stream = "a/b".to_owned()),
            Some("jetstream.stream")
        );
        assert_eq!(
            key(|n| n.jetstream.replicas = 0),
            Some("jetstream.replicas")
        );
        assert_eq!(
            key(|n| n.jetstream.max_deliver = 0),
            Some("jetstream.max_deliver")
        );
        assert_eq!(
            key(|n| n.jetstream.max_msgs = 0),
            Some("jetstream.max_msgs")
        );
        let core = |n: &mut NatsConfig| {
            n.mode = NatsMode::Core;
            n.jetstream.durable_name = None;
        };
        assert_eq!(key(core), None, "only JetStream needs a durable name");
    }
}
