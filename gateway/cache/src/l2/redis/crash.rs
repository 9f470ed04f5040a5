//! What a crash of Redis, a failover or a full memory may do to purges, each in one sentence for
//! `lamina doctor`.

use crate::l2::description::StoreFinding;
use crate::l2::store::{Durability, FsyncPolicy, Persistence, SnapshotRule, StoreError};
use crate::units::ConfigDuration;

/// How to limit what a crash undoes.
const REMEDY: &str = "set appendonly yes and appendfsync everysec to bound it to the last second";

/// Whether another server may take over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Failover {
    ToReplicas,
    Never,
}

/// What a crash may undo and, if there can be one, a failover.
pub(super) fn findings(
    said: Result<Durability, StoreError>,
    failover: Failover,
) -> Vec<StoreFinding> {
    let durability = match said {
        Ok(durability) => durability,
        Err(error) => {
            let why = format!(
                "it is unknown what a crash of Redis may undo, because CONFIG GET is not answered \
                 ({error}); ask whoever runs Redis for appendonly, appendfsync and save"
            );
            return vec![StoreFinding::risky("crash", why)];
        }
    };
    let mut findings = vec![of_crash(&durability.persistence)];
    findings.extend(durability.too_old_when_full.map(of_full_memory));
    if failover == Failover::ToReplicas {
        findings.push(of_failover(durability.min_replicas));
    }
    findings
}

fn of_crash(persistence: &Persistence) -> StoreFinding {
    let name = "crash";
    match persistence {
        Persistence::Appended(FsyncPolicy::BeforeTheAnswer) => StoreFinding::sound(
            name,
            "undoes nothing: Redis has each change on its disk before it answers (appendfsync \
             always)"
                .to_owned(),
        ),
        Persistence::Appended(FsyncPolicy::EachSecond) => StoreFinding::sound(
            name,
            "may undo the last second of purges and stored pages (appendfsync everysec)".to_owned(),
        ),
        Persistence::Appended(FsyncPolicy::ByTheKernel) => StoreFinding::risky(
            name,
            format!(
                "a crash of Redis's machine may undo the purges and stored pages that the kernel \
                 had not written yet (appendfsync no), often half a minute of them; {REMEDY}"
            ),
        ),
        Persistence::Snapshots(rules) => StoreFinding::risky(name, of_snapshots(rules)),
        Persistence::Nothing => StoreFinding::sound(
            name,
            "undoes no purge and loses every stored page: Redis keeps nothing (appendonly no, no \
             save) and comes back empty, so everything is loaded again"
                .to_owned(),
        ),
    }
}

fn of_snapshots(rules: &[SnapshotRule]) -> String {
    let words: Vec<String> = rules
        .iter()
        .map(|rule| format!("{} {}", rule.after.as_secs(), rule.changes))
        .collect();
    let after_one = rules.iter().filter(|rule| rule.changes <= 1);
    let fewest = rules.iter().map(|rule| rule.changes).min().unwrap_or(0);
    let undone = match after_one.map(|rule| rule.after).min() {
        Some(span) => format!("up to {} of purges and stored pages", ConfigDuration(span)),
        None => format!(
            "the last {} purges and stored pages, however old they are",
            fewest.saturating_sub(1)
        ),
    };
    format!(
        "Redis keeps changes by snapshots alone (save {}): a crash may undo {undone}; {REMEDY}",
        words.join(" ")
    )
}

fn of_full_memory(version: String) -> StoreFinding {
    let says = format!(
        "Redis {version} takes no purges into its log while its memory is full, as version 7 does: \
         they wait, and nodes that share no bus serve meanwhile what was purged; update Redis, or \
         set maxmemory-policy volatile-ttl so that its memory gets free"
    );
    StoreFinding::risky("version", says)
}

fn of_failover(min_replicas: u64) -> StoreFinding {
    let name = "failover";
    match min_replicas {
        0 => StoreFinding::risky(
            name,
            "a failover may undo the purges that no replica had yet, and the master accepts \
             purges even when all replicas are away (min-replicas-to-write 0); set it to 1 or \
             more, so that the master accepts none once the replicas lag by min-replicas-max-lag"
                .to_owned(),
        ),
        count => StoreFinding::sound(
            name,
            format!(
                "may undo what the new master had not received: at most the last \
                 min-replicas-max-lag, because {count} must follow (min-replicas-to-write)"
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(seconds: u64, changes: u64) -> SnapshotRule {
        SnapshotRule {
            after: std::time::Duration::from_secs(seconds),
            changes,
        }
    }

    #[test]
    fn snapshots_are_as_good_as_the_rule_that_a_single_change_meets() {
        let said = of_snapshots(&[rule(3_600, 1), rule(300, 100)]);
        assert!(said.contains("(save 3600 1 300 100)"), "{said}");
        assert!(said.contains("up to 1h of purges"), "{said}");
        let said = of_snapshots(&[rule(60, 10_000), rule(300, 100)]);
        assert!(said.contains("the last 99 purges"), "{said}");
    }
}
