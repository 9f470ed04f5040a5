//! What can go wrong with an origin, and what the client gets then.

use std::error::Error as StdError;
use std::io;

use http::StatusCode;
use rustls::AlertDescription;

use super::config::FailureKind;
use super::tls::{OriginTlsError, OriginTlsSetupError};
use crate::http::body::BodyError;

/// The errors of connections and of their libraries; [`classify`] turns them into [`OriginError`].
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    #[error("no response over HTTP/1")]
    Http1(#[source] hyper::Error),
    #[error("no response over HTTP/2")]
    Http2(#[source] hyper::Error),
    #[error("no connection")]
    Connect(#[source] io::Error),
    /// The connection ended before a request was sent on it, with this error of ours if there was
    /// one.
    #[error("the connection ended as soon as it was open")]
    EndedAtOnce(#[source] Option<hyper::Error>),
    #[error("what the origin sent is not HTTP/2; does it speak HTTP/1.1 alone?")]
    NotHttp2(#[source] hyper::Error),
    #[error("no TLS connection")]
    Tls(#[source] OriginTlsError),
    #[error("no address is known: {0}")]
    Dns(String),
    #[error("the Host is not a valid host and port")]
    Host(#[source] http::Error),
    #[error("the response is malformed: {0}")]
    Response(&'static str),
}

/// Why there is no response from the origin.
#[derive(Debug, thiserror::Error)]
pub enum OriginError {
    #[error("the upstream has too many requests at once ({reason})")]
    Overloaded { reason: OverloadReason },
    #[error("so few targets can be used that none was asked, since there is a stale copy")]
    FewTargets,
    #[error("all targets were taken out by operators")]
    NoTarget,
    #[error("cannot connect")]
    Connect { source: SendError },
    #[error("no TLS connection: {cause}")]
    Tls { cause: TlsFailure, stage: TlsStage },
    #[error("there is no address to connect to")]
    Dns { source: SendError },
    #[error("timeout while {phase}")]
    Timeout { phase: TimeoutPhase },
    #[error("the origin closed the connection before its response")]
    Closed { source: SendError },
    #[error("the origin broke the protocol")]
    Protocol { source: SendError },
    #[error("the request body is larger than {limit} bytes")]
    BodyTooLarge { limit: u64 },
    #[error("the request body stalled for too long")]
    BodyTimeout,
    #[error("the request ended early or cannot be sent")]
    Request,
}

/// How far an exchange was when TLS failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TlsStage {
    /// Nothing of the request was sent.
    Handshake,
    /// The request may have been sent: with TLS 1.3 an origin judges our certificate later.
    Exchange,
}

/// Why TLS to an origin failed, in the terms of RFC 9209.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TlsFailure {
    #[error("the origin's certificate is not accepted: {0}")]
    Certificate(String),
    /// The number of the alert (RFC 8446 §6).
    #[error("the origin sent the alert {name} ({number})")]
    Alert { number: u8, name: String },
    #[error("{0}")]
    Protocol(String),
}

/// Why a request was not admitted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OverloadReason {
    /// `max_queued` requests are waiting already.
    QueueFull,
    /// No place became free within `queue_timeout`.
    QueueTimeout,
}

/// The phase that took too long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimeoutPhase {
    Connect,
    FirstByte,
    /// The caller has given it so little time (`grpc-timeout`) that this says nothing about the
    /// target.
    Call,
}

/// Why the upstreams cannot be used as configured.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("upstream {upstream:?} has no targets: list at least one, as http://host:port")]
    NoTargets { upstream: String },
    #[error(
        "upstream {upstream:?}: {target:?} is not of the form http://host:port, https://host:port or unix:PATH"
    )]
    Target { upstream: String, target: String },
    #[error(
        "upstream {upstream:?}: health.active: {what:?} is not valid; expected a path as in /healthz and a host as in shop.example"
    )]
    HealthCheck { upstream: String, what: String },
    #[error("upstream {upstream:?}: targets_file: {message}")]
    TargetsFile { upstream: String, message: String },
    #[error("upstream {upstream:?}: {source}")]
    Tls {
        upstream: String,
        source: OriginTlsSetupError,
    },
}

impl BuildError {
    /// The name of the upstream.
    pub fn upstream(&self) -> &str {
        match self {
            Self::NoTargets { upstream }
            | Self::Target { upstream, .. }
            | Self::HealthCheck { upstream, .. }
            | Self::TargetsFile { upstream, .. }
            | Self::Tls { upstream, .. } => upstream,
        }
    }
}

