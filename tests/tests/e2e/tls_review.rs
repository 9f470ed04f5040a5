//! What `validate` and `doctor` say of certificates that can be used and are risky.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use e2e::cli::{Ran, run};
use e2e::pebble::Pebble;
use e2e::setup::write_config;
use e2e::tls::authority::{Authority, Order};
use e2e::wait::{SOON, wait_for};
use rustix::fs::{CWD, Mode, mkfifoat};
use tempfile::TempDir;

use crate::acme::{SHOP, Wanted, obtained, page};

const SERVER: &str = "basicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\nsubjectAltName=";
const AUTHORITY: &str = "basicConstraints=critical,CA:TRUE\n";
const ISSUER_IS_AT: &str = "\nauthorityInfoAccess=caIssuers;URI:http://issuer.example/a.der";

/// Certificates that openssl makes.
struct Workshop(TempDir);

impl Workshop {
    fn new() -> Self {
        let workshop = Self(tempfile::tempdir().unwrap());
        let root = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 90 -subj /CN=root -keyout root.key -out root.crt";
        workshop.openssl(root);
        workshop
    }

    fn dir(&self) -> &Path {
        self.0.path()
    }

    fn openssl(&self, arguments: &str) {
        let ran = Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(self.dir())
            .output()
            .expect("openssl is installed (make test-install)");
        let said = String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success(), "openssl {arguments}: {said}");
    }

    /// Makes `NAME.crt` and `NAME.key`, signed by `issuer`, with these extensions.
    fn make(&self, name: &str, issuer: &str, extensions: &str, key: &str, how: &str) {
        fs::write(self.dir().join("extensions"), extensions).unwrap();
        self.openssl(&format!(
            "req -newkey {key} -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr"
        ));
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA {issuer}.crt -CAkey {issuer}.key -CAcreateserial -extfile extensions -out {name}.crt {how}"
        ));
    }

    /// A certificate for the host `NAME.example`.
    fn server(&self, name: &str, issuer: &str, more: &str, how: &str) {
        let extensions = format!("{SERVER}DNS:{name}.example{more}");
        self.make(name, issuer, &extensions, P256, how);
    }

    /// Appends the certificates of others to that of a server.
    fn append(&self, name: &str, others: &[&str]) {
        let mut all = self.text(name);
        all.extend(others.iter().map(|name| self.text(name)));
        fs::write(self.dir().join(format!("{name}.crt")), all).unwrap();
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.dir().join(format!("{name}.crt"))).unwrap()
    }
}

const P256: &str = "ec -pkeyopt ec_paramgen_curve:prime256v1";
const DAYS: &str = "-days 60";

/// A listener with these certificates, each in a line of its own, and these routes.
fn yaml(certificates: &[&str], listener: &str, routes: &[&str]) -> String {
    let mut text =
        format!("version: 1\nlisteners:\n  - address: \"127.0.0.1:0\"\n{listener}    tls:\n");
    text.push_str("      certificates:\n");
    for name in certificates {
        text.push_str(&format!(
            "        - {{cert: {name}.crt, key: {name}.key}}\n"
        ));
    }
    text.push_str("admin: {address: \"127.0.0.1:0\"}\n");
    text.push_str("upstreams: {origin: \"http://127.0.0.1:9\"}\nroutes:\n");
    for (n, route) in routes.iter().enumerate() {
        text.push_str(&format!("  - {{name: r{n}, upstream: origin{route}}}\n"));
    }
    text
}

fn lamina(command: &str, dir: &Path, yaml: &str) -> Ran {
    let config = write_config(dir, yaml);
    run(&[command, "-c", config.to_str().unwrap()])
}

