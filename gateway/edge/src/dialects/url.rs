//! `PURGE` of a URL, or of all paths that begin so, as WordPress, MediaWiki, Wagtail and Plone send
//! it.

use super::expression::{self, LONGEST_BEGINNING, PathExpression};
use super::fields::{self, malformed};
use super::wish::{InvalidPurgeRequest, PurgeTarget, TargetHosts};
use super::{ControlRequest, DialectReading, PurgeScope};

pub const ACCEPTS: &str = "PURGE with a URL, whose path may have `*` in it; \
                           `X-Purge-Method: regex` with the beginning of a path";

pub const FIELDS: &[&str] = &["x-purge-method"];

/// Reads what no other dialect has taken.
pub fn read(request: &ControlRequest<'_>) -> DialectReading {
    if request.method != "PURGE" {
        return Ok(None);
    }
    let targets = match fields::single(request.headers, "x-purge-method")? {
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
    page(&request.target())
}

/// The page of a path and its query, and what else it may mean: a `*` may be a wildcard, or a letter
/// as in the titles of some pages, so both count.
pub fn page(target: &str) -> Result<Vec<PurgeTarget>, InvalidPurgeRequest> {
    let hosts = || TargetHosts::OfRequest;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    if !path.contains('*') && !query.ends_with('*') {
        return Ok(vec![PurgeTarget::Page(hosts(), target.to_owned())]);
    }
    let path = expression::as_written(path);
    if query.is_empty() && (path.ends_with(".*") || path.ends_with("(.*)")) {
        let begins = beginning_in(&path).ok_or_else(another_form)?;
        return Ok(vec![beginning_of(begins)?]);
    }
    let open = [".*", "*"]
        .iter()
        .find_map(|open| target.strip_suffix(open));
    if let Some(begins) = open.filter(|begins| !begins.contains('*')) {
        return beginning_at_wildcard(target, begins);
    }
    if has_letters_of_expressions(&path) || target.len() > LONGEST_BEGINNING {
        return Err(another_form());
    }
    // As an expression, `.*` is a wildcard.
    let pattern = target.replace(".*", "*");
    Ok(vec![
        PurgeTarget::Page(hosts(), target.to_owned()),
        PurgeTarget::Pattern(hosts(), pattern),
    ])
}

/// What begins as this target does before the wildcard at its end. In a query, the wildcard may be a
/// letter as well.
fn beginning_at_wildcard(
    target: &str,
    begins: &str,
) -> Result<Vec<PurgeTarget>, InvalidPurgeRequest> {
    if begins.contains('?') {
        let page = PurgeTarget::Page(TargetHosts::OfRequest, target.to_owned());
        return Ok(vec![page, beginning_of(begins.to_owned())?]);
    }
    match expression::literal(&expression::as_written(begins)) {
        Some(begins) => Ok(vec![beginning_of(begins)?]),
        None if has_letters_of_expressions(begins) => Err(another_form()),
        None => Ok(vec![beginning_of(begins.to_owned())?]),
    }
}

/// Whether a path has letters that no URL has as they are: it is an expression then.
fn has_letters_of_expressions(path: &str) -> bool {
    expression::as_written(path).contains(['\\', '[', ']', '|', '^', '{', '}'])
}

fn another_form() -> InvalidPurgeRequest {
    InvalidPurgeRequest::malformed(
        "the path has a wildcard in an expression that is neither a path nor the beginning of one",
    )
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
    let begins = beginning_in(&path).filter(|_| request.uri.query().is_none());
    beginning_of(begins.ok_or_else(|| {
        InvalidPurgeRequest::malformed("the regular expression is not the beginning of a path")
    })?)
}

fn beginning_in(expression: &str) -> Option<String> {
    match expression::path(expression.strip_suffix('$').unwrap_or(expression))? {
        PathExpression::Any => Some("/".to_owned()),
        PathExpression::Beginning(path) | PathExpression::Whole(path) => Some(path),
    }
}
