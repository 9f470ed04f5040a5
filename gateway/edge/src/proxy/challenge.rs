//! Answers to challenges of certificate authorities (RFC 8555 §8.3), before anything else looks at
//! a request: they are asked for in clear text, whatever the host is, and nothing of them is
//! stored. A token that nobody knows is left to the routes, so that an origin may have an ACME
//! client of its own.

use std::sync::Arc;

use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};

use super::counted::CountedResponse;
use super::metrics::RequestOutcome;
use super::respond;
use crate::http::body::Body;
use crate::http::server::RequestArrival;
use crate::http::tls::listeners::TlsListeners;
use crate::http::tls::obtained::ChallengeLookup;

/// Where certificate authorities ask for the answers to challenges.
pub const CHALLENGES: &str = "/.well-known/acme-challenge/";

/// The most octets of a token. They have 22 or more, and Let's Encrypt's have 43.
const MOST_TOKEN: usize = 128;

/// Looks whether a request is about a challenge that is known.
pub fn look(parts: &Parts, entered: &RequestArrival, tls: &TlsListeners) -> ChallengeLookup {
    let asked = || {
        let token = parts.uri.path().strip_prefix(CHALLENGES)?;
        let is_read = matches!(parts.method, Method::GET | Method::HEAD);
        let is_answered = is_read && entered.tls.is_none() && is_token(token);
        let answers = tls.challenges().filter(|_| is_answered)?;
        Some(answers.text(token))
    };
    asked().unwrap_or(ChallengeLookup::Unknown)
}

/// The response with the answer to a challenge.
pub fn answer(text: &Arc<str>) -> CountedResponse {
    let mut response: Response<Body> = respond::plain(StatusCode::OK, text.as_bytes().to_vec());
    let fields = response.headers_mut();
    fields.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    CountedResponse::new(response, RequestOutcome::Pass)
}

/// Whether this has the form of a token (RFC 8555 §8.1).
fn is_token(text: &str) -> bool {
    let allowed = |octet: u8| octet.is_ascii_alphanumeric() || b"-_".contains(&octet);
    (1..=MOST_TOKEN).contains(&text.len()) && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::is_token;

    #[test]
    fn only_tokens_are_looked_up() {
        assert!(is_token("LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0"));
        for text in ["", "a/b", "..", "a%2Fb", "a b", &"x".repeat(129)] {
            assert!(!is_token(text), "{text:?}");
        }
    }
}
