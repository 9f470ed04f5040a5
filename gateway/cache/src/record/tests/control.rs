//! Node.js as the control: it reads what we write, and we read what it writes.
//!
//! `tests/record/control.mjs` implements the format a second time, with msgpackr, node:zlib and
//! node:crypto. Both sides print a record as the same JSON.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::*;

/// Runs the control and returns what it printed.
fn control(arguments: &[&str], input: &str) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/record/control.sh");
    let mut child = Command::new(script)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk
            .iter()
            .fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * i)) as usize % 64] as char;
            out.push(if i <= chunk.len() { digit } else { '=' });
        }
    }
    out
}

/// The record as the control prints it.
fn told(record: &StoreRecord, tag: &str) -> Value {
    let stored = match record {
        StoreRecord::Entry(stored) => stored,
        StoreRecord::Varies(lists) => {
            let names = |list: &Vec<HeaderName>| list.iter().map(HeaderName::to_string).collect();
            let lists: Vec<Vec<String>> = lists.iter().map(names).collect();
            return json!({"tag": tag, "kind": "varies", "key": base64(KEY), "varies": lists});
        }
    };
    let marks = &stored.marks;
    let hashes = |list: &[u64]| {
        base64(
            &list
                .iter()
                .flat_map(|n| n.to_be_bytes())
                .collect::<Vec<_>>(),
        )
    };
    let headers = stored.headers.iter();
    let headers: Vec<_> = headers
        .map(|(name, value)| json!([name.as_str(), base64(value.as_bytes())]))
        .collect();
    json!({
        "tag": tag, "kind": "entry", "key": base64(KEY),
        "status": stored.status.as_str(), "headers": headers, "body": base64(&stored.body),
        "marks": {
            "id": marks.id.to_string(), "identity": marks.identity.to_string(),
            "route": marks.route.to_string(), "tags": hashes(&marks.tags),
            "groups": hashes(&marks.groups), "url": &*marks.url,
        },
        "born": stored.born.to_string(), "gen": stored.generation.to_string(),
        "at": stored.written.as_millis().to_string(),
        "age": stored.age.as_millis().to_string(), "life": stored.life.as_millis().to_string(),
        "fresh": stored.lifetime.as_millis().to_string(),
        "swr": stored.while_revalidate.as_millis().to_string(),
        "sie": stored.if_error.as_millis().to_string(), "must": stored.must_revalidate,
    })
}

fn records() -> [StoreRecord; 3] {
    let lists = [&["accept", "x-a"][..], &[]];
    let names = |list: &[&str]| list.iter().map(|name| name.parse().unwrap()).collect();
    [
        entry(text(5_000)),
        entry(Bytes::new()),
        StoreRecord::Varies(lists.into_iter().map(names).collect()),
    ]
}

/// Calls `act` with each form of the record's file, sealed with a secret where there is one.
fn each_form(mut act: impl FnMut(&StoreRecord, Option<EnvelopeCodec>, &str, &str, &[&str])) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("record");
    let file = file.to_str().unwrap();
    for record in records() {
        for (form, tag) in [(None, "HC1M"), (Some(EnvelopeCodec::GZIP), "HC1G")] {
            for secret in [&[][..], &["a secret"]] {
                act(&record, form, tag, file, secret);
            }
        }
    }
}

fn seal_of(secret: &[&str]) -> Seal {
    secret
        .first()
        .map_or_else(Seal::public, |secret| Seal::new(secret.as_bytes()))
}

#[test]
fn node_reads_what_we_write() {
    each_form(|record, form, _, file, secret| {
        let options = RecordOptions {
            seal: seal_of(secret),
            ..options(form)
        };
        let bytes = encode(KEY, record, &options).unwrap();
        std::fs::write(file, &bytes).unwrap();
        let printed = control(&[&["read", file], secret].concat(), "");
        let printed: Value = serde_json::from_str(&printed).unwrap();
        // A small record does not become smaller.
        assert_eq!(
            printed,
            told(record, std::str::from_utf8(&bytes[..4]).unwrap())
        );
    });
}

#[test]
fn we_read_what_node_writes() {
    each_form(|record, _, tag, file, secret| {
        let input = told(record, tag).to_string();
        control(&[&["write", file, tag], secret].concat(), &input);
        let bytes = Bytes::from(std::fs::read(file).unwrap());
        assert_eq!(&bytes[..4], tag.as_bytes());
        let seal = seal_of(secret);
        assert_eq!(
            decode(KEY, &bytes, &RecordLimits::default(), &seal).as_ref(),
            Ok(record)
        );
        assert_eq!(
            decode(KEY, &bytes, &RecordLimits::default(), &Seal::new(b"?")),
            Err(CorruptRecord::Seal)
        );
    });
}

#[test]
fn node_makes_the_same_listing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("listing.json");
    let players = listing::PLAYERS.to_string();
    control(&["listing", file.to_str().unwrap(), &players], "");
    assert!(std::fs::read_to_string(file).unwrap() == listing::listing(listing::PLAYERS));
}
