//! Frames of a request's stream (RFC 9114 §7), read piece by piece.
//!
//! Nothing is kept but the section of a HEADERS frame, and that only if its length is allowed. The
//! content of DATA passes through as it comes. Frames of unknown types are skipped, but not without
//! end: whoever sends many of them, or frames that carry nothing, sends them to cost us something.

use bytes::{Buf, Bytes, BytesMut};

use super::{Http3Code, Http3Excess, Http3Fault, varint};

/// Types of frames (RFC 9114 §11.2.1).
pub mod kind {
    pub const DATA: u64 = 0x0;
    pub const HEADERS: u64 = 0x1;
    pub const CANCEL_PUSH: u64 = 0x3;
    pub const SETTINGS: u64 = 0x4;
    pub const PUSH_PROMISE: u64 = 0x5;
    pub const GOAWAY: u64 = 0x7;
    pub const MAX_PUSH_ID: u64 = 0xd;
    /// RFC 9218 §7.2: what a client says anew of a request, and of a push.
    pub const PRIORITY_UPDATE: u64 = 0xf_0700;
    pub const PRIORITY_UPDATE_OF_PUSH: u64 = 0xf_0701;

    /// Whether the type is one of HTTP/2 that must not be sent (RFC 9114 §7.2.8).
    pub fn is_of_http2(kind: u64) -> bool {
        matches!(kind, 0x2 | 0x6 | 0x8 | 0x9)
    }
}

/// What a stream brings.
#[derive(PartialEq, Eq, Debug)]
pub enum RequestFrame {
    /// The section of the head or, after it, of trailers.
    Section(Bytes),
    /// Some of the content.
    Content(Bytes),
}

/// Why no further frame can be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameFault {
    Http3(Http3Fault),
    /// The section is longer than any that is allowed. It was not read.
    SectionTooLarge,
}

impl FrameFault {
    const UNEXPECTED: Self = Self::of_connection(Http3Code::FrameUnexpected);
    const BROKEN: Self = Self::of_connection(Http3Code::FrameError);
    const EMPTY: Self = Self::of_connection(Http3Code::ExcessiveLoad(Http3Excess::EmptyFrames));
    const UNKNOWN: Self = Self::of_connection(Http3Code::ExcessiveLoad(Http3Excess::UnknownFrames));

    const fn of_connection(code: Http3Code) -> Self {
        Self::Http3(Http3Fault::Connection(code))
    }
}

/// Frames of one stream that carry nothing.
const MOST_IDLE: u32 = 128;
/// The octets of frames of unknown types on one stream.
const MOST_SKIPPED: u64 = 64 << 10;
/// A type and a length.
const MOST_HEAD: usize = 16;

/// Finds the frames in the octets of one stream.
pub struct FrameReader {
    /// Octets that came and were not looked at.
    rest: Bytes,
    state: ReadState,
    stage: MessageStage,
    most_section: u64,
    idle: u32,
    skipped: u64,
}

enum ReadState {
    /// In the type and length of a frame.
    Head(BytesMut),
    Section {
        length: usize,
        octets: BytesMut,
    },
    Content {
        left: u64,
    },
    Skipped {
        left: u64,
    },
}

/// How far the message has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum MessageStage {
    BeforeHead,
    Content,
    AfterTrailers,
}

impl FrameReader {
    /// `most_section` is the most octets of a section.
    pub fn new(most_section: u64) -> Self {
        Self {
            rest: Bytes::new(),
            state: ReadState::Head(BytesMut::new()),
            stage: MessageStage::BeforeHead,
            most_section,
            idle: 0,
            skipped: 0,
        }
    }

    /// Adds octets that came. The ones before must be used up.
    pub fn feed(&mut self, octets: Bytes) {
        debug_assert!(self.rest.is_empty(), "octets are fed when all are read");
        self.rest = octets;
    }

