//! Bytes that are meant to be expensive, or that are damaged.

use std::io::Write;

use flate2::write::GzEncoder;

use super::*;

fn read(bytes: impl Into<Bytes>) -> Result<BusEvent, EventFormatError> {
    BusEvent::decode(&bytes.into())
}

/// A `del` with these keys, one more field and its msgpack, without a tag.
fn del(keys: &[u8], more: &[u8]) -> Vec<u8> {
    [
        b"\x86\xa2id\xa1i\xa4type\xa3del\xa6source\xa1s\xa2ts\x01\xa4keys",
        keys,
        b"\xa4more",
        more,
    ]
    .concat()
}

fn gzipped(plain: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(b"HC1G".to_vec(), flate2::Compression::best());
    gzip.write_all(plain).unwrap();
    gzip.finish().unwrap()
}

#[test]
fn every_truncation_is_an_error() {
    for event in each() {
        let bytes = event.encode();
        for end in 0..bytes.len() {
            assert!(read(bytes.slice(..end)).is_err(), "{event:?} up to {end}");
        }
    }
    let json = br#"{"id":"i","type":"del","source":"s","ts":1,"keys":["a"]}"#;
    assert!(read(&json[..]).is_ok());
    for end in 0..json.len() {
        assert!(read(&json[..end]).is_err(), "up to {end}");
    }
}

#[test]
fn bytes_after_the_end_are_an_error() {
    let plain = purge().encode();
    for more in [&b"\0"[..], b"\xc1", b"\xd9", b"{}"] {
        let longer = [&plain[..], more].concat();
        assert_eq!(read(longer), Err(EventFormatError::Form), "{more:x?}");
    }
    let longer = [&gzipped(&plain[4..])[..], b"\0"].concat();
    assert_eq!(read(longer), Err(EventFormatError::Compression));
    assert_eq!(read("{} {}"), Err(EventFormatError::Form));
}

#[test]
fn what_is_no_map_is_told() {
    for bytes in ["", "HC", "HC1"] {
        assert_eq!(read(bytes), Err(EventFormatError::Truncated), "{bytes}");
    }
    assert_eq!(read("HC1M"), Err(EventFormatError::Truncated));
    assert_eq!(read("HC1L...."), Err(EventFormatError::Tag));
    assert_eq!(read("hello"), Err(EventFormatError::Tag));
    assert_eq!(read("[{}]"), Err(EventFormatError::Tag));
    // A list would also be read as a map.
    for bytes in ["HC1M\u{1}", "HC1J[]", "HC1Jnull"] {
        assert_eq!(read(bytes), Err(EventFormatError::Form), "{bytes}");
    }
    let list = b"HC1M\x97\xa1i\xa3del\xa1s\x01\x91\xa1k\xc0\xc0";
    assert_eq!(read(&list[..]), Err(EventFormatError::Form));
}

/// A binary of this many bytes.
fn bin(length: usize) -> Vec<u8> {
    [
        b"\xc6",
        &(length as u32).to_be_bytes()[..],
        &vec![0; length],
    ]
    .concat()
}

#[test]
fn more_is_read_than_an_event_of_a_node_may_have_and_none_of_it_is_kept() {
    assert!(read(del(b"\x90", &bin(MAX_BYTES * 3))).is_ok());
    // Our own map is read only in as many bytes as a node may send.
    let mut ours = purge().encode().to_vec();
    ours[4] += 1;
    ours.extend_from_slice(b"\xa4more");
    ours.extend(bin(MAX_BYTES));
    assert_eq!(read(ours.clone()), Err(EventFormatError::TooLarge));
    assert_eq!(read(gzipped(&ours[4..])), Err(EventFormatError::TooLarge));
    let key = [&b"\xda"[..], &60_000_u16.to_be_bytes(), &[b'k'; 60_000]].concat();
    let many = [&b"\xdc\0\x14"[..], &key.repeat(20)].concat();
    assert_eq!(read(del(&many, b"\xc0")), Err(EventFormatError::TooLarge));
}

#[test]
fn a_bomb_is_read_to_a_limit_whatever_length_it_claims() {
    let mut bomb = gzipped(&del(b"\x90", &bin(40 << 20)));
    assert!(bomb.len() < 100_000);
    for length in [0_u32, 1, 1 << 20, u32::MAX] {
        let end = bomb.len() - 4;
        bomb[end..].copy_from_slice(&length.to_le_bytes());
        assert_eq!(
            read(bomb.clone()),
            Err(EventFormatError::TooLarge),
            "{length}"
        );
    }
    let large = del(b"\x90", &bin(MAX_READ as usize));
    assert_eq!(read(large), Err(EventFormatError::TooLarge));
}

