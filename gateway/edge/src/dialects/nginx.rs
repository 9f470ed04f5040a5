//! Requests below a prefix, as nginx's module `cache_purge` takes them.

use super::wish::InvalidPurgeRequest;
use super::{ControlRequest, DialectSettings, PurgeScope, url};

pub const ACCEPTS: &str = "GET or PURGE with a path behind `nginx_prefix`";

/// Reads such a request. None if its path does not begin so.
pub fn read(
    request: &ControlRequest<'_>,
    settings: &DialectSettings,
) -> Option<Result<PurgeScope, InvalidPurgeRequest>> {
    let target = request.target();
    let path = target.strip_prefix(settings.nginx_prefix.trim_end_matches('/'))?;
    if !path.starts_with('/') {
        return None;
    }
    if !matches!(request.method, "GET" | "PURGE") {
        return Some(Err(InvalidPurgeRequest::unknown(format!(
            "below {} a page is purged by GET or PURGE",
            settings.nginx_prefix
        ))));
    }
    Some(url::page(path).map(PurgeScope::of))
}
