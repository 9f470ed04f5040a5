//! The purge log against a plain model: what a purge reached stays hidden, whatever comes after.
//!
//! Input: lines, one operation each: `load URL [TAG…]` (stored at once), `begin URL [TAG…]`
//! (stored by `end`), `end`, `tag|key|url|route|prefix|pattern|all NAME`, `group HOST NAME` (with
//! `soft-` before it, and `rule-` before that where a request caused it), `invalidate URL`
//! (what an unsafe request does by itself), `sweep`.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use lamina_base::pattern::Pattern;
use lamina_cache::entry::{Entry, PurgeAttributes};
use lamina_cache::freshness::Freshness;
use lamina_cache::key::{CacheKeyField, EntryKey, KeyBuf, hash64};
use lamina_cache::purge::{
    EntryVisibility, PurgeInitiator, PurgeKind, PurgeLog, PurgeOrder, Selector,
};
use lamina_cache::tags;

use fuzz_harness::input;

/// More records than this become one that reaches everything.
const MAX_RECORDS: usize = 8;

/// Lines of one input that are read.
const LINES: usize = 64;

struct Stored {
    entry: Entry,
    url: String,
    tags: Vec<String>,
    /// What the model says.
    hidden: bool,
    marked: bool,
    /// Still being loaded: nobody sees it yet.
    loading: bool,
}

pub fn check(data: &[u8]) {
    let log = PurgeLog::new(MAX_RECORDS, Duration::ZERO);
    let mut stored: Vec<Stored> = Vec::new();
    let mut exact = true;
    for line in input::texts(data).take(LINES) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "load" | "begin" => stored.push(load(&log, rest, word == "begin")),
            "end" => stored.iter_mut().for_each(|one| one.loading = false),
            "sweep" => exact &= sweep(&log, &stored),
            "invalidate" => invalidate(&log, &mut stored, rest),
            _ => exact &= purge(&log, &mut stored, word, rest),
        }
        for one in stored.iter().filter(|one| !one.loading) {
            judged(&log, one, exact);
        }
    }
}

/// The log may hide more than was asked for once it was full or swept; never less.
fn judged(log: &PurgeLog, one: &Stored, exact: bool) {
    let verdict = log.judge(&one.entry);
    let expected = match (one.hidden, one.marked) {
        (true, _) => EntryVisibility::Hidden,
        (false, true) => EntryVisibility::Marked,
        (false, false) => EntryVisibility::Visible,
    };
    assert!(
        verdict == expected || !exact && verdict == EntryVisibility::Hidden,
        "{}: {verdict:?}",
        one.url
    );
    let shared = log.hides(&one.entry.marks, one.entry.born);
    assert!(
        shared || verdict == EntryVisibility::Visible,
        "what is hidden or marked is not handed on"
    );
}

fn load(log: &PurgeLog, rest: &str, loading: bool) -> Stored {
    let mut words = rest.split(' ');
    let url = words.next().unwrap_or_default().to_owned();
    let tags: Vec<_> = words.map(str::to_owned).collect();
    let key = key(&url);
    let marks = PurgeAttributes {
        id: key.id().0,
        identity: hash64(url.as_bytes()),
        route: hash64(route(&url).as_bytes()),
        tags: tags.iter().map(|tag| hash64(tag.as_bytes())).collect(),
        groups: tags
            .iter()
            .map(|name| tags::group("http", route(&url), name))
            .collect(),
        url: url.as_str().into(),
    };
    let freshness = Freshness {
        received: Instant::now(),
        initial_age: Duration::ZERO,
        lifetime: Duration::from_secs(60),
        while_revalidate: Duration::ZERO,
        if_error: Duration::ZERO,
        must_revalidate: false,
    };
    let (headers, order) = (HeaderMap::new(), log.order());
    let entry = Entry::new(
        key,
        StatusCode::OK,
        headers,
        Bytes::new(),
        freshness,
        marks,
        order,
    );
    log.hold(&entry);
    Stored {
        entry,
        url,
        tags,
        hidden: false,
        marked: false,
        loading,
    }
}

