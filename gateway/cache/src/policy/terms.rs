//! What a policy judges, and what comes of it.

use std::time::{Duration, SystemTime};

use http::header::{AUTHORIZATION, COOKIE};
use http::{HeaderMap, HeaderName, StatusCode};

/// What is known when a response's head has arrived.
pub struct HttpExchange<'a> {
    pub request: &'a HeaderMap,
    /// The path of the request in its normal form.
    pub path: &'a str,
    pub status: StatusCode,
    pub response: &'a HeaderMap,
    /// The length of the content, if it is known.
    pub length: Option<u64>,
    pub received: SystemTime,
    /// The lifetime that a plugin set. It takes precedence over everything else.
    pub plugin_ttl: Option<Duration>,
    pub credentials: Credentials,
    /// Whether the client sent `Authorization`.
    pub authorization: CredentialPresence,
}

/// Whether a credential came with a request, and whether it is still there.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum CredentialPresence {
    #[default]
    Not,
    /// It came with the request and goes to the origin.
    Here,
    /// A request plugin removed or replaced it, and the key does not contain what the plugin made
    /// of it, so no key can distinguish it any more.
    Taken,
}

/// The credentials that a request came with.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct CameWith {
    pub authorization: CredentialPresence,
    pub cookies: CredentialPresence,
}

impl CredentialPresence {
    fn of(request: &HeaderMap, name: HeaderName) -> Self {
        match request.contains_key(name) {
            true => Self::Here,
            false => Self::Not,
        }
    }
}

impl CameWith {
    /// The credentials in this request head.
    pub fn of(request: &HeaderMap) -> Self {
        Self {
            authorization: CredentialPresence::of(request, AUTHORIZATION),
            cookies: CredentialPresence::of(request, COOKIE),
        }
    }
}

/// What the request said about its user beyond what the cache key contains.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Credentials {
    /// Nothing, or the key contains all of it.
    Keyed,
    /// Cookies that the key does not contain.
    Cookies,
    /// `Authorization` that the key does not contain.
    Authorization,
}

/// For how long a response is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StorageTerms {
    /// Counted from when the origin generated the response, like `Age`, or from its arrival.
    pub lifetime: Lifetime,
    pub while_revalidate: Duration,
    pub if_error: Duration,
    pub must_revalidate: bool,
    pub source: LifetimeSource,
}

/// From when a lifetime counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lifetime {
    /// By HTTP's rules: the age that the response had on arrival is already used up.
    OfResponse(Duration),
    /// By a route or a plugin: counted from arrival.
    FromArrival(Duration),
}

/// Which rule gave the lifetime.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LifetimeSource {
    Plugin,
    Route,
    /// One of the policy's `lifetimes`.
    Listed,
    Negative,
    SMaxage,
    MaxAge,
    Expires,
    Heuristic,
    /// No freshness at all: the response is kept for validation.
    Validator,
}

/// Why a response is not stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UncacheableReason {
    RequestNoStore,
    NoStore,
    Private,
    SetCookie,
    Authorization,
    /// The request had cookies or `Authorization` that the key does not contain, and only our own
    /// rules would have given the response a lifetime.
    Credentials,
    Status,
    VaryAny,
    NoFreshness,
    /// A stream that continues as long as somebody listens, and the origin did not say that others
    /// may have it.
    Endless,
    TooLarge,
    /// A part that does not say which part it is, or an answer to a range that others can't use.
    Part,
    /// A plugin decided it.
    Plugin,
    /// It varies by a field that a rule makes of what differs between requests that are the same to
    /// the cache.
    RequestRule,
    /// The loader read something that the key does not cover, and the route does not allow that.
    Unkeyed,
    /// It names more tags than an entry keeps, or longer ones: a purge by one of these would miss it.
    Tags,
    /// It announces trailers, or means nothing without them. Entries have no trailers.
    Trailers,
}

impl UncacheableReason {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RequestNoStore => "request-no-store",
            Self::NoStore => "no-store",
            Self::Private => "private",
            Self::SetCookie => "set-cookie",
            Self::Authorization => "authorization",
            Self::Credentials => "credentials",
            Self::Status => "status",
            Self::VaryAny => "vary-any",
            Self::NoFreshness => "no-freshness",
            Self::Endless => "endless",
            Self::TooLarge => "too-large",
            Self::Part => "part",
            Self::Plugin => "plugin",
            Self::RequestRule => "request-rule",
            Self::Unkeyed => "unkeyed",
            Self::Tags => "too-many-tags",
            Self::Trailers => "trailers",
        }
    }
}

impl LifetimeSource {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plugin => "plugin",
            Self::Route => "route",
            Self::Listed => "lifetimes",
            Self::Negative => "negative",
            Self::SMaxage => "s-maxage",
            Self::MaxAge => "max-age",
            Self::Expires => "expires",
            Self::Heuristic => "heuristic",
            Self::Validator => "validator",
        }
    }
}
