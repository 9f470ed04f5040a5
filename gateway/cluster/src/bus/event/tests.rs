//! Tests of the wire format. Foreign events are in `foreign`, hostile ones in `hostile`, the
//! comparison with Node.js in `control`.

mod control;
mod foreign;
mod hostile;

use proptest::prelude::*;

use super::*;

fn event(shape: EventShape, message: Message) -> BusEvent {
    BusEvent {
        id: "0191-a".into(),
        source: "edge-1".into(),
        namespace: Some("shop".into()),
        ts: 1_700_000_000_123,
        shape,
        ours: Some(NodePayload {
            boot: u64::MAX - 3,
            purges: PublisherNumber::new(7),
            sequence: 11,
            message,
        }),
    }
}

fn purge() -> BusEvent {
    let message = Message::Purge {
        selector: "tag:ä".into(),
        soft: true,
        receipt: false,
    };
    let keys = vec!["ä".into()];
    event(EventShape::Del { keys }, message)
}

fn prime(record: impl Into<Bytes>, seen: KnownPurges) -> BusEvent {
    let message = Message::Prime(PrimeMessage {
        key: Bytes::from_static(b"s\x04\0\0\0http\xff"),
        primary: Bytes::from_static(b"s\xff"),
        record: record.into(),
        seen,
    });
    event(EventShape::inert(), message)
}

/// One event of each kind.
fn each() -> Vec<BusEvent> {
    let knows = KnownPurges::Publishers(vec![
        ("a".into(), 1, PublisherNumber::new(2)),
        ("b".into(), u64::MAX, PublisherNumber::ZERO),
    ]);
    let heartbeat = Message::Heartbeat {
        healthy: true,
        version: "0.1.0".into(),
        asks: true,
    };
    let changed = Message::Changed {
        key: Bytes::from_static(b"s\xff"),
        likeness: u64::MAX,
    };
    let applied = Message::Applied {
        of: "0191-a".into(),
        order: 5 << 28,
    };
    let all = Message::Purge {
        selector: "all".into(),
        soft: false,
        receipt: true,
    };
    vec![
        purge(),
        event(EventShape::Pattern("*".into()), all),
        prime("HC1M…", KnownPurges::Log { generation: 9 }),
        prime("", knows),
        event(EventShape::inert(), changed),
        event(EventShape::inert(), heartbeat),
        event(EventShape::inert(), applied),
    ]
}

fn seen() -> impl Strategy<Value = KnownPurges> {
    let publishers = prop::collection::vec((".{0,20}", any::<u64>(), 0..MAX_COUNT), 0..5);
    prop_oneof![
        any::<u64>().prop_map(|generation| KnownPurges::Log { generation }),
        publishers.prop_map(|known| {
            let known = known.into_iter();
            let known =
                known.map(|(name, boot, number)| (name, boot, PublisherNumber::new(number)));
            KnownPurges::Publishers(known.collect())
        }),
    ]
}

fn message() -> impl Strategy<Value = Message> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from);
    let purge = (".{0,60}", any::<bool>(), any::<bool>());
    let prime = (bytes(), bytes(), bytes(), seen());
    prop_oneof![
        purge.prop_map(|(selector, soft, receipt)| Message::Purge {
            selector,
            soft,
            receipt
        }),
        prime.prop_map(|(key, primary, record, seen)| Message::Prime(PrimeMessage {
            key,
            primary,
            record,
            seen
        })),
        (bytes(), any::<u64>()).prop_map(|(key, likeness)| Message::Changed { key, likeness }),
        (any::<bool>(), ".{0,20}", any::<bool>()).prop_map(|(healthy, version, asks)| {
            Message::Heartbeat {
                healthy,
                version,
                asks,
            }
        }),
        (".{0,60}", any::<u64>()).prop_map(|(of, order)| Message::Applied { of, order }),
        (".{0,60}", any::<u64>(), any::<u64>()).prop_map(|(of, life, from)| Message::Missing {
            of,
            life,
            from: PublisherNumber::new(from)
        }),
    ]
}

