//! Shares, ejections, priorities and rests of targets that no request is sent to.

use std::collections::BTreeMap;

use http::StatusCode;

use super::*;
use crate::origin::config::{ActiveHealthConfig, TargetConfig};
use crate::origin::health::CheckOutcome;
use crate::origin::spread::{SeededNumbers, stable_hash};

/// An upstream whose targets and balancing are this YAML.
fn targets(yaml: &str) -> OriginTargets {
    let upstream: UpstreamConfig = serde_yaml::from_str(yaml).unwrap();
    parsed(&upstream).unwrap()
}

fn parsed(upstream: &UpstreamConfig) -> Result<OriginTargets, BuildError> {
    let watch = Arc::new(UpstreamTlsReport::new("shop", &upstream.tls));
    let shared = SharedOriginState::default();
    let metrics = shared.families.of("shop");
    OriginTargets::parse("shop", upstream, &watch, metrics, &shared)
}

fn named(targets: &OriginTargets, name: &str) -> Arc<OriginTarget> {
    let all = targets.all();
    let found = all.iter().find(|target| &*target.name == name);
    Arc::clone(found.unwrap())
}

/// How many of so many requests each target gets. `hold` tells whether they stay under way.
fn shares(
    targets: &OriginTargets,
    requests: u64,
    by_hash: bool,
    now: Instant,
) -> BTreeMap<String, u32> {
    let mut shares = BTreeMap::new();
    for n in 0..requests {
        let hash = by_hash.then(|| mixed(n));
        let choice = targets.choose(hash, &[], now).unwrap();
        *shares.entry(choice.target.name.to_string()).or_default() += 1;
    }
    shares
}

fn eject(targets: &OriginTargets, name: &str) {
    eject_at(targets, name, Instant::now());
}

fn eject_at(targets: &OriginTargets, name: &str, now: Instant) {
    let target = &named(targets, name);
    let failed = AnswerQuality::Failed(FailureKind::Reset);
    for _ in 0..5 {
        targets.note(target, failed, Duration::ZERO, None, now);
    }
}

/// Notes a check of the target, of which one decides: it passes ('+') or fails.
fn check(target: &OriginTarget, result: char, now: Instant) {
    let rules: ActiveHealthConfig = serde_yaml::from_str("{path: /, fall: 1, rise: 1}").unwrap();
    let outcome = match result {
        '+' => CheckOutcome::Passed(StatusCode::OK),
        _ => CheckOutcome::WrongStatus(StatusCode::INTERNAL_SERVER_ERROR),
    };
    target.health.checked(&outcome, &rules, now);
}

const THREE: &str = "targets: [http://a, http://b, http://c]\n";

#[test]
fn equal_targets_get_equal_shares_and_others_by_their_weights() {
    let now = Instant::now();
    let weighted = "targets: [http://a, { url: http://b, weight: 2 }, http://c]\n";
    for by in ["least_request", "round_robin", "hash"] {
        for (yaml, expected) in [(THREE, [667, 667, 667]), (weighted, [500, 1_000, 500])] {
            let targets = targets(&format!("{yaml}balance: {{ by: {by}, hash: client }}"));
            let shares = shares(&targets, 2_000, by == "hash", now);
            for (share, expected) in shares.values().zip(expected) {
                assert!(share.abs_diff(expected) <= 100, "{by}: {shares:?}");
            }
            assert_eq!(shares.len(), 3);
        }
    }
}

#[test]
fn less_goes_to_a_target_with_more_under_way_or_slower_answers() {
    let now = Instant::now();
    let targets = targets(THREE);
    let held: Vec<_> = (0..10)
        .map(|_| named(&targets, "a").begin_request())
        .collect();
    assert_eq!(shares(&targets, 200, false, now).get("a"), None);
    drop(held);
    let slow = &named(&targets, "b");
    targets.note(
        slow,
        AnswerQuality::Good,
        Duration::from_secs(1),
        None,
        Instant::now(),
    );
    let shares = shares(&targets, 200, false, Instant::now());
    assert_eq!((shares.get("b"), shares.len()), (None, 2));
}

