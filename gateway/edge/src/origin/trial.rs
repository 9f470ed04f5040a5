//! Opens a TLS connection to each target of an upstream, as the gateway would, and says what came
//! of it. No request is sent.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::time::timeout;

use super::BuildError;
use super::config::{OriginProtocol, OriginTlsConfig, OriginVerification, UpstreamConfig};
use super::connect::open_tcp;
use super::error::with_cause;
use super::target::OriginTarget;
use super::tls::SpokenProtocol;
use super::watch::UpstreamTlsWatch;

/// What a target with TLS has shown.
pub struct TargetTlsTrial {
    /// Host and port.
    pub target: String,
    /// The names and addresses in its certificate.
    pub names: Vec<String>,
    /// When its certificate expires. None if it has shown none.
    pub not_after: Option<SystemTime>,
    /// What a connection speaks, or why there is none.
    pub outcome: Result<&'static str, String>,
}

/// Connects to the targets with TLS of the upstream `name`, one after the other. They are verified
/// here even if the configuration says that they are not.
///
/// # Errors
/// If the upstream can't be used as it is configured.
pub async fn of_upstream(
    name: &str,
    upstream: &UpstreamConfig,
) -> Result<Vec<TargetTlsTrial>, BuildError> {
    let verified = UpstreamConfig {
        tls: OriginTlsConfig {
            verify: OriginVerification::On,
            insecure: None,
            ..upstream.tls.clone()
        },
        ..upstream.clone()
    };
    let watch = Arc::new(UpstreamTlsWatch::new(name, &verified.tls));
    let targets = verified.targets.iter();
    let targets = targets.map(|target| OriginTarget::parse(name, target, &verified, &watch));
    let targets = targets.collect::<Result<Vec<_>, _>>()?;
    let mut trials = Vec::new();
    for target in &targets {
        let Some(tls) = &target.tls else {
            continue;
        };
        let limit = upstream.timeouts.connect.0;
        let outcome = match timeout(limit, connect(target, upstream.protocol)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(format!("no TLS connection within {limit:?}")),
        };
        trials.push(TargetTlsTrial {
            target: target.authority.to_string(),
            names: tls.shown().names(),
            not_after: tls.shown().not_after(),
            outcome,
        });
    }
    Ok(trials)
}

async fn connect(target: &OriginTarget, protocol: OriginProtocol) -> Result<&'static str, String> {
    let tcp = open_tcp(target).await.map_err(|error| with_cause(&error))?;
    let Some(tls) = &target.tls else {
        return Err("it has no TLS".to_owned());
    };
    let spoken = match protocol {
        OriginProtocol::Http1 => tls.connect_http1(tcp).await.map(|_| SpokenProtocol::Http1),
        OriginProtocol::Auto | OriginProtocol::Http2 => {
            tls.connect_any(tcp).await.map(|(_, spoken)| spoken)
        }
    };
    match spoken {
        Ok(SpokenProtocol::Http2) => Ok("HTTP/2"),
        Ok(SpokenProtocol::Http1 | SpokenProtocol::Unknown) => Ok("HTTP/1.1"),
        Err(error) => Err(with_cause(&error)),
    }
}