/// Certificates of which each but the first is risky in its own way, with the words that say so.
fn risky(workshop: &Workshop) -> Vec<(&'static str, &'static str)> {
    let make = |name, issuer, more, how| workshop.server(name, issuer, more, how);
    workshop.make("middle", "root", AUTHORITY, P256, DAYS);
    workshop.make("upper", "root", AUTHORITY, P256, DAYS);
    workshop.make("lower", "upper", AUTHORITY, P256, DAYS);
    workshop.make("weak", "root", AUTHORITY, "rsa:1024", DAYS);
    make("good", "middle", ISSUER_IS_AT, DAYS);
    workshop.append("good", &["middle"]);
    make("alone", "middle", ISSUER_IS_AT, DAYS);
    make("mixed", "lower", "", DAYS);
    workshop.append("mixed", &["upper", "lower"]);
    make("stranger", "middle", "", DAYS);
    workshop.append("stranger", &["middle", "lower"]);
    make("over", "root", "", "-days -1");
    make("small", "weak", "", DAYS);
    workshop.append("small", &["weak"]);
    make("broken", "root", "", "-days 60 -sha1");
    let client =
        "basicConstraints=CA:FALSE\nextendedKeyUsage=clientAuth\nsubjectAltName=DNS:client.example";
    workshop.make("client", "root", client, P256, DAYS);
    let names: String = (0..200)
        .map(|n| format!(",DNS:n{n}.long.example"))
        .collect();
    make("long", "root", &names, DAYS);
    let authority =
        format!("{AUTHORITY}extendedKeyUsage=serverAuth\nsubjectAltName=DNS:own.example");
    workshop.make("own", "root", &authority, P256, DAYS);
    make("stapled", "root", "\ntlsfeature=status_request", DAYS);
    vec![
        ("alone", "CN=middle is missing"),
        ("mixed", "not in order"),
        ("stranger", "CN=lower in the file is no issuer"),
        ("over", "has expired"),
        ("small", "1024 bits"),
        ("broken", "SHA-1"),
        ("client", "serverAuth"),
        ("long", "round trip"),
        ("stapled", "must-staple"),
        ("own", "CA:TRUE"),
    ]
}

#[test]
fn a_risky_certificate_is_told_with_its_place_and_a_good_one_is_not() {
    let workshop = Workshop::new();
    let cases = risky(&workshop);
    assert_eq!(cases.len(), 10);
    let all = ["good"]
        .into_iter()
        .chain(cases.iter().map(|(name, _)| *name));
    let all: Vec<_> = all.collect();
    let text = yaml(&all, "", &[""]);
    let ran = lamina("validate", workshop.dir(), &text);
    assert_eq!(ran.code, Some(0), "{}", ran.output());
    for (n, (name, words)) in cases.iter().enumerate() {
        // The good one stands in line 6.
        let place = format!(
            "lamina.yaml:{}:11: listeners[0].tls.certificates[{}]",
            7 + n,
            n + 1
        );
        let mut lines = ran.stderr.lines();
        let line = lines.find(|line| line.contains(&place));
        let line = line.unwrap_or_else(|| panic!("{name}: {}", ran.stderr));
        assert!(line.starts_with("warning: "), "{line}");
        assert!(line.contains(&format!("{name}.crt: ")), "{line}");
        assert!(line.contains(words), "{name}: {line}");
    }
    let told = ran.stderr.matches("warning: ").count();
    assert_eq!(told, cases.len(), "each is told once: {}", ran.stderr);
    let ran = lamina("doctor", workshop.dir(), &text);
    assert_eq!(ran.code, Some(1), "one has expired: {}", ran.output());
    for (name, words) in &cases {
        let mut lines = ran.stdout.lines();
        let line = lines.find(|line| line.contains(&format!("{name}.crt ")));
        let line = line.unwrap_or_else(|| panic!("{name}: {}", ran.stdout));
        assert!(line.contains(words), "{name}: {line}");
        let mark = match *name {
            "over" => "FAILED",
            _ => "WARNING",
        };
        assert!(line.contains(mark), "{line}");
    }
    let good = ran.stdout.lines().find(|line| line.contains("good.crt "));
    assert!(good.unwrap().contains("for good.example; it expires on"));
}

