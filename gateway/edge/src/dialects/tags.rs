//! `PURGE` with the field by which responses name their tags.

use super::fields;
use super::{ControlRequest, DialectReading, PurgeScope};

pub const ACCEPTS: &str = "PURGE with tags in Surrogate-Key or Cache-Tag";

pub const FIELDS: &[&str] = &["surrogate-key", "cache-tag"];

/// Reads such a request.
pub fn read(request: &ControlRequest<'_>) -> DialectReading {
    if request.method != "PURGE" {
        return Ok(None);
    }
    let mut targets = Vec::new();
    for name in FIELDS {
        let named = fields::named_as_in_responses(request.headers, name)?;
        targets.extend(named.into_iter().flatten());
    }
    Ok((!targets.is_empty()).then(|| PurgeScope::of(targets)))
}
