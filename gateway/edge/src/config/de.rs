//! Reads typed values from the tree.
//!
//! A `serde` deserializer of our own, for two reasons: an expanded variable becomes what the wanted
//! type needs (`threads: ${N}` a number, `token: ${T}` a text even if it is all digits), and
//! [`ConfigValueFault`] keeps an error as data.

use serde::de::value::{MapAccessDeserializer, MapDeserializer, SeqDeserializer, StrDeserializer};
use serde::de::{DeserializeOwned, Deserializer, Error, IntoDeserializer, Unexpected, Visitor};
use serde::forward_to_deserialize_any;
use serde_path_to_error::Segment;

use super::fault::ConfigValueFault;
use super::problem::{ConfigFinding, ConfigPath, one_of};
use super::tree::{YamlKey, YamlNode, YamlScalar, YamlValue};

/// Reads a `T` from the tree.
pub fn read<T: DeserializeOwned>(root: &YamlNode) -> Result<T, ConfigFinding> {
    serde_path_to_error::deserialize(YamlDeserializer(root)).map_err(|e| {
        let path = steps(root, e.path());
        e.into_inner().finding(path, root)
    })
}

/// Converts serde's path into ours: the variant of an enum is a step only if the file has a mapping
/// there.
fn steps(root: &YamlNode, path: &serde_path_to_error::Path) -> ConfigPath {
    let (mut out, mut node) = (ConfigPath::default(), Some(root));
    for segment in path {
        match segment {
            Segment::Seq { index } => {
                out = out.index(*index);
                node = node.and_then(|n| {
                    if let YamlValue::List(items) = &n.body {
                        items.get(*index)
                    } else {
                        None
                    }
                });
            }
            Segment::Map { key: name } | Segment::Enum { variant: name } => {
                let Some(YamlNode {
                    body: YamlValue::Map(_),
                    ..
                }) = node
                else {
                    break;
                };
                // serde reports an enum written as a map both by its key and by its variant.
                out = out.key(name.clone());
                node = node.and_then(|n| n.get(name));
            }
            Segment::Unknown => break,
        }
    }
    out
}

/// The type of an unquoted scalar in YAML's core schema.
enum PlainScalar {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text,
}

fn resolve(text: &str) -> PlainScalar {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return PlainScalar::Null,
        "true" | "True" | "TRUE" => return PlainScalar::Bool(true),
        "false" | "False" | "FALSE" => return PlainScalar::Bool(false),
        _ => {}
    }
    if !text.starts_with([
        '-', '+', '.', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9',
    ]) {
        return PlainScalar::Text;
    }
    // Such digits are octal in YAML 1.1 and decimal in 1.2, and mostly intended as text.
    let digits = text.trim_start_matches(['-', '+']);
    if digits.starts_with('0') && digits[1..].starts_with(|c: char| c.is_ascii_digit()) {
        return PlainScalar::Text;
    }
    if let Ok(n) = text.parse() {
        return PlainScalar::Unsigned(n);
    }
    if let Ok(n) = text.parse() {
        return PlainScalar::Signed(n);
    }
    // Rust would also read `+inf` and `-nan` as numbers, and `1e999` as an infinite one.
    let numeric = text
        .bytes()
        .all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    match text.parse::<f64>() {
        Ok(n) if numeric && n.is_finite() => PlainScalar::Float(n),
        _ => PlainScalar::Text,
    }
}

/// Whether an unquoted scalar is a text to this reader.
pub fn is_text(plain: &str) -> bool {
    matches!(resolve(plain), PlainScalar::Text)
}

struct YamlDeserializer<'a>(&'a YamlNode);

impl<'de> IntoDeserializer<'de, ConfigValueFault> for YamlDeserializer<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl YamlScalar {
    fn plain(&self) -> PlainScalar {
        if self.plain {
            resolve(&self.text)
        } else {
            PlainScalar::Text
        }
    }
}

/// The entries of a mapping in the form that serde needs.
fn entries(entries: &[(YamlKey, YamlNode)]) -> impl Iterator<Item = (&str, YamlDeserializer<'_>)> {
    entries
        .iter()
        .map(|(key, value)| (key.name.as_str(), YamlDeserializer(value)))
}

