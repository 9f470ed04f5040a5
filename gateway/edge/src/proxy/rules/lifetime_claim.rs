//! Whether the rules for answers may change what an answer says of its storage: not where it was
//! made for one request, so that no rule lets another cache keep it for others.

use crate::http::cache_control::ResponseDirectives;
use crate::proxy::counted::{AnsweringRule, CountedResponse};
use crate::proxy::metrics::RequestOutcome;

/// Tells whether the rules may change what an answer says of its storage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LifetimeClaim {
    /// It was made for one request, and would be wrong for another one.
    Kept,
    /// It was made for one client, which may keep it.
    ForOneClient,
    Free,
}

impl LifetimeClaim {
    /// Judges an answer before the rules change it.
    pub fn of(served: &CountedResponse, assembly: PageAssembly) -> Self {
        let status = served.response.status();
        let is_error = status.is_client_error() || status.is_server_error();
        let is_fleeting = is_error && !LASTING_ERRORS.contains(&status.as_u16());
        let is_refusal = match served.rule {
            None
            | Some(
                AnsweringRule::Redirect | AnsweringRule::TrailingSlash | AnsweringRule::Respond,
            ) => false,
            Some(_) => true,
        };
        let is_put_together = || {
            let said = ResponseDirectives::parse(served.response.headers());
            said.no_store || said.private.is_present()
        };
        let is_error_of_ours = served.outcome == RequestOutcome::Error;
        if is_fleeting || is_refusal || is_error_of_ours {
            return Self::Kept;
        }
        match assembly == PageAssembly::On && is_put_together() {
            true => Self::ForOneClient,
            false => Self::Free,
        }
    }
}

/// Tells whether a route puts pages together, each for one client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageAssembly {
    On,
    Off,
}

/// Statuses of errors that caches may store without being told so (RFC 9110 §15.1).
const LASTING_ERRORS: [u16; 5] = [404, 405, 410, 414, 501];
