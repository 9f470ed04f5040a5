//! HTTP/3 on the wire (RFC 9114): frames, field sections (QPACK, RFC 9204), heads of messages.
//!
//! Inside: `varint` has the numbers of QUIC, `frame` reads frames from a stream, `qpack` reads and
//! writes field sections, `message` makes requests of them, `code` has the codes of errors. Nothing here knows of connections:
//! `server::http3` serves them.
//!
//! Decision: this is code of our own on quinn's streams, and not the crate h3: h3 0.0.8 keeps a
//! HEADERS frame of any length before it looks at a limit, reads nothing of QPACK's streams, and
//! does not tell when a client resets or stops a stream. A guard around it would read every frame
//! a second time.

mod code;
pub mod frame;
pub mod message;
pub mod qpack;
pub mod varint;

pub use code::{Http3Code, Http3Excess, Http3Fault};
