//! Automatic certificates by records of the DNS, which a program changes.

use std::os::unix::fs::PermissionsExt;

use e2e::pebble::Pebble;
use e2e::wait::{SOON, wait_for};
use tempfile::TempDir;

use crate::acme::{Wanted, obtained, page};

/// A program that changes records of the test's name server, and notes what it was told.
pub struct RecordProgram {
    tools: TempDir,
    /// What an issuer of the configuration has beside its directory, for this program.
    pub issuer: String,
}

impl RecordProgram {
    pub fn of(pebble: &Pebble) -> Self {
        let tools = tempfile::tempdir().unwrap();
        let file = |name: &str| tools.path().join(name);
        let write = |name: &str, text: &str, mode| {
            std::fs::write(file(name), text).unwrap();
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(file(name), mode).unwrap();
        };
        write("hook", hook(), 0o700);
        let (names, log) = (pebble.names_url(), file("log"));
        let variables = format!("NAMES={names}\nLOG={}\n", log.display());
        write("variables", &variables, 0o600);
        let issuer = format!(
            ", challenge: {{dns-01: {{exec: [\"{}\"], environment_file: \"{}\", \
             resolvers: [\"{}\"]}}}}",
            file("hook").display(),
            file("variables").display(),
            pebble.dns
        );
        Self { tools, issuer }
    }

    /// What it was told until now, a line each time.
    pub fn told(&self) -> String {
        std::fs::read_to_string(self.tools.path().join("log")).unwrap_or_default()
    }

    /// Waits until a record is removed; returns what was told until then.
    pub async fn removed(&self) -> String {
        wait_for("the record is removed", SOON, || async {
            let told = self.told();
            told.contains("cleanup").then_some(told)
        })
        .await
    }
}

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

/// One record was made, and the same was removed.
pub fn was_made_and_removed(told: &str, name: &str) {
    let lines: Vec<_> = told.lines().collect();
    assert_eq!(lines.len(), 2, "{told}");
    let made = lines[0].strip_prefix("present ").expect(told);
    assert!(made.starts_with(&format!("{name} ")), "{told}");
    assert_eq!(lines[1].strip_prefix("cleanup "), Some(made));
}

#[tokio::test]
async fn a_wildcard_is_obtained_by_a_record_that_an_alias_leads_to() {
    let (origin, pebble) = (page().await, Pebble::start().await);
    let program = RecordProgram::of(&pebble);
    let alias = serde_json::json!({
        "host": "_acme-challenge.wild.acme.test.",
        "target": "wild.challenges.test.",
    });
    pebble.tell_names("/set-cname", &alias).await;
    let wanted = Wanted {
        names: &["*.wild.acme.test"],
        issuer: &program.issuer,
        ..Wanted::default()
    };
    let site = wanted.from(&pebble, &origin);
    let _gateway = site.setup.start().await;
    obtained(&pebble, site.secured, "any.wild.acme.test").await;
    was_made_and_removed(&program.removed().await, "wild.challenges.test");
}

#[tokio::test]
async fn a_record_that_is_not_shown_is_removed_and_the_issuer_is_not_asked() {
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
