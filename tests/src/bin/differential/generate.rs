//! The seeded stream: sequences that are plain in most respects and odd in a few.
//!
//! Decision: an odd part in each of many sequences rather than many in each, because
//! only the first difference of a sequence is looked at, and one that everybody knows
//! would hide the others behind it.

use e2e::random::Random;
use http::Method;

use crate::sequence::{
    AnswerDelivery, FieldLine, OriginAnswer, RequestSequence, SequenceRequest, SequenceStep, date,
    text, url,
};

/// As many sequences as make `requests` requests.
pub fn stream(seed: u64, requests: usize) -> Vec<RequestSequence> {
    let mut random = Random::new(seed);
    let mut left = requests;
    let mut all = Vec::new();
    while left > 0 {
        let sequence = sequence(&mut random);
        left = left.saturating_sub(sequence.steps.len());
        all.push(sequence);
    }
    all
}

fn sequence(random: &mut Random) -> RequestSequence {
    let count = 2 + random.below(4);
    let pause = chance(random, 30).then(|| 1 + random.below(count - 1));
    let mut now = answer(random, pause.is_some());
    let mut steps = Vec::new();
    for at in 0..count {
        if at > 0 {
            now = next(random, now, pause.is_some());
        }
        let ask = ask(random);
        let mut answer = now.clone();
        if !ask.reads() {
            unsafe_answer(random, &mut answer);
        }
        steps.push(SequenceStep {
            pause: Some(at) == pause,
            ask,
            answer,
        });
    }
    RequestSequence { steps }
}

/// Percent.
fn chance(random: &mut Random, percent: u64) -> bool {
    random.below(100) < percent
}

fn pick<T: Clone>(random: &mut Random, from: &[T]) -> T {
    from[random.below(from.len() as u64) as usize].clone()
}

/// What the origin says next: mostly the same, else another version, else something new.
fn next(random: &mut Random, before: OriginAnswer, short: bool) -> OriginAnswer {
    match random.below(10) {
        0..5 => before,
        5..8 => {
            let version = 3 - before.version;
            let known = |field: &FieldLine| !matches!(field.name, "etag" | "last-modified");
            let mut fields: Vec<FieldLine> = before.fields.iter().copied().filter(known).collect();
            if fields.len() < before.fields.len() {
                fields.extend(validators(random, version));
            }
            OriginAnswer {
                version,
                fields,
                ..before
            }
        }
        _ => answer(random, short),
    }
}

const STATUSES: [u16; 17] = [
    203, 204, 299, 300, 301, 302, 303, 307, 308, 404, 405, 410, 414, 500, 501, 502, 503,
];

fn answer(random: &mut Random, short: bool) -> OriginAnswer {
    let version = 1 + random.below(2) as u8;
    let mut fields = lifetime(random, short);
    if chance(random, 55) {
        fields.extend(validators(random, version));
    }
    if chance(random, 25) {
        fields.extend(pick(random, ODDITIES));
    }
    let way = match random.below(50) {
        0 => AnswerDelivery::HangUp,
        1 => AnswerDelivery::Cut,
        _ => AnswerDelivery::Whole,
    };
    let status = match chance(random, 80) {
        true => 200,
        false => pick(random, &STATUSES),
    };
    OriginAnswer {
        way,
        status,
        fields,
        version,
    }
}

const PLAIN: FieldLine = text("cache-control", "max-age=3600");

const LIFETIMES: &[&[FieldLine]] = &[
    &[],
    &[date("expires", 3600)],
    &[date("expires", -3600)],
    &[text("expires", "0")],
    &[text("expires", "tomorrow")],
    &[date("expires", 3600), date("expires", 7200)],
    &[text("cache-control", "max-age=0"), date("expires", 3600)],
    &[PLAIN, date("expires", -3600)],
    &[text("cache-control", "max-age=0")],
    &[text("cache-control", "s-maxage=3600, max-age=0")],
    &[text("cache-control", "s-maxage=0, max-age=3600")],
    &[text("cache-control", "max-age=0, s-maxage=3600")],
    &[text("cache-control", "no-store")],
    &[text("cache-control", "no-store, max-age=3600")],
    &[text("cache-control", "no-cache")],
    &[text("cache-control", "no-cache, max-age=3600")],
    &[text("cache-control", "private, max-age=3600")],
    &[text("cache-control", "public, max-age=3600")],
    &[text("cache-control", "public")],
    &[text("cache-control", "must-revalidate, max-age=3600")],
    &[text("cache-control", "must-revalidate, max-age=0")],
    &[text("cache-control", "proxy-revalidate, max-age=3600")],
    &[text(
        "cache-control",
        "must-understand, no-store, max-age=3600",
    )],
    &[text("cache-control", "immutable, max-age=3600")],
    &[text("cache-control", "no-cache=\"x-a\", max-age=3600")],
    &[text("cache-control", "private=\"x-a\", max-age=3600")],
    &[text("cache-control", "max-age=0, stale-if-error=3600")],
    &[text("cache-control", "MAX-AGE=3600")],
    &[text("cache-control", "NO-STORE, max-age=3600")],
    &[text("cache-control", "max-age=\"3600\"")],
    &[text("cache-control", "max-age=3600s")],
    &[text("cache-control", "max-age=-1")],
    &[text("cache-control", "max-age=")],
    &[text("cache-control", "max-age =3600")],
    &[text("cache-control", "max-age=3600, max-age=0")],
    &[text("cache-control", "max-age=99999999999999999999")],
    &[text("cache-control", "x=\"max-age=3600\"")],
    &[text("cache-control", "max-age=3600, x=\"no-store\"")],
    &[text("cache-control", "x=\"no-store\"")],
    &[text("cache-control", "max-age=0"), PLAIN],
    &[text("cache-control", "no-cache"), PLAIN],
];

