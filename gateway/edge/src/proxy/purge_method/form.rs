//! What a purge request asks for, in the forms that applications send.
//!
//! A form is either understood as a whole or refused with a reason: no request is answered as done
//! if only a part of it was understood. Regular expressions are never run. Those that clients send
//! are of a few fixed kinds, and these are read as the list or the prefix that they stand for.

use std::fmt;

use http::request::Parts;
use http::{HeaderMap, StatusCode};

use crate::cache::purge::PurgeKind;
use crate::cache::tags::MAX_TAG_BYTES;

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub struct RequestedPurge {
    pub reach: PurgeMethodScope,
    pub kind: PurgeKind,
    pub answer: AnswerForm,
}

/// What a purge must reach.
#[derive(Debug, PartialEq, Eq)]
pub enum PurgeMethodScope {
    /// The URL of the request.
    Url,
    /// All URLs of its host whose path begins with this text.
    Beginning(String),
    Tags(Vec<String>),
    Everything,
}

/// The form in which the client expects the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerForm {
    Text,
    /// `{"status": "ok", "id": …}`, for clients that speak Fastly's protocol.
    Fastly,
}

/// Why nothing is purged.
#[derive(Debug, PartialEq, Eq)]
pub struct InvalidPurgeRequest {
    pub status: StatusCode,
    why: String,
}

/// Methods other than `PURGE` that command caches. If purging is on, no application gets them: one
/// that answers 200 to an unknown method has purged nothing.
const OTHER_METHODS: [&str; 9] = [
    "BAN",
    "BANURL",
    "FULLBAN",
    "PURGEALL",
    "PURGEKEYS",
    "PURGETAGS",
    "REFRESH",
    "SOFTPURGE",
    "URIBAN",
];

/// Fields that name tags, separated by spaces or commas, and whether they ask for a soft purge.
const TAGS: [(&str, PurgeKind); 5] = [
    ("xkey", PurgeKind::Hard),
    ("xkey-purge", PurgeKind::Hard),
    ("xkey-softpurge", PurgeKind::Soft),
    ("surrogate-key", PurgeKind::Hard),
    ("cache-tag", PurgeKind::Hard),
];

/// Fields that tell other caches what to purge, in forms that are not supported here.
const OTHER_FIELDS: [&str; 13] = [
    "apiplatform-ban-regex",
    "cache-tags",
    "purge-cache-tags",
    "x-acquia-purge",
    "x-acquia-purge-tags",
    "x-ban-host",
    "x-ban-url",
    "x-cache-tags",
    "x-content-type",
    "x-host",
    "x-purge-regex",
    "x-tag-purge",
    "x-url",
];

/// The most bytes of a prefix to purge, since other nodes get it, too.
const LONGEST_BEGINNING: usize = 8 << 10;

const ACCEPTED: &str = "accepted are: PURGE with a URL; `X-Purge-Method: regex` with a path that \
    ends in `.*`; tags in xkey, xkey-purge, xkey-softpurge, Surrogate-Key or Cache-Tag; \
    `X-Magento-Tags-Pattern: ((^|,)TAG(,|$))|…` or `.*`; `Clear-Cache: true`; softly with \
    `X-Purge: soft` or `Fastly-Soft-Purge: 1`; all else over the admin API";

impl fmt::Display for InvalidPurgeRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.status.as_u16();
        writeln!(f, "{status} nothing was purged: {}; {ACCEPTED}", self.why)
    }
}

/// Whether this method commands a cache, in upper or lower case.
pub fn is_control(method: &str) -> bool {
    let is = |known: &&str| known.eq_ignore_ascii_case(method);
    is(&"PURGE") || OTHER_METHODS.iter().any(is)
}

/// Reads a request with such a method.
///
/// # Errors
/// If its form is not known.
pub fn read(parts: &Parts) -> Result<RequestedPurge, InvalidPurgeRequest> {
    let (method, headers) = (parts.method.as_str(), &parts.headers);
    if method != "PURGE" {
        let why = format!("the method {method} is not known here");
        return Err(refused(StatusCode::NOT_IMPLEMENTED, why));
    }
    if let Some(field) = OTHER_FIELDS.iter().find(|f| headers.contains_key(**f)) {
        let why = format!("the field {field} is not known here");
        return Err(refused(StatusCode::NOT_IMPLEMENTED, why));
    }
    let mut found = Vec::new();
    for (field, kind) in TAGS {
        found.extend(tags(headers, field)?.map(|tags| (PurgeMethodScope::Tags(tags), kind)));
    }
    found.extend(magento(headers)?.map(|reach| (reach, PurgeKind::Hard)));
    found.extend(clear_cache(headers)?.map(|reach| (reach, PurgeKind::Hard)));
    found.extend(regex(parts)?.map(|reach| (reach, PurgeKind::Hard)));
    let (reach, kind) = match found.len() {
        0 => (url(parts)?, PurgeKind::Hard),
        1 => found.remove(0),
        _ => return Err(bad("it asks for several things at once")),
    };
    Ok(RequestedPurge {
        reach,
        kind: softly(headers)?.unwrap_or(kind),
        answer: answer(headers),
    })
}

