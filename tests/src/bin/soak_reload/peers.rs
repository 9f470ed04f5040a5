//! The same clients at servers of others, which reload as they do: nginx and HAProxy of Debian 13, both
//! with HTTP/3, in that system's own root (`tests/install-debian13.sh`; as root).
//!
//! Their clients ask for pages alone: uploads, tunnels and streams of events are left out.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use e2e::debian13;
use e2e::free_port::free_address;
use e2e::h3::certificates::Certificates;
use e2e::h3::{NAME, OTHER_NAME};
use e2e::load::{self, LoadReport, LoadedServer};
use e2e::origin::Origin;
use e2e::process::Server;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{MissedTickBehavior, interval, sleep};

/// The load alone, before the first reload and after the last one.
const CALM: Duration = Duration::from_secs(3);

/// A server of others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReloadingPeer {
    Nginx,
    Haproxy,
}

impl ReloadingPeer {
    /// # Errors
    /// If there is no such peer.
    pub fn named(name: &str) -> anyhow::Result<Self> {
        match name {
            "nginx" => Ok(Self::Nginx),
            "haproxy" => Ok(Self::Haproxy),
            _ => bail!("no peer {name:?}: expected nginx or haproxy"),
        }
    }

    /// By which its first process takes up its configuration.
    fn signal(self) -> Signal {
        match self {
            Self::Nginx => Signal::HUP,
            Self::Haproxy => Signal::USR2,
        }
    }

    /// Starts it; `home` is its folder as it sees it.
    fn start(
        self,
        server: &LoadedServer,
        origin: &str,
        dir: &Path,
        home: &str,
    ) -> anyhow::Result<Server> {
        let (name, config, arguments) = match self {
            Self::Nginx => (
                "nginx.conf",
                nginx_config(server, origin, home),
                ["/usr/sbin/nginx", "-e", "stderr", "-c"],
            ),
            Self::Haproxy => (
                "haproxy.cfg",
                haproxy_config(server, origin, home),
                ["/usr/sbin/haproxy", "-W", "-V", "-f"],
            ),
        };
        fs::write(dir.join(name), config).context("its configuration")?;
        let (root, file) = (
            debian13::folder().display().to_string(),
            format!("{home}/{name}"),
        );
        let mut all = vec![root.as_str()];
        all.extend(arguments);
        all.push(&file);
        Server::start(None, server.secured, "chroot", &all)
    }
}

/// Reloads a peer under the load. Returns what its clients have seen.
///
/// # Errors
/// If it does not start.
pub async fn soak(
    peer: ReloadingPeer,
    reloads: u64,
    span: Duration,
) -> anyhow::Result<Arc<LoadReport>> {
    let origin = Origin::start(load::answer).await;
    let server = Arc::new(LoadedServer {
        secured: free_address(),
        clear: free_address(),
        certificates: Arc::new(Certificates::new(&[NAME, OTHER_NAME])),
    });
    let dir = tempfile::tempdir_in(debian13::folder().join("tmp"))
        .context("a folder in Debian 13's root (make bench-install, as root)")?;
    let home = dir.path().file_name().unwrap_or_default();
    let home = format!("/tmp/{}", home.display());
    let mut both = String::new();
    for (name, content) in server.certificates.files() {
        fs::write(dir.path().join(name), content)?;
        if name.starts_with("server.") {
            both.push_str(content);
        }
    }
    fs::write(dir.path().join("tls.pem"), both)?;
    let behind = origin.url();
    let behind = behind.trim_start_matches("http://");
    let running = peer.start(&server, behind, dir.path(), &home)?;
    let first = i32::try_from(running.process())
        .ok()
        .and_then(Pid::from_raw);
    let first = first.context("it has a number")?;
    let report = Arc::<LoadReport>::default();
    let clients = load::start_pages(&server, &report);
    sleep(CALM).await;
    report.begin();
    let mut turns = interval(span / u32::try_from(reloads.max(1)).unwrap_or(1));
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for _ in 0..reloads {
        turns.tick().await;
        kill_process(first, peer.signal()).context("it has ended")?;
        origin.forget();
    }
    sleep(CALM).await;
    report.end();
    clients.stop().await;
    Ok(report)
}

fn nginx_config(server: &LoadedServer, origin: &str, home: &str) -> String {
    let LoadedServer { secured, clear, .. } = server;
    format!(
        "user root;\nworker_processes 2;\ndaemon off;\npid {home}/nginx.pid;\n\
         error_log {home}/error.log;\nworker_rlimit_nofile 8192;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\n  access_log off;\n  keepalive_requests 1000000000;\n\
         \x20 client_body_temp_path {home}/body;\n  proxy_temp_path {home}/proxy;\n\
         \x20 fastcgi_temp_path {home}/f;\n  uwsgi_temp_path {home}/u;\n  scgi_temp_path {home}/s;\n\
         \x20 proxy_cache_path {home}/cache keys_zone=small:16m;\n\
         \x20 upstream origin {{ server {origin}; keepalive 64; }}\n\
         \x20 server {{\n    listen {clear};\n    listen {secured} ssl;\n\
         \x20   listen {secured} quic reuseport;\n    http2 on;\n    http3 on;\n    quic_gso on;\n\
         \x20   ssl_certificate {home}/server.crt;\n    ssl_certificate_key {home}/server.key;\n\
         \x20   location / {{\n      proxy_pass http://origin;\n      proxy_http_version 1.1;\n\
         \x20     proxy_set_header Connection \"\";\n      proxy_set_header Host $host;\n\
         \x20     proxy_cache small;\n      proxy_cache_valid 200 60s;\n    }}\n  }}\n}}\n"
    )
}

fn haproxy_config(server: &LoadedServer, origin: &str, home: &str) -> String {
    let LoadedServer { secured, clear, .. } = server;
    format!(
        "global\n  nbthread 2\n  maxconn 4096\n  limited-quic\n\
         \x20 stats socket {home}/admin.sock mode 600 level admin expose-fd listeners\n\
         defaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
         cache small\n  total-max-size 64\n  max-object-size 100000\n  max-age 60\n\
         frontend clients\n  bind {clear}\n\
         \x20 bind {secured} ssl crt {home}/tls.pem alpn h2,http/1.1\n\
         \x20 bind quic4@{secured} ssl crt {home}/tls.pem alpn h3\n  default_backend pages\n\
         backend pages\n  http-request cache-use small\n\
         \x20 http-response set-header cache-control max-age=60\n  http-response cache-store small\n\
         \x20 server origin {origin}\n"
    )
}