/// A pair of a folder that can't be used keeps no other from use, and is told: also one that nobody
/// can read to its end.
#[test]
fn what_is_not_used_of_a_folder_is_told() {
    let workshop = Workshop::new();
    workshop.server("good", "root", "", DAYS);
    workshop.server("half", "root", "", DAYS);
    let half = workshop.text("half");
    let folder = workshop.dir().join("folder");
    fs::create_dir(&folder).unwrap();
    let place = |name: &str| folder.join(name);
    let copy = |from: &str, to: &str| {
        fs::copy(workshop.dir().join(from), place(to)).unwrap();
    };
    for (to, from) in [("good", "good"), ("half", "half"), ("other", "good")] {
        copy(&format!("{from}.crt"), &format!("{to}.crt"));
        copy(&format!("{from}.key"), &format!("{to}.key"));
    }
    fs::write(place("half.crt"), &half[..half.len() / 2]).unwrap();
    copy("half.key", "other.key");
    copy("good.crt", "alone.crt");
    copy("good.key", "pipe.key");
    mkfifoat(CWD, place("pipe.crt"), Mode::RUSR | Mode::WUSR).unwrap();
    let text = yaml(&["good"], "", &[""]);
    let text = text.replace("{cert: good.crt, key: good.key}", "{dir: folder}");
    let (validate, doctor) = (
        lamina("validate", workshop.dir(), &text),
        lamina("doctor", workshop.dir(), &text),
    );
    assert_eq!(validate.code, Some(0), "{}", validate.output());
    for words in [
        "half.crt: not a certificate: it ends in the middle of a section",
        "other.crt and ",
        "alone.key: No such file",
        "pipe.crt: it is no regular file",
    ] {
        let warned = |line: &&str| line.starts_with("warning: ") && line.contains(words);
        let line = validate.stderr.lines().find(warned);
        let line = line.unwrap_or_else(|| panic!("{words}: {}", validate.stderr));
        assert!(line.contains("lamina.yaml:6:"), "{line}");
        let mut lines = doctor.stdout.lines();
        let line = lines.find(|line| line.contains(words) && line.contains("WARNING"));
        assert!(line.is_some(), "{words}: {}", doctor.stdout);
    }
    let told = validate.stderr.matches("warning: ").count();
    assert_eq!(told, 4, "each is told once: {}", validate.stderr);
}

#[test]
fn a_list_of_revoked_certificates_that_is_overdue_is_told() {
    let workshop = Workshop::new();
    workshop.server("good", "root", "", DAYS);
    let clients = Authority::new("clients");
    let hour = Duration::from_secs(3_600);
    let now = SystemTime::now();
    fs::write(workshop.dir().join("ca.pem"), &clients.pem).unwrap();
    let policy = "      policies: [{names: [good.example], client_auth: {mode: require, ca: ca.pem, \
                  crl: clients.crl}}]\nadmin:";
    let text = yaml(&["good"], "", &[""]).replace("admin:", policy);
    for (next, told) in [(now + hour, 0), (now - hour, 1)] {
        let list = clients.revoke_until(&[], next);
        fs::write(workshop.dir().join("clients.crl"), list).unwrap();
        for command in ["validate", "doctor"] {
            let ran = lamina(command, workshop.dir(), &text);
            let said = ran.output();
            assert_eq!(said.matches("another list for").count(), told, "{said}");
        }
    }
}

#[test]
fn the_last_third_of_a_life_is_told() {
    let workshop = Workshop::new();
    let authority = Authority::new("authority");
    let day = Duration::from_secs(86_400);
    let (begin, now) = (SystemTime::now() - 50 * day, SystemTime::now());
    for (name, left, told) in [("early", 27, 0), ("late", 20, 1)] {
        let order = Order::server(&["a.example"]).since(begin);
        let certificate = authority.make(&order.until(now + left * day));
        let write = |end: &str, text: &str| {
            fs::write(workshop.dir().join(format!("{name}.{end}")), text).unwrap();
        };
        write("crt", &certificate.pem);
        write("key", &certificate.key);
        let ran = lamina("validate", workshop.dir(), &yaml(&[name], "", &[""]));
        assert_eq!(ran.code, Some(0), "{}", ran.output());
        let count = ran.stderr.matches("a third of its life").count();
        assert_eq!(count, told, "{name}: {}", ran.stderr);
    }
}