impl YamlNode {
    /// Whether nothing is written there, or `null`.
    pub fn is_null(&self) -> bool {
        matches!(&self.body, YamlValue::Scalar(s) if matches!(s.plain(), PlainScalar::Null))
    }
}

/// The value of a variable is a number or truth value if one is wanted, quoted or not: inside `{ }`
/// YAML requires the quotes.
macro_rules! number_or_bool {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigValueFault> {
            match &self.0.body {
                YamlValue::Scalar(s) if s.expanded => visit(resolve(&s.text), &s.text, visitor),
                _ => self.deserialize_any(visitor),
            }
        }
    )*};
}

fn visit<'de, V: Visitor<'de>>(
    value: PlainScalar,
    text: &'de str,
    visitor: V,
) -> Result<V::Value, ConfigValueFault> {
    match value {
        PlainScalar::Null => visitor.visit_unit(),
        PlainScalar::Bool(truth) => visitor.visit_bool(truth),
        PlainScalar::Unsigned(n) => visitor.visit_u64(n),
        PlainScalar::Signed(n) => visitor.visit_i64(n),
        PlainScalar::Float(n) => visitor.visit_f64(n),
        PlainScalar::Text => visitor.visit_borrowed_str(text),
    }
}

impl<'de> Deserializer<'de> for YamlDeserializer<'de> {
    type Error = ConfigValueFault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigValueFault> {
        match &self.0.body {
            YamlValue::List(items) => {
                visitor.visit_seq(SeqDeserializer::new(items.iter().map(YamlDeserializer)))
            }
            YamlValue::Map(map) => visitor.visit_map(MapDeserializer::new(entries(map))),
            YamlValue::Scalar(scalar) => visit(scalar.plain(), &scalar.text, visitor),
        }
    }

    /// The value of a variable is a text if a text is wanted, whatever it looks like.
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigValueFault> {
        match &self.0.body {
            YamlValue::Scalar(s) if s.expanded => visitor.visit_borrowed_str(&s.text),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigValueFault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigValueFault> {
        if self.0.is_null() {
            visitor.visit_none()
        } else {
            visitor.visit_some(self)
        }
    }

    /// `server:` with all its keys commented out is an empty mapping.
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigValueFault> {
        if self.0.is_null() {
            visitor.visit_map(MapDeserializer::new(entries(&[])))
        } else {
            self.deserialize_any(visitor)
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ConfigValueFault> {
        // serde would also accept a list of the fields' values in order, which nobody intends.
        if matches!(self.0.body, YamlValue::List(_)) {
            return Err(ConfigValueFault::invalid_type(Unexpected::Seq, &visitor));
        }
        self.deserialize_map(visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigValueFault> {
        if self.0.is_null() {
            visitor.visit_seq(SeqDeserializer::new(std::iter::empty::<
                YamlDeserializer<'de>,
            >()))
        } else {
            self.deserialize_any(visitor)
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, ConfigValueFault> {
        visitor.visit_newtype_struct(self)
    }

    /// An enum is a word, or a mapping with the variant as its only key.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ConfigValueFault> {
        let one = || format!("one of {}", one_of(variants));
        match &self.0.body {
            YamlValue::Map(map) if map.len() == 1 => {
                MapAccessDeserializer::new(MapDeserializer::new(entries(map)))
                    .deserialize_enum(name, variants, visitor)
            }
            YamlValue::Map(map) => Err(ConfigValueFault::WrongType {
                found: format!("a mapping with {} keys", map.len()),
                expected: one(),
            }),
            YamlValue::List(_) => Err(ConfigValueFault::WrongType {
                found: "a list".to_owned(),
                expected: one(),
            }),
            YamlValue::Scalar(_) if self.0.is_null() => Err(ConfigValueFault::WrongType {
                found: "nothing".to_owned(),
                expected: one(),
            }),
            YamlValue::Scalar(s) => {
                StrDeserializer::new(s.text.as_str()).deserialize_enum(name, variants, visitor)
            }
        }
    }

    number_or_bool! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_u8
        deserialize_u16 deserialize_u32 deserialize_u64 deserialize_f32 deserialize_f64
    }

    forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}
