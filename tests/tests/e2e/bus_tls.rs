//! Brokers over TLS and with passwords, as YAML names them: who is trusted, who is not, and
//! what is said of it. One suite for all transports.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use e2e::certificates;
use e2e::fleet::{Fleet, Pages, node, purge_everywhere, shown, state};
use e2e::free_port::free_port;
use e2e::gateway::Gateway;
use e2e::named_pipe;
use e2e::nats::Nats;
use e2e::origin::Origin;
use e2e::rabbit::{self, Rabbit};
use e2e::redis::Redis;
use e2e::setup::Setup;
use e2e::wait::{SOON, wait_for};
use serde_json::json;
use tempfile::TempDir;

/// A broker that speaks TLS and knows one user, whose password is `right`.
trait Sealed: Sized {
    /// What it says of a wrong password.
    const WRONG: &'static str;

    async fn start() -> Self;

    /// The certificate of who vouches for it.
    fn authority(&self) -> Vec<u8>;

    /// A transport of this user, with `password_file: secret` and `ca_file: ca.pem`.
    fn yaml(&self) -> String;

    /// The user's password from now on.
    async fn set_password(&mut self, password: &str);
}

struct SealedRedis(Redis, u16, TempDir);
struct SealedNats(Nats, TempDir);
struct SealedRabbit(&'static Rabbit, String);

/// The same for all: their connections have time on a busy machine.
const COMMON: &str =
    "password_file: secret, ca_file: ca.pem, connect_timeout: 20s, reconnect_max: 500ms";

impl Sealed for SealedRedis {
    const WRONG: &'static str = "WRONGPASS";

    async fn start() -> Self {
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        certificates::make(folder.path());
        Self(Redis::start_sealed(folder.path(), port).await, port, folder)
    }

    fn authority(&self) -> Vec<u8> {
        certificates::authority(self.2.path())
    }

    fn yaml(&self) -> String {
        let port = self.1;
        format!("redis: {{url: \"rediss://127.0.0.1:{port}\", username: edge, {COMMON}}}")
    }

    async fn set_password(&mut self, password: &str) {
        let password = format!(">{password}");
        let set = ["ACL", "SETUSER", "edge", "resetpass", &password];
        assert_eq!(self.0.cli(&set).await, "OK");
    }
}

fn write_nats_config(folder: &Path, password: &str) {
    let text = format!(
        "authorization: {{user: edge, password: {password}}}\n\
         tls: {{cert_file: server.pem, key_file: server.key}}\n"
    );
    let text = ["server.pem", "server.key"]
        .iter()
        .fold(text, |text, file| {
            let whole = format!("\"{}\"", folder.join(file).display());
            text.replace(file, &whole)
        });
    std::fs::write(folder.join("nats.conf"), text).unwrap();
}

impl Sealed for SealedNats {
    const WRONG: &'static str = "authorization violation";

    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        certificates::make(folder.path());
        write_nats_config(folder.path(), "right");
        let file = folder.path().join("nats.conf");
        let nats = Nats::spawn(free_port(), &["--config", file.to_str().unwrap()]);
        Self(nats, folder)
    }

    fn authority(&self) -> Vec<u8> {
        certificates::authority(self.1.path())
    }

    fn yaml(&self) -> String {
        let port = self.0.port;
        format!("nats: {{servers: [\"tls://127.0.0.1:{port}\"], username: edge, {COMMON}}}")
    }

    async fn set_password(&mut self, password: &str) {
        write_nats_config(self.1.path(), password);
        self.0.respawn();
    }
}

impl Sealed for SealedRabbit {
    const WRONG: &'static str = "ACCESS_REFUSED";

    async fn start() -> Self {
        static USERS: AtomicU32 = AtomicU32::new(0);
        let name = format!("edge-{}", USERS.fetch_add(1, Ordering::Relaxed));
        let mut broker = Self(rabbit::shared().await, name);
        broker.set_password("right").await;
        broker
    }

    fn authority(&self) -> Vec<u8> {
        self.0.authority()
    }

    fn yaml(&self) -> String {
        let (port, name) = (self.0.tls_port, &self.1);
        format!(
            "rabbitmq: {{url: \"amqps://127.0.0.1:{port}\", username: {name}, exchange: {name}, \
             {COMMON}}}"
        )
    }

