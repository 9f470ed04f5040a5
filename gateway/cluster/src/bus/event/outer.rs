//! The outer map of an event, read from msgpack without its value.
//!
//! Decision: **a `set` whose keys were read counts as a `set`, whatever is wrong with its value or
//! after it.** The value has no meaning here, and a node that drops the event would show the old
//! page for as long as that page lives. The library writes the keys before the value.

use std::io::BufRead;

use serde::de::IgnoredAny;

use super::form::{BoundedList, OuterMap};
use super::skim::{SkimReader, ValueHead};
use super::{EventFormatError, MAX_BYTES, MAX_KEYS, MAX_READ, MAX_TEXT};

/// The most fields of an event that is a record.
const MAX_FIELDS: usize = 64;
/// The longest field name that is compared.
const LONGEST_NAME: u32 = 9;
/// The most bytes of a key that are logged.
const SHOWN: usize = 64;

/// The fields that could be read.
pub struct SkimmedEvent {
    pub outer: OuterMap,
    /// Why the event was not read to its end.
    pub fault: Option<EventFormatError>,
    /// How its first key begins.
    pub key: Option<String>,
    value: ValueReached,
}

/// Whether the value was reached.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ValueReached {
    Yes,
    No,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum OuterField {
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

/// Reads the outer map of an event.
struct OuterMapReader<R> {
    from: SkimReader<R>,
    skimmed: SkimmedEvent,
    seen: Vec<OuterField>,
    /// Bytes of the texts that were kept.
    kept: usize,
}

/// Reads the outer map of the event in `from`.
pub fn skim(from: impl BufRead) -> SkimmedEvent {
    let mut reader = OuterMapReader {
        from: SkimReader::new(from, MAX_READ),
        skimmed: SkimmedEvent {
            outer: OuterMap::default(),
            fault: None,
            key: None,
            value: ValueReached::No,
        },
        seen: Vec::new(),
        kept: 0,
    };
    let fault = reader.all().err();
    SkimmedEvent {
        fault,
        ..reader.skimmed
    }
}

impl SkimmedEvent {
    /// Whether what could not be read makes no difference (see the module).
    pub fn is_enough(&self) -> bool {
        let is_set = self.outer.r#type.as_deref() == Some("set");
        self.fault.is_none() || is_set && self.value == ValueReached::Yes
    }
}

impl<R: BufRead> OuterMapReader<R> {
    fn all(&mut self) -> Result<(), EventFormatError> {
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
            _ => return Err(EventFormatError::Form),
        }
        match self.from.is_at_end()? {
            true => Ok(()),
            false => Err(EventFormatError::Form),
        }
    }

    fn name(&mut self) -> Result<OuterField, EventFormatError> {
        let head = self.from.head()?;
        let ValueHead::Text(length @ ..=LONGEST_NAME) = head else {
            self.from.skip(head)?;
            return Ok(OuterField::Unknown);
        };
        let mut name = [0; LONGEST_NAME as usize];
        let name = &mut name[..length as usize];
        self.from.read(name)?;
        Ok(OuterField::named(name))
    }

    fn field(&mut self, field: OuterField) -> Result<(), EventFormatError> {
        if field != OuterField::Unknown {
            if self.seen.contains(&field) {
                return Err(EventFormatError::Form);
            }
            self.seen.push(field);
        }
        match field {
            OuterField::Id => self.skimmed.outer.id = self.text()?,
            OuterField::Type => self.skimmed.outer.r#type = self.text()?,
            OuterField::Source => self.skimmed.outer.source = self.text()?,
            OuterField::Pattern => self.skimmed.outer.pattern = self.text()?,
            OuterField::Namespace => self.skimmed.outer.namespace = self.text()?,
            OuterField::Ts => self.skimmed.outer.ts = self.number()?,
            OuterField::Keys => self.skimmed.outer.keys = self.keys()?,
            OuterField::Lamina => {
                let head = self.from.head()?;
                self.skimmed.outer.lamina = (head != ValueHead::Nil).then_some(IgnoredAny);
                self.from.skip(head)?;
            }
            OuterField::Value => {
                self.skimmed.value = ValueReached::Yes;
                self.skip()?;
            }
            OuterField::Unknown => self.skip()?,
        }
        Ok(())
    }

    fn skip(&mut self) -> Result<(), EventFormatError> {
        let head = self.from.head()?;
        self.from.skip(head)
    }

    fn number(&mut self) -> Result<Option<f64>, EventFormatError> {
        match self.from.head()? {
            ValueHead::Number(number) => Ok(Some(number)),
            head => self.absent(head),
        }
    }

    fn text(&mut self) -> Result<Option<String>, EventFormatError> {
        match self.from.head()? {
            ValueHead::Text(length) => self.text_of(length).map(Some),
            head => self.absent(head),
        }
    }

    /// None if the value is `null` or `undefined`; any other value is an error.
    fn absent<T>(&mut self, head: ValueHead) -> Result<Option<T>, EventFormatError> {
        match head {
            ValueHead::Nil | ValueHead::Extension(_) => self.from.skip(head).map(|()| None),
            _ => Err(EventFormatError::Form),
        }
    }

    fn text_of(&mut self, length: u32) -> Result<String, EventFormatError> {
        let length = length as usize;
        if length > MAX_TEXT {
            return Err(EventFormatError::TooLong);
        }
        self.kept += length;
        if self.kept > MAX_BYTES {
            return Err(EventFormatError::TooLarge);
        }
        let mut text = vec![0; length];
        self.from.read(&mut text)?;
        String::from_utf8(text).map_err(|_| EventFormatError::Form)
    }

    fn keys(&mut self) -> Result<Option<BoundedList<String>>, EventFormatError> {
        let count = match self.from.head()? {
            ValueHead::List(count) => count,
            head => return self.absent(head),
        };
        let mut items = Vec::new();
        for _ in 0..count {
            if items.len() == MAX_KEYS {
                return Err(EventFormatError::TooMany);
            }
            items.push(self.key()?);
        }
        Ok(Some(BoundedList { items, more: false }))
    }

    fn key(&mut self) -> Result<String, EventFormatError> {
        let ValueHead::Text(length) = self.from.head()? else {
            return Err(EventFormatError::Form);
        };
        if length as usize > MAX_TEXT {
            let mut begins = [0; SHOWN];
            self.from.read(&mut begins)?;
            self.tell(&String::from_utf8_lossy(&begins));
            return Err(EventFormatError::TooLong);
        }
        let key = self.text_of(length)?;
        self.tell(&key);
        Ok(key)
    }

    /// Records how the first key begins.
    fn tell(&mut self, key: &str) {
        let begins = || key[..key.floor_char_boundary(SHOWN)].to_owned();
        self.skimmed.key.get_or_insert_with(begins);
    }
}

impl OuterField {
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