impl OriginError {
    /// The status that the client gets (RFC 9110 §15.6), unless a stale copy may be served.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Overloaded { .. } | Self::FewTargets | Self::NoTarget | Self::Dns { .. } => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Connect { .. } | Self::Tls { .. } => StatusCode::BAD_GATEWAY,
            Self::Closed { .. } | Self::Protocol { .. } => StatusCode::BAD_GATEWAY,
            Self::Timeout { .. } => StatusCode::GATEWAY_TIMEOUT,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::Request => StatusCode::BAD_REQUEST,
        }
    }

    /// In which way the target has failed; None if the request was at fault.
    pub(super) fn failure_kind(&self) -> Option<FailureKind> {
        match self {
            Self::Connect { .. } | Self::Dns { .. } => Some(FailureKind::Connect),
            Self::Tls { stage, .. } => Some(match stage {
                TlsStage::Handshake => FailureKind::Connect,
                TlsStage::Exchange => FailureKind::Reset,
            }),
            Self::Timeout { phase } => match phase {
                TimeoutPhase::Connect => Some(FailureKind::Connect),
                TimeoutPhase::FirstByte => Some(FailureKind::Timeout),
                TimeoutPhase::Call => None,
            },
            Self::Closed { .. } | Self::Protocol { .. } => Some(FailureKind::Reset),
            Self::Overloaded { .. }
            | Self::FewTargets
            | Self::NoTarget
            | Self::BodyTooLarge { .. }
            | Self::BodyTimeout
            | Self::Request => None,
        }
    }

    /// Whether nobody answered at all.
    pub fn is_disconnect(&self) -> bool {
        matches!(
            self,
            Self::Connect { .. } | Self::Tls { .. } | Self::Dns { .. } | Self::Closed { .. }
        )
    }

    /// Whether the request itself may be the cause, so that another request may succeed. This holds
    /// for all errors after the origin has begun to read the request.
    pub fn may_be_the_requests(&self) -> bool {
        match self {
            Self::Overloaded { .. }
            | Self::FewTargets
            | Self::NoTarget
            | Self::Connect { .. }
            | Self::Dns { .. } => false,
            Self::Tls { stage, .. } => *stage == TlsStage::Exchange,
            Self::Timeout { phase } => *phase != TimeoutPhase::Connect,
            Self::Closed { source } | Self::Protocol { source } => !source.is_before_requests(),
            Self::BodyTooLarge { .. } | Self::BodyTimeout | Self::Request => true,
        }
    }

    /// The error type of `Proxy-Status` (RFC 9209 §2.3).
    pub fn proxy_status(&self) -> &'static str {
        match self {
            Self::Overloaded { .. } => "connection_limit_reached",
            Self::FewTargets | Self::NoTarget => "destination_unavailable",
            Self::Connect { source } => match io_kind(source) {
                Some(io::ErrorKind::ConnectionRefused) => "connection_refused",
                Some(io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable) => {
                    "destination_ip_unroutable"
                }
                _ => "destination_unavailable",
            },
            Self::Tls { cause, .. } => match cause {
                TlsFailure::Certificate(_) => "tls_certificate_error",
                TlsFailure::Alert { .. } => "tls_alert_received",
                TlsFailure::Protocol(_) => "tls_protocol_error",
            },
            Self::Dns { .. } => "dns_error",
            Self::Timeout {
                phase: TimeoutPhase::Connect,
            } => "connection_timeout",
            Self::Timeout {
                phase: TimeoutPhase::FirstByte | TimeoutPhase::Call,
            } => "http_response_timeout",
            Self::Closed { .. } => "connection_terminated",
            Self::Protocol { .. } => "http_protocol_error",
            Self::BodyTooLarge { .. } | Self::BodyTimeout | Self::Request => "http_request_error",
        }
    }
}

impl OriginError {
    /// The same error; if the connection just ended, the alert that the origin has sent is why.
    pub(super) fn because_of(self, alert: Option<&OriginTlsError>) -> Self {
        match (self, alert) {
            (Self::Closed { source }, Some(alert)) => Self::Tls {
                cause: TlsFailure::from(alert),
                stage: match source.is_before_requests() {
                    true => TlsStage::Handshake,
                    false => TlsStage::Exchange,
                },
            },
            (error, _) => error,
        }
    }

    /// The TLS alert that the origin sent, if that is why there is no response.
    pub fn tls_alert(&self) -> Option<u8> {
        match self {
            Self::Tls {
                cause: TlsFailure::Alert { number, .. },
                ..
            } => Some(*number),
            _ => None,
        }
    }
}

impl SendError {
    /// The error of an HTTP/2 connection that ended before a request was sent on it.
    pub(super) fn of_http2_start(ended_with: Option<hyper::Error>) -> Self {
        // What the origin said itself is no fault in what it said.
        match ended_with.filter(|error| !http2_error(error).is_some_and(h2::Error::is_remote)) {
            Some(error) if http2_error(&error).is_some_and(|found| !found.is_io()) => {
                Self::NotHttp2(error)
            }
            error => Self::EndedAtOnce(error),
        }
    }

