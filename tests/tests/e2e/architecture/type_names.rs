//! Names of types: each is the name of one type, and says what that is.

use std::collections::{BTreeMap, BTreeSet};

use super::code_text::types;
use super::sources::sources;
use super::{architecture_document, assert_holds, lines_of_block, section};

/// The least that there is; far fewer means that the rule looks at nothing.
const MIN_TYPES: usize = 900;

#[test]
fn type_names_are_told_apart_and_say_what_they_are() {
    let document = architecture_document();
    let listed: BTreeSet<String> = lines_of_block(section(&document, "## Glossary"))
        .flat_map(str::split_whitespace)
        .map(str::to_owned)
        .collect();
    let (mut known, mut alone) = (BTreeMap::new(), BTreeSet::new());
    let mut faults = Vec::new();
    for source in sources() {
        let file = source.path.display().to_string();
        for name in types(&source.code) {
            if name.chars().filter(char::is_ascii_uppercase).count() == 1 {
                alone.insert(name.clone());
            }
            if let Some(other) = known.insert(name.clone(), file.clone()) {
                faults.push(format!("{name} is a type in {other} and in {file}"));
            }
        }
    }
    let unlisted = alone.difference(&listed);
    faults.extend(unlisted.map(|name| format!("{name} is one word and not in the glossary")));
    let gone = listed.difference(&alone);
    faults.extend(gone.map(|name| format!("{name} is in the glossary and no type")));
    assert_holds(&faults, known.len(), MIN_TYPES);
}
