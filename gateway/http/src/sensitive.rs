//! Names whose value is a secret: of header fields, cookies, query parameters and keys of a
//! plugin's configuration. Decided by the name alone, and rather for too many names than too few.

use http::HeaderName;

/// The value of a name that contains one of these is a secret.
const SECRET_WORDS: [&str; 6] = [
    "token",
    "secret",
    "key",
    "password",
    "session",
    "credential",
];

/// A header field whose name contains one of these may carry a secret, too.
const SECRET_FIELD_WORDS: [&str; 9] = [
    "auth",
    "cookie",
    "jwt",
    "csrf",
    "xsrf",
    "passwd",
    "signature",
    "assertion",
    "cert",
];

/// Whether the value of this name is a secret.
pub fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_WORDS.iter().any(|word| name.contains(word))
}

/// Whether a header field may carry a secret or identify a person: credentials, cookies,
/// signatures, client certificates.
pub fn is_secret_field(name: &HeaderName) -> bool {
    let name = name.as_str();
    let words = SECRET_WORDS.iter().chain(&SECRET_FIELD_WORDS);
    words.into_iter().any(|word| name.contains(word))
}
