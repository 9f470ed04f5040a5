//! The fields that tell browsers to be careful, where the origin has said nothing.

use http::header::{
    REFERRER_POLICY, SERVER, STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue};

/// The fields that are set unless they are there.
static BASIC: [(HeaderName, HeaderValue); 3] = [
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (
        REFERRER_POLICY,
        HeaderValue::from_static("strict-origin-when-cross-origin"),
    ),
    (X_FRAME_OPTIONS, HeaderValue::from_static("SAMEORIGIN")),
];

/// Names the software of an origin, as `Server` does.
const POWERED_BY: HeaderName = HeaderName::from_static("x-powered-by");

/// One year, for the host alone.
const ONE_YEAR: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// Sets what is missing, and takes out what names the origin's software. Over clear text nobody may
/// be told to use TLS alone (RFC 6797 §7.2).
pub fn set_basic(headers: &mut HeaderMap, scheme: &str) {
    headers.remove(SERVER);
    headers.remove(POWERED_BY);
    for (name, value) in &BASIC {
        headers.entry(name).or_insert_with(|| value.clone());
    }
    if scheme == "https" {
        let hsts = headers.entry(STRICT_TRANSPORT_SECURITY);
        hsts.or_insert(ONE_YEAR);
    }
}