#[test]
fn keys_and_texts_are_bounded() {
    let keys = |count: usize| {
        let list = [
            &b"\xdc"[..],
            &(count as u16).to_be_bytes(),
            &b"\xa1a".repeat(count),
        ]
        .concat();
        read(del(&list, b"\xc0"))
    };
    assert!(keys(MAX_KEYS).is_ok());
    assert_eq!(keys(MAX_KEYS + 1), Err(EventFormatError::TooMany));
    let long = |field: &str, length: usize| {
        let text = "a".repeat(length);
        let event = match field {
            "keys" => serde_json::json!({"type": "del", "source": "s", "ts": 1, "keys": [text]}),
            _ => {
                serde_json::json!({"type": "pattern", "source": "s", "ts": 1, "pattern": "", field: text})
            }
        };
        read(event.to_string())
    };
    for field in ["id", "source", "pattern", "namespace", "keys"] {
        let text = long(field, MAX_TEXT);
        assert!(text.is_ok(), "{field}");
        assert_eq!(
            long(field, MAX_TEXT + 1),
            Err(EventFormatError::TooLong),
            "{field}"
        );
    }
}

#[test]
fn declared_lengths_that_the_input_lacks_are_errors() {
    for value in [
        &b"\xdd\xff\xff\xff\xff"[..],
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xc9\xff\xff\xff\xff\x01",
    ] {
        assert_eq!(
            read(del(b"\x90", value)),
            Err(EventFormatError::Truncated),
            "{value:x?}"
        );
    }
    let keys = del(b"\xdd\xff\xff\xff\xff\xa1a", b"");
    assert!(read(keys).is_err());
}

#[test]
fn nesting_is_harmless() {
    let nested = [vec![0x91; MAX_BYTES - 100], vec![0xc0]].concat();
    assert!(read(del(b"\x90", &nested)).is_ok());
    // A reader that recursed into them would recurse as deep.
    let records = b"\xd4\x72\x40".repeat(300_000);
    assert_eq!(read(del(b"\x90", &records)), Err(EventFormatError::Form));
    let sets = [0xd4, 0x73, 0].repeat(300_000);
    assert_eq!(read(del(b"\x90", &sets)), Err(EventFormatError::Truncated));
    let extensions = [0xc7, 1].repeat(1_000);
    assert!(read(del(b"\x90", &extensions)).is_err());
    let half = MAX_BYTES / 2 - 100;
    let (open, close) = ("[".repeat(half), "]".repeat(half));
    let json = |field: &str| {
        let json =
            format!(r#"{{"{field}":{open}{close},"type":"del","source":"s","ts":1,"keys":[]}}"#);
        read(json)
    };
    assert!(json("value").is_ok());
    for field in ["id", "pattern"] {
        assert_eq!(json(field), Err(EventFormatError::Form), "{field}");
    }
}

#[test]
fn a_field_that_comes_twice_is_an_error() {
    let twice = r#"{"type":"del","source":"s","ts":1,"keys":["a"],"keys":["b"]}"#;
    assert_eq!(read(twice), Err(EventFormatError::Form));
    let mut packed = del(b"\x90", b"\xc0");
    packed[0] += 1;
    packed.extend_from_slice(b"\xa4keys\x90");
    assert_eq!(read(packed), Err(EventFormatError::Form));
}

#[test]
fn text_must_be_utf_8() {
    assert_eq!(
        read(del(b"\x91\xa1\xff", b"\xc0")),
        Err(EventFormatError::Form)
    );
    assert!(
        read(del(b"\x91\xa1a", b"\xa1\xff")).is_ok(),
        "what is skipped may be anything"
    );
}

fn within_limits(event: &BusEvent) -> bool {
    let keys = match &event.shape {
        EventShape::Del { keys } | EventShape::Set { keys } => &keys[..],
        EventShape::Pattern(pattern) => std::slice::from_ref(pattern),
    };
    keys.len() <= MAX_KEYS && keys.iter().all(|key| key.len() <= MAX_TEXT)
}

/// If mutated bytes are still an event, that event can be written again.
fn holds(bytes: Vec<u8>) -> Result<(), TestCaseError> {
    let Ok(event) = read(bytes) else {
        return Ok(());
    };
    prop_assert!(within_limits(&event));
    let again = BusEvent::decode(&event.encode()).unwrap();
    prop_assert_eq!(again.id, event.id);
    prop_assert_eq!(again.ours, event.ours);
    Ok(())
}

proptest! {
    #[test]
    fn arbitrary_bytes_do_not_panic(tag in prop::sample::select(vec!["HC1M", "HC1G", "HC1Z", "HC1J", "{", ""]), rest in prop::collection::vec(any::<u8>(), 0..400)) {
        holds([tag.as_bytes(), &rest].concat())?;
    }

    #[test]
    fn an_event_with_arbitrary_changes_does_not_panic(event in any_event(), tagged: bool, changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = event.encode().to_vec();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        holds(bytes.split_off(if tagged { 0 } else { 4 }))?;
    }
}