    /// The next frame, or some of its content. None if more octets are needed.
    ///
    /// # Errors
    /// When the client breaks the protocol; nothing more can be read then.
    pub fn next_frame(&mut self) -> Result<Option<RequestFrame>, FrameFault> {
        loop {
            match &mut self.state {
                ReadState::Head(head) => {
                    let Some(octet) = self.rest.first().copied() else {
                        return Ok(None);
                    };
                    self.rest.advance(1);
                    head.extend_from_slice(&[octet]);
                    if let Some((kind, length)) = kind_and_length(head) {
                        self.begin(kind, length)?;
                    } else if head.len() >= MOST_HEAD {
                        return Err(FrameFault::BROKEN);
                    }
                }
                ReadState::Section { length, octets } => {
                    let wanted = (*length - octets.len()).min(self.rest.len());
                    octets.extend_from_slice(&self.rest.split_to(wanted));
                    if octets.len() < *length {
                        return Ok(None);
                    }
                    let section = std::mem::take(octets).freeze();
                    self.state = ReadState::Head(BytesMut::new());
                    return Ok(Some(RequestFrame::Section(section)));
                }
                ReadState::Content { left: 0 } | ReadState::Skipped { left: 0 } => {
                    self.state = ReadState::Head(BytesMut::new());
                }
                ReadState::Content { left } | ReadState::Skipped { left }
                    if self.rest.is_empty() =>
                {
                    debug_assert!(*left > 0);
                    return Ok(None);
                }
                ReadState::Content { left } => {
                    let piece = take(&mut self.rest, left);
                    return Ok(Some(RequestFrame::Content(piece)));
                }
                ReadState::Skipped { left } => {
                    let piece = take(&mut self.rest, left);
                    self.skipped += piece.len() as u64;
                    if self.skipped > MOST_SKIPPED {
                        return Err(FrameFault::UNKNOWN);
                    }
                }
            }
        }
    }

    /// Checks that the stream may end here.
    ///
    /// # Errors
    /// In the middle of a frame, or before the head.
    pub fn end(&self) -> Result<(), FrameFault> {
        let between = match &self.state {
            ReadState::Head(head) => head.is_empty(),
            ReadState::Section { .. } => false,
            ReadState::Content { left } | ReadState::Skipped { left } => *left == 0,
        };
        match (between, self.stage) {
            (false, _) => Err(FrameFault::BROKEN),
            (true, MessageStage::BeforeHead) => Err(FrameFault::Http3(Http3Fault::Stream(
                Http3Code::RequestIncomplete,
            ))),
            (true, _) => Ok(()),
        }
    }

    fn begin(&mut self, kind: u64, length: u64) -> Result<(), FrameFault> {
        self.state = match kind {
            kind::DATA if self.stage == MessageStage::Content => {
                self.count_idle(length)?;
                ReadState::Content { left: length }
            }
            kind::HEADERS if self.stage != MessageStage::AfterTrailers => {
                self.stage = match self.stage {
                    MessageStage::BeforeHead => MessageStage::Content,
                    _ => MessageStage::AfterTrailers,
                };
                let fitting = usize::try_from(length).ok();
                match fitting.filter(|_| length <= self.most_section) {
                    Some(length) => ReadState::Section {
                        length,
                        octets: BytesMut::with_capacity(length.min(self.rest.len().max(256))),
                    },
                    None => return Err(FrameFault::SectionTooLarge),
                }
            }
            kind::DATA
            | kind::HEADERS
            | kind::CANCEL_PUSH
            | kind::SETTINGS
            | kind::PUSH_PROMISE
            | kind::GOAWAY
            | kind::MAX_PUSH_ID
            | kind::PRIORITY_UPDATE
            | kind::PRIORITY_UPDATE_OF_PUSH => return Err(FrameFault::UNEXPECTED),
            kind if kind::is_of_http2(kind) => return Err(FrameFault::UNEXPECTED),
            _ => {
                self.count_idle(0)?;
                ReadState::Skipped { left: length }
            }
        };
        Ok(())
    }

    /// Counts a frame if it carries nothing.
    fn count_idle(&mut self, length: u64) -> Result<(), FrameFault> {
        self.idle += u32::from(length == 0);
        match self.idle > MOST_IDLE {
            true => Err(FrameFault::EMPTY),
            false => Ok(()),
        }
    }
}

fn kind_and_length(head: &[u8]) -> Option<(u64, u64)> {
    let (kind, taken) = varint::read(head)?;
    let (length, _) = varint::read(&head[taken..])?;
    Some((kind, length))
}

