//! The comparison with Node.js: it reads what we write, and we read what it writes.
//!
//! `tests/bus/wire.mjs` implements the format a second time, with msgpackr and node:zlib, and
//! checks an event by the conditions of `lazy-layers-cache`.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::*;

/// Runs the control program. Returns what it printed.
fn control(arguments: &[&str], input: &str) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/bus/control.sh");
    let mut child = Command::new(script)
        .arg("codec")
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

/// The event in the form in which Node.js prints it, with bytes as base64.
fn told(event: &BusEvent) -> Value {
    let ours = event.ours.as_ref().unwrap();
    let number = |number: u64| json!(format!("{number:016x}"));
    let mut lamina = match &ours.message {
        Message::Purge {
            selector,
            soft,
            receipt,
        } => json!({"kind": "purge", "selector": selector, "soft": soft, "receipt": receipt}),
        Message::Prime(prime) => {
            let mut told = json!({"kind": "prime", "key": "cwQAAABodHRw/w==", "primary": "c/8="});
            told["record"] = match prime.record.is_empty() {
                true => json!(""),
                false => json!("SEMxTeKApg=="),
            };
            match &prime.seen {
                KnownPurges::Log { generation } => told["log"] = number(*generation),
                KnownPurges::Publishers(known) => {
                    told["publishers"] = known
                        .iter()
                        .map(|(source, boot, purges)| {
                            json!([source, number(*boot), purges.value()])
                        })
                        .collect();
                }
            }
            told
        }
        Message::Changed { likeness, .. } => {
            json!({"kind": "changed", "key": "c/8=", "likeness": number(*likeness)})
        }
        Message::Heartbeat {
            healthy,
            version,
            asks,
        } => {
            let mut told = json!({"kind": "heartbeat", "healthy": healthy, "version": version});
            if *asks {
                told["asks"] = json!(true);
            }
            told
        }
        Message::Leaving => json!({"kind": "leaving"}),
        Message::Applied { of, order } => {
            json!({"kind": "applied", "of": of, "order": number(*order)})
        }
        Message::Missing { of, life, from } => {
            json!({"kind": "missing", "of": of, "life": number(*life), "order": number(from.value())})
        }
    };
    lamina["boot"] = number(ours.boot);
    lamina["purges"] = json!(ours.purges.value());
    lamina["sequence"] = json!(ours.sequence);
    let mut told = json!({
        "id": event.id, "source": event.source, "ts": event.ts, "namespace": event.namespace,
        "lamina": lamina,
    });
    match &event.shape {
        EventShape::Del { keys } | EventShape::Set { keys } => {
            told["type"] = json!("del");
            told["keys"] = json!(keys);
        }
        EventShape::Pattern(pattern) => {
            told["type"] = json!("pattern");
            told["pattern"] = json!(pattern);
        }
    }
    told
}

#[test]
fn node_reads_what_we_write() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("event");
    let keys = (0..4_000).map(|i| format!("product:{i}:shown")).collect();
    let mut large = purge();
    large.shape = EventShape::Del { keys };
    let mut late = purge();
    let ours = late.ours.as_mut().unwrap();
    (ours.purges, ours.sequence) = (PublisherNumber::new(MAX_COUNT - 1), 1 << 32);
    for event in each().into_iter().chain([late, large]) {
        std::fs::write(&file, event.encode()).unwrap();
        let printed = control(&["decode", file.to_str().unwrap()], "");
        let printed: Value = serde_json::from_str(&printed).unwrap();
        assert_eq!(printed, told(&event));
    }
    assert_eq!(&std::fs::read(&file).unwrap()[..4], b"HC1G");
}

#[test]
fn we_read_what_node_writes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("event");
    let file = file.to_str().unwrap();
    let keys = || vec!["product:1".to_owned(), "ä€😀".to_owned()];
    let value =
        json!({"a": [1.5, null, true, {"b": "c".repeat(300)}], "n": -9_007_199_254_740_991_i64});
    let set = json!({
        "id": "i", "type": "set", "source": "node-a", "ts": 1_700_000_000_123.25, "keys": keys(),
        "value": value, "ttlMs": 60_000, "generation": 70_000, "keyTypes": ["string", "number"],
        "pattern": "<undefined>", "namespace": "<undefined>",
    });
    let pattern = json!({
        "id": "<undefined>", "type": "pattern", "source": "node-a", "ts": 1_700_000_000_123_u64,
        "pattern": "product:*", "namespace": "shop",
    });
    for (form, tag) in [("", "HC1M"), ("gzip", "HC1G"), ("json", "HC1J")] {
        let read = |event: &Value| {
            control(&["encode", file, form], &event.to_string());
            let bytes = Bytes::from(std::fs::read(file).unwrap());
            assert_eq!(&bytes[..4], tag.as_bytes());
            BusEvent::decode(&bytes).unwrap()
        };
        let event = BusEvent {
            id: "i".into(),
            source: "node-a".into(),
            namespace: None,
            ts: 1_700_000_000_123,
            shape: EventShape::Set { keys: keys() },
            ours: None,
        };
        assert_eq!(read(&set), event);
        let made_up = read(&pattern);
        assert!(made_up.id.starts_with("node-a:1700000000123:pattern:"));
        let event = BusEvent {
            id: made_up.id.clone(),
            namespace: Some("shop".into()),
            shape: EventShape::Pattern("product:*".into()),
            ..event
        };
        assert_eq!(made_up, event);
    }
}

/// Each of the values that `tests/bus/wire.mjs` can make and JSON can't.
#[test]
fn a_set_of_any_value_of_javascript_names_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("event");
    let file = file.to_str().unwrap();
    let odd = [
        "undefined",
        "date",
        "bigint",
        "map",
        "bytes",
        "types",
        "records",
        "cycle",
        "deep",
        "large",
    ];
    for (odd, form) in odd.iter().flat_map(|odd| [(odd, ""), (odd, "gzip")]) {
        let event = json!({
            "id": "i", "type": "set", "source": "a", "ts": 1, "keys": ["user:7"],
            "value": format!("<odd {odd}>"), "ttlMs": 60_000, "namespace": "shop",
        });
        control(&["encode", file, form], &event.to_string());
        let bytes = Bytes::from(std::fs::read(file).unwrap());
        let event =
            BusEvent::decode(&bytes).unwrap_or_else(|malformed| panic!("{odd}: {malformed}"));
        let keys = vec!["user:7".to_owned()];
        assert_eq!(event.shape, EventShape::Set { keys }, "{odd}");
        // The namespace stands after the value.
        assert_eq!(event.namespace.as_deref(), Some("shop"), "{odd}");
    }
}