/// linkerd/linkerd2#11669: a target that fails at once must not look like a quick one.
#[test]
fn a_failed_answer_never_attracts_requests() {
    let targets = targets(THREE);
    for name in ["a", "c"] {
        targets.note(
            &named(&targets, name),
            AnswerQuality::Good,
            Duration::from_millis(30),
            None,
            Instant::now(),
        );
    }
    let failure = AnswerQuality::Failed(FailureKind::Status(500));
    targets.note(
        &named(&targets, "b"),
        failure,
        Duration::from_micros(50),
        None,
        Instant::now(),
    );
    assert_eq!(shares(&targets, 200, false, Instant::now()).get("b"), None);
}

/// A target that comes back must not look quicker than all others, nor as slow as its failures.
#[test]
fn a_target_that_comes_back_looks_like_the_others() {
    let targets = targets(&format!("{THREE}balance: {{ slow_start: 0s }}"));
    let answers = |now: Instant| {
        for name in ["a", "c"] {
            let took = Duration::from_millis(30);
            targets.note(&named(&targets, name), AnswerQuality::Good, took, None, now);
        }
    };
    answers(Instant::now());
    eject(&targets, "b");
    let back = Instant::now() + Duration::from_secs(12);
    answers(back);
    let shares = shares(&targets, 600, false, back);
    assert!((120..=280).contains(&shares["b"]), "{shares:?}");
}

#[test]
fn taking_a_target_away_moves_only_its_own_keys() {
    let hashed = format!("{THREE}balance: {{ by: hash, hash: client }}");
    let targets = targets(&hashed);
    let now = Instant::now();
    let owner = |n: u64| {
        targets
            .choose(Some(mixed(n)), &[], now)
            .unwrap()
            .target
            .name
            .to_string()
    };
    let before: Vec<_> = (0..1_000).map(owner).collect();
    eject(&targets, "b");
    let now = Instant::now();
    let moved = (0..1_000).filter(|n| {
        let after = targets
            .choose(Some(mixed(*n)), &[], now)
            .unwrap()
            .target
            .name
            .to_string();
        let before = &before[*n as usize];
        assert!(after != "b");
        after != *before && *before != "b"
    });
    assert_eq!(moved.count(), 0);
}

/// Two processes with the same configuration send an object to the same target.
#[test]
fn targets_by_hash_do_not_depend_on_the_process_or_on_their_order() {
    let balance = "balance: { by: hash, hash: key }";
    let one = targets(&format!("{THREE}{balance}"));
    let other = targets(&format!(
        "targets: [http://c, http://b, http://a]\n{balance}"
    ));
    let owner = |targets: &OriginTargets, hash: u64| {
        let choice = targets.choose(Some(hash), &[], Instant::now()).unwrap();
        choice.target.name.to_string()
    };
    let mut owners = BTreeMap::new();
    for n in 0..1_000 {
        let name = owner(&one, stable_hash(&u64::to_be_bytes(n)));
        assert_eq!(name, owner(&other, stable_hash(&u64::to_be_bytes(n))));
        *owners.entry(name).or_insert(0) += 1;
    }
    assert!(owners.values().all(|n| *n > 250), "{owners:?}");
    assert_eq!(stable_hash(b"/page"), 0xb94a_77f4_8f39_c624, "as before");
}

#[test]
fn clients_stay_with_a_target_that_is_drained_and_not_with_one_that_is_out_or_ejected() {
    use crate::origin::control::{AdministrativeState, ControlOrder};
    let targets = targets(THREE);
    let a = &named(&targets, "a");
    let pinned = || targets.pinned(a.pin, Instant::now());
    let order = |state| a.control.follow(ControlOrder { state, until: None });
    assert!(Arc::ptr_eq(&pinned().unwrap(), a));
    order(AdministrativeState::Drain);
    assert!(pinned().is_some());
    order(AdministrativeState::Out);
    assert!(pinned().is_none());
    order(AdministrativeState::Ready);
    let unknown = super::super::sticky::StickyPin::of("shop", "d");
    assert!(targets.pinned(unknown, Instant::now()).is_none());
    eject(&targets, "a");
    assert!(pinned().is_none());
}

