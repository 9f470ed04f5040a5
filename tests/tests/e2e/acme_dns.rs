//! Automatic certificates by records of the DNS, which a program changes.

use e2e::pebble::Pebble;
use e2e::wait::{SOON, wait_for};

use crate::acme::{Wanted, obtained, page};

/// A program that changes records of the test's name server, and notes what it was told.
fn hook() -> &'static str {
    r#"#!/bin/sh
set -e
echo "$1 $2 $3" >> "$LOG"
case "$1" in
  present) path=set-txt ;;
  cleanup) path=clear-txt ;;
esac
curl -sf -X POST "$NAMES/$path" -d "{\"host\": \"$2.\", \"value\": \"$3\"}"
"#
}

#[tokio::test]
async fn a_wildcard_is_obtained_by_a_record_that_an_alias_leads_to() {
    use std::os::unix::fs::PermissionsExt;
    let (origin, pebble) = (page().await, Pebble::start().await);
    let tools = tempfile::tempdir().unwrap();
    let file = |name: &str| tools.path().join(name);
    let write = |name: &str, text: &str, mode| {
        std::fs::write(file(name), text).unwrap();
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(file(name), mode).unwrap();
    };
    write("hook", hook(), 0o700);
    let log = file("log");
    let variables = format!("NAMES={}\nLOG={}\n", pebble.names_url(), log.display());
    write("variables", &variables, 0o600);
    let alias = serde_json::json!({
        "host": "_acme-challenge.wild.acme.test.",
        "target": "wild.challenges.test.",
    });
    pebble.tell_names("/set-cname", &alias).await;
    let issuer = format!(
        ", challenge: {{dns-01: {{exec: [\"{}\"], environment_file: \"{}\", resolvers: [\"{}\"]}}}}",
        file("hook").display(),
        file("variables").display(),
        pebble.dns
    );
    let wanted = Wanted {
        names: &["*.wild.acme.test"],
        issuer: &issuer,
        ..Wanted::default()
    };
    let site = wanted.from(&pebble, &origin);
    let _gateway = site.setup.start().await;
    obtained(&pebble, site.secured, "any.wild.acme.test").await;
    let said = wait_for("the record is removed", SOON, || async {
        let said = std::fs::read_to_string(&log).unwrap();
        said.contains("cleanup").then_some(said)
    })
    .await;
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), 2, "{said}");
    assert!(
        lines[0].starts_with("present wild.challenges.test "),
        "{said}"
    );
    assert_eq!(
        lines[0].trim_start_matches("present"),
        lines[1].trim_start_matches("cleanup")
    );
}

#[tokio::test]
async fn a_record_that_is_not_shown_is_removed_and_the_issuer_is_not_asked() {
    use std::os::unix::fs::PermissionsExt;
    let (origin, pebble) = (page().await, Pebble::start().await);
    let tools = tempfile::tempdir().unwrap();
    let log = tools.path().join("log");
    let hook = tools.path().join("hook");
    let text = format!("#!/bin/sh\necho \"$1\" >> {}\n", log.display());
    std::fs::write(&hook, text).unwrap();
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o700)).unwrap();
    let issuer = format!(
        ", challenge: {{dns-01: {{exec: [\"{}\"], propagation: 1s, resolvers: [\"{}\"]}}}}",
        hook.display(),
        pebble.dns
    );
    let wanted = Wanted {
        issuer: &issuer,
        ..Wanted::default()
    };
    let site = wanted.from(&pebble, &origin);
    let gateway = site.setup.start().await;
    let line = gateway
        .logged("the reason", |line| {
            line.contains("a certificate was not obtained")
        })
        .await;
    assert!(line.contains("do not show the record"), "{line}");
    wait_for("the record is removed", SOON, || async {
        let said = std::fs::read_to_string(&log).unwrap();
        said.contains("present\ncleanup\n").then_some(())
    })
    .await;
    assert!(
        !pebble.log().contains("POST /chalZ/"),
        "no challenge was begun"
    );
}
