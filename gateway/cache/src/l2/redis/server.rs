//! The settings of the server, as far as it reports them: which keys it evicts, and what it keeps.

use std::collections::HashMap;
use std::time::Duration;

use lamina_base::redis::driver::ClientLike;
use lamina_base::redis::driver::redis_keyslot;
use lamina_base::redis::driver::{ClusterHash, CustomCommand, Value};

use super::RedisStore;
use super::fault::unexpected;
use crate::l2::store::{Durability, FsyncPolicy, Persistence, SnapshotRule, StoreError};

impl RedisStore {
    /// The policy by which the server evicts keys that never expire, such as the purge log. None:
    /// it evicts no such keys, or does not say.
    pub(super) async fn eviction_policy(&self) -> Result<Option<String>, StoreError> {
        let answer = self.ask_log_server("INFO", &["memory"]).await?;
        let said = answer.as_string().unwrap_or_default();
        let of = |key: &str| said.lines().find_map(|line| line.strip_prefix(key));
        let is_bounded = of("maxmemory:").is_some_and(|bytes| bytes.trim() != "0");
        let policy = of("maxmemory_policy:").map(str::trim);
        let policy = policy.filter(|policy| is_bounded && policy.starts_with("allkeys-"));
        Ok(policy.map(str::to_owned))
    }

    /// What the server with the purge log keeps in case of a crash.
    pub(super) async fn kept_after_a_crash(&self) -> Result<Durability, StoreError> {
        let persistence = match self.setting("appendonly").await?.as_str() {
            "yes" => Persistence::Appended(flush(&self.setting("appendfsync").await?)),
            _ => snapshots(&self.setting("save").await?),
        };
        let min_replicas = self.setting("min-replicas-to-write").await?;
        Ok(Durability {
            persistence,
            min_replicas: min_replicas.parse().map_err(|_| unexpected("CONFIG GET"))?,
            too_old_when_full: self.too_old_when_full().await,
        })
    }

    /// The server's version, if it does not run scripts while its memory is full, as versions
    /// before 7. None also if it does not say.
    async fn too_old_when_full(&self) -> Option<String> {
        let answer = self.ask_log_server("INFO", &["server"]).await.ok()?;
        let said = answer.as_string()?;
        let mut lines = said.lines();
        let version = lines.find_map(|line| line.strip_prefix("redis_version:"))?;
        let version = version.trim();
        let major: u32 = version.split('.').next()?.parse().ok()?;
        (major < 7).then(|| version.to_owned())
    }

    /// Reads one setting, because versions before 7 return only one at a time.
    async fn setting(&self, name: &str) -> Result<String, StoreError> {
        let answer = self.ask_log_server("CONFIG", &["GET", name]).await?;
        let settings = answer.convert::<HashMap<String, String>>();
        let found = settings.ok().and_then(|mut all| all.remove(name));
        found.ok_or_else(|| unexpected("CONFIG GET"))
    }

    async fn ask_log_server(
        &self,
        command: &'static str,
        words: &[&str],
    ) -> Result<Value, StoreError> {
        let client = self.client()?;
        let slot = ClusterHash::Custom(redis_keyslot(self.names.log().as_bytes()));
        let command = CustomCommand::new_static(command, slot, false);
        let words: Vec<Value> = words.iter().map(|word| Value::from(*word)).collect();
        let answer = client.custom::<Value, Value>(command, words).await;
        answer.map_err(|error| self.failed(&error))
    }
}

fn flush(setting: &str) -> FsyncPolicy {
    match setting {
        "always" => FsyncPolicy::BeforeTheAnswer,
        "everysec" => FsyncPolicy::EachSecond,
        _ => FsyncPolicy::ByTheKernel,
    }
}

/// Parses `3600 1 300 100`: pairs of seconds and numbers of changes.
fn snapshots(setting: &str) -> Persistence {
    let numbers = setting.split_whitespace().map(|word| word.parse().ok());
    let numbers: Vec<u64> = numbers.flatten().collect();
    let rules = numbers.chunks_exact(2).map(|rule| SnapshotRule {
        after: Duration::from_secs(rule[0]),
        changes: rule[1],
    });
    let rules: Vec<_> = rules.collect();
    match rules.is_empty() {
        true => Persistence::Nothing,
        false => Persistence::Snapshots(rules),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_of_snapshots_are_pairs_of_seconds_and_changes() {
        let Persistence::Snapshots(rules) = snapshots("3600 1 300 100") else {
            panic!("there are two");
        };
        let read: Vec<_> = rules
            .iter()
            .map(|rule| (rule.after.as_secs(), rule.changes))
            .collect();
        assert_eq!(read, [(3_600, 1), (300, 100)]);
        assert_eq!(snapshots(""), Persistence::Nothing);
    }
}
