//! How a file begins, and what no file has.

use std::path::Path;

use super::assert_holds;
use super::code_text::after_word;
use super::sources::{SourceFile, sources};

/// The least that there is; far fewer means that a rule looks at nothing.
const MIN_FILES: usize = 600;

#[test]
fn every_file_opens_with_its_duty() {
    let sources = sources();
    let silent = sources
        .iter()
        .filter(|source| !source.text.starts_with("//!"));
    let faults: Vec<_> = silent
        .map(|source| format!("{} has no `//!` at its top", source.path.display()))
        .collect();
    assert_holds(&faults, sources.len(), MIN_FILES);
}

#[test]
fn nothing_is_left_for_later_and_nothing_unwraps() {
    let (mut faults, mut judged) = (Vec::new(), 0);
    for source in sources() {
        judged += 1;
        for word in [".unwrap()", "todo!(", "unimplemented!(", "dbg!("] {
            if source.code.contains(word) {
                faults.push(format!("{}: {word}", source.path.display()));
            }
        }
        for word in ["TODO", "FIXME", "XXX"] {
            if source
                .text
                .split(|c: char| !c.is_alphanumeric())
                .any(|found| found == word)
            {
                faults.push(format!("{}: {word}", source.path.display()));
            }
        }
    }
    assert_holds(&faults, judged, MIN_FILES);
}

/// A library that may have to be replaced is named where that would be done.
#[test]
fn the_client_for_redis_is_named_in_one_file() {
    let sources = sources();
    let names = |source: &&SourceFile| !after_word(&source.code, "fred::").is_empty();
    let files: Vec<_> = sources.iter().filter(names).collect();
    let files: Vec<_> = files.iter().map(|source| source.path.clone()).collect();
    assert_eq!(files, [Path::new("redis/driver.rs")]);
}
