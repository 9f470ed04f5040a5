//! `lamina doctor` names what a user of Redis may not do, with the command that grants it, and
//! leaves no lease behind.

use std::time::Duration;

use e2e::cli::{Ran, run};
use e2e::origin::Origin;
use e2e::redis::Redis;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, wait_for, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// All that a doctor may take, whatever stands still.
const LIMIT: Duration = Duration::from_secs(120);

/// What the doctor says of a Redis behind this port, with these keys of `redis` and of `l2`.
async fn doctor(port: u16, redis: &str, l2: &str) -> Ran {
    let origin = Origin::pages(|_| Reply::ok("")).await;
    // Slow is no failure here: the machine may be busy.
    let l2 = format!(
        "{{l2: {{redis: {{url: \"redis://127.0.0.1:{port}\"{redis}}}, read_timeout: 30s, \
         write_timeout: 30s{l2}}}}}"
    );
    doctor_of(Setup::new(&origin).top("cache", &l2)).await
}

async fn doctor_of(setup: Setup) -> Ran {
    let (_dir, config) = setup.write();
    let config = config.to_str().unwrap().to_owned();
    let ran = tokio::task::spawn_blocking(move || run(&["doctor", "-c", &config]));
    within("the doctor ends", LIMIT, ran).await.unwrap()
}

async fn user(redis: &Redis, rules: &str) {
    let words: Vec<_> = rules.split_whitespace().collect();
    assert_eq!(redis.cli(&words).await, "OK");
}

const EDGE: &str = ", username: edge, password: right";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_and_channels_that_a_user_lacks_are_named_with_what_grants_them() {
    let redis = Redis::start().await;
    user(
        &redis,
        "ACL SETUSER edge on >right ~lamina:* +@all resetchannels -pttl -xadd -xread",
    )
    .await;
    let ran = doctor(redis.port, EDGE, "").await;
    assert_eq!(ran.code, Some(1), "{}", ran.output());
    for named in [
        "the user edge may not run pttl, run xadd, ",
        "run xread",
        "publish on the channel lamina:freed",
        "subscribe to the channel lamina:freed",
    ] {
        assert!(ran.stdout.contains(named), "{named}: {}", ran.stdout);
    }
    let line = ran.stdout.lines().find(|line| line.contains("ACL SETUSER"));
    let (_, grant) = line.expect("a line").split_once("ACL SETUSER ").unwrap();
    let grant = format!("ACL SETUSER {}", grant.trim());
    user(&redis, &grant).await;
    let ran = doctor(redis.port, EDGE, "").await;
    assert_eq!(ran.code, Some(0), "{}", ran.output());
    assert!(!ran.stdout.contains("ACL SETUSER"), "{}", ran.stdout);
}

/// The store works without the channel: it is a warning.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_alone_is_a_warning() {
    let redis = Redis::start().await;
    user(
        &redis,
        "ACL SETUSER edge on >right ~lamina:* +@all resetchannels",
    )
    .await;
    let ran = doctor(redis.port, EDGE, "").await;
    assert_eq!(ran.code, Some(0), "{}", ran.output());
    let line = ran.stdout.lines().find(|line| line.contains("ACL SETUSER"));
    let line = line.expect("a line");
    assert!(
        line.contains("WARNING") && line.ends_with("ACL SETUSER edge &lamina:freed"),
        "{line}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_without_our_keys_or_without_scripts_is_told_what_is_missing() {
    let redis = Redis::start().await;
    for (rules, grant) in [
        ("~other:* &* +@all", "ACL SETUSER edge ~lamina:*"),
        (
            "~lamina:* &* +@all -@scripting",
            "ACL SETUSER edge +evalsha",
        ),
    ] {
        user(&redis, &format!("ACL SETUSER edge reset on >right {rules}")).await;
        let ran = doctor(redis.port, EDGE, "").await;
        assert_eq!(ran.code, Some(1), "{}", ran.output());
        assert!(ran.stdout.contains(grant), "{}", ran.stdout);
    }
}

/// The bus is of no use without its channel.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bus_whose_user_may_not_subscribe_is_told_what_grants_it() {
    let redis = Redis::start().await;
    user(&redis, "ACL SETUSER edge on >right ~* +@all resetchannels").await;
    let origin = Origin::pages(|_| Reply::ok("")).await;
    let bus = format!(
        "{{source: a, redis: {{url: \"{}\", channel: shop, username: edge, password: right}}}}",
        redis.url()
    );
    let ran = doctor_of(Setup::new(&origin).top("bus", &bus)).await;
    assert_eq!(ran.code, Some(1), "{}", ran.output());
    let grant = "ACL SETUSER edge +subscribe &shop";
    assert!(ran.stdout.contains(grant), "{}", ran.stdout);
}

/// Passes everything on to Redis, and nothing back on a connection from the moment on in which
/// somebody asks for a lease on it.
async fn without_answers_to_leases(port: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            tokio::spawn(pass(client, server));
        }
    });
    address.port()
}

async fn pass(client: TcpStream, server: TcpStream) {
    /// What only the script that takes a lease says.
    const LEASE: &[u8] = b"was ~= ARGV[3]";
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let (silent, is_silent) = tokio::sync::watch::channel(false);
    let up = async {
        let mut bytes = vec![0; 64 << 10];
        while let Ok(n @ 1..) = from_client.read(&mut bytes).await {
            if bytes[..n].windows(LEASE.len()).any(|part| part == LEASE) {
                silent.send_replace(true);
            }
            if to_server.write_all(&bytes[..n]).await.is_err() {
                return;
            }
        }
    };
    let down = async {
        let mut bytes = vec![0; 64 << 10];
        while let Ok(n @ 1..) = from_server.read(&mut bytes).await {
            if !*is_silent.borrow() && to_client.write_all(&bytes[..n]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = up => {}
        () = down => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_whose_answer_was_lost_is_given_back() {
    let redis = Redis::start().await;
    let port = without_answers_to_leases(redis.port).await;
    let ran = doctor(port, "", ", lease: {ttl: 10m}").await;
    assert_eq!(ran.code, Some(1), "{}", ran.output());
    let line = ran
        .stdout
        .lines()
        .find(|line| line.trim_start().starts_with("lease"));
    assert!(
        line.is_some_and(|line| line.contains("FAILED")),
        "{}",
        ran.stdout
    );
    wait_for("no lease is left", SOON, || async {
        redis
            .cli(&["KEYS", "lamina:{*}*l"])
            .await
            .is_empty()
            .then_some(())
    })
    .await;
}
