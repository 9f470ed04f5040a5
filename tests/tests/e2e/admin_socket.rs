//! The admin listener as a Unix socket, and the commands that ask a running gateway.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use e2e::cli::run;
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::SOON;
use tempfile::TempDir;

struct SocketSite {
    origin: Origin,
    dir: TempDir,
    socket: PathBuf,
}

impl SocketSite {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            origin: Origin::pages(|_| Reply::fresh("x")).await,
            socket: dir.path().join("admin.sock"),
            dir,
        }
    }

    fn setup(&self, more: &str) -> Setup {
        let admin = format!("{{address: \"unix:{}\"{more}}}", self.socket.display());
        Setup::new(&self.origin).top("admin", &admin)
    }

    fn endpoint(&self) -> String {
        format!("unix:{}", self.socket.display())
    }
}

fn mode(path: &Path) -> u32 {
    let file = std::fs::symlink_metadata(path).unwrap();
    assert!(file.file_type().is_socket());
    file.permissions().mode() & 0o777
}

#[tokio::test]
async fn the_listener_may_be_a_unix_socket_of_its_user_alone() {
    let site = SocketSite::new().await;
    let mut gateway = site.setup("").start().await;
    assert_eq!(mode(&site.socket), 0o600);
    gateway.client().get("/").await;
    let ran = run(&["purge", "--all", "--admin", &site.endpoint()]);
    assert_eq!(ran.code, Some(0), "{}", ran.output());
    assert!(!gateway.client().get("/").await.is_hit());
    gateway
        .logged("who it was", |line| {
            line.contains("admin action") && line.contains("Unix socket, user ")
        })
        .await;
    let config = gateway.dir().join("lamina.yaml");
    let ran = run(&["purge", "--all", "-c", config.to_str().unwrap()]);
    assert_eq!(ran.code, Some(0), "{}", ran.output());
    gateway.terminate();
    assert!(gateway.ended(SOON).await.success());
    assert!(!site.socket.exists(), "it goes with its gateway");
}

#[tokio::test]
async fn its_mode_is_configured() {
    let site = SocketSite::new().await;
    let _gateway = site.setup(", socket_mode: \"0660\"").start().await;
    assert_eq!(mode(&site.socket), 0o660);
}

#[tokio::test]
async fn a_socket_of_the_dead_is_taken_over_and_one_of_the_living_is_not() {
    let site = SocketSite::new().await;
    let mut killed = site.setup("").start().await;
    killed.kill();
    killed.ended(SOON).await;
    assert!(site.socket.exists());
    let living = site.setup("").start().await;
    let (dir, config) = site.setup("").write();
    let refused = Gateway::try_start(dir, &config, &[]).await.err().unwrap();
    assert!(refused.log.contains("is in use"), "{}", refused.log);
    let ran = run(&["purge", "--all", "--admin", &site.endpoint()]);
    assert_eq!(ran.code, Some(0), "{}", ran.output());
    drop(living);
}

#[tokio::test]
async fn what_is_no_socket_is_left_alone() {
    let site = SocketSite::new().await;
    std::fs::write(&site.socket, "precious").unwrap();
    let (dir, config) = site.setup("").write();
    let refused = Gateway::try_start(dir, &config, &[]).await.err().unwrap();
    assert!(refused.log.contains("is not a socket"), "{}", refused.log);
    assert_eq!(std::fs::read_to_string(&site.socket).unwrap(), "precious");
    assert_eq!(
        site.dir.path().read_dir().unwrap().count(),
        2,
        "a lock beside it"
    );
}

#[tokio::test]
async fn commands_take_the_token_that_is_good_for_them_from_the_configuration() {
    let origin = Origin::pages(|_| Reply::fresh("x")).await;
    let admin = "{address: \"ADDRESS\", tokens: [\
                 {name: reader, token: reads-alone, can: [read]}, \
                 {name: ci, token_file: token, can: [purge]}]}";
    let gateway = Setup::new(&origin)
        .file("token", "purges-alone\n")
        .top("admin", &admin.replace("ADDRESS", "127.0.0.1:0"))
        .start()
        .await;
    let address = gateway.admin.to_string();
    let file = gateway.dir().join("asking.yaml");
    let yaml = std::fs::read_to_string(gateway.dir().join("lamina.yaml")).unwrap();
    let yaml = yaml.replace(
        "{address: \"127.0.0.1:0\", tokens",
        &format!("{{address: \"{address}\", tokens"),
    );
    std::fs::write(&file, yaml).unwrap();
    gateway.client().get("/").await;
    let refused = run(&["purge", "--all", "--admin", &address]);
    assert_eq!(refused.code, Some(1), "{}", refused.output());
    assert!(refused.output().contains("401"), "{}", refused.output());
    let ran = run(&["purge", "--all", "-c", file.to_str().unwrap()]);
    assert_eq!(ran.code, Some(0), "{}", ran.output());
    assert!(!gateway.client().get("/").await.is_hit());
    let broken = gateway.dir().join("broken.yaml");
    std::fs::write(&broken, "version: 1\nlistners: []\n").unwrap();
    let ran = run(&["purge", "--all", "-c", broken.to_str().unwrap()]);
    assert_eq!(ran.code, Some(2), "{}", ran.output());
}

#[tokio::test]
async fn an_address_that_is_none_is_told_with_what_is_expected() {
    let ran = run(&["nodes", "--admin", "unix:relative.sock"]);
    assert_eq!(ran.code, Some(2), "{}", ran.output());
    assert!(ran.output().contains("not absolute"), "{}", ran.output());
}