/// Takes what is there, `left` octets at most, and counts it.
fn take(rest: &mut Bytes, left: &mut u64) -> Bytes {
    let count = usize::try_from(*left).map_or(rest.len(), |left| left.min(rest.len()));
    *left -= count as u64;
    rest.split_to(count)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u64, body: &[u8]) -> Vec<u8> {
        let mut octets = Vec::new();
        varint::write(&mut octets, kind);
        varint::write(&mut octets, body.len() as u64);
        octets.extend_from_slice(body);
        octets
    }

    /// All that the octets bring in pieces of this size: sections, and the content as a whole.
    fn read(octets: &[u8], piece: usize) -> Result<(Vec<Bytes>, Vec<u8>), FrameFault> {
        let mut reader = FrameReader::new(100);
        let (mut sections, mut content) = (Vec::new(), Vec::new());
        for piece in octets.chunks(piece) {
            reader.feed(Bytes::copy_from_slice(piece));
            while let Some(frame) = reader.next_frame()? {
                match frame {
                    RequestFrame::Section(section) => sections.push(section),
                    RequestFrame::Content(piece) => content.extend_from_slice(&piece),
                }
            }
        }
        reader.end().map(|()| (sections, content))
    }

    #[test]
    fn head_content_and_trailers_are_found_in_pieces_of_any_size() {
        let octets = [
            frame(0x21, b"grease"),
            frame(kind::HEADERS, b"head"),
            frame(kind::DATA, b"con"),
            frame(0x5f, b""),
            frame(kind::DATA, b"tent"),
            frame(kind::HEADERS, b"trailers"),
        ]
        .concat();
        for piece in 1..=octets.len() {
            let (sections, content) = read(&octets, piece).unwrap();
            assert_eq!(sections, ["head", "trailers"]);
            assert_eq!(content, b"content");
        }
    }

    #[test]
    fn what_is_out_of_place_ends_the_connection() {
        let head = frame(kind::HEADERS, b"h");
        let after = |more: Vec<u8>| [head.clone(), more].concat();
        for octets in [
            frame(kind::DATA, b"x"),
            frame(kind::SETTINGS, b""),
            after(frame(kind::SETTINGS, b"")),
            after(frame(kind::GOAWAY, b"")),
            after(frame(kind::PUSH_PROMISE, b"")),
            after(frame(kind::PRIORITY_UPDATE, b"\0u=1")),
            after(frame(kind::PRIORITY_UPDATE_OF_PUSH, b"\0u=1")),
            after(frame(0x2, b"")),
            after(frame(0x9, b"")),
            [after(frame(kind::HEADERS, b"t")), frame(kind::DATA, b"x")].concat(),
            [after(frame(kind::HEADERS, b"t")), head.clone()].concat(),
        ] {
            assert_eq!(read(&octets, 7), Err(FrameFault::UNEXPECTED), "{octets:?}");
        }
    }

    #[test]
    fn a_section_that_is_too_long_is_not_kept() {
        let mut octets = Vec::new();
        varint::write(&mut octets, kind::HEADERS);
        varint::write(&mut octets, 1 << 30);
        assert_eq!(read(&octets, 1), Err(FrameFault::SectionTooLarge));
    }

    #[test]
    fn frames_that_carry_nothing_and_unknown_ones_are_bounded() {
        let head = frame(kind::HEADERS, b"h");
        let many = [head.clone(), frame(kind::DATA, b"").repeat(200)].concat();
        assert_eq!(read(&many, 64), Err(FrameFault::EMPTY));
        let many = [head.clone(), frame(0x21, b"").repeat(200)].concat();
        assert_eq!(read(&many, 64), Err(FrameFault::EMPTY));
        let long = [head, frame(0x21, &[0; 70_000])].concat();
        assert_eq!(read(&long, 1_000), Err(FrameFault::UNKNOWN));
    }

    #[test]
    fn a_stream_must_not_end_in_a_frame_or_before_the_head() {
        let octets = frame(kind::HEADERS, b"head");
        assert_eq!(read(&octets[..3], 9), Err(FrameFault::BROKEN));
        let incomplete = Http3Fault::Stream(Http3Code::RequestIncomplete);
        assert_eq!(read(b"", 9), Err(FrameFault::Http3(incomplete)));
    }

    proptest! {
        #[test]
        fn no_octets_make_it_panic(octets in prop::collection::vec(any::<u8>(), 0..300), piece in 1usize..50) {
            let _ = read(&octets, piece);
        }
    }
}
