//! The protocol by which a request came: its name in the access log, and how many came by each.

use std::sync::Arc;

use http::Version;
use prometheus::{IntCounter, IntCounterVec, Opts};

use crate::http::tls::TlsSession;
use crate::telemetry::metrics::Registry;

/// Versions of HTTP, as ALPN names them, shortened.
const PROTOCOLS: [&str; 4] = ["http/1.0", "http/1.1", "h2", "h3"];

/// Versions of TLS, and the word for clear text.
const TLS_VERSIONS: [&str; 3] = ["none", "TLSv1.2", "TLSv1.3"];

/// The name of a version of HTTP.
pub fn name(version: Version) -> &'static str {
    PROTOCOLS[index_of(version)]
}

fn index_of(version: Version) -> usize {
    match version {
        Version::HTTP_3 => 3,
        Version::HTTP_2 => 2,
        Version::HTTP_10 => 0,
        _ => 1,
    }
}

/// Counts requests by protocol and version of TLS, whatever becomes of them. Its counters are made
/// once, so that a request costs one increment.
#[derive(Clone)]
pub struct ProtocolCounts(Arc<[[IntCounter; TLS_VERSIONS.len()]; PROTOCOLS.len()]>);

impl ProtocolCounts {
    /// Creates the family and registers it.
    ///
    /// # Errors
    /// If the registry has a family of this name already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let requests = IntCounterVec::new(
            Opts::new(
                "lamina_requests_by_protocol_total",
                "Requests by version of HTTP and of TLS.",
            ),
            &["protocol", "tls"],
        )?;
        let counters = PROTOCOLS
            .map(|protocol| TLS_VERSIONS.map(|tls| requests.with_label_values(&[protocol, tls])));
        registry.register(Box::new(requests))?;
        Ok(Self(Arc::new(counters)))
    }

    /// Counts one request.
    pub fn count(&self, version: Version, tls: Option<&TlsSession>) {
        let tls = tls.map_or(TLS_VERSIONS[0], |tls| tls.version);
        let known = TLS_VERSIONS.iter().position(|known| *known == tls);
        if let Some(tls) = known {
            self.0[index_of(version)][tls].inc();
        }
    }
}
