//! Bytes that we did not write: damaged, swapped, forged, or made to be expensive.

use std::io::Write;

use flate2::write::GzEncoder;

use super::*;

/// Tag and envelope around `record`, sealed for [`KEY`] as anybody can do without a secret.
fn sealed(record: &[u8]) -> Bytes {
    let seal = Seal::public().over(KEY, record);
    let length = (record.len() as u32).to_be_bytes();
    [b"HC1M\x93\x02\xc4\x10", &seal[..], b"\xc6", &length, record]
        .concat()
        .into()
}

/// The record's own msgpack, taken from the result of [`written`].
fn inside(bytes: &Bytes) -> Vec<u8> {
    bytes[4 + 4 + 16 + 5..].to_vec()
}

/// A `varies` record with one more key that has this msgpack value.
fn with_further_key(value: &[u8]) -> Bytes {
    let mut map = inside(&written(&StoreRecord::Varies(Vec::new()), None));
    assert_eq!(map[0], 0x84, "a map of four");
    map[0] += 1;
    map.extend_from_slice(b"\xa4more");
    map.extend_from_slice(value);
    sealed(&map)
}

fn gzipped(tag: &[u8; 4], plain: &[u8]) -> Bytes {
    let mut gzip = GzEncoder::new(tag.to_vec(), flate2::Compression::best());
    gzip.write_all(plain).unwrap();
    gzip.finish().unwrap().into()
}

#[test]
fn every_truncation_is_an_error() {
    for form in FORMS {
        let bytes = written(&entry(text(600)), form);
        for end in 0..bytes.len() {
            assert!(read(&bytes.slice(..end)).is_err(), "{form:?} up to {end}");
        }
    }
}

#[test]
fn bytes_after_the_end_are_an_error() {
    for form in FORMS {
        let longer = [&written(&entry(text(600)), form)[..], b"\0"].concat();
        assert!(read(&longer.into()).is_err(), "{form:?}");
    }
}

/// In compressed forms a few bits mean nothing (gzip's time stamp); the record is the same then.
#[test]
fn a_flipped_bit_never_makes_another_record() {
    let record = entry(text(600));
    for form in FORMS {
        let bytes = written(&record, form);
        for bit in 0..8 * bytes.len() {
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            match read(&flipped.into()) {
                Err(_) => {}
                Ok(back) => assert!(form.is_some() && back == record, "{form:?}, bit {bit}"),
            }
        }
    }
}

#[test]
fn a_record_of_another_key_is_told_from_a_broken_seal() {
    let bytes = written(&entry("text"), None);
    let limits = RecordLimits::default();
    let under = |key: &[u8], seal: &Seal| decode(key, &bytes, &limits, seal);
    assert_eq!(
        under(b"other", &Seal::public()),
        Err(CorruptRecord::AnotherKey)
    );
    assert_eq!(under(KEY, &Seal::new(b"secret")), Err(CorruptRecord::Seal));
    assert_eq!(
        under(b"other", &Seal::new(b"secret")),
        Err(CorruptRecord::AnotherKey)
    );
}

/// Guards against a seal over key and record without a length between them. A key that ends like a
/// record (a plugin's text may) would then have a seal that is also valid for that record under the
/// shorter key.
#[test]
fn a_key_that_ends_like_a_record_lends_its_seal_to_nobody() {
    let empty = StoreRecord::Varies(Vec::new());
    let forged = |rest: u32| {
        let mut map = inside(&written(&empty, None));
        map[0] += 1;
        [&map[..], b"\xa4more\xc6", &rest.to_be_bytes()].concat()
    };
    let under = |key: &[u8]| encode(key, &empty, &options(None)).unwrap();
    let longer = |rest: u32| [KEY, &forged(rest)].concat();
    let rest = inside(&under(&longer(0)));
    let length = rest.len() as u32;
    let honest = under(&longer(length));
    // Well formed under KEY, but sealed as a whole for the longer key.
    let moved = [forged(length), inside(&honest)].concat();
    assert_eq!(read(&sealed(&moved)), Ok(empty.clone()));
    let mut bytes = sealed(&moved).to_vec();
    bytes[8..24].copy_from_slice(&honest[8..24]);
    assert_eq!(read(&bytes.into()), Err(CorruptRecord::Seal));
}

#[test]
fn a_record_that_names_another_key_than_it_was_sealed_for_is_an_error() {
    let other = encode(b"other", &entry("text"), &options(None)).unwrap();
    assert_eq!(
        read(&sealed(&inside(&other))),
        Err(CorruptRecord::AnotherKey)
    );
}

#[test]
fn unknown_tags_and_other_versions_are_told_apart() {
    let with = |at: usize, byte: u8| {
        let mut bytes = written(&entry("text"), None).to_vec();
        bytes[at] = byte;
        read(&bytes.into())
    };
    assert_eq!(with(3, b'L'), Err(CorruptRecord::Tag));
    assert_eq!(with(0, b'h'), Err(CorruptRecord::Tag));
    for version in [0, 1, 3, 127] {
        assert_eq!(with(5, version), Err(CorruptRecord::Version), "{version}");
        let inner = inside(&written(&StoreRecord::Varies(Vec::new()), None));
        let other = [b"\x84\xa1v", &[version][..], &inner[4..]].concat();
        assert_eq!(
            read(&sealed(&other)),
            Err(CorruptRecord::Version),
            "{version}"
        );
    }
}

