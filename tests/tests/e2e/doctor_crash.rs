//! `lamina doctor` says in one sentence what a crash of Redis may undo.

use std::time::Duration;

use e2e::cli::{Ran, run};
use e2e::origin::Origin;
use e2e::redis::{self, Redis, Sentinels};
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::within;

/// All that a doctor may take, whatever stands still.
const LIMIT: Duration = Duration::from_secs(90);

/// What the doctor says of a Redis. `more` are keys beside its `url`.
async fn doctor(url: &str, more: &str) -> Ran {
    let origin = Origin::pages(|_| Reply::ok("")).await;
    // Slow is no failure here: the machine may be busy.
    let patience = "read_timeout: 30s, write_timeout: 30s";
    let l2 = format!("{{l2: {{redis: {{url: \"{url}\"{more}}}, {patience}}}}}");
    let (_dir, config) = Setup::new(&origin).top("cache", &l2).write();
    let config = config.to_str().unwrap().to_owned();
    let ran = tokio::task::spawn_blocking(move || run(&["doctor", "-c", &config]));
    within("the doctor ends", LIMIT, ran).await.unwrap()
}

/// The line about it; a risk is no failure.
#[track_caller]
fn line<'a>(ran: &'a Ran, name: &str) -> &'a str {
    assert_eq!(ran.code, Some(0), "{}", ran.output());
    let found = ran.stdout.lines().find_map(|line| {
        let (first, rest) = line.trim_start().split_once(' ')?;
        (first == name).then_some(rest.trim_start())
    });
    found.unwrap_or_else(|| panic!("no line about {name}: {}", ran.output()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_crash_may_undo_follows_from_how_redis_keeps_its_changes() {
    for (settings, wanted) in [
        (
            // Each as a word of its own, as version 6 reads them.
            &["--save", "3600", "1", "--save", "300", "100"][..],
            "WARNING  Redis keeps changes by snapshots alone (save 3600 1 300 100): a crash may \
             undo up to 1h of purges and stored pages; set appendonly yes and appendfsync \
             everysec to bound it to the last second",
        ),
        (
            &["--appendonly", "yes"],
            "may undo the last second of purges and stored pages (appendfsync everysec)",
        ),
        (
            &["--appendonly", "yes", "--appendfsync", "always"],
            "undoes nothing: Redis has each change on its disk before it answers (appendfsync \
             always)",
        ),
        (
            &["--appendonly", "yes", "--appendfsync", "no"],
            "WARNING  a crash of Redis's machine may undo the purges and stored pages that the \
             kernel had not written yet (appendfsync no), often half a minute of them; set \
             appendonly yes and appendfsync everysec to bound it to the last second",
        ),
        (
            &[],
            "undoes no purge and loses every stored page: Redis keeps nothing (appendonly no, no \
             save) and comes back empty, so everything is loaded again",
        ),
    ] {
        let redis = Redis::start_with(settings).await;
        let ran = doctor(&redis.url(), "").await;
        assert_eq!(line(&ran, "crash"), wanted);
        let is_old = redis::major_version() < 7;
        let told = ran
            .stdout
            .contains("takes no purges into its log while its memory is full");
        assert_eq!(told, is_old, "{}", ran.stdout);
        assert!(!ran.stdout.contains("failover  "), "{}", ran.stdout);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_does_not_tell_its_settings_is_named() {
    let redis = Redis::start().await;
    let user = "ACL SETUSER edge on >right ~* &* +@all -config";
    let user: Vec<_> = user.split(' ').collect();
    assert_eq!(redis.cli(&user).await, "OK");
    let ran = doctor(&redis.url(), ", username: edge, password: right").await;
    let said = line(&ran, "crash");
    assert!(said.starts_with("WARNING  it is unknown"), "{said}");
    assert!(
        said.contains("NOPERM") && said.contains("appendonly"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_is_told_how_far_its_replicas_may_lag() {
    let group = Sentinels::start().await;
    let ran = doctor(&group.url(), "").await;
    let said = line(&ran, "failover");
    assert!(said.starts_with("WARNING  a failover may undo"), "{said}");
    for server in &group.servers {
        server
            .cli(&["CONFIG", "SET", "min-replicas-to-write", "1"])
            .await;
    }
    let ran = doctor(&group.url(), "").await;
    let said = line(&ran, "failover");
    assert!(said.contains("because 1 must follow"), "{said}");
}