#[test]
fn no_target_gets_more_than_its_bound_of_one_key() {
    let targets = targets(&format!(
        "{THREE}balance: {{ by: hash, hash: client, bound: 1.25 }}"
    ));
    let now = Instant::now();
    let mut held = Vec::new();
    for _ in 0..300 {
        let choice = targets.choose(Some(7), &[], now).unwrap();
        held.push(choice.target.begin_request());
    }
    for target in targets.all().iter() {
        assert!(
            target.in_flight() <= 126,
            "{}: {}",
            target.name,
            target.in_flight()
        );
    }
}

#[test]
fn a_retry_goes_elsewhere_while_another_target_can_be_used() {
    let targets = targets(THREE);
    let tried = [named(&targets, "a"), named(&targets, "b")];
    for _ in 0..50 {
        let choice = targets.choose(None, &tried, Instant::now()).unwrap();
        assert_eq!(&*choice.target.name, "c");
    }
    eject(&targets, "c");
    assert!(!targets.has_another(&tried, Instant::now()));
}

#[test]
fn at_most_the_allowed_share_is_ejected_and_never_the_last() {
    let all = targets(THREE);
    ["a", "b", "c"].iter().for_each(|name| eject(&all, name));
    assert_eq!(all.usable(Instant::now()), 2, "half of three is one");
    let two = targets("targets: [http://a, http://b]\nhealth: { passive: { max_ejected: 100 } }");
    ["a", "b"].iter().for_each(|name| eject(&two, name));
    assert_eq!(two.usable(Instant::now()), 1);
    let one = targets("targets: [http://a]\nhealth: { passive: { max_ejected: 100 } }");
    eject(&one, "a");
    assert_eq!(one.usable(Instant::now()), 1);
    let off = targets("targets: [http://a, http://b]\nhealth: { passive: { failures: 0 } }");
    eject(&off, "a");
    assert_eq!(off.usable(Instant::now()), 2);
}

#[test]
fn where_too_few_can_be_used_requests_go_to_all() {
    let all = "targets: [http://a, http://b, http://c]\nhealth: { passive: { max_ejected: 100 } }";
    let targets = targets(all);
    eject(&targets, "a");
    let choice = targets.choose(None, &[], Instant::now()).unwrap();
    assert_eq!(choice.situation, ChoiceSituation::Usual, "two of three");
    eject(&targets, "b");
    let now = Instant::now();
    let panics = (0..100).map(|_| targets.choose(None, &[], now).unwrap());
    let situations: Vec<_> = panics
        .map(|choice| (choice.situation, choice.target.name.to_string()))
        .collect();
    assert!(
        situations
            .iter()
            .all(|(situation, _)| *situation == ChoiceSituation::Panic)
    );
    assert!(situations.iter().any(|(_, name)| name == "a"));
}

#[test]
fn a_lower_class_gets_requests_only_while_too_few_of_the_upper_can_be_used() {
    let targets = targets(
        "targets: [{ url: http://b1, priority: 1 }, http://a1, http://a2]\nhealth: { passive: { max_ejected: 100 } }\nbalance: { panic: 60, slow_start: 0s }",
    );
    let now = Instant::now();
    assert_eq!(shares(&targets, 100, false, now).get("b1"), None);
    eject(&targets, "a1");
    let spilled = shares(&targets, 100, false, Instant::now());
    assert!(
        spilled.contains_key("b1") && !spilled.contains_key("a1"),
        "{spilled:?}"
    );
    let back = Instant::now() + Duration::from_secs(20);
    assert_eq!(shares(&targets, 100, false, back).get("b1"), None);
}