#[test]
fn larger_than_the_limits_is_an_error_before_anything_is_expanded() {
    let limits = RecordLimits {
        encoded: 5_000,
        expanded: 50_000,
    };
    let under = |bytes: Bytes| decode(KEY, &bytes, &limits, &Seal::public());
    assert_eq!(
        under(written(&entry(noise(5_000)), None)),
        Err(CorruptRecord::TooLarge)
    );
    for codec in [EnvelopeCodec::GZIP, EnvelopeCodec::ZSTD] {
        let bomb = written(&entry(vec![0; 60_000]), Some(codec));
        assert!(bomb.len() < limits.encoded);
        assert_eq!(under(bomb), Err(CorruptRecord::TooLarge), "{codec:?}");
        assert!(
            under(written(&entry(vec![0; 40_000]), Some(codec))).is_ok(),
            "{codec:?}"
        );
    }
}

/// The stated length is false in both directions; neither it nor the limit is allocated.
#[test]
fn a_gzip_bomb_ends_at_the_limit_whatever_length_it_states() {
    let limits = RecordLimits {
        encoded: 1 << 20,
        expanded: 1 << 20,
    };
    let mut bomb = gzipped(b"HC1G", &vec![0; 64 << 20]).to_vec();
    assert!(bomb.len() < 100_000);
    for length in [0_u32, 1, 1 << 20, u32::MAX] {
        let end = bomb.len() - 4;
        bomb[end..].copy_from_slice(&length.to_le_bytes());
        let ended = decode(KEY, &bomb.clone().into(), &limits, &Seal::public());
        assert_eq!(ended, Err(CorruptRecord::TooLarge), "{length}");
    }
}

#[test]
fn a_zstd_frame_must_state_its_length() {
    let mut stream = zstd::stream::Encoder::new(b"HC1Z".to_vec(), 3).unwrap();
    stream
        .write_all(&written(&entry("text"), None)[4..])
        .unwrap();
    assert_eq!(
        read(&stream.finish().unwrap().into()),
        Err(CorruptRecord::Compression)
    );
}

#[test]
fn deep_nesting_is_an_error() {
    let nested = |depth: usize| with_further_key(&[vec![0x91; depth], vec![0xc0]].concat());
    assert_eq!(read(&nested(10)), Ok(StoreRecord::Varies(Vec::new())));
    assert_eq!(read(&nested(20)), Err(CorruptRecord::TooDeep));
    assert_eq!(read(&nested(1 << 20)), Err(CorruptRecord::TooDeep));
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
            read(&with_further_key(value)),
            Err(CorruptRecord::Truncated),
            "{value:x?}"
        );
    }
    let envelope = Bytes::from_static(b"HC1M\x93\x02\xc6\xff\xff\xff\xff");
    assert_eq!(read(&envelope), Err(CorruptRecord::Truncated));
}

#[test]
fn lists_are_bounded_whatever_fits_into_the_bytes() {
    let lists = |names: usize| {
        let map = inside(&written(&StoreRecord::Varies(Vec::new()), None));
        let (front, end) = map.split_at(map.len() - 1);
        assert_eq!(end, [0x90], "no lists");
        let count = (names as u16).to_be_bytes();
        let list = [&b"\x91\xdc"[..], &count, &b"\xa1a".repeat(names)].concat();
        read(&sealed(&[front, &list].concat()))
    };
    assert!(lists(MAX_FIELDS).is_ok());
    assert_eq!(lists(MAX_FIELDS + 1), Err(CorruptRecord::Form));
}

#[test]
fn keys_must_be_there_once_and_may_be_unknown() {
    let map = inside(&written(&StoreRecord::Varies(Vec::new()), None));
    assert_eq!(map[0], 0x84);
    assert!(read(&with_further_key(b"\xc0")).is_ok());
    let twice = [&[0x85], &map[1..], b"\xa1v\x02"].concat();
    assert_eq!(read(&sealed(&twice)), Err(CorruptRecord::Form));
    let missing = [&[0x83], &map[4..]].concat();
    assert_eq!(read(&sealed(&missing)), Err(CorruptRecord::Form));
}

#[test]
fn fields_that_http_does_not_know_are_errors() {
    let map = inside(&written(
        &StoreRecord::Varies(vec![vec!["accept".parse().unwrap()]]),
        None,
    ));
    let at = map.windows(6).position(|part| part == b"accept").unwrap();
    let mut bad = map.clone();
    bad[at] = b' ';
    assert!(read(&sealed(&map)).is_ok());
    assert_eq!(read(&sealed(&bad)), Err(CorruptRecord::Form));
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_an_error(tag in prop::sample::select(vec!["HC1M", "HC1G", "HC1Z", ""]), rest in prop::collection::vec(any::<u8>(), 0..400)) {
        let bytes = Bytes::from([tag.as_bytes(), &rest].concat());
        prop_assert!(read(&bytes).is_err());
    }

    /// Without a secret anybody can seal anything.
    #[test]
    fn a_sealed_record_with_arbitrary_changes_does_not_panic(record in any_record(), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut map = inside(&written(&record, None));
        for (at, byte) in changes {
            let at = at.index(map.len());
            map[at] = byte;
        }
        let _ = read(&sealed(&map));
    }

    #[test]
    fn damaged_compression_does_not_panic_or_make_another_record(record in any_record(), codec in prop::sample::select(vec![EnvelopeCodec::GZIP, EnvelopeCodec::ZSTD]), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = written(&record, Some(codec)).to_vec();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(back) = read(&bytes.into()) {
            prop_assert_eq!(back, record);
        }
    }
}
