//! The Redis store when the server is down, silent, full, loading or suspicious.

use std::time::{Duration, Instant};

use e2e::free_port::free_port;
use e2e::redis::{self as server, Redis};
use e2e::wait::{SOON, wait_for, within};
use e2e::wire::Wire;
use futures_util::FutureExt;
use lamina_base::redis;
use lamina_cache::l2::redis::{RedisStoreOpenError, config, open};
use lamina_cache::l2::store::{LogNumber, Store, StoreError, StorePut, StorePutOutcome};

use crate::l2_redis::{
    MAX, MINUTE, back, config_of, connected, key, name, numbered, owned, place, purge, put, put_at,
};

/// Silence of this server is soon noticed.
fn brief(redis: &Redis) -> config::RedisTierConfig {
    config::RedisTierConfig {
        silence_timeout: lamina_base::units::ConfigDuration::secs(1),
        ..config_of(&redis.url())
    }
}

/// Waits until a call says that the server is not there.
async fn down(store: &dyn Store) {
    wait_for("calls answer down", SOON, || async {
        match within("a call", SOON, store.get(&key(1), MAX)).await {
            Err(StoreError::Down(_)) => Some(()),
            _ => None,
        }
    })
    .await;
}

#[tokio::test]
async fn a_server_that_is_down_at_the_start_is_found_when_it_comes() {
    let port = free_port();
    let store = open(&config_of(&format!("redis://127.0.0.1:{port}"))).unwrap();
    for _ in 0..1_000 {
        // None of them waits for a connection: each has its answer when it is first asked.
        let answer = store.get(&key(1), MAX).now_or_never();
        assert!(
            matches!(answer, Some(Err(StoreError::Down(_)))),
            "{answer:?}"
        );
        let answer = store.append(&purge("all"), LogNumber::ZERO).now_or_never();
        assert!(
            matches!(answer, Some(Err(StoreError::Down(_)))),
            "{answer:?}"
        );
        let answer = store.watch_log(LogNumber::ZERO, MINUTE).now_or_never();
        assert!(
            matches!(answer, Some(Err(StoreError::Down(_)))),
            "{answer:?}"
        );
    }
    let redis = Redis::spawn(port, &[]);
    redis.ready().await;
    back(&*store).await;
}

#[tokio::test]
async fn a_killed_server_fails_calls_at_once_and_they_come_back_with_it() {
    let mut redis = Redis::start().await;
    let store = connected(&config_of(&redis.url())).await;
    let log = store
        .append(&purge("tag:a"), LogNumber::new(41))
        .await
        .unwrap();
    redis.kill();
    down(&*store).await;
    for _ in 0..1_000 {
        let answer = store.get(&key(1), MAX).now_or_never();
        assert!(
            matches!(answer, Some(Err(_))),
            "a call waited for a connection: {answer:?}"
        );
    }
    redis.restart().await;
    back(&*store).await;
    let empty = store.read_log(log.newest).await.unwrap();
    assert_ne!(empty.generation, log.generation, "the log was lost");
    let next = store
        .append(&purge("tag:b"), LogNumber::ZERO)
        .await
        .unwrap();
    assert!(next.newest > log.newest, "numbers never fall");
}

#[tokio::test]
async fn a_server_that_comes_back_with_its_data_keeps_the_log() {
    let mut redis = Redis::start_with(&["--appendonly", "yes", "--appendfsync", "always"]).await;
    let store = connected(&config_of(&redis.url())).await;
    let log = store
        .append(&purge("tag:a"), LogNumber::ZERO)
        .await
        .unwrap();
    let kept = store.put(put_at(&key(1), b"kept", log.end())).await;
    assert_eq!(kept.unwrap(), StorePutOutcome::Stored);
    redis.restart().await;
    back(&*store).await;
    assert_eq!(store.read_log(LogNumber::ZERO).await.unwrap(), log);
    let found = store.get(&key(1), MAX).await.unwrap().unwrap();
    assert_eq!(found.record, "kept");
}

#[tokio::test]
async fn a_frozen_server_that_was_noticed_delays_nobody_and_is_used_again_when_it_thaws() {
    let redis = Redis::start().await;
    let store = connected(&brief(&redis)).await;
    redis.freeze();
    // A call that was under way may give up before the silence of the connection is noticed,
    // so noticed means: a new call has its answer when it is first asked.
    wait_for("the silence is noticed", SOON, || async {
        let answer = store.get(&key(1), MAX).now_or_never();
        matches!(answer, Some(Err(StoreError::Down(_)))).then_some(())
    })
    .await;
    // From here on no call waits at all.
    for _ in 0..100 {
        match store.get(&key(1), MAX).now_or_never() {
            Some(Err(StoreError::Down(_))) => {}
            Some(other) => panic!("a frozen server answered {other:?}"),
            None => panic!("a call waited for a server that is known to be silent"),
        }
    }
    redis.thaw();
    back(&*store).await;
}

/// Writes fill the socket of a server that doesn't read: the store must notice even so.
#[tokio::test]
async fn a_frozen_server_is_noticed_behind_a_full_socket() {
    let redis = Redis::start().await;
    let store = connected(&brief(&redis)).await;
    redis.freeze();
    let one = key(1);
    let large = StorePut {
        record: bytes::Bytes::from(vec![0; 8 << 20]),
        ..put(&one, b"", 0)
    };
    for _ in 0..4 {
        let _ = tokio::time::timeout(Duration::from_millis(50), store.put(large.clone())).await;
    }
    down(&*store).await;
    redis.thaw();
    back(&*store).await;
}