/// What has gone to a lower class comes back only when ten points more than `panic` can be used.
#[test]
fn a_lower_class_gives_requests_back_with_a_hysteresis() {
    let urls: Vec<_> = (0..10).map(|n| format!("http://a{n}")).collect();
    let targets = targets(&format!(
        "targets: [{}, {{ url: http://lower, priority: 1 }}]\nbalance: {{ panic: 50 }}",
        urls.join(", ")
    ));
    let now = Instant::now();
    let spills_with = |usable: usize| {
        for (n, target) in targets.all().iter().take(10).enumerate() {
            let verdict = if n < usable { '+' } else { '-' };
            check(target, verdict, now);
        }
        shares(&targets, 300, false, now).contains_key("lower")
    };
    let usable = [10, 6, 5, 4, 5, 6, 5, 4, 6];
    let spilled = usable.map(spills_with);
    assert_eq!(
        spilled,
        [false, false, false, true, true, false, false, true, false]
    );
}

/// caddyserver/caddy#7870: health belongs to a target of an upstream, and not to an address.
#[test]
fn upstreams_at_one_address_do_not_share_its_health() {
    let shared = SharedOriginState::default();
    let yaml = "targets: [http://127.0.0.1:9000, http://127.0.0.1:9001]";
    let config: UpstreamConfig = serde_yaml::from_str(yaml).unwrap();
    let [shop, blog] = ["shop", "blog"].map(|name| {
        let watch = Arc::new(UpstreamTlsReport::new(name, &config.tls));
        OriginTargets::parse(name, &config, &watch, shared.families.of(name), &shared).unwrap()
    });
    let (now, name) = (Instant::now(), shop.all()[0].name.to_string());
    let name = &*name;
    eject_at(&shop, name, now);
    check(&named(&shop, name), '-', now);
    assert_eq!(named(&shop, name).health.observed(now), ObservedState::Down);
    assert_eq!((shop.usable(now), blog.usable(now)), (1, 2));
    assert!(shares(&blog, 200, false, now).contains_key(name));
    assert_eq!(named(&blog, name).latency.seconds(now), 0.0);
}

#[test]
fn a_target_that_asked_for_a_rest_gets_none_while_there_is_another() {
    let targets = targets("targets: [http://a, http://b]");
    let rest = Some(Duration::from_secs(3_600));
    let busy = AnswerQuality::Neutral;
    targets.note(
        &named(&targets, "a"),
        busy,
        Duration::ZERO,
        rest,
        Instant::now(),
    );
    let now = Instant::now();
    assert_eq!(shares(&targets, 50, false, now).get("a"), None);
    assert_eq!(targets.usable(now), 2, "it is not unhealthy");
    targets.note(
        &named(&targets, "b"),
        busy,
        Duration::ZERO,
        rest,
        Instant::now(),
    );
    assert_eq!(shares(&targets, 50, false, now).len(), 2);
    let later = now + Duration::from_secs(31);
    assert_eq!(
        shares(&targets, 50, false, later).len(),
        2,
        "half a minute at most"
    );
}

#[test]
fn a_target_that_comes_back_begins_with_a_tenth_each_time() {
    for by in ["round_robin", "hash"] {
        let balance = format!("balance: {{ by: {by}, hash: client, slow_start: 10s }}");
        let targets = targets(&format!("{THREE}{balance}"));
        let share_of_a = |now| shares(&targets, 2_000, by == "hash", now)["a"];
        let mut now = Instant::now();
        // The second ejection takes twice as long, and may be a tenth longer or shorter, too.
        for longest in [Duration::from_millis(11_001), Duration::from_millis(22_001)] {
            eject_at(&targets, "a", now);
            let back = now + longest;
            let first = share_of_a(back);
            assert!(first < 450, "{by}: {first}");
            now = back + Duration::from_secs(10);
            assert!(share_of_a(now) > 600, "{by}");
        }
    }
}

