//! The configuration of who may have a route's answers by what he knows or shows.

pub mod htpasswd;

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::ConfigDuration;

/// How a request must show who sends it; one of `basic`, `forward` and `jwt`. Who does not gets no answer, also none that is stored.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AuthConfig {
    /// Users and passwords: a file of htpasswd with bcrypt (`htpasswd -B`) or argon2id, relative to the configuration. Reload reads it again.
    pub basic: Option<PathBuf>,
    /// What that file says.
    #[serde(skip)]
    pub users: Option<String>,
    /// The name of what is protected, which browsers show.
    pub realm: Option<String>,
    /// Whether the origin gets the client's `Authorization`. Unset: with `forward` alone.
    pub pass: Option<bool>,
    /// A service of yours decides about each request.
    pub forward: Option<ForwardAuthConfig>,
    /// A signed token (`Authorization: Bearer`, or a cookie) decides.
    pub jwt: Option<JwtConfig>,
}

impl AuthConfig {
    /// What its files say, by the keys that name them.
    pub fn texts_of_files(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let keys = self
            .jwt
            .as_ref()
            .and_then(|jwt| jwt.key_file_text.as_deref());
        let users = self.users.as_deref().map(|text| ("basic", text));
        users.into_iter().chain(keys.map(|text| ("jwt.keys", text)))
    }
}

/// A service that decides about each request: 2xx lets it go on; 401, 403 and redirects are for the client; all else is 503.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ForwardAuthConfig {
    /// The upstream that is asked.
    pub upstream: String,
    /// The path that it is asked for.
    pub path: String,
    /// With which method; never with a body.
    #[serde(default)]
    pub method: AuthQuestionMethod,
    /// The fields of the client that it gets, and no others; `X-Forwarded-Method`, `-Proto`, `-Host`, `-Uri` and `-For` are made here.
    #[serde(default = "asked_with")]
    pub send: Vec<String>,
    /// Further fields that it gets, with their values. The client's own of these names are not sent.
    #[serde(default)]
    pub set: BTreeMap<String, String>,
    /// The fields of its answer that the origin gets. The client's own are deleted under every spelling. Each must be in the `key`, or the route is `cache: off`.
    #[serde(default)]
    pub take: Vec<String>,
    /// The cookies that its yes may set at the client, by patterns for their names, as in `session*`. An answer with such a cookie is kept by no cache on its way.
    #[serde(default)]
    pub cookies: Vec<String>,
    /// How long it may take; then 503.
    #[serde(default = "one_second")]
    pub timeout: ConfigDuration,
    /// Its yes is remembered. Off unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<VerdictCacheConfig>,
}

/// How the service is asked.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum AuthQuestionMethod {
    #[default]
    Get,
    Head,
}

/// For which requests one yes of the service counts.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VerdictCacheConfig {
    /// What must be the same: `header.NAME`, `cookie.NAME`, `uri` (path and query), `client`; method, scheme and host must be in any case, whether named or not.
    pub key: Vec<String>,
    /// For how long at most; the service's own `Cache-Control` may shorten it.
    pub max: ConfigDuration,
}

/// A signed token, as `Authorization: Bearer` or in a cookie.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JwtConfig {
    /// The keys (a JWK set): a URL, a file, or with `upstream` a path there. Those of a URL are fetched again in the background.
    #[serde(default)]
    pub keys: Option<String>,
    /// What the file says.
    #[serde(skip)]
    pub key_file_text: Option<String>,
    /// The upstream that has the keys.
    #[serde(default)]
    pub upstream: Option<String>,
    /// The shared secret of HS256.
    #[serde(default)]
    pub secret: Option<String>,
    /// A file with that secret.
    #[serde(default)]
    pub secret_file: Option<PathBuf>,
    /// The cookie that has the token of a request without `Authorization`. It goes no further, unless `pass: true`.
    #[serde(default)]
    pub cookie: Option<String>,
    /// The `iss` that tokens must have.
    pub issuer: String,
    /// Values of which `aud` must have one.
    pub audience: Vec<String>,
    /// The algorithms that are accepted.
    pub algorithms: Vec<JwtAlgorithm>,
    /// By how much clocks may differ.
    #[serde(default = "one_minute")]
    pub leeway: ConfigDuration,
    /// Fields that the origin gets, each with the claim that it has the value of. The client's own are deleted under every spelling. Each must be in the `key`, or the route is `cache: off`.
    #[serde(default)]
    pub take: BTreeMap<String, String>,
    /// How often the keys are fetched again.
    #[serde(default = "ten_minutes")]
    pub refresh: ConfigDuration,
}

/// An algorithm of signatures (RFC 7518 §3.1, RFC 8037 §3.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
pub enum JwtAlgorithm {
    RS256,
    ES256,
    EdDSA,
    HS256,
}

impl JwtAlgorithm {
    /// The name in tokens and keys.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RS256 => "RS256",
            Self::ES256 => "ES256",
            Self::EdDSA => "EdDSA",
            Self::HS256 => "HS256",
        }
    }
}

/// Where the keys of tokens are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KeyLocation<'a> {
    /// On the server of this origin, at this path.
    Server {
        server: &'a str,
        path: &'a str,
    },
    /// On an upstream of the configuration, at this path.
    Upstream {
        name: &'a str,
        path: &'a str,
    },
    File(&'a str),
    /// There are none but the secret.
    Nowhere,
}

impl JwtConfig {
    /// Where the keys are.
    pub fn location(&self) -> KeyLocation<'_> {
        match (self.keys.as_deref(), self.upstream.as_deref()) {
            (None, _) => KeyLocation::Nowhere,
            (Some(path), Some(name)) => KeyLocation::Upstream { name, path },
            (Some(keys), None) => match keys.split_once("://") {
                None => KeyLocation::File(keys),
                Some((scheme, rest)) => {
                    let length = rest.find('/').unwrap_or(rest.len());
                    let (server, path) = keys.split_at(scheme.len() + 3 + length);
                    let path = if path.is_empty() { "/" } else { path };
                    KeyLocation::Server { server, path }
                }
            },
        }
    }
}

impl AuthConfig {
    /// The fields that the origin gets from whoever decides.
    pub fn taken(&self) -> Vec<&str> {
        let forward = self.forward.iter().flat_map(|forward| &forward.take);
        let claims = self.jwt.iter().flat_map(|jwt| jwt.take.keys());
        forward.chain(claims).map(String::as_str).collect()
    }

    /// Whether the origin gets the client's `Authorization`.
    pub fn passes(&self) -> bool {
        self.pass.unwrap_or(self.forward.is_some())
    }
}

fn asked_with() -> Vec<String> {
    ["authorization", "cookie", "accept"]
        .map(str::to_owned)
        .to_vec()
}

fn one_second() -> ConfigDuration {
    ConfigDuration(std::time::Duration::from_secs(1))
}

fn one_minute() -> ConfigDuration {
    ConfigDuration(std::time::Duration::from_secs(60))
}

fn ten_minutes() -> ConfigDuration {
    ConfigDuration(std::time::Duration::from_secs(600))
}
