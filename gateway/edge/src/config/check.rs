//! Checks the meaning of a configuration whose syntax and types are correct.
//!
//! All errors are reported together, each with its own path. This reads no clock, no file and no
//! network: the secrets have been read before.

pub use rules::compress::warnings as compress_warnings;

use std::collections::BTreeMap;

use super::GatewayConfig;
use super::problem::{ConfigFinding, ConfigPath, MAX_FINDINGS, nearest, one_of, path};
use crate::bus::config::BusConfig;
use crate::cache::config::{L2Config, WarmConfig};
use crate::dialects::config::PurgeDialect;
use crate::http::config::ListenerConfig;
use crate::origin::config::{
    BalanceMethod, HedgeDelay, NameResolutionConfig, OriginVerification, TargetConfig,
    TargetLocation, UpstreamConfig,
};
use crate::proxy::config::PurgeMethodConfig;
use crate::units::{ByteSize, ConfigDuration};

mod admin_listener;
mod automatic;
mod form;
mod listener_tls;
mod policy;
mod routes;
mod rules;

/// What a stream to an origin may be read ahead: at least a frame (RFC 9113 §4.2).
const STREAM_WINDOWS: std::ops::RangeInclusive<ByteSize> = ByteSize::kib(16)..=ByteSize::mib(1_024);
/// The least memory that compiles a small plugin.
const LEAST_TO_COMPILE: ByteSize = ByteSize::mib(64);
/// The most keys in the file of hot keys.
const MOST_KEYS: usize = 1_000_000;
/// The most bytes of a node's name, as the bus allows.
const MAX_NAME: usize = 255;
/// The least bytes of a `seal_key`.
const MIN_SEAL_KEY: usize = 16;

/// Finds everything in `config` that cannot work or cannot be intended.
pub fn check(config: &GatewayConfig) -> Vec<ConfigFinding> {
    let mut report = FindingCollector::default();
    server(config, &mut report);
    listeners(config, &mut report);
    upstreams(config, &mut report);
    cache(config, &mut report);
    policy::check(
        &config.defaults,
        &Default::default(),
        &path(&["defaults"]),
        &mut report,
    );
    if let Some(given) = &config.defaults.compress {
        let at = path(&["defaults", "compress"]);
        rules::compress::check(given, &at, &mut report);
    }
    rules::limits::check_named(config, &mut report);
    routes::check(config, &mut report);
    plugins(config, &mut report);
    if let Some(given) = &config.bus {
        bus(config, given, &mut report);
    }
    automatic::check(config, &mut report);
    access(config, &mut report);
    recent_requests(config, &mut report);
    report.findings
}

/// Collects findings.
#[derive(Default)]
struct FindingCollector {
    findings: Vec<ConfigFinding>,
}

impl FindingCollector {
    fn add(&mut self, at: ConfigPath, message: impl Into<String>) {
        self.push(ConfigFinding::value(at, message));
    }

    /// Adds a finding about the key `below` of a section. Dots in it lead into further sections.
    fn add_below(&mut self, section: ConfigPath, below: &str, message: String) {
        let at = below.split('.').fold(section, |at, key| at.key(key));
        self.add(at, message);
    }

    fn add_near(&mut self, at: ConfigPath, message: String, near: Option<&str>) {
        self.push(ConfigFinding::value(at, message).near(near));
    }

    fn push(&mut self, finding: ConfigFinding) {
        if !self.is_full() {
            self.findings.push(finding);
        }
    }

    /// Whether there are so many findings that no more need to be looked for.
    fn is_full(&self) -> bool {
        self.findings.len() >= MAX_FINDINGS
    }

    fn form(&mut self, at: &ConfigPath, checked: Result<(), String>) {
        if let Err(message) = checked {
            self.add(at.clone(), message);
        }
    }

    fn form_of_key(&mut self, at: &ConfigPath, checked: Result<(), String>) {
        if let Err(message) = checked {
            self.push(ConfigFinding::key(at.clone(), message));
        }
    }

    fn each(
        &mut self,
        at: &ConfigPath,
        texts: &[String],
        check: impl Fn(&str) -> Result<(), String>,
    ) {
        for (n, text) in texts.iter().enumerate() {
            self.form(&at.index(n), check(text));
        }
    }

