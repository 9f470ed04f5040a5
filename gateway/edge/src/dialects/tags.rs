//! `PURGE` with the field by which responses name their tags.

use super::fields::{self, spaces_and_commas};
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
        targets.extend(
            fields::listed(request.headers, name, spaces_and_commas)?
                .into_iter()
                .flatten(),
        );
    }
    Ok((!targets.is_empty()).then(|| PurgeScope::of(targets)))
}
