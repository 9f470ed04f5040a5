//! Why a value does not fit its type, kept as data, and how that is reported.
//!
//! serde's own errors are texts; as data they can name the nearest known word,
//! point at a key or a value, and leave out a secret.

use serde::de::{Error, Expected, Unexpected};

use super::problem::{ConfigFinding, ConfigPath, FindingPlace, nearest, one_of};
use super::secret::find_secret_value;
use super::tree::YamlNode;

/// Why a value does not fit, as data.
#[derive(Debug, thiserror::Error)]
pub enum ConfigValueFault {
    #[error("unknown key `{given}`")]
    UnknownKey {
        given: String,
        allowed: &'static [&'static str],
    },
    #[error("unknown word `{given}`")]
    UnknownWord {
        given: String,
        allowed: &'static [&'static str],
    },
    #[error("missing key `{0}`")]
    MissingKey(&'static str),
    #[error("found {found}, expected {expected}")]
    WrongType { found: String, expected: String },
    #[error("{0}")]
    Other(String),
}

impl Error for ConfigValueFault {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self::Other(message.to_string())
    }

    fn unknown_field(field: &str, allowed: &'static [&'static str]) -> Self {
        Self::UnknownKey {
            given: field.to_owned(),
            allowed,
        }
    }

    fn unknown_variant(variant: &str, allowed: &'static [&'static str]) -> Self {
        Self::UnknownWord {
            given: variant.to_owned(),
            allowed,
        }
    }

    fn missing_field(field: &'static str) -> Self {
        Self::MissingKey(field)
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::WrongType {
            found: describe(found),
            expected: plain_words(&expected.to_string()),
        }
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }
}

impl ConfigValueFault {
    /// The finding about the value at `path`.
    pub fn finding(self, path: ConfigPath, root: &YamlNode) -> ConfigFinding {
        let secret = path.is_secret();
        match self {
            Self::UnknownKey { given, allowed } => ConfigFinding::unknown_key(
                path,
                format!("unknown key; expected {}", one_of(allowed)),
            )
            .near(nearest(&given, allowed)),
            Self::UnknownWord { given, allowed } => {
                // The word is a key if the variant has a value, as in `tag: x`.
                let is_key = root
                    .node(&path)
                    .is_some_and(|node| node.get(&given).is_some());
                let (path, place) = if is_key {
                    (path.key(&*given), FindingPlace::Key)
                } else {
                    (path, FindingPlace::Value)
                };
                let finding = ConfigFinding {
                    path,
                    place,
                    message: format!("unknown word `{given}`; expected {}", one_of(allowed)),
                };
                finding.near(nearest(&given, allowed))
            }
            Self::MissingKey(name) => {
                // This is shown at the block that lacks the key, and named by the key's own path.
                ConfigFinding::value(path.key(name), "missing; this key is required")
            }
            Self::WrongType { expected, .. } if secret => {
                ConfigFinding::value(path, format!("wrong type; expected {expected}"))
            }
            Self::WrongType { found, expected } => {
                ConfigFinding::value(path, format!("found {found}; expected {expected}"))
            }
            Self::Other(message) => ConfigFinding::value(path, explain(message)),
        }
    }
}

/// Explains messages of the standard library about addresses that are too short to help.
fn explain(message: String) -> String {
    match message.as_str() {
        "invalid socket address syntax" => {
            "not an address; expected an IP address and a port, as in 127.0.0.1:8080".to_owned()
        }
        _ => message,
    }
}

fn describe(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Unit | Unexpected::Option => "nothing".to_owned(),
        Unexpected::Map => "a mapping".to_owned(),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Str(text) => {
            // A key without its colon is a text as well, perhaps with a secret in it.
            let shown = match find_secret_value(text) {
                Some(start) => format!("{}***", &text[..start]),
                None => text.to_owned(),
            };
            format!("the text {:?}", shown.chars().take(80).collect::<String>())
        }
        Unexpected::Bool(truth) => format!("`{truth}`"),
        Unexpected::Unsigned(n) => format!("the number {n}"),
        Unexpected::Signed(n) => format!("the number {n}"),
        Unexpected::Float(n) => format!("the number {n}"),
        other => other.to_string(),
    }
}

fn plain_words(expected: &str) -> String {
    match expected {
        "u8" => "a whole number from 0 to 255".to_owned(),
        "u16" => "a whole number from 0 to 65535".to_owned(),
        "u32" | "u64" | "usize" => "a whole number, 0 or more".to_owned(),
        "a boolean" => "`true` or `false`".to_owned(),
        "a string" | "path string" => "a text (in quotes if it looks like a number)".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "a mapping".to_owned(),
        _ if expected.starts_with("struct ") => "a mapping".to_owned(),
        _ => expected.to_owned(),
    }
}
