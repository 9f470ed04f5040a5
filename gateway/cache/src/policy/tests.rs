//! Tests of `cache::policy`.

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
    policy: &config::Policy,
    status: u16,
    request: &[(&str, &str)],
    response: &[(&str, &str)],
) -> Result<Terms, Refusal> {
    judge_with(Credentials::Keyed, policy, status, request, response)
}

fn judge_with(
    credentials: Credentials,
    policy: &config::Policy,
    status: u16,
    request: &[(&str, &str)],
    response: &[(&str, &str)],
) -> Result<Terms, Refusal> {
    let policy = Policy::new(policy, &config::Policy::default(), false);
    let exchange = Exchange {
        request: &headers(request),
        status: StatusCode::from_u16(status).unwrap(),
        response: &headers(response),
        received: SystemTime::UNIX_EPOCH + Duration::from_secs(NOW),
        plugin_ttl: None,
        credentials,
        authorization: CameWith::of(&headers(request)).authorization,
    };
    policy.judge(&exchange, 0)
}

fn judge(response: &[(&str, &str)]) -> Result<Terms, Refusal> {
    judge_as(&config::Policy::default(), 200, &[], response)
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
        let listed = config::Policy {
            statuses: Some(vec![status]),
            ..Default::default()
        };
        let by_default = judge_as(&config::Policy::default(), status, &[], &fresh);
        assert_eq!(by_default, Err(Refusal::Status), "{status}");
        assert!(judge_as(&listed, status, &[], &fresh).is_ok(), "{status}");
    }
    assert!(judge_as(&config::Policy::default(), 404, &[], &fresh).is_ok());
}

#[test]
fn who_says_who_he_is_gets_no_lifetime_of_ours() {
    let policy = config::Policy {
        ttl: Some(units::Duration::secs(30)),
        negative_cache: Some(config::Negative {
            ttl: units::Duration::secs(3),
            statuses: vec![404],
        }),
        ..Default::default()
    };
    let ignoring = config::Policy {
        cookies: Some(config::Cookies::Ignore),
        ..policy.clone()
    };
    let overriding = config::Policy {
        mode: Some(config::Mode::Override),
        ..policy.clone()
    };
    let ruled = config::Policy {
        cookies: Some(config::Cookies::Private),
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
                Err(Refusal::Credentials)
            };
            assert_eq!(why, expected, "{status} {credentials:?} {policy:?}");
            assert!(judge_with(credentials, policy, status, &[], &fresh).is_ok());
        }
    }
    let private = [("cache-control", "private")];
    let kept = judge_with(Cookies, &ruled, 200, &[], &private);
    assert_eq!(kept, Err(Refusal::Private), "override counts no more");
}

