//! The part of HPACK (RFC 7541) that is needed to know the path that an HTTP/2 client wrote, and
//! whether it waits for a 100 before it sends its content.
//!
//! h2 removes the fragment of a path without saying so, where HTTP/1 refuses it. So header blocks
//! are read here a second time, as far as needed: the lengths of the fields that go into the
//! dynamic table, and the values of `:path` and `expect`. For a block that cannot be read here,
//! h2 ends the connection.

use std::collections::VecDeque;

/// The size of the dynamic table that a client may use; we announce no other.
const TABLE_SIZE: usize = 4_096;
/// The size of a table entry besides its name and value (RFC 7541 §4.1).
const ENTRY_OVERHEAD: usize = 32;

const PATH: &[u8] = b":path";
/// The entries of the static table that are named `:path`.
const STATIC_PATHS: std::ops::RangeInclusive<usize> = 4..=5;
const EXPECT: &[u8] = b"expect";
/// The entry of the static table that is named `expect`.
const STATIC_EXPECT: usize = 35;
/// RFC 9110 §10.1.1.
const CONTINUE: &[u8] = b"100-continue";

/// The lengths of the names in the static table (RFC 7541, appendix A), from index 1 on.
const STATIC_NAMES: [u8; 61] = [
    10, 7, 7, 5, 5, 7, 7, 7, 7, 7, 7, 7, 7, 7, 14, 15, 15, 13, 6, 27, 3, 5, 13, 13, 19, 16, 16, 14,
    16, 13, 12, 6, 4, 4, 6, 7, 4, 4, 8, 17, 13, 8, 19, 13, 4, 8, 12, 18, 19, 5, 7, 7, 11, 6, 10,
    25, 17, 10, 4, 3, 16,
];

/// How many Huffman codes (RFC 7541, appendix B) have a length of 1, 2, 3… bits. The very last
/// code is the end of the text.
const CODES: [u16; 30] = [
    0, 0, 0, 0, 10, 26, 32, 6, 0, 5, 3, 2, 6, 2, 3, 0, 0, 0, 3, 8, 13, 26, 29, 12, 4, 15, 19, 29,
    0, 4,
];

/// The octets in the order of their codes.
const OCTETS: &[u8; 256] =
    b"012aceiost %-./3456789=A_bdfghlmnpru:BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz&*,;XZ!\"()?'+|#\
      >\x00$@[]~^}<`{\\\xc3\xd0\x80\x82\x83\xa2\xb8\xc2\xe0\xe2\x99\xa1\xa7\xac\xb0\xb1\
      \xb3\xd1\xd8\xd9\xe3\xe5\xe6\x81\x84\x85\x86\x88\x92\x9a\x9c\xa0\xa3\xa4\xa9\xaa\xad\
      \xb2\xb5\xb9\xba\xbb\xbd\xbe\xc4\xc6\xe4\xe8\xe9\x01\x87\x89\x8a\x8b\x8c\x8d\x8f\x93\
      \x95\x96\x97\x98\x9b\x9d\x9e\xa5\xa6\xa8\xae\xaf\xb4\xb6\xb7\xbc\xbf\xc5\xe7\xef\x09\
      \x8e\x90\x91\x94\x9f\xab\xce\xd7\xe1\xec\xed\xc7\xcf\xea\xeb\xc0\xc1\xc8\xc9\xca\xcd\
      \xd2\xd5\xda\xdb\xee\xf0\xf2\xf3\xff\xcb\xcc\xd3\xd4\xd6\xdd\xde\xdf\xf1\xf4\xf5\xf6\
      \xf7\xf8\xfa\xfb\xfc\xfd\xfe\x02\x03\x04\x05\x06\x07\x08\x0b\x0c\x0e\x0f\x10\x11\x12\
      \x13\x14\x15\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f\x7f\xdc\xf9\x0a\x0d\x16";

/// The codes of one length: the first of them, how many there are, and the position in
/// [`OCTETS`] of the octet of the first one.
#[derive(Clone, Copy)]
struct HuffmanCodeRange {
    first: u32,
    count: u32,
    place: u32,
}

static LENGTHS: [HuffmanCodeRange; 30] = {
    let mut lengths = [HuffmanCodeRange {
        first: 0,
        count: 0,
        place: 0,
    }; 30];
    let (mut code, mut place, mut length) = (0, 0, 0);
    while length < 30 {
        let count = CODES[length] as u32;
        code <<= 1;
        lengths[length] = HuffmanCodeRange {
            first: code,
            count,
            place,
        };
        code += count;
        place += count;
        length += 1;
    }
    lengths
};

