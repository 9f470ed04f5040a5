//! Names that say that their value is a secret: of header fields, cookies, query parameters
//! and keys of a plugin's configuration. By name alone, and rather too much than too little.

use http::HeaderName;

/// A name that holds one of these has a secret for a value.
const SECRET_WORDS: [&str; 6] = [
    "token",
    "secret",
    "key",
    "password",
    "session",
    "credential",
];

/// A field whose name holds one of these may carry one, besides those above.
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

/// Whether what has this name is a secret.
pub fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_WORDS.iter().any(|word| name.contains(word))
}

/// Whether a header field may carry a secret or tell who somebody is: credentials, cookies,
/// signatures, client certificates.
pub fn is_secret_field(name: &HeaderName) -> bool {
    let name = name.as_str();
    let words = SECRET_WORDS.iter().chain(&SECRET_FIELD_WORDS);
    words.into_iter().any(|word| name.contains(word))
}
