//! Fields that may tell a cache what to purge, in forms that no dialect here has. Other caches have
//! hundreds of them, so they are told by the words of their names.

/// Words of names of fields that command caches.
const WORDS: [&str; 12] = [
    "ban",
    "bans",
    "banned",
    "invalidate",
    "invalidates",
    "invalidation",
    "key",
    "keys",
    "regex",
    "regexp",
    "tag",
    "tags",
];

/// What words of such names have in them, whatever else they say.
const PARTS_OF_WORDS: [&str; 2] = ["purge", "xkey"];

/// Names that have none of these words.
const NAMES: [&str; 5] = [
    "cache-group",
    "cache-groups",
    "x-cache-group",
    "x-cache-groups",
    "x-location-id",
];

/// Words that make a key one that its sender has, or one of a single request, and so nothing that
/// stands for pages.
const WORDS_OF_CREDENTIALS: [&str; 22] = [
    "access",
    "account",
    "api",
    "app",
    "application",
    "auth",
    "authorization",
    "client",
    "correlation",
    "device",
    "encryption",
    "functions",
    "idempotency",
    "license",
    "private",
    "public",
    "request",
    "secret",
    "session",
    "signing",
    "subscription",
    "token",
];

/// Whether a field of this name, which is in lower case, may say what is to be purged. What the
/// dialects here read is not a matter of this; `Fastly-Key` and `X-Purge` stand beside all of them.
pub fn is_about_purging(name: &str) -> bool {
    if matches!(name, "fastly-key" | "fastly-soft-purge" | "x-purge") || name.starts_with("sec-") {
        return false;
    }
    let words = || name.split(['-', '_', '.']);
    let is_credential = words().any(|word| WORDS_OF_CREDENTIALS.contains(&word));
    let says = |word: &str| match word {
        "key" | "keys" => !is_credential,
        word => WORDS.contains(&word) || PARTS_OF_WORDS.iter().any(|part| word.contains(part)),
    };
    NAMES.contains(&name) || words().any(says)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_other_caches_are_told_from_those_of_ordinary_clients() {
        for name in [
            "ban-url",
            "cache-tags",
            "cdn-tag",
            "edge-cache-tag",
            "key",
            "purge",
            "purge-key",
            "surrogate-keys",
            "varnish-ban-all",
            "x-ban-regex",
            "x-cache-group",
            "x-drupal-cache-tags",
            "x-ez-tag",
            "x-group-purge",
            "x-invalidates",
            "x-litespeed-purge",
            "x-location-id",
            "x-purge-all",
            "x-purge-regex",
            "x-purge-tags",
            "x-purge-url",
            "x-softpurge",
            "x-tag-purge",
            "x-vc-purge-method",
            "xkey-soft",
        ] {
            assert!(is_about_purging(name), "{name}");
        }
        for name in [
            "accept",
            "authorization",
            "content-length",
            "content-type",
            "cookie",
            "fastly-key",
            "idempotency-key",
            "if-none-match",
            "ocp-apim-subscription-key",
            "sec-websocket-key",
            "surrogate-capability",
            "traceparent",
            "user-agent",
            "via",
            "x-api-key",
            "x-auth-key",
            "x-bandwidth",
            "x-forwarded-for",
            "x-pool",
            "x-purge",
            "x-request-id",
        ] {
            assert!(!is_about_purging(name), "{name}");
        }
    }
}
