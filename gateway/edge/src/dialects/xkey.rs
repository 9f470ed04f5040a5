//! The fields of Varnish's module xkey, with `PURGE` as API Platform and Shopware send them, or with
//! `PURGEKEYS` as FOSHttpCache and Ibexa do.

use super::fields::{self, malformed, spaces_and_commas};
use super::wish::InvalidPurgeRequest;
use super::{ControlRequest, DialectReading, PurgeScope};
use crate::cache::purge::PurgeKind;

pub const ACCEPTS: &str = "PURGE or PURGEKEYS with tags in xkey, xkey-purge or xkey-softpurge";

pub const FIELDS: &[&str] = &["xkey", "xkey-purge", "xkey-softpurge"];

const KINDS: [PurgeKind; 3] = [PurgeKind::Hard, PurgeKind::Hard, PurgeKind::Soft];

/// Reads such a request.
pub fn read(request: &ControlRequest<'_>) -> DialectReading {
    if !matches!(request.method, "PURGE" | "PURGEKEYS") {
        return Ok(None);
    }
    let mut found: Option<PurgeScope> = None;
    for (name, kind) in FIELDS.iter().zip(KINDS) {
        let Some(targets) = fields::listed(request.headers, name, spaces_and_commas)? else {
            continue;
        };
        if found.is_some() {
            return Err(InvalidPurgeRequest::malformed(
                "it asks for several things at once: one of xkey, xkey-purge and xkey-softpurge is \
                 expected",
            ));
        }
        found = Some(PurgeScope {
            targets,
            kind: Some(kind),
        });
    }
    match (found, request.method) {
        (None, "PURGEKEYS") => Err(malformed("xkey-purge", "or xkey-softpurge is missing")),
        (found, _) => Ok(found),
    }
}
