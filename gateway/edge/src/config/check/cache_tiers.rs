//! Checks the tiers of the cache, the purge log and what a restart begins with.

use super::collector::FindingCollector;
use super::{in_words, seal_key};
use crate::cache::config::{L2Config, WarmConfig};
use crate::config::GatewayConfig;
use crate::config::problem::{ConfigFinding, ConfigPath, path};
use crate::units::ConfigDuration;

/// The most keys in the file of hot keys.
const MOST_KEYS: usize = 1_000_000;
/// The most buckets for invalidations (16 bytes each) that are reasonable.
const MAX_BUCKETS: usize = 1 << 24;
/// The longest that the start may wait for the warm-up: a service manager waits for that as well.
const LONGEST_WARMING: ConfigDuration = ConfigDuration::secs(600);

pub(super) fn check(config: &GatewayConfig, report: &mut FindingCollector) {
    let (cache, at) = (&config.cache, path(&["cache"]));
    let (object, all) = (cache.l1.max_object_bytes, cache.l1.max_bytes);
    if object > all {
        let message = format!(
            "an object of {object} does not fit into max_bytes ({all}); expected at most that"
        );
        report.add(at.key("l1").key("max_object_bytes"), message);
    }
    if cache.backoff.base > cache.backoff.max {
        let message = format!(
            "base ({}) is longer than max ({}); expected at most that",
            cache.backoff.base, cache.backoff.max
        );
        report.add(at.key("backoff").key("base"), message);
    }
    second_tier(&cache.l2, &at.key("l2"), report);
    if let Some(warm) = &cache.warm {
        warm_start(warm, &at.key("warm"), report);
    }
    for (key, number) in [
        ("max_records", cache.purge_log.max_records),
        ("max_request_records", cache.purge_log.max_request_records),
        ("max_patterns", cache.purge_log.max_patterns),
        ("invalidation_buckets", cache.purge_log.invalidation_buckets),
    ] {
        report.positive(at.key("purge_log").key(key), number as u64);
    }
    let buckets = cache.purge_log.invalidation_buckets;
    if buckets > MAX_BUCKETS {
        let message = format!(
            "{buckets} buckets would take more than 256 MiB; expected at most {MAX_BUCKETS}"
        );
        report.add(at.key("purge_log").key("invalidation_buckets"), message);
    }
    report.positive(
        at.key("purge_log").key("sweep_interval"),
        cache.purge_log.sweep_interval.0.as_millis() as u64,
    );
}

fn warm_start(warm: &WarmConfig, at: &ConfigPath, report: &mut FindingCollector) {
    // The folder of the YAML file stands before the name by now.
    let name = warm.file.as_os_str().as_encoded_bytes();
    if name.is_empty() || name.ends_with(b"/") {
        report.add(
            at.key("file"),
            "no name of a file; expected one, as in `lamina.hot`",
        );
    }
    if !(1..=MOST_KEYS).contains(&warm.keys) {
        let message = format!("{} keys; expected 1 to {MOST_KEYS}", warm.keys);
        report.add(at.key("keys"), message);
    }
    if warm.at_most > LONGEST_WARMING {
        let message = format!(
            "{} is too long for a service manager that waits; expected at most {LONGEST_WARMING}",
            warm.at_most
        );
        report.add(at.key("for"), message);
    }
    report.positive(at.key("for"), warm.at_most.0.as_millis() as u64);
    if warm.every < ConfigDuration::secs(1) {
        let message = format!("{} is too often; expected at least 1s", warm.every);
        report.add(at.key("every"), message);
    }
    if warm.snapshot.is_some_and(|most| most.0 == 0) {
        let message = "0 would hold nothing; expected 1 or more, or no key for keys alone";
        report.add(at.key("snapshot"), message);
    }
    report.positive(at.key("origin_rate"), warm.origin_rate.into());
}

fn second_tier(l2: &L2Config, at: &ConfigPath, report: &mut FindingCollector) {
    let stores = l2.stores();
    if let [first, second, ..] = stores.as_slice() {
        let count = in_words(L2Config::STORES.len());
        let message = format!(
            "given beside `{}`; expected one of the {count}",
            first.name()
        );
        report.push(ConfigFinding::key(at.key(second.name()), message));
    }
    for (key, number) in [
        ("max_life", l2.max_life.0.as_millis()),
        ("read_timeout", l2.read_timeout.0.as_millis()),
        ("write_timeout", l2.write_timeout.0.as_millis()),
        ("max_concurrent", l2.max_concurrent as u128),
    ] {
        report.positive(at.key(key), number as u64);
    }
    let lease = l2.lease.ttl.0.as_millis() as u64;
    report.positive(at.key("lease").key("ttl"), lease);
    seal_key(&l2.seal_key, &at.key("seal_key"), report);
    let invalid = stores
        .iter()
        .find_map(|store| Some((store.name(), store.check().err()?)));
    if let Some((section, error)) = invalid {
        report.add_below(at.key(section), error.key(), error.to_string());
    }
}
