//! Tests of the storage policy.

use std::time::SystemTime;

use super::*;
use proptest::prelude::*;

type Fields<'a> = &'a [(&'a str, &'a str)];

const NOW: u64 = 784_111_777;

fn headers(lines: &[(&str, &str)]) -> HeaderMap {
    lines
        .iter()
        .map(|(name, value)| {
            (
                name.parse::<http::HeaderName>().unwrap(),
                value.parse().unwrap(),
            )
        })
        .collect()
}

fn judge_as(
    policy: &config::CachePolicyConfig,
    status: u16,
    request: &[(&str, &str)],
    response: &[(&str, &str)],
) -> Result<StorageTerms, UncacheableReason> {
    judge_with(Credentials::Keyed, policy, status, request, response)
}

fn judge_with(
    credentials: Credentials,
    policy: &config::CachePolicyConfig,
    status: u16,
    request: &[(&str, &str)],
    response: &[(&str, &str)],
) -> Result<StorageTerms, UncacheableReason> {
    let policy = Policy::new(
        policy,
        &config::CachePolicyConfig::default(),
        &CacheKeyTemplate::default(),
    );
    let exchange = HttpExchange {
        request: &headers(request),
        path: "/shop/a.png",
        length: Some(1000),
        status: StatusCode::from_u16(status).unwrap(),
        response: &headers(response),
        received: SystemTime::UNIX_EPOCH + Duration::from_secs(NOW),
        plugin_ttl: None,
        credentials,
        authorization: CameWith::of(&headers(request)).authorization,
    };
    policy.judge(&exchange, 0)
}

fn judge(response: &[(&str, &str)]) -> Result<StorageTerms, UncacheableReason> {
    judge_as(&config::CachePolicyConfig::default(), 200, &[], response)
}

fn of_response(secs: u64) -> Lifetime {
    Lifetime::OfResponse(Duration::from_secs(secs))
}

fn from_arrival(secs: u64) -> Lifetime {
    Lifetime::FromArrival(Duration::from_secs(secs))
}

const DATED: (&str, &str) = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");

#[test]
fn what_an_origin_says_of_a_strange_request_is_kept_only_when_configured() {
    let fresh = [("cache-control", "public, max-age=60")];
    for status in [400, 401, 403, 405, 413, 414, 429, 431, 451, 499, 511] {
        let listed = config::CachePolicyConfig {
            statuses: Some(vec![status]),
            ..Default::default()
        };
        let by_default = judge_as(&config::CachePolicyConfig::default(), status, &[], &fresh);
        assert_eq!(by_default, Err(UncacheableReason::Status), "{status}");
        assert!(judge_as(&listed, status, &[], &fresh).is_ok(), "{status}");
    }
    assert!(judge_as(&config::CachePolicyConfig::default(), 404, &[], &fresh).is_ok());
}

#[test]
fn what_has_trailers_that_count_is_never_stored() {
    let forced = config::CachePolicyConfig {
        mode: Some(config::TtlMode::Override),
        ttl: Some(units::ConfigDuration::secs(60)),
        ..Default::default()
    };
    let fresh = ("cache-control", "public, max-age=60");
    for (field, expected) in [
        (("content-type", "application/grpc"), false),
        (("content-type", "application/grpc+proto"), false),
        (("trailer", "digest"), false),
        (("content-type", "application/json"), true),
    ] {
        for policy in [&config::CachePolicyConfig::default(), &forced] {
            let judged = judge_as(policy, 200, &[], &[fresh, field]);
            match expected {
                true => assert!(judged.is_ok(), "{field:?}"),
                false => assert_eq!(judged, Err(UncacheableReason::Trailers), "{field:?}"),
            }
        }
    }
}

