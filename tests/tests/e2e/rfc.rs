//! Our own tables of what the RFCs ask of a shared cache and proxy (`tests/data/rfc*.yaml`), over
//! every front.
//!
//! The routes have no words of their own about lifetimes, so that the RFC's rules alone
//! decide; they heed request directives, and nothing is remembered about an answer that
//! was not shareable, so that each step stands by itself. Below `/parts/` parts are kept.

use std::path::Path;

use e2e::attack::{http1, http1_bodies, http2, http2_floods};
use e2e::front::{Front, inapplicable};
use e2e::rfc::{self, Place, Stage, Table};
use e2e::setup::Setup;

/// Cases of all tables, at least.
const CASES: usize = 440;

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

/// The hosts of all cases, for a certificate: their own and those below them.
fn names(tables: &[(String, Table)]) -> Vec<String> {
    let hosts = tables.iter().flat_map(|(name, table)| {
        let numbers = 0..table.cases.len();
        numbers.map(move |number| format!("*.{}", rfc::host(name, number)))
    });
    hosts.chain(["*.test".to_owned()]).collect()
}

async fn every_rule_holds(front: Front) {
    let tables = tables();
    let count: usize = tables.iter().map(|(_, table)| table.cases.len()).sum();
    assert!(count >= CASES, "only {count} rules were read");
    let names = names(&tables);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (stage, origin) = Stage::open().await;
    let setup = Setup::default()
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
        .route("{name: site, upstream: origin, trace: on}");
    let fronted = front.start(setup, &names).await;
    let door = fronted.messages().await;
    let address = door.address;
    let outcome = rfc::play(tables, Place { front, address }, &stage).await;
    for case in &outcome.inapplicable {
        eprintln!("{} cannot apply: {case}", front.name());
    }
    assert!(
        outcome.faults.is_empty(),
        "{} of {count} rules do not hold over {}:\n- {}",
        outcome.faults.len(),
        front.name(),
        outcome.faults.join("\n- ")
    );
    eprintln!("{} rules hold over {}", outcome.judged, front.name());
    assert_eq!(outcome.judged + outcome.inapplicable.len(), count);
    assert!(outcome.judged >= CASES - inapplicable::ALL.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_rule_of_the_tables_holds() {
    every_rule_holds(Front::Clear).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_rule_of_the_tables_holds_over_tls_by_http1() {
    every_rule_holds(Front::TlsHttp1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_rule_of_the_tables_holds_over_tls_by_http2() {
    every_rule_holds(Front::TlsHttp2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_rule_of_the_tables_holds_over_http3() {
    every_rule_holds(Front::Http3).await;
}

#[test]
fn what_cannot_apply_is_a_short_list_with_reasons() {
    let listed = inapplicable::ALL;
    assert_eq!(listed.len(), 10, "who adds to the list says so here");
    for one in listed {
        assert!(!one.why.is_empty() && !one.over.is_empty(), "{}", one.what);
    }
    // What is written as bytes and frames runs over TLS as in clear text.
    let frames: usize = http2::TABLES.into_iter().map(<[_]>::len).sum();
    let floods = http2_floods::STOPPED.len() + http2_floods::BORNE.len();
    let attacks = http1::heads().len() + http1_bodies::bodies().len() + frames + floods;
    eprintln!("{attacks} kinds of attacks over TLS");
    assert!(attacks >= 200, "{attacks} kinds of attacks");
}
