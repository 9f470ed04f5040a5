//! What is counted of QUIC and HTTP/3, over all listeners of the process.

use std::net::SocketAddr;
use std::sync::Arc;

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};
use quinn::{Connection, ConnectionError, TransportErrorCode};
use rustls::AlertDescription;

use crate::http3::Http3Code;

/// How a handshake of QUIC ended, as the value of the label `outcome`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::server) enum QuicHandshakeOutcome {
    /// A new session.
    Full,
    /// An earlier session was resumed.
    Resumed,
    /// The client asked for no name, or for one without certificate.
    UnknownName,
    /// The time was over.
    Timeout,
    /// There was no place for the connection (`max_connections`), or the listener speaks no QUIC
    /// any more.
    Refused,
    /// The client left, or client and server had nothing in common.
    Failed,
}

impl QuicHandshakeOutcome {
    /// How a handshake ended that failed with this error.
    pub(in crate::server) fn of(error: &ConnectionError) -> Self {
        let unknown = TransportErrorCode::crypto(u8::from(AlertDescription::UnrecognisedName));
        match error {
            ConnectionError::TransportError(ended) if ended.code == unknown => Self::UnknownName,
            _ => Self::Failed,
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Resumed => "resumed",
            Self::UnknownName => "unknown_name",
            Self::Timeout => "timeout",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// What ended a stream or a connection, as the value of the label `guard`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::server) enum Http3Guard {
    /// The client broke HTTP/3, or did too much of something.
    Code(Http3Code),
    /// The fields of a head are too large or too many (431).
    HeadTooLarge,
    /// A head took too long (408).
    SlowHead,
    /// A client took too little of an answer (`min_rate`, `body_timeout`).
    SlowReader,
    /// The client broke QUIC.
    Transport,
}

impl Http3Guard {
    fn label(self) -> &'static str {
        match self {
            Self::Code(code) => code.name(),
            Self::HeadTooLarge => "head_too_large",
            Self::SlowHead => "slow_head",
            Self::SlowReader => "slow_reader",
            Self::Transport => "quic_transport_error",
        }
    }
}

/// The metric families about QUIC, created once for the process.
pub struct QuicMetrics {
    handshakes: IntCounterVec,
    retries: IntCounter,
    lost_packets: IntCounter,
    wrong_worker: IntCounter,
    passed_on: IntCounter,
    migrations: IntCounter,
    guards: IntCounterVec,
}

impl Default for QuicMetrics {
    /// Families that are in no registry yet.
    fn default() -> Self {
        let valid = "names of metrics and labels are valid";
        let counter = |name: &str, help: &str| IntCounter::new(name, help).expect(valid);
        let family = |name: &str, help: &str, label: &str| {
            IntCounterVec::new(Opts::new(name, help), &[label]).expect(valid)
        };
        Self {
            handshakes: family(
                "lamina_quic_handshakes_total",
                "QUIC handshakes with clients, by how they ended.",
                "outcome",
            ),
            retries: counter(
                "lamina_quic_retries_total",
                "QUIC clients that had to show first that they get what is sent to their address.",
            ),
            lost_packets: counter(
                "lamina_quic_lost_packets_total",
                "Packets to QUIC clients that were lost on the way.",
            ),
            wrong_worker: counter(
                "lamina_quic_wrong_worker_packets_total",
                "Datagrams that reached another worker than that of their connection, and were handed on.",
            ),
            passed_on: counter(
                "lamina_quic_passed_on_packets_total",
                "Datagrams of connections that a process before this one still had, and were passed on to it.",
            ),
            migrations: counter(
                "lamina_quic_migrations_total",
                "QUIC connections that went on from another address of the client.",
            ),
            guards: family(
                "lamina_quic_guards_total",
                "Streams and connections of HTTP/3 that were ended for what the client did.",
                "guard",
            ),
        }
    }
}

impl QuicMetrics {
    /// Creates the families and registers them.
    ///
    /// # Errors
    /// If the registry has families of these names already.
    pub fn register(registry: &Registry) -> prometheus::Result<Arc<Self>> {
        let metrics = Self::default();
        registry.register(Box::new(metrics.handshakes.clone()))?;
        registry.register(Box::new(metrics.retries.clone()))?;
        registry.register(Box::new(metrics.lost_packets.clone()))?;
        registry.register(Box::new(metrics.wrong_worker.clone()))?;
        registry.register(Box::new(metrics.passed_on.clone()))?;
        registry.register(Box::new(metrics.migrations.clone()))?;
        registry.register(Box::new(metrics.guards.clone()))?;
        Ok(Arc::new(metrics))
    }

    pub(in crate::server) fn ended(&self, outcome: QuicHandshakeOutcome) {
        self.handshakes.with_label_values(&[outcome.label()]).inc();
    }

    pub(in crate::server) fn retried(&self) {
        self.retries.inc();
    }

    pub(super) fn wrong_worker(&self) {
        self.wrong_worker.inc();
    }

    pub(super) fn passed_on(&self) {
        self.passed_on.inc();
    }

    pub(in crate::server) fn guarded(&self, guard: Http3Guard) {
        self.guards.with_label_values(&[guard.label()]).inc();
    }
}

/// Counts what happens on the way of one connection's packets, which quinn keeps to itself. It is
/// looked at when the connection has no request under way, and when it ends.
pub(in crate::server) struct PathWatch {
    connection: Connection,
    metrics: Arc<QuicMetrics>,
    address: SocketAddr,
    lost: u64,
}

impl PathWatch {
    pub(in crate::server) fn new(connection: &Connection, metrics: &Arc<QuicMetrics>) -> Self {
        Self {
            connection: connection.clone(),
            metrics: Arc::clone(metrics),
            address: connection.remote_address(),
            lost: 0,
        }
    }

    /// Counts what has changed since the last look.
    pub(in crate::server) fn look(&mut self) {
        let address = self.connection.remote_address();
        if address != self.address {
            self.address = address;
            self.metrics.migrations.inc();
        }
        let lost = self.connection.stats().path.lost_packets;
        self.metrics
            .lost_packets
            .inc_by(lost.saturating_sub(self.lost));
        self.lost = lost;
    }
}

impl Drop for PathWatch {
    fn drop(&mut self) {
        self.look();
        if let Some(ConnectionError::TransportError(_)) = self.connection.close_reason() {
            self.metrics.guarded(Http3Guard::Transport);
        }
    }
}
