//! Our own tables of what the RFCs ask of a shared cache and proxy (`tests/data/rfc*.yaml`).
//!
//! The routes have no words of their own about lifetimes, so that the RFC's rules alone
//! decide; they heed request directives, and nothing is remembered about an answer that
//! was not shareable, so that each step stands by itself. Below `/parts/` parts are kept.

use std::path::Path;

use e2e::rfc::{self, Stage, Table};
use e2e::setup::Setup;

fn tables() -> Vec<(String, Table)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
    let mut tables: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "yaml"))
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let text = std::fs::read_to_string(&path).unwrap();
            let table = Table::parse(&text).unwrap_or_else(|fault| panic!("{name}: {fault}"));
            (name, table)
        })
        .collect();
    tables.sort_by(|one, other| one.0.cmp(&other.0));
    tables
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_rule_of_the_tables_holds() {
    let tables = tables();
    let count: usize = tables.iter().map(|(_, table)| table.cases.len()).sum();
    assert!(count >= 310, "only {count} rules were read");
    let (stage, origin) = Stage::open().await;
    let gateway = Setup::default()
        .upstream("origin", &format!("{{targets: [\"http://{origin}\"]}}"))
        .top(
            "cache",
            "{inflight: {hit_for_miss: 0s}, backoff: {base: 0s, max: 0s}}",
        )
        .top(
            "defaults",
            "{request_directives: honor, statuses: [200, 403, 405, 414], store_post: true}",
        )
        .route("{name: parts, match: {path: /parts/*}, upstream: origin, trace: on, policy: {ranges: parts}}")
        .route("{name: site, upstream: origin, trace: on}")
        .start()
        .await;
    let faults = rfc::play(tables, gateway.address, &stage).await;
    assert!(
        faults.is_empty(),
        "{} of {count} rules do not hold:\n- {}",
        faults.len(),
        faults.join("\n- ")
    );
}
