//! Which sites may read a route's answers in a browser (CORS, <https://fetch.spec.whatwg.org/>).
//!
//! Origins are compared when an answer is delivered, so that one stored answer is for all of them.
//! `Vary: Origin` tells caches behind us to do otherwise; it is added to what goes out and not to
//! what is stored. An origin that is not told the site can't make an answer for one site alone, so
//! `Origin` goes to it only with what is not for the cache. Preflights are answered here, and before anybody must show who he is: browsers
//! send them without credentials, and they say nothing but these rules.

pub mod config;

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};

use super::cleaning::BypassesCache;
use super::present::{PresentFields, RuledField};
use crate::http::body::Body;
use crate::proxy::config::{OnOffSwitch, RouteConfig};
use crate::proxy::counted::CountedResponse;
use crate::proxy::metrics::RequestOutcome;
use config::CorsConfig;
use config::origins::OriginPattern;

/// The fields of answers that are ours to set: an origin's are replaced.
const ANSWER_FIELDS: [HeaderName; 6] = [
    ACCESS_CONTROL_ALLOW_CREDENTIALS,
    ACCESS_CONTROL_ALLOW_HEADERS,
    ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_MAX_AGE,
];

const ALL: HeaderValue = HeaderValue::from_static("*");

/// The compiled rules.
pub struct CorsRules {
    origins: AllowedOrigins,
    methods: AllowedNames,
    headers: AllowedNames,
    expose: Option<HeaderValue>,
    credentials: bool,
    max_age: HeaderValue,
    text: Box<str>,
}

enum AllowedOrigins {
    All,
    These(Box<[OriginPattern]>),
}

/// Names in the form of the field that tells them.
enum AllowedNames {
    /// Whatever the browser asks for.
    AsAsked,
    None,
    These(HeaderValue),
}

/// Whether the origin of a route is told the site that asks, where an answer may be for all sites.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SiteOfRequests {
    /// The client's `Origin` stays: nothing is cached, the key holds it, or there are no rules for
    /// sites, so that the origin's answers are its own.
    Told,
    Untold,
}

impl SiteOfRequests {
    /// What holds for a route.
    pub fn of(config: &RouteConfig) -> Self {
        let is_origin = |name: &String| name.eq_ignore_ascii_case(ORIGIN.as_str());
        let is_keyed = config.key.headers.iter().any(is_origin);
        match config.cors.is_some() && config.cache == OnOffSwitch::On && !is_keyed {
            true => Self::Untold,
            false => Self::Told,
        }
    }

    /// Takes `Origin` out of a request whose answer may come from the cache. A request that wants
    /// another protocol keeps it: by it an origin of WebSockets knows who may open one.
    pub fn clean(self, parts: &mut Parts, upgrades: bool) {
        let is_for_cache = !upgrades
            && matches!(parts.method, Method::GET | Method::HEAD)
            && parts.extensions.get::<BypassesCache>().is_none();
        if self == Self::Untold && is_for_cache {
            parts.headers.remove(ORIGIN);
        }
    }
}

/// What a browser has said of the site that asks.
pub struct BrowserOrigin {
    origin: Option<HeaderValue>,
    preflight: Option<PreflightQuestion>,
}

/// What a preflight asks for.
struct PreflightQuestion {
    method: HeaderValue,
    headers: Option<HeaderValue>,
}

impl CorsRules {
    pub fn new(config: &CorsConfig) -> Self {
        let is_all = |texts: &[String]| texts.iter().any(|text| text == "*");
        let origins = match is_all(&config.origins) {
            true => AllowedOrigins::All,
            false => {
                let origins = config.origins.iter();
                let patterns = origins.filter_map(|text| OriginPattern::parse(text).ok());
                AllowedOrigins::These(patterns.collect())
            }
        };
        let names = |texts: &[String]| match joined(texts) {
            _ if is_all(texts) => AllowedNames::AsAsked,
            Some(names) => AllowedNames::These(names),
            None => AllowedNames::None,
        };
        let credentials = match config.credentials {
            true => ", with credentials",
            false => "",
        };
        Self {
            origins,
            methods: names(&config.methods),
            headers: names(&config.headers),
            expose: joined(&config.expose),
            credentials: config.credentials,
            max_age: config.max_age.0.as_secs().into(),
            text: format!("cors: for {}{credentials}", config.origins.join(", ")).into(),
        }
    }

