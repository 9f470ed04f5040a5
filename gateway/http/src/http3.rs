//! HTTP/3 on the wire (RFC 9114): frames, field sections (QPACK, RFC 9204), heads of messages.
//!
//! Inside: `varint` has the numbers of QUIC, `frame` reads frames from a stream, `qpack` reads and
//! writes field sections, `message` makes requests of them. Nothing here knows of connections:
//! `server::http3` serves them.
//!
//! Decision: this is code of our own on quinn's streams, and not the crate h3: h3 0.0.8 keeps a
//! HEADERS frame of any length before it looks at a limit, reads nothing of QPACK's streams, and
//! does not tell when a client resets or stops a stream. A guard around it would read every frame
//! a second time.

pub mod frame;
pub mod message;
pub mod qpack;
pub mod varint;

/// Why a stream or a connection ends (RFC 9114 §8.1, RFC 9204 §6), as the number on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Http3Code {
    NoError = 0x100,
    StreamCreationError = 0x103,
    ClosedCriticalStream = 0x104,
    FrameUnexpected = 0x105,
    FrameError = 0x106,
    ExcessiveLoad = 0x107,
    IdError = 0x108,
    SettingsError = 0x109,
    MissingSettings = 0x10a,
    RequestRejected = 0x10b,
    RequestCancelled = 0x10c,
    RequestIncomplete = 0x10d,
    MessageError = 0x10e,
    DecompressionFailed = 0x200,
    EncoderStreamError = 0x201,
    DecoderStreamError = 0x202,
}

/// What a client did wrong, and what ends because of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Http3Fault {
    /// The stream alone.
    Stream(Http3Code),
    /// The whole connection.
    Connection(Http3Code),
    /// The client left: it reset the stream, or the connection is gone.
    Left,
}
