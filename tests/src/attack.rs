//! Attacks as values: what is sent, and what has to come of it. The suites run each one
//! and look closely; the soak runs them all beside normal load.
//!
//! [`bytes`] is what a client writes on an HTTP/1 connection, in the tables [`http1`] and
//! [`http1_bodies`]; [`http2`] and [`http2_floods`] are clients that misbehave frame by
//! frame, [`http3`] the same over QUIC, [`held`] those that let the gateway hold what they do not read, [`origin`] and [`origin_http2`] are origins that do. [`Before`] is what a gateway held before an
//! attack, and has to be down to after it.

use std::net::SocketAddr;

use futures_util::future::BoxFuture;

use crate::gateway::Gateway;
use crate::wait::{SOON, wait_until};

pub mod bytes;
pub mod held;
pub mod http1;
pub mod http1_bodies;
pub mod http2;
pub mod http2_floods;
pub mod http3;
pub mod origin;
pub mod origin_http2;

/// A client's attack that is more than bytes; it panics when it gets what it must not.
pub struct Attack {
    pub name: &'static str,
    pub run: fn(SocketAddr) -> BoxFuture<'static, ()>,
}

/// Hosts that attacks ask for: over TLS the certificate has to cover them.
pub const HOSTS: [&str; 3] = ["*.test", "a", "x"];

/// What a gateway holds.
#[derive(Clone, Copy, Debug)]
pub struct Before {
    files: usize,
    memory: u64,
}

/// What may stay after an attack: what the first tier took in (16 MiB where pages are attacked,
/// half of it there before), and the tables of log, metrics and allocator.
const KEPT: u64 = 16 << 20;

/// Connections that the gateway may keep for later: to the origin, some for each worker.
const KEPT_FILES: usize = 6;

impl Before {
    /// Best taken after a first request, which opens what stays open.
    pub fn of(gateway: &Gateway) -> Self {
        Self {
            files: gateway.open_files(),
            memory: gateway.resident_bytes(),
        }
    }

    /// Waits until no more descriptors are open than before, and memory is back.
    pub async fn is_back(&self, gateway: &Gateway, after: &str) {
        let what = format!("descriptors are back after {after}: {self:?}");
        wait_until(&what, SOON, || {
            gateway.open_files() <= self.files + KEPT_FILES
        })
        .await;
        let what = format!("memory is back after {after}: {self:?}");
        wait_until(&what, SOON, || {
            gateway.resident_bytes() <= self.memory + KEPT
        })
        .await;
    }
}
