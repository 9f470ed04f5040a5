//! One log line for each action: who did what, from where, and with what result.
//!
//! Open requests (health, metrics, lists) are not actions. The lines about refusals are limited in
//! rate, since anybody can cause them; everything that was done is always logged. The query is left
//! out, since it may hold something that does not belong there, such as a token.

use std::time::Instant;

use http::{Method, Request, StatusCode};

use super::gate::{AdmittedAdminRequest, RefusedAdminRequest};
use super::table::AdminAccess;
use crate::http::body::Body;
use crate::http::server::{LocalEndpoint, Peer};
use crate::telemetry::limit::LineLimiter;

/// Limits the lines about refusals.
pub struct RefusalAuditLimiter(LineLimiter);

/// The line of an action that is under way. It is written when this is dropped, also if a client
/// leaves before its answer and thus ends the action's task.
pub struct AuditLine {
    source: AdminActionSource,
    method: Method,
    path: String,
    /// The request's body, if it is read.
    asked: String,
    /// The status of the answer. None until it is known.
    status: Option<StatusCode>,
}

/// Who has asked for an action.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct AdminActionSource {
    /// The name of the token, or what the caller is without one.
    pub who: String,
    /// The address of the client, or the user at the other end of the Unix socket.
    pub from: String,
}

/// The most bytes of a request's body that a line shows.
const SHOWN: usize = 1_024;

impl AuditLine {
    /// The line of an action. None if the action is open to everybody.
    pub fn of(
        admitted: &AdmittedAdminRequest<'_>,
        request: &Request<Body>,
        peer: Peer,
    ) -> Option<Self> {
        (admitted.entry.access != AdminAccess::Open).then(|| Self {
            source: AdminActionSource {
                who: admitted.caller.as_str().to_owned(),
                from: from(peer),
            },
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            asked: String::new(),
            status: None,
        })
    }

    /// Who has asked for the action.
    pub fn source(&self) -> &AdminActionSource {
        &self.source
    }

    /// Records the body of the request.
    pub fn asked(&mut self, body: &[u8]) {
        self.asked = shown(&String::from_utf8_lossy(body)).to_owned();
    }

    /// Ends the action with this status.
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
            who = self.source.who,
            what = %format_args!("{} {}", self.method, self.path),
            asked = self.asked,
            from = self.source.from,
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

    /// Logs a refusal, unless there were too many recently.
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

/// The beginning of a text, as far as a line shows it.
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
