//! Questions to name servers and their answers, as octets (RFC 1035 §4).

use std::net::IpAddr;

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DnsKind {
    Address,
    Servers,
    Alias,
    Text,
}

impl DnsKind {
    /// The number of the type.
    fn number(self) -> u16 {
        match self {
            Self::Address => 1,
            Self::Servers => 2,
            Self::Alias => 5,
            Self::Text => 16,
        }
    }
}

/// A question.
pub struct DnsQuestion<'a> {
    pub id: u16,
    pub name: &'a str,
    pub kind: DnsKind,
}

/// What a server has answered.
#[derive(Debug)]
pub struct DnsAnswer {
    /// Whether it did not fit, and must be asked for over TCP.
    pub is_cut: bool,
    pub records: Vec<DnsData>,
}

/// What one record says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DnsData {
    Address(IpAddr),
    Server(String),
    Alias(String),
    Text(Vec<u8>),
}

/// The class of the Internet.
const INTERNET: u16 = 1;

/// The octets of a header.
const HEADER: usize = 12;

/// The most records of an answer that are read.
const MOST_RECORDS: usize = 256;

/// The most parts of a name, with jumps to other places.
const MOST_PARTS: usize = 128;

impl DnsQuestion<'_> {
    /// The question as it is sent. None if the name can't be one.
    pub fn octets(&self) -> Option<Vec<u8>> {
        let mut octets = Vec::with_capacity(HEADER + self.name.len() + 6);
        octets.extend(self.id.to_be_bytes());
        // Recursion is desired; one question.
        octets.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        for label in self.name.trim_end_matches('.').split('.') {
            let length = u8::try_from(label.len()).ok()?;
            if !(1..=63).contains(&length) {
                return None;
            }
            octets.push(length);
            octets.extend(label.as_bytes());
        }
        octets.push(0);
        octets.extend(self.kind.number().to_be_bytes());
        octets.extend(INTERNET.to_be_bytes());
        Some(octets)
    }
}

/// Reads the answer to a question. None if it is none.
pub fn read(octets: &[u8], question: &DnsQuestion<'_>) -> Option<DnsAnswer> {
    let mut reader = MessageReader { octets, at: 0 };
    let (id, flags) = (reader.number()?, reader.number()?);
    let (questions, answers) = (reader.number()?, reader.number()?);
    let is_answer = id == question.id && flags & 0x8000 != 0;
    // 0 is well. There are no records where there is no such name (3), or where the server does not
    // know the type (4).
    if !is_answer || ![0, 3, 4].contains(&(flags & 0xf)) {
        return None;
    }
    reader.at = HEADER;
    for _ in 0..questions {
        reader.name()?;
        reader.skip(4)?;
    }
    let mut records = Vec::new();
    for _ in 0..usize::from(answers).min(MOST_RECORDS) {
        reader.name()?;
        let kind = reader.number()?;
        reader.skip(6)?;
        let length = usize::from(reader.number()?);
        let end = reader.at.checked_add(length)?;
        records.extend(reader.data(kind, end));
        reader.at = end;
    }
    Some(DnsAnswer {
        is_cut: flags & 0x0200 != 0,
        records,
    })
}

/// Reads the octets of a message from a place on.
struct MessageReader<'a> {
    octets: &'a [u8],
    at: usize,
}

impl<'a> MessageReader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(count)?;
        let taken = self.octets.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn skip(&mut self, count: usize) -> Option<()> {
        self.take(count).map(drop)
    }

    fn number(&mut self) -> Option<u16> {
        let octets = self.take(2)?;
        Some(u16::from_be_bytes([octets[0], octets[1]]))
    }

    /// A name, whose end may stand somewhere else in the message (§4.1.4).
    fn name(&mut self) -> Option<String> {
        let mut labels = Vec::new();
        let mut behind = None;
        for _ in 0..MOST_PARTS {
            let length = self.take(1)?[0];
            match length {
                0 => {
                    self.at = behind.unwrap_or(self.at);
                    return Some(labels.join("."));
                }
                1..=63 => {
                    let label = self.take(usize::from(length))?;
                    labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
                }
                192.. => {
                    let low = self.take(1)?[0];
                    behind.get_or_insert(self.at);
                    self.at = usize::from(length & 0x3f) << 8 | usize::from(low);
                }
                _ => return None,
            }
        }
        None
    }

    fn data(&mut self, kind: u16, end: usize) -> Option<DnsData> {
        match kind {
            1 => {
                let octets: [u8; 4] = self.take(4)?.try_into().ok()?;
                Some(DnsData::Address(octets.into()))
            }
            2 => self.name().map(DnsData::Server),
            5 => self.name().map(DnsData::Alias),
            16 => {
                let mut text = Vec::new();
                while self.at < end {
                    let length = usize::from(self.take(1)?[0]);
                    text.extend(self.take(length)?);
                }
                Some(DnsData::Text(text))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const QUESTION: DnsQuestion<'_> = DnsQuestion {
        id: 7,
        name: "_acme-challenge.a.example",
        kind: DnsKind::Text,
    };

    /// An answer with these records, whose names refer to the question's.
    fn answer(records: &[(u16, &[u8])]) -> Vec<u8> {
        let mut octets = QUESTION.octets().unwrap();
        octets[2] = 0x81;
        octets[7] = u8::try_from(records.len()).unwrap();
        for (kind, data) in records {
            octets.extend([0xc0, 12]);
            octets.extend(kind.to_be_bytes());
            octets.extend([0, 1, 0, 0, 0, 60]);
            octets.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
            octets.extend(*data);
        }
        octets
    }

    #[test]
    fn records_are_read_also_where_names_refer_to_others() {
        let octets = answer(&[
            (16, b"\x03one\x03two"),
            (5, b"\x01x\xc0\x1c"),
            (1, &[127, 0, 0, 2]),
            (99, b"?"),
        ]);
        let records = read(&octets, &QUESTION).unwrap().records;
        let expected = [
            DnsData::Text(b"onetwo".to_vec()),
            DnsData::Alias("x.a.example".to_owned()),
            DnsData::Address([127, 0, 0, 2].into()),
        ];
        assert_eq!(records, expected);
    }

    #[test]
    fn what_is_no_answer_is_none() {
        let mut other = answer(&[]);
        other[1] = 8;
        assert!(read(&other, &QUESTION).is_none());
        let mut failed = answer(&[]);
        failed[3] = 2;
        assert!(read(&failed, &QUESTION).is_none());
        let mut circle = answer(&[(5, &[0xc0, 43])]);
        circle.truncate(45);
        assert!(read(&circle, &QUESTION).is_none());
        let long = DnsQuestion {
            name: &"x".repeat(64),
            ..QUESTION
        };
        assert!(long.octets().is_none());
    }

    proptest! {
        #[test]
        fn no_octets_are_too_much(octets in proptest::collection::vec(any::<u8>(), 0..300)) {
            read(&octets, &QUESTION);
            let mut begun = answer(&[(16, b"\x03one")]);
            begun.extend(octets);
            read(&begun, &QUESTION);
        }
    }
}