#[tokio::test]
async fn a_slow_line_is_only_slow_and_a_cut_one_is_made_anew() {
    let redis = Redis::start().await;
    let wire = Wire::to(redis.port).await;
    let store = connected(&config_of(&format!("redis://{}", wire.address))).await;
    wire.slow(Duration::from_millis(200));
    let start = Instant::now();
    assert!(store.get(&key(1), MAX).await.unwrap().is_none());
    assert!(start.elapsed() >= Duration::from_millis(400));
    wire.slow(Duration::ZERO);
    wire.cut();
    back(&*store).await;
}

#[tokio::test]
async fn a_full_server_refuses_writes_and_still_reads() {
    let redis = Redis::start_with(&["--maxmemory-policy", "noeviction"]).await;
    let store = connected(&config_of(&redis.url())).await;
    store.put(put(&key(1), b"there", 1)).await.unwrap();
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]).await;
    match store.put(put(&key(2), b"new", 1)).await {
        Err(StoreError::Refused(_, word)) => assert!(word.contains("OOM"), "{word}"),
        other => panic!("{other:?}"),
    }
    assert!(store.get(&key(2), MAX).await.unwrap().is_none());
    let there = store.get(&key(1), MAX).await.unwrap().unwrap();
    assert_eq!(there.record, "there");
    store.delete(&key(1), place(numbered(2))).await.unwrap();
    assert!(store.get(&key(1), MAX).await.unwrap().is_none());
    redis.cli(&["CONFIG", "SET", "maxmemory", "0"]).await;
    let written = store.put(put(&key(2), b"new", 1)).await.unwrap();
    assert_eq!(written, StorePutOutcome::Stored);
}

#[tokio::test]
async fn a_loading_server_refuses_and_is_used_when_it_has_loaded() {
    if server::major_version() < 7 {
        eprintln!("an older Redis can't be made to load slowly enough");
        return;
    }
    let mut redis = Redis::start().await;
    let store = connected(&config_of(&redis.url())).await;
    redis.cli(&["DEBUG", "POPULATE", "30000"]).await;
    redis.cli(&["SAVE"]).await;
    // Five minutes, with a look at the sockets now and then.
    redis.respawn(&[
        "--key-load-delay",
        "10000",
        "--loading-process-events-interval-bytes",
        "1024",
    ]);
    wait_for("the store meets LOADING", SOON, || async {
        match store.get(&key(1), MAX).await {
            Err(StoreError::Refused(_, word)) if word.contains("LOADING") => Some(()),
            Err(_) => None,
            Ok(_) => panic!("it had loaded before it was asked"),
        }
    })
    .await;
    redis.cli(&["CONFIG", "SET", "key-load-delay", "0"]).await;
    back(&*store).await;
}

#[tokio::test]
async fn a_wrong_password_is_named_and_a_right_one_lets_in() {
    let redis = Redis::start().await;
    redis.cli(&["CONFIG", "SET", "requirepass", "right"]).await;
    for (password, word) in [(None, "NOAUTH"), (Some("wrong"), "WRONGPASS")] {
        let config = config::RedisTierConfig {
            password: password.map(str::to_owned),
            ..config_of(&redis.url())
        };
        let store = open(&config).unwrap();
        wait_for("the server's word", SOON, || async {
            match store.get(&key(1), MAX).await {
                Err(StoreError::Refused(_, said)) if said.contains(word) => Some(()),
                Err(_) => None,
                Ok(_) => panic!("it let us in"),
            }
        })
        .await;
    }
    let config = config::RedisTierConfig {
        password: Some("right".to_owned()),
        ..config_of(&redis.url())
    };
    connected(&config).await;
}

#[tokio::test]
async fn an_acl_user_needs_no_more_than_the_prefix() {
    let redis = Redis::start().await;
    let rules = "ACL SETUSER edge on >secret ~lamina:* resetchannels &lamina:* -@all +@read +@write \
                 +@scripting +@pubsub +@connection +@fast +info +cluster";
    redis
        .cli(&rules.split_whitespace().collect::<Vec<_>>())
        .await;
    let config = config::RedisTierConfig {
        username: Some("edge".to_owned()),
        password: Some("secret".to_owned()),
        ..config_of(&redis.url())
    };
    let store = connected(&config).await;
    let lease = owned(&*store, &key(1), MINUTE).await;
    store.release(&lease).await.unwrap();
    store.append(&purge("all"), LogNumber::ZERO).await.unwrap();
    let length = redis.cli(&["XLEN", "lamina:{log}"]).await;
    assert_eq!(length, "1");
    assert_eq!(redis.cli(&["EXISTS", &name(&key(1), 'l')]).await, "0");
}

#[tokio::test]
async fn what_can_be_no_redis_is_refused_at_once() {
    let refused = |config: config::RedisTierConfig| open(&config).err().expect("refused");
    let url = |url: &str| refused(config_of(url));
    assert!(matches!(
        url("http://a"),
        RedisStoreOpenError::Server(redis::RedisTargetError::Url(_))
    ));
    assert!(matches!(
        url("redis://me:pw@a"),
        RedisStoreOpenError::Server(redis::RedisTargetError::Credentials)
    ));
    let braces = config::RedisTierConfig {
        prefix: Some("{}".to_owned()),
        ..config_of("redis://a")
    };
    assert!(matches!(refused(braces), RedisStoreOpenError::Prefix(_)));
    let none = config::RedisTierConfig {
        connections: 0,
        ..config_of("redis://a")
    };
    assert!(matches!(refused(none), RedisStoreOpenError::Connections));
    let file = config::RedisTierConfig {
        ca_file: Some("/nowhere/ca.pem".into()),
        ..config_of("rediss://a")
    };
    assert!(matches!(
        refused(file),
        RedisStoreOpenError::Server(redis::RedisTargetError::Certificates { .. })
    ));
}
