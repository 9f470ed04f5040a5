//! Requests to Symfony's HttpCache with the listeners of FOSHttpCache.

use super::fields::{self, malformed, spaces_and_commas};
use super::wish::PurgeTarget;
use super::{ControlRequest, DialectReading, PurgeScope};

pub const ACCEPTS: &str =
    "PURGETAGS with tags in X-Cache-Tags, with commas; PURGE with `Clear-Cache: true`";

pub const FIELDS: &[&str] = &["x-cache-tags", "clear-cache"];

/// Reads such a request.
pub fn read(request: &ControlRequest<'_>) -> DialectReading {
    match request.method {
        "PURGETAGS" if request.headers.contains_key("clear-cache") => Err(malformed(
            "Clear-Cache",
            "stands beside tags, so it asks for several things at once",
        )),
        "PURGETAGS" => match fields::listed(request.headers, "X-Cache-Tags", spaces_and_commas)? {
            Some(targets) => Ok(Some(PurgeScope::of(targets))),
            None => Err(malformed("X-Cache-Tags", "is missing")),
        },
        "PURGE" => match fields::single(request.headers, "clear-cache")? {
            None => Ok(None),
            Some("true") => Ok(Some(PurgeScope::of(vec![PurgeTarget::Everything]))),
            Some(_) => Err(malformed("Clear-Cache", "is not `true`")),
        },
        _ => Ok(None),
    }
}
