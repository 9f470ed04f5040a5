//! Souin's API, which API Platform's `SouinPurger` and Caddy's cache handler speak: `PURGE` below
//! `/souin-api/souin`, and `POST` of JSON there.

use serde::Deserialize;

use super::answer::AnswerForm;
use super::expression::{as_written, literal};
use super::fields::{self, tagged};
use super::host::is_host;
use super::wish::{InvalidPurgeRequest, PurgeTarget, PurgeWish, TargetHosts};
use super::{ControlRequest, PurgeScope};
use crate::cache::purge::PurgeKind;

pub const ACCEPTS: &str = "PURGE of /souin-api/souin/ with tags in Surrogate-Key, of \
     /souin-api/souin/flush, of /souin-api/souin/.+ and of /souin-api/souin/GET-SCHEME-HOST-PATH";

/// Where the API is.
pub const PLACE: &str = "/souin-api/souin";

pub const FIELDS: &[&str] = &["surrogate-key"];

/// A `POST`, in the form of the draft on HTTP invalidation.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SouinInvalidation {
    #[serde(rename = "type")]
    kind: SouinInvalidationKind,
    #[serde(default)]
    selectors: Vec<String>,
    #[serde(default)]
    groups: Vec<String>,
    /// Whether what is reached must not be used any more; otherwise it is stale.
    #[serde(default)]
    purge: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum SouinInvalidationKind {
    Uri,
    UriPrefix,
    Origin,
    Group,
}

/// Whether a path belongs to the API.
pub fn is_its_path(path: &str) -> bool {
    let rest = path.strip_prefix(PLACE);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Reads a `PURGE`. None if the path is another one.
pub(super) fn read(
    request: &ControlRequest<'_>,
) -> Option<Result<PurgeScope, InvalidPurgeRequest>> {
    let target = request.target();
    let rest = target.strip_prefix(PLACE)?;
    if !rest.is_empty() && !rest.starts_with('/') {
        return None;
    }
    Some(purge(request, rest.trim_start_matches('/')))
}

/// Reads a `PURGE` whose path is that of the API.
///
/// # Errors
/// If it is not of a known form.
pub fn read_purge(request: &ControlRequest<'_>) -> Result<PurgeWish, InvalidPurgeRequest> {
    let unknown = || InvalidPurgeRequest::unknown("the path is another one");
    let scope = read(request).ok_or_else(unknown)??;
    Ok(PurgeWish {
        targets: scope.targets,
        kind: fields::softly(request.headers)?.unwrap_or(PurgeKind::Hard),
        answer: AnswerForm::Souin,
    })
}

fn purge(request: &ControlRequest<'_>, rest: &str) -> Result<PurgeScope, InvalidPurgeRequest> {
    if request.method != "PURGE" {
        let why = "the API of Souin takes PURGE here; POST of JSON goes to the admin listener, and \
                   keys are not listed";
        return Err(InvalidPurgeRequest::unknown(why));
    }
    let keys = fields::named_as_in_responses(request.headers, "Surrogate-Key")?;
    let targets = match (rest, keys) {
        ("", Some(tags)) => tags,
        ("", None) => {
            let why = "there is neither a key in the path nor a field Surrogate-Key";
            return Err(InvalidPurgeRequest::malformed(why));
        }
        (_, Some(_)) => {
            let why = "it asks for several things at once: a path and Surrogate-Key";
            return Err(InvalidPurgeRequest::malformed(why));
        }
        ("flush" | ".*" | ".+", None) => vec![PurgeTarget::Everything],
        (key, None) => of_key(&as_written(key)).ok_or_else(|| {
            InvalidPurgeRequest::malformed(
                "the expression is neither `.+` nor `GET-SCHEME-HOST-PATH`, which may end in `.*`",
            )
        })?,
    };
    Ok(PurgeScope::of(targets))
}

/// The page of a key of Souin's, as `GET-https-shop.example-/path`, and what else it may mean.
fn of_key(key: &str) -> Option<Vec<PurgeTarget>> {
    let key = key.strip_prefix('^').unwrap_or(key);
    let key = key.strip_prefix("GET-")?;
    let rest = key.strip_prefix("http-").or(key.strip_prefix("https-"))?;
    let (host, path) = rest.split_once("-/")?;
    let host = literal(host).filter(|host| is_host(host))?;
    let path = format!("/{path}");
    let path = path.strip_suffix('$').unwrap_or(&path);
    let open = [".*", ".+"].iter().find_map(|all| path.strip_suffix(all));
    let hosts = || TargetHosts::One(host.clone());
    if let Some(beginning) = open {
        return Some(vec![PurgeTarget::Beginning(hosts(), literal(beginning)?)]);
    }
    // In a plain key, `?` begins the query.
    if let Some(path) = literal(&path.replace('?', "\\?")) {
        return Some(vec![PurgeTarget::Page(hosts(), path)]);
    }
    // A key as Souin lists it is no expression, and some pages have such letters in their names.
    let is_expression = [".*", ".+"].iter().any(|any| path.contains(any))
        || path.contains(['\\', '[', ']', '|', '^', '{', '}', '$']);
    (!is_expression).then(|| {
        let page = PurgeTarget::Page(hosts(), path.to_owned());
        let as_wildcard = path.contains('*');
        let pattern = as_wildcard.then(|| PurgeTarget::Pattern(hosts(), path.to_owned()));
        std::iter::once(page).chain(pattern).collect()
    })
}

/// Reads a `POST`.
///
/// # Errors
/// If it is not of that form.
pub fn read_post(request: &ControlRequest<'_>) -> Result<PurgeWish, InvalidPurgeRequest> {
    if request.uri.path().trim_end_matches('/') != PLACE {
        let why = format!("JSON is taken at {PLACE}/ alone");
        return Err(InvalidPurgeRequest::unknown(why));
    }
    let asked: SouinInvalidation = super::object(request.body).map_err(|error| {
        InvalidPurgeRequest::malformed(format!(
            "the body is not {{\"type\": \"uri\", \"uri-prefix\", \"origin\" or \"group\", \
             \"selectors\": [], \"groups\": [], \"purge\": true}}: {error}"
        ))
    })?;
    let (named, beside) = match asked.kind {
        SouinInvalidationKind::Group => (&asked.groups, &asked.selectors),
        _ => (&asked.selectors, &asked.groups),
    };
    if named.is_empty() || !beside.is_empty() {
        let why = "there is no selector, or no group for the type `group`, or both are there";
        return Err(InvalidPurgeRequest::malformed(why));
    }
    let targets: Result<Vec<PurgeTarget>, _> = match asked.kind {
        SouinInvalidationKind::Group => tagged(named.clone(), "groups"),
        SouinInvalidationKind::Uri => named.iter().map(|url| super::page_of_url(url)).collect(),
        SouinInvalidationKind::UriPrefix => {
            named.iter().map(|url| super::prefix_of_url(url)).collect()
        }
        SouinInvalidationKind::Origin => named.iter().map(|url| origin(url)).collect(),
    };
    Ok(PurgeWish {
        targets: targets?,
        kind: match asked.purge {
            true => PurgeKind::Hard,
            false => PurgeKind::Soft,
        },
        answer: AnswerForm::Souin,
    })
}

fn origin(url: &str) -> Result<PurgeTarget, InvalidPurgeRequest> {
    match super::prefix_of_url(url)? {
        PurgeTarget::Beginning(hosts, _) => Ok(PurgeTarget::Beginning(hosts, "/".to_owned())),
        other => Ok(other),
    }
}
