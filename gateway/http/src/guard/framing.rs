//! Finds where messages begin and end on an HTTP/1 connection, before hyper sees the bytes.
//!
//! hyper itself refuses most malformed messages (see the table in
//! `tests/tests/e2e/attack_http1.rs`). This module is for those that hyper repairs without a
//! word, where a proxy before us may have read another message: both lengths at once, a length
//! twice, lines that end in a bare LF (RFC 9112 §2.2), a fragment in the target, loose trailers.
//! The neighbour `server/wire` hands over every byte that it reads and acts on the
//! [`FramingVerdict`]; a fault in a head is answered by `server/service` when its turn comes.
//!
//! Decision: it follows the framing itself, instead of looking at the kept bytes of odd requests
//! only: so it also sees a head behind a body or behind another head, and copies no byte. A
//! small head costs one `memchr` a line. It need not know everything that makes a head bad:
//! hyper and [`check`](super::check) still judge what it lets pass, and after a refusal the
//! connection ends, so that the two never continue from different places.

use memchr::{memchr, memrchr};

use super::chunks::{ChunkParserState, ChunkProgress, skip};

/// The state between two reads.
#[derive(Default)]
pub struct Framing {
    state: ParserState,
    /// Complete heads so far.
    heads: u64,
    /// What the lines of the present head said so far.
    head: FramingFields,
    /// The part of a line that came with an earlier read.
    begun: PartialLine,
    fault: Option<FramingFault>,
}

/// Which of the bytes that were handed over the reader may see.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FramingVerdict {
    /// All of them.
    Pass,
    /// Those before this place. The request that ends there asks for an upgrade, so what follows
    /// may not be HTTP: it must be handed over again when that request is answered.
    Hold(usize),
    /// Those before this place: a body breaks off there.
    Cut(usize),
}

/// What is wrong with a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum FramingFault {
    LengthAndCoding = 1,
    Lengths,
    Length,
    BareLf,
    Fragment,
    Chunk,
}

#[derive(Clone, Copy, Default)]
enum ParserState {
    /// Before a request line; empty lines may stand there (RFC 9112 §2.2).
    #[default]
    Start,
    Fields,
    /// This many bytes of content are still to come.
    Content(u64),
    Chunks(ChunkParserState),
    Trailers,
    /// After a fault: nothing that follows has a meaning.
    Lost,
}

#[derive(Clone, Copy, Default)]
struct FramingFields {
    length: Option<u64>,
    coded: bool,
    upgrade: bool,
}

/// Bytes of an incomplete line. Of a long line it keeps the first bytes, then a space and a `#` if
/// these follow, in this order, and the last byte.
#[derive(Default)]
struct PartialLine(Vec<u8>);

/// How many bytes are kept of a line that comes in pieces. A `Content-Length` line that is longer
/// is refused in any case, so that the result does not depend on the pieces.
const KEPT: usize = 512;

impl FramingFault {
    /// The reason in words for the client.
    pub fn reason(self) -> &'static str {
        match self {
            Self::LengthAndCoding => "Content-Length beside Transfer-Encoding",
            Self::Lengths => "more than one Content-Length",
            Self::Length => "Content-Length is not a number",
            Self::BareLf => "a line ends without CR",
            Self::Fragment => "the target has a fragment",
            Self::Chunk => "the chunks are malformed",
        }
    }

    /// The fault that `self as u8` stands for.
    pub fn of(code: u8) -> Option<Self> {
        let all = [
            Self::LengthAndCoding,
            Self::Lengths,
            Self::Length,
            Self::BareLf,
            Self::Fragment,
            Self::Chunk,
        ];
        all.into_iter().find(|fault| *fault as u8 == code)
    }
}

