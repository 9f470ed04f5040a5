//! The configuration of rewrites.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::http::path;
use crate::proxy::rules::template::{TemplatePiece, TextTemplate};

/// What the origin is asked for in place of the client's path. Key, purges by URL, logs and plugins go by the client's; the query goes along.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RewriteConfig {
    /// The beginning of the path that the origin does not get, in whole segments, as in `/api`. The origin gets it as `X-Forwarded-Prefix`.
    pub strip_prefix: Option<String>,
    /// What is put before the path, after `strip_prefix`, as in `/v2`.
    pub add_prefix: Option<String>,
    /// The whole path, in place of these two, as in `/items/{path.2}`; `{host}`, `{path}`, `{path.N}`, `{route}` and `{scheme}` are filled in.
    pub path: Option<String>,
    /// What becomes of `Location` and `Content-Location` that point to where the rewrite leads.
    pub locations: LocationRewrite,
}

/// What becomes of `Location` and `Content-Location`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LocationRewrite {
    /// They point to where a client finds it.
    #[default]
    Back,
    /// They stay as the origin sends them.
    Keep,
}

/// Checks a prefix.
///
/// # Errors
/// What is wrong with it, for the operator.
pub fn prefix(text: &str) -> Result<(), String> {
    let is_plain = !text.contains(['?', '#', '%', ';', '\\', '{', '}']) && !text.contains("//");
    match text.len() > 1
        && text.starts_with('/')
        && !text.ends_with('/')
        && is_plain
        && path::normal(text) == text
    {
        true => Ok(()),
        false => Err(format!(
            "{text:?} is not the beginning of a path; expected whole segments without a slash at \
             the end, as in /api/v2"
        )),
    }
}

/// Checks the template of a path.
///
/// # Errors
/// What is wrong with it, for the operator.
pub fn template(text: &str) -> Result<(), String> {
    let template = TextTemplate::parse(text)?;
    let begins = match template.pieces().first() {
        Some(TemplatePiece::Text(text)) => text.starts_with('/') && !text.starts_with("//"),
        Some(TemplatePiece::Path) => true,
        _ => false,
    };
    if !begins {
        return Err(format!(
            "{text:?} is not a path; expected one, as in /items/{{path.2}}"
        ));
    }
    for piece in template.pieces() {
        match piece {
            TemplatePiece::Text(text) if text.contains(['?', '#']) => {
                return Err(
                    "a path has no `?` and no `#`, and the query goes along as it is; \
                            expected the path alone"
                        .to_owned(),
                );
            }
            TemplatePiece::Text(text) if text.starts_with('/') && !is_normal(text) => {
                return Err(format!(
                    "{text:?} is not in the normal form of a path; expected {:?}",
                    path::normal(text)
                ));
            }
            TemplatePiece::Query => {
                return Err("the query goes along as it is; expected the path alone".to_owned());
            }
            piece if piece.is_of_the_client() => {
                return Err(format!(
                    "{text:?} depends on who asks, and the answer may be stored for all; expected \
                     {{host}}, {{path}}, {{path.N}}, {{route}} or {{scheme}}"
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

fn is_normal(path: &str) -> bool {
    !path.contains("//") && *path::normal(path) == *path
}