fn key(url: &str) -> EntryKey {
    let mut key = KeyBuf::default();
    key.push(CacheKeyField::Text, url.as_bytes());
    key.to_key()
}

/// Each host is a route of its own here.
fn route(url: &str) -> &str {
    url.split('/').next().unwrap_or_default()
}

/// It reaches what it names, leaves no record, and nothing else is hidden by it.
fn invalidate(log: &PurgeLog, stored: &mut [Stored], url: &str) {
    let records = log.records();
    let (order, _) = log.invalidate(&[hash64(url.as_bytes())]);
    assert_eq!((order, log.records()), (log.order(), records));
    let named = stored.iter_mut().filter(|one| one.url == url);
    named.for_each(|one| one.hidden = true);
}

fn purge(log: &PurgeLog, stored: &mut [Stored], word: &str, name: &str) -> bool {
    let (author, word) = match word.strip_prefix("rule-") {
        Some(word) => (PurgeInitiator::Request, word),
        None => (PurgeInitiator::Operator, word),
    };
    let (kind, word) = match word.strip_prefix("soft-") {
        Some(word) => (PurgeKind::Soft, word),
        None => (PurgeKind::Hard, word),
    };
    let selector = match word {
        "key" => Selector::Key(key(name).id()),
        "url" => Selector::Url(hash64(name.as_bytes())),
        "tag" => Selector::Tag(name.to_owned()),
        "group" => {
            let (host, group) = name.split_once(' ').unwrap_or((name, ""));
            Selector::Group(tags::group("http", host, group))
        }
        "route" => Selector::Route(name.to_owned()),
        "prefix" => Selector::Prefix(name.to_owned()),
        "pattern" => Selector::Pattern(Pattern::new(name)),
        "all" => Selector::All,
        _ => return true,
    };
    let room = log.records() < MAX_RECORDS;
    let order: PurgeOrder = log.record_by(author, &selector, kind);
    assert_eq!(order, log.order());
    // No more lines than that make records of requests.
    assert!(
        log.records() <= MAX_RECORDS + 1 + LINES,
        "the log has a bound"
    );
    for one in stored.iter_mut().filter(|one| reaches(&selector, one)) {
        match kind {
            PurgeKind::Hard => one.hidden = true,
            PurgeKind::Soft => one.marked = true,
        }
    }
    room
}

fn reaches(selector: &Selector, one: &Stored) -> bool {
    match selector {
        Selector::Key(id) => key(&one.url).id() == *id,
        Selector::Url(identity) => hash64(one.url.as_bytes()) == *identity,
        Selector::Tag(tag) => one.tags.contains(tag),
        Selector::Group(mark) => {
            let marks = |name: &String| tags::group("http", route(&one.url), name);
            one.tags.iter().any(|name| marks(name) == *mark)
        }
        Selector::Route(name) => route(&one.url) == name,
        Selector::Prefix(prefix) => subject(&one.url, prefix).starts_with(bare(prefix)),
        Selector::Pattern(pattern) => {
            let source = bare(pattern.as_str());
            Pattern::new(source).matches(subject(&one.url, pattern.as_str()))
        }
        Selector::All => true,
    }
}

fn bare(url: &str) -> &str {
    let http = url.strip_prefix("http://");
    http.or_else(|| url.strip_prefix("https://")).unwrap_or(url)
}

/// With a host, or on every host.
fn subject<'a>(url: &'a str, selector: &str) -> &'a str {
    match (bare(selector).starts_with('/'), url.find('/')) {
        (true, Some(at)) => &url[at..],
        (true, None) => "",
        (false, _) => url,
    }
}

/// As the cache sweeps: every entry that can be seen is judged.
fn sweep(log: &PurgeLog, stored: &[Stored]) -> bool {
    let begun = log.begin_sweep();
    for one in stored.iter().filter(|one| !one.loading) {
        log.judge(&one.entry);
    }
    log.end_sweep(begun, Instant::now());
    // A load from before two sweeps can't be judged any more.
    stored.iter().all(|one| !one.loading)
}
