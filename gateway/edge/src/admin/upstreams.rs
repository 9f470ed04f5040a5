//! Upstreams over the admin listener: the state of each target, and what an operator can change.

use std::time::Duration;

use http::StatusCode;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::origin::{
    AdministrativeState, NameStatus, OrderLifetime, Origins, TargetOrder, TargetOrderError,
    TargetStatus, UpstreamStatus,
};
use crate::units::ConfigDuration;

/// The most names that `/readyz` lists.
const MOST_NAMES: usize = 16;

/// The body of `POST /v1/upstreams/NAME/targets/TARGET`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TargetOrderBody {
    state: AdministrativeState,
    #[serde(rename = "for", default)]
    lasts: Option<ConfigDuration>,
    /// Whether it outlives the process.
    #[serde(default)]
    keep: bool,
}

/// Every upstream.
pub fn list(origins: &Origins) -> Value {
    let upstreams: Vec<Value> = origins.statuses().into_iter().map(status_of).collect();
    json!({"upstreams": upstreams})
}

/// The names that name servers give no new answer about, for `/readyz`.
pub fn failing_names(names: Vec<NameStatus>) -> Value {
    let count = names.len();
    let shown: Vec<Value> = names.into_iter().take(MOST_NAMES).map(told_name).collect();
    json!({"state": "degraded", "failing": shown, "count": count})
}

/// Changes the state of a target. Its name is as in the path, percent-encoded where need be.
pub fn change(
    origins: &Origins,
    upstream: &str,
    target: &str,
    body: &Value,
) -> (StatusCode, Value) {
    let refused = |status, message: String| (status, json!({"error": message}));
    let order = match order(body) {
        Ok(order) => order,
        Err(message) => return refused(StatusCode::BAD_REQUEST, message),
    };
    let decoded = |name| percent_decode_str(name).decode_utf8_lossy();
    match origins.order(&decoded(upstream), &decoded(target), order) {
        Ok(changed) => (StatusCode::OK, json!({"upstreams": [status_of(changed)]})),
        Err(error) => {
            let status = match error {
                TargetOrderError::NoUpstream { .. } | TargetOrderError::NoTarget { .. } => {
                    StatusCode::NOT_FOUND
                }
                TargetOrderError::NotKept(_) => StatusCode::INTERNAL_SERVER_ERROR,
            };
            refused(status, error.to_string())
        }
    }
}

fn order(body: &Value) -> Result<TargetOrder, String> {
    const FORM: &str = "expected {\"state\": \"drain\", \"for\": \"10m\"}, with `ready`, `drain` or `out`, `for` only where the target is to be ready again by itself, and `\"keep\": true` where the state is to outlive the process";
    if !body.is_object() {
        return Err(FORM.to_owned());
    }
    let body = TargetOrderBody::deserialize(body).map_err(|error| format!("{error}; {FORM}"))?;
    let lasts = body.lasts.map(Duration::from);
    match (body.state, lasts) {
        (_, Some(Duration::ZERO)) => Err(format!("`for` is 0; {FORM}")),
        (AdministrativeState::Ready, Some(_)) => Err(format!("`for` beside `ready`; {FORM}")),
        (state, lasts) => Ok(TargetOrder {
            state,
            lasts,
            lifetime: match body.keep {
                true => OrderLifetime::Kept,
                false => OrderLifetime::Process,
            },
        }),
    }
}

fn status_of(upstream: UpstreamStatus) -> Value {
    let targets: Vec<Value> = upstream.targets.into_iter().map(told_target).collect();
    let names: Vec<Value> = upstream.names.into_iter().map(told_name).collect();
    let mut status = json!({"upstream": upstream.name, "targets": targets});
    if !names.is_empty() {
        status["names"] = names.into();
    }
    if let Some(problem) = upstream.file_problem {
        status["targets_file_problem"] = problem.into();
    }
    status
}

fn told_name(name: NameStatus) -> Value {
    let (reason, failing) = name.failing.unzip();
    json!({
        "name": name.name,
        "addresses": name.addresses,
        "failing_for_ms": failing.map(|failing| failing.as_millis() as u64),
        "reason": reason,
    })
}

fn told_target(target: TargetStatus) -> Value {
    let health = target.health;
    let millis = |span: Duration| span.as_millis() as u64;
    json!({
        "target": target.name,
        "url": target.url,
        "weight": target.weight,
        "priority": target.priority,
        "administrative": target.administrative.as_str(),
        "ready_in_ms": target.ready_in.map(millis),
        "observed": health.observed.as_str(),
        "in_flight": target.in_flight,
        "latency_us": target.latency.as_micros() as u64,
        "failures_in_a_row": health.failures,
        "ejections": health.ejections,
        "ejected_for_ms": health.ejected_for.map(millis),
        "rests_for_ms": health.rests_for.map(millis),
        "last_failure": health.last_failure.map(|(kind, since)| {
            json!({"kind": kind.word(), "ms_ago": millis(since)})
        }),
        "last_check": health.last_check.map(|(result, since)| {
            json!({"result": result, "ms_ago": millis(since)})
        }),
    })
}
