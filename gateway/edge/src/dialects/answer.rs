//! Answers to requests to purge, in the form that each client expects.

use std::collections::BTreeMap;

use http::StatusCode;
use serde_json::json;

use super::wish::InvalidPurgeRequest;
use crate::cache::purge::PurgeKind;

/// The number of a message about what a purge may not have reached. Cloudflare has none for it.
const NOTE_OF_CLOUDFLARE: u32 = 1;

/// The form in which the client expects the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnswerForm {
    Text,
    /// Text, and 404 if nothing of it was stored here.
    Nginx,
    /// `{"status": "ok", "id": …}`.
    Fastly,
    /// `{KEY: ID, …}` for these keys.
    FastlyKeys(Vec<String>),
    Cloudflare,
    /// 204 for `PURGE`, 200 for `POST`.
    Souin,
}

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub struct DialectAnswer {
    pub status: StatusCode,
    pub body: String,
    pub media: AnswerMedia,
}

/// What kind of text an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerMedia {
    Text,
    Json,
}

/// What is said about a purge that holds.
#[derive(Debug)]
pub struct PurgeSummary<'a> {
    pub kind: PurgeKind,
    /// The number of the purge in the order of this node.
    pub id: String,
    /// What was reached, one thing a line, and the notes.
    pub lines: &'a str,
    /// What may not have been reached.
    pub notes: &'a [String],
    /// The method of the request.
    pub method: &'a str,
    pub presence: StoredPresence,
}

/// Whether something of what was purged was stored on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredPresence {
    /// It was, or nobody has looked.
    Assumed,
    Absent,
}

impl AnswerForm {
    /// The answer to a purge that holds.
    pub fn done(&self, summary: &PurgeSummary<'_>) -> DialectAnswer {
        let PurgeSummary { id, lines, .. } = summary;
        match self {
            Self::Text => text(StatusCode::OK, format!("{}\n{lines}", summary.word())),
            Self::Nginx => match summary.presence {
                StoredPresence::Assumed => {
                    text(StatusCode::OK, format!("{}\n{lines}", summary.word()))
                }
                StoredPresence::Absent => text(
                    StatusCode::NOT_FOUND,
                    format!("404 nothing of this was stored here\n{lines}"),
                ),
            },
            Self::Fastly => json(StatusCode::OK, &json!({"status": "ok", "id": id})),
            Self::FastlyKeys(keys) => {
                let ids: BTreeMap<&str, &str> =
                    keys.iter().map(|key| (key.as_str(), id.as_str())).collect();
                json(StatusCode::OK, &json!(ids))
            }
            Self::Cloudflare => {
                let notes = summary.notes.iter();
                let messages: Vec<_> = notes
                    .map(|note| json!({"code": NOTE_OF_CLOUDFLARE, "message": note}))
                    .collect();
                let body = json!({
                    "success": true, "errors": [], "messages": messages, "result": {"id": id},
                });
                json(StatusCode::OK, &body)
            }
            Self::Souin => match summary.method {
                "POST" => text(StatusCode::OK, String::new()),
                _ => text(StatusCode::NO_CONTENT, String::new()),
            },
        }
    }

    /// The answer to a request for which nothing is purged.
    pub fn refused(&self, refused: &InvalidPurgeRequest, accepted: &str) -> DialectAnswer {
        let InvalidPurgeRequest { status, why } = refused;
        match self {
            Self::Text | Self::Nginx | Self::Souin => {
                let code = status.as_u16();
                let accepted = match accepted {
                    "" => String::new(),
                    all => format!("; accepted are: {all}"),
                };
                text(
                    *status,
                    format!("{code} nothing was purged: {why}{accepted}\n"),
                )
            }
            Self::Fastly | Self::FastlyKeys(_) => {
                let detail = format!("nothing was purged: {why}");
                json(*status, &json!({"msg": "Bad request", "detail": detail}))
            }
            Self::Cloudflare => {
                let error = json!({"code": 1012, "message": format!("nothing was purged: {why}")});
                let body =
                    json!({"success": false, "errors": [error], "messages": [], "result": null});
                json(*status, &body)
            }
        }
    }
}

impl PurgeSummary<'_> {
    fn word(&self) -> &'static str {
        match self.kind {
            PurgeKind::Hard => "purged",
            PurgeKind::Soft => "purged softly",
        }
    }
}

fn text(status: StatusCode, body: String) -> DialectAnswer {
    DialectAnswer {
        status,
        body,
        media: AnswerMedia::Text,
    }
}

fn json(status: StatusCode, body: &serde_json::Value) -> DialectAnswer {
    DialectAnswer {
        status,
        body: body.to_string(),
        media: AnswerMedia::Json,
    }
}
