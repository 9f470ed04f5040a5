//! The file of `lamina plugin test`, and the recorded calls for `replay`: requests in a form that
//! people can write.
//!
//! ```yaml
//! config: {drop: [utm_*]}          # of all cases that have none of their own
//! cases:
//!   - name: tracking is dropped
//!     hook: key                    # key | load | request | response
//!     request: {url: "http://shop.example/?q=1&utm_source=x"}
//!     expect: {key: {text: "shop.example/?q=1"}}
//! ```

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use serde::Deserialize;
use serde_json::Value;

use lamina_plugin_host::{FetchError, Hook};

/// The scheme and host for a URL without them.
const SOMEWHERE: &str = "http://localhost";

/// A file of cases.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CaseFile {
    /// For all cases without a `config` of their own.
    #[serde(default)]
    pub(super) config: Option<Value>,
    pub(super) cases: Vec<PluginTestCase>,
}

/// A call, and its expected result.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PluginTestCase {
    pub(super) name: String,
    pub(super) hook: HookName,
    #[serde(default)]
    pub(super) config: Option<Value>,
    pub(super) request: CaseRequest,
    /// The response that the hook `response` gets.
    #[serde(default)]
    pub(super) response: Option<CaseResponse>,
    /// The answers of upstreams, by `UPSTREAM /path`.
    #[serde(default)]
    pub(super) fetch: BTreeMap<String, CaseFetchAnswer>,
    pub(super) expect: Value,
}

/// A hook, by its name in these files.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum HookName {
    Key,
    Load,
    Request,
    Response,
}

/// A request.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CaseRequest {
    #[serde(default = "get")]
    pub(super) method: String,
    /// Absolute, or only a path, which is then one on `localhost`.
    pub(super) url: String,
    #[serde(default)]
    pub(super) headers: CaseHeaders,
    #[serde(default)]
    pub(super) body: String,
    /// The client's address.
    #[serde(default)]
    pub(super) client: Option<IpAddr>,
}

/// A response without its body, since the hook `response` does not get the body.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CaseResponse {
    #[serde(default = "ok")]
    pub(super) status: u16,
    #[serde(default)]
    pub(super) headers: CaseHeaders,
}

/// The result of a fetch: an answer, or `error` instead of it.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CaseFetchAnswer {
    #[serde(default = "ok")]
    pub(super) status: u16,
    #[serde(default)]
    pub(super) headers: CaseHeaders,
    #[serde(default)]
    pub(super) body: String,
    #[serde(default)]
    pub(super) error: Option<CaseFetchFault>,
}

/// Why an upstream has no answer, by its name in the plugin contract.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum CaseFetchFault {
    Timeout,
    TooLarge,
    Unavailable,
}

/// Headers by name. A list stands for several lines with one name.
#[derive(Clone, Default, Deserialize)]
#[serde(transparent)]
pub(super) struct CaseHeaders(BTreeMap<String, OneOrMore>);

#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(CaseHeaderValue),
    More(Vec<CaseHeaderValue>),
}

/// The value of a header. `max-age: 60` is a text for HTTP, although it is a number in YAML.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum CaseHeaderValue {
    Text(String),
    Number(i64),
    Truth(bool),
}

/// A request that is ready to be used.
pub(super) struct PreparedCaseRequest {
    pub(super) parts: Parts,
    pub(super) scheme: String,
    /// In lower case, without a default port.
    pub(super) host: String,
}

impl CaseFile {
    /// Reads a file. Errors are messages with the position.
    pub(super) fn read(file: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(file).map_err(|error| {
            format!(
                "can't read the cases: {}: {error}; name another file with --cases",
                file.display()
            )
        })?;
        let cases: Self =
            serde_yaml::from_str(&text).map_err(|error| format!("{}: {error}", file.display()))?;
        if cases.cases.is_empty() {
            return Err(format!("{}: `cases` is an empty list", file.display()));
        }
        for case in &cases.cases {
            let is_one = |asked: &&String| {
                asked
                    .split_once(" /")
                    .is_some_and(|(name, _)| !name.contains(' '))
            };
            if let Some(odd) = case.fetch.keys().find(|asked| !is_one(asked)) {
                return Err(format!(
                    "{}: `fetch` of the case {:?} has {odd:?}; expected an upstream, one space and a path, as `shop /api/user/7`",
                    file.display(),
                    case.name
                ));
            }
        }
        Ok(cases)
    }
}