    /// Checks that `name` is a key of `all`.
    fn known<T>(&mut self, at: ConfigPath, kind: &str, name: &str, all: &BTreeMap<String, T>) {
        if all.contains_key(name) || self.is_full() {
            return;
        }
        let names: Vec<&String> = all.keys().collect();
        let expected = if names.is_empty() {
            format!("but `{kind}s` defines none")
        } else {
            format!("expected {}", one_of(&names))
        };
        self.add_near(
            at,
            format!("no {kind} is named `{name}`; {expected}"),
            nearest(name, &names),
        );
    }

    fn positive(&mut self, at: ConfigPath, n: u64) {
        if n == 0 {
            self.add(at, "0 would allow nothing; expected 1 or more");
        }
    }
}

fn server(config: &GatewayConfig, report: &mut FindingCollector) {
    if let Some(threads) = config.server.threads.filter(|n| !(1..=1024).contains(n)) {
        report.add(
            path(&["server", "threads"]),
            format!("{threads} threads; expected 1 to 1024, or no key for one per core"),
        );
    }
    let held = config.server.max_held_bytes;
    if held.0 < LEAST_HELD.0 {
        report.add(
            path(&["server", "max_held_bytes"]),
            format!(
                "{held} is too little for the answers that are being sent; expected {LEAST_HELD} \
                 or more"
            ),
        );
    }
}

/// With less memory, not even a few answers under way would fit, and nothing could be loaded.
const LEAST_HELD: ByteSize = ByteSize::mib(1);

/// The most requests that may be kept in memory as the last ones.
const MOST_RECENT: usize = 10_000;

fn recent_requests(config: &GatewayConfig, report: &mut FindingCollector) {
    let (recent, at) = (
        &config.telemetry.recent_requests,
        path(&["telemetry", "recent_requests"]),
    );
    if recent.keep > MOST_RECENT {
        let message = format!(
            "{} requests would take too much memory; expected at most {MOST_RECENT}, or 0 to \
             keep none",
            recent.keep
        );
        report.add(at.key("keep"), message);
    }
    if recent.one_hit_in == 0 {
        let message = "0 is not valid; expected 1 to keep each hit, or more to keep fewer";
        report.add(at.key("one_hit_in"), message);
    }
}

fn listeners(config: &GatewayConfig, report: &mut FindingCollector) {
    let all = path(&["listeners"]);
    if config.listeners.is_empty() {
        report.add(
            all.clone(),
            "no listeners; expected at least one, as in `- address: 127.0.0.1:8080`",
        );
    }
    for (i, listener) in config.listeners.iter().enumerate() {
        let at = all.index(i);
        let (address, earlier) = (listener.address, &config.listeners[..i]);
        if address.port() != 0 && earlier.iter().any(|l| l.address == address) {
            report.add(
                at.key("address"),
                format!("{address} is another listener's address; expected one of its own"),
            );
        }
        if address.port() != 0 && Some(address) == config.admin.address.tcp() {
            report.add(
                at.key("address"),
                format!("{address} is the admin listener's address; expected one of its own"),
            );
        }
        if listener.protocols.is_empty() {
            report.add(
                at.key("protocols"),
                "no protocols; expected `http1`, `http2` or both",
            );
        }
        report.each(
            &at.key("trusted_proxies"),
            &listener.trusted_proxies,
            form::cidr,
        );
        report.each(
            &at.key("trusted_headers"),
            &listener.trusted_headers,
            ListenerConfig::may_believe,
        );
        if !listener.trusted_headers.is_empty() && listener.trusted_proxies.is_empty() {
            report.add(
                at.key("trusted_headers"),
                "no trusted_proxies, so that these fields are accepted from nobody; expected the \
                 addresses of the proxies that set these fields",
            );
        }
        if listener.proxy_protocol && listener.trusted_proxies.is_empty() {
            report.add(
                at.key("proxy_protocol"),
                "no trusted_proxies, so that every connection would be refused; \
                 expected the addresses of the proxies that speak it",
            );
        }
        listener_tls::check(listener, &at, report);
        limits(&listener.limits, &at.key("limits"), report);
    }
}

