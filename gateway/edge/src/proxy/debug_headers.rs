//! Fields by which tools tell whether an answer came from the cache, under the names that they look
//! for. `Cache-Status` says more.

use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderName, HeaderValue};

use super::CountedResponse;
use super::metrics::RequestOutcome;
use crate::cache::config::DebugHeader;

const X_CACHE: HeaderName = HeaderName::from_static("x-cache");
const X_VARNISH: HeaderName = HeaderName::from_static("x-varnish");

/// Sets these fields on an answer. Those of an origin under the same names are replaced.
pub fn set(fields: &[DebugHeader], served: &mut CountedResponse) {
    let is_hit = matches!(served.outcome, RequestOutcome::Hit | RequestOutcome::Stale);
    let headers = served.response.headers_mut();
    for field in fields {
        match field {
            DebugHeader::XCache => {
                let word = if is_hit { "HIT" } else { "MISS" };
                headers.insert(X_CACHE, HeaderValue::from_static(word));
            }
            DebugHeader::XVarnish => {
                headers.insert(X_VARNISH, numbers(is_hit));
            }
        }
    }
}

/// The number of this answer, and for a hit a second one, which counts for tools that look for two.
fn numbers(is_hit: bool) -> HeaderValue {
    static ANSWERS: AtomicU64 = AtomicU64::new(1);
    let number = ANSWERS.fetch_add(1, Ordering::Relaxed);
    let text = match is_hit {
        true => format!("{number} 1"),
        false => number.to_string(),
    };
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("1"))
}
