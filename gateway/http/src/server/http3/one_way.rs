//! The unidirectional streams of a client (RFC 9114 §6.2): its control stream, those of QPACK, and
//! unknown ones, which are not read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use quinn::{ReadExactError, RecvStream, VarInt};

use super::{CONTROL_STREAM, ClientBudget, Http3Connection};
use crate::http3::frame::kind;
use crate::http3::{Http3Code, Http3Excess, varint};

const PUSH_STREAM: u64 = 0x1;
const QPACK_ENCODER_STREAM: u64 = 0x2;
const QPACK_DECODER_STREAM: u64 = 0x3;

/// The most octets of SETTINGS, and of any other frame that is read.
const MOST_SETTINGS: u64 = 4 << 10;
const MOST_FRAME: u64 = 1 << 10;
/// Frames on the control stream, and instructions of QPACK: so many at once, and so many more each
/// second. A browser sends one for each request whose priority changes, as long as it lives.
const FRAMES: u64 = 1_024;
const FRAMES_PER_SECOND: u64 = 64;
const INSTRUCTIONS: u64 = 8_192;
const INSTRUCTIONS_PER_SECOND: u64 = 64;
/// The octets of an integer in an instruction behind its first: 63 bits need no more.
const MOST_OF_INTEGER: usize = 9;

/// Why a stream is not read any further.
enum StreamEnd {
    /// The client broke the protocol.
    Fault(Http3Code),
    /// The stream ended or was reset, or the connection has ended.
    Ended,
}

type StreamResult<T> = Result<T, StreamEnd>;

/// Reads a stream to its end.
pub(super) async fn read(stream: RecvStream, shared: Arc<Http3Connection>) {
    let mut stream = OneWayReader(stream);
    if let Err(StreamEnd::Fault(code)) = stream.serve(&shared).await {
        shared.close(code);
    }
}

struct OneWayReader(RecvStream);

impl OneWayReader {
    async fn serve(&mut self, shared: &Http3Connection) -> StreamResult<()> {
        let streams = &shared.one_way;
        match self.number().await? {
            CONTROL_STREAM => {
                first_of(&streams.control)?;
                let ended = self.control(shared).await;
                Err(critical(ended))
            }
            QPACK_ENCODER_STREAM => {
                first_of(&streams.encoder)?;
                // Without a dynamic table there is nothing to say on it but that it has no room.
                let ended = self.instructions(|first| first == 0x20, Http3Code::EncoderStreamError);
                Err(critical(ended.await))
            }
            QPACK_DECODER_STREAM => {
                first_of(&streams.decoder)?;
                // Cancelled streams may be told; nothing else refers to nothing.
                let told = |first| first & 0b1100_0000 == 0b0100_0000;
                let ended = self.instructions(told, Http3Code::DecoderStreamError);
                Err(critical(ended.await))
            }
            PUSH_STREAM => Err(StreamEnd::Fault(Http3Code::StreamCreationError)),
            _ => {
                // Fails only if it has ended.
                let _ = self
                    .0
                    .stop(VarInt::from_u32(Http3Code::StreamCreationError.number()));
                Ok(())
            }
        }
    }

    /// Reads the control stream, which begins with SETTINGS.
    async fn control(&mut self, shared: &Http3Connection) -> StreamResult<()> {
        let mut most_push_id = None;
        let budget = ClientBudget::new(FRAMES, FRAMES_PER_SECOND);
        let mut is_first = true;
        loop {
            let kind = self.number().await?;
            let length = self.number().await?;
            if !budget.spend() {
                return Err(too_much(Http3Excess::ControlFrames));
            }
            match (kind, std::mem::take(&mut is_first)) {
                (kind::SETTINGS, true) => self.settings(length).await?,
                (_, true) => return Err(StreamEnd::Fault(Http3Code::MissingSettings)),
                (kind::GOAWAY, _) => {
                    self.sole_number(length).await?;
                }
                (kind::CANCEL_PUSH, _) => {
                    self.sole_number(length).await?;
                    // No push was ever promised (RFC 9114 §7.2.3).
                    return Err(StreamEnd::Fault(Http3Code::IdError));
                }
                (kind::MAX_PUSH_ID, _) => {
                    let id = self.sole_number(length).await?;
                    if most_push_id.is_some_and(|before| id < before) {
                        return Err(StreamEnd::Fault(Http3Code::IdError));
                    }
                    most_push_id = Some(id);
                }
                (kind::PRIORITY_UPDATE, _) => {
                    let (stream, value) = self.priority_update(length).await?;
                    let taken = shared.order.update(stream, &value);
                    taken.map_err(StreamEnd::Fault)?;
                }
                (kind::PRIORITY_UPDATE_OF_PUSH, _) => {
                    self.priority_update(length).await?;
                    // No push was ever promised (RFC 9218 §7.2).
                    return Err(StreamEnd::Fault(Http3Code::IdError));
                }
                (kind::DATA | kind::HEADERS | kind::PUSH_PROMISE | kind::SETTINGS, _) => {
                    return Err(StreamEnd::Fault(Http3Code::FrameUnexpected));
                }
                (kind, _) if kind::is_of_http2(kind) => {
                    return Err(StreamEnd::Fault(Http3Code::FrameUnexpected));
                }
                _ => self.skip(length).await?,
            }
        }
    }

