//! Reads msgpack from front to back: returns the values that it is asked for, and builds nothing of
//! those that it skips.
//!
//! Three extensions of `msgpackr` are known besides the format. Each is followed by further values,
//! so that a reader of the plain format would lose its place:
//!
//! | bytes | what follows them |
//! |---|---|
//! | `d4 72 ID` | a record: a list of names, then as many values; from then on the byte `ID` (40 to 7f) alone stands before as many values |
//! | `d4 73 00`, `d4 65 00`, `d4 78 00` | what a `Set`, an error, a regular expression is made of |
//! | `d6 69` and four bytes | the value that they give a number (structured clones) |
//!
//! Invariant: neither depth nor declared lengths cost memory: what is left to skip is one number,
//! and bytes are skipped as they arrive.

use std::io::{BufRead, Error, ErrorKind};

use rmp::Marker;

use super::EventFormatError;

/// The extension that defines a record.
const RECORD: u8 = 0x72;
/// The extensions with one zero byte before a list: a set, an error, a regular expression.
const PREFIXES: [u8; 3] = [0x73, 0x65, 0x78];
/// The extension that gives a number to the value after it.
const NUMBERED: u8 = 0x69;
/// The first byte that may stand for a known record.
const FIRST_RECORD: u8 = 0x40;

/// How a value begins.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum ValueHead {
    Nil,
    Number(f64),
    /// This many bytes of text follow.
    Text(u32),
    /// This many values follow.
    List(u32),
    /// This many pairs follow.
    Map(u32),
    /// This many names follow, and then as many values.
    Record(u32),
    /// This many values follow; their names came before.
    KnownRecord(u32),
    /// An extension, or `undefined`; this many bytes follow.
    Extension(u32),
    /// Any other value; this many bytes follow.
    Other(u32),
}

/// Reads msgpack from `R`, up to a limit of bytes.
pub struct SkimReader<R> {
    from: R,
    /// Bytes that may still be read.
    left: u64,
    /// The number of values of each record that was defined.
    records: [Option<u32>; 64],
}

impl<R: BufRead> SkimReader<R> {
    pub fn new(from: R, limit: u64) -> Self {
        Self {
            from,
            left: limit,
            records: [None; 64],
        }
    }

    /// Whether the input has ended.
    ///
    /// # Errors
    /// When what follows is damaged, or begins after the limit.
    pub fn is_at_end(&mut self) -> Result<bool, EventFormatError> {
        match self.some() {
            Err(EventFormatError::Truncated) => Ok(true),
            some => some.map(|_| false),
        }
    }

    /// Reads how the next value begins.
    ///
    /// # Errors
    /// When the input ends, is damaged or too large, or a record has no list of names.
    pub fn head(&mut self) -> Result<ValueHead, EventFormatError> {
        loop {
            if let Some(head) = self.head_or_prefix()? {
                return Ok(head);
            }
        }
    }

    /// None: only a prefix of a value was read.
    fn head_or_prefix(&mut self) -> Result<Option<ValueHead>, EventFormatError> {
        Ok(Some(match Marker::from_u8(self.byte()?) {
            Marker::Null => ValueHead::Nil,
            Marker::FixPos(byte) => self.record_or_number(byte),
            Marker::FixNeg(number) => ValueHead::Number(number.into()),
            Marker::U8 => ValueHead::Number(self.byte()?.into()),
            Marker::U16 => ValueHead::Number(u16::from_be_bytes(self.bytes()?).into()),
            Marker::U32 => ValueHead::Number(u32::from_be_bytes(self.bytes()?).into()),
            Marker::U64 => ValueHead::Number(u64::from_be_bytes(self.bytes()?) as f64),
            Marker::I8 => ValueHead::Number(i8::from_be_bytes(self.bytes()?).into()),
            Marker::I16 => ValueHead::Number(i16::from_be_bytes(self.bytes()?).into()),
            Marker::I32 => ValueHead::Number(i32::from_be_bytes(self.bytes()?).into()),
            Marker::I64 => ValueHead::Number(i64::from_be_bytes(self.bytes()?) as f64),
            Marker::F32 => ValueHead::Number(f32::from_be_bytes(self.bytes()?).into()),
            Marker::F64 => ValueHead::Number(f64::from_be_bytes(self.bytes()?)),
            Marker::FixStr(length) => ValueHead::Text(length.into()),
            Marker::Str8 => ValueHead::Text(self.length8()?),
            Marker::Str16 => ValueHead::Text(self.length16()?),
            Marker::Str32 => ValueHead::Text(self.length32()?),
            Marker::Bin8 => ValueHead::Other(self.length8()?),
            Marker::Bin16 => ValueHead::Other(self.length16()?),
            Marker::Bin32 => ValueHead::Other(self.length32()?),
            Marker::FixArray(length) => ValueHead::List(length.into()),
            Marker::Array16 => ValueHead::List(self.length16()?),
            Marker::Array32 => ValueHead::List(self.length32()?),
            Marker::FixMap(length) => ValueHead::Map(length.into()),
            Marker::Map16 => ValueHead::Map(self.length16()?),
            Marker::Map32 => ValueHead::Map(self.length32()?),
            Marker::FixExt1 => return self.short_extension(),
            Marker::FixExt4 => match self.byte()? {
                NUMBERED => {
                    self.pass(4)?;
                    return Ok(None);
                }
                _ => ValueHead::Extension(4),
            },
            Marker::FixExt2 => self.extension(2)?,
            Marker::FixExt8 => self.extension(8)?,
            Marker::FixExt16 => self.extension(16)?,
            Marker::Ext8 => {
                let length = self.length8()?;
                self.extension(length)?
            }
            Marker::Ext16 => {
                let length = self.length16()?;
                self.extension(length)?
            }
            Marker::Ext32 => {
                let length = self.length32()?;
                self.extension(length)?
            }
            Marker::True | Marker::False | Marker::Reserved => ValueHead::Other(0),
        }))
    }

