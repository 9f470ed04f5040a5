//! What the format guarantees. Hostile input is in `hostile`, the control by Node.js in `control`.

mod control;
mod hostile;
#[path = "../../benches/record/listing.rs"]
mod listing;

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use proptest::prelude::*;

use super::*;

const KEY: &[u8] = b"s\x04\0\0\0httpp\x02\0\0\0/a";

fn stored(body: impl Into<Bytes>) -> ResponseRecord {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.append("x-note", HeaderValue::from_static("one"));
    headers.append("x-note", HeaderValue::from_bytes(b"two \xff").unwrap());
    ResponseRecord {
        status: StatusCode::OK,
        headers,
        body: body.into(),
        marks: PurgeAttributes {
            id: 7,
            identity: u64::MAX,
            route: 1 << 40,
            tags: [3, u64::MAX - 1].into(),
            groups: [11].into(),
            url: "shop.example/ä?b=1".into(),
        },
        born: (5 << 28).into(),
        generation: u64::MAX - 5,
        age: Duration::from_millis(1_500),
        life: Duration::from_secs(90),
        written: Duration::from_millis(1_800_000_000_123),
        uptime: None,
        lifetime: Duration::from_secs(60),
        while_revalidate: Duration::from_secs(30),
        if_error: LONGEST,
        must_revalidate: false,
    }
}

fn with_headers(body: impl Into<Bytes>, fields: &[(HeaderName, &str)]) -> StoreRecord {
    let mut stored = stored(body);
    for (name, value) in fields {
        stored.headers.insert(name, value.parse().unwrap());
    }
    StoreRecord::Entry(stored)
}

fn entry(body: impl Into<Bytes>) -> StoreRecord {
    StoreRecord::Entry(stored(body))
}

fn options(compression: Option<EnvelopeCodec>) -> RecordOptions {
    RecordOptions {
        compression: compression.map(|codec| Compression {
            codec,
            min_bytes: 0,
        }),
        ..RecordOptions::default()
    }
}

fn written(record: &StoreRecord, compression: Option<EnvelopeCodec>) -> Bytes {
    encode(KEY, record, &options(compression)).unwrap()
}

fn read(bytes: &Bytes) -> Result<StoreRecord, CorruptRecord> {
    decode(KEY, bytes, &RecordLimits::default(), &Seal::public())
}

fn text(bytes: usize) -> String {
    let mut text = String::new();
    while text.len() < bytes {
        text.push_str(&format!("line {} of a page;", text.len()));
    }
    text
}

/// Bytes that no compression makes smaller.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(bytes).collect()
}

const FORMS: [Option<EnvelopeCodec>; 3] =
    [None, Some(EnvelopeCodec::GZIP), Some(EnvelopeCodec::ZSTD)];

pub(super) fn any_record() -> impl Strategy<Value = StoreRecord> {
    let name = || "[a-z][a-z0-9-]{0,12}".prop_map(|name| name.parse::<HeaderName>().unwrap());
    let value = "[ -~\u{80}-\u{ff}]{0,40}"
        .prop_map(|value| HeaderValue::from_bytes(value.as_bytes()).unwrap());
    let headers = prop::collection::vec((name(), value), 0..12)
        .prop_map(|fields| fields.into_iter().collect::<HeaderMap>());
    let hashes = || prop::collection::vec(any::<u64>(), 0..6).prop_map(Vec::into_boxed_slice);
    let marks = (any::<[u64; 3]>(), hashes(), hashes(), ".{0,40}").prop_map(
        |([id, identity, route], tags, groups, url)| PurgeAttributes {
            id,
            identity,
            route,
            tags,
            groups,
            url: url.into(),
        },
    );
    let body = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..300),
        (0..2_000_usize).prop_map(|bytes| text(bytes).into_bytes()),
    ];
    let time = (0..=LONGEST.as_millis() as u64).prop_map(Duration::from_millis);
    let times = (time.clone(), time.clone(), time.clone(), time.clone(), time);
    let rest = (
        100..1_000_u16,
        any::<u64>(),
        any::<u64>(),
        any::<bool>(),
        any::<u64>().prop_map(Duration::from_millis),
        prop::option::of((0..1_u64 << 53, any::<u64>())),
    );
    let entry =
        (headers, body, marks, times, rest).prop_map(|(headers, body, marks, times, rest)| {
            StoreRecord::Entry(ResponseRecord {
                status: StatusCode::from_u16(rest.0).unwrap(),
                headers,
                body: body.into(),
                marks,
                born: rest.1.into(),
                generation: rest.2,
                age: times.0,
                life: times.1,
                lifetime: times.2,
                while_revalidate: times.3,
                if_error: times.4,
                must_revalidate: rest.3,
                written: rest.4,
                uptime: rest.5.map(|(boot, at)| Uptime {
                    boot,
                    at: Duration::from_millis(at),
                }),
            })
        });
    let lists = prop::collection::vec(prop::collection::vec(name(), 0..6), 0..5);
    prop_oneof![4 => entry, 1 => lists.prop_map(StoreRecord::Varies)]
}

