//! Tries each target of an upstream as the gateway would use it, and says what came of it: a
//! connection, TLS, and one request that changes nothing.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::time::timeout;

use super::SharedOriginState;
use super::check::HealthCheck;
use super::config::{OriginProtocol, OriginTlsConfig, OriginVerification, UpstreamConfig};
use super::connect::{OpenedSocket, open_socket};
use super::discovery::TargetDiscovery;
use super::error::{BuildError, SendError, with_cause};
use super::health::CheckOutcome;
use super::names::NameStatus;
use super::target::OriginTarget;
use super::targets_file::TargetsFileReader;
use super::tls::{OriginTls, SpokenProtocol};
use super::tls_report::UpstreamTlsReport;

/// How long the first answers about names are waited for.
const NAMES_LIMIT: Duration = Duration::from_secs(10);

/// What came of trying one target.
pub struct TargetTrial {
    /// Its name.
    pub target: String,
    /// How long a connection took, without TLS, or why there is none.
    pub connected: Result<Duration, String>,
    /// What TLS has shown, for a target with TLS.
    pub tls: Option<TargetTlsTrial>,
    /// None: it was not asked, since there is no connection that may be used.
    pub request: Option<TargetRequestTrial>,
}

/// What a target with TLS has shown.
pub struct TargetTlsTrial {
    /// The names and addresses in its certificate.
    pub names: Vec<String>,
    /// When its certificate expires. None if it has shown none.
    pub not_after: Option<SystemTime>,
    /// What a connection speaks, or why there is none.
    pub outcome: Result<&'static str, String>,
}

/// What came of a request.
pub struct TargetRequestTrial {
    /// Method and path.
    pub question: String,
    pub took: Duration,
    pub answer: TrialAnswer,
}

/// Whether a target answers well, in words.
pub enum TrialAnswer {
    Good(String),
    /// There was none, or not a good one.
    Bad(String),
}

/// What came of trying an upstream.
pub struct UpstreamTrial {
    /// What the name servers say about its names.
    pub names: Vec<NameStatus>,
    pub targets: Vec<TargetTrial>,
}

/// Asks for the names of the upstream `name`, and tries its targets, one after the other. Those with
/// TLS are verified here even if the configuration says that they are not, and get no request if
/// that fails.
///
/// # Errors
/// If the upstream can't be used as it is configured.
pub async fn of_upstream(
    name: &str,
    upstream: &UpstreamConfig,
    read_targets: TargetsFileReader,
) -> Result<UpstreamTrial, BuildError> {
    let verified = UpstreamConfig {
        tls: OriginTlsConfig {
            verify: OriginVerification::On,
            insecure: None,
            ..upstream.tls.clone()
        },
        ..upstream.clone()
    };
    let shared = SharedOriginState {
        read_targets,
        ..SharedOriginState::default()
    };
    let watch = Arc::new(UpstreamTlsReport::new(name, &verified.tls));
    let metrics = shared.families.of(name);
    let check = HealthCheck::trial(name, &verified)?;
    let discovery = TargetDiscovery::new(name, &verified, &watch, metrics, &shared)?;
    let names = discovery.ask_for_names(NAMES_LIMIT).await;
    let mut targets = Vec::new();
    for target in discovery.targets(&[]) {
        targets.push(of_target(&target, upstream, &check).await);
    }
    Ok(UpstreamTrial { names, targets })
}

async fn of_target(
    target: &OriginTarget,
    upstream: &UpstreamConfig,
    check: &HealthCheck,
) -> TargetTrial {
    let limit = upstream.timeouts.connect.0;
    let (connected, tls) = match &target.tls {
        None => (connect(target, limit).await, None),
        Some(tls) => {
            let (connected, outcome) = secure(target, tls, upstream.protocol, limit).await;
            let shown = TargetTlsTrial {
                names: tls.shown().names(),
                not_after: tls.shown().not_after(),
                outcome,
            };
            (connected, Some(shown))
        }
    };
    let may_ask = match &tls {
        Some(tls) => tls.outcome.is_ok(),
        None => connected.is_ok(),
    };
    let request = match may_ask {
        true => Some(ask(target, check).await),
        false => None,
    };
    TargetTrial {
        target: target.name.to_string(),
        connected,
        tls,
        request,
    }
}

async fn connect(target: &OriginTarget, limit: Duration) -> Result<Duration, String> {
    let began = Instant::now();
    open_unsecured(target, limit).await.map(|_| began.elapsed())
}

/// Opens a connection without TLS.
async fn open_unsecured(target: &OriginTarget, limit: Duration) -> Result<OpenedSocket, String> {
    let addresses = target.addresses.reachable(limit).await?;
    match timeout(limit, open_socket(addresses)).await {
        Ok(Ok(socket)) => Ok(socket),
        Ok(Err(error)) => Err(with_cause(&SendError::Connect(error))),
        Err(_) => Err(format!("no connection within {limit:?}")),
    }
}

/// Connects with TLS, within `limit` in all.
async fn secure(
    target: &OriginTarget,
    tls: &OriginTls,
    protocol: OriginProtocol,
    limit: Duration,
) -> (Result<Duration, String>, Result<&'static str, String>) {
    let began = Instant::now();
    let tcp = match open_unsecured(target, limit).await {
        Ok(OpenedSocket::Internet(tcp)) => tcp,
        // Sockets of this machine are used in clear text.
        Ok(OpenedSocket::Local(_)) => return (Ok(began.elapsed()), Ok("HTTP/1.1")),
        Err(why) => return (Err(why.clone()), Err(why)),
    };
    let connected = began.elapsed();
    let handshake = async {
        match protocol {
            OriginProtocol::Http1 => tls.connect_http1(tcp).await.map(|_| SpokenProtocol::Http1),
            OriginProtocol::Auto | OriginProtocol::Http2 => {
                tls.connect_any(tcp).await.map(|(_, spoken)| spoken)
            }
        }
    };
    let outcome = match timeout(limit.saturating_sub(connected), handshake).await {
        Ok(Ok(SpokenProtocol::Http2)) => Ok("HTTP/2"),
        Ok(Ok(SpokenProtocol::Http1 | SpokenProtocol::Unknown)) => Ok("HTTP/1.1"),
        Ok(Err(error)) => Err(with_cause(&error)),
        Err(_) => Err(format!("no TLS connection within {limit:?}")),
    };
    (Ok(connected), outcome)
}

async fn ask(target: &OriginTarget, check: &HealthCheck) -> TargetRequestTrial {
    let began = Instant::now();
    let outcome = check.run(target).await;
    let told = outcome.reason();
    TargetRequestTrial {
        question: check.question(),
        took: began.elapsed(),
        answer: match outcome {
            CheckOutcome::Passed(_) => TrialAnswer::Good(told),
            CheckOutcome::WrongStatus(_) | CheckOutcome::Failed { .. } => TrialAnswer::Bad(told),
        },
    }
}
