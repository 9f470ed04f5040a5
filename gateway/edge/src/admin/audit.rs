//! One line in the log for each action: who, what, from where, and what came of it.
//!
//! Open requests (health, metrics, lists) are no actions. Refusals are limited in rate, for
//! anybody can cause them; what was done is always told. The query is left out, for it may
//! hold what does not belong there, such as a token.

use std::time::Instant;

use http::{Method, Request, StatusCode};

use super::gate::{AdmittedAdminRequest, RefusedAdminRequest};
use super::table::AdminAccess;
use crate::http::body::Body;
use crate::http::server::{LocalEndpoint, Peer};
use crate::telemetry::limit::LineLimiter;

/// Limits the lines about refusals.
pub struct RefusalAuditLimiter(LineLimiter);

/// The line of an action that is under way. A client that goes away before its answer ends
/// the action's task, which this tells when it is dropped.
pub struct AuditLine {
    who: String,
    method: Method,
    path: String,
    from: String,
    /// The body, where it is read.
    asked: String,
    /// None until it is known.
    status: Option<StatusCode>,
}

/// Bytes of what was asked for that a line shows at most.
const SHOWN: usize = 1_024;

impl AuditLine {
    /// The line of an action; none where it is open to all.
    pub fn of(
        admitted: &AdmittedAdminRequest<'_>,
        request: &Request<Body>,
        peer: Peer,
    ) -> Option<Self> {
        (admitted.entry.access != AdminAccess::Open).then(|| Self {
            who: admitted.caller.as_str().to_owned(),
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            from: from(peer),
            asked: String::new(),
            status: None,
        })
    }

    /// What the body of the request asks for.
    pub fn asked(&mut self, body: &[u8]) {
        self.asked = shown(&String::from_utf8_lossy(body)).to_owned();
    }

    /// It ends with this answer.
    pub fn ends(mut self, status: StatusCode) {
        self.status = Some(status);
    }
}

impl Drop for AuditLine {
    fn drop(&mut self) {
        let outcome = match self.status {
            Some(status) if status.is_success() => "done",
            Some(_) => "failed",
            None => "unanswered",
        };
        tracing::info!(
            target: "lamina::audit",
            who = self.who,
            what = %format_args!("{} {}", self.method, self.path),
            asked = self.asked,
            from = self.from,
            outcome,
            status = self.status.map(|status| status.as_u16()),
            "admin action"
        );
    }
}

impl RefusalAuditLimiter {
    pub fn new(now: Instant) -> Self {
        Self(LineLimiter::new(now))
    }

    /// Tells of a refusal, unless there were too many lately.
    pub fn tell(&self, refusal: &RefusedAdminRequest<'_>, request: &Request<Body>, peer: Peer) {
        let Some(untold) = self.0.admit(Instant::now()) else {
            return;
        };
        tracing::warn!(
            target: "lamina::audit",
            who = refusal.caller.as_str(),
            what = %format_args!("{} {}", request.method(), shown(request.uri().path())),
            from = from(peer),
            outcome = "refused",
            status = refusal.response.status().as_u16(),
            untold,
            "admin action"
        );
    }
}

fn from(peer: Peer) -> String {
    match peer.reached {
        LocalEndpoint::Tcp(_) => peer.address.to_string(),
        LocalEndpoint::Unix { user: Some(user) } => format!("Unix socket, user {user}"),
        LocalEndpoint::Unix { user: None } => "Unix socket".to_owned(),
    }
}

/// The beginning of a text.
fn shown(text: &str) -> &str {
    let mut end = text.len().min(SHOWN);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_long_text_the_beginning_is_shown() {
        assert_eq!(shown("short"), "short");
        let long = "é".repeat(SHOWN);
        assert_eq!(shown(&long).len(), SHOWN);
        assert_eq!(shown(&format!("x{long}")).len(), SHOWN - 1);
    }
}