#[test]
fn who_says_who_he_is_gets_no_lifetime_of_ours() {
    let policy = config::CachePolicyConfig {
        ttl: Some(units::ConfigDuration::secs(30)),
        negative_cache: Some(config::NegativeCacheConfig {
            ttl: units::ConfigDuration::secs(3),
            statuses: vec![404],
        }),
        ..Default::default()
    };
    let ignoring = config::CachePolicyConfig {
        cookies: Some(config::RequestCookiePolicy::Ignore),
        ..policy.clone()
    };
    let overriding = config::CachePolicyConfig {
        mode: Some(config::TtlMode::Override),
        ..policy.clone()
    };
    let ruled = config::CachePolicyConfig {
        cookies: Some(config::RequestCookiePolicy::Private),
        ..overriding.clone()
    };
    use Credentials::{Authorization, Cookies, Keyed};
    let fresh = [("cache-control", "max-age=60")];
    for status in [200, 404] {
        for (policy, credentials, stored) in [
            (&policy, Keyed, true),
            (&policy, Cookies, false),
            (&policy, Authorization, false),
            (&ignoring, Cookies, true),
            (&ignoring, Authorization, false),
            (&overriding, Cookies, true),
            (&overriding, Authorization, true),
            (&ruled, Keyed, true),
            (&ruled, Cookies, false),
            (&ruled, Authorization, false),
        ] {
            let judged = judge_with(credentials, policy, status, &[], &[]);
            let why = judged.map(drop);
            let expected = if stored {
                Ok(())
            } else {
                Err(UncacheableReason::Credentials)
            };
            assert_eq!(why, expected, "{status} {credentials:?} {policy:?}");
            assert!(judge_with(credentials, policy, status, &[], &fresh).is_ok());
        }
    }
    let private = [("cache-control", "private")];
    let kept = judge_with(Cookies, &ruled, 200, &[], &private);
    assert_eq!(
        kept,
        Err(UncacheableReason::Private),
        "override counts no more"
    );
}

