//! The codes by which streams and connections end, and their names.

/// Why a stream or a connection ends (RFC 9114 §8.1, RFC 9204 §6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Http3Code {
    NoError,
    StreamCreationError,
    ClosedCriticalStream,
    FrameUnexpected,
    FrameError,
    ExcessiveLoad(Http3Excess),
    IdError,
    SettingsError,
    MissingSettings,
    RequestRejected,
    RequestCancelled,
    RequestIncomplete,
    MessageError,
    DecompressionFailed,
    EncoderStreamError,
    DecoderStreamError,
}

/// What a client did too much of (`H3_EXCESSIVE_LOAD`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Http3Excess {
    /// Frames that carry nothing.
    EmptyFrames,
    /// The octets of frames of unknown types.
    UnknownFrames,
    /// Frames on its control stream.
    ControlFrames,
    /// The length of a frame on its control stream.
    ControlFrameSize,
    /// Instructions of QPACK.
    QpackInstructions,
    /// Requests that it gave up.
    Resets,
    /// It leaves no room for our control stream.
    BlockedControlStream,
    /// Questions of QUIC whether a way is open.
    PathChallenges,
    /// Connection ids that it gives out or gives back.
    ConnectionIds,
    /// Frames of QUIC with next to nothing in them.
    SmallFrames,
}

impl Http3Code {
    /// The number on the wire.
    pub const fn number(self) -> u32 {
        match self {
            Self::NoError => 0x100,
            Self::StreamCreationError => 0x103,
            Self::ClosedCriticalStream => 0x104,
            Self::FrameUnexpected => 0x105,
            Self::FrameError => 0x106,
            Self::ExcessiveLoad(_) => 0x107,
            Self::IdError => 0x108,
            Self::SettingsError => 0x109,
            Self::MissingSettings => 0x10a,
            Self::RequestRejected => 0x10b,
            Self::RequestCancelled => 0x10c,
            Self::RequestIncomplete => 0x10d,
            Self::MessageError => 0x10e,
            Self::DecompressionFailed => 0x200,
            Self::EncoderStreamError => 0x201,
            Self::DecoderStreamError => 0x202,
        }
    }

    /// The name by which it is counted: that of the RFC, or what there was too much of.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoError => "no_error",
            Self::StreamCreationError => "stream_creation_error",
            Self::ClosedCriticalStream => "closed_critical_stream",
            Self::FrameUnexpected => "frame_unexpected",
            Self::FrameError => "frame_error",
            Self::ExcessiveLoad(excess) => excess.name(),
            Self::IdError => "id_error",
            Self::SettingsError => "settings_error",
            Self::MissingSettings => "missing_settings",
            Self::RequestRejected => "request_rejected",
            Self::RequestCancelled => "request_cancelled",
            Self::RequestIncomplete => "request_incomplete",
            Self::MessageError => "message_error",
            Self::DecompressionFailed => "qpack_decompression_failed",
            Self::EncoderStreamError => "qpack_encoder_stream_error",
            Self::DecoderStreamError => "qpack_decoder_stream_error",
        }
    }
}

impl Http3Excess {
    const fn name(self) -> &'static str {
        match self {
            Self::EmptyFrames => "empty_frames",
            Self::UnknownFrames => "unknown_frames",
            Self::ControlFrames => "control_frames",
            Self::ControlFrameSize => "control_frame_size",
            Self::QpackInstructions => "qpack_instructions",
            Self::Resets => "resets",
            Self::BlockedControlStream => "blocked_control_stream",
            Self::PathChallenges => "path_challenges",
            Self::ConnectionIds => "connection_ids",
            Self::SmallFrames => "small_frames",
        }
    }
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
