//! Warnings about who can write to the bus or to Redis: because a seal key is missing, or because
//! writers without it are accepted, too.

use std::net::IpAddr;

use super::GatewayConfig;
use super::problem::{ConfigFinding, path};
use crate::bus::config::{BusConfig, EventAdmission};
use crate::units::host_and_port;

/// All these warnings.
pub fn warnings(config: &GatewayConfig) -> impl Iterator<Item = ConfigFinding> {
    let bus = config.bus.as_ref();
    let events = bus.and_then(|bus| match config.bus_seal_key() {
        None => unsealed_bus(bus),
        Some(_) => bus_that_takes_others(bus),
    });
    unsealed_records(config).into_iter().chain(events)
}

fn unsealed_bus(bus: &BusConfig) -> Option<ConfigFinding> {
    let transports = bus.transports().into_iter();
    let servers = transports.flat_map(|transport| transport.servers());
    let place = first_beyond_this_machine(servers)?;
    let message = format!(
        "`seal_key` is not set, and the event bus is not on this machine ({place}): whoever can \
         publish there can purge the caches of all nodes and put pages of their own into them; \
         expected `seal_key_file` with one secret for all nodes (SECURITY.md says what a writer \
         can do without it)"
    );
    Some(ConfigFinding::key(path(&["bus"]), message))
}

fn bus_that_takes_others(bus: &BusConfig) -> Option<ConfigFinding> {
    if bus.unsealed_events == EventAdmission::Accept {
        let message = "events without a seal count as if there were no `seal_key`; \
                       remove it when all nodes have the key";
        return Some(ConfigFinding::key(
            path(&["bus", "unsealed_events"]),
            message,
        ));
    }
    let message = "services need no key to purge, so whoever can publish on the bus can purge the \
                   caches of all nodes; they can put nothing into them";
    let accepts = bus.foreign_events == Some(EventAdmission::Accept);
    accepts.then(|| ConfigFinding::key(path(&["bus", "foreign_events"]), message))
}

fn unsealed_records(config: &GatewayConfig) -> Option<ConfigFinding> {
    let l2 = &config.cache.l2;
    let store = l2.store().filter(|_| l2.seal_key.is_none())?;
    let server = store.shared_through()?;
    let place = first_beyond_this_machine(store.servers())?;
    let message = format!(
        "`seal_key` is not set, and {server} is not on this machine ({place}): whoever can write there \
         can put pages of their own into the caches of all nodes; expected `seal_key_file` with \
         one secret for all nodes (SECURITY.md says what a writer can do without it)"
    );
    Some(ConfigFinding::key(path(&["cache", "l2"]), message))
}

fn first_beyond_this_machine<'a>(urls: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let hosts = urls.into_iter().flat_map(hosts);
    let mut beyond = hosts.filter(|host| !is_this_machine(host));
    beyond.next()
}

/// The hosts of `scheme://a:1,b:2/path`, each as it is written.
fn hosts(url: &str) -> impl Iterator<Item = &str> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?']).next().unwrap_or(rest);
    let hosts = authority.rsplit('@').next().unwrap_or(authority);
    hosts.split(',')
}

/// A host that can't be judged counts as another machine.
fn is_this_machine(host: &str) -> bool {
    let Some((name, _)) = host_and_port(host, 1) else {
        return false;
    };
    match name.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            name == "localhost" || name.ends_with(".localhost")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn warned(rest: &str) -> Vec<String> {
        let text = format!(
            "version: 1\nlisteners: [{{ address: 127.0.0.1:0 }}]\nupstreams: {{ o: http://127.0.0.1:1 }}\n\
             routes: [{{ name: site, upstream: o }}]\n{rest}\n"
        );
        let config = config::parse(&text, "x.yaml", &|_| None);
        let config = config.unwrap_or_else(|problems| panic!("{problems}"));
        warnings(&config)
            .map(|finding| format!("{}: {}", finding.path, finding.message))
            .collect()
    }

    const KEY: &str = "a key of more than 16 bytes";

    #[test]
    fn every_transport_that_leaves_the_machine_asks_for_a_key() {
        for bus in [
            "redis: { url: 'redis://10.0.0.1' }",
            "redis: { url: 'rediss://cache.internal:6380/1' }",
            "redis: { url: 'redis-sentinel://127.0.0.1:26379,10.0.0.2:26379' }",
            "redis: { url: 'redis-cluster://127.0.0.1,[2001:db8::1]:7000' }",
            "nats: { servers: ['nats://127.0.0.1:4222', 'tls://nats.internal:4222'] }",
            "nats: { servers: ['nats://nats:4222'], mode: jetstream, jetstream: { durable_name: a } }",
            "rabbitmq: { url: 'amqp://localhost:5672,rabbit:5672' }",
            "rabbitmq: { url: 'amqps://0.0.0.0:5671' }",
        ] {
            let said = warned(&format!("bus: {{ {bus} }}"));
            assert_eq!(said.len(), 1, "{bus}: {said:?}");
            assert!(said[0].contains("bus: `seal_key` is not set"), "{said:?}");
            let said = warned(&format!("bus: {{ seal_key: {KEY}, {bus} }}"));
            assert!(said.is_empty(), "{bus}: {said:?}");
            let key = format!("cache: {{ l2: {{ disk: {{ path: x }}, seal_key: {KEY} }} }}");
            let said = warned(&format!("{key}\nbus: {{ {bus} }}"));
            assert!(said.is_empty(), "the key of the second tier: {said:?}");
        }
    }

    #[test]
    fn what_stays_on_the_machine_needs_none() {
        for bus in [
            "redis: {}",
            "redis: { url: 'redis-cluster://127.0.0.1:7000,127.8.0.1,[::1]:7000,localhost' }",
            "nats: {}",
            "nats: { servers: ['nats://LOCALHOST:4222', 'tls://a.localhost', '[::ffff:127.0.0.1]:4222'] }",
            "rabbitmq: { url: 'amqp://[::1]:5672' }",
        ] {
            let said = warned(&format!("bus: {{ {bus} }}"));
            assert!(said.is_empty(), "{bus}: {said:?}");
        }
    }

    #[test]
    fn a_store_that_leaves_the_machine_asks_for_a_key_of_its_own() {
        let store = "redis: { url: 'redis://10.0.0.1' }";
        let said = warned(&format!("cache: {{ l2: {{ {store} }} }}"));
        assert!(
            said[0].contains("cache.l2: `seal_key` is not set"),
            "{said:?}"
        );
        let bus = format!("bus: {{ seal_key: {KEY}, {store} }}");
        let said = warned(&format!("cache: {{ l2: {{ {store} }} }}\n{bus}"));
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(
            said[0].contains("cache.l2: `seal_key` is not set"),
            "{said:?}"
        );
        let said = warned(&format!("cache: {{ l2: {{ {store}, seal_key: {KEY} }} }}"));
        assert!(said.is_empty(), "{said:?}");
        assert!(warned("cache: { l2: { redis: {} } }").is_empty());
    }

    #[test]
    fn what_weakens_a_key_is_told() {
        for (weak, word) in [
            (
                "unsealed_events: accept",
                "remove it when all nodes have the key",
            ),
            ("foreign_events: accept", "services need no key to purge"),
        ] {
            let said = warned(&format!("bus: {{ nats: {{}}, seal_key: {KEY}, {weak} }}"));
            assert!(said[0].contains(word), "{said:?}");
        }
    }
}
