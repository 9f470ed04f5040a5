//! The configuration of what a route does to header fields.

use std::collections::BTreeMap;

use http::header::{
    AGE, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, HOST, IF_MATCH, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE, TRAILER, VIA,
};
use http::{HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::http::field_value;
use crate::http::forward;
use crate::proxy::config::OneOrMany;
use crate::proxy::rules::template::{TemplatePiece, TextTemplate};

/// What is done to header fields: as the origin gets a request, and as an answer goes out.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HeaderRulesConfig {
    /// Fields of a request, as the origin gets it. The cache key and `Vary` go by the client's request.
    pub request: HeaderChangesConfig,
    /// Fields of an answer, as it goes out; those of stored answers as well. What is stored does not change, so another value shows at once after a reload.
    pub response: HeaderChangesConfig,
}

/// Changes of header fields: first `remove`, then `set`, then `add`. Values may hold `{host}`, `{path}`, `{path.N}` (the Nth segment), `{query}`, `{header.NAME}` (of the request), `{client}`, `{request_id}`, `{route}` and `{scheme}`; `{{` is a brace.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HeaderChangesConfig {
    /// Names of fields that are taken away.
    pub remove: Vec<String>,
    /// Fields with their only value. A value that comes out empty takes the field away.
    pub set: BTreeMap<String, String>,
    /// Lines that are added to those that are there: a value, or a list of values.
    pub add: BTreeMap<String, OneOrMany>,
}

/// Whose fields are changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChangedMessage {
    Request,
    Response,
}

/// Fields that no rule may touch, since they say how a message is framed, where it is from, or what
/// the cache has done.
static UNTOUCHABLE: [HeaderName; 7] = [
    CONTENT_LENGTH,
    HOST,
    AGE,
    HeaderName::from_static("cache-status"),
    VIA,
    TRAILER,
    HeaderName::from_static("cdn-loop"),
];

/// Fields of requests that say which part of an answer is wanted. The cache asks by its own.
static SELECTING: [HeaderName; 6] = [
    RANGE,
    IF_RANGE,
    IF_MATCH,
    IF_NONE_MATCH,
    IF_MODIFIED_SINCE,
    IF_UNMODIFIED_SINCE,
];

/// Fields of answers without which their content can't be read.
static READING: [HeaderName; 2] = [CONTENT_ENCODING, CONTENT_RANGE];

/// Checks that a rule may touch the field `name`.
///
/// # Errors
/// Why it may not, for the operator.
pub fn touchable(name: &str, of: ChangedMessage) -> Result<(), String> {
    let Ok(name) = name.parse::<HeaderName>() else {
        return Err(format!(
            "{name:?} is not a header name; expected letters, digits and `-`, as in x-robots-tag"
        ));
    };
    if forward::is_hop_by_hop(&name) {
        return Err(format!(
            "{name} is for one connection only, so that the gateway sets it itself; expected \
             another field"
        ));
    }
    let also: &[HeaderName] = match of {
        ChangedMessage::Request => &SELECTING,
        ChangedMessage::Response => &READING,
    };
    if UNTOUCHABLE.contains(&name) || also.contains(&name) || name == "expect" {
        return Err(format!(
            "{name} is set by the gateway alone; expected another field"
        ));
    }
    Ok(())
}

/// Whether a request poses as another by a field of this name, as by one that tells a client's address.
pub fn is_posing(name: &str) -> bool {
    name.parse().is_ok_and(|name| forward::is_posing(&name))
}

/// The value of a field with this text. None: it is not one line of text.
pub fn value_of_a_line(text: &str) -> Option<HeaderValue> {
    field_value::of_text(text.as_bytes()).ok()
}

/// Checks the template of a value.
///
/// # Errors
/// What is wrong with it, for the operator.
pub fn value(text: &str) -> Result<(), String> {
    let template = TextTemplate::parse(text)?;
    if template.fixed().is_some_and(|text| text.trim().is_empty()) {
        return Err("empty; expected a value, or the name in `remove`".to_owned());
    }
    let is_good = |piece: &TemplatePiece| match piece {
        TemplatePiece::Text(text) => value_of_a_line(text).is_some(),
        _ => true,
    };
    match template.pieces().iter().all(is_good) {
        true => Ok(()),
        false => Err(format!(
            "{text:?} has a line break or another control character; expected one line"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_the_message_itself_cannot_be_touched() {
        for name in [
            "Connection",
            "te",
            "Transfer_Encoding",
            "content-length",
            "HOST",
            "age",
            "cache-status",
            "via",
            "trailer",
            "cdn-loop",
            "upgrade",
            "keep-alive",
            "proxy-authorization",
            "expect",
            "no name",
            "",
        ] {
            for of in [ChangedMessage::Request, ChangedMessage::Response] {
                assert!(touchable(name, of).is_err(), "{name}");
            }
        }
        assert!(touchable("range", ChangedMessage::Request).is_err());
        assert!(touchable("content-encoding", ChangedMessage::Response).is_err());
        for name in [
            "cache-control",
            "server",
            "x-env",
            "set-cookie",
            "etag",
            "vary",
        ] {
            assert_eq!(touchable(name, ChangedMessage::Response), Ok(()), "{name}");
        }
    }

    #[test]
    fn a_value_is_one_line() {
        for bad in [
            "",
            " \t",
            "a\nb",
            "a\r\nset-cookie: x",
            "\0",
            "{nothing}",
            "{host",
        ] {
            assert!(value(bad).is_err(), "{bad:?}");
        }
        for good in ["a", "é", "{host}", "a\tb", "{{}}"] {
            assert_eq!(value(good), Ok(()), "{good:?}");
        }
    }
}