fn limits(
    limits: &crate::http::config::ListenerLimits,
    at: &ConfigPath,
    report: &mut FindingCollector,
) {
    let all = [
        ("max_connections", limits.max_connections as u64),
        ("max_header_bytes", limits.max_header_bytes.0),
        ("max_headers", limits.max_headers as u64),
        ("max_uri_bytes", limits.max_uri_bytes.0),
        ("header_timeout", limits.header_timeout.0.as_millis() as u64),
        ("body_timeout", limits.body_timeout.0.as_millis() as u64),
        ("idle_timeout", limits.idle_timeout.0.as_millis() as u64),
        ("upload_timeout", limits.upload_timeout.0.as_millis() as u64),
        ("min_rate_grace", limits.min_rate_grace.0.as_millis() as u64),
        ("max_streams", u64::from(limits.max_streams)),
        ("max_held_bytes", limits.max_held_bytes.0),
    ];
    for (key, n) in all {
        report.positive(at.key(key), n);
    }
}

fn upstreams(config: &GatewayConfig, report: &mut FindingCollector) {
    for (name, upstream) in &config.upstreams {
        let at = path(&["upstreams"]).key(name);
        report.form_of_key(&at, form::name(name));
        if upstream.targets.is_empty() && upstream.targets_file.is_none() {
            report.add(
                at.key("targets"),
                "no targets; expected at least one URL, as in http://127.0.0.1:9000",
            );
        }
        report
            .findings
            .extend(listed_targets(&upstream.targets, &at.key("targets")));
        name_resolution(&upstream.resolver, &at.key("resolver"), report);
        balance(upstream, &at, report);
        active_health(upstream, &at, report);
        origin_tls(upstream, &at, report);
        report.positive(
            at.key("timeouts").key("connect"),
            upstream.timeouts.connect.0.as_millis() as u64,
        );
        report.positive(
            at.key("timeouts").key("first_byte"),
            upstream.timeouts.first_byte.0.as_millis() as u64,
        );
        report.positive(
            at.key("timeouts").key("idle"),
            upstream.timeouts.idle.0.as_millis() as u64,
        );
        report.positive(
            at.key("timeouts").key("tunnel"),
            upstream.timeouts.tunnel.0.as_millis() as u64,
        );
        report.positive(
            at.key("load").key("max_concurrent"),
            upstream.load.max_concurrent as u64,
        );
        adaptive_limit(upstream, &at, report);
    }
}

/// Checks a list of targets that stands at this place.
pub fn listed_targets(targets: &[TargetConfig], at: &ConfigPath) -> Vec<ConfigFinding> {
    let mut report = FindingCollector::default();
    for (n, target) in targets.iter().enumerate() {
        let at = at.index(n);
        match &target.location {
            TargetLocation::Url(url) => report.form(&at, form::target(url)),
            TargetLocation::Dns(named) => {
                report.form(&at.key("dns"), form::host_name(&named.name));
                if named.port == Some(0) {
                    report.add(at.key("port"), "0 is no port; expected 1 to 65535");
                }
            }
            TargetLocation::Srv(service) => {
                report.form(&at.key("srv"), form::host_name(&service.name));
            }
        }
    }
    report.findings
}

/// Checks how names are resolved.
fn name_resolution(
    resolver: &NameResolutionConfig,
    at: &ConfigPath,
    report: &mut FindingCollector,
) {
    if resolver.floor < ConfigDuration::secs(1) {
        let said = format!("{} is too often; expected at least 1s", resolver.floor);
        report.add(at.key("floor"), said);
    }
    if resolver.ceiling < resolver.floor {
        let said = format!(
            "{} is less than the floor of {}; expected as much or more",
            resolver.ceiling, resolver.floor
        );
        report.add(at.key("ceiling"), said);
    }
    report.positive(at.key("max_targets"), resolver.max_targets as u64);
}