proptest! {
    #[test]
    fn what_is_written_is_what_is_read(record in any_record(), key in prop::collection::vec(any::<u8>(), 0..80)) {
        for form in FORMS {
            let bytes = encode(&key, &record, &options(form)).unwrap();
            let back = decode(&key, &bytes, &RecordLimits::default(), &Seal::public());
            prop_assert_eq!(back.as_ref(), Ok(&record));
        }
    }
}

#[test]
fn the_four_first_bytes_name_the_form() {
    let record = entry(text(4_000));
    for (form, tag) in FORMS.into_iter().zip(["HC1M", "HC1G", "HC1Z"]) {
        let bytes = written(&record, form);
        assert_eq!(&bytes[..4], tag.as_bytes());
        assert_eq!(read(&bytes), Ok(record.clone()));
    }
}

#[test]
fn zstd_is_read_by_those_who_write_gzip() {
    let record = entry(text(4_000));
    assert_eq!(
        read(&written(&record, Some(EnvelopeCodec::ZSTD))),
        Ok(record)
    );
}

#[test]
fn a_body_is_a_part_of_the_bytes_it_came_in() {
    let bytes = written(&entry(text(4_000)), None);
    let Ok(StoreRecord::Entry(stored)) = read(&bytes) else {
        panic!("it is an entry");
    };
    assert!(bytes.as_ptr_range().contains(&stored.body.as_ptr()));
}

#[test]
fn compression_begins_at_its_floor() {
    let options = RecordOptions::default();
    let tag = |bytes: usize| {
        encode(KEY, &entry(text(bytes)), &options)
            .unwrap()
            .slice(..4)
    };
    assert_eq!(tag((64 << 10) - 1_000), "HC1M");
    assert_eq!(tag(64 << 10), "HC1G");
}

#[test]
fn compression_that_saves_less_than_15_percent_is_not_kept() {
    for codec in [EnvelopeCodec::GZIP, EnvelopeCodec::ZSTD] {
        let mixed = |noisy: usize| [noise(noisy), vec![b'a'; 100_000 - noisy]].concat();
        let tag = |body: Vec<u8>| written(&entry(body), Some(codec)).slice(..4);
        assert_eq!(tag(mixed(86_000)), "HC1M", "{codec:?}");
        assert_ne!(tag(mixed(84_000)), "HC1M", "{codec:?}");
    }
}

#[test]
fn what_is_compressed_already_is_left_alone() {
    let tag = |fields: &[(HeaderName, &str)]| {
        written(
            &with_headers(text(4_000), fields),
            Some(EnvelopeCodec::GZIP),
        )
        .slice(..4)
    };
    for coding in ["gzip", "br", "identity, gzip"] {
        assert_eq!(tag(&[(CONTENT_ENCODING, coding)]), "HC1M", "{coding}");
    }
    for media in [
        "image/png",
        "Video/mp4; codecs=x",
        "audio/ogg",
        "application/zip",
        "application/epub+zip",
    ] {
        assert_eq!(tag(&[(CONTENT_TYPE, media)]), "HC1M", "{media}");
    }
    assert_eq!(tag(&[(CONTENT_ENCODING, "Identity")]), "HC1G");
    assert_eq!(
        tag(&[(CONTENT_TYPE, "image/svg+xml; charset=utf-8")]),
        "HC1G"
    );
    assert_eq!(tag(&[(CONTENT_TYPE, "text/html")]), "HC1G");
}

