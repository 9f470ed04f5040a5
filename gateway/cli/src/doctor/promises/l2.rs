//! What the second tier adds.

use super::PromiseConditions;
use lamina_cache::config::L2Config;
use lamina_cache::l2::redis::config::RedisTierConfig;

pub(super) fn of(case: &PromiseConditions<'_>) -> Vec<String> {
    let l2 = &case.config.cache.l2;
    let mut all = match (&l2.redis, &l2.disk) {
        (Some(redis), _) => of_redis(case, l2, redis),
        (None, Some(disk)) => vec![
            format!(
                "stored entries are there after a restart; after a crash, those that were stored \
                 at least {} before it",
                disk.sync_interval
            ),
            "a purge whose receipt says `logged: true` is never lost on this node, not even in a \
             crash"
                .to_owned(),
            "the file shares nothing with other nodes: each gateway needs its own file".to_owned(),
        ],
        (None, None) => {
            return vec![
                "one tier: after a restart the cache is empty; a purge applies on this node as \
                 soon as it is answered"
                    .to_owned(),
            ];
        }
    };
    all.push(format!(
        "a request waits at most {} for a read; after {} failures in a row the tier is not used \
         for {}",
        l2.read_timeout, l2.breaker.failure_threshold, l2.breaker.cooldown
    ));
    all.push(match &l2.seal_key {
        Some(_) => "records, purges and leases are sealed with your key: whoever can write to the \
                    store can remove them, but can't change them"
            .to_owned(),
        None => "records are protected against damage only: whoever can write to the store can \
                 change them, and can forge purges and leases; see seal_key_file"
            .to_owned(),
    });
    all
}

fn of_redis(case: &PromiseConditions<'_>, l2: &L2Config, redis: &RedisTierConfig) -> Vec<String> {
    let tells = case.config.bus.as_ref().is_some_and(|b| b.transports() > 0);
    let mut all = vec![
        "a purge applies on the node that received it as soon as it is answered, and on each \
         other node when that node has read the log in Redis: one round trip later while Redis \
         answers"
            .to_owned(),
        match tells {
            true => {
                "while Redis does not answer, only the bus distributes purges; writing each of \
                 them to the log is tried again until it succeeds"
            }
            false => {
                "while Redis does not answer, a purge applies only on the node that received it; \
                 writing it to the log is tried again until it succeeds, and its receipt says so"
            }
        }
        .to_owned(),
        "the result of a load that began before a purge is never served after it, whenever it is \
         written"
            .to_owned(),
    ];
    all.push(match l2.lease.enabled {
        true => format!(
            "only one of all nodes loads a key at a time; a node that does not renew its lease \
             for {} loses it, and what it loaded is not written",
            l2.lease.ttl
        ),
        false => "each node loads for itself (lease.enabled: false)".to_owned(),
    });
    let url = &redis.url;
    if url.contains("-sentinel://") || url.contains("-cluster://") {
        all.push(
            "a failover may lose the last writes of the old master, including purges".to_owned(),
        );
    } else {
        all.push(
            "one server: when it is down, each node has only L1 and loads for itself".to_owned(),
        );
    }
    all.push(
        "a purge that Redis lost (because an older state came back) is noticed by each running \
         node that had read it, and then everything older is hidden on all nodes; if no such node \
         is left, the purge is undone"
            .to_owned(),
    );
    all
}
