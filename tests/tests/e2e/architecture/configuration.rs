//! What the types of the configuration may name, and who may name a transport or a store.

use std::collections::BTreeSet;

use lamina_cache::config::L2Config;
use lamina_cluster::bus::config::BusConfig;

use super::assert_holds;
use super::code_text::{after_word, names_word, path_at};
use super::imports::ImportTable;
use super::sources::{sources, stems};

/// The least that there is of each; far fewer means that a rule looks at nothing.
const MIN_CONFIG_PATHS: usize = 10;
const MIN_JUDGED_LINES: usize = 15_000;

/// `use crate::{a, b}` in `config` names modules; what it takes of them is their `config`.
#[test]
fn config_takes_nothing_but_config_types() {
    let table = ImportTable::of_the_project();
    let (mut faults, mut judged) = (Vec::new(), 0);
    for source in sources().iter().filter(|source| source.module == "config") {
        for module in table.rows.keys() {
            if table.for_all.contains(module) || module == "config" {
                continue;
            }
            for rest in after_word(&source.code, &format!("{module}::")) {
                judged += 1;
                if !rest.starts_with("config::") && !rest.starts_with("config}") {
                    let name = path_at(rest);
                    faults.push(format!("{}: {module}::{name}", source.path.display()));
                }
            }
        }
    }
    assert_holds(&faults, judged, MIN_CONFIG_PATHS);
}

/// A transport or a store is described beside its module, and named in one table; see "Where do I
/// add a transport, or a store?" in `ARCHITECTURE.md`.
#[test]
fn transports_and_stores_are_named_where_they_are_described() {
    let names: BTreeSet<_> = [BusConfig::TRANSPORTS, L2Config::STORES]
        .concat()
        .into_iter()
        .collect();
    // `acme` keeps its records in Redis by means of its own; `migrate` writes the words of a
    // configuration.
    let owners = ["acme", "bus", "cache", "migrate", "redis"];
    let (mut faults, mut judged) = (Vec::new(), 0);
    for source in sources() {
        if owners.contains(&source.module.as_str()) {
            continue;
        }
        judged += source.code.lines().count();
        for name in &names {
            for named in [
                format!(".{name}"),
                format!("\"{name}\""),
                format!("bus::{name}"),
                format!("l2::{name}"),
            ] {
                if names_word(&source.code, &named) {
                    faults.push(format!("{}: {named}", source.path.display()));
                }
            }
        }
    }
    assert_holds(&faults, judged, MIN_JUDGED_LINES);
    assert!(names.len() >= 4, "only {names:?} were looked for");
}

/// What the configuration of a module may name besides other configurations: modules that are pure,
/// with types or rules of which a value in the file is one.
const CONFIG_LEAVES: [&str; 12] = [
    "units",
    "pattern",
    "description",
    "redis_section",
    "http::cidr",
    "http::endpoint",
    "http::field_value",
    "http::forward",
    "http::path",
    "http::reference",
    "proxy::rules::template",
    "http::tls::names",
];

/// The configuration of a module imports types of configurations and leaves, and nothing that acts.
#[test]
fn configuration_types_are_leaves() {
    let is_leaf = |path: &str| {
        CONFIG_LEAVES.iter().any(|leaf| {
            let rest = path.strip_prefix(leaf);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        })
    };
    let (mut faults, mut judged, mut leaves) = (Vec::new(), 0, 0);
    for source in sources() {
        let stems = stems(&source.path);
        if is_leaf(&stems.join("::")) {
            leaves += 1;
            let acting = ["tokio::", "hyper::", "http_body::", "async fn "];
            let acting = acting.iter().filter(|word| source.code.contains(**word));
            faults.extend(acting.map(|word| format!("{}: {word}", source.path.display())));
        }
        // The module `config` reads the file and composes what the others have.
        if source.module == "config" || !stems.iter().any(|stem| stem == "config") {
            continue;
        }
        for path in source.paths() {
            judged += 1;
            if !is_leaf(&path) && !path.split("::").any(|part| part == "config") {
                faults.push(format!("{}: {path}", source.path.display()));
            }
        }
    }
    assert_holds(&faults, judged, 3 * MIN_CONFIG_PATHS);
    assert!(leaves >= CONFIG_LEAVES.len(), "only {leaves} leaves");
}
