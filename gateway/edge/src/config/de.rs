//! From the tree to typed values.
//!
//! A `serde` deserialiser of our own, for two reasons: an expanded variable
//! becomes what the wanted type needs (`threads: ${N}` a number, `token: ${T}`
//! a text even if it is all digits), and [`Fault`] keeps an error as data.

use serde::de::value::{MapAccessDeserializer, MapDeserializer, SeqDeserializer, StrDeserializer};
use serde::de::{DeserializeOwned, Deserializer, Error, IntoDeserializer, Unexpected, Visitor};
use serde::forward_to_deserialize_any;
use serde_path_to_error::Segment;

use super::fault::Fault;
use super::problem::{Finding, Path, one_of};
use super::tree::{Body, Key, Node, Scalar};

/// Reads a `T` from the tree.
pub fn read<T: DeserializeOwned>(root: &Node) -> Result<T, Finding> {
    serde_path_to_error::deserialize(Reader(root)).map_err(|e| {
        let path = steps(root, e.path());
        e.into_inner().finding(path, root)
    })
}

/// serde's path as ours: an enum's variant is a step only where the file has a mapping.
fn steps(root: &Node, path: &serde_path_to_error::Path) -> Path {
    let (mut out, mut node) = (Path::default(), Some(root));
    for segment in path {
        match segment {
            Segment::Seq { index } => {
                out = out.index(*index);
                node = node.and_then(|n| {
                    if let Body::List(items) = &n.body {
                        items.get(*index)
                    } else {
                        None
                    }
                });
            }
            Segment::Map { key: name } | Segment::Enum { variant: name } => {
                let Some(Node {
                    body: Body::Map(_), ..
                }) = node
                else {
                    break;
                };
                // A map that is an enum is reported by both its key and its variant.
                out = out.key(name.clone());
                node = node.and_then(|n| n.get(name));
            }
            Segment::Unknown => break,
        }
    }
    out
}

/// What an unquoted scalar is in YAML's core schema.
enum Plain {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text,
}

fn resolve(text: &str) -> Plain {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Plain::Null,
        "true" | "True" | "TRUE" => return Plain::Bool(true),
        "false" | "False" | "FALSE" => return Plain::Bool(false),
        _ => {}
    }
    if !text.starts_with([
        '-', '+', '.', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9',
    ]) {
        return Plain::Text;
    }
    // Octal in YAML 1.1, decimal in 1.2, and mostly meant as it stands.
    let digits = text.trim_start_matches(['-', '+']);
    if digits.starts_with('0') && digits[1..].starts_with(|c: char| c.is_ascii_digit()) {
        return Plain::Text;
    }
    if let Ok(n) = text.parse() {
        return Plain::Unsigned(n);
    }
    if let Ok(n) = text.parse() {
        return Plain::Signed(n);
    }
    // Rust would also read `+inf` and `-nan` as numbers.
    let numeric = text
        .bytes()
        .all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    match text.parse() {
        Ok(n) if numeric => Plain::Float(n),
        _ => Plain::Text,
    }
}

struct Reader<'a>(&'a Node);

impl<'de> IntoDeserializer<'de, Fault> for Reader<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl Scalar {
    fn plain(&self) -> Plain {
        if self.plain {
            resolve(&self.text)
        } else {
            Plain::Text
        }
    }
}

/// The entries of a mapping as serde wants them.
fn entries(entries: &[(Key, Node)]) -> impl Iterator<Item = (&str, Reader<'_>)> {
    entries
        .iter()
        .map(|(key, value)| (key.name.as_str(), Reader(value)))
}

impl<'de> Reader<'de> {
    fn is_null(&self) -> bool {
        matches!(&self.0.body, Body::Scalar(s) if matches!(s.plain(), Plain::Null))
    }
}

/// A variable's value is a number or truth value where one is wanted, quoted or not: inside `{ }` YAML demands the quotes.
macro_rules! number_or_bool {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            match &self.0.body {
                Body::Scalar(s) if s.expanded => visit(resolve(&s.text), &s.text, visitor),
                _ => self.deserialize_any(visitor),
            }
        }
    )*};
}

fn visit<'de, V: Visitor<'de>>(
    value: Plain,
    text: &'de str,
    visitor: V,
) -> Result<V::Value, Fault> {
    match value {
        Plain::Null => visitor.visit_unit(),
        Plain::Bool(truth) => visitor.visit_bool(truth),
        Plain::Unsigned(n) => visitor.visit_u64(n),
        Plain::Signed(n) => visitor.visit_i64(n),
        Plain::Float(n) => visitor.visit_f64(n),
        Plain::Text => visitor.visit_borrowed_str(text),
    }
}

impl<'de> Deserializer<'de> for Reader<'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.0.body {
            Body::List(items) => visitor.visit_seq(SeqDeserializer::new(items.iter().map(Reader))),
            Body::Map(map) => visitor.visit_map(MapDeserializer::new(entries(map))),
            Body::Scalar(scalar) => visit(scalar.plain(), &scalar.text, visitor),
        }
    }

    /// A variable's value is a text where a text is wanted, whatever it looks like.
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.0.body {
            Body::Scalar(s) if s.expanded => visitor.visit_borrowed_str(&s.text),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.is_null() {
            visitor.visit_none()
        } else {
            visitor.visit_some(self)
        }
    }

    /// `server:` with all its keys commented out is an empty mapping.
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.is_null() {
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
    ) -> Result<V::Value, Fault> {
        // serde would also take a list of the fields' values in order; nobody means that.
        if matches!(self.0.body, Body::List(_)) {
            return Err(Fault::invalid_type(Unexpected::Seq, &visitor));
        }
        self.deserialize_map(visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.is_null() {
            visitor.visit_seq(SeqDeserializer::new(std::iter::empty::<Reader<'de>>()))
        } else {
            self.deserialize_any(visitor)
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    /// A word, or a mapping with the one variant as its key.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let one = || format!("one of {}", one_of(variants));
        match &self.0.body {
            Body::Map(map) if map.len() == 1 => {
                MapAccessDeserializer::new(MapDeserializer::new(entries(map)))
                    .deserialize_enum(name, variants, visitor)
            }
            Body::Map(map) => Err(Fault::WrongType {
                found: format!("a mapping with {} keys", map.len()),
                expected: one(),
            }),
            Body::List(_) => Err(Fault::WrongType {
                found: "a list".to_owned(),
                expected: one(),
            }),
            Body::Scalar(_) if self.is_null() => Err(Fault::WrongType {
                found: "nothing".to_owned(),
                expected: one(),
            }),
            Body::Scalar(s) => {
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