fn shape() -> impl Strategy<Value = EventShape> {
    let keys = prop::collection::vec(".{0,40}", 0..6);
    prop_oneof![
        keys.prop_map(|keys| EventShape::Del { keys }),
        ".{0,60}".prop_map(EventShape::Pattern),
        Just(EventShape::inert()),
    ]
}

fn any_event() -> impl Strategy<Value = BusEvent> {
    let counts = (any::<u64>(), 1..MAX_COUNT, 0..MAX_COUNT);
    let ours = (counts, message()).prop_map(|((boot, purges, sequence), message)| NodePayload {
        boot,
        purges: PublisherNumber::new(purges),
        sequence,
        message,
    });
    let outer = (
        ".{1,40}",
        ".{1,40}",
        prop::option::of(".{0,40}"),
        0..1_u64 << 53,
        shape(),
    );
    (outer, prop::option::of(ours)).prop_map(|((id, source, namespace, ts, shape), ours)| {
        BusEvent {
            id,
            source,
            namespace,
            ts,
            shape,
            ours,
        }
    })
}

fn keys() -> SealKeys {
    SealKeys::new(b"the key of all nodes", None)
}

proptest! {
    #[test]
    fn what_is_written_is_what_is_read(event in any_event()) {
        prop_assert_eq!(BusEvent::decode(&event.encode()), Ok(event));
    }

    #[test]
    fn a_sealed_event_is_read_as_it_was_written_and_no_other_is_taken_for_one(
        event in any_event(), at in any::<usize>(), bit in 0..8,
    ) {
        let bytes = event.encode_sealed(&keys());
        let opened = BusEvent::open(&bytes, Some(&keys())).unwrap();
        let seal = match event.ours {
            Some(_) => SealCheck::Holds,
            None => SealCheck::Absent,
        };
        prop_assert_eq!(&opened, &OpenedEvent { event: event.clone(), seal });
        prop_assert_eq!(BusEvent::decode(&bytes), Ok(event), "nodes without a key read it, too");
        let mut changed = bytes.to_vec();
        changed[at % bytes.len()] ^= 1_u8 << bit;
        let changed = BusEvent::open(&changed.into(), Some(&keys()));
        prop_assert!(changed.is_err() || changed.unwrap().seal != SealCheck::Holds);
    }
}

