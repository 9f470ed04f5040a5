//! The outer map of an event, read from msgpack without its value.
//!
//! Decision: **a `set` whose keys were read is a `set`, whatever is wrong with its value or
//! behind it.** The value says nothing here, and who drops the event shows the old page for as
//! long as it lives. The library writes the keys before the value.

use std::io::BufRead;

use serde::de::IgnoredAny;

use super::form::{Bounded, Outer};
use super::skim::{SkimReader, ValueHead};
use super::{MAX_BYTES, MAX_KEYS, MAX_READ, MAX_TEXT, Malformed};

/// Fields of an event that is a record, at most.
const MAX_FIELDS: usize = 64;
/// The longest name that is looked at.
const LONGEST_NAME: u32 = 9;
/// Bytes of a key that are told.
const SHOWN: usize = 64;

/// What was read, as far as it could be read.
pub struct Skimmed {
    pub outer: Outer,
    /// Why it was not read to its end.
    pub fault: Option<Malformed>,
    /// How its first key begins.
    pub key: Option<String>,
    value: Reached,
}

/// Whether the value was reached.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reached {
    Yes,
    No,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Field {
    Id,
    Type,
    Source,
    Ts,
    Keys,
    Pattern,
    Namespace,
    Lamina,
    Value,
    Unknown,
}

/// Reads an event.
struct Reader<R> {
    from: SkimReader<R>,
    skimmed: Skimmed,
    seen: Vec<Field>,
    /// Bytes of the texts that were read.
    kept: usize,
}

/// Reads the event that `from` has.
pub fn skim(from: impl BufRead) -> Skimmed {
    let mut reader = Reader {
        from: SkimReader::new(from, MAX_READ),
        skimmed: Skimmed {
            outer: Outer::default(),
            fault: None,
            key: None,
            value: Reached::No,
        },
        seen: Vec::new(),
        kept: 0,
    };
    let fault = reader.all().err();
    Skimmed {
        fault,
        ..reader.skimmed
    }
}

impl Skimmed {
    /// Whether what could not be read makes no difference (see the module).
    pub fn is_enough(&self) -> bool {
        let is_set = self.outer.r#type.as_deref() == Some("set");
        self.fault.is_none() || is_set && self.value == Reached::Yes
    }
}

impl<R: BufRead> Reader<R> {
    fn all(&mut self) -> Result<(), Malformed> {
        match self.from.head()? {
            ValueHead::Map(pairs) => {
                for _ in 0..pairs {
                    let field = self.name()?;
                    self.field(field)?;
                }
            }
            ValueHead::Record(names) if names as usize <= MAX_FIELDS => {
                let names = (0..names)
                    .map(|_| self.name())
                    .collect::<Result<Vec<_>, _>>()?;
                names.into_iter().try_for_each(|field| self.field(field))?;
            }
            _ => return Err(Malformed::Form),
        }
        match self.from.is_at_end()? {
            true => Ok(()),
            false => Err(Malformed::Form),
        }
    }

    fn name(&mut self) -> Result<Field, Malformed> {
        let head = self.from.head()?;
        let ValueHead::Text(length @ ..=LONGEST_NAME) = head else {
            self.from.skip(head)?;
            return Ok(Field::Unknown);
        };
        let mut name = [0; LONGEST_NAME as usize];
        let name = &mut name[..length as usize];
        self.from.read(name)?;
        Ok(Field::named(name))
    }

    fn field(&mut self, field: Field) -> Result<(), Malformed> {
        if field != Field::Unknown {
            if self.seen.contains(&field) {
                return Err(Malformed::Form);
            }
            self.seen.push(field);
        }
        match field {
            Field::Id => self.skimmed.outer.id = self.text()?,
            Field::Type => self.skimmed.outer.r#type = self.text()?,
            Field::Source => self.skimmed.outer.source = self.text()?,
            Field::Pattern => self.skimmed.outer.pattern = self.text()?,
            Field::Namespace => self.skimmed.outer.namespace = self.text()?,
            Field::Ts => self.skimmed.outer.ts = self.number()?,
            Field::Keys => self.skimmed.outer.keys = self.keys()?,
            Field::Lamina => {
                let head = self.from.head()?;
                self.skimmed.outer.lamina = (head != ValueHead::Nil).then_some(IgnoredAny);
                self.from.skip(head)?;
            }
            Field::Value => {
                self.skimmed.value = Reached::Yes;
                self.skip()?;
            }
            Field::Unknown => self.skip()?,
        }
        Ok(())
    }

    fn skip(&mut self) -> Result<(), Malformed> {
        let head = self.from.head()?;
        self.from.skip(head)
    }

    fn number(&mut self) -> Result<Option<f64>, Malformed> {
        match self.from.head()? {
            ValueHead::Number(number) => Ok(Some(number)),
            head => self.absent(head),
        }
    }

    fn text(&mut self) -> Result<Option<String>, Malformed> {
        match self.from.head()? {
            ValueHead::Text(length) => self.text_of(length).map(Some),
            head => self.absent(head),
        }
    }

    /// `null` or `undefined`, if it is that.
    fn absent<T>(&mut self, head: ValueHead) -> Result<Option<T>, Malformed> {
        match head {
            ValueHead::Nil | ValueHead::Extension(_) => self.from.skip(head).map(|()| None),
            _ => Err(Malformed::Form),
        }
    }

    fn text_of(&mut self, length: u32) -> Result<String, Malformed> {
        let length = length as usize;
        if length > MAX_TEXT {
            return Err(Malformed::TooLong);
        }
        self.kept += length;
        if self.kept > MAX_BYTES {
            return Err(Malformed::TooLarge);
        }
        let mut text = vec![0; length];
        self.from.read(&mut text)?;
        String::from_utf8(text).map_err(|_| Malformed::Form)
    }

    fn keys(&mut self) -> Result<Option<Bounded<String>>, Malformed> {
        let count = match self.from.head()? {
            ValueHead::List(count) => count,
            head => return self.absent(head),
        };
        let mut items = Vec::new();
        for _ in 0..count {
            if items.len() == MAX_KEYS {
                return Err(Malformed::TooMany);
            }
            items.push(self.key()?);
        }
        Ok(Some(Bounded { items, more: false }))
    }

    fn key(&mut self) -> Result<String, Malformed> {
        let ValueHead::Text(length) = self.from.head()? else {
            return Err(Malformed::Form);
        };
        if length as usize > MAX_TEXT {
            let mut begins = [0; SHOWN];
            self.from.read(&mut begins)?;
            self.tell(&String::from_utf8_lossy(&begins));
            return Err(Malformed::TooLong);
        }
        let key = self.text_of(length)?;
        self.tell(&key);
        Ok(key)
    }

    /// Notes how the first key begins.
    fn tell(&mut self, key: &str) {
        let begins = || key[..key.floor_char_boundary(SHOWN)].to_owned();
        self.skimmed.key.get_or_insert_with(begins);
    }
}

impl Field {
    fn named(name: &[u8]) -> Self {
        match name {
            b"id" => Self::Id,
            b"type" => Self::Type,
            b"source" => Self::Source,
            b"ts" => Self::Ts,
            b"keys" => Self::Keys,
            b"pattern" => Self::Pattern,
            b"namespace" => Self::Namespace,
            b"lamina" => Self::Lamina,
            b"value" => Self::Value,
            _ => Self::Unknown,
        }
    }
}
