//! The configuration of error pages.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::proxy::rules::config::AnswerFile;

/// How errors are told to clients. Their status stays. Clients that ask for JSON get `application/problem+json` (RFC 9457), the file goes to those that ask for what it is, and all others get one line of text.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ErrorPageConfig {
    /// The statuses, from 400 to 599; empty means all of them.
    pub statuses: Vec<u16>,
    /// Whose errors.
    pub of: ErrorMaker,
    /// A page, of which `{status}`, `{reason}` and `{request_id}` are filled in. Its name says what it is, as in `sorry.html`.
    pub file: Option<AnswerFile>,
}

/// Who has made an error.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ErrorMaker {
    /// The gateway: the origin's answers stay as they are.
    #[default]
    Gateway,
    /// The gateway, the origin or a plugin.
    Any,
}
