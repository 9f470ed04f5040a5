//! TLS to origins: those that are not verified are named at every place (OT5), and what is told of
//! certificates.

use e2e::cli::{self, Ran};
use e2e::gateway::Gateway;
use e2e::setup::Setup;
use e2e::tls_origin::{Manner, TestCertificate, Validity};
use e2e::wait::{SOON, wait_for, within};

use crate::origin_tls::{APART, TRUSTING, failed, paths, setup};

const UNVERIFIED: &str = "{verify: off, insecure: \"a test of the harness\"}";

/// The date on which the certificates of the harness expire: 2100-01-01.
const EXPIRY: f64 = 4_102_444_800.0;

async fn run(command: &'static str, setup: &Setup) -> Ran {
    let (_dir, config) = setup.write();
    let config = config.to_str().unwrap().to_owned();
    let ran = tokio::task::spawn_blocking(move || cli::run(&[command, "-c", &config]));
    within("the command ends", SOON * 2, ran).await.unwrap()
}

#[tokio::test]
async fn to_trust_everybody_has_to_be_said_twice() {
    let tls = paths().await;
    let place = |setup: &Setup, key: &str| {
        let yaml = setup.yaml();
        let line = yaml.lines().position(|line| line.contains(key)).unwrap();
        let column = yaml.lines().nth(line).unwrap().find(key).unwrap();
        (line + 1, column + 1)
    };
    for (settings, key, words) in [
        ("{verify: off}", "verify", "insecure"),
        ("{verify: off, insecure: \"  \"}", "verify", "insecure"),
        ("{insecure: \"why\"}", "insecure", "verify: off"),
        ("{verify: \"no\"}", "verify", "off"),
        ("{verify: false}", "verify", "off"),
        ("{min_version: \"1.1\"}", "min_version", "1.2"),
        ("{cafile: ca.pem}", "cafile", "ca_file"),
    ] {
        let setup = setup(&tls, settings, "");
        let ran = run("validate", &setup).await;
        assert_eq!(ran.code, Some(2), "{settings}: {}", ran.output());
        let (line, column) = place(&setup, key);
        let said = ran.output();
        // At the value, or at a key that nobody knows.
        let at = [column, column + key.len() + 2]
            .map(|column| format!("lamina.yaml:{line}:{column}: upstreams.origin.tls"));
        let placed = at.iter().any(|at| said.contains(at));
        assert!(placed, "{settings}: none of {at:?}: {said}");
        assert!(said.contains(words), "{settings}: {said}");
    }
    let ran = run("validate", &setup(&tls, UNVERIFIED, "")).await;
    assert_eq!(ran.code, Some(0), "{}", ran.output());
    // What its files hold is checked, too.
    for (settings, words) in [
        ("{ca_file: none.pem}", "tls.ca_file"),
        ("{pins: [\"sha256/abc\"]}", "tls.pins"),
        ("{server_name: \"a b\"}", "tls.server_name"),
        ("{client: {cert: ca.pem, key: none.key}}", "tls.client"),
    ] {
        let ran = run("validate", &setup(&tls, settings, "")).await;
        assert_ne!(ran.code, Some(0), "{settings}: {}", ran.output());
        assert!(ran.output().contains(words), "{settings}: {}", ran.output());
        assert!(
            ran.output().contains("origin"),
            "{settings}: {}",
            ran.output()
        );
    }
}

async fn gauge(gateway: &Gateway, name: &str, upstream: &str) -> Option<f64> {
    let scrape = gateway.scrape().await;
    let labels = [("upstream", upstream)];
    scrape.has(name, &labels).then(|| scrape.sum(name, &labels))
}

