//! Redis over TLS, with certificates of the test's own.

use e2e::certificates;
use e2e::cli;
use e2e::free_port::free_port;
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::redis::Redis;
use e2e::setup::Setup;
use e2e::wait::{SOON, within};

use crate::l2::{LASTING, PATIENCE, ask, reads_below, versions, written};

/// A Redis that speaks TLS and has a user `edge`, and the authority that vouches for it.
struct TlsRedis {
    redis: Redis,
    port: u16,
    authority: Vec<u8>,
}

impl TlsRedis {
    async fn start() -> Self {
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        certificates::make(folder.path());
        Self {
            redis: Redis::start_sealed(folder.path(), port).await,
            port,
            authority: certificates::authority(folder.path()),
        }
    }

    /// A gateway that takes `authority` for the servers'.
    fn trusting(&self, origin: &Origin, authority: &[u8]) -> Setup {
        let redis = format!(
            "{{url: \"rediss://127.0.0.1:{}\", username: edge, password_file: secret, ca_file: ca.pem, connect_timeout: 1m, silence_timeout: 10m}}",
            self.port
        );
        Setup::new(origin)
            .top("cache", &format!("{{l2: {{redis: {redis}, {PATIENCE}}}}}"))
            .file("secret", "right\n")
            .file("ca.pem", authority)
            .policy(LASTING)
    }
}

async fn connected_users(redis: &Redis) -> usize {
    let clients = redis.cli(&["CLIENT", "LIST"]).await;
    clients.lines().filter(|l| l.contains("user=edge")).count()
}

#[tokio::test]
async fn two_nodes_share_a_redis_over_tls_as_a_named_user() {
    let sealed = TlsRedis::start().await;
    let origin = versions().await;
    let setup = sealed.trusting(&origin, &sealed.authority);
    let one = setup.start().await;
    reads_below(&one).await;
    assert_eq!(ask(&one, "/").await.text(), "v1");
    written(&one, 1.0).await;
    let other = setup.start().await;
    reads_below(&other).await;
    let shared = ask(&other, "/").await;
    assert_eq!(shared.text(), "v1");
    assert!(shared.is_hit(), "{:?}", shared.headers);
    assert!(connected_users(&sealed.redis).await >= 2);
}

#[tokio::test]
async fn a_server_that_nobody_vouches_for_is_named_and_delays_no_page() {
    let sealed = TlsRedis::start().await;
    let origin = versions().await;
    let setup = sealed.trusting(&origin, &certificates::stranger());
    let gateway: Gateway = setup.start().await;
    // No deadline of a read stands in for an answer that it is not there.
    let answer = within("a page", SOON, ask(&gateway, "/")).await;
    assert_eq!(answer.text(), "v1");
    let said = gateway
        .logged("why not", |line| line.contains("no connection to Redis"))
        .await;
    assert!(said.to_lowercase().contains("certificate"), "{said}");
    assert_eq!(connected_users(&sealed.redis).await, 0);
    let (_dir, config) = setup.write();
    let ran = cli::run(&["doctor", "-c", config.to_str().unwrap()]);
    assert_eq!(ran.code, Some(1), "{}", ran.output());
    let said = ran.output().to_lowercase();
    assert!(
        said.contains("failed") && said.contains("certificate"),
        "{said}"
    );
}