    /// The answer to a preflight, but for the fields that [`apply`](Self::apply) adds. None: the
    /// request is none.
    pub fn answer(&self, parts: &Parts) -> Option<CountedResponse> {
        PreflightQuestion::of(parts)?;
        let mut answer = Response::new(Body::empty());
        *answer.status_mut() = StatusCode::NO_CONTENT;
        Some(CountedResponse::new(answer, RequestOutcome::Pass))
    }

    /// Sets the fields of an answer to a browser's request.
    pub fn apply(&self, asked: BrowserOrigin, present: PresentFields, headers: &mut HeaderMap) {
        // Hardly any origin sends one.
        if present.has(RuledField::Cors) {
            for name in &ANSWER_FIELDS {
                headers.remove(name);
            }
        }
        let Some(allowed) = self.allowed(asked.origin) else {
            return;
        };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        if self.credentials {
            let yes = HeaderValue::from_static("true");
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
        }
        match &asked.preflight {
            None => {
                if let Some(names) = &self.expose {
                    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, names.clone());
                }
            }
            Some(preflight) => {
                let methods = self.methods.told(Some(&preflight.method));
                let names = self.headers.told(preflight.headers.as_ref());
                headers.extend(methods.map(|methods| (ACCESS_CONTROL_ALLOW_METHODS, methods)));
                headers.extend(names.map(|names| (ACCESS_CONTROL_ALLOW_HEADERS, names)));
                headers.insert(ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
            }
        }
    }

    /// Whether answers differ by the site that asks, so that `Vary` tells it.
    pub fn tells_sites_apart(&self) -> bool {
        matches!(self.origins, AllowedOrigins::These(_)) || self.credentials
    }

    fn allowed(&self, origin: Option<HeaderValue>) -> Option<HeaderValue> {
        match &self.origins {
            AllowedOrigins::All if !self.credentials => Some(ALL),
            AllowedOrigins::All => None,
            AllowedOrigins::These(patterns) => {
                let is_known = |origin: &HeaderValue| {
                    patterns.iter().any(|known| known.is_just(origin))
                        || origin.to_str().is_ok_and(|origin| {
                            patterns.iter().any(|pattern| pattern.matches(origin))
                        })
                };
                origin.filter(is_known)
            }
        }
    }

    /// The rules in words.
    pub fn describe(&self) -> String {
        self.text.to_string()
    }
}

impl AllowedNames {
    fn told(&self, asked: Option<&HeaderValue>) -> Option<HeaderValue> {
        let is_list = |names: &&HeaderValue| {
            let is_plain = |octet: &u8| octet.is_ascii_alphanumeric() || b"-_., ".contains(octet);
            names.as_bytes().iter().all(is_plain)
        };
        match self {
            Self::AsAsked => asked.filter(is_list).cloned(),
            Self::None => None,
            Self::These(names) => Some(names.clone()),
        }
    }
}

impl BrowserOrigin {
    pub fn of(parts: &Parts) -> Self {
        Self {
            origin: parts.headers.get(ORIGIN).cloned(),
            preflight: PreflightQuestion::of(parts),
        }
    }
}

impl PreflightQuestion {
    fn of(parts: &Parts) -> Option<Self> {
        if parts.method != Method::OPTIONS || !parts.headers.contains_key(ORIGIN) {
            return None;
        }
        let method = parts.headers.get(ACCESS_CONTROL_REQUEST_METHOD)?.clone();
        let headers = parts.headers.get(ACCESS_CONTROL_REQUEST_HEADERS).cloned();
        Some(Self { method, headers })
    }
}

fn joined(names: &[String]) -> Option<HeaderValue> {
    let text = names.join(", ");
    (!text.is_empty()).then(|| HeaderValue::from_str(&text).ok())?
}