#[test]
fn what_no_node_says_is_no_event_of_one() {
    let read = |event: &BusEvent| BusEvent::decode(&event.encode());
    let long = || "x".repeat(MAX_NAME + 1);
    let heartbeat = |version: String| Message::Heartbeat {
        healthy: true,
        version,
        asks: false,
    };
    let missing = Message::Missing {
        of: long(),
        life: 1,
        from: PublisherNumber::FIRST,
    };
    let applied = Message::Applied {
        of: long(),
        order: 1,
    };
    let known = |name: String, number| {
        KnownPurges::Publishers(vec![(name, 1, PublisherNumber::new(number))])
    };
    let named = |id: String, source: String| BusEvent {
        id,
        source,
        ..purge()
    };
    for event in [
        named(long(), "a".into()),
        named("1".into(), long()),
        named("1".into(), String::new()),
        event(EventShape::inert(), heartbeat(long())),
        event(EventShape::inert(), missing),
        event(EventShape::inert(), applied),
        prime("", known(long(), 1)),
    ] {
        assert_eq!(read(&event), Err(EventFormatError::Name), "{event:?}");
    }
    let counted = |purges: u64, sequence: u64| {
        let mut event = purge();
        let ours = event.ours.as_mut().unwrap();
        (ours.purges, ours.sequence) = (PublisherNumber::new(purges), sequence);
        event
    };
    for event in [
        counted(0, 1),
        counted(1 << 63, 1),
        counted(MAX_COUNT, 1),
        counted(1, u64::MAX),
        prime("", known("a".into(), u64::MAX)),
    ] {
        assert_eq!(read(&event), Err(EventFormatError::Count), "{event:?}");
    }
    assert!(read(&counted(MAX_COUNT - 1, MAX_COUNT - 1)).is_ok());
    // Written by hand, since we never write such a list.
    let mut many = b"HC1M".to_vec();
    let publishers = vec![("a", 1, 1); MAX_PUBLISHERS + 1];
    let lamina = serde_json::json!({
        "boot": 1, "purges": 1, "kind": "prime", "key": null, "publishers": publishers,
    });
    let mut packed = rmp_serde::to_vec(&serde_json::json!({
        "id": "1", "type": "del", "source": "a", "ts": 1, "keys": [], "lamina": lamina,
    }))
    .unwrap();
    // JSON has no bytes: `key: nil` becomes an empty binary, which stands in for all three.
    let nil = packed.windows(5).position(|w| w == b"\xa3key\xc0").unwrap();
    let bytes = b"\xa3key\xc4\0\xa7primary\xc4\0\xa6record\xc4\0";
    packed.splice(nil..nil + 5, bytes.iter().copied());
    let map = packed
        .windows(8)
        .position(|w| w == b"\xa6lamina\x85")
        .unwrap();
    packed[map + 7] += 2;
    many.extend(packed);
    assert_eq!(
        BusEvent::decode(&many.into()),
        Err(EventFormatError::TooMany)
    );
}

#[test]
fn every_kind_is_read_as_it_was_written() {
    for event in each() {
        let bytes = event.encode();
        assert_eq!(&bytes[..4], b"HC1M");
        assert_eq!(BusEvent::decode(&bytes), Ok(event));
    }
}

#[test]
fn from_64_kib_on_gzip_is_used_where_it_saves_15_percent() {
    let mut state = 1_u64;
    let mut noise = |_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    };
    let noise: Bytes = (0..80_000).map(&mut noise).collect();
    let bytes = |record: Bytes| {
        let event = prime(record, KnownPurges::Log { generation: 1 });
        let bytes = event.encode();
        assert_eq!(BusEvent::decode(&bytes), Ok(event));
        bytes
    };
    assert_eq!(&bytes(vec![b'a'; 80_000].into())[..4], b"HC1G");
    assert_eq!(&bytes(vec![b'a'; 64_000].into())[..4], b"HC1M");
    assert_eq!(&bytes(noise)[..4], b"HC1M");
}

#[test]
fn a_record_is_a_part_of_the_bytes_it_came_in() {
    let bytes = prime(vec![1; 100], KnownPurges::Log { generation: 1 }).encode();
    let message = BusEvent::decode(&bytes).unwrap().ours.unwrap().message;
    let Message::Prime(prime) = message else {
        panic!("it is a prime");
    };
    assert!(bytes.as_ptr_range().contains(&prime.record.as_ptr()));
}

/// Services that run `lazy-layers-cache` would take a `set` without a value for one with the value
/// null.
#[test]
fn a_set_of_ours_goes_out_as_a_del() {
    let keys = vec!["a".to_owned()];
    let mut event = purge();
    event.shape = EventShape::Set { keys: keys.clone() };
    let back = BusEvent::decode(&event.encode()).unwrap();
    assert_eq!(back.shape, EventShape::Del { keys });
}

#[test]
fn as_much_as_the_limits_allow_is_written_and_read() {
    let keys = vec!["a".repeat(200); MAX_KEYS];
    let mut event = purge();
    event.shape = EventShape::Del { keys };
    assert_eq!(BusEvent::decode(&event.encode()), Ok(event.clone()));
    event.shape = EventShape::Pattern("a".repeat(MAX_TEXT));
    assert_eq!(BusEvent::decode(&event.encode()), Ok(event));
}
