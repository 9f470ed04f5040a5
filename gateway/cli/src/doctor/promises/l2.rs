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
                "what was stored is there after a restart; after a crash, what was stored {} before it",
                disk.sync_interval
            ),
            "a purge whose receipt says `logged` is never lost on this node, not even in a crash"
                .to_owned(),
            "nothing is shared by the file: each gateway needs one of its own".to_owned(),
        ],
        (None, None) => {
            return vec![
                "one tier: a restart begins empty; a purge holds from its answer on, here"
                    .to_owned(),
            ];
        }
    };
    all.push(format!(
        "a request waits at most {} for a read; after {} failures in a row the tier is left alone for {}",
        l2.read_timeout, l2.breaker.failure_threshold, l2.breaker.cooldown
    ));
    all.push(match &l2.seal_key {
        Some(_) => "records, purges and leases are sealed by your key: who may write to the store may remove them, and change none".to_owned(),
        None => "records are sealed against damage alone: whoever may write to the store may change them, and forge purges and leases; see seal_key_file".to_owned(),
    });
    all
}

fn of_redis(case: &PromiseConditions<'_>, l2: &L2Config, redis: &RedisTierConfig) -> Vec<String> {
    let bus = case.config.bus.as_ref();
    let tells = bus.is_some_and(|bus| bus.transport().is_some());
    let mut all = vec![
        "a purge holds on the node that was asked from its answer on, on each other node when it \
         has read the log in Redis: a round trip later while Redis answers"
            .to_owned(),
        match tells {
            true => {
                "while Redis does not answer, the bus alone tells purges; each is tried again until \
                 it is in the log"
            }
            false => {
                "while Redis does not answer, a purge holds on its own node alone; it is told and \
                 tried again until it is in the log"
            }
        }
        .to_owned(),
        "a load that began before a purge is shown nowhere after it, whenever it is written"
            .to_owned(),
    ];
    all.push(match l2.lease.enabled {
        true => format!(
            "one load a key among all nodes; a node whose load takes longer than {} without a sign of life loses its turn, and what it loaded is not written",
            l2.lease.ttl
        ),
        false => "each node loads for itself (lease.enabled: false)".to_owned(),
    });
    let url = &redis.url;
    if url.contains("-sentinel://") || url.contains("-cluster://") {
        all.push(
            "a fail-over may lose the last writes of the old master, purges among them".to_owned(),
        );
    } else {
        all.push("one server: when it is down, each node has L1 and its own loads".to_owned());
    }
    all.push(
        "a purge that Redis forgot (an older state came back) is noticed by each running node that \
         had read it, and then all that is older is hidden on all nodes; where none is left that \
         had, the purge is undone"
            .to_owned(),
    );
    all
}