    /// Whether the connection ended before a request was sent on it.
    fn is_before_requests(&self) -> bool {
        matches!(self, Self::EndedAtOnce(_) | Self::NotHttp2(_))
    }
}

/// What went wrong in HTTP/2 itself.
pub(super) fn http2_error(error: &hyper::Error) -> Option<&h2::Error> {
    error.source()?.downcast_ref()
}

impl From<&OriginTlsError> for TlsFailure {
    fn from(error: &OriginTlsError) -> Self {
        match error {
            OriginTlsError::Handshake(
                rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented,
            ) => Self::Certificate(error.to_string()),
            // An origin that speaks none of the protocols that it was offered, and one that chooses
            // another one, are the same failure.
            OriginTlsError::Handshake(rustls::Error::AlertReceived(
                AlertDescription::NoApplicationProtocol,
            )) => Self::Protocol(
                "TLS: the origin speaks none of the protocols that it was offered (ALPN)"
                    .to_owned(),
            ),
            OriginTlsError::Handshake(rustls::Error::AlertReceived(alert)) => Self::Alert {
                number: u8::from(*alert),
                name: format!("{alert:?}"),
            },
            OriginTlsError::Handshake(_)
            | OriginTlsError::Connection(_)
            | OriginTlsError::NoHttp2 => Self::Protocol(error.to_string()),
        }
    }
}

impl std::fmt::Display for OverloadReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::QueueFull => "the queue is full",
            Self::QueueTimeout => "the wait was too long",
        })
    }
}

impl std::fmt::Display for TimeoutPhase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Connect => "connecting to the origin",
            Self::FirstByte => "waiting for the origin's response",
            Self::Call => "waiting for the origin's response, for as long as the call allows",
        })
    }
}

/// An error with what caused it, to the last cause.
pub(super) fn with_cause(error: &dyn StdError) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.fold(error.to_string(), |told, cause| {
        let cause = cause.to_string();
        // Some errors name their cause themselves.
        match told.ends_with(&cause) {
            true => told,
            false => format!("{told}: {cause}"),
        }
    })
}

/// Finds out from the client's error, which is a chain of errors, what caused it.
pub(super) fn classify(source: SendError) -> OriginError {
    if let Some(body) = cause::<BodyError>(&source) {
        return match body {
            BodyError::TooLarge { limit } => OriginError::BodyTooLarge { limit: *limit },
            BodyError::Timeout => OriginError::BodyTimeout,
            BodyError::Aborted | BodyError::Transport(_) => OriginError::Request,
        };
    }
    match &source {
        SendError::Host(_) => return OriginError::Request,
        SendError::Response(_) | SendError::NotHttp2(_) => {
            return OriginError::Protocol { source };
        }
        SendError::Dns(_) => return OriginError::Dns { source },
        SendError::Connect(_) | SendError::Tls(_) => return classify_connect(source),
        SendError::Http1(_) | SendError::Http2(_) | SendError::EndedAtOnce(_) => {}
    }
    match cause::<hyper::Error>(&source) {
        Some(error) if error.is_parse() => OriginError::Protocol { source },
        Some(error) if error.is_user() => OriginError::Request,
        _ if h2_broken(&source) => OriginError::Protocol { source },
        _ => OriginError::Closed { source },
    }
}

fn classify_connect(source: SendError) -> OriginError {
    if let Some(error) = cause::<OriginTlsError>(&source) {
        let cause = TlsFailure::from(error);
        return OriginError::Tls {
            cause,
            stage: TlsStage::Handshake,
        };
    }
    match io_kind(&source) {
        Some(io::ErrorKind::TimedOut) => OriginError::Timeout {
            phase: TimeoutPhase::Connect,
        },
        _ => OriginError::Connect { source },
    }
}

/// Whether this is an HTTP/2 error other than the end of the connection.
fn h2_broken(error: &SendError) -> bool {
    io_kind(error).is_none()
        && cause::<hyper::Error>(error).is_some_and(|error| {
            !error.is_incomplete_message() && !error.is_closed() && !error.is_canceled()
        })
}

fn io_kind(error: &SendError) -> Option<io::ErrorKind> {
    cause::<io::Error>(error).map(io::Error::kind)
}

fn cause<E: StdError + 'static>(error: &SendError) -> Option<&E> {
    chain(error).find_map(|error| error.downcast_ref::<E>())
}

fn chain(error: &SendError) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    std::iter::successors(error.source(), |&error| error.source())
}
