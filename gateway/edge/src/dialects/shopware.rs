//! `BAN` of a path without any field, as Shopware up to 6.5 sends it: its Varnish configuration bans
//! all URLs that have the path in them.

use super::{ControlRequest, DialectReading, PurgeScope, url};

pub const ACCEPTS: &str = "BAN with the beginning of a path";

/// Reads what no other dialect has taken.
pub fn read(request: &ControlRequest<'_>) -> DialectReading {
    match request.method {
        "BAN" => Ok(Some(PurgeScope::of(vec![url::beginning(request)?]))),
        _ => Ok(None),
    }
}