const SHORT_LIFETIMES: &[&[FieldLine]] = &[
    &[text("cache-control", "max-age=2")],
    &[text("cache-control", "max-age=2, must-revalidate")],
    &[text("cache-control", "max-age=2, stale-if-error=3600")],
    &[text(
        "cache-control",
        "max-age=2, stale-while-revalidate=3600",
    )],
    &[text("cache-control", "s-maxage=2")],
    &[text("cache-control", "max-age=3600"), text("age", "3598")],
];

fn lifetime(random: &mut Random, short: bool) -> Vec<FieldLine> {
    if short && chance(random, 75) {
        return pick(random, SHORT_LIFETIMES).to_vec();
    }
    match chance(random, 45) {
        true => vec![PLAIN],
        false => pick(random, LIFETIMES).to_vec(),
    }
}

/// Both names of a version say the same in each answer that has it.
fn validators(random: &mut Random, version: u8) -> Vec<FieldLine> {
    let (strong, weak, modified) = match version {
        1 => ("\"v1\"", "W/\"v1\"", -200_000),
        _ => ("\"v2\"", "W/\"v2\"", -100_000),
    };
    let modified = date("last-modified", modified);
    match random.below(5) {
        0 | 1 => vec![text("etag", strong)],
        2 => vec![text("etag", weak)],
        3 => vec![modified],
        _ => vec![text("etag", strong), modified],
    }
}

const ODDITIES: &[&[FieldLine]] = &[
    &[text("age", "10")],
    &[text("age", "5000")],
    &[text("age", "old")],
    &[text("age", "10, 5000")],
    &[date("date", -100)],
    &[date("date", -5000)],
    &[text("vary", "accept-language")],
    &[text("vary", "Accept-Language")],
    &[text("vary", "accept-language"), text("vary", "x-kind")],
    &[text("vary", "*")],
    &[text("set-cookie", "a=1")],
    &[text("pragma", "no-cache")],
    &[text("x-a", "1")],
    &[text("cdn-cache-control", "max-age=3600")],
    &[text("cdn-cache-control", "no-store")],
    &[text("warning", "110 - stale")],
];

fn ask(random: &mut Random) -> SequenceRequest {
    let method = match random.below(100) {
        0..84 => Method::GET,
        84..92 => Method::HEAD,
        92..95 => Method::POST,
        95..97 => Method::PUT,
        97..99 => Method::DELETE,
        _ => Method::OPTIONS,
    };
    let path = if chance(random, 6) { "/b" } else { "" };
    let mut fields = Vec::new();
    if chance(random, 35) {
        fields.extend(pick(random, WISHES));
    }
    SequenceRequest {
        method,
        path,
        fields,
    }
}

const WISHES: &[&[FieldLine]] = &[
    &[text("cache-control", "no-cache")],
    &[text("cache-control", "no-store")],
    &[text("cache-control", "max-age=0")],
    &[text("cache-control", "only-if-cached")],
    &[text("pragma", "no-cache")],
    &[text("if-none-match", "\"v1\"")],
    &[text("if-none-match", "\"v2\"")],
    &[text("if-none-match", "W/\"v1\"")],
    &[text("if-none-match", "*")],
    &[text("if-none-match", "\"x\", \"v1\"")],
    &[date("if-modified-since", -200_000)],
    &[date("if-modified-since", -100_000)],
    &[date("if-modified-since", -150_000)],
    &[text("if-modified-since", "yesterday")],
    &[
        text("if-none-match", "\"v1\""),
        date("if-modified-since", -300_000),
    ],
    &[text("range", "bytes=0-9")],
    &[text("range", "bytes=10-")],
    &[text("range", "bytes=-7")],
    &[text("range", "bytes=5000-")],
    &[text("range", "bytes=0-1,10-12")],
    &[text("range", "lines=1-2")],
    &[text("range", "bytes=0-9"), text("if-range", "\"v1\"")],
    &[text("range", "bytes=0-9"), text("if-range", "W/\"v1\"")],
    &[text("range", "bytes=0-9"), date("if-range", -200_000)],
    &[text("accept-language", "de")],
    &[text("accept-language", "en")],
    &[text("accept-language", "en"), text("x-kind", "small")],
    &[text("authorization", "Basic eDp5")],
    &[text("cookie", "session=1")],
];

const UNSAFE_STATUSES: [u16; 6] = [200, 201, 204, 303, 404, 500];

fn unsafe_answer(random: &mut Random, answer: &mut OriginAnswer) {
    answer.status = pick(random, &UNSAFE_STATUSES);
    match random.below(4) {
        0 => answer.fields.push(url("location", "/b")),
        1 => answer.fields.push(url("content-location", "/b")),
        _ => {}
    }
}