    fn record_or_number(&self, byte: u8) -> ValueHead {
        let place = byte.checked_sub(FIRST_RECORD).map(usize::from);
        match place.and_then(|place| self.records[place]) {
            Some(values) => ValueHead::KnownRecord(values),
            None => ValueHead::Number(byte.into()),
        }
    }

    fn extension(&mut self, length: u32) -> Result<ValueHead, EventFormatError> {
        self.byte()?;
        Ok(ValueHead::Extension(length))
    }

    /// An extension with one byte of data.
    fn short_extension(&mut self) -> Result<Option<ValueHead>, EventFormatError> {
        let [kind, byte] = self.bytes()?;
        Ok(match kind {
            RECORD => {
                let names = self.names()?;
                self.records[usize::from(byte & 0x3f)] = Some(names);
                Some(ValueHead::Record(names))
            }
            _ if byte == 0 && PREFIXES.contains(&kind) => None,
            _ => Some(ValueHead::Extension(0)),
        })
    }

    /// The number of names in the list that defines a record. Nothing may stand before the list, so
    /// that definitions do not nest.
    fn names(&mut self) -> Result<u32, EventFormatError> {
        match Marker::from_u8(self.byte()?) {
            Marker::FixArray(length) => Ok(length.into()),
            Marker::Array16 => self.length16(),
            Marker::Array32 => self.length32(),
            _ => Err(EventFormatError::Form),
        }
    }

    /// Skips what belongs to this head.
    ///
    /// # Errors
    /// See [`head`](Self::head).
    pub fn skip(&mut self, head: ValueHead) -> Result<(), EventFormatError> {
        let mut values = self.skip_bytes(head)?;
        while values > 0 {
            let next = self.head()?;
            values = (values - 1).saturating_add(self.skip_bytes(next)?);
        }
        Ok(())
    }

    /// Skips the bytes of this head. Returns the number of values that follow.
    fn skip_bytes(&mut self, head: ValueHead) -> Result<u64, EventFormatError> {
        Ok(match head {
            ValueHead::Nil | ValueHead::Number(_) => 0,
            ValueHead::Text(length) | ValueHead::Extension(length) | ValueHead::Other(length) => {
                self.pass(length.into())?;
                0
            }
            ValueHead::List(values) | ValueHead::KnownRecord(values) => values.into(),
            ValueHead::Map(pairs) | ValueHead::Record(pairs) => u64::from(pairs) * 2,
        })
    }

    /// Skips bytes.
    ///
    /// # Errors
    /// When the input ends before that, is damaged or too large.
    pub fn pass(&mut self, mut length: u64) -> Result<(), EventFormatError> {
        while length > 0 {
            let some = self
                .some()?
                .len()
                .min(usize::try_from(length).unwrap_or(usize::MAX));
            self.consume(some);
            length -= some as u64;
        }
        Ok(())
    }

    /// Fills `out` with the next bytes.
    ///
    /// # Errors
    /// When the input ends before that, is damaged or too large.
    pub fn read(&mut self, mut out: &mut [u8]) -> Result<(), EventFormatError> {
        while !out.is_empty() {
            let some = self.some()?;
            let length = some.len().min(out.len());
            let (now, later) = out.split_at_mut(length);
            now.copy_from_slice(&some[..length]);
            out = later;
            self.consume(length);
        }
        Ok(())
    }

    /// The bytes that can be read now: at least one.
    fn some(&mut self) -> Result<&[u8], EventFormatError> {
        let some = self.from.fill_buf().map_err(|error| broken(&error))?;
        match usize::try_from(self.left).unwrap_or(usize::MAX) {
            _ if some.is_empty() => Err(EventFormatError::Truncated),
            0 => Err(EventFormatError::TooLarge),
            left => Ok(&some[..some.len().min(left)]),
        }
    }

    fn consume(&mut self, length: usize) {
        self.from.consume(length);
        self.left -= length as u64;
    }

    fn byte(&mut self) -> Result<u8, EventFormatError> {
        self.bytes().map(|[byte]| byte)
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], EventFormatError> {
        let mut bytes = [0; N];
        self.read(&mut bytes)?;
        Ok(bytes)
    }

    fn length8(&mut self) -> Result<u32, EventFormatError> {
        self.byte().map(u32::from)
    }

    fn length16(&mut self) -> Result<u32, EventFormatError> {
        self.bytes().map(|bytes| u16::from_be_bytes(bytes).into())
    }

    fn length32(&mut self) -> Result<u32, EventFormatError> {
        self.bytes().map(u32::from_be_bytes)
    }
}

fn broken(error: &Error) -> EventFormatError {
    match error.kind() {
        ErrorKind::UnexpectedEof => EventFormatError::Truncated,
        _ => EventFormatError::Compression,
    }
}