impl From<HookName> for Hook {
    fn from(name: HookName) -> Self {
        match name {
            HookName::Key => Self::Key,
            HookName::Load => Self::Load,
            HookName::Request => Self::Request,
            HookName::Response => Self::Response,
        }
    }
}

impl From<CaseFetchFault> for FetchError {
    fn from(fault: CaseFetchFault) -> Self {
        match fault {
            CaseFetchFault::Timeout => Self::Timeout,
            CaseFetchFault::TooLarge => Self::TooLarge,
            CaseFetchFault::Unavailable => Self::Unavailable("as the case says".to_owned()),
        }
    }
}

impl CaseRequest {
    /// The request in the form that a gateway would have.
    pub(super) fn ready(&self) -> Result<PreparedCaseRequest, String> {
        let url = match self.url.starts_with('/') {
            true => format!("{SOMEWHERE}{}", self.url),
            false => self.url.clone(),
        };
        let uri: Uri = url.parse().map_err(|e| format!("`url` {url:?}: {e}"))?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(format!(
                "`url` {url:?} is not absolute; expected http://host/path"
            ));
        };
        let (scheme, host) = (scheme.to_owned(), authority.host().to_ascii_lowercase());
        let host = match (authority.port_u16(), &*scheme) {
            (None | Some(80), "http") | (None | Some(443), "https") | (None, _) => host,
            (Some(port), _) => format!("{host}:{port}"),
        };
        let request = http::Request::builder().method(&*self.method).uri(uri);
        let request = request.body(()).map_err(|e| format!("`request`: {e}"))?;
        let (mut parts, ()) = request.into_parts();
        parts.headers = self.headers.map()?;
        Ok(PreparedCaseRequest {
            parts,
            scheme,
            host,
        })
    }
}

impl CaseHeaders {
    /// The headers in the form that HTTP needs.
    pub(super) fn map(&self) -> Result<HeaderMap, String> {
        let mut headers = HeaderMap::new();
        for (name, values) in &self.0 {
            let name: HeaderName = name
                .parse()
                .map_err(|_| format!("{name:?} is not the name of a header"))?;
            let values = match values {
                OneOrMore::One(value) => std::slice::from_ref(value),
                OneOrMore::More(values) => values,
            };
            for value in values {
                let value = HeaderValue::try_from(value.text())
                    .map_err(|_| format!("the value of {name} can't be one of a header"))?;
                headers.append(&name, value);
            }
        }
        Ok(headers)
    }
}

impl CaseHeaderValue {
    fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) => number.to_string(),
            Self::Truth(truth) => truth.to_string(),
        }
    }
}

fn get() -> String {
    "GET".to_owned()
}

fn ok() -> u16 {
    200
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(yaml: &str) -> CaseRequest {
        serde_yaml::from_str(yaml).unwrap()
    }

    #[test]
    fn hosts_are_told_as_the_gateway_tells_them() {
        for (url, host) in [
            ("http://Shop.Example/a", "shop.example"),
            ("http://shop.example:80/a", "shop.example"),
            ("https://shop.example:80/a", "shop.example:80"),
            ("/a?b=c", "localhost"),
        ] {
            let ready = asked(&format!("{{url: \"{url}\"}}")).ready().unwrap();
            assert_eq!(ready.host, host, "{url}");
            assert!(ready.parts.uri.path() == "/a");
        }
    }

    #[test]
    fn header_lines_are_texts_and_may_be_several() {
        let ready = asked("{url: /, headers: {X-Count: 3, cookie: [a=1, b=2]}}")
            .ready()
            .unwrap();
        assert_eq!(ready.parts.headers["x-count"], "3");
        let cookies: Vec<_> = ready.parts.headers.get_all("cookie").iter().collect();
        assert_eq!(cookies, ["a=1", "b=2"]);
    }

    #[test]
    fn a_request_that_is_none_is_told() {
        for (yaml, word) in [
            ("{url: shop}", "absolute"),
            ("{url: /, method: \"G T\"}", "method"),
            ("{url: /, headers: {\"a b\": c}}", "a b"),
            ("{url: /, headers: {a: \"b\\nc\"}}", "value of a"),
        ] {
            let told = asked(yaml).ready().err().unwrap();
            assert!(told.contains(word), "{yaml}: {told}");
        }
    }
}