/// While a target gets more and more of its keys again, all other keys stay where they are.
#[test]
fn a_target_that_comes_back_takes_its_own_keys_alone() {
    let targets = targets(&format!(
        "{THREE}balance: {{ by: hash, hash: client, slow_start: 10s }}"
    ));
    let owners = |now| -> Vec<String> {
        let choices = (0..1_000).map(|n| targets.choose(Some(mixed(n)), &[], now).unwrap());
        choices
            .map(|choice| choice.target.name.to_string())
            .collect()
    };
    let began = Instant::now();
    let before = owners(began);
    eject_at(&targets, "b", began);
    for seconds in [5, 12, 16, 30] {
        let now = owners(began + Duration::from_secs(seconds));
        let moved = before
            .iter()
            .zip(&now)
            .filter(|(before, now)| before != now);
        assert!(moved.clone().all(|(before, _)| before == "b"), "{seconds}");
        assert_eq!(moved.count() == 0, seconds == 30, "{seconds}");
    }
}

/// Whatever happens to targets: one that fails gets nothing while another can be used, a retry goes
/// elsewhere, and failures alone never take the last one or more than their share.
#[test]
fn no_sequence_of_events_leads_to_a_target_that_fails_while_another_can_be_used() {
    for seed in 0..300 {
        let mut numbers = SeededNumbers(seed);
        let most = [34, 50, 100][numbers.below(3)];
        let urls: Vec<_> = (0..2 + numbers.below(4))
            .map(|n| format!("{{ url: http://t{n}, priority: {} }}", numbers.below(2)))
            .collect();
        let targets = targets(&format!(
            "targets: [{}]\nhealth: {{ passive: {{ failures: 2, max_ejected: {most} }} }}\nbalance: {{ by: {}, hash: client, panic: {} }}",
            urls.join(", "),
            ["least_request", "round_robin", "hash"][numbers.below(3)],
            [0, 50][numbers.below(2)],
        ));
        let (with_checks, mut now) = (numbers.below(2) == 1, Instant::now());
        for step in 0..80 {
            now += Duration::from_millis(numbers.below(4_000) as u64);
            let all = targets.all();
            let target = &all[numbers.below(all.len())];
            let (quality, rest) = match numbers.below(6) {
                0 => (AnswerQuality::Good, None),
                1 => (AnswerQuality::Neutral, Some(Duration::from_secs(5))),
                _ => (AnswerQuality::Failed(FailureKind::Reset), None),
            };
            targets.note(target, quality, Duration::from_millis(5), rest, now);
            if with_checks && numbers.below(4) == 0 {
                check(target, ['+', '-'][numbers.below(2)], now);
            }
            let told = format!("seed {seed}, step {step}");
            let ejected = all.iter().filter(|one| one.health.is_ejected(now)).count();
            assert!(ejected * 100 <= most * all.len(), "{told}: {ejected}");
            assert!(with_checks || targets.usable(now) > 0, "{told}: the last");
            let tried = [Arc::clone(target)];
            let tried = &tried[..numbers.below(2)];
            let hash = Some(mixed(numbers.next()));
            let TargetChoice { target, situation } = targets.choose(hash, tried, now).unwrap();
            if situation == ChoiceSituation::Panic || targets.usable(now) == 0 {
                continue;
            }
            assert!(target.is_usable(now), "{told}: {}", target.name);
            let another = all.iter().any(|one| {
                one.health.observed(now) == ObservedState::Usable
                    && one.priority() == target.priority()
                    && !tried.iter().any(|tried| Arc::ptr_eq(tried, one))
            });
            let again = tried.iter().any(|one| Arc::ptr_eq(one, &target));
            assert!(!(again && another), "{told}: {} again", target.name);
        }
    }
}

#[test]
fn urls_that_cannot_be_used_are_named() {
    let said = |url: &str| {
        let upstream = UpstreamConfig::from_url(url);
        parsed(&upstream).err().unwrap().to_string()
    };
    for url in [
        "a",
        "a:80",
        "ftp://a",
        "http://a/path",
        "http://a/?q",
        "http://u@a",
        "http://",
        "",
    ] {
        assert!(said(url).contains("http://host:port"), "{url}");
    }
    let none = UpstreamConfig {
        targets: Vec::<TargetConfig>::new(),
        ..UpstreamConfig::from_url("http://a")
    };
    assert!(matches!(parsed(&none), Err(BuildError::NoTargets { .. })));
}