/// A block that breaks RFC 7541.
#[derive(PartialEq, Eq, Debug)]
pub struct HpackError;

/// The dynamic table of a connection, as far as it is needed for paths and `expect`.
pub struct HpackReader {
    /// The newest entry first.
    table: VecDeque<HpackEntry>,
    size: usize,
    most: usize,
    text: Vec<u8>,
}

struct HpackEntry {
    name_length: usize,
    size: usize,
    name: HpackFieldName,
    told: FieldFindings,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum HpackFieldName {
    Path,
    Expect,
    Other,
}

/// A path that had a fragment, without it.
pub type FragmentlessPath = Box<[u8]>;

/// Whether the client sends the content of its request without waiting for a 100.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub enum ContentExpectation {
    #[default]
    Comes,
    /// It waits for a 100.
    Waits,
}

/// What a field, or a block of them, contains that matters here.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct FieldFindings {
    pub cut: Option<FragmentlessPath>,
    pub content: ContentExpectation,
}

/// What is left of a block.
struct HeaderBlock<'a>(&'a [u8]);

impl Default for HpackReader {
    fn default() -> Self {
        Self {
            table: VecDeque::new(),
            size: 0,
            most: TABLE_SIZE,
            text: Vec::new(),
        }
    }
}

impl HpackReader {
    /// Reads the next block of the connection, which must be complete.
    ///
    /// # Errors
    /// When it cannot be read. Then the blocks that follow cannot be read either.
    pub fn read(&mut self, block: &[u8]) -> Result<FieldFindings, HpackError> {
        self.all(block).ok_or(HpackError)
    }

    fn all(&mut self, block: &[u8]) -> Option<FieldFindings> {
        let mut found = FieldFindings::default();
        let mut block = HeaderBlock(block);
        while let Some(&form) = block.0.first() {
            let told = match form {
                0x80.. => self.indexed(block.integer(7)?)?,
                0x40.. => self.indexed_later(&mut block)?,
                0x20.. => {
                    self.resize(block.integer(5)?)?;
                    FieldFindings::default()
                }
                _ => self.literal(&mut block)?,
            };
            found.cut = told.cut.or(found.cut);
            if told.content == ContentExpectation::Waits {
                found.content = ContentExpectation::Waits;
            }
        }
        Some(found)
    }

    /// A field that is in the tables with its value.
    fn indexed(&self, index: usize) -> Option<FieldFindings> {
        match index {
            0 => None,
            1..=61 => Some(FieldFindings::default()),
            _ => Some(self.table.get(index - 62)?.told.clone()),
        }
    }

    /// A field that goes into the table.
    fn indexed_later(&mut self, block: &mut HeaderBlock<'_>) -> Option<FieldFindings> {
        let index = block.integer(6)?;
        let (name, name_length) = self.name(index, block)?;
        let told = self.value(name, block)?;
        let size = name_length + self.text.len() + ENTRY_OVERHEAD;
        self.shrink(self.most.saturating_sub(size));
        if size <= self.most {
            self.size += size;
            self.table.push_front(HpackEntry {
                name_length,
                size,
                name,
                told: told.clone(),
            });
        }
        Some(told)
    }

    /// A field that does not go into the table.
    fn literal(&mut self, block: &mut HeaderBlock<'_>) -> Option<FieldFindings> {
        let index = block.integer(4)?;
        match self.name(index, block)?.0 {
            HpackFieldName::Other => {
                block.coded()?;
                Some(FieldFindings::default())
            }
            name => self.value(name, block),
        }
    }

    /// The name of a field and its length: from the tables, or literal.
    fn name(
        &mut self,
        index: usize,
        block: &mut HeaderBlock<'_>,
    ) -> Option<(HpackFieldName, usize)> {
        Some(match index {
            0 => {
                block.text(&mut self.text)?;
                let name = match self.text.as_slice() {
                    PATH => HpackFieldName::Path,
                    EXPECT => HpackFieldName::Expect,
                    _ => HpackFieldName::Other,
                };
                (name, self.text.len())
            }
            1..=61 => {
                let name = match index {
                    STATIC_EXPECT => HpackFieldName::Expect,
                    _ if STATIC_PATHS.contains(&index) => HpackFieldName::Path,
                    _ => HpackFieldName::Other,
                };
                (name, STATIC_NAMES[index - 1].into())
            }
            _ => {
                let entry = self.table.get(index - 62)?;
                (entry.name, entry.name_length)
            }
        })
    }

