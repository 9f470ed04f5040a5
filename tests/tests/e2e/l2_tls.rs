//! Redis over TLS, with certificates that `openssl` makes in the test's folder.

use std::fs;
use std::path::Path;
use std::process::Command;

use e2e::cli;
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::redis::{Redis, free_port};
use e2e::setup::Setup;
use e2e::wait::{SOON, within};

use crate::l2::{LASTING, PATIENCE, ask, reads_below, versions, written};

/// A Redis that speaks TLS and has a user `edge`, and the authority that vouches for it.
struct Sealed {
    redis: Redis,
    port: u16,
    authority: Vec<u8>,
}

impl Sealed {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = authority(folder.path());
        certify(folder.path());
        let port = free_port();
        let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let redis = Redis::start_with(&[
            "--tls-port",
            &port.to_string(),
            "--tls-cert-file",
            &file("server.pem"),
            "--tls-key-file",
            &file("server.key"),
            "--tls-ca-cert-file",
            &file("ca.pem"),
            "--tls-auth-clients",
            "no",
        ])
        .await;
        let user = "ACL SETUSER edge on >right ~lamina:* &lamina:* +@all";
        let user: Vec<_> = user.split(' ').collect();
        assert_eq!(redis.cli(&user).await, "OK");
        Self {
            redis,
            port,
            authority,
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

fn openssl(folder: &Path, arguments: &str) {
    let ran = Command::new("openssl")
        .args(arguments.split(' '))
        .current_dir(folder)
        .output()
        .expect("openssl is installed (make test-install)");
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "openssl {arguments}: {said}");
}

const KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";

/// Makes `ca.pem` and `ca.key`; answers with the certificate.
fn authority(folder: &Path) -> Vec<u8> {
    let name = "-subj /CN=authority -days 2";
    openssl(
        folder,
        &format!("req -x509 {KEY} {name} -keyout ca.key -out ca.pem"),
    );
    fs::read(folder.join("ca.pem")).unwrap()
}

/// Makes `server.pem` and `server.key`, which the authority vouches for.
fn certify(folder: &Path) {
    fs::write(folder.join("names"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    openssl(
        folder,
        &format!("req {KEY} -subj /CN=redis -keyout server.key -out server.csr"),
    );
    openssl(
        folder,
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
         -extfile names -out server.pem",
    );
}

async fn connected_users(redis: &Redis) -> usize {
    let clients = redis.cli(&["CLIENT", "LIST"]).await;
    clients.lines().filter(|l| l.contains("user=edge")).count()
}

#[tokio::test]
async fn two_nodes_share_a_redis_over_tls_as_a_named_user() {
    let sealed = Sealed::start().await;
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
    let sealed = Sealed::start().await;
    let origin = versions().await;
    let other = tempfile::tempdir().unwrap();
    let setup = sealed.trusting(&origin, &authority(other.path()));
    let gateway: Gateway = setup.start().await;
    // No deadline of a read stands in for an answer that it is not there.
    let answer = within("a page", SOON, ask(&gateway, "/")).await;
    assert_eq!(answer.text(), "v1");
    let said = gateway
        .logged("why not", |line| line.contains("not connected"))
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
