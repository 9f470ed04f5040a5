//! Tries each target of an upstream as the gateway would use it, and says what came of it: a
//! connection, TLS, and one request that changes nothing.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::time::timeout;

use super::BuildError;
use super::check::{CheckOutcome, HealthCheck};
use super::config::{OriginProtocol, OriginTlsConfig, OriginVerification, UpstreamConfig};
use super::connect::open_tcp;
use super::error::with_cause;
use super::target::OriginTarget;
use super::tls::{OriginTls, SpokenProtocol};
use super::watch::UpstreamTlsWatch;

/// What came of trying one target.
pub struct TargetTrial {
    /// Host and port.
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

/// Tries the targets of the upstream `name`, one after the other. Those with TLS are verified here
/// even if the configuration says that they are not, and get no request if that fails.
///
/// # Errors
/// If the upstream can't be used as it is configured.
pub async fn of_upstream(
    name: &str,
    upstream: &UpstreamConfig,
) -> Result<Vec<TargetTrial>, BuildError> {
    let verified = UpstreamConfig {
        tls: OriginTlsConfig {
            verify: OriginVerification::On,
            insecure: None,
            ..upstream.tls.clone()
        },
        ..upstream.clone()
    };
    let watch = Arc::new(UpstreamTlsWatch::new(name, &verified.tls));
    let check = HealthCheck::trial(name, &verified)?;
    let targets = verified.targets.iter();
    let targets = targets.map(|target| OriginTarget::parse(name, target, &verified, &watch));
    let targets = targets.collect::<Result<Vec<_>, _>>()?;
    let mut trials = Vec::new();
    for target in &targets {
        trials.push(of_target(target, upstream, &check).await);
    }
    Ok(trials)
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
        target: target.authority.to_string(),
        connected,
        tls,
        request,
    }
}

async fn connect(target: &OriginTarget, limit: Duration) -> Result<Duration, String> {
    let began = Instant::now();
    match timeout(limit, open_tcp(target)).await {
        Ok(Ok(_)) => Ok(began.elapsed()),
        Ok(Err(error)) => Err(with_cause(&error)),
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
    let too_late = || format!("no TLS connection within {limit:?}");
    let tcp = match timeout(limit, open_tcp(target)).await {
        Ok(Ok(tcp)) => tcp,
        Ok(Err(error)) => return (Err(with_cause(&error)), Err(with_cause(&error))),
        Err(_) => return (Err(too_late()), Err(too_late())),
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
        Err(_) => Err(too_late()),
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
