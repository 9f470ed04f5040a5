//! What the second tier adds.

use super::PromiseConditions;
use lamina_cache::l2::description::StorePromiseConditions;

pub(super) fn of(case: &PromiseConditions<'_>) -> Vec<String> {
    let l2 = &case.config.cache.l2;
    let Some(store) = case.store else {
        return vec![
            "one tier: after a restart the cache is empty; a purge applies on this node as soon as \
             it is answered"
                .to_owned(),
        ];
    };
    let bus = case.config.bus.as_ref();
    let mut all = store.promises(&StorePromiseConditions {
        lease: &l2.lease,
        has_bus: bus.is_some_and(|bus| bus.transport().is_some()),
    });
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
