//! `PURGE` of a URL, or of all paths that begin so, as WordPress, MediaWiki, Wagtail and Plone send
//! it.

use super::expression::{self, LONGEST_BEGINNING, PathExpression};
use super::fields::{self, malformed};
use super::wish::{InvalidPurgeRequest, PurgeTarget, TargetHosts};
use super::{ControlRequest, DialectReading, PurgeScope};

pub const ACCEPTS: &str = "PURGE with a URL, whose path may end in `*` or `.*`; \
                           `X-Purge-Method: regex` with the beginning of a path";

pub const FIELDS: &[&str] = &["x-purge-method"];

/// Reads what no other dialect has taken.
pub fn read(request: &ControlRequest<'_>) -> DialectReading {
    if request.method != "PURGE" {
        return Ok(None);
    }
    let target = match fields::text(request.headers, "x-purge-method")?.as_deref() {
        Some("regex") => beginning(request)?,
        None | Some("default" | "exact" | "single" | "url") => url(request)?,
        Some(_) => {
            let what = "is neither `regex` nor `default` nor `exact`";
            return Err(malformed("X-Purge-Method", what));
        }
    };
    Ok(Some(PurgeScope::of(vec![target])))
}

/// The URL as it is; with a wildcard at its end, all URLs that begin with it, including itself.
pub fn url(request: &ControlRequest<'_>) -> Result<PurgeTarget, InvalidPurgeRequest> {
    let path = request.uri.path();
    match (path.contains('*'), request.uri.query()) {
        (false, _) => Ok(PurgeTarget::Page(TargetHosts::OfRequest, request.target())),
        (true, None) if path.ends_with(".*") || path.ends_with("(.*)") => beginning(request),
        (true, None) => {
            let begins = path.strip_suffix('*').and_then(expression::literal);
            let begins = begins.filter(|path| path.len() <= LONGEST_BEGINNING);
            let begins = begins.map(|path| PurgeTarget::Beginning(TargetHosts::OfRequest, path));
            begins.ok_or_else(|| {
                InvalidPurgeRequest::malformed(
                    "the path has a wildcard, and not at its end alone, or is too long",
                )
            })
        }
        (true, Some(_)) => Err(InvalidPurgeRequest::malformed(
            "the path has a wildcard, and the URL a query",
        )),
    }
}

/// The beginning of paths that a path is as a regular expression.
pub fn beginning(request: &ControlRequest<'_>) -> Result<PurgeTarget, InvalidPurgeRequest> {
    let path = request.uri.path();
    if path.len() > LONGEST_BEGINNING {
        return Err(InvalidPurgeRequest::malformed(format!(
            "the beginning of a path has more than {LONGEST_BEGINNING} bytes"
        )));
    }
    let path = path.strip_suffix('$').unwrap_or(path);
    let begins = match expression::path(path).filter(|_| request.uri.query().is_none()) {
        Some(PathExpression::Any) => "/".to_owned(),
        Some(PathExpression::Beginning(path) | PathExpression::Whole(path)) => path,
        None => {
            return Err(InvalidPurgeRequest::malformed(
                "the regular expression is not the beginning of a path",
            ));
        }
    };
    Ok(PurgeTarget::Beginning(TargetHosts::OfRequest, begins))
}
