//! Nodes of two namespaces over one Redis, as bus and as second tier: neither sees the other's
//! pages, and no purge of one reaches the other.

use e2e::fleet::{node, purge_everywhere};
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::redis::Redis;
use e2e::reply::Reply;
use serde_json::json;

use crate::l2::{ask, reads_below, redis_at, written};

/// A node of a namespace, whose origin says its name.
async fn of(namespace: &str, redis: &Redis, origin: &Origin, name: &str) -> Gateway {
    let bus = format!(
        "namespace: \"{namespace}\", redis: {{url: \"{}\"}}",
        redis.url()
    );
    let gateway = node(origin, name, &bus)
        .top("cache", &format!("{{l2: {}}}", redis_at(&redis.url())))
        .start()
        .await;
    reads_below(&gateway).await;
    gateway
}

async fn saying(text: &'static str) -> Origin {
    Origin::pages(move |_| Reply::fresh(text)).await
}

#[tokio::test]
async fn two_namespaces_share_a_redis_and_nothing_else() {
    let redis = Redis::start().await;
    for (one, other) in [("shop", "blog"), ("a", "a:b"), ("{log}", "%7Blog%7D")] {
        let (of_one, of_other) = (saying("one").await, saying("other").await);
        let first = of(one, &redis, &of_one, "first").await;
        let second = of(one, &redis, &of_one, "second").await;
        let stranger = of(other, &redis, &of_other, "stranger").await;
        ask(&first, "/p").await;
        written(&first, 1.0).await;
        assert_eq!(
            ask(&stranger, "/p").await.text(),
            "other",
            "{one} and {other}"
        );
        written(&stranger, 1.0).await;
        assert!(
            ask(&second, "/p").await.is_hit(),
            "nodes of {one} share pages"
        );
        assert_eq!(of_one.count(), 1);
        let receipt = purge_everywhere(&first, json!({"all": true})).await;
        assert_eq!(receipt["l2"]["logged"], true, "{receipt}");
        assert!(!ask(&second, "/p").await.is_hit(), "and purges");
        assert!(ask(&stranger, "/p").await.is_hit());
        let again = of(other, &redis, &of_other, "again").await;
        assert!(
            ask(&again, "/p").await.is_hit(),
            "the page of {other} is there below"
        );
        assert_eq!(of_other.count(), 1);
    }
}
