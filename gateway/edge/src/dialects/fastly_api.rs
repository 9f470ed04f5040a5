//! Fastly's purge API: `POST /service/ID/purge/KEY`, `/service/ID/purge`, `/service/ID/purge_all` and
//! `/purge/URL`.

use serde::Deserialize;

use super::answer::AnswerForm;
use super::fields::{self, tagged};
use super::wish::{InvalidPurgeRequest, PurgeTarget, PurgeWish};
use super::{ControlRequest, decoded};
use crate::cache::purge::PurgeKind;

/// The most keys of one request, which is Fastly's own limit.
pub const MAX_KEYS: usize = 256;

/// What a path of the API is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FastlyPurge<'a> {
    /// One surrogate key.
    Key(&'a str),
    /// Several keys, in a field or in the body.
    Keys,
    /// Everything of the service.
    All,
    /// One URL.
    Url(&'a str),
}

/// The keys in a body.
#[derive(Deserialize)]
struct FastlyKeyList {
    surrogate_keys: Vec<String>,
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
    let (targets, answer) = match asked {
        FastlyPurge::All => (all, AnswerForm::Fastly),
        FastlyPurge::Url(url) => {
            let url = decoded(url)?;
            (vec![super::page_of_url(&url)?], AnswerForm::Fastly)
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

fn keys(request: &ControlRequest<'_>) -> Result<Vec<String>, InvalidPurgeRequest> {
    let in_field = fields::text(request.headers, "Surrogate-Key")?;
    match (in_field, request.body.is_empty()) {
        (Some(_), false) => Err(InvalidPurgeRequest::malformed(
            "there are keys in Surrogate-Key, and a body; one of both is expected",
        )),
        (Some(text), true) => Ok(text.split_ascii_whitespace().map(str::to_owned).collect()),
        (None, _) => {
            let list: Result<FastlyKeyList, _> = serde_json::from_slice(request.body);
            let list = list.map_err(|error| {
                InvalidPurgeRequest::malformed(format!(
                    "there is neither a field Surrogate-Key nor a body of the form \
                     {{\"surrogate_keys\": [\"a\", \"b\"]}}: {error}"
                ))
            })?;
            Ok(list.surrogate_keys)
        }
    }
}
