//! Fastly's purge API: `POST /service/ID/purge/KEY`, `/service/ID/purge`, `/service/ID/purge_all` and
//! `/purge/URL`.

use std::collections::HashSet;

use serde::Deserialize;

use super::answer::AnswerForm;
use super::fields::{self, tagged};
use super::wish::{InvalidPurgeRequest, PurgeTarget, PurgeWish};
use super::{ControlRequest, decoded};
use crate::cache::purge::PurgeKind;

/// The most keys of one request, which is Fastly's own limit.
pub const MAX_KEYS: usize = 256;

const KEYS: &str = "Surrogate-Key";

/// What a path of the API is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FastlyPurge<'a> {
    /// One surrogate key.
    Key(&'a str),
    /// Several keys, in a field or in the body.
    Keys,
    /// Everything of the service.
    All,
    /// One URL, as it is written in the path.
    Url(&'a str),
}

/// A body. Fastly's libraries send one without keys, such as `{}`, where the keys are in the field.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FastlyKeyList {
    surrogate_keys: Option<Vec<String>>,
}

/// Reads a request. `all` is what the service's id stands for.
///
/// # Errors
/// If it is not of that form.
pub fn read(
    request: &ControlRequest<'_>,
    asked: FastlyPurge<'_>,
    all: Vec<PurgeTarget>,
) -> Result<PurgeWish, InvalidPurgeRequest> {
    if asked != FastlyPurge::Keys && request.headers.contains_key(KEYS) {
        let why = "it asks for several things at once: a path and Surrogate-Key";
        return Err(InvalidPurgeRequest::malformed(why));
    }
    if asked != FastlyPurge::Keys && !request.body.trim_ascii().is_empty() {
        let why = "it asks for several things at once: a path, and keys in the body";
        match keys_in_body(request.body)?.is_empty() {
            true => {}
            false => return Err(InvalidPurgeRequest::malformed(why)),
        }
    }
    let (targets, answer) = match asked {
        FastlyPurge::All => (all, AnswerForm::Fastly),
        FastlyPurge::Url(url) => {
            let url = whole_url(url, request.uri.query())?;
            (vec![super::page_of_url(&url)?], AnswerForm::Fastly)
        }
        FastlyPurge::Key(_) if request.uri.query().is_some() => {
            let why = "the key has a question mark; it is expected percent-encoded, as %3F";
            return Err(InvalidPurgeRequest::malformed(why));
        }
        FastlyPurge::Key(key) => (tagged(vec![decoded(key)?], "key")?, AnswerForm::Fastly),
        FastlyPurge::Keys => {
            let keys = keys(request)?;
            if keys.len() > MAX_KEYS {
                return Err(InvalidPurgeRequest::malformed(format!(
                    "{} keys; at most {MAX_KEYS} are taken at once",
                    keys.len()
                )));
            }
            let answer = AnswerForm::FastlyKeys(keys.clone());
            (tagged(keys, "surrogate_keys")?, answer)
        }
    };
    Ok(PurgeWish {
        targets,
        kind: fields::softly(request.headers)?.unwrap_or(PurgeKind::Hard),
        answer,
    })
}

/// The URL that a request names. Some of Fastly's libraries send all of it percent-encoded, so that
/// it has no slash; others as it is.
fn whole_url(path: &str, query: Option<&str>) -> Result<String, InvalidPurgeRequest> {
    match (path.contains('/'), query) {
        (false, None) => decoded(path),
        (_, Some(query)) => Ok(format!("{path}?{query}")),
        (true, None) => Ok(path.to_owned()),
    }
}

/// The keys in the field and in the body; what is in both places is meant once. Fastly reads the
/// field with spaces; with commas, all readings count.
fn keys(request: &ControlRequest<'_>) -> Result<Vec<String>, InvalidPurgeRequest> {
    let is_said = |line: &&str| !line.is_empty();
    let in_field = match fields::lines(request.headers, KEYS)?.iter().any(is_said) {
        true => fields::named_as_in_responses(request.headers, KEYS)?.unwrap_or_default(),
        false => Vec::new(),
    };
    let mut keys = match request.body.is_empty() && !in_field.is_empty() {
        true => Vec::new(),
        false => keys_in_body(request.body)?,
    };
    keys.extend(in_field.into_iter().filter_map(|target| match target {
        PurgeTarget::Tag(key) => Some(key),
        _ => None,
    }));
    let mut seen = HashSet::new();
    keys.retain(|key| seen.insert(key.clone()));
    match keys.is_empty() {
        true => Err(without_keys("there are no keys in it")),
        false => Ok(keys),
    }
}

fn keys_in_body(body: &[u8]) -> Result<Vec<String>, InvalidPurgeRequest> {
    let list: Result<FastlyKeyList, _> = super::object(body);
    let list = list.map_err(|error| without_keys(&error.to_string()))?;
    Ok(list.surrogate_keys.unwrap_or_default())
}

fn without_keys(why: &str) -> InvalidPurgeRequest {
    InvalidPurgeRequest::malformed(format!(
        "there is neither a field Surrogate-Key nor a body of the form {{\"surrogate_keys\": \
         [\"a\", \"b\"]}}: {why}"
    ))
}
