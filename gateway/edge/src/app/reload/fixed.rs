//! What can't be changed while the gateway runs, and why: it is refused by its name, and never
//! ignored.

use super::changes::ConfigChanges;

/// A key that was changed and can't be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FixedKeyChange {
    /// As in `cache.l2.disk.path`.
    pub key: String,
    pub reason: &'static str,
}

impl FixedKeyChange {
    /// The sentence for operators.
    pub fn message(&self) -> String {
        format!(
            "this can't be changed while the gateway runs: {}; set it back, or let another process \
             take over by `lamina upgrade`, which loses no request",
            self.reason
        )
    }
}

/// The beginnings of keys that keep their values as long as the process runs.
const FIXED: [(&str, &str); 11] = [
    (
        "server.threads",
        "each worker thread has sockets of its own in every port",
    ),
    (
        "server.upgrade_socket",
        "the socket is opened once, so that the next process finds it",
    ),
    (
        "cache.l2",
        "the second tier is opened once, and what is in it belongs to its settings",
    ),
    (
        "cache.purge_log",
        "the bounds of the purge log say what it still knows",
    ),
    ("bus", "a node joins its cluster once"),
    (
        "acme",
        "orders that are under way belong to their issuers and their storage",
    ),
    (
        "admin.address",
        "the admin listener is opened once, so that it is there whatever happens",
    ),
    (
        "admin.socket_mode",
        "the admin listener is opened once, so that it is there whatever happens",
    ),
    ("telemetry.log_format", "all lines of one log have one form"),
    (
        "telemetry.max_series",
        "series that exist already can't be taken back",
    ),
    (
        "telemetry.recent_requests",
        "the memory for the last requests is set aside at the start",
    ),
];

/// The beginnings of keys below those that change all the same: they are read for each call.
const LIVE: [&str; 4] = [
    "cache.l2.read_timeout",
    "cache.l2.write_timeout",
    "cache.l2.lease",
    "cache.l2.compress",
];

/// The changes that are refused.
pub fn fixed(changes: &ConfigChanges) -> Vec<FixedKeyChange> {
    let refused = changes.settings.iter().filter_map(|value| {
        let covers = |beginning: &str| {
            let below = value.key.strip_prefix(beginning);
            below.is_some_and(|below| below.is_empty() || below.starts_with('.'))
        };
        if LIVE.into_iter().any(covers) {
            return None;
        }
        let (_, reason) = FIXED.iter().find(|(fixed, _)| covers(fixed))?;
        Some(FixedKeyChange {
            key: value.key.clone(),
            reason,
        })
    });
    refused.collect()
}