impl Framing {
    /// Takes the next bytes of the connection.
    pub fn feed(&mut self, bytes: &[u8]) -> FramingVerdict {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            let taken = match &mut self.state {
                ParserState::Start | ParserState::Fields | ParserState::Trailers => self.line(rest),
                ParserState::Content(left) => {
                    let taken = skip(left, rest.len());
                    if *left == 0 {
                        self.state = ParserState::Start;
                    }
                    Ok(taken)
                }
                ParserState::Chunks(chunks) => match chunks.take(rest) {
                    ChunkProgress::More => Ok(rest.len()),
                    ChunkProgress::Last(taken) => {
                        self.state = ParserState::Trailers;
                        Ok(taken)
                    }
                    ChunkProgress::Broken(place) => {
                        at += place;
                        Err(FramingFault::Chunk)
                    }
                },
                ParserState::Lost => return FramingVerdict::Pass,
            };
            match taken {
                Ok(taken) => at += taken,
                Err(fault) => return self.lost(fault, at),
            }
            if self.head.upgrade && matches!(self.state, ParserState::Start) {
                self.head.upgrade = false;
                if at < bytes.len() {
                    return FramingVerdict::Hold(at);
                }
            }
        }
        FramingVerdict::Pass
    }

    /// The first message with a fault, counted from 1, and the fault. A broken body counts for the
    /// message after it: the reader of the body itself gets an error.
    pub fn fault(&self) -> Option<(u64, FramingFault)> {
        self.fault.map(|fault| (self.heads + 1, fault))
    }

    /// Whether what has been read ends where a message ends.
    pub fn is_between(&self) -> bool {
        matches!(self.state, ParserState::Start) && self.begun.0.is_empty()
    }

    /// Whether a head has begun and is not complete.
    pub fn is_in_head(&self) -> bool {
        match self.state {
            ParserState::Start => !self.begun.0.is_empty(),
            ParserState::Fields | ParserState::Lost => true,
            ParserState::Content(_) | ParserState::Chunks(_) | ParserState::Trailers => false,
        }
    }

    /// Takes one line, or as much of it as there is. Returns the number of bytes.
    fn line(&mut self, rest: &[u8]) -> Result<usize, FramingFault> {
        let Some(end) = memchr(b'\n', rest) else {
            self.begun.add(rest);
            return Ok(rest.len());
        };
        let line = &rest[..end];
        if self.begun.0.is_empty() {
            self.judge(line)?;
        } else {
            let mut begun = std::mem::take(&mut self.begun);
            begun.add(line);
            self.judge(&begun.0)?;
        }
        Ok(end + 1)
    }

    /// Judges a line without its LF.
    fn judge(&mut self, line: &[u8]) -> Result<(), FramingFault> {
        let line = line.strip_suffix(b"\r").ok_or(FramingFault::BareLf)?;
        match (self.state, line.is_empty()) {
            (ParserState::Start, true) | (ParserState::Trailers, false) => {}
            (ParserState::Start, false) => {
                if has_fragment(line) {
                    return Err(FramingFault::Fragment);
                }
                self.head = FramingFields::default();
                self.state = ParserState::Fields;
            }
            (ParserState::Trailers, true) => self.state = ParserState::Start,
            (_, false) => self.head.field(line)?,
            (_, true) => {
                self.state = self.head.content()?;
                self.heads += 1;
            }
        }
        Ok(())
    }

    /// A bad head is passed on and refused when its turn comes; a bad body is cut where it is bad.
    fn lost(&mut self, fault: FramingFault, at: usize) -> FramingVerdict {
        let in_body = matches!(self.state, ParserState::Chunks(_) | ParserState::Trailers);
        self.state = ParserState::Lost;
        self.fault = Some(fault);
        if in_body {
            FramingVerdict::Cut(at)
        } else {
            FramingVerdict::Pass
        }
    }
}

impl FramingFields {
    fn field(&mut self, line: &[u8]) -> Result<(), FramingFault> {
        match line[0] | 0x20 {
            b'c' => {
                if let Some(value) = value(line, b"content-length") {
                    let length = number(value).filter(|_| line.len() + 1 < KEPT);
                    let length = length.ok_or(FramingFault::Length)?;
                    if self.length.replace(length).is_some() {
                        return Err(FramingFault::Lengths);
                    }
                }
            }
            b't' => self.coded |= value(line, b"transfer-encoding").is_some(),
            b'u' => self.upgrade |= value(line, b"upgrade").is_some(),
            _ => {}
        }
        Ok(())
    }

    /// What follows the head (RFC 9112 §6.3).
    fn content(self) -> Result<ParserState, FramingFault> {
        match (self.length, self.coded) {
            (Some(_), true) => Err(FramingFault::LengthAndCoding),
            (None, true) => Ok(ParserState::Chunks(ChunkParserState::default())),
            (None | Some(0), false) => Ok(ParserState::Start),
            (Some(length), false) => Ok(ParserState::Content(length)),
        }
    }
}

impl PartialLine {
    fn add(&mut self, bytes: &[u8]) {
        let room = KEPT.saturating_sub(self.0.len()).min(bytes.len());
        self.0.extend_from_slice(&bytes[..room]);
        for byte in &bytes[room..] {
            self.push_to_long_line(*byte);
        }
    }

    /// Drops the byte before this one, and marks what [`has_fragment`] would have found with it.
    fn push_to_long_line(&mut self, byte: u8) {
        let [kept @ .., space, mark, end] = &mut self.0[..] else {
            return;
        };
        let dropped = std::mem::replace(end, byte);
        if !matches!(dropped, b' ' | b'#') {
            return;
        }
        let has_space = *space == b' ' || *mark == b' ' || memchr(b' ', kept).is_some();
        match (dropped, has_space) {
            (b'#', true) => (*space, *mark) = (b' ', b'#'),
            (b' ', false) => (*space, *mark) = (b' ', b' '),
            _ => {}
        }
    }
}