    /// Makes the user too: to ask the server anything takes a second.
    async fn set_password(&mut self, password: &str) {
        let name = &self.1;
        let set = format!(
            "U = <<\"{name}\">>, A = <<\"test\">>, All = <<\".*\">>,
             catch rabbit_auth_backend_internal:add_user(U, <<\"{password}\">>, A),
             rabbit_auth_backend_internal:change_password(U, <<\"{password}\">>, A),
             rabbit_auth_backend_internal:set_permissions(U, <<\"/\">>, All, All, All, A)."
        );
        assert_eq!(self.0.ctl(&["eval", &set]).await, "ok");
    }
}

fn setup<B: Sealed>(origin: &Origin, name: &str, broker: &B, password: &str) -> Setup {
    node(origin, name, &broker.yaml())
        .file("secret", format!("{password}\n"))
        .file("ca.pem", broker.authority())
}

/// Waits for the reason why the bus is not used, while pages are served.
async fn refused(gateway: &Gateway, reason: &str) {
    assert_eq!(shown(gateway, "/p").await, 1);
    // The log tells how an outage began, which on a busy machine may be that no answer came.
    wait_for("it says why there is no bus", SOON, || async {
        let said = gateway.admin(http::Method::GET, "/v1/nodes", "").await.text;
        let said = said.to_lowercase();
        said.contains(&reason.to_lowercase()).then_some(())
    })
    .await;
    gateway
        .logged("that there is no bus", |line| line.contains("\"WARN\""))
        .await;
    assert_eq!(state(gateway).await, "degraded");
    assert_eq!(shown(gateway, "/p").await, 1);
}

async fn who_is_trusted_is_heard<B: Sealed>() {
    let broker = B::start().await;
    let pages = Pages::default();
    let origin = pages.origin().await;
    let nodes = vec![
        setup(&origin, "a", &broker, "right").start().await,
        setup(&origin, "b", &broker, "right").start().await,
    ];
    let fleet = Fleet {
        origin,
        pages,
        nodes,
    };
    fleet.whole().await;
    assert_eq!(shown(&fleet.nodes[1], "/p").await, 1);
    fleet.pages.change("/p");
    let receipt = purge_everywhere(&fleet.nodes[0], json!({"tag": "/p"})).await;
    assert_eq!(receipt["peers"]["complete"], true, "{receipt}");
    assert_eq!(shown(&fleet.nodes[1], "/p").await, 2);
}

async fn whom_nobody_vouches_for_is_not_told_the_password<B: Sealed>() {
    let broker = B::start().await;
    let origin = Pages::default().origin().await;
    let setup = setup(&origin, "a", &broker, "right").file("ca.pem", certificates::stranger());
    refused(
        &setup.start().await,
        "invalid peer certificate: UnknownIssuer",
    )
    .await;
}

async fn a_wrong_password_is_told_and_tried_again<B: Sealed>() {
    let mut broker = B::start().await;
    let origin = Pages::default().origin().await;
    // A word that stands in no other line.
    let password = "s3cret-of-the-edge";
    let gateway = setup(&origin, "a", &broker, password).start().await;
    refused(&gateway, B::WRONG).await;
    broker.set_password(password).await;
    wait_for("the bus is joined", SOON * 2, || async {
        (state(&gateway).await == "serving").then_some(())
    })
    .await;
    let log = gateway.log().join("\n");
    assert!(!log.contains("s3cret"), "a password in the log: {log}");
}

macro_rules! sealed {
    ($($name:ident: $broker:ty)+) => {
        $(mod $name {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn who_is_trusted_is_heard() {
                super::who_is_trusted_is_heard::<$broker>().await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn whom_nobody_vouches_for_is_not_told_the_password() {
                super::whom_nobody_vouches_for_is_not_told_the_password::<$broker>().await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn a_wrong_password_is_told_and_tried_again() {
                super::a_wrong_password_is_told_and_tried_again::<$broker>().await;
            }
        })+
    };
}

sealed! {
    redis: super::SealedRedis
    nats: super::SealedNats
    rabbitmq: super::SealedRabbit
}

/// NATS alone reads its files for each connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipe_in_place_of_the_authorities_holds_up_no_connection() {
    let mut broker = SealedNats::start().await;
    let origin = Pages::default().origin().await;
    let gateway = setup(&origin, "a", &broker, "right").start().await;
    let serves = || async { (state(&gateway).await == "serving").then_some(()) };
    wait_for("the bus is joined", SOON * 2, serves).await;
    let file = gateway.dir().join("ca.pem");
    named_pipe::put(&file);
    broker.set_password("right").await;
    refused(&gateway, "it is no regular file").await;
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, broker.authority()).unwrap();
    wait_for("the bus is joined again", SOON, serves).await;
}
