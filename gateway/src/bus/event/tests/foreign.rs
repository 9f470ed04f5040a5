//! Events that no Lamina of this version wrote: by users of the seed, by hand, by newer nodes.

use serde_json::{Value, json};

use super::*;

/// As the seed packs it, but for numbers, which `rmp` makes integers of.
fn packed(event: &Value) -> Bytes {
    let mut bytes = b"HC1M".to_vec();
    bytes.extend(rmp_serde::to_vec(event).unwrap());
    bytes.into()
}

fn read(event: &Value) -> Result<Event, Malformed> {
    Event::decode(&packed(event))
}

/// A `del` of the seed with these fields changed.
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
        Event {
            id: "1-x".into(),
            source: "node-a".into(),
            namespace: None,
            ts: 1_700_000_000_123,
            shape: Shape::Del {
                keys: vec!["a".into(), "b".into()]
            },
            ours: None,
        }
    );
    let pattern = json!({"type": "pattern", "pattern": "a:*", "keys": null, "namespace": "n"});
    let pattern = read(&with(pattern)).unwrap();
    assert_eq!(pattern.shape, Shape::Pattern("a:*".into()));
    assert_eq!(pattern.namespace.as_deref(), Some("n"));
    let value = json!({"type": "set", "ttlMs": 5, "value": {"a": [1, {"b": "c"}], "type": "x"}});
    let set = read(&with(value)).unwrap();
    let keys = vec!["a".into(), "b".into()];
    assert_eq!(set.shape, Shape::Set { keys });
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
    let expected = Event::decode(&plain).unwrap();
    for bytes in [
        plain.slice(4..),
        gzip.into(),
        [b"HC1J", text.as_bytes()].concat().into(),
        format!(" \n{event:#}\n").into(),
        text.into(),
    ] {
        assert_eq!(Event::decode(&bytes), Ok(expected.clone()), "{bytes:?}");
    }
}

#[test]
fn time_may_be_any_finite_number() {
    let ts = |ts: Value| read(&with(json!({"ts": ts}))).map(|event| event.ts);
    assert_eq!(ts(json!(12.9)), Ok(12));
    assert_eq!(ts(json!(-5)), Ok(0));
    assert_eq!(ts(json!(1e300)), Ok(u64::MAX));
    assert_eq!(ts(json!("12")), Err(Malformed::Form));
    assert_eq!(ts(json!(null)), Err(Malformed::Missing));
    let nan = [
        b"\x83\xa2ts\xcb\x7f\xf8\0\0\0\0\0\0",
        &b"\xa6source\xa1a\xa4type\xa3del"[..],
    ];
    assert_eq!(Event::decode(&nan.concat().into()), Err(Malformed::Form));
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
        assert_eq!(read(&without(field)), Err(Malformed::Missing), "{field}");
    }
    let pattern = read(&with(json!({"type": "pattern"})));
    assert_eq!(pattern, Err(Malformed::Missing));
    assert_eq!(read(&with(json!({"type": "clear"}))), Err(Malformed::Type));
    for changes in [
        json!({"keys": "a"}),
        json!({"keys": ["a", 1]}),
        json!({"source": 1}),
        json!({"source": {}}),
    ] {
        assert_eq!(
            read(&with(changes.clone())),
            Err(Malformed::Form),
            "{changes}"
        );
    }
}

/// `msgpackr` writes `undefined` as an extension.
#[test]
fn undefined_is_absent() {
    let undefined = |name: &str| {
        let mut map = rmp_serde::to_vec(&without(name)).unwrap();
        assert_eq!(map[0], 0x85);
        map[0] += 1;
        map.push(0xa0 | name.len() as u8);
        map.extend_from_slice(name.as_bytes());
        map.extend_from_slice(b"\xd4\0\0");
        Event::decode(&map.into())
    };
    assert!(undefined("id").unwrap().id.starts_with("node-a:"));
    assert!(undefined("generation").is_ok());
    assert_eq!(undefined("keys"), Err(Malformed::Missing));
    assert_eq!(undefined("ts"), Err(Malformed::Missing));
}

#[test]
fn a_value_may_nest_as_deep_as_the_seed_can_send_it() {
    let nested = |depth: usize| {
        let value = (0..depth).fold(json!(1), |value, _| json!([value]));
        read(&with(json!({"type": "set", "value": value})))
    };
    assert!(nested(120).is_ok());
    assert_eq!(nested(130), Err(Malformed::TooDeep));
}

#[test]
fn what_a_newer_node_says_is_done_as_its_shape_says() {
    let lamina = |lamina: Value| {
        let changes = json!({"source": "edge-2", "lamina": lamina});
        let event = read(&with(changes)).unwrap();
        let keys = vec!["a".into(), "b".into()];
        assert_eq!(event.shape, Shape::Del { keys });
        event.ours
    };
    let purge = json!({"boot": 1, "purges": 2, "kind": "purge", "selector": "moon:3", "soft": false, "receipt": false, "phase": {"of": [1]}});
    let message = Message::Purge {
        selector: "moon:3".into(),
        soft: false,
        receipt: false,
    };
    let ours = Ours {
        boot: 1,
        purges: 2,
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
    let read = Event::decode(&event.to_string().into()).unwrap();
    assert_eq!(read.ours, None);
}