    /// Reads a value into `text`, and returns what it means in a field of this name.
    fn value(
        &mut self,
        name: HpackFieldName,
        block: &mut HeaderBlock<'_>,
    ) -> Option<FieldFindings> {
        block.text(&mut self.text)?;
        let mut told = FieldFindings::default();
        match name {
            HpackFieldName::Path => {
                let mark = memchr::memchr(b'#', &self.text);
                told.cut = mark.map(|at| self.text[..at].into());
            }
            HpackFieldName::Expect if self.text.eq_ignore_ascii_case(CONTINUE) => {
                told.content = ContentExpectation::Waits;
            }
            HpackFieldName::Expect | HpackFieldName::Other => {}
        }
        Some(told)
    }

    fn resize(&mut self, most: usize) -> Option<()> {
        self.most = Some(most).filter(|most| *most <= TABLE_SIZE)?;
        self.shrink(most);
        Some(())
    }

    fn shrink(&mut self, most: usize) {
        while self.size > most {
            let gone = self.table.pop_back();
            self.size -= gone.map_or(self.size, |entry| entry.size);
        }
    }
}

impl<'a> HeaderBlock<'a> {
    /// An integer whose first octet has `bits` of it (RFC 7541 §5.1).
    fn integer(&mut self, bits: u32) -> Option<usize> {
        let (first, mut rest) = self.0.split_first()?;
        let mask = (1_usize << bits) - 1;
        let mut number = usize::from(*first) & mask;
        if number == mask {
            for shift in (0..28).step_by(7) {
                let (octet, more) = rest.split_first()?;
                rest = more;
                number += usize::from(octet & 0x7f) << shift;
                if octet & 0x80 == 0 {
                    self.0 = rest;
                    return Some(number);
                }
            }
            return None;
        }
        self.0 = rest;
        Some(number)
    }

    /// A text as it is on the wire, and whether it is Huffman-coded.
    fn coded(&mut self) -> Option<(HpackStringCoding, &'a [u8])> {
        let coding = match self.0.first()? & 0x80 {
            0 => HpackStringCoding::Plain,
            _ => HpackStringCoding::Huffman,
        };
        let length = self.integer(7)?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some((coding, text))
    }

    fn text(&mut self, into: &mut Vec<u8>) -> Option<()> {
        into.clear();
        match self.coded()? {
            (HpackStringCoding::Plain, text) => into.extend_from_slice(text),
            (HpackStringCoding::Huffman, text) => decode(text, into)?,
        }
        Some(())
    }
}

/// How a text is written.
#[derive(Clone, Copy)]
enum HpackStringCoding {
    Plain,
    Huffman,
}

