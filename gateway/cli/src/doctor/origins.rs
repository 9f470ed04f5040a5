//! The targets of upstreams: a connection to each, what its certificate says, and one request.

use std::time::{Duration, SystemTime};

use super::advice::ConfigKeyPlaces;
use super::{FindingLine, ReportSection};
use lamina_edge::app::process::target_file_reader;
use lamina_edge::config::GatewayConfig;
use lamina_edge::origin::NameStatus;
use lamina_edge::origin::config::{OriginVerification, UpstreamConfig};
use lamina_edge::origin::trial::{self, TargetTlsTrial, TargetTrial, TrialAnswer, UpstreamTrial};
use lamina_http::date;

/// A certificate that expires within this time is a warning.
const SOON: Duration = Duration::from_secs(14 * 24 * 3_600);

/// One section for each upstream.
pub(super) async fn examine(
    config: &GatewayConfig,
    places: &ConfigKeyPlaces<'_>,
) -> Vec<ReportSection> {
    let mut sections = Vec::new();
    for (name, upstream) in &config.upstreams {
        let tried = trial::of_upstream(name, upstream, target_file_reader()).await;
        let targets = match tried {
            Ok(UpstreamTrial { names, targets }) => {
                let names = names.into_iter().map(name_line);
                names.chain(targets.into_iter().map(line)).collect()
            }
            Err(error) => vec![FindingLine::failed("setup", error.to_string())],
        };
        let unverified = unverified(name, upstream, places);
        let lines = unverified.into_iter().chain(targets).collect();
        sections.push(ReportSection {
            name: "upstream",
            what: format!("{name}, its targets"),
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

/// The line about a name: the addresses that it leads to, or why there are none.
fn name_line(name: NameStatus) -> FindingLine {
    let what = format!("the name {}", name.name);
    match name.failing {
        Some((why, _)) => FindingLine::failed(what, why),
        None => {
            let addresses: Vec<_> = name.addresses.iter().map(ToString::to_string).collect();
            FindingLine::fine(what, format!("leads to {}", addresses.join(", ")))
        }
    }
}

fn line(trial: TargetTrial) -> FindingLine {
    let Some(tls) = &trial.tls else {
        return match &trial.connected {
            // An origin may be down without a fault of the configuration.
            Err(why) => FindingLine::warned(trial.target, format!("{why}; it gets no request")),
            Ok(took) => answered(&trial, format!("connected in {took:.1?}"), None),
        };
    };
    let certificate = certificate(tls);
    match tls.outcome {
        Err(ref why) => FindingLine::failed(trial.target, format!("{why}{certificate}")),
        Ok(spoken) => {
            let says = format!("verified; it speaks {spoken}{certificate}");
            answered(&trial, says, tls.not_after)
        }
    }
}

/// The line of a target with a connection, and what came of a request to it.
fn answered(trial: &TargetTrial, says: String, not_after: Option<SystemTime>) -> FindingLine {
    let target = trial.target.clone();
    let Some(request) = &trial.request else {
        return FindingLine::fine(target, says);
    };
    let (question, took) = (&request.question, request.took);
    let (told, is_good) = match &request.answer {
        TrialAnswer::Good(told) => (told, true),
        TrialAnswer::Bad(told) => (told, false),
    };
    let says = format!("{says}; {question}: {told} in {took:.1?}");
    match not_after {
        Some(ends) if ends <= SystemTime::now() + SOON => {
            FindingLine::warned(target, format!("{says}; the certificate expires soon"))
        }
        _ if is_good => FindingLine::fine(target, says),
        _ => FindingLine::warned(target, says),
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
