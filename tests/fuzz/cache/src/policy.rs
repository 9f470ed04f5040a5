//! What is stored: never what the response, the request or the route forbids, whatever else they say.
//!
//! Input: a line of words for the route and the status, the fields of a request, those of a response.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{
    AUTHORIZATION, CACHE_CONTROL, COOKIE, ETAG, EXPIRES, LAST_MODIFIED, SET_COOKIE, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use lamina_base::units;
use lamina_cache::config::{self, TtlMode};
use lamina_cache::key::CacheKeyTemplate;
use lamina_cache::policy::{
    CredentialPresence, Credentials, HttpExchange, Lifetime, LifetimeSource, Policy, StorageTerms,
    UncacheableReason,
};
use lamina_http::cache_control::MAX_DELTA_SECONDS;

use fuzz_harness::input;

struct Case {
    policy: Policy,
    status: StatusCode,
    plugin_ttl: Option<Duration>,
    request: HeaderMap,
    response: HeaderMap,
}

pub fn check(data: &[u8]) {
    let [words, request, response] = input::blocks(data);
    let case = Case::read(words, request, response);
    for random in [0, 1 << 31, u32::MAX] {
        if let Ok(terms) = case.judge(random) {
            case.allowed(&terms);
        }
    }
    case.forbidden();
}

impl Case {
    fn read(words: &[u8], request: &[u8], response: &[u8]) -> Self {
        let (mut route, mut plugin_ttl, mut keyed, mut status) = Default::default();
        for word in input::texts(words).flat_map(|line| line.split(' ')) {
            apply(word, &mut route, &mut plugin_ttl, &mut keyed);
            status = word.parse().ok().or(status);
        }
        let key = CacheKeyTemplate::new(&config::CacheKeyConfig {
            headers: match keyed {
                true => vec!["authorization".to_owned()],
                false => Vec::new(),
            },
            ..config::CacheKeyConfig::default()
        });
        Self {
            policy: Policy::new(&route, &config::CachePolicyConfig::default(), &key),
            status: status.unwrap_or(StatusCode::OK),
            plugin_ttl,
            request: input::fields(request),
            response: input::fields(response),
        }
    }

    fn judge(&self, random: u32) -> Result<StorageTerms, UncacheableReason> {
        self.with(&self.request, &self.response, self.status, random)
    }

    fn with(
        &self,
        request: &HeaderMap,
        response: &HeaderMap,
        status: StatusCode,
        random: u32,
    ) -> Result<StorageTerms, UncacheableReason> {
        let exchange = HttpExchange {
            request,
            path: "/",
            status,
            response,
            length: None,
            received: now(),
            plugin_ttl: self.plugin_ttl,
            credentials: self.credentials(request),
            authorization: match request.contains_key(AUTHORIZATION) {
                true => CredentialPresence::Here,
                false => CredentialPresence::Not,
            },
        };
        self.policy.judge(&exchange, random)
    }

    fn credentials(&self, request: &HeaderMap) -> Credentials {
        if request.contains_key(AUTHORIZATION) && !self.policy.keyed_by_authorization {
            Credentials::Authorization
        } else if request.contains_key(COOKIE) {
            Credentials::Cookies
        } else {
            Credentials::Keyed
        }
    }

