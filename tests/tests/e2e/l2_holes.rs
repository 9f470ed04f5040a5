//! The known holes of the seed that touch the second tier, leases and order, each with the
//! test that fails when the guard against it is taken out; those about nodes and a real
//! Redis stand here.
//!
//! | hole | test (in gateway unless it begins with e2e) |
//! |---|---|
//! | a load racing a delete; a pattern wipe racing a set | cache/l2/tests/holes: what_was_loaded_before_a_purge_is_shown_by_no_node_however_late_it_is_written · e2e purge: a_load_that_began_before_a_purge_is_never_seen_after_it |
//! | an L2 read racing a delete, then promoted | holes: what_is_read_while_a_purge_comes_is_not_promoted |
//! | counters that restart at zero after a reboot | holes: a_node_that_begins_anew_takes_up_the_order_where_it_was · e2e l2_redis: a_log_behind_what_a_node_knows_gets_another_generation |
//! | peers that delete from L2 again on each event | holes: who_hears_of_a_purge_deletes_nothing_below · e2e l2_redis: a_delete_that_comes_late_leaves_a_newer_record |
//! | an event marked as seen before it was applied | holes: a_number_counts_as_known_only_when_its_purges_hold |
//! | a finished load that removes somebody else's flight | cache/coalesce: a_flight_that_a_purge_reaches_takes_no_more_followers · e2e l2_redis: a_lease_has_one_owner_until_it_ends |
//! | a herd that reads L2 once each | a_herd_reads_the_store_once |
//! | index members removed by readers | a_reader_leaves_the_index_as_it_is · a_look_changes_nothing_in_the_store |
//! | an index scored by write time | l2_redis_index: a_member_is_scored_by_the_end_of_its_record_and_never_set_back, expired_members_go_by_their_time_along_with_what_is_noted · e2e l2_redis: every_key_has_an_end_of_life |
//! | a lock error taken for contention | a_lease_that_is_refused_is_no_contention · cache/l2/tests/holes_outage: a_store_that_fails_is_not_another_owner |
//! | no look at the cache after the lock | who_gets_the_lease_looks_again_before_it_loads |
//! | no renewal | holes_outage: a_lease_is_held_as_long_as_its_load_runs · a_long_load_keeps_its_lease |
//! | promotion that restarts the TTL; a stale window counted from the last touch | holes: no_clock_restarts_below_or_on_the_way_up |
//! | a corrupt record served as a null hit | holes: a_damaged_or_foreign_record_is_a_miss_and_the_next_write_puts_it_right · cache/record/tests/hostile |
//! | a value equal to a sentinel | holes: a_body_that_looks_like_nothing_or_like_a_record_is_a_body |
//! | replies of a pipeline not checked | e2e l2_redis_faults: a_full_server_refuses_writes_and_still_reads · e2e l2_redis: what_is_not_ours_is_no_record |
//! | glob characters in a prefix | e2e l2_redis: nothing_outside_the_prefix_is_touched_and_globs_in_it_mean_nothing |
//! | no L2 deadline | holes_outage: no_read_outlives_its_deadline · e2e l2: a_frozen_store_costs_one_deadline_and_is_used_again_when_it_thaws |
//! | a half-open breaker that lets the herd in | cache/l2/breaker: after_the_cooldown_one_call_tries_and_decides |
//! | publishes dropped while the breaker is open; a retry queue that drains only on the next publish | holes_outage: a_purge_made_while_the_breaker_is_open_reaches_the_others_by_itself |
//! | publish awaited on the request path | no_request_waits_for_a_purge_or_a_write_to_get_through |
//! | compression on the event loop | holes: large_records_are_worked_on_beside_the_runtime |
//! | a soft timeout that aborts the refresh | a_refresh_that_outlasts_the_soft_timeout_is_shared_when_it_ends · e2e stale: after_the_soft_timeout_stale_is_served_while_the_load_goes_on_and_is_stored |

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use e2e::gate::Gate;
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::redis::Redis;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, wait_for, within};
use e2e::wire::Wire;
use futures_util::future::join_all;
use http::Method;

use crate::l2::{LASTING, PATIENCE, ask, over, redis_at, versions, written};
use crate::l2_redis::{MAX, config_of, connected, key, name, put};
use crate::l2_turns::no_lease_is_left;

/// Calls to the store of one kind, whatever came of them.
async fn calls(gateway: &Gateway, operation: &str) -> f64 {
    let labels = [("operation", operation)];
    gateway.metric("lamina_l2_calls_total", &labels).await
}

/// An origin like [`stale_at_first`](crate::l2::stale_at_first) whose answers wait for the gate.
async fn gated(gate: &Gate) -> Origin {
    let (gate, count) = (gate.clone(), Arc::new(AtomicUsize::new(0)));
    Origin::start(move |_| {
        let (gate, count) = (gate.clone(), Arc::clone(&count));
        async move {
            let n = count.fetch_add(1, Ordering::SeqCst) + 1;
            gate.pass().await;
            let life = if n == 1 { 0 } else { 86_400 };
            Reply::ok(format!("v{n}")).header("cache-control", &format!("max-age={life}"))
        }
    })
    .await
}

