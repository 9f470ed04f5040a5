//! TLS to the targets of upstreams: a connection to each, and what its certificate says.

use std::time::{Duration, SystemTime};

use super::advice::ConfigKeyPlaces;
use super::{FindingLine, ReportSection};
use lamina_edge::config::GatewayConfig;
use lamina_edge::origin::config::{OriginVerification, UpstreamConfig};
use lamina_edge::origin::trial::{self, TargetTlsTrial};
use lamina_http::date;

/// A certificate that expires within this time is a warning.
const SOON: Duration = Duration::from_secs(14 * 24 * 3_600);

/// One section for each upstream with TLS.
pub(super) async fn examine(
    config: &GatewayConfig,
    places: &ConfigKeyPlaces<'_>,
) -> Vec<ReportSection> {
    let mut sections = Vec::new();
    for (name, upstream) in &config.upstreams {
        let targets = match trial::of_upstream(name, upstream).await {
            Ok(trials) if trials.is_empty() => continue,
            Ok(trials) => trials.into_iter().map(line).collect(),
            Err(error) => vec![FindingLine::failed("setup", error.to_string())],
        };
        let unverified = unverified(name, upstream, places);
        let lines = unverified.into_iter().chain(targets).collect();
        sections.push(ReportSection {
            name: "upstream",
            what: format!("{name}, TLS to its targets"),
            lines,
        });
    }
    sections
}

/// That nobody verifies whom the gateway speaks to.
fn unverified(
    name: &str,
    upstream: &UpstreamConfig,
    places: &ConfigKeyPlaces<'_>,
) -> Option<FindingLine> {
    (upstream.tls.verify == OriginVerification::Off).then(|| {
        let reason = upstream.tls.insecure.as_deref().unwrap_or_default();
        let place = places.at(&format!("upstreams.{name}.tls.verify"));
        let why = format!(
            "origins are not verified, so anybody on the way can pose as one; the reason given is {reason:?} ({place})"
        );
        FindingLine::failed("verification", why)
    })
}

fn line(trial: TargetTlsTrial) -> FindingLine {
    let certificate = certificate(&trial);
    match trial.outcome {
        Err(why) => FindingLine::failed(trial.target, format!("{why}{certificate}")),
        Ok(spoken) => {
            let says = format!("verified; it speaks {spoken}{certificate}");
            match trial.not_after {
                Some(ends) if ends <= SystemTime::now() + SOON => {
                    FindingLine::warned(trial.target, format!("{says}, which is soon"))
                }
                Some(_) | None => FindingLine::fine(trial.target, says),
            }
        }
    }
}

/// What stands in a certificate.
fn certificate(trial: &TargetTlsTrial) -> String {
    let Some(ends) = trial.not_after else {
        return String::new();
    };
    let names = match trial.names.is_empty() {
        true => "nobody".to_owned(),
        false => trial.names.join(", "),
    };
    let ends = date::format(ends);
    let ends = String::from_utf8_lossy(ends.as_bytes());
    format!("; its certificate is for {names} and expires on {ends}")
}
