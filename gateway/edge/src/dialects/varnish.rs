//! `BAN` with the fields of FOSHttpCache's Varnish client, which Neos and extensions of TYPO3 use,
//! too.

use super::expression::{self, LONGEST_BEGINNING, PathExpression, alternatives, between, literal};
use super::fields::{self, malformed, tagged, words};
use super::wish::{InvalidPurgeRequest, PurgeTarget, TargetHosts};
use super::{ControlRequest, DialectReading, PurgeScope};

pub const ACCEPTS: &str = "BAN with X-Host (`.*`, `^(h1|h2)$` or a host), X-Url (`.*`, `^/beginning`, \
     `^/whole$`), X-Content-Type (`.*` or a type) and X-Cache-Tags (`.*`, `(^|,)(a|b)(,|$)`, \
     `a|b`)";

pub const FIELDS: &[&str] = &[HOST, URL, TYPE, TAGS];

const HOST: &str = "x-host";
const URL: &str = "x-url";
const TYPE: &str = "x-content-type";
const TAGS: &str = "x-cache-tags";

/// What a ban says of the entries that it reaches.
struct BanConditions {
    hosts: Vec<TargetHosts>,
    path: PathExpression,
    content_type: Option<String>,
    tags: Option<BannedTags>,
}

/// The tags that a ban names.
enum BannedTags {
    Any,
    These(Vec<String>),
}

/// Reads such a request.
pub fn read(request: &ControlRequest<'_>) -> DialectReading {
    let has = |name: &&str| request.headers.contains_key(*name);
    if request.method != "BAN" || !FIELDS.iter().any(has) {
        return Ok(None);
    }
    let BanConditions {
        hosts,
        path,
        content_type,
        tags,
    } = conditions(request)?;
    let everywhere = hosts == [TargetHosts::Every] && path == PathExpression::Any;
    let targets = match (tags, content_type) {
        (Some(BannedTags::These(tags)), None) if everywhere => tagged(tags, TAGS)?,
        (None | Some(BannedTags::Any), None) if everywhere => vec![PurgeTarget::Everything],
        (None | Some(BannedTags::Any), Some(kind)) if everywhere => {
            vec![PurgeTarget::ContentType(kind)]
        }
        (Some(BannedTags::These(_)), _) => {
            return Err(InvalidPurgeRequest::malformed(
                "tags are purged for every host, path and type, so X-Host, X-Url and \
                 X-Content-Type beside them must be `.*`",
            ));
        }
        // What is on these paths is purged whatever its type is: too much, and never too little.
        (None | Some(BannedTags::Any), _) => places(&hosts, &path),
    };
    Ok(Some(PurgeScope::of(targets)))
}

fn places(hosts: &[TargetHosts], path: &PathExpression) -> Vec<PurgeTarget> {
    let target = |hosts: &TargetHosts| match path {
        PathExpression::Any => PurgeTarget::Beginning(hosts.clone(), "/".to_owned()),
        PathExpression::Beginning(path) => PurgeTarget::Beginning(hosts.clone(), path.clone()),
        PathExpression::Whole(path) => PurgeTarget::Page(hosts.clone(), path.clone()),
    };
    hosts.iter().map(target).collect()
}

fn conditions(request: &ControlRequest<'_>) -> Result<BanConditions, InvalidPurgeRequest> {
    let text = |name| fields::single(request.headers, name);
    let hosts = match text(HOST)? {
        None | Some(".*") => vec![TargetHosts::Every],
        Some(hosts) => {
            let hosts = expression::hosts(hosts)
                .ok_or_else(|| malformed(HOST, "is neither `.*` nor `^(h1|h2)$` nor a host"))?;
            hosts.into_iter().map(TargetHosts::One).collect()
        }
    };
    let path = match text(URL)? {
        None => PathExpression::Any,
        Some(path) if path.len() > LONGEST_BEGINNING => {
            let what = format!("has more than {LONGEST_BEGINNING} bytes");
            return Err(malformed(URL, &what));
        }
        // Varnish looks for it anywhere in a URL, so that many pages may end so.
        Some(path) if is_bound_to_the_end_alone(path) => {
            let what = "is bound to the end of a URL alone; expected `^` before it";
            return Err(malformed(URL, what));
        }
        Some(path) => expression::path(path).ok_or_else(|| {
            malformed(
                URL,
                "is neither `.*` nor the beginning of a path nor a path",
            )
        })?,
    };
    let content_type = match text(TYPE)? {
        None | Some(".*") => None,
        Some(kind) => Some(content_type(kind).ok_or_else(|| {
            malformed(TYPE, "is neither `.*` nor one content type, as `text/html`")
        })?),
    };
    let tags = match fields::lines(request.headers, TAGS)?[..] {
        [] => None,
        [".*"] => Some(BannedTags::Any),
        ref lines => {
            let tags: Option<Vec<_>> = lines.iter().map(|line| of_tags(line)).collect();
            let tags = tags.ok_or_else(|| {
                malformed(TAGS, "is neither `.*` nor `(^|,)(a|b)(,|$)` nor `a|b`")
            })?;
            Some(BannedTags::These(tags.concat()))
        }
    };
    Ok(BanConditions {
        hosts,
        path,
        content_type,
        tags,
    })
}

/// Whether an expression with `$` at its end says nothing about how a URL begins.
fn is_bound_to_the_end_alone(expression: &str) -> bool {
    let is_whole = || matches!(expression::path(expression), Some(PathExpression::Whole(_)));
    !expression.starts_with('^') && is_whole()
}

fn content_type(expression: &str) -> Option<String> {
    let kind = expression.strip_prefix('^').unwrap_or(expression);
    let kind = kind.strip_suffix('$').unwrap_or(kind);
    let kind = literal(kind)?.to_ascii_lowercase();
    let (main, sub) = kind.split_once('/')?;
    let is_word = |word: &str| !word.is_empty() && !word.contains(['/', ' ', ';', ',']);
    (is_word(main) && is_word(sub)).then_some(kind)
}

/// The tags of FOSHttpCache, of the TYPO3 extension nxvarnish (`;pages;`, and
/// `;pages{[0-9,]*,7,[0-9,]*};` for what it names `pages_7`), or a plain list.
fn of_tags(expression: &str) -> Option<Vec<String>> {
    if let Some(list) = between(expression, "(^|,)(", ")(,|$)") {
        return alternatives(list).map(words);
    }
    if let Some(tag) = between(expression, ";", ";") {
        let Some((table, number)) = tag.split_once("{[0-9,]*,") else {
            return literal(tag)
                .filter(|tag| !tag.is_empty())
                .map(|tag| vec![tag]);
        };
        let number = number.strip_suffix(",[0-9,]*}")?;
        let is_number = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
        let table = literal(table).filter(|_| is_number)?;
        return Some(vec![format!("{table}_{number}")]);
    }
    alternatives(expression).map(words)
}
