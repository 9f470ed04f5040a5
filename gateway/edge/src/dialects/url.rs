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
    let targets = match fields::text(request.headers, "x-purge-method")?.as_deref() {
        Some("regex") => vec![beginning(request)?],
        None | Some("default" | "exact" | "single" | "url") => url(request)?,
        Some(_) => {
            let what = "is neither `regex` nor `default` nor `exact`";
            return Err(malformed("X-Purge-Method", what));
        }
    };
    Ok(Some(PurgeScope::of(targets)))
}

/// The URL as it is; with a wildcard at its end, all URLs that begin with it, including itself.
pub fn url(request: &ControlRequest<'_>) -> Result<Vec<PurgeTarget>, InvalidPurgeRequest> {
    let path = request.uri.path();
    match (path.contains('*'), request.uri.query()) {
        (false, _) => page_or_beginning(request.target()),
        (true, None) if path.ends_with(".*") || path.ends_with("(.*)") => {
            Ok(vec![beginning(request)?])
        }
        (true, None) => {
            let begins = path.strip_suffix('*').map(expression::as_written);
            let begins = begins.and_then(|path| expression::literal(&path));
            let begins = begins.ok_or_else(|| {
                InvalidPurgeRequest::malformed("the path has a wildcard, and not at its end alone")
            })?;
            Ok(vec![beginning_of(begins)?])
        }
        (true, Some(_)) => Err(InvalidPurgeRequest::malformed(
            "the path has a wildcard, and the URL a query",
        )),
    }
}

/// A page whose path has no wildcard. One at the end of its query may be a letter of the query, too.
fn page_or_beginning(target: String) -> Result<Vec<PurgeTarget>, InvalidPurgeRequest> {
    let begins = target.strip_suffix('*').map(str::to_owned);
    let mut targets = vec![PurgeTarget::Page(TargetHosts::OfRequest, target)];
    if let Some(begins) = begins {
        targets.push(beginning_of(begins)?);
    }
    Ok(targets)
}

fn beginning_of(path: String) -> Result<PurgeTarget, InvalidPurgeRequest> {
    match path.len() <= LONGEST_BEGINNING {
        true => Ok(PurgeTarget::Beginning(TargetHosts::OfRequest, path)),
        false => Err(InvalidPurgeRequest::malformed(format!(
            "the beginning of a path has more than {LONGEST_BEGINNING} bytes"
        ))),
    }
}

/// The beginning of paths that a path is as a regular expression.
pub fn beginning(request: &ControlRequest<'_>) -> Result<PurgeTarget, InvalidPurgeRequest> {
    let path = expression::as_written(request.uri.path());
    let path = path.strip_suffix('$').unwrap_or(&path);
    let begins = match expression::path(path).filter(|_| request.uri.query().is_none()) {
        Some(PathExpression::Any) => "/".to_owned(),
        Some(PathExpression::Beginning(path) | PathExpression::Whole(path)) => path,
        None => {
            return Err(InvalidPurgeRequest::malformed(
                "the regular expression is not the beginning of a path",
            ));
        }
    };
    beginning_of(begins)
}