#[test]
fn hosts_without_certificate_and_certificates_without_route_are_told() {
    let workshop = Workshop::new();
    workshop.server("a", "root", ",DNS:*.w.example", DAYS);
    workshop.server("idle", "root", "", DAYS);
    let routes = [
        ", match: {host: A.example}",
        ", match: {host: [x.w.example, nobody.example]}",
        ", match: {host: \"*.w.example\"}",
    ];
    let text = yaml(&["a", "idle"], "", &routes);
    let ran = lamina("validate", workshop.dir(), &text);
    assert_eq!(ran.code, Some(0), "{}", ran.output());
    for words in [
        "lamina.yaml:7:11: listeners[0].tls.certificates[1]: ",
        "no route serves one of its names (idle.example)",
        "routes[1].match.host[1]: no listener with TLS has a certificate for nobody.example",
    ] {
        assert!(ran.stderr.contains(words), "{words}: {}", ran.stderr);
    }
    assert_eq!(ran.stderr.matches("warning: ").count(), 2, "{}", ran.stderr);
    let ran = lamina("doctor", workshop.dir(), &text);
    for words in ["(idle.example)", "certificate for nobody.example"] {
        assert!(ran.stdout.contains(words), "{words}: {}", ran.stdout);
    }
    // A route for all hosts serves every name.
    let ran = lamina("validate", workshop.dir(), &yaml(&["a", "idle"], "", &[""]));
    assert_eq!(ran.stderr.matches("warning: ").count(), 0, "{}", ran.stderr);
}

#[test]
fn doctor_says_what_http3_needs_of_the_dns_and_of_the_kernel() {
    let workshop = Workshop::new();
    workshop.server("a", "root", "", DAYS);
    let h3 = "    protocols: [http1, http2, http3]\n";
    let doctor = |listener: &str| lamina("doctor", workshop.dir(), &yaml(&["a"], listener, &[""]));
    let ran = doctor(&format!("{h3}    alt_svc: {{port: 443}}\n"));
    assert!(
        ran.stdout.contains("a.example. HTTPS 1 . alpn=\"h3,h2\""),
        "{}",
        ran.stdout
    );
    let granted: usize = fs::read_to_string("/proc/sys/net/core/rmem_max")
        .map_or(0, |text| text.trim().parse().unwrap());
    let line = ran.stdout.lines().find(|line| line.contains("UDP buffer"));
    let line = line.unwrap_or_else(|| panic!("{}", ran.stdout));
    assert_eq!(line.contains("WARNING"), granted < 4 << 20, "{line}");
    assert!(
        granted == 0 || line.contains(&granted.min(4 << 20).to_string()),
        "{line}"
    );
    let ran = doctor(&format!("{h3}    alt_svc: {{port: 8443}}\n"));
    // Where the name has something in front, a point would mean a name that has no address.
    let other_port = "_8443._https.a.example. HTTPS 1 a.example. alpn=\"h3,h2\"";
    assert!(ran.stdout.contains(other_port), "{}", ran.stdout);
    let ran = doctor("");
    assert!(!ran.stdout.contains("HTTPS 1"), "{}", ran.stdout);
}

#[tokio::test]
async fn doctor_knows_obtained_certificates_and_makes_no_storage() {
    let (origin, pebble) = (page().await, Pebble::start().await);
    let site = Wanted::default().from(&pebble, &origin);
    let (dir, config) = site.setup.write();
    let doctor = || {
        let config = config.to_str().unwrap().to_owned();
        tokio::task::spawn_blocking(move || run(&["doctor", "-c", &config]))
    };
    let before = doctor().await.unwrap();
    assert!(
        !site.store.path().join("acme").exists(),
        "a check makes nothing"
    );
    let told = format!("not obtained yet for 1 names: {SHOP}");
    assert!(before.stdout.contains(&told), "{}", before.stdout);
    let gateway = e2e::gateway::Gateway::start(dir, &config, &[]).await;
    obtained(&pebble, site.secured, SHOP).await;
    let ran = wait_for("the certificate is stored", SOON, || async {
        let ran = doctor().await.unwrap();
        ran.stdout
            .contains(&format!("for {SHOP}; it expires"))
            .then_some(ran)
    })
    .await;
    assert!(ran.stdout.contains("acme: pebble"), "{}", ran.stdout);
    drop(gateway);
}