#[test]
fn a_record_is_never_fresher_than_its_response() {
    let mut stored = stored("");
    stored.age = Duration::from_micros(1_000_001);
    let Ok(StoreRecord::Entry(back)) = read(&written(&StoreRecord::Entry(stored), None)) else {
        panic!("it is an entry");
    };
    assert_eq!(back.age, Duration::from_millis(1_001));
}

/// Guards against a sum of times that overflows a clock.
#[test]
fn no_time_is_longer_than_2_to_the_31_seconds() {
    let mut stored = stored("");
    stored.lifetime = Duration::MAX;
    let Ok(StoreRecord::Entry(back)) = read(&written(&StoreRecord::Entry(stored), None)) else {
        panic!("it is an entry");
    };
    assert_eq!(back.lifetime, LONGEST);
}

#[test]
fn what_no_reader_would_take_is_not_written() {
    let small = RecordOptions {
        limits: RecordLimits {
            encoded: 2_000,
            expanded: 100_000,
        },
        ..options(Some(EnvelopeCodec::GZIP))
    };
    assert!(encode(KEY, &entry(text(50_000)), &options(None)).is_ok());
    assert_eq!(encode(KEY, &entry(noise(3_000)), &small), Err(TooLarge));
    assert_eq!(encode(KEY, &entry(vec![0; 100_001]), &small), Err(TooLarge));
    let names = |count: usize| {
        (0..count)
            .map(|i| format!("x-{i}").parse().unwrap())
            .collect()
    };
    let varies = |count| {
        encode(
            KEY,
            &StoreRecord::Varies(vec![names(count)]),
            &options(None),
        )
    };
    assert_eq!(varies(MAX_FIELDS + 1), Err(TooLarge));
    assert!(varies(MAX_FIELDS).is_ok_and(|bytes| read(&bytes).is_ok()));
}

#[test]
fn limits_leave_room_for_every_object_that_may_be_stored() {
    assert_eq!(RecordLimits::for_objects(8 << 20), RecordLimits::default());
    assert!(RecordLimits::for_objects(100 << 20).encoded > 100 << 20);
    assert_eq!(RecordLimits::for_objects(usize::MAX).expanded, usize::MAX);
}

#[test]
fn the_listing_is_the_one_of_the_recipe_and_takes_no_more_than_67_570_bytes() {
    let listing = listing::listing(listing::PLAYERS);
    assert_eq!(listing.len(), listing::BYTES);
    let parsed: serde_json::Value = serde_json::from_str(&listing).unwrap();
    assert_eq!(parsed["players"].as_array().unwrap().len(), 1_500);
    let record = entry(listing);
    let bytes = encode(KEY, &record, &RecordOptions::default()).unwrap();
    assert_eq!(&bytes[..4], b"HC1G");
    assert!(bytes.len() <= 67_570, "{} bytes", bytes.len());
    assert_eq!(read(&bytes), Ok(record));
}

#[test]
fn an_inspection_tells_what_the_record_holds() {
    let bytes = written(&entry(text(4_000)), Some(EnvelopeCodec::GZIP));
    let limits = RecordLimits::default();
    let told = inspect(&bytes, &limits, &Seal::public()).unwrap();
    assert!(told.sealed);
    for part in [
        "HC1G",
        "seal      ok",
        "scheme=http path=/a",
        "200 OK",
        "x-note: two \\xff",
        "2 tags",
    ] {
        assert!(told.to_string().contains(part), "{part} in {told}");
    }
    let told = inspect(&bytes, &limits, &Seal::new(b"secret")).unwrap();
    assert!(
        told.to_string().contains("seal      is not valid"),
        "{told}"
    );
}