/// The value of the field if it is `name` (in lower case), with its white space.
fn value<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (given, rest) = line.split_at_checked(name.len())?;
    rest.strip_prefix(b":")
        .filter(|_| given.eq_ignore_ascii_case(name))
}

/// `1*DIGIT`, if it fits into the type (RFC 9110 §8.6).
fn number(value: &[u8]) -> Option<u64> {
    let digits = value.trim_ascii();
    let plain = digits.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(digits).ok().filter(|_| plain)?;
    text.parse().ok()
}

/// Whether there is a `#` behind the method: http's `Uri` would drop it and what follows silently.
fn has_fragment(line: &[u8]) -> bool {
    memrchr(b'#', line).is_some_and(|at| memchr(b' ', &line[..at]).is_some())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Framing, FramingFault, FramingVerdict, KEPT};

    fn fed(text: &str) -> (FramingVerdict, Option<(u64, FramingFault)>) {
        let mut framing = Framing::default();
        let verdict = framing.feed(text.as_bytes());
        (verdict, framing.fault())
    }

    const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

    #[test]
    fn plain_messages_pass_one_after_the_other() {
        let sized = "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nG\n#\r\n";
        let chunked = format!("{POST}5;a=\"b\"\r\n#\n\n\r\n\r\n00\r\nx-sum: 1\r\n\r\n");
        for text in [GET, sized, &chunked] {
            let mut framing = Framing::default();
            let text = format!("\r\n{text}{GET}{text}");
            assert_eq!(framing.feed(text.as_bytes()), FramingVerdict::Pass);
            assert_eq!(framing.fault(), None, "{text}");
            assert!(framing.is_between() && !framing.is_in_head());
            framing.feed(b"G");
            assert!(framing.is_in_head() && !framing.is_between());
        }
    }

    #[test]
    fn what_hyper_repairs_is_a_fault_of_its_own_request() {
        let head = |fields: &str| format!("POST / HTTP/1.1\r\n{fields}\r\n\r\n");
        for (head, fault) in [
            (
                head("Content-Length: 5\r\nTransfer-Encoding: chunked"),
                FramingFault::LengthAndCoding,
            ),
            (
                head("transfer-encoding:x\r\nA: b\r\nCONTENT-LENGTH:0"),
                FramingFault::LengthAndCoding,
            ),
            (
                head("Content-Length: 5\r\nContent-Length: 5"),
                FramingFault::Lengths,
            ),
            (head("Content-Length: +5"), FramingFault::Length),
            (
                head("Content-Length: 18446744073709551616"),
                FramingFault::Length,
            ),
            (head("Content-Length:"), FramingFault::Length),
            (head("A: b\nC: d"), FramingFault::BareLf),
            ("GET / HTTP/1.1\n\n".to_owned(), FramingFault::BareLf),
            ("\nGET / HTTP/1.1\r\n\r\n".to_owned(), FramingFault::BareLf),
            (
                "GET /a#b HTTP/1.1\r\n\r\n".to_owned(),
                FramingFault::Fragment,
            ),
        ] {
            let text = format!("{GET}{POST}0\r\n\r\n{head}{GET}");
            assert_eq!(
                fed(&text),
                (FramingVerdict::Pass, Some((3, fault))),
                "{head}"
            );
        }
    }

    #[test]
    fn a_body_ends_where_its_chunks_are_malformed() {
        for (good, bad) in [
            ("0", "x5\r\nabcde\r\n"),
            ("", "+5\r\n"),
            ("", "\r\n"),
            ("5", "\nabcde\r\n"),
            ("5\r", "abcde"),
            ("5\r\nabcde", "f\r\n"),
            ("5\r\nabcde\r", "0\r\n"),
            ("5;a", "\n\r\n"),
            ("5;a", "\0\r\n"),
            ("0000000000000000", "5\r\n"),
        ] {
            let wanted = FramingVerdict::Cut(POST.len() + good.len());
            let fault = Some((2, FramingFault::Chunk));
            assert_eq!(
                fed(&format!("{POST}{good}{bad}")),
                (wanted, fault),
                "{good:?} {bad:?}"
            );
        }
        let trailers = format!("{POST}0\r\na: b\r\n");
        assert_eq!(
            fed(&format!("{trailers}c: d\n\r\n")),
            (
                FramingVerdict::Cut(trailers.len()),
                Some((2, FramingFault::BareLf))
            )
        );
    }

    #[test]
    fn what_follows_an_upgrade_waits_for_its_answer() {
        let upgrade = "GET / HTTP/1.1\r\nUpgrade: x\r\n\r\n";
        let text = format!("{upgrade}\n\n");
        assert_eq!(fed(&text), (FramingVerdict::Hold(upgrade.len()), None));
        assert_eq!(fed(upgrade), (FramingVerdict::Pass, None));
        let mut framing = Framing::default();
        assert_eq!(framing.feed(upgrade.as_bytes()), FramingVerdict::Pass);
        assert_eq!(
            framing.feed(GET.as_bytes()),
            FramingVerdict::Pass,
            "it was refused"
        );
        assert_eq!(framing.fault(), None);
    }

    #[test]
    fn a_line_that_comes_in_pieces_takes_little_memory() {
        let mut framing = Framing::default();
        framing.feed(b"GET /");
        for _ in 0..10_000 {
            framing.feed(b"aaaaaaaaaa");
        }
        assert!(framing.begun.0.len() <= KEPT);
        framing.feed(b" HTTP/1.1\r");
        assert_eq!(framing.feed(b"\n\r\n"), FramingVerdict::Pass);
        assert!(framing.fault().is_none() && framing.is_between());
    }

    /// Guards against a head that the guard does not see because a long line before it is split.
    #[test]
    fn a_long_line_means_the_same_in_pieces() {
        let long = "a".repeat(KEPT);
        let zeros = "0".repeat(KEPT);
        let nearly = "a".repeat(KEPT - 3);
        let marks = ["#", "##", "###", "####"].map(|marks| format!("{nearly}{marks}"));
        let [one, two, three, four] = marks.map(|method| {
            let text = format!("{method} /{long}#b HTTP/1.1\r\n\r\n");
            (text, FramingFault::Fragment)
        });
        for (text, fault) in [
            one,
            two,
            three,
            four,
            (
                format!("GET /{long}#b HTTP/1.1\r\n\r\n"),
                FramingFault::Fragment,
            ),
            (
                format!("{long} /{long}#b HTTP/1.1\r\n\r\n"),
                FramingFault::Fragment,
            ),
            (
                format!("{nearly} #b HTTP/1.1\r\n\r\n"),
                FramingFault::Fragment,
            ),
            (
                format!("POST / HTTP/1.1\r\nContent-Length: {zeros}5\r\n\r\n"),
                FramingFault::Length,
            ),
        ] {
            for cut in 0..text.len() {
                let (_, found) = in_pieces(text.as_bytes(), &[cut]);
                assert_eq!(found, Some((1, fault)), "cut at {cut}");
            }
        }
    }

    /// A `#` in a long method is none in the target.
    #[test]
    fn a_number_sign_before_the_target_is_no_fragment_in_any_pieces() {
        for length in KEPT - 5..KEPT + 5 {
            let text = format!("{}# / HTTP/1.1\r\n\r\n", "a".repeat(length));
            for cut in 0..text.len() {
                let (_, found) = in_pieces(text.as_bytes(), &[cut]);
                assert_eq!(found, None, "{length}, cut at {cut}");
            }
        }
    }

    /// Feeds `text` in pieces that end at `cuts`; bytes that were held are handed over again.
    fn in_pieces(text: &[u8], cuts: &[usize]) -> (usize, Option<(u64, FramingFault)>) {
        let mut framing = Framing::default();
        let (mut at, mut ends) = (0, cuts.to_vec());
        ends.push(text.len());
        ends.sort_unstable();
        for end in ends {
            let end = end.min(text.len());
            while at < end {
                match framing.feed(&text[at..end]) {
                    FramingVerdict::Pass => at = end,
                    FramingVerdict::Hold(shown) => at += shown,
                    FramingVerdict::Cut(shown) => return (at + shown, framing.fault()),
                }
            }
        }
        (at, framing.fault())
    }

    fn messages() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just(GET.as_bytes().to_vec()),
            Just(POST.as_bytes().to_vec()),
            Just(b"POST / HTTP/1.1\r\nContent-Length: 7\r\n\r\n".to_vec()),
            Just(b"GET / HTTP/1.1\r\nUpgrade: x\r\n\r\n".to_vec()),
            Just(b"3\r\nabc\r\n".to_vec()),
            Just(b"0\r\n\r\n".to_vec()),
            Just(b"0\r\na: b\r\n\r\n".to_vec()),
            Just(b"Content-Length: 1\r\n".to_vec()),
            proptest::collection::vec(any::<u8>(), 0..6),
        ];
        proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn how_the_bytes_are_cut_makes_no_difference(
            text in messages(),
            cuts in proptest::collection::vec(0_usize..300, 0..6),
        ) {
            let (whole, fault) = in_pieces(&text, &[]);
            let (cut, same) = in_pieces(&text, &cuts);
            prop_assert_eq!(fault, same);
            // Of a bad trailer line the reader sees the part that came with earlier reads.
            prop_assert!(cut == whole || fault.is_some_and(|(_, fault)| fault == FramingFault::BareLf));
        }
    }
}
