//! The fields that tell browsers to be careful, where the origin has said nothing.

use http::header::{
    REFERRER_POLICY, SERVER, STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::present::{PresentFields, RuledField};

/// The fields that are set unless they are there.
static BASIC: [(RuledField, HeaderName, HeaderValue); 3] = [
    (
        RuledField::ContentTypeOptions,
        X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    ),
    (
        RuledField::ReferrerPolicy,
        REFERRER_POLICY,
        HeaderValue::from_static("strict-origin-when-cross-origin"),
    ),
    (
        RuledField::FrameOptions,
        X_FRAME_OPTIONS,
        HeaderValue::from_static("SAMEORIGIN"),
    ),
];

/// Names the software of an origin, as `Server` does.
const POWERED_BY: HeaderName = HeaderName::from_static("x-powered-by");

/// One year, for the host alone.
const ONE_YEAR: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// Sets what is missing, and takes out what names the origin's software. Over clear text nobody may
/// be told to use TLS alone (RFC 6797 §7.2).
pub fn set_basic(headers: &mut HeaderMap, present: PresentFields, scheme: &str) {
    if present.has(RuledField::Software) {
        headers.remove(SERVER);
        headers.remove(POWERED_BY);
    }
    for (field, name, value) in &BASIC {
        if !present.has(*field) {
            headers.insert(name, value.clone());
        }
    }
    if scheme == "https" && !present.has(RuledField::TransportSecurity) {
        headers.insert(STRICT_TRANSPORT_SECURITY, ONE_YEAR);
    }
}