#[test]
fn explicit_freshness_goes_by_s_maxage_then_max_age_then_expires() {
    let expires = ("expires", "Sun, 06 Nov 1994 08:50:37 GMT");
    let table: [(Fields<'_>, Lifetime, LifetimeSource); 5] = [
        (
            &[("cache-control", "max-age=60, s-maxage=20")],
            of_response(20),
            LifetimeSource::SMaxage,
        ),
        (
            &[("cache-control", "max-age=60"), expires],
            of_response(60),
            LifetimeSource::MaxAge,
        ),
        (&[DATED, expires], of_response(60), LifetimeSource::Expires),
        (
            &[DATED, ("expires", "0")],
            of_response(0),
            LifetimeSource::Expires,
        ),
        (
            &[DATED, expires, expires],
            of_response(0),
            LifetimeSource::Expires,
        ),
    ];
    for (response, lifetime, source) in table {
        let terms = judge(response).unwrap();
        assert_eq!(
            (terms.lifetime, terms.source),
            (lifetime, source),
            "{response:?}"
        );
    }
}

#[test]
fn what_must_not_be_shared_is_refused_with_its_reason() {
    let fresh = ("cache-control", "max-age=60");
    let table: [(Fields<'_>, UncacheableReason); 5] = [
        (
            &[("cache-control", "no-store, max-age=60")],
            UncacheableReason::NoStore,
        ),
        (
            &[("cache-control", "private, max-age=60")],
            UncacheableReason::Private,
        ),
        (
            &[fresh, ("set-cookie", "a=1")],
            UncacheableReason::SetCookie,
        ),
        (&[fresh, ("vary", "accept, *")], UncacheableReason::VaryAny),
        (&[], UncacheableReason::NoFreshness),
    ];
    for (response, why) in table {
        assert_eq!(judge(response), Err(why), "{response:?}");
    }
    let default = config::CachePolicyConfig::default();
    let auth = [("authorization", "Basic x")];
    assert_eq!(
        judge_as(&default, 200, &auth, &[fresh]),
        Err(UncacheableReason::Authorization)
    );
    for shared in [
        "public, max-age=1",
        "s-maxage=1",
        "must-revalidate, max-age=1",
    ] {
        assert!(
            judge_as(&default, 200, &auth, &[("cache-control", shared)]).is_ok(),
            "{shared}"
        );
    }
    assert_eq!(
        judge_as(&default, 206, &[], &[fresh]),
        Err(UncacheableReason::Status)
    );
    assert_eq!(
        judge_as(
            &default,
            299,
            &[],
            &[("cache-control", "must-understand, no-store, max-age=9")]
        ),
        Err(UncacheableReason::Status)
    );
    assert!(judge(&[("cache-control", "must-understand, no-store, max-age=9")]).is_ok());
}

#[test]
fn no_lifetime_is_invented() {
    assert_eq!(
        judge(&[("etag", "\"a\"")]).unwrap().lifetime,
        of_response(0)
    );
    let modified = ("last-modified", "Sun, 06 Nov 1994 08:48:37 GMT");
    assert_eq!(
        judge(&[DATED, modified]).unwrap().lifetime,
        of_response(6),
        "a tenth of a minute"
    );
    assert_eq!(
        judge_as(
            &config::CachePolicyConfig::default(),
            500,
            &[],
            &[DATED, modified]
        ),
        Err(UncacheableReason::NoFreshness)
    );
    assert_eq!(
        judge(&[DATED, modified, ("cache-control", "no-cache")])
            .unwrap()
            .lifetime,
        of_response(0)
    );
}

/// Guards against a store full of responses that can never be used, and against a response that RFC
/// 9111 §3 does not allow to be stored.
#[test]
fn no_cache_is_kept_for_validation_alone() {
    let no_cache = ("cache-control", "no-cache");
    let tag = ("etag", "\"a\"");
    let as_status = |status, response: &[(&str, &str)]| {
        judge_as(&config::CachePolicyConfig::default(), status, &[], response)
            .map(|terms| terms.source)
    };
    assert_eq!(
        as_status(200, &[no_cache]),
        Err(UncacheableReason::NoFreshness)
    );
    assert_eq!(
        as_status(302, &[no_cache, tag]),
        Err(UncacheableReason::NoFreshness)
    );
    assert_eq!(
        as_status(200, &[no_cache, tag]),
        Ok(LifetimeSource::Validator)
    );
    let explicit = ("cache-control", "max-age=60");
    assert_eq!(
        as_status(302, &[no_cache, tag, explicit]),
        Ok(LifetimeSource::Validator)
    );
}

#[test]
fn modes_respect_override_and_cap_differ_as_documented() {
    let policy = |mode| config::CachePolicyConfig {
        mode: Some(mode),
        ttl: Some(units::ConfigDuration::secs(30)),
        ..Default::default()
    };
    let short = [("cache-control", "max-age=5")];
    let long = [("cache-control", "max-age=500")];
    let secret = [("cache-control", "no-store")];
    let cookie = [("cache-control", "max-age=5"), ("set-cookie", "a=1")];
    let with = |mode, response: &[(&str, &str)]| {
        judge_as(&policy(mode), 200, &[], response).map(|t| t.lifetime)
    };
    use config::TtlMode::{Cap, Override, Respect};
    assert_eq!(with(Respect, &short), Ok(of_response(5)));
    assert_eq!(with(Respect, &[]), Ok(from_arrival(30)));
    assert_eq!(with(Cap, &short), Ok(of_response(5)));
    assert_eq!(with(Cap, &long), Ok(of_response(30)));
    assert_eq!(with(Cap, &[]), Err(UncacheableReason::NoFreshness));
    assert_eq!(with(Override, &long), Ok(from_arrival(30)));
    assert_eq!(with(Override, &secret), Ok(from_arrival(30)));
    assert_eq!(
        with(Override, &cookie),
        Err(UncacheableReason::SetCookie),
        "a cookie is somebody's, whatever the route says"
    );
}

#[test]
fn negative_answers_have_a_ttl_of_their_own() {
    let negative = config::NegativeCacheConfig {
        ttl: units::ConfigDuration::secs(3),
        statuses: vec![404],
    };
    let policy = config::CachePolicyConfig {
        negative_cache: Some(negative),
        ttl: Some(units::ConfigDuration::secs(30)),
        ..Default::default()
    };
    let terms = judge_as(&policy, 404, &[], &[]).unwrap();
    assert_eq!(
        (terms.lifetime, terms.source),
        (from_arrival(3), LifetimeSource::Negative)
    );
    assert_eq!(
        judge_as(&policy, 404, &[], &[("cache-control", "max-age=9")])
            .unwrap()
            .lifetime,
        of_response(9)
    );
    assert_eq!(
        judge_as(&policy, 404, &[], &[("cache-control", "no-store")]),
        Err(UncacheableReason::NoStore)
    );
    assert_eq!(
        judge_as(&policy, 500, &[], &[]),
        Err(UncacheableReason::NoFreshness)
    );
}

#[test]
fn stale_windows_come_from_the_response_then_the_route() {
    let policy = config::CachePolicyConfig {
        stale_if_error: Some(units::ConfigDuration::secs(100)),
        ..Default::default()
    };
    let terms = judge_as(
        &policy,
        200,
        &[],
        &[("cache-control", "max-age=1, stale-while-revalidate=7")],
    )
    .unwrap();
    assert_eq!(
        (terms.while_revalidate, terms.if_error),
        (Duration::from_secs(7), Duration::from_secs(100))
    );
    for strict in [
        "max-age=1, must-revalidate",
        "max-age=1, proxy-revalidate",
        "s-maxage=1",
        "no-cache",
    ] {
        let terms = judge_as(
            &policy,
            200,
            &[],
            &[("cache-control", strict), ("etag", "\"a\"")],
        )
        .unwrap();
        assert!(terms.must_revalidate, "{strict}");
    }
}

proptest! {
    #[test]
    fn jitter_never_outlives_the_origins_word(secs in 0u64..1_000_000, jitter in 0u8..=100, random in any::<u32>()) {
        let policy = Policy::new(&config::CachePolicyConfig { jitter: Some(jitter), ..Default::default() }, &config::CachePolicyConfig::default(), &CacheKeyTemplate::default());
        let Lifetime::OfResponse(ttl) = policy.jittered(of_response(secs), random) else { unreachable!() };
        prop_assert!(ttl <= Duration::from_secs(secs));
        let Lifetime::FromArrival(ttl) = policy.jittered(from_arrival(secs), random) else { unreachable!() };
        let share = Duration::from_secs(secs) * u32::from(jitter) / 100;
        prop_assert!(ttl >= Duration::from_secs(secs) - share && ttl <= Duration::from_secs(secs) + share);
    }
}

/// A stream that continues as long as somebody listens gets no lifetime that the origin did not
/// state.
#[test]
fn an_endless_response_is_stored_only_on_its_own_word() {
    let stream = ("content-type", "text/event-stream");
    let validators = [
        stream,
        ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("etag", "\"a\""),
    ];
    let ttl = |mode| config::CachePolicyConfig {
        mode: Some(mode),
        ttl: Some(units::ConfigDuration::secs(60)),
        ..Default::default()
    };
    for policy in [
        config::CachePolicyConfig::default(),
        ttl(config::TtlMode::Respect),
        ttl(config::TtlMode::Cap),
        ttl(config::TtlMode::Override),
    ] {
        assert_eq!(
            judge_as(&policy, 200, &[], &validators),
            Err(UncacheableReason::Endless),
            "{policy:?}"
        );
        let unusable = [stream, ("cache-control", "max-age=0"), ("etag", "\"a\"")];
        assert_eq!(
            judge_as(&policy, 200, &[], &unusable),
            Err(UncacheableReason::Endless)
        );
    }
    let stated = [stream, ("cache-control", "max-age=60")];
    assert_eq!(judge(&stated).unwrap().lifetime, of_response(60));
}