#[tokio::test]
async fn a_herd_reads_the_store_once() {
    let redis = Redis::start().await;
    let origin = versions().await;
    let url = redis.url();
    let l2 = format!(
        "{{redis: {{url: \"{url}\", silence_timeout: 10m}}, lease: {{enabled: false}}, read_timeout: 10m}}"
    );
    let mut cold = true;
    for _ in 0..2 {
        let gateway = over(&origin, &l2, LASTING).await;
        let before = calls(&gateway, "get").await;
        for answer in join_all((0..500).map(|_| ask(&gateway, "/"))).await {
            assert_eq!(answer.text(), "v1");
        }
        let reads = calls(&gateway, "get").await - before;
        assert_eq!(reads, 1.0, "cold below: {cold}");
        if cold {
            written(&gateway, 1.0).await;
        }
        cold = false;
    }
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn a_look_changes_nothing_in_the_store() {
    let redis = Redis::start().await;
    let store = connected(&config_of(&redis.url())).await;
    store.put(put(&key(1), b"there", 1)).await.unwrap();
    redis.cli(&["LPUSH", &name(&key(2), 'r'), "foreign"]).await;
    redis.cli(&["SET", &name(&key(3), 'r'), "for ever"]).await;
    let before = digest(&redis).await;
    for n in 1..=4 {
        let read = store.get(&key(n), MAX).await;
        assert_eq!(matches!(read, Ok(Some(_))), n == 1, "{read:?}");
    }
    assert_eq!(digest(&redis).await, before);
}

/// Of all that is in Redis, and no word of an error in its place.
async fn digest(redis: &Redis) -> String {
    let digest = redis.cli(&["DEBUG", "DIGEST"]).await;
    let is_one = digest.len() == 40 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    assert!(
        is_one && digest.bytes().any(|byte| byte != b'0'),
        "{digest}"
    );
    digest
}

/// A record that is gone, a look for it and a listing: another node may store it again and
/// note it at that very moment, and a member that a reader took out would be lost.
#[tokio::test]
async fn a_reader_leaves_the_index_as_it_is() {
    let redis = Redis::start().await;
    let origin = versions().await;
    let url = redis.url();
    let l2 = format!(
        "{{redis: {{url: \"{url}\", silence_timeout: 10m, index: {{enabled: true}}}}, {PATIENCE}}}"
    );
    let policy = "{mode: override, ttl: 1d, request_directives: honor}";
    let writer = over(&origin, &l2, policy).await;
    ask(&writer, "/").await;
    let noted = [("outcome", "noted")];
    writer
        .metric_until("lamina_l2_index_total", &noted, |count| count == 1.0)
        .await;
    no_lease_is_left(&redis).await;
    let records = redis.cli(&["--scan", "--pattern", "lamina:*r"]).await;
    redis.cli(&["DEL", &records]).await;
    let reader = over(&origin, &l2, policy).await;
    let before = digest(&redis).await;
    let only = reader.client().request("/").host("site.example");
    let only = only.header("cache-control", "only-if-cached");
    assert_eq!(only.send().await.status, 504);
    let listing = reader.admin(Method::GET, "/v1/l2/keys", "").await;
    assert_eq!(digest(&redis).await, before);
    assert!(listing.text.contains("\"keys\":[]"), "{}", listing.text);
    let members = redis.cli(&["--scan", "--pattern", "lamina:index:*"]).await;
    assert_eq!(members.lines().count(), 2, "it is still noted");
}

/// A full Redis still reads, and refuses leases.
#[tokio::test]
async fn a_lease_that_is_refused_is_no_contention() {
    let redis = Redis::start_with(&["--maxmemory-policy", "noeviction"]).await;
    let origin = versions().await;
    let gateway = over(&origin, &redis_at(&redis.url()), LASTING).await;
    ask(&gateway, "/first").await;
    written(&gateway, 1.0).await;
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let answer = within(
        "a page, without waiting for a lease",
        SOON,
        ask(&gateway, "/"),
    )
    .await;
    assert_eq!(answer.text(), "v2");
    let unknown = [("outcome", "unknown")];
    assert_eq!(
        gateway.metric("lamina_l2_leases_total", &unknown).await,
        1.0
    );
}

/// The far node has looked and found nothing; before it asks for the lease, the near one
/// loads, publishes and gives the lease back.
#[tokio::test]
async fn who_gets_the_lease_looks_again_before_it_loads() {
    let redis = Redis::start().await;
    let wire = Wire::to(redis.port).await;
    let origin = versions().await;
    let near = over(&origin, &redis_at(&redis.url()), LASTING).await;
    let far = redis_at(&format!("redis://{}", wire.address));
    let far = over(&origin, &far, LASTING).await;
    // Its scripts are known to the server from here on.
    ask(&far, "/other").await;
    written(&far, 1.0).await;
    let looked = || async { strlen(&redis).await };
    let before = looked().await;
    wire.hold();
    let late = async {
        let answer = ask(&far, "/").await;
        assert_eq!((answer.text(), answer.is_hit()), ("v2", true));
    };
    let first = async {
        wait_for("the far node's look arrives", SOON, || async {
            (looked().await > before).then_some(())
        })
        .await;
        assert_eq!(ask(&near, "/").await.text(), "v2");
        written(&near, 1.0).await;
        no_lease_is_left(&redis).await;
        wire.release();
    };
    tokio::join!(late, first);
    let owned = [("outcome", "owned")];
    let leases = far.metric("lamina_l2_leases_total", &owned).await;
    assert_eq!(leases, 2.0, "it got the lease, too");
    assert_eq!(origin.count(), 2);
}

/// How often records were looked for.
async fn strlen(redis: &Redis) -> u64 {
    let stats = redis.cli(&["INFO", "commandstats"]).await;
    let calls = stats
        .split_once("cmdstat_strlen:calls=")
        .map(|(_, rest)| rest);
    calls
        .and_then(|rest| rest.split(',').next()?.parse().ok())
        .unwrap_or(0)
}

#[tokio::test]
async fn a_long_load_keeps_its_lease() {
    let redis = Redis::start().await;
    let gate = Gate::new();
    let origin = gated(&gate).await;
    let url = redis.url();
    // The load is held past the end of a first term, by renewals two seconds apart.
    let l2 = format!(
        "{{redis: {{url: \"{url}\", silence_timeout: 10m}}, read_timeout: 10m, lease: {{ttl: 6s, wait_timeout: 10m}}}}"
    );
    let one = over(&origin, &l2, LASTING).await;
    let other = over(&origin, &l2, LASTING).await;
    let both = async {
        tokio::join!(ask(&one, "/"), async {
            gate.reached_by(1).await;
            ask(&other, "/").await
        })
    };
    let opening = async {
        gate.reached_by(1).await;
        let renewed = [("operation", "renew"), ("outcome", "ok")];
        one.metric_until("lamina_l2_calls_total", &renewed, |calls| calls >= 3.0)
            .await;
        let busy = [("outcome", "busy")];
        other
            .metric_until("lamina_l2_leases_total", &busy, |busy| busy >= 1.0)
            .await;
        gate.open();
    };
    let ((first, second), ()) = tokio::join!(both, opening);
    assert_eq!((first.text(), second.text()), ("v1", "v1"));
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn no_request_waits_for_a_purge_or_a_write_to_get_through() {
    let redis = Redis::start().await;
    let origin = versions().await;
    let url = redis.url();
    let l2 = format!(
        "{{redis: {{url: \"{url}\", silence_timeout: 10m}}, write_timeout: 10m, breaker: {{failure_threshold: 0}}}}"
    );
    let route = format!(
        "{{name: site, upstream: origin, policy: {LASTING}, invalidate: [{{on: [POST], purge: [{{tag: x}}]}}]}}"
    );
    let gateway = Setup::new(&origin)
        .top("cache", &format!("{{l2: {l2}}}"))
        .route(&route)
        .start()
        .await;
    ask(&gateway, "/").await;
    written(&gateway, 1.0).await;
    redis.freeze();
    let asks = async {
        let post = gateway.client().ask(Method::POST, "/").host("site.example");
        assert_eq!(post.send().await.text(), "v2");
        assert_eq!(ask(&gateway, "/").await.text(), "v3", "purged at once");
        assert!(ask(&gateway, "/").await.is_hit(), "and stored at once");
    };
    within("what needs no store", SOON, asks).await;
    redis.thaw();
}

#[tokio::test]
async fn a_refresh_that_outlasts_the_soft_timeout_is_shared_when_it_ends() {
    let redis = Redis::start().await;
    let gate = Gate::new();
    gate.open();
    let origin = gated(&gate).await;
    let policy = "{stale_if_error: 1d, timeouts: {soft: 50ms, hard: 1h}}";
    let l2 = redis_at(&redis.url());
    let one = over(&origin, &l2, policy).await;
    ask(&one, "/").await;
    written(&one, 1.0).await;
    gate.shut();
    let cold = over(&origin, &l2, policy).await;
    assert_eq!(ask(&cold, "/").await.text(), "v1", "from below, and stale");
    gate.open();
    written(&cold, 1.0).await;
    assert_eq!(origin.count(), 2);
    let third = over(&origin, &l2, policy).await;
    gate.shut();
    assert_eq!(ask(&third, "/").await.text(), "v2");
}
