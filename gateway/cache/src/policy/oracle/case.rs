//! Random responses, each part in its form on the wire and in a form that the crate reads
//! correctly.

use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;

/// A text as it is on the wire, and the text that the crate needs in its place, with the section
/// that says so.
#[derive(Clone, Copy, Debug)]
pub struct OracleForm {
    pub wire: &'static str,
    pub crates: &'static str,
    pub section: Option<&'static str>,
}

const fn same(wire: &'static str) -> OracleForm {
    OracleForm {
        wire,
        crates: wire,
        section: None,
    }
}

const fn read_as(wire: &'static str, crates: &'static str, section: &'static str) -> OracleForm {
    OracleForm {
        wire,
        crates,
        section: Some(section),
    }
}

pub const DIRECTIVES: [OracleForm; 29] = [
    same("max-age=60"),
    same("max-age=0"),
    same("max-age=600"),
    same("s-maxage=100"),
    same("s-maxage=0"),
    same("max-age=\"60\""),
    same("max-age=60s"),
    same("max-age=-1"),
    same("no-store"),
    same("no-cache"),
    same("private"),
    same("public"),
    same("must-revalidate"),
    same("immutable"),
    same("must-understand"),
    same("stale-while-revalidate=60"),
    same("extension=\"max-age=60\""),
    read_as("Max-Age=60", "max-age=60", "9111 §5.2: names in any case"),
    read_as("NO-STORE", "no-store", "9111 §5.2: names in any case"),
    read_as("max-age=+60", "max-age=0", "9111 §1.2.2: digits only"),
    read_as("max-age", "max-age=0", "9111 §4.2.1: invalid is stale"),
    read_as("s-maxage", "s-maxage=0", "9111 §4.2.1: invalid is stale"),
    read_as("max-age =60", "max-age=0", "9111 §5.2: no space around ="),
    read_as(
        "max-age=99999999999999999999",
        "max-age=2147483648",
        "9111 §1.2.2: overflow is 2^31",
    ),
    read_as("public=1", "", "9111 §5.2.2.9: public has no argument"),
    read_as(
        "x=\",no-store,\"",
        "",
        "9111 §5.2: a quoted comma divides nothing",
    ),
    read_as(
        "proxy-revalidate",
        "",
        "9111 §5.2.2.8: it counts once the response is stale",
    ),
    read_as("no-cache=\"x-a\"", "", "9111 §5.2.2.4: field form"),
    read_as("private=\"x-a\"", "", "9111 §5.2.2.7: field form"),
];

/// Dates around [`NOW`], which is `Sun, 06 Nov 1994 08:49:37 GMT`.
pub const DATES: [OracleForm; 11] = [
    same("Sun, 06 Nov 1994 08:49:37 GMT"),
    same("Sun, 06 Nov 1994 08:50:37 GMT"),
    same("Sun, 06 Nov 1994 08:48:37 GMT"),
    same("Tue, 18 Oct 1994 08:49:37 GMT"),
    same("0"),
    same("tomorrow"),
    read_as(
        "Sunday, 06-Nov-94 08:50:37 GMT",
        "Sun, 06 Nov 1994 08:50:37 GMT",
        "9110 §5.6.7: RFC 850's form",
    ),
    read_as(
        "Sun Nov  6 08:50:37 1994",
        "Sun, 06 Nov 1994 08:50:37 GMT",
        "9110 §5.6.7: asctime's form",
    ),
    read_as(
        "Sun, 06 Nov 1994 08:50:37 +0000",
        "0",
        "9110 §5.6.7: GMT only",
    ),
    read_as("06 Nov 1994 08:50:37 GMT", "0", "9110 §5.6.7: with its day"),
    read_as(
        "Sun, 6 Nov 1994 08:50:37 GMT",
        "0",
        "9110 §5.6.7: two digits",
    ),
];

pub const AGES: [OracleForm; 7] = [
    same("0"),
    same("30"),
    same("old"),
    same("-30"),
    read_as("+30", "0", "9111 §5.1: digits only"),
    read_as("30, 500", "30", "9111 §5.1: the first of a list"),
    read_as(
        "99999999999999999999",
        "2147483648",
        "9111 §1.2.2: overflow is 2^31",
    ),
];

pub const STATUSES: [u16; 14] = [
    200, 203, 204, 206, 299, 301, 302, 304, 404, 410, 414, 500, 503, 999,
];

pub type OracleFields = Vec<(&'static str, &'static str)>;

/// One response, the request for it, and how long ago it arrived.
#[derive(Clone, Debug)]
pub struct OracleCase {
    pub status: u16,
    pub directives: Vec<OracleForm>,
    pub expires: Vec<OracleForm>,
    pub date: Option<OracleForm>,
    pub age: Option<OracleForm>,
    pub modified: Option<OracleForm>,
    pub others: OracleFields,
    pub asked: OracleFields,
    /// Seconds since it arrived.
    pub elapsed: u64,
}

pub fn cases() -> impl Strategy<Value = OracleCase> {
    let form = |forms: &'static [OracleForm]| prop::sample::select(forms);
    let others = prop::sample::subsequence(
        vec![
            ("etag", "\"a\""),
            ("set-cookie", "a=1"),
            ("vary", "accept"),
            ("vary", "accept, *"),
            ("pragma", "no-cache"),
        ],
        0..=2,
    );
    let asked = prop::sample::subsequence(
        vec![("authorization", "Basic x"), ("cache-control", "no-store")],
        0..=1,
    );
    let dated = (
        prop::collection::vec(form(&DATES), 0..=2),
        prop::option::of(form(&DATES)),
        prop::option::of(form(&AGES)),
        prop::option::of(form(&DATES)),
    );
    let status = prop_oneof![3 => Just(200), 2 => prop::sample::select(&STATUSES[..])];
    let elapsed = prop::sample::select(vec![0, 5, 59, 60, 61, 99, 100, 1_000, 100_000]);
    let directives = prop::collection::vec(form(&DIRECTIVES), 0..=3);
    (status, directives, dated, others, asked, elapsed).prop_map(
        |(status, directives, (expires, date, age, modified), others, asked, elapsed)| OracleCase {
            status,
            directives,
            expires,
            date,
            age,
            modified,
            others,
            asked,
            elapsed,
        },
    )
}

pub fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    let fields = fields.iter().map(|(name, value)| {
        (
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )
    });
    fields.collect()
}

pub fn fields(case: &OracleCase, text: impl Fn(&OracleForm) -> &'static str) -> HeaderMap {
    let mut fields: OracleFields = case.others.clone();
    let mut add = |name, forms: &[OracleForm]| fields.extend(forms.iter().map(|f| (name, text(f))));
    add("cache-control", &case.directives);
    add("expires", &case.expires);
    add("date", case.date.as_slice());
    add("age", case.age.as_slice());
    add("last-modified", case.modified.as_slice());
    map(&fields)
}
