//! `lamina health`: whether a running gateway takes requests, as its `/readyz` says.
//!
//! It is for probes that run a program, as those of container engines do. So what it says is one
//! line, and whatever keeps it from knowing counts as not ready.

use std::fmt;
use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::Value;

use super::{RemoteError, RemoteGateway};

/// What a gateway says of itself.
pub enum RemoteReadiness {
    /// It takes requests; what is degraded, if anything is.
    Ready(Vec<String>),
    /// It takes none; its state in a word.
    NotReady(String),
}

/// The parts of the answer that can be degraded, and what they are called.
const PARTS: [(&str, &str); 4] = [
    ("bus", "the event bus"),
    ("l2", "the second tier"),
    ("certificates", "automatic certificates"),
    ("names", "names of origins"),
];

impl RemoteGateway {
    /// Asks whether it takes requests. It has `limit` for its answer.
    ///
    /// # Errors
    /// See [`RemoteError`].
    pub async fn readiness(&self, limit: Duration) -> Result<RemoteReadiness, RemoteError> {
        let (status, answer) = self
            .answer(Method::GET, "/readyz", String::new(), limit)
            .await?;
        match (status, answer["ready"].as_bool()) {
            (StatusCode::OK, Some(true)) => Ok(RemoteReadiness::Ready(degraded(&answer))),
            (_, Some(_)) => {
                let state = answer["state"].as_str().unwrap_or("not ready");
                Ok(RemoteReadiness::NotReady(state.to_owned()))
            }
            (_, None) => Err(RemoteError::refused(status, &answer)),
        }
    }
}

/// What is degraded, each with its reason where one is told.
fn degraded(answer: &Value) -> Vec<String> {
    if answer["state"] != "degraded" {
        return Vec::new();
    }
    let told = PARTS.iter().filter_map(|(key, name)| {
        let part = &answer[key];
        let is_degraded = match *key {
            "bus" => {
                part.is_object()
                    && (part["hears"] == false
                        || part["publishes"] == false
                        || part["gap_open"] == true)
            }
            _ => part["state"] == "degraded",
        };
        let reason = part["reason"].as_str().map(one_line);
        is_degraded.then(|| match reason {
            Some(reason) => format!("{name} ({reason})"),
            None => (*name).to_owned(),
        })
    });
    let told: Vec<_> = told.collect();
    match told.is_empty() {
        true => vec!["/readyz has the reason".to_owned()],
        false => told,
    }
}

fn one_line(reason: &str) -> String {
    reason.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl fmt::Display for RemoteReadiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready(degraded) if degraded.is_empty() => f.write_str("ready"),
            Self::Ready(degraded) => write!(f, "ready, degraded: {}", degraded.join(", ")),
            Self::NotReady(state) => write!(f, "not ready: {state}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(answer: &Value) -> String {
        RemoteReadiness::Ready(degraded(answer)).to_string()
    }

    #[test]
    fn what_is_degraded_is_named_on_one_line() {
        let whole = json!({"ready": true, "state": "serving", "l2": {"state": "serving"}});
        assert_eq!(shown(&whole), "ready");
        let degraded = json!({
            "ready": true,
            "state": "degraded",
            "bus": {"hears": true, "publishes": false, "gap_open": false, "reason": "no\nroute"},
            "l2": {"state": "serving"},
            "names": {"state": "degraded", "count": 1},
        });
        let line = "ready, degraded: the event bus (no route), names of origins";
        assert_eq!(shown(&degraded), line);
        let unnamed = json!({"ready": true, "state": "degraded"});
        assert_eq!(shown(&unnamed), "ready, degraded: /readyz has the reason");
    }
}