/// Checks how requests are distributed and repeated.
fn balance(upstream: &UpstreamConfig, at: &ConfigPath, report: &mut FindingCollector) {
    let (balance, at_balance) = (&upstream.balance, at.key("balance"));
    match (balance.by, &balance.hash) {
        (BalanceMethod::Hash, None) => report.add(
            at_balance.key("by"),
            "nothing to choose by; set `hash` to key, client, `header NAME` or `cookie NAME`",
        ),
        (BalanceMethod::LeastRequest | BalanceMethod::RoundRobin, Some(_)) => report.add(
            at_balance.key("hash"),
            "given beside `by` with another method; expected `by: hash`",
        ),
        _ => {}
    }
    if !(1.0..=100.0).contains(&balance.bound) {
        let said = format!(
            "{} is no bound; expected a number from 1 to 100",
            balance.bound
        );
        report.add(at_balance.key("bound"), said);
    }
    if let Some(sticky) = &balance.sticky {
        let at = at_balance.key("sticky");
        report.form(&at.key("cookie"), form::name(&sticky.cookie));
        let seconds = sticky.max_age.map_or(1, |age| age.0.as_secs());
        report.positive(at.key("max_age"), seconds);
    }
    let passive = &upstream.health.passive;
    let percents = [
        (at_balance.key("panic"), balance.panic),
        (
            at.key("health").key("passive").key("max_ejected"),
            passive.max_ejected,
        ),
        (at.key("retry").key("budget"), upstream.retry.budget),
    ];
    for (key, percent) in percents {
        if percent > 100 {
            report.add(
                key,
                format!("{percent} is no share in percent; expected 0 to 100"),
            );
        }
    }
    let window = upstream.pool.stream_window;
    if !STREAM_WINDOWS.contains(&window) {
        let said = format!("{window} is no window of a stream; expected 16KiB to 1GiB");
        report.add(at.key("pool").key("stream_window"), said);
    }
    if let Some(hedge) = &upstream.retry.hedge {
        let at = at.key("retry").key("hedge");
        if let HedgeDelay::Fixed(time) = hedge.after {
            report.positive(at.key("after"), time.0.as_millis() as u64);
        }
        if upstream.retry.attempts < 2 {
            let message = "a second request is one more attempt than `attempts` allows; \
                           expected 2 or more attempts, or no `hedge`";
            report.push(ConfigFinding::key(at, message));
        }
    }
    let attempts = u64::from(upstream.retry.attempts);
    report.positive(at.key("retry").key("attempts"), attempts);
    report.each(
        &at.key("retry").key("methods"),
        &upstream.retry.methods,
        form::method,
    );
}

/// Checks between which bounds a limit is found out.
fn adaptive_limit(upstream: &UpstreamConfig, at: &ConfigPath, report: &mut FindingCollector) {
    let (load, at) = (&upstream.load, at.key("load").key("adaptive").key("min"));
    let Some(adaptive) = &load.adaptive else {
        return;
    };
    report.positive(at.clone(), adaptive.min as u64);
    if adaptive.min > load.max_concurrent {
        let message = format!(
            "{} is more than max_concurrent ({}); expected at most that",
            adaptive.min, load.max_concurrent
        );
        report.add(at, message);
    }
}

/// Checks how targets are asked whether they are well.
fn active_health(upstream: &UpstreamConfig, at: &ConfigPath, report: &mut FindingCollector) {
    let Some(active) = &upstream.health.active else {
        return;
    };
    let at = at.key("health").key("active");
    report.form(&at.key("path"), form::origin_path(&active.path));
    if let Some(host) = &active.host {
        report.form(&at.key("host"), form::host_field(host));
    }
    for (key, number) in [
        ("interval", active.interval.0.as_millis() as u64),
        ("timeout", active.timeout.0.as_millis() as u64),
        ("fall", u64::from(active.fall)),
        ("rise", u64::from(active.rise)),
    ] {
        report.positive(at.key(key), number);
    }
    if active.statuses.is_empty() {
        let message = "no status would be good; expected some, as in [200-399]";
        report.add(at.key("statuses"), message);
    }
}

/// Checks what an upstream says of TLS, as far as that is possible without its files.
fn origin_tls(upstream: &UpstreamConfig, at: &ConfigPath, report: &mut FindingCollector) {
    let (tls, at) = (&upstream.tls, at.key("tls"));
    match (tls.verify, &tls.insecure) {
        (OriginVerification::Off, reason) => {
            let reason = reason.as_deref().unwrap_or_default();
            if reason.trim().is_empty() {
                let message = "anybody on the way can pose as the origin; expected `insecure: \"why\"` beside it, or `ca_file` with the origin's authority";
                report.add(at.key("verify"), message);
            }
        }
        (OriginVerification::On, Some(_)) => {
            let message = "given beside `verify: on`; expected it beside `verify: off` alone";
            report.add(at.key("insecure"), message);
        }
        (OriginVerification::On, None) => {}
    }
}