fn refused(status: StatusCode, why: String) -> InvalidPurgeRequest {
    InvalidPurgeRequest { status, why }
}

fn bad(why: impl Into<String>) -> InvalidPurgeRequest {
    refused(StatusCode::BAD_REQUEST, why.into())
}

/// The text of a field, with its lines joined.
fn field(headers: &HeaderMap, name: &str) -> Result<Option<String>, InvalidPurgeRequest> {
    let lines: Result<Vec<&str>, _> = headers.get_all(name).iter().map(|l| l.to_str()).collect();
    let lines = lines.map_err(|_| bad(format!("the field {name} is not text")))?;
    Ok((!lines.is_empty()).then(|| lines.join(",").trim().to_owned()))
}

fn tags(headers: &HeaderMap, name: &str) -> Result<Option<Vec<String>>, InvalidPurgeRequest> {
    let Some(text) = field(headers, name)? else {
        return Ok(None);
    };
    let between = |c: char| c == ',' || c.is_ascii_whitespace();
    let tags: Vec<String> = text.split(between).map(str::to_owned).collect();
    let tags: Vec<String> = tags.into_iter().filter(|tag| !tag.is_empty()).collect();
    match tags.is_empty() {
        true => Err(bad(format!("the field {name} names no tag"))),
        false => named(tags).map(Some),
    }
}

/// Checks that entries can have these tags.
fn named(tags: Vec<String>) -> Result<Vec<String>, InvalidPurgeRequest> {
    match tags.iter().all(|tag| tag.len() <= MAX_TAG_BYTES) {
        true => Ok(tags),
        false => Err(bad(format!("a tag has more than {MAX_TAG_BYTES} bytes"))),
    }
}

/// `.*`, or `((^|,)TAG(,|$))` joined by `|`.
fn magento(headers: &HeaderMap) -> Result<Option<PurgeMethodScope>, InvalidPurgeRequest> {
    const NAME: &str = "x-magento-tags-pattern";
    let Some(text) = field(headers, NAME)? else {
        return Ok(None);
    };
    if text == ".*" {
        return Ok(Some(PurgeMethodScope::Everything));
    }
    let one = |alternative: &str| {
        let tag = alternative.strip_prefix("((^|,)")?.strip_suffix("(,|$))")?;
        literal(tag).filter(|tag| !tag.is_empty() && !tag.contains(','))
    };
    let alternatives = text.split(")|(").enumerate();
    let count = text.matches(")|(").count();
    // Splitting at `)|(` removed the parentheses on both sides of `|`.
    let whole = alternatives.map(|(n, part)| match (n > 0, n < count) {
        (false, false) => part.to_owned(),
        (false, true) => format!("{part})"),
        (true, false) => format!("({part}"),
        (true, true) => format!("({part})"),
    });
    let tags: Option<Vec<String>> = whole.map(|alternative| one(&alternative)).collect();
    match tags {
        Some(tags) => named(tags).map(|tags| Some(PurgeMethodScope::Tags(tags))),
        None => Err(bad(format!("the pattern in {NAME} is of another form"))),
    }
}

fn clear_cache(headers: &HeaderMap) -> Result<Option<PurgeMethodScope>, InvalidPurgeRequest> {
    match field(headers, "clear-cache")?.as_deref() {
        None => Ok(None),
        Some("true") => Ok(Some(PurgeMethodScope::Everything)),
        Some(_) => Err(bad("Clear-Cache is not `true`")),
    }
}

/// `X-Purge-Method: regex`: the caches that define it read the path as a prefix.
fn regex(parts: &Parts) -> Result<Option<PurgeMethodScope>, InvalidPurgeRequest> {
    match field(&parts.headers, "x-purge-method")?.as_deref() {
        None | Some("default" | "exact" | "single" | "url") => Ok(None),
        Some("regex") => beginning(parts).map(Some),
        Some(_) => Err(bad(
            "X-Purge-Method is neither `regex` nor `default` nor `exact`",
        )),
    }
}