#[tokio::test]
async fn an_upstream_that_is_not_verified_is_in_the_log_and_in_the_metrics() {
    let tls = paths().await;
    tls.front.change(|settings| {
        settings.certificate = TestCertificate::self_signed(&["elsewhere.example"]);
    });
    let verified = paths().await;
    let gateway = setup(&tls, UNVERIFIED, "")
        .upstream("verified", &verified.upstream("{ca_file: own.pem}", ""))
        .upstream("clear", &format!("\"{}\"", tls.origin.url()))
        .route("{name: verified, match: {path: /v/*}, upstream: verified}")
        .route("{name: clear, match: {path: /c/*}, upstream: clear}")
        .route("{name: site, upstream: origin}")
        .file("own.pem", verified.authority.pem())
        .start()
        .await;
    let said = gateway
        .logged("that nobody is verified", |line| {
            line.contains("not verified")
        })
        .await;
    for word in ["\"WARN\"", "\"origin\"", "a test of the harness"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    let told = gateway.log();
    let told = told.iter().filter(|line| line.contains("not verified"));
    assert_eq!(told.count(), 1, "once an hour");
    let (unverified, ends) = (
        "lamina_origin_tls_unverified",
        "lamina_origin_certificate_not_after_seconds",
    );
    assert_eq!(gauge(&gateway, unverified, "origin").await, Some(1.0));
    assert_eq!(gauge(&gateway, unverified, "verified").await, Some(0.0));
    assert_eq!(gauge(&gateway, unverified, "clear").await, None);
    for upstream in ["origin", "verified", "clear"] {
        assert_eq!(gauge(&gateway, ends, upstream).await, None, "{upstream}");
    }
    for path in ["/a", "/v/a", "/c/a"] {
        assert_eq!(gateway.client().get(path).await.text(), path);
    }
    assert_eq!(gauge(&gateway, ends, "origin").await, Some(EXPIRY));
    assert_eq!(gauge(&gateway, ends, "verified").await, Some(EXPIRY));
    assert_eq!(gauge(&gateway, ends, "clear").await, None);
}

#[tokio::test]
async fn the_expiry_is_that_of_the_last_handshake_and_the_first_of_all_targets() {
    let (one, two) = (paths().await, paths().await);
    let two_targets = format!(
        "{{targets: [\"{}\", \"{}\"], tls: {TRUSTING}{APART}}}",
        one.front.url(),
        two.front.url()
    );
    // Both authorities are trusted.
    let both = format!("{}{}", one.authority.pem(), two.authority.pem());
    let gateway = setup(&one, TRUSTING, "")
        .upstream("origin", &two_targets)
        .file("ca.pem", both)
        .start()
        .await;
    let name = "lamina_origin_certificate_not_after_seconds";
    for _ in 0..4 {
        assert_eq!(gateway.client().get("/a").await.status, 200);
    }
    assert_eq!(gauge(&gateway, name, "origin").await, Some(EXPIRY));
    two.front.change(|settings| {
        settings.certificate = two.authority.certify_for(&["localhost"], Validity::Past);
    });
    wait_for("the past one is seen", SOON, || async {
        // The other target answers, or an error does.
        gateway.client().get("/a").await;
        let first = gauge(&gateway, name, "origin").await?;
        (first < EXPIRY).then_some(())
    })
    .await;
    // 2021-01-01.
    assert_eq!(gauge(&gateway, name, "origin").await, Some(1_609_459_200.0));
}

#[tokio::test]
async fn a_doctor_looks_at_the_certificates_of_origins() {
    let tls = paths().await;
    let target = format!("localhost:{}", tls.front.address().port());
    let well = run("doctor", &setup(&tls, TRUSTING, "")).await;
    assert_eq!(well.code, Some(0), "{}", well.output());
    for words in [
        "origin, its targets",
        &target,
        "verified; it speaks HTTP/2",
        "for localhost, 127.0.0.1 and expires on Fri, 01 Jan 2100",
        "HEAD /: it answered 200",
    ] {
        assert!(well.stdout.contains(words), "{words}: {}", well.output());
    }
    let unverified = run("doctor", &setup(&tls, UNVERIFIED, "")).await;
    assert_eq!(unverified.code, Some(1), "{}", unverified.output());
    for words in [
        "FAILED  origins are not verified",
        "a test of the harness",
        "upstreams.origin.tls.verify, line ",
        // It looks what verification would say.
        "UnknownIssuer",
        "expires on Fri, 01 Jan 2100",
        "checks failed: upstream",
    ] {
        let said = unverified.output();
        assert!(said.contains(words), "{words}: {said}");
    }
    tls.front.change(|settings| {
        settings.certificate = tls.authority.certify_for(&["localhost"], Validity::Past);
    });
    let expired = run("doctor", &setup(&tls, TRUSTING, "")).await;
    assert_eq!(expired.code, Some(1), "{}", expired.output());
    for words in ["FAILED  TLS: ", "xpired", "expires on Fri, 01 Jan 2021"] {
        assert!(
            expired.stdout.contains(words),
            "{words}: {}",
            expired.output()
        );
    }
    tls.front.change(|settings| settings.manner = Manner::Stall);
    let slow = setup(&tls, TRUSTING, ", timeouts: {connect: 300ms}");
    let slow = run("doctor", &slow).await;
    assert_eq!(slow.code, Some(1), "{}", slow.output());
    let words = "FAILED  no TLS connection within 300ms";
    assert!(slow.stdout.contains(words), "{}", slow.output());
    // Each connection over HTTP/2 with a request begins with this.
    let data = tls.front.data();
    let prefaces = data.windows(5).filter(|begin| *begin == b"PRI *");
    assert_eq!(prefaces.count(), 1, "who is not verified gets no request");
    assert_eq!(tls.front.connections(), 5);
}

#[tokio::test]
async fn who_is_not_verified_is_still_bound_to_pins_and_to_its_key() {
    let tls = paths().await;
    let own = TestCertificate::self_signed(&["elsewhere.example"]);
    tls.front
        .change(|settings| settings.certificate = own.clone());
    let settings = |pin: &str| format!("{{verify: off, insecure: \"pinned\", pins: [\"{pin}\"]}}");
    let gateway = setup(&tls, &settings(&own.pin()), "").start().await;
    assert_eq!(gateway.client().get("/a").await.text(), "/a");
    let other = TestCertificate::self_signed(&["elsewhere.example"]);
    let gateway = setup(&tls, &settings(&other.pin()), "").start().await;
    let answer = gateway.client().get("/a").await;
    failed(&answer, "tls_certificate_error", "another key");
}
