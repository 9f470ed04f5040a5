//! `lamina record inspect`, over records that Node.js wrote (`tests/record/control.sh`).

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use e2e::cli::{Ran, repository, run};

/// As the control reads it: numbers as text, bytes in base64. The key is
/// `scheme=http path=/a`, the body `hello`.
const ENTRY: &str = r#"{
    "kind": "entry", "key": "cwQAAABodHRwcAIAAAAvYQ==", "status": "200",
    "headers": [["content-type", "dGV4dC9wbGFpbg=="]], "body": "aGVsbG8=",
    "marks": {"id": "1", "identity": "2", "route": "3", "tags": "AAAAAAAAAAE=", "groups": "", "url": "a.example/a"},
    "born": "268435456", "gen": "9", "at": "WRITTEN", "age": "1500", "life": "90000", "fresh": "60000",
    "swr": "30000", "sie": "0", "must": false
}"#;

/// Has the control write [`ENTRY`] into `folder`, sealed by `secret`, as of now.
fn written(folder: &Path, tag: &str, secret: &[&str]) -> PathBuf {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    written_at(now, folder, tag, secret)
}

/// The same, as of then.
fn written_at(at: Duration, folder: &Path, tag: &str, secret: &[&str]) -> PathBuf {
    let entry = ENTRY.replace("WRITTEN", &at.as_millis().to_string());
    let file = folder.join("record");
    let mut control = Command::new(repository().join("tests/record/control.sh"))
        .args(["write", file.to_str().unwrap(), tag])
        .args(secret)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = control.stdin.take().unwrap();
    input.write_all(entry.as_bytes()).unwrap();
    drop(input);
    assert!(control.wait().unwrap().success());
    file
}

fn inspect(file: &Path, further: &[&str]) -> Ran {
    run(&[&["record", "inspect", file.to_str().unwrap()], further].concat())
}

#[test]
fn a_record_is_told_in_full() {
    let folder = tempfile::tempdir().unwrap();
    for tag in ["HC1M", "HC1G"] {
        let ran = inspect(&written(folder.path(), tag, &[]), &[]);
        assert_eq!(ran.code, Some(0), "{}", ran.output());
        for part in [
            tag,
            "seal      ok",
            "scheme=http path=/a",
            "200 OK",
            "content-type: text/plain",
            "body      5 bytes",
            "at age 1.5 s, to be kept for 90 s",
            "below 60 s",
            "1 tags",
        ] {
            assert!(ran.stdout.contains(part), "{part} in {}", ran.stdout);
        }
    }
}

#[test]
fn a_wrong_seal_and_a_wrong_key_are_told_and_fail() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "a secret\n").unwrap();
    let secret = ["--seal-key-file", secret.to_str().unwrap()];
    let file = written(folder.path(), "HC1M", &["a secret"]);
    assert_eq!(inspect(&file, &secret).code, Some(0));

    let public = inspect(&file, &[]);
    assert_eq!(public.code, Some(1));
    assert!(public.stdout.contains("is not valid") && public.stdout.contains("200 OK"));

    let other = inspect(
        &file,
        &[&secret[..], &["--key", "0123456789abcdef"]].concat(),
    );
    assert_eq!(other.code, Some(1));
    assert!(other.stderr.contains("another key"), "{}", other.stderr);
}

#[test]
fn a_record_that_no_gateway_would_take_any_more_is_told_and_fails() {
    let folder = tempfile::tempdir().unwrap();
    let then = Duration::from_secs(1_700_000_000);
    let ended = inspect(&written_at(then, folder.path(), "HC1M", &[]), &[]);
    assert_eq!(ended.code, Some(1));
    assert!(
        ended
            .stdout
            .contains("written   Tue, 14 Nov 2023 22:13:20 GMT, at age 1.5 s")
    );
    assert!(ended.stderr.contains("it has expired"), "{}", ended.stderr);
    let never = Duration::from_secs(1 << 50);
    let ahead = inspect(&written_at(never, folder.path(), "HC1M", &[]), &[]);
    assert_eq!(ahead.code, Some(1));
    assert!(
        ahead.stderr.contains("is in the future"),
        "{}",
        ahead.stderr
    );
}

#[test]
fn a_corrupt_record_fails_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let file = written(folder.path(), "HC1G", &[]);
    let whole = std::fs::read(&file).unwrap();
    for (bytes, reason) in [
        (&whole[..whole.len() - 9], "ends too early"),
        (b"HC1X....", "tag"),
        (b"", "ends too early"),
    ] {
        std::fs::write(&file, bytes).unwrap();
        let ran = inspect(&file, &[]);
        assert_eq!(ran.code, Some(1));
        assert!(ran.stderr.contains(reason), "{reason} in {}", ran.stderr);
    }
    assert_eq!(inspect(&folder.path().join("none"), &[]).code, Some(1));
}