/// Decodes a Huffman-coded text. The bits that are left over must be ones, fewer than eight.
pub(crate) fn decode(coded: &[u8], into: &mut Vec<u8>) -> Option<()> {
    let mut rest = coded.iter();
    // The bits that are decoded next, from the highest one on.
    let (mut window, mut bits) = (0_u64, 0_usize);
    loop {
        while bits <= 56 {
            let Some(octet) = rest.next() else { break };
            window |= u64::from(*octet) << (56 - bits);
            bits += 8;
        }
        let fitting = LENGTHS.iter().zip(1_usize..).find_map(|(codes, length)| {
            let code = (window >> (64 - length)) as u32;
            let nth = code.checked_sub(codes.first)?;
            (nth < codes.count).then_some((length, codes.place + nth))
        });
        match fitting {
            Some((length, place)) if length <= bits => {
                into.push(*OCTETS.get(place as usize)?);
                window <<= length;
                bits -= length;
            }
            _ => {
                let ones = !(u64::MAX.checked_shr(bits as u32).unwrap_or(0));
                return (bits < 8 && window == ones).then_some(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text
            .chars()
            .filter_map(|c| c.to_digit(16))
            .map(|digit| digit as u8)
            .collect();
        digits
            .chunks(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect()
    }

    impl HpackReader {
        fn cut_path(&mut self, block: &[u8]) -> Result<Option<FragmentlessPath>, HpackError> {
            self.read(block).map(|told| told.cut)
        }
    }

    fn decoded(coded: &[u8]) -> Option<Vec<u8>> {
        let mut text = Vec::new();
        decode(coded, &mut text).map(|()| text)
    }

    /// From RFC 7541, appendix C.
    #[test]
    fn texts_are_decoded_as_the_rfc_has_them() {
        for (coded, text) in [
            ("f1e3c2e5f23a6ba0ab90f4ff", "www.example.com"),
            ("a8eb10649cbf", "no-cache"),
            ("25a849e95ba97d7f", "custom-key"),
            ("25a849e95bb8e8b4bf", "custom-value"),
            ("b958d33f", ":path"),
            (
                "94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
                "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
            ),
        ] {
            assert_eq!(
                decoded(&hex(coded)).as_deref(),
                Some(text.as_bytes()),
                "{text}"
            );
        }
        assert_eq!(
            decoded(&[0xff, 0xff, 0xff, 0xff]),
            None,
            "the end is no octet"
        );
        assert_eq!(decoded(&[0x07, 0xff]), None, "too much padding");
        assert_eq!(decoded(&[0x00]), None, "padding is ones");
    }

    /// The requests of RFC 7541, appendix C.4, checked by the table sizes given there.
    #[test]
    fn the_table_grows_and_shrinks_as_the_rfc_has_it() {
        let mut fields = HpackReader::default();
        for (block, size) in [
            ("828684418cf1e3c2e5f23a6ba0ab90f4ff", 57),
            ("828684be5886a8eb10649cbf", 110),
            ("828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf", 164),
        ] {
            assert_eq!(fields.cut_path(&hex(block)), Ok(None));
            assert_eq!(fields.size, size);
        }
        assert_eq!(
            fields.cut_path(&[0x3f, 0x1f + 64]),
            Ok(None),
            "126 octets are left"
        );
        assert_eq!((fields.size, fields.table.len()), (107, 2));
        assert_eq!(fields.cut_path(&[0x20]), Ok(None));
        assert_eq!((fields.size, fields.table.len()), (0, 0));
        assert_eq!(
            fields.cut_path(&[0x3f, 0xe2, 0x1f]),
            Err(HpackError),
            "4,097"
        );
    }

    #[test]
    fn an_expectation_is_found_however_it_is_written() {
        let waits = |fields: &mut HpackReader, block: &[u8]| fields.read(block).unwrap().content;
        let mut fields = HpackReader::default();
        let by_name = [&[0x0f, 35 - 15, 12][..], CONTINUE].concat();
        for block in [
            literal(0, EXPECT, b"100-Continue"),
            literal(0x10, EXPECT, CONTINUE),
            literal(0x40, EXPECT, CONTINUE),
            by_name,
            vec![0x80 | 62],
        ] {
            assert_eq!(
                waits(&mut fields, &block),
                ContentExpectation::Waits,
                "{block:x?}"
            );
        }
        for block in [
            literal(0, EXPECT, b"100"),
            literal(0, b"x-expect", CONTINUE),
            vec![0x80 | 35],
        ] {
            assert_eq!(
                waits(&mut fields, &block),
                ContentExpectation::Comes,
                "{block:x?}"
            );
        }
    }

    /// A field whose name and value are literal.
    fn literal(form: u8, name: &[u8], value: &[u8]) -> Vec<u8> {
        let mut block = vec![form, name.len() as u8];
        block.extend(name);
        block.push(value.len() as u8);
        block.extend(value);
        block
    }

    #[test]
    fn a_fragment_is_found_however_the_path_is_written() {
        let cut = |text: &[u8]| Ok(Some(text.into()));
        let mut fields = HpackReader::default();
        assert_eq!(fields.cut_path(&literal(0, PATH, b"/a#b")), cut(b"/a"));
        assert_eq!(fields.cut_path(&literal(0x10, PATH, b"#")), cut(b""));
        assert_eq!(fields.cut_path(&literal(0, PATH, b"/a")), Ok(None));
        assert_eq!(fields.cut_path(&literal(0, b"referer", b"/a#b")), Ok(None));
        let by_name = [&[0x04, 4][..], b"/c#d"].concat();
        assert_eq!(fields.cut_path(&by_name), cut(b"/c"));
        // `#` is 111111111010, with `/` before it 011000.
        let by_code = [0x04, 0x83, 0b0110_0011, 0b1111_1110, 0b1011_1111];
        assert_eq!(fields.cut_path(&by_code), cut(b"/"));
        assert_eq!(fields.cut_path(&literal(0x40, PATH, b"/e#f")), cut(b"/e"));
        assert_eq!(fields.cut_path(&literal(0x40, b"x", b"y")), Ok(None));
        assert_eq!(fields.cut_path(&[0x80 | 63]), cut(b"/e"), "from the table");
        let by_entry = [&[0x0f, 63 - 15, 4][..], b"/g#h"].concat();
        assert_eq!(fields.cut_path(&by_entry), cut(b"/g"));
        for bad in [
            &[0x80][..],
            &[0x80 | 70],
            &[0x04, 9, b'/'],
            &[0x7f, 0xff, 0xff, 0xff, 0xff, 1],
        ] {
            assert_eq!(
                HpackReader::default().cut_path(bad),
                Err(HpackError),
                "{bad:?}"
            );
        }
    }
}
