//! Events that this version of Lamina did not write: from services that run `lazy-layers-cache`,
//! written by hand, or from newer nodes.

use serde_json::{Value, json};

use super::*;
use crate::envelope::{Compression, EnvelopeCodec};

/// Packs an event as `lazy-layers-cache` does, except that `rmp` writes numbers as integers.
fn packed(event: &Value) -> Bytes {
    let mut bytes = b"HC1M".to_vec();
    bytes.extend(rmp_serde::to_vec(event).unwrap());
    bytes.into()
}

fn read(event: &Value) -> Result<BusEvent, EventFormatError> {
    BusEvent::decode(&packed(event))
}

/// A `del` of `lazy-layers-cache` with these fields changed.
fn with(changes: Value) -> Value {
    let mut event = json!({
        "id": "1-x", "type": "del", "source": "node-a", "ts": 1_700_000_000_123_u64,
        "keys": ["a", "b"], "generation": 3,
    });
    for (name, value) in changes.as_object().unwrap() {
        event[name] = value.clone();
    }
    event
}

fn without(field: &str) -> Value {
    let mut event = with(json!({}));
    event.as_object_mut().unwrap().remove(field).unwrap();
    event
}

#[test]
fn the_seeds_events_are_read_and_their_values_are_not() {
    let del = read(&with(json!({}))).unwrap();
    assert_eq!(
        del,
        BusEvent {
            id: "1-x".into(),
            source: "node-a".into(),
            namespace: None,
            ts: 1_700_000_000_123,
            shape: EventShape::Del {
                keys: vec!["a".into(), "b".into()]
            },
            ours: None,
        }
    );
    let pattern = json!({"type": "pattern", "pattern": "a:*", "keys": null, "namespace": "n"});
    let pattern = read(&with(pattern)).unwrap();
    assert_eq!(pattern.shape, EventShape::Pattern("a:*".into()));
    assert_eq!(pattern.namespace.as_deref(), Some("n"));
    let value = json!({"type": "set", "ttlMs": 5, "value": {"a": [1, {"b": "c"}], "type": "x"}});
    let set = read(&with(value)).unwrap();
    let keys = vec!["a".into(), "b".into()];
    assert_eq!(set.shape, EventShape::Set { keys });
}

#[test]
fn each_form_of_the_seed_means_the_same() {
    let event = with(json!({"value": "{\u{e4}\\\"", "keyTypes": ["string", "number"]}));
    let plain = packed(&event);
    let text = event.to_string();
    let gzip = {
        use std::io::Write;
        let mut gzip = flate2::write::GzEncoder::new(b"HC1G".to_vec(), Default::default());
        gzip.write_all(&plain[4..]).unwrap();
        gzip.finish().unwrap()
    };
    let expected = BusEvent::decode(&plain).unwrap();
    for bytes in [
        plain.slice(4..),
        gzip.into(),
        [b"HC1J", text.as_bytes()].concat().into(),
        format!(" \n{event:#}\n").into(),
        text.into(),
    ] {
        assert_eq!(BusEvent::decode(&bytes), Ok(expected.clone()), "{bytes:?}");
    }
}

#[test]
fn time_may_be_any_finite_number() {
    let ts = |ts: Value| read(&with(json!({"ts": ts}))).map(|event| event.ts);
    assert_eq!(ts(json!(12.9)), Ok(12));
    assert_eq!(ts(json!(-5)), Ok(0));
    assert_eq!(ts(json!(1e300)), Ok(u64::MAX));
    assert_eq!(ts(json!("12")), Err(EventFormatError::Form));
    assert_eq!(ts(json!(null)), Err(EventFormatError::Missing));
    let nan = [
        b"\x83\xa2ts\xcb\x7f\xf8\0\0\0\0\0\0",
        &b"\xa6source\xa1a\xa4type\xa3del"[..],
    ];
    assert_eq!(
        BusEvent::decode(&nan.concat().into()),
        Err(EventFormatError::Form)
    );
}

