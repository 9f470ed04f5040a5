//! Removes secrets from what people see of a request: the values of credentials, cookies, and
//! fields whose names suggest a secret.
//!
//! Decides by name alone, and rather hides too much than too little: a person who reads failed
//! calls can't read what is hidden, and most calls can be replayed without it.

use http::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION, SET_COOKIE};
use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::names;
use crate::http::sensitive::is_secret_name;

/// Stands in place of a hidden value.
pub(super) const HIDDEN: &str = "[redacted]";
/// A query parameter whose name contains this is taken for a signature of the URL.
const SIGNATURE: &str = "sig";

/// A header's value without its secrets. Names must be in lower case.
pub(super) fn header(name: &str, value: &[u8]) -> String {
    if name == COOKIE || name == SET_COOKIE {
        return cookies(value);
    }
    if name == AUTHORIZATION || name == PROXY_AUTHORIZATION || is_secret_name(name) {
        return HIDDEN.to_owned();
    }
    // `Referer` and similar headers contain URLs.
    url(&String::from_utf8_lossy(value))
}

/// A URL, or a path with its query, without the secrets in its query.
pub(super) fn url(url: &str) -> String {
    let Some((path, query)) = url.split_once('?') else {
        return url.to_owned();
    };
    let mut shown = format!("{path}?");
    for piece in query.split_inclusive(['&', ';']) {
        let end = piece.strip_suffix(['&', ';']).unwrap_or(piece);
        match end.split_once('=').filter(|(name, _)| signs(name)) {
            Some((name, _)) => {
                shown.extend([name, "=", HIDDEN, &piece[end.len()..]]);
            }
            None => shown.push_str(piece),
        }
    }
    shown
}

/// A configuration without its secrets.
pub(super) fn config(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let hidden = |(name, value): (&String, &Value)| {
                let value = match is_secret_name(name) {
                    true => HIDDEN.into(),
                    false => config(value),
                };
                (name.clone(), value)
            };
            Value::Object(fields.iter().map(hidden).collect())
        }
        Value::Array(items) => items.iter().map(config).collect(),
        other => other.clone(),
    }
}

/// The names of cookies, without values; for `Set-Cookie`, the name of its first pair is the
/// cookie's name.
fn cookies(value: &[u8]) -> String {
    let pairs = names::cookies(value);
    let shown = pairs.map(|(name, _)| format!("{}={HIDDEN}", String::from_utf8_lossy(name)));
    shown.collect::<Vec<_>>().join("; ")
}

fn signs(name: &str) -> bool {
    let name = percent_decode_str(name).decode_utf8_lossy();
    is_secret_name(&name) || name.to_ascii_lowercase().contains(SIGNATURE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_and_what_a_name_gives_away_are_hidden() {
        for name in [
            "authorization",
            "proxy-authorization",
            "x-auth-token",
            "x-api-key",
        ] {
            assert_eq!(header(name, b"s3cret"), HIDDEN, "{name}");
        }
        assert_eq!(header("accept", b"text/html"), "text/html");
        let referer = header("referer", b"http://a/?q=1&access_token=s3cret");
        assert_eq!(referer, "http://a/?q=1&access_token=[redacted]");
    }

    #[test]
    fn cookies_keep_their_names_alone() {
        assert_eq!(header("cookie", b"a=1; b=2"), "a=[redacted]; b=[redacted]");
        assert!(!header("set-cookie", b"a=s3cret; Path=/").contains("s3cret"));
        assert_eq!(header("cookie", b"s3cret"), "");
    }

    #[test]
    fn a_query_is_hidden_where_it_may_open_doors() {
        let given = "/p?id=7&X-Amz-Signature=s&%70assword=s;Token=s&api_key&q=key";
        let shown = "/p?id=7&X-Amz-Signature=[redacted]&%70assword=[redacted];Token=[redacted]&api_key&q=key";
        assert_eq!(url(given), shown);
        assert_eq!(url("/p"), "/p");
    }

    #[test]
    fn a_configuration_is_hidden_by_its_names_at_any_depth() {
        let given = serde_json::json!({"a": [{"secret_key": {"b": 1}, "c": 2}]});
        let shown = serde_json::json!({"a": [{"secret_key": HIDDEN, "c": 2}]});
        assert_eq!(config(&given), shown);
    }
}
