//! API Platform's `BAN` with `ApiPlatform-Ban-Regex`.

use super::expression::{alternatives, between, in_parentheses};
use super::fields::{self, malformed, tagged, words};
use super::{ControlRequest, DialectReading, PurgeScope};

pub const ACCEPTS: &str = "BAN with `ApiPlatform-Ban-Regex: (TAG|…)($|\\,)`, `(^|\\,)TAG($|\\,)` or \
                           several of the latter in parentheses";

pub const FIELDS: &[&str] = &["apiplatform-ban-regex"];

/// Reads such a request.
pub fn read(request: &ControlRequest<'_>) -> DialectReading {
    const NAME: &str = "ApiPlatform-Ban-Regex";
    if request.method != "BAN" {
        return Ok(None);
    }
    let Some(text) = fields::single(request.headers, NAME)? else {
        return Ok(None);
    };
    let several = || in_parentheses(text, "(^|\\,)", "($|\\,)");
    let single = || alternatives(between(text, "(^|\\,)", "($|\\,)")?).filter(|t| t.len() == 1);
    let newer = || alternatives(between(text, "(", ")($|\\,)")?);
    match several().or_else(single).or_else(newer) {
        Some(tags) => Ok(Some(PurgeScope::of(tagged(words(tags), NAME)?))),
        None => Err(malformed(NAME, "is of another form")),
    }
}