#[test]
fn an_event_without_an_id_is_given_the_same_one_each_time() {
    let id = |changes: Value| {
        let mut event = without("id");
        for (name, value) in changes.as_object().unwrap() {
            event[name] = value.clone();
        }
        read(&event).unwrap().id
    };
    let one = id(json!({}));
    assert!(one.starts_with("node-a:1700000000123:del:"), "{one}");
    assert_eq!(one, id(json!({"generation": 9, "id": ""})));
    for other in [
        json!({"source": "b"}),
        json!({"ts": 1_700_000_000_123.5}),
        json!({"type": "set"}),
        json!({"keys": ["a,b"]}),
        json!({"keys": ["ab", ""]}),
    ] {
        assert_ne!(one, id(other.clone()), "{other}");
    }
    assert!(id(json!({"keys": vec!["a".repeat(1_000); 1_000]})).len() < 100);
}

#[test]
fn what_is_missing_is_told() {
    for field in ["type", "source", "ts", "keys"] {
        assert_eq!(
            read(&without(field)),
            Err(EventFormatError::Missing),
            "{field}"
        );
    }
    let pattern = read(&with(json!({"type": "pattern"})));
    assert_eq!(pattern, Err(EventFormatError::Missing));
    assert_eq!(
        read(&with(json!({"type": "clear"}))),
        Err(EventFormatError::Type)
    );
    for changes in [
        json!({"keys": "a"}),
        json!({"keys": ["a", 1]}),
        json!({"source": 1}),
        json!({"source": {}}),
    ] {
        assert_eq!(
            read(&with(changes.clone())),
            Err(EventFormatError::Form),
            "{changes}"
        );
    }
}

/// `msgpackr` writes `undefined` as an extension, which counts as an absent field.
#[test]
fn undefined_is_absent() {
    let undefined = |name: &str| {
        let mut map = rmp_serde::to_vec(&without(name)).unwrap();
        assert_eq!(map[0], 0x85);
        map[0] += 1;
        map.push(0xa0 | name.len() as u8);
        map.extend_from_slice(name.as_bytes());
        map.extend_from_slice(b"\xd4\0\0");
        BusEvent::decode(&map.into())
    };
    assert!(undefined("id").unwrap().id.starts_with("node-a:"));
    assert!(undefined("generation").is_ok());
    assert_eq!(undefined("keys"), Err(EventFormatError::Missing));
    assert_eq!(undefined("ts"), Err(EventFormatError::Missing));
}

/// The fields of a `set` up to its value, in the order of `lazy-layers-cache`, followed by these
/// bytes.
fn set_up_to(value: &[u8]) -> Vec<u8> {
    let fields = b"\x88\xa2id\xa1i\xa4type\xa3set\xa6source\xa1s\xa2ts\x01\xa4keys\x91\xa6user:7";
    [&fields[..], b"\xa5value", value].concat()
}

/// What `lazy-layers-cache` writes after the value.
const BEHIND: &[u8] = b"\xa5ttlMs\x05\xa9namespace\xa1n";

fn names_its_key(event: Result<BusEvent, EventFormatError>, namespace: Option<&str>, what: &str) {
    let event = event.unwrap_or_else(|malformed| panic!("{what}: {malformed}"));
    let keys = vec!["user:7".to_owned()];
    assert_eq!(event.shape, EventShape::Set { keys }, "{what}");
    assert_eq!(event.namespace.as_deref(), namespace, "{what}");
}