#[test]
fn explicit_freshness_goes_by_s_maxage_then_max_age_then_expires() {
    let expires = ("expires", "Sun, 06 Nov 1994 08:50:37 GMT");
    let table: [(Fields<'_>, Lifetime, Source); 5] = [
        (
            &[("cache-control", "max-age=60, s-maxage=20")],
            of_response(20),
            Source::SMaxage,
        ),
        (
            &[("cache-control", "max-age=60"), expires],
            of_response(60),
            Source::MaxAge,
        ),
        (&[DATED, expires], of_response(60), Source::Expires),
        (&[DATED, ("expires", "0")], of_response(0), Source::Expires),
        (&[DATED, expires, expires], of_response(0), Source::Expires),
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
    let table: [(Fields<'_>, Refusal); 5] = [
        (
            &[("cache-control", "no-store, max-age=60")],
            Refusal::NoStore,
        ),
        (
            &[("cache-control", "private, max-age=60")],
            Refusal::Private,
        ),
        (&[fresh, ("set-cookie", "a=1")], Refusal::SetCookie),
        (&[fresh, ("vary", "accept, *")], Refusal::VaryAny),
        (&[], Refusal::NoFreshness),
    ];
    for (response, why) in table {
        assert_eq!(judge(response), Err(why), "{response:?}");
    }
    let default = config::Policy::default();
    let auth = [("authorization", "Basic x")];
    assert_eq!(
        judge_as(&default, 200, &auth, &[fresh]),
        Err(Refusal::Authorization)
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
    assert_eq!(judge_as(&default, 206, &[], &[fresh]), Err(Refusal::Status));
    assert_eq!(
        judge_as(
            &default,
            299,
            &[],
            &[("cache-control", "must-understand, no-store, max-age=9")]
        ),
        Err(Refusal::Status)
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
        judge_as(&config::Policy::default(), 500, &[], &[DATED, modified]),
        Err(Refusal::NoFreshness)
    );
    assert_eq!(
        judge(&[DATED, modified, ("cache-control", "no-cache")])
            .unwrap()
            .lifetime,
        of_response(0)
    );
}

/// Guards against a store full of responses that nothing can make usable, and against
/// one that RFC 9111 §3 does not let in.
#[test]
fn no_cache_is_kept_for_validation_alone() {
    let no_cache = ("cache-control", "no-cache");
    let tag = ("etag", "\"a\"");
    let as_status = |status, response: &[(&str, &str)]| {
        judge_as(&config::Policy::default(), status, &[], response).map(|terms| terms.source)
    };
    assert_eq!(as_status(200, &[no_cache]), Err(Refusal::NoFreshness));
    assert_eq!(as_status(302, &[no_cache, tag]), Err(Refusal::NoFreshness));
    assert_eq!(as_status(200, &[no_cache, tag]), Ok(Source::Validator));
    let explicit = ("cache-control", "max-age=60");
    assert_eq!(
        as_status(302, &[no_cache, tag, explicit]),
        Ok(Source::Validator)
    );
}

#[test]
fn modes_respect_override_and_cap_differ_as_documented() {
    let policy = |mode| config::Policy {
        mode: Some(mode),
        ttl: Some(units::Duration::secs(30)),
        ..Default::default()
    };
    let short = [("cache-control", "max-age=5")];
    let long = [("cache-control", "max-age=500")];
    let secret = [("cache-control", "no-store")];
    let cookie = [("cache-control", "max-age=5"), ("set-cookie", "a=1")];
    let with = |mode, response: &[(&str, &str)]| {
        judge_as(&policy(mode), 200, &[], response).map(|t| t.lifetime)
    };
    use config::Mode::{Cap, Override, Respect};
    assert_eq!(with(Respect, &short), Ok(of_response(5)));
    assert_eq!(with(Respect, &[]), Ok(from_arrival(30)));
    assert_eq!(with(Cap, &short), Ok(of_response(5)));
    assert_eq!(with(Cap, &long), Ok(of_response(30)));
    assert_eq!(with(Cap, &[]), Err(Refusal::NoFreshness));
    assert_eq!(with(Override, &long), Ok(from_arrival(30)));
    assert_eq!(with(Override, &secret), Ok(from_arrival(30)));
    assert_eq!(
        with(Override, &cookie),
        Err(Refusal::SetCookie),
        "a cookie is somebody's, whatever the route says"
    );
}

#[test]
fn negative_answers_have_a_ttl_of_their_own() {
    let negative = config::Negative {
        ttl: units::Duration::secs(3),
        statuses: vec![404],
    };
    let policy = config::Policy {
        negative_cache: Some(negative),
        ttl: Some(units::Duration::secs(30)),
        ..Default::default()
    };
    let terms = judge_as(&policy, 404, &[], &[]).unwrap();
    assert_eq!(
        (terms.lifetime, terms.source),
        (from_arrival(3), Source::Negative)
    );
    assert_eq!(
        judge_as(&policy, 404, &[], &[("cache-control", "max-age=9")])
            .unwrap()
            .lifetime,
        of_response(9)
    );
    assert_eq!(
        judge_as(&policy, 404, &[], &[("cache-control", "no-store")]),
        Err(Refusal::NoStore)
    );
    assert_eq!(judge_as(&policy, 500, &[], &[]), Err(Refusal::NoFreshness));
}

#[test]
fn stale_windows_come_from_the_response_then_the_route() {
    let policy = config::Policy {
        stale_if_error: Some(units::Duration::secs(100)),
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
    fn jitter_never_outlives_the_origins_word(secs in 0u64..1_000_000, jitter in 0u8..=100, dice in any::<u32>()) {
        let policy = Policy::new(&config::Policy { jitter: Some(jitter), ..Default::default() }, &config::Policy::default(), false);
        let Lifetime::OfResponse(ttl) = policy.jittered(of_response(secs), dice) else { unreachable!() };
        prop_assert!(ttl <= Duration::from_secs(secs));
        let Lifetime::FromArrival(ttl) = policy.jittered(from_arrival(secs), dice) else { unreachable!() };
        let share = Duration::from_secs(secs) * u32::from(jitter) / 100;
        prop_assert!(ttl >= Duration::from_secs(secs) - share && ttl <= Duration::from_secs(secs) + share);
    }
}

/// What goes on while somebody listens gets no lifetime that the origin did not state.
#[test]
fn an_endless_response_is_stored_only_on_its_own_word() {
    let stream = ("content-type", "text/event-stream");
    let validators = [
        stream,
        ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("etag", "\"a\""),
    ];
    let ttl = |mode| config::Policy {
        mode: Some(mode),
        ttl: Some(units::Duration::secs(60)),
        ..Default::default()
    };
    for policy in [
        config::Policy::default(),
        ttl(config::Mode::Respect),
        ttl(config::Mode::Cap),
        ttl(config::Mode::Override),
    ] {
        assert_eq!(
            judge_as(&policy, 200, &[], &validators),
            Err(Refusal::Endless),
            "{policy:?}"
        );
        let unusable = [stream, ("cache-control", "max-age=0"), ("etag", "\"a\"")];
        assert_eq!(
            judge_as(&policy, 200, &[], &unusable),
            Err(Refusal::Endless)
        );
    }
    let stated = [stream, ("cache-control", "max-age=60")];
    assert_eq!(judge(&stated).unwrap().lifetime, of_response(60));
}