fn beginning(parts: &Parts) -> Result<PurgeMethodScope, InvalidPurgeRequest> {
    let path = parts.uri.path();
    if path.len() > LONGEST_BEGINNING {
        return Err(bad(format!(
            "the beginning of a path has more than {LONGEST_BEGINNING} bytes"
        )));
    }
    let path = path.strip_suffix('$').unwrap_or(path);
    let begins = [".*", "(.*)"]
        .into_iter()
        .find_map(|all| path.strip_suffix(all));
    let begins = literal(begins.unwrap_or(path)).filter(|_| parts.uri.query().is_none());
    begins
        .map(PurgeMethodScope::Beginning)
        .ok_or_else(|| bad("the regular expression is not the beginning of a path"))
}

/// The URL as it is; with a wildcard at its end, all URLs that begin with it, including itself.
fn url(parts: &Parts) -> Result<PurgeMethodScope, InvalidPurgeRequest> {
    let path = parts.uri.path();
    match (path.contains('*'), parts.uri.query()) {
        (false, _) => Ok(PurgeMethodScope::Url),
        (true, None) if path.ends_with(".*") || path.ends_with("(.*)") => beginning(parts),
        (true, None) => {
            let begins = path.strip_suffix('*').and_then(literal);
            let begins = begins.filter(|path| path.len() <= LONGEST_BEGINNING);
            let begins = begins.map(PurgeMethodScope::Beginning);
            begins.ok_or_else(|| {
                bad("the path has a wildcard, and not at its end alone, or is too long")
            })
        }
        (true, Some(_)) => Err(bad("the path has a wildcard, and the URL a query")),
    }
}

/// The one text that a regular expression stands for. An unescaped dot counts as a dot. None if it
/// may match several texts.
fn literal(expression: &str) -> Option<String> {
    let mut text = String::with_capacity(expression.len());
    let mut letters = expression.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => text.push(
                letters
                    .next()
                    .filter(|next| !next.is_ascii_alphanumeric())?,
            ),
            '*' | '+' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '|' | '^' | '$' => return None,
            _ => text.push(letter),
        }
    }
    Some(text)
}

/// Whether the request asks for a soft or a hard purge. None if it does not say.
fn softly(headers: &HeaderMap) -> Result<Option<PurgeKind>, InvalidPurgeRequest> {
    let ours = match field(headers, "x-purge")?.as_deref() {
        None => None,
        Some(word) if word.eq_ignore_ascii_case("soft") => Some(PurgeKind::Soft),
        Some(word) if word.eq_ignore_ascii_case("hard") => Some(PurgeKind::Hard),
        Some(_) => return Err(bad("X-Purge is neither `soft` nor `hard`")),
    };
    let fastly = match field(headers, "fastly-soft-purge")?.as_deref() {
        None => None,
        Some("1" | "true") => Some(PurgeKind::Soft),
        Some("0" | "false") => Some(PurgeKind::Hard),
        Some(_) => return Err(bad("Fastly-Soft-Purge is neither `1` nor `0`")),
    };
    match (ours, fastly) {
        (Some(one), Some(other)) if one != other => {
            Err(bad("X-Purge and Fastly-Soft-Purge differ"))
        }
        (one, other) => Ok(one.or(other)),
    }
}