#[test]
fn a_value_may_be_anything() {
    let deep = [vec![0x91; 100_000], vec![0xc0]].concat();
    let large = [&b"\xc6\0\x20\0\0"[..], &vec![7; 2 << 20]].concat();
    let values: [(&str, &[u8]); 14] = [
        ("deep", &deep),
        ("large", &large),
        ("undefined", b"\xd4\0\0"),
        ("a date", b"\xd6\xff\x65\x53\xf1\0"),
        ("a later date", b"\xc7\x0c\xff\0\0\0\0\0\0\0\0\0\0\0\0"),
        ("bigint", b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff"),
        ("a larger bigint", b"\xc7\x09\x42\x01\0\0\0\0\0\0\0\0"),
        ("a set", b"\xd4\x73\0\x92\x01\x02"),
        ("an error", b"\xd4\x65\0\x93\xa5Error\xa1x\xc0"),
        ("a typed array", b"\xc7\x05\x74\x06\x01\0\0\0"),
        ("not text", b"\xa2\xff\xfe"),
        // {a: 1, b: {a: 2, b: 65}}, where the second object uses the names of the first.
        ("records", b"\xd4\x72\x40\x92\xa1a\xa1b\x01\x40\x02\x41"),
        ("a record in two", b"\x92\xd4\x72\x41\x91\xa1a\x01\x41\xc0"),
        (
            "an object that knows itself",
            b"\xd6\x69\0\0\0\x01\x81\xa1a\xd6\x70\0\0\0\x01",
        ),
    ];
    for (what, value) in values {
        let packed = [&set_up_to(value), BEHIND].concat();
        names_its_key(BusEvent::decode(&packed.clone().into()), Some("n"), what);
        let tagged = [b"HC1M", &packed[..]].concat();
        names_its_key(BusEvent::decode(&tagged.into()), Some("n"), what);
        for codec in [EnvelopeCodec::GZIP, EnvelopeCodec::ZSTD] {
            let compression = Compression {
                codec,
                min_bytes: 0,
            };
            let shrunk = compression.shrink(&[b"HC1M", &packed[..]].concat());
            if let Some(shrunk) = shrunk {
                names_its_key(BusEvent::decode(&shrunk.into()), Some("n"), what);
            }
        }
    }
}

/// A stale page is worse than an unnecessary purge.
#[test]
fn a_value_that_is_damaged_loses_no_purge() {
    let large = [&b"\xc6\x02\x80\0\0"[..], &vec![7; 40 << 20]].concat();
    let large = set_up_to(&large);
    names_its_key(BusEvent::decode(&large.clone().into()), None, "too large");
    let damaged: [&[u8]; 5] = [
        b"",
        b"\xc1",
        b"\x92\x01",
        b"\xdd\xff\xff\xff\xff",
        b"\xd4\x72\x40\x01",
    ];
    for value in damaged {
        names_its_key(
            BusEvent::decode(&set_up_to(value).into()),
            None,
            &format!("{value:x?}"),
        );
    }
    let gzip = Compression {
        codec: EnvelopeCodec::GZIP,
        min_bytes: 0,
    };
    let mut shrunk = gzip.shrink(&[b"HC1M", &large[..]].concat()).unwrap();
    names_its_key(BusEvent::decode(&shrunk.clone().into()), None, "a bomb");
    shrunk.truncate(shrunk.len() - 10);
    names_its_key(BusEvent::decode(&shrunk.into()), None, "a cut bomb");
    let small = [&set_up_to(&[0xc4, 200][..]), &[9; 200][..], BEHIND].concat();
    let mut shrunk = gzip.shrink(&[b"HC1M", &small[..]].concat()).unwrap();
    let checksum = shrunk.len() - 8;
    shrunk[checksum] ^= 1;
    names_its_key(
        BusEvent::decode(&shrunk.into()),
        Some("n"),
        "a wrong checksum",
    );
    // What stands before the value must be correct.
    for (from, to) in [
        (&b"\xa4keys"[..], &b"\xa4kexs"[..]),
        (b"\xa3set", b"\xa3del"),
    ] {
        let mut packed = set_up_to(b"\xc1");
        let at = packed.windows(from.len()).position(|w| w == from).unwrap();
        packed[at..at + to.len()].copy_from_slice(to);
        assert!(BusEvent::decode(&packed.into()).is_err(), "{to:?}");
    }
}

#[test]
fn an_event_may_be_a_record() {
    let record = b"\xd4\x72\x40\x96\xa2id\xa4type\xa6source\xa2ts\xa4keys\xa5value\xa1i\xa3set\xa1s\x01\x91\xa6user:7\x40";
    // Its value is another record of the same kind.
    let value = b"\xa1i\xa3del\xa1t\x02\x90\xc0";
    let packed = [&record[..], value].concat();
    names_its_key(BusEvent::decode(&packed.clone().into()), None, "untagged");
    names_its_key(
        BusEvent::decode(&[b"HC1M", &packed[..]].concat().into()),
        None,
        "tagged",
    );
}

#[test]
fn what_is_not_read_is_told_with_the_beginning_of_its_key() {
    let key = |keys: Value, more: Value| {
        let mut event = with(more);
        event["keys"] = keys;
        BusEvent::open(&packed(&event), None).unwrap_err()
    };
    let long = "k".repeat(MAX_TEXT + 1);
    for (unreadable, reason, beginning) in [
        (
            key(json!(["user:7", long]), json!({})),
            EventFormatError::TooLong,
            Some("user:7".into()),
        ),
        (
            key(json!([long]), json!({})),
            EventFormatError::TooLong,
            Some("k".repeat(64)),
        ),
        (
            key(json!(vec!["a"; MAX_KEYS + 1]), json!({})),
            EventFormatError::TooMany,
            Some("a".into()),
        ),
        (
            key(json!(["a"]), json!({"type": "clear"})),
            EventFormatError::Type,
            Some("a".into()),
        ),
        (key(json!(7), json!({})), EventFormatError::Form, None),
    ] {
        assert_eq!(
            unreadable,
            UnreadableEvent {
                reason,
                key: beginning
            }
        );
    }
}

/// Older nodes wrote integers of 64 bits.
#[test]
fn numbers_of_older_nodes_are_read() {
    let lamina = json!({
        "boot": u64::MAX, "purges": 1_u64 << 40, "sequence": 3, "kind": "missing",
        "of": "edge-2", "life": u64::MAX - 1, "order": 7,
    });
    let ours = read(&with(json!({"lamina": lamina})))
        .unwrap()
        .ours
        .unwrap();
    assert_eq!(
        (ours.boot, ours.purges.value(), ours.sequence),
        (u64::MAX, 1 << 40, 3)
    );
    let of = "edge-2".to_owned();
    let message = Message::Missing {
        of,
        life: u64::MAX - 1,
        from: PublisherNumber::new(7),
    };
    assert_eq!(ours.message, message);
}

#[test]
fn what_a_newer_node_says_is_done_as_its_shape_says() {
    let lamina = |lamina: Value| {
        let changes = json!({"source": "edge-2", "lamina": lamina});
        let event = read(&with(changes)).unwrap();
        let keys = vec!["a".into(), "b".into()];
        assert_eq!(event.shape, EventShape::Del { keys });
        event.ours
    };
    let purge = json!({"boot": 1, "purges": 2, "kind": "purge", "selector": "moon:3", "soft": false, "receipt": false, "phase": {"of": [1]}});
    let message = Message::Purge {
        selector: "moon:3".into(),
        soft: false,
        receipt: false,
    };
    let ours = NodePayload {
        boot: 1,
        purges: PublisherNumber::new(2),
        sequence: 0,
        message,
    };
    assert_eq!(lamina(purge.clone()), Some(ours));
    let changed = |name: &str, value: Value| {
        let mut lamina = purge.clone();
        lamina[name] = value;
        lamina
    };
    for other in [
        changed("kind", json!("eclipse")),
        changed("boot", json!("a")),
        changed("selector", json!(null)),
        changed("soft", json!(null)),
        json!({}),
        json!("mine"),
        json!(null),
    ] {
        assert_eq!(lamina(other.clone()), None, "{other}");
    }
}

#[test]
fn ours_is_not_looked_for_in_json() {
    let lamina =
        json!({"boot": 1, "purges": 2, "kind": "heartbeat", "healthy": true, "version": "1"});
    let event = with(json!({"lamina": lamina}));
    assert!(read(&event).unwrap().ours.is_some());
    let read = BusEvent::decode(&event.to_string().into()).unwrap();
    assert_eq!(read.ours, None);
}
