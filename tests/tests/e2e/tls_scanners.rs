//! What scanners of others say of a listener as it is by default (edge.md, 6): sslyze against
//! Mozilla's profile "intermediate", sslscan and testssl.sh. It has a certificate for ECDSA and one
//! for RSA, and speaks HTTP/1, HTTP/2 and HTTP/3.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::tls::authority::{Authority, KeyKind, Order};
use e2e::tools;
use e2e::wait::within;
use tokio::process::Command;

const NAME: &str = "localhost";
/// testssl waits for what never comes, part by part.
const PATIENCE: Duration = Duration::from_secs(400);

struct ScannedSite {
    gateway: Gateway,
    _origin: Origin,
}

impl ScannedSite {
    async fn start() -> Self {
        let authority = Authority::new("authority");
        let ecdsa = authority.server(&[NAME]);
        let rsa = authority.make(&Order::server(&[NAME]).key(KeyKind::Rsa2048));
        let origin = Origin::pages(|_| Reply::fresh("page")).await;
        let pairs = "[{cert: ecdsa.crt, key: ecdsa.key}, {cert: rsa.crt, key: rsa.key}]";
        let gateway = Setup::new(&origin)
            .pair("ecdsa", &ecdsa)
            .pair("rsa", &rsa)
            .file("ca.pem", authority.pem.clone())
            .listener("protocols", "[http1, http2, http3]")
            .listener("hsts", "{max_age: 365d}")
            .listener(
                "tls",
                &format!("{{certificates: {pairs}, default: ecdsa.crt}}"),
            )
            .start()
            .await;
        Self {
            gateway,
            _origin: origin,
        }
    }

    fn target(&self) -> String {
        format!("{NAME}:{}", self.gateway.address.port())
    }
}

/// Runs a scanner to its end. None where it is not here.
async fn scanned(program: &str, arguments: &[&str]) -> Option<Output> {
    let run = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = within(program, PATIENCE, run).await.ok();
    // 127 is what a shell says of a program that is missing.
    let output = output.filter(|output| output.status.code() != Some(127));
    if output.is_none() {
        tools::is_missing(program, "a scan of a TLS listener");
    }
    output
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn sslyze_finds_the_profile_intermediate_kept() {
    let site = ScannedSite::start().await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scanners/sslyze.sh");
    let authority = site.gateway.dir().join("ca.pem");
    let authority = format!("--certinfo_ca_file={}", authority.display());
    let arguments = [
        "--mozilla_config=intermediate",
        "--certinfo",
        &authority,
        "--early_data",
        "--resum",
        &site.target(),
    ];
    let Some(scan) = scanned(script.to_str().unwrap(), &arguments).await else {
        return;
    };
    let text = text(&scan);
    assert!(scan.status.success(), "{text}");
    assert!(text.contains("OK - Compliant."), "{text}");
    // A session is resumed by a ticket alone, since the gateway keeps nothing for an id; and sslyze
    // takes a resumed session for a new one if it comes with a fresh ticket, as it does here.
    let resumption = |how: &str| {
        let mut lines = text.lines();
        let line = lines.find(|line| line.trim_start().starts_with(how));
        line.unwrap_or_else(|| panic!("{how}: {text}")).to_owned()
    };
    for how in ["With TLS Tickets:", "With Session IDs:"] {
        let told = resumption(how);
        assert!(told.contains("NOT SUPPORTED (0 successful"), "{told}");
    }
}

#[tokio::test]
async fn sslscan_finds_nothing_old_or_weak() {
    let site = ScannedSite::start().await;
    let Some(scan) = scanned("sslscan", &["--no-colour", &site.target()]).await else {
        return;
    };
    let text = text(&scan);
    assert!(scan.status.success(), "{text}");
    let word = |line: &str, n: usize| line.split_whitespace().nth(n).unwrap_or("").to_owned();
    for (version, state) in [
        ("SSLv2", "disabled"),
        ("SSLv3", "disabled"),
        ("TLSv1.0", "disabled"),
        ("TLSv1.1", "disabled"),
        ("TLSv1.2", "enabled"),
        ("TLSv1.3", "enabled"),
    ] {
        let line = text.lines().find(|line| word(line, 0) == version);
        assert_eq!(
            word(line.unwrap_or_default(), 1),
            state,
            "{version}: {text}"
        );
    }
    let is_suite = |line: &&str| line.starts_with("Accepted ") || line.starts_with("Preferred ");
    let suites: Vec<String> = text
        .lines()
        .filter(is_suite)
        .map(|line| word(line, 4))
        .collect();
    assert_eq!(suites.len(), 9, "{text}");
    for suite in suites {
        let authenticated = suite.contains("GCM") || suite.contains("CHACHA20_POLY1305");
        let authenticated = authenticated || suite.contains("CHACHA20-POLY1305");
        let secret = suite.starts_with("TLS_") || suite.starts_with("ECDHE-");
        assert!(authenticated && secret, "{suite}: {text}");
    }
    let vulnerable = |line: &&str| line.contains("vulnerable") && !line.contains("not vulnerable");
    assert_eq!(text.lines().find(vulnerable), None, "{text}");
}

/// Has testssl look at these parts (all of them if none are named). Its report, in which nothing is bad.
/// None where it is not here.
async fn testssl(parts: &[&str]) -> Option<String> {
    let site = ScannedSite::start().await;
    let target = site.target();
    let authority = site.gateway.dir().join("ca.pem").display().to_string();
    let usual = ["--quiet", "--color", "0", "--warnings", "batch"];
    let trusting = ["--add-ca", &authority];
    let arguments = [&usual[..], &trusting, parts, &[&target]].concat();
    let text = text(&scanned("testssl", &arguments).await?);
    let bad = [
        "VULNERABLE",
        "WEAK",
        "NOT ok",
        "potentially",
        "not tested",
        "Test failed",
    ];
    // The certificates are a test's, and of suites that are all good the client's favourite is taken.
    let borne = [
        "neither CRL nor OCSP URI",
        "Serial ",
        "Has server cipher order?",
    ];
    let is_judged = |line: &&str| !borne.iter().any(|words| line.contains(words));
    for line in text.lines().filter(is_judged) {
        assert!(
            !bad.iter().any(|word| line.contains(word)),
            "{line}\n{text}"
        );
    }
    Some(text)
}

/// The protocols and the known weaknesses alone: the rest takes minutes, and is what sslyze and
/// sslscan look at.
#[tokio::test]
async fn testssl_finds_no_weakness() {
    let Some(text) = testssl(&["-p", "-U"]).await else {
        return;
    };
    let good = text.lines().filter(|line| line.contains("(OK)")).count();
    assert!(good >= 15, "only {good} lines are good:\n{text}");
}

#[tokio::test]
#[ignore = "takes minutes; nothing that the other scanners do not look at"]
async fn testssl_finds_nothing_weak_in_all_that_it_looks_at() {
    let Some(text) = testssl(&[]).await else {
        return;
    };
    for part in [
        "server defaults",
        "vulnerabilities",
        "client simulations",
        "Done",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}