    /// What follows from a response's being stored.
    fn allowed(&self, terms: &StorageTerms) {
        let said = self.policy.directives(&self.response);
        let overriding = self.policy.mode == TtlMode::Override;
        let understood = said.must_understand;
        assert!(
            !said.no_store || understood || overriding,
            "RFC 9111 §5.2.2.5"
        );
        assert!(self.status.as_u16() >= 200 && self.status != StatusCode::NOT_MODIFIED);
        if self.request.contains_key(AUTHORIZATION) {
            let shared = said.public || said.must_revalidate || said.s_maxage.is_some();
            assert!(
                shared || self.policy.keyed_by_authorization,
                "RFC 9111 §3.5"
            );
        }
        let is_ours = matches!(
            terms.source,
            LifetimeSource::Route | LifetimeSource::Heuristic
        );
        assert!(
            overriding || !is_ours || self.credentials(&self.request) == Credentials::Keyed,
            "what one user was answered gets no lifetime that the origin did not state"
        );
        if let Lifetime::OfResponse(lifetime) = terms.lifetime {
            let longest = Duration::from_secs(MAX_DELTA_SECONDS.into()).max(span(&self.response));
            assert!(lifetime <= longest, "nobody promised {lifetime:?}");
            if self.policy.mode == TtlMode::Cap {
                assert!(self.policy.ttl.is_none_or(|cap| lifetime <= cap));
            }
            let by_number = said.s_maxage.or(said.max_age);
            if let (LifetimeSource::SMaxage | LifetimeSource::MaxAge, Some(seconds)) =
                (terms.source, by_number)
            {
                assert!(
                    lifetime <= Duration::from_secs(seconds.into()),
                    "jitter only shortens"
                );
            }
        }
        let names = [CACHE_CONTROL, EXPIRES, LAST_MODIFIED, ETAG];
        let silent = names.iter().all(|name| !self.response.contains_key(name));
        let own = matches!(
            terms.source,
            LifetimeSource::Plugin | LifetimeSource::Route | LifetimeSource::Negative
        );
        assert!(own || !silent || self.response.len() > names.len() || !self.response.is_empty());
        if said.must_revalidate && !own {
            assert!(terms.must_revalidate, "RFC 9111 §5.2.2.2");
        }
    }

    /// What is added to forbid storing forbids it.
    fn forbidden(&self) {
        let adding = |name: HeaderName, value: &'static str| {
            let more = HeaderMap::from_iter([(name, HeaderValue::from_static(value))]);
            self.with(
                &self.request,
                &input::joined(&self.response, &more),
                self.status,
                0,
            )
        };
        assert!(adding(VARY, "*").is_err(), "RFC 9111 §4.1");
        let said = self.policy.directives(&self.response);
        // RFC 9213 §2.1: a valid targeted field stands in Cache-Control's place.
        if self.policy.mode != TtlMode::Override && !said.targeted {
            assert!(said.must_understand || adding(CACHE_CONTROL, "no-store").is_err());
            assert!(
                adding(CACHE_CONTROL, "private").is_err(),
                "RFC 9111 §5.2.2.7"
            );
        }
        if self.policy.set_cookie == config::SetCookie::Private {
            assert!(adding(SET_COOKIE, "a=1").is_err());
        }
        for status in [101, 103, 304] {
            let status = StatusCode::from_u16(status).expect("three digits");
            assert!(self.with(&self.request, &self.response, status, 0).is_err());
        }
        if self.policy.honors_requests() {
            let more =
                HeaderMap::from_iter([(CACHE_CONTROL, HeaderValue::from_static("no-store"))]);
            let request = input::joined(&self.request, &more);
            assert!(self.with(&request, &self.response, self.status, 0).is_err());
        }
    }
}

fn apply(
    word: &str,
    route: &mut config::CachePolicyConfig,
    plugin_ttl: &mut Option<Duration>,
    keyed: &mut bool,
) {
    let (name, value) = word.split_once('=').unwrap_or((word, ""));
    let time = || value.parse::<units::ConfigDuration>().ok();
    match name {
        "override" => route.mode = Some(TtlMode::Override),
        "cap" => route.mode = Some(TtlMode::Cap),
        "ttl" => route.ttl = time(),
        "swr" => route.stale_while_revalidate = time(),
        "sie" => route.stale_if_error = time(),
        "negative" => {
            route.negative_cache = time().map(|ttl| config::NegativeCacheConfig {
                ttl,
                statuses: vec![404, 410],
            })
        }
        "jitter" => route.jitter = value.parse().ok(),
        "strip" => route.set_cookie = Some(config::SetCookie::Strip),
        "honor" => route.request_directives = Some(config::RequestDirectivePolicy::Honor),
        "keyed" => *keyed = true,
        "plugin" => *plugin_ttl = value.parse().ok().map(Duration::from_millis),
        _ => {}
    }
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_795_000_000)
}

/// The longest that dates can say: from `Date` to the last day of 9999.
fn span(response: &HeaderMap) -> Duration {
    match response.contains_key(EXPIRES) || response.contains_key(LAST_MODIFIED) {
        true => Duration::from_secs(400_000_000_000),
        false => Duration::ZERO,
    }
}