fn answer(headers: &HeaderMap) -> AnswerForm {
    let fastly = ["fastly-key", "fastly-soft-purge"];
    match fastly.iter().any(|name| headers.contains_key(*name)) {
        true => AnswerForm::Fastly,
        false => AnswerForm::Text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
    ) -> Result<RequestedPurge, InvalidPurgeRequest> {
        let request = http::Request::builder().method(method).uri(path);
        let request = fields.iter().fold(request, |r, (n, v)| r.header(*n, *v));
        read(&request.body(()).unwrap().into_parts().0)
    }

    fn reach(path: &str, fields: &[(&str, &str)]) -> Option<PurgeMethodScope> {
        asked("PURGE", path, fields).ok().map(|wanted| wanted.reach)
    }

    fn of_tags(names: &[&str]) -> Option<PurgeMethodScope> {
        let names = names.iter().map(|name| (*name).to_owned());
        Some(PurgeMethodScope::Tags(names.collect()))
    }

    fn of_beginning(path: &str) -> Option<PurgeMethodScope> {
        Some(PurgeMethodScope::Beginning(path.to_owned()))
    }

    #[test]
    fn a_path_is_a_url_or_a_beginning() {
        let regex = [("x-purge-method", "regex")];
        assert_eq!(reach("/a.html?x=1", &[]), Some(PurgeMethodScope::Url));
        assert_eq!(
            reach("/a", &[("x-purge-method", "default")]),
            Some(PurgeMethodScope::Url)
        );
        assert_eq!(reach("/.*", &regex), of_beginning("/"));
        assert_eq!(reach("/.*", &[]), of_beginning("/"));
        assert_eq!(reach("/news/(.*)$", &regex), of_beginning("/news/"));
        assert_eq!(reach("/feed/", &regex), of_beginning("/feed/"));
        assert_eq!(reach("/img/*", &[]), of_beginning("/img/"));
        for path in ["/a(b|c).*", "/a?x=.*", "/[0-9]+", "/a.*b"] {
            assert_eq!(reach(path, &regex), None, "{path}");
        }
        for path in ["/a*b", "/a.*b", "/a*?x=1"] {
            assert_eq!(reach(path, &[]), None, "{path}");
        }
        assert_eq!(reach("/", &[("x-purge-method", "fuzzy")]), None);
    }

    #[test]
    fn tags_come_in_the_forms_of_xkey_fastly_and_magento() {
        assert_eq!(reach("/", &[("xkey", "a b")]), of_tags(&["a", "b"]));
        assert_eq!(reach("/", &[("xkey-purge", "a, b")]), of_tags(&["a", "b"]));
        assert_eq!(
            reach("/", &[("surrogate-key", "a b")]),
            of_tags(&["a", "b"])
        );
        let magento = |pattern| reach("/", &[("x-magento-tags-pattern", pattern), ("x-pool", "p")]);
        assert_eq!(magento("((^|,)cat_p_5(,|$))"), of_tags(&["cat_p_5"]));
        let several = "((^|,)cat_c_1(,|$))|((^|,)cat\\.p(,|$))|((^|,)cms-1(,|$))";
        assert_eq!(magento(several), of_tags(&["cat_c_1", "cat.p", "cms-1"]));
        assert_eq!(magento(".*"), Some(PurgeMethodScope::Everything));
        for odd in [
            "",
            "cat_p_5",
            "((^|,)cat_.*(,|$))",
            "((^|,)(,|$))",
            "((^|,)a(,|$))|b",
        ] {
            assert_eq!(magento(odd), None, "{odd}");
        }
        assert_eq!(reach("/", &[("xkey", " ")]), None);
        assert_eq!(
            reach("/", &[("clear-cache", "true")]),
            Some(PurgeMethodScope::Everything)
        );
        let two = [("xkey", "a"), ("clear-cache", "true")];
        assert_eq!(reach("/", &two), None);
    }

    #[test]
    fn other_methods_and_fields_are_refused_by_name() {
        for method in ["BAN", "ban", "PURGEKEYS", "URIBAN", "purge"] {
            assert!(is_control(method));
            let refused = asked(method, "/", &[]).unwrap_err();
            assert_eq!(refused.status, StatusCode::NOT_IMPLEMENTED);
            assert!(refused.to_string().contains(method), "{refused}");
        }
        for field in OTHER_FIELDS {
            let refused = asked("PURGE", "/", &[(field, "x")]).unwrap_err();
            assert!(refused.to_string().contains(field), "{refused}");
        }
        assert!(!is_control("POST") && !is_control("PROPFIND"));
    }

    #[test]
    fn a_purge_is_soft_in_three_ways_and_odd_words_are_refused() {
        fn kind(fields: &[(&str, &str)]) -> Option<PurgeKind> {
            asked("PURGE", "/", fields).map(|wanted| wanted.kind).ok()
        }
        assert_eq!(kind(&[]), Some(PurgeKind::Hard));
        for fields in [
            [("x-purge", "Soft")],
            [("fastly-soft-purge", "1")],
            [("xkey-softpurge", "a")],
        ] {
            assert_eq!(kind(&fields), Some(PurgeKind::Soft), "{fields:?}");
        }
        assert_eq!(kind(&[("x-purge", "gentle")]), None);
        assert_eq!(
            kind(&[("x-purge", "hard"), ("fastly-soft-purge", "1")]),
            None
        );
    }
}