/// The most buckets for invalidations (16 bytes each) that are reasonable.
const MAX_BUCKETS: usize = 1 << 24;

fn cache(config: &GatewayConfig, report: &mut FindingCollector) {
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

/// The longest that the start may wait for the warm-up: a service manager waits for that as well.
const LONGEST_WARMING: ConfigDuration = ConfigDuration::secs(600);

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

/// Checks a seal key: whoever gets sealed events or records can try keys without limit.
fn seal_key(key: &Option<String>, at: &ConfigPath, report: &mut FindingCollector) {
    let bytes = key.as_ref().map_or(usize::MAX, |key| key.trim().len());
    if bytes < MIN_SEAL_KEY {
        let message = format!(
            "{bytes} bytes can be guessed; expected {MIN_SEAL_KEY} or more random bytes, as from \
             `openssl rand -hex 32`, the same on all nodes"
        );
        report.add(at.clone(), message);
    }
}

/// Checks whether events are sealed, and whose events are accepted.
fn sealed_events(config: &GatewayConfig, bus: &BusConfig, report: &mut FindingCollector) {
    let at = path(&["bus"]);
    seal_key(&bus.seal_key, &at.key("seal_key"), report);
    let accepted = at.key("accepted_seal_key");
    seal_key(&bus.accepted_seal_key, &accepted, report);
    if bus.accepted_seal_key.is_some() && config.bus_seal_key().is_none() {
        let message = "no `seal_key` is given beside it, so that nothing would be sealed; \
                       expected both, or `seal_key` alone";
        report.push(ConfigFinding::key(accepted, message));
    }
}

fn bus(config: &GatewayConfig, bus: &BusConfig, report: &mut FindingCollector) {
    let at = path(&["bus"]);
    sealed_events(config, bus, report);
    let source = bus.source.as_ref();
    if let Some(name) = source.filter(|name| !(1..=MAX_NAME).contains(&name.len())) {
        let bytes = name.len();
        let message = format!("{bytes} bytes; expected a name of 1 to {MAX_NAME} bytes");
        report.add(at.key("source"), message);
    }
    let transports = bus.transports();
    let all = one_of(BusConfig::TRANSPORTS);
    let problem = match transports.len() {
        0 => Some(format!("no transport to the other nodes; expected {all}")),
        1 => None,
        _ => Some(format!(
            "another transport is given beside {all}; expected only one of the {}",
            in_words(BusConfig::TRANSPORTS.len())
        )),
    };
    if let Some(message) = problem {
        report.push(ConfigFinding::key(at.clone(), message));
    }
    for (key, number) in [
        (
            "heartbeat_interval",
            bus.heartbeat_interval.0.as_millis() as u64,
        ),
        ("publish_timeout", bus.publish_timeout.0.as_millis() as u64),
        ("handler_concurrency", bus.handler_concurrency as u64),
        ("max_nodes", bus.max_nodes as u64),
        ("expect", bus.expect.unwrap_or(1) as u64),
    ] {
        report.positive(at.key(key), number);
    }
    let forget_after = bus.nodes.forget_after.0;
    if forget_after < bus.heartbeat_interval.0 * 10 {
        report.add(
            at.key("nodes").key("forget_after"),
            "less than ten times `heartbeat_interval`, so that a node which is only slow is forgotten; expected more",
        );
    }
    if bus.broadcast_set_max_bytes > ByteSize::kib(768) {
        report.add(
            at.key("broadcast_set_max_bytes"),
            "more than 768KiB, which no event has room for; expected less",
        );
    }
    let invalid = transports
        .iter()
        .find_map(|transport| Some((transport.name(), transport.check().err()?)));
    if let Some((section, error)) = invalid {
        report.add_below(at.key(section), error.key(), error.to_string());
    }
}

/// A small number as a word.
fn in_words(number: usize) -> String {
    let words = ["none", "one", "two", "three", "four", "five", "six"];
    let word = words.get(number);
    word.map_or_else(|| number.to_string(), |word| (*word).to_owned())
}

fn plugins(config: &GatewayConfig, report: &mut FindingCollector) {
    let compile = &config.plugins.compile;
    let at = path(&["plugins", "compile"]);
    if compile.memory < LEAST_TO_COMPILE {
        let message = format!(
            "{} is less than any plugin needs to be compiled; expected {LEAST_TO_COMPILE} or more",
            compile.memory
        );
        report.add(at.key("memory"), message);
    }
    report.positive(at.key("time"), compile.time.0.as_secs());
    for (name, plugin) in &config.plugins.by_name {
        let at = path(&["plugins"]).key(name);
        report.form_of_key(&at, form::name(name));
        if !(plugin.config.is_null() || plugin.config.is_object()) {
            report.add(
                at.key("config"),
                "not a mapping; expected keys and values for the plugin",
            );
        }
        for (n, upstream) in plugin.fetch.iter().enumerate() {
            report.known(
                at.key("fetch").index(n),
                "upstream",
                upstream,
                &config.upstreams,
            );
        }
        let limits = &plugin.limits;
        if limits.recycle_memory > limits.max_memory {
            let message = format!(
                "never reached: above max_memory ({}); expected at most that",
                limits.max_memory
            );
            report.add(at.key("limits").key("recycle_memory"), message);
        }
        report.positive(
            at.key("limits").key("key_timeout"),
            limits.key_timeout.0.as_millis() as u64,
        );
        report.positive(
            at.key("limits").key("load_timeout"),
            limits.load_timeout.0.as_millis() as u64,
        );
        report.positive(at.key("limits").key("max_memory"), limits.max_memory.0);
        if limits.max_memory > config.plugins.max_total_memory {
            let message = format!(
                "never reached: above plugins.max_total_memory ({}), which all instances share; \
                 expected at most that",
                config.plugins.max_total_memory
            );
            report.add(at.key("limits").key("max_memory"), message);
        }
        report.positive(at.key("limits").key("max_stack"), limits.max_stack.0);
        report.positive(at.key("limits").key("max_requests"), limits.max_requests);
        report.positive(
            at.key("limits").key("max_concurrent"),
            limits.max_concurrent as u64,
        );
    }
}

/// Checks who may change things: the admin listener and `PURGE`.
fn access(config: &GatewayConfig, report: &mut FindingCollector) {
    admin_listener::check(&config.admin, &path(&["admin"]), report);
    let purge = &config.purge_method;
    report.each(&path(&["purge_method", "allow"]), &purge.allow, form::cidr);
    if purge.enabled && purge.allow.is_empty() && purge.token.is_none() {
        report.add(
            path(&["purge_method", "enabled"]),
            "anybody could purge; expected `allow` (addresses) or `token` beside it",
        );
    }
    purge_dialects(purge, &path(&["purge_method"]), report);
    purge_apis(config, report);
}

/// Checks the settings of the dialects in which is purged on the listeners.
fn purge_dialects(purge: &PurgeMethodConfig, at: &ConfigPath, report: &mut FindingCollector) {
    let headers = &purge.drupal_headers;
    report.each(&at.key("drupal_headers"), headers, form::header_name);
    report.positive(at.key("max_selectors"), purge.max_selectors as u64);
    let prefix = &purge.nginx_prefix;
    let is_prefix = prefix.len() > 1 && prefix.starts_with('/') && prefix.ends_with('/');
    if !is_prefix || prefix.contains(['*', '?', '#', ' ']) {
        let message = format!("{prefix:?} is no prefix of paths; expected a text as /purge/");
        report.add(at.key("nginx_prefix"), message);
    }
    let refresh = purge
        .dialects
        .iter()
        .position(|name| *name == PurgeDialect::Refresh);
    if let Some(n) = refresh
        && purge.enabled
        && purge.allow.is_empty()
    {
        let message = "every browser can ask for a refresh; expected addresses in \
                       `purge_method.allow`";
        report.add(at.key("dialects").index(n), message);
    }
}

/// Checks that the routes exist that ids of other caches' APIs stand for.
fn purge_apis(config: &GatewayConfig, report: &mut FindingCollector) {
    let apis = &config.admin.purge_apis;
    for (name, ids) in [("fastly", &apis.fastly), ("cloudflare", &apis.cloudflare)] {
        for (id, routes) in ids {
            let at = path(&["admin", "purge_apis", name]).key(id);
            for route in routes.as_slice().iter().filter(|route| *route != "*") {
                if config.routes.iter().all(|known| known.name != *route) {
                    let message = format!(
                        "no route is named `{route}`; expected names of routes, or \"*\" for \
                         everything"
                    );
                    report.add(at.clone(), message);
                }
            }
        }
    }
}