    /// Reads settings. None of them changes what we do; wrong ones are told (RFC 9114 §7.2.4).
    async fn settings(&mut self, length: u64) -> StreamResult<()> {
        if length > MOST_SETTINGS {
            return Err(too_much(Http3Excess::ControlFrameSize));
        }
        let octets = self.octets(length).await?;
        let mut rest = &octets[..];
        let mut seen = Vec::new();
        while !rest.is_empty() {
            let broken = StreamEnd::Fault(Http3Code::FrameError);
            let Some((id, taken)) = varint::read(rest) else {
                return Err(broken);
            };
            let Some((_, more)) = varint::read(&rest[taken..]) else {
                return Err(broken);
            };
            rest = &rest[taken + more..];
            // Those of HTTP/2 are reserved.
            if matches!(id, 0x2..=0x5) || seen.contains(&id) {
                return Err(StreamEnd::Fault(Http3Code::SettingsError));
            }
            seen.push(id);
        }
        Ok(())
    }

    /// Reads PRIORITY_UPDATE: of what something is said, and that.
    async fn priority_update(&mut self, length: u64) -> StreamResult<(u64, Vec<u8>)> {
        if length > MOST_FRAME {
            return Err(too_much(Http3Excess::ControlFrameSize));
        }
        let mut octets = self.octets(length).await?;
        let Some((element, taken)) = varint::read(&octets) else {
            return Err(StreamEnd::Fault(Http3Code::FrameError));
        };
        Ok((element, octets.split_off(taken)))
    }

    /// Reads a frame that is one number.
    async fn sole_number(&mut self, length: u64) -> StreamResult<u64> {
        if length > 8 {
            return Err(StreamEnd::Fault(Http3Code::FrameError));
        }
        let octets = self.octets(length).await?;
        match varint::read(&octets) {
            Some((number, taken)) if taken == octets.len() => Ok(number),
            _ => Err(StreamEnd::Fault(Http3Code::FrameError)),
        }
    }

    /// Reads instructions of QPACK, of which only those are allowed that begin with such an octet.
    async fn instructions(
        &mut self,
        allowed: impl Fn(u8) -> bool,
        fault: Http3Code,
    ) -> StreamResult<()> {
        let budget = ClientBudget::new(INSTRUCTIONS, INSTRUCTIONS_PER_SECOND);
        while budget.spend() {
            let octet = self.octets(1).await?;
            if !allowed(octet[0]) {
                return Err(StreamEnd::Fault(fault));
            }
            // An integer of more than one octet goes on.
            if octet[0] & 0x3f == 0x3f {
                let mut count = 1;
                while self.octets(1).await?[0] & 0x80 != 0 {
                    count += 1;
                    if count > MOST_OF_INTEGER {
                        return Err(StreamEnd::Fault(fault));
                    }
                }
            }
        }
        Err(too_much(Http3Excess::QpackInstructions))
    }

    async fn skip(&mut self, length: u64) -> StreamResult<()> {
        if length > MOST_FRAME {
            return Err(too_much(Http3Excess::ControlFrameSize));
        }
        self.octets(length).await.map(drop)
    }

    async fn number(&mut self) -> StreamResult<u64> {
        let mut octets = self.octets(1).await?;
        let more = (1 << (octets[0] >> 6)) - 1;
        octets.extend(self.octets(more).await?);
        varint::read(&octets)
            .map(|(number, _)| number)
            .ok_or(StreamEnd::Ended)
    }

    async fn octets(&mut self, count: u64) -> StreamResult<Vec<u8>> {
        let mut octets = vec![0; usize::try_from(count).unwrap_or_default()];
        match self.0.read_exact(&mut octets).await {
            Ok(()) => Ok(octets),
            Err(ReadExactError::FinishedEarly(_) | ReadExactError::ReadError(_)) => {
                Err(StreamEnd::Ended)
            }
        }
    }
}

fn too_much(of: Http3Excess) -> StreamEnd {
    StreamEnd::Fault(Http3Code::ExcessiveLoad(of))
}

/// Notes that a stream of a type has come, of which there may be one.
fn first_of(stream: &AtomicBool) -> StreamResult<()> {
    match stream.swap(true, Relaxed) {
        false => Ok(()),
        true => Err(StreamEnd::Fault(Http3Code::StreamCreationError)),
    }
}

/// The end of a stream that must not end before the connection (RFC 9114 §6.2.1).
fn critical(ended: StreamResult<()>) -> StreamEnd {
    match ended {
        Err(fault @ StreamEnd::Fault(_)) => fault,
        Ok(()) | Err(StreamEnd::Ended) => StreamEnd::Fault(Http3Code::ClosedCriticalStream),
    }
}
