//! Magento's `PURGE` with `X-Magento-Tags-Pattern`.

use super::fields::{self, malformed, tagged};
use super::wish::PurgeTarget;
use super::{ControlRequest, DialectReading, PurgeScope, expression};

pub const ACCEPTS: &str = "PURGE with `X-Magento-Tags-Pattern: ((^|,)TAG(,|$))|…` or `.*`";

pub const FIELDS: &[&str] = &["x-magento-tags-pattern", POOL];

const POOL: &str = "x-pool";

/// Reads such a request. `X-Pool`, which may stand beside the pattern, narrows what is purged to one
/// pool of servers; here all are purged. Alone it asks Magento's VCL for everything of that pool.
pub fn read(request: &ControlRequest<'_>) -> DialectReading {
    const NAME: &str = "X-Magento-Tags-Pattern";
    if request.method != "PURGE" {
        return Ok(None);
    }
    let Some(pattern) = fields::single(request.headers, NAME)? else {
        return match request.headers.contains_key(POOL) {
            true => Err(malformed(NAME, "is missing beside X-Pool")),
            false => Ok(None),
        };
    };
    if pattern == ".*" {
        return Ok(Some(PurgeScope::of(vec![PurgeTarget::Everything])));
    }
    let tags = expression::in_parentheses(pattern, "(^|,)", "(,|$)");
    let tags = tags.filter(|tags| tags.iter().all(|tag| !tag.contains(',')));
    match tags {
        Some(tags) => Ok(Some(PurgeScope::of(tagged(tags, NAME)?))),
        None => Err(malformed(NAME, "is neither `.*` nor `((^|,)TAG(,|$))|…`")),
    }
}
