//! The fields that carry a digest of content or of a representation (RFC 9530, and those before it).

use http::HeaderName;

/// Their names. Each is true of the octets of one message or representation alone.
pub const DIGEST_FIELDS: [HeaderName; 4] = [
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
];
