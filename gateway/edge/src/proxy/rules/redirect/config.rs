//! The configuration of redirects.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::proxy::rules::template::{TemplatePiece, TextTemplate};

/// A redirect that answers all requests of a route, before the cache.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RedirectConfig {
    /// Where to: a URL or a path, with the places of `headers`, as in `https://example.com{path}`. The query goes along, unless there is a `?` in it.
    pub to: String,
    /// 301, 302, 303, 307 or 308.
    #[serde(default = "permanent")]
    pub status: u16,
    /// Hosts (`*` is a wildcard, as in `*.example.com`) to which it may lead, if its host comes from the request; 400 for all others.
    #[serde(default)]
    pub allow_hosts: Vec<String>,
}

fn permanent() -> u16 {
    308
}

/// Where the host of the target comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TargetHost {
    /// It stays: the target is a path.
    Own,
    /// It is written in the template, in small letters.
    Written(String),
    /// It comes from the request.
    OfTheRequest,
}

/// The statuses of redirects.
pub const STATUSES: [u16; 5] = [301, 302, 303, 307, 308];

/// Where the host of a target comes from.
///
/// # Errors
/// What is wrong with the template, for the operator.
pub fn target_host(template: &TextTemplate) -> Result<TargetHost, String> {
    const EXPECTED: &str = "expected a URL, as in `https://example.com{path}`, or a path, as in \
                            `/new{path}`";
    let beginning = match template.pieces() {
        [TemplatePiece::Path, ..] => return Ok(TargetHost::Own),
        [TemplatePiece::Scheme, TemplatePiece::Text(text), ..] => text.strip_prefix("://"),
        [TemplatePiece::Text(text), ..] if text.starts_with('/') && !text.starts_with("//") => {
            return Ok(TargetHost::Own);
        }
        [TemplatePiece::Text(text), ..] => {
            let rest = text.strip_prefix("https://");
            rest.or_else(|| text.strip_prefix("http://"))
        }
        _ => None,
    };
    let Some(beginning) = beginning else {
        return Err(format!(
            "`{template}` is neither a URL nor a path; {EXPECTED}"
        ));
    };
    if let Some(end) = beginning.find(['/', '?', '#']) {
        return written(&beginning[..end]);
    }
    let skipped = match template.pieces() {
        [TemplatePiece::Scheme, ..] => 2,
        _ => 1,
    };
    match template.pieces().get(skipped) {
        // A path begins with a slash.
        None | Some(TemplatePiece::Path) => written(beginning),
        Some(_) => Ok(TargetHost::OfTheRequest),
    }
}

fn written(authority: &str) -> Result<TargetHost, String> {
    if authority.contains('@') {
        return Err(
            "user information in a URL; expected a host alone, as in example.com".to_owned(),
        );
    }
    let parsed = authority.parse::<http::uri::Authority>();
    match parsed {
        Ok(parsed) if !parsed.host().is_empty() => {
            Ok(TargetHost::Written(authority.to_ascii_lowercase()))
        }
        _ => Err(format!(
            "{authority:?} is not a host; expected one, as in example.com"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_the_host_comes_from_is_read_off_the_template() {
        let host = |to: &str| target_host(&TextTemplate::parse(to).unwrap());
        let written = |host: &str| Ok(TargetHost::Written(host.to_owned()));
        for (to, expected) in [
            ("/new", Ok(TargetHost::Own)),
            ("/{header.x}", Ok(TargetHost::Own)),
            ("{path}/", Ok(TargetHost::Own)),
            ("https://Example.com", written("example.com")),
            ("https://example.com{path}", written("example.com")),
            (
                "{scheme}://example.com:8443/{path.1}",
                written("example.com:8443"),
            ),
            ("https://example.com?{query}", written("example.com")),
            ("https://{host}/x", Ok(TargetHost::OfTheRequest)),
            ("https://www.{host}{path}", Ok(TargetHost::OfTheRequest)),
            (
                "https://example.com{header.x}",
                Ok(TargetHost::OfTheRequest),
            ),
            ("https://example.com{path.1}", Ok(TargetHost::OfTheRequest)),
            ("{scheme}://{header.x}", Ok(TargetHost::OfTheRequest)),
        ] {
            assert_eq!(host(to), expected, "{to}");
        }
        for bad in [
            "",
            "//a.example",
            "{header.x}",
            "{host}/x",
            "ftp://a/",
            "new",
            "https:///x",
            "https://user@a.example/",
            "{query}",
            "javascript:x",
        ] {
            assert!(host(bad).is_err(), "{bad}");
        }
    }
}
