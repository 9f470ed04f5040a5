//! Configurations that differ in every part that may change, one for each round of reloads.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use crate::h3::certificates::Certificates;
use crate::origin::Origin;
use crate::setup::Setup;
use crate::upgrade::server;

/// Makes configurations that differ in every part that may change.
pub struct ConfigVariant {
    base: Setup,
    origin: String,
    /// The address of a listener that comes and goes.
    guest: SocketAddr,
    /// How long pages live at least, in seconds.
    lifetime: u64,
}

impl ConfigVariant {
    /// `lifetime` is how long pages live at least, in seconds.
    ///
    /// # Panics
    /// If no port is free.
    pub fn new(origin: &Origin, certificates: &Certificates, lifetime: u64) -> Self {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let base = certificates.files().into_iter();
        Self {
            base: base.fold(Setup::new(origin), |setup, (name, content)| {
                setup.file(name, content)
            }),
            origin: origin.url(),
            guest: free.local_addr().expect("it is bound"),
            lifetime,
        }
    }

    /// The configuration of this round. Pages, uploads and streams are served alike in all of them.
    pub fn setup(&self, round: u64) -> Setup {
        let certificates = "[{cert: server.crt, key: server.key}]";
        let hsts = if round % 3 == 1 {
            ", hsts: {max_age: 1d}"
        } else {
            ""
        };
        let secured = format!(
            "{{address: \"127.0.0.1:0\", protocols: [http1, http2, http3], \
             tls: {{certificates: {certificates}}}, limits: {{max_connections: {}}}{hsts}}}",
            5_000 + round / 4
        );
        let clear = format!(
            "{{address: \"127.0.0.1:0\", limits: {{max_headers: {}}}}}",
            100 + round % 5
        );
        let guest = match round % 2 {
            0 => String::new(),
            _ => format!(", {{address: \"{}\"}}", self.guest),
        };
        let (ttl, panic) = (self.lifetime + round % 7, 10 + round % 3);
        let other = format!(
            "{{targets: [\"{}\"], balance: {{panic: {panic}}}}}",
            self.origin
        );
        self.base
            .clone()
            .top("listeners", &format!("[{secured}, {clear}{guest}]"))
            .top("server", &server(", old_engine_max: 2h"))
            .top(
                "cache",
                &format!("{{l1: {{max_bytes: {}MiB}}}}", 64 + 16 * (round / 10 % 2)),
            )
            .top("telemetry", "{log_format: json, access_log: off}")
            .upstream("other", &other)
            .route(&format!(
                "{{name: guest-{round}, match: {{path: /guest/{round}}}, upstream: other, cache: off}}"
            ))
            .route("{name: open, match: {path: /open/*}, upstream: origin, cache: off}")
            .route(&format!(
                "{{name: pages, match: {{path: /page/*}}, upstream: other, \
                 policy: {{mode: override, ttl: {ttl}s, cookies: ignore}}}}"
            ))
            .route("{name: rest, upstream: origin, cache: off}")
    }
}
