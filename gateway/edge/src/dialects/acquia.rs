//! What Drupal's acquia_purge sends to load balancers.

use super::fields::{self, malformed, spaces_and_commas};
use super::wish::PurgeTarget;
use super::{ControlRequest, DialectReading, PurgeScope, url};

pub const ACCEPTS: &str = "with X-Acquia-Purge: BAN of /tags with tags in X-Acquia-Purge-Tags, BAN of \
                           /site, BAN or PURGE of a URL, which may end in `*`";

pub const FIELDS: &[&str] = &["x-acquia-purge", "x-acquia-purge-tags"];

/// Reads such a request.
pub fn read(request: &ControlRequest<'_>) -> DialectReading {
    const TAGS: &str = "X-Acquia-Purge-Tags";
    let has = |name: &&str| request.headers.contains_key(*name);
    if !matches!(request.method, "BAN" | "PURGE") || !FIELDS.iter().any(has) {
        return Ok(None);
    }
    if !request.headers.contains_key("x-acquia-purge") {
        return Err(malformed("X-Acquia-Purge", "is missing"));
    }
    let tags = fields::listed(request.headers, TAGS, spaces_and_commas)?;
    let targets = match (request.method, request.uri.path(), tags) {
        ("BAN", "/tags", Some(tags)) => tags,
        ("BAN", "/tags", None) => return Err(malformed(TAGS, "is missing")),
        (_, _, Some(_)) => return Err(malformed(TAGS, "is expected with BAN of /tags alone")),
        ("BAN", "/site", None) => vec![PurgeTarget::Everything],
        (_, _, None) => url::url(request)?,
    };
    Ok(Some(PurgeScope::of(targets)))
}
