//! What `validate` says of TLS: each mistake with the file, and with line and column where it
//! stands in the YAML.

use e2e::cli::{Ran, run};
use e2e::setup::write_config;
use e2e::tls::authority::{Authority, KeyKind, Order};

const YAML: &str = "\
version: 1
listeners:
  - address: \"127.0.0.1:0\"
    tls:
      certificates:
        - {cert: a.crt, key: a.key}
      #TLS
    #LISTENER
admin: {address: \"127.0.0.1:0\"}
upstreams:
  origin: http://127.0.0.1:9
routes:
  - {name: site, upstream: origin}
";

/// Validates the YAML beside some certificates.
fn validate(yaml: &str) -> Ran {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("authority");
    let write = |name: &str, content: &str| {
        std::fs::write(dir.path().join(name), content).unwrap();
    };
    for name in ["a", "b"] {
        let certificate = authority.server(&["a.example", "*.w.example"]);
        write(&format!("{name}.crt"), &certificate.pem);
        write(&format!("{name}.key"), &certificate.key);
    }
    let nameless = authority.make(&Order::server(&[]).key(KeyKind::P256));
    write("nameless.crt", &nameless.pem);
    write("nameless.key", &nameless.key);
    write("ca.pem", &authority.pem);
    write("clients.crl", &authority.revoke(&[]));
    write("tickets.key", &"x".repeat(32));
    write("short.key", "x");
    write("empty", "");
    let config = write_config(dir.path(), yaml);
    run(&["validate", "-c", config.to_str().unwrap()])
}

/// The YAML with these lines of TLS and of the listener.
fn with(tls: &str, listener: &str) -> String {
    YAML.replace("#TLS", tls).replace("#LISTENER", listener)
}

/// Where `needle` stands in `text`: line and column, from 1.
fn position(text: &str, needle: &str) -> String {
    let lines = text.lines().enumerate();
    let mut found = lines.filter_map(|(line, content)| Some((line, content.find(needle)?)));
    let (line, column) = found.next().unwrap_or_else(|| panic!("{needle} in {text}"));
    format!("lamina.yaml:{}:{}", line + 1, column + 1)
}

#[test]
fn everything_that_is_known_is_valid() {
    let tls = "\
default: a.crt
      min_version: \"1.3\"
      ciphers: [TLS13_AES_256_GCM_SHA384, TLS_AES_128_GCM_SHA256]
      groups: [x25519mlkem768, x25519, secp256r1, secp384r1]
      policies:
        - {names: [a.example, \"*.w.example\"], min_version: \"1.2\"}
        - {names: [x.w.example], client_auth: {mode: request, ca: ca.pem, crl: clients.crl, forward: off}}
      tickets: {enabled: true, rotate: 1h, keys: [tickets.key]}
      handshake_timeout: 3s
      max_handshakes: 7
      reload_interval: 0s
      keylog: off";
    let hsts = "hsts: {max_age: 365d, include_subdomains: true, preload: true}";
    let ran = validate(&with(tls, hsts));
    assert_eq!(ran.code, Some(0), "{}", ran.output());
}

#[test]
fn a_mistake_is_shown_where_it_stands() {
    let pair = "- {cert: a.crt, key: a.key}";
    // What is written instead, where the mistake stands, and a word of the message.
    let cases = [
        (with("strict_sni: maybe", ""), "maybe", "maybe"),
        (with("min_version: \"1.1\"", ""), "\"1.1\"", "1.1"),
        (with("cipers: []", ""), "cipers", "ciphers"),
        (with("policies: [{names: []}]", ""), "names: []", "no names"),
        (
            with("policies: [{names: [\"*\"]}]", ""),
            "\"*\"",
            "not the name",
        ),
        (
            with("policies: [{names: [\"10.0.0.1\"]}]", ""),
            "\"10.0.0.1\"",
            "not the name",
        ),
        (
            with("policies: [{names: [bücher.example]}]", ""),
            "bücher",
            "xn--",
        ),
        (
            with(
                "policies: [{names: [a.example]}, {names: [b.example, A.Example]}]",
                "",
            ),
            "A.Example",
            "another policy above",
        ),
        (
            with(
                "policies: [{names: [a.example], client_auth: {mode: need, ca: ca.pem}}]",
                "",
            ),
            "need",
            "require",
        ),
        (
            with("handshake_timeout: 0s", ""),
            "handshake_timeout",
            "expected",
        ),
        (with("max_handshakes: 0", ""), "max_handshakes", "expected"),
        (with("tickets: {rotate: 1ms}", ""), "rotate", "second"),
        (
            with("strict_sni: true\n      default: a.crt", ""),
            "default",
            "strict_sni",
        ),
        (
            with("", "redirect_to_https: on"),
            "redirect_to_https",
            "beside `tls`",
        ),
        (with("", "protocols: [http1, http1]"), "protocols", "twice"),
        (
            YAML.replace(pair, "[]")
                .replace("certificates:\n        []", "certificates: []"),
            "certificates",
            "no certificates",
        ),
        (YAML.replace(pair, "- {cert: a.crt}"), "- {cert", "`key`"),
        (YAML.replace(pair, "- {key: a.key}"), "- {key", "`cert`"),
        (YAML.replace(pair, "- {}"), "- {}", "`cert` and `key`"),
        (
            YAML.replace(pair, "- {dir: \".\", names: [a.example]}"),
            "names",
            "folder",
        ),
        (
            YAML.replace(pair, "- {cert: a.crt, key: a.key, names: [\"a b\"]}"),
            "\"a b\"",
            "not the name",
        ),
    ];
    let count = cases.len();
    for (yaml, place, word) in cases {
        let ran = validate(&yaml);
        assert_eq!(ran.code, Some(2), "{place}: {}", ran.output());
        let place = position(&yaml, place);
        // A finding may stand at the key or at its value.
        let (line, _) = place.rsplit_once(':').unwrap();
        assert!(
            ran.output().contains(&format!("{line}:")),
            "{place}: {}",
            ran.output()
        );
        assert!(ran.output().contains(word), "{place}: {}", ran.output());
    }
    assert_eq!(count, 21);
}

#[test]
fn clear_text_has_no_hsts_and_redirects_for_good() {
    let clear = YAML.replace(
        "    tls:\n      certificates:\n        - {cert: a.crt, key: a.key}\n      #TLS\n",
        "",
    );
    for (line, place, word) in [
        ("hsts: {max_age: 1d}", "hsts", "clear text"),
        ("redirect_to_https: {status: 302}", "status", "308"),
        ("redirect_to_https: {port: 0}", "port", "expected"),
        (
            "redirect_to_https: maybe",
            "redirect_to_https",
            "redirect_to_https",
        ),
    ] {
        let yaml = clear.replace("#LISTENER", line);
        let ran = validate(&yaml);
        assert_eq!(ran.code, Some(2), "{line}: {}", ran.output());
        let place = position(&yaml, place);
        let (place, _) = place.rsplit_once(':').unwrap();
        assert!(
            ran.output().contains(&format!("{place}:")),
            "{line}: {}",
            ran.output()
        );
        assert!(ran.output().contains(word), "{line}: {}", ran.output());
    }
    for line in [
        "redirect_to_https: on",
        "redirect_to_https: {port: 8443, status: 301}",
    ] {
        let ran = validate(&clear.replace("#LISTENER", line));
        assert_eq!(ran.code, Some(0), "{line}: {}", ran.output());
    }
}

#[test]
fn what_is_wrong_with_a_file_is_told_with_its_name() {
    let pair = |text: &str| YAML.replace("{cert: a.crt, key: a.key}", text);
    let auth = |text: &str| {
        let policy = format!("policies: [{{names: [a.example], client_auth: {{{text}}}}}]");
        with(&policy, "")
    };
    // The YAML, the key with its place, and words of the message.
    let cases: [(String, &str, &[&str]); 17] = [
        (
            pair("{cert: no.crt, key: a.key}"),
            ".certificates[0].cert",
            &["no.crt"],
        ),
        (
            pair("{cert: a.crt, key: no.key}"),
            ".certificates[0].key",
            &["no.key"],
        ),
        (
            pair("{cert: empty, key: a.key}"),
            ".certificates[0].cert",
            &["empty", "no certificate"],
        ),
        (
            pair("{cert: a.crt, key: empty}"),
            ".certificates[0].key",
            &["empty", "no private key"],
        ),
        (
            pair("{cert: a.key, key: a.key}"),
            ".certificates[0].cert",
            &["a.key", "certificate"],
        ),
        (
            pair("{cert: a.crt, key: b.key}"),
            ".certificates[0].key",
            &["a.crt", "b.key", "belong together"],
        ),
        (
            pair("{cert: nameless.crt, key: nameless.key}"),
            ".certificates[0].cert",
            &["nameless.crt", "names no host"],
        ),
        (pair("{dir: nowhere}"), ".certificates[0].dir", &["nowhere"]),
        (
            pair("{cert: a.crt, key: a.key, names: [a.example, stranger.test]}"),
            ".certificates[0].names[1]",
            &["a.crt", "stranger.test", "a.example, *.w.example"],
        ),
        (
            pair("{cert: a.crt, key: a.key, names: [\"*.example\"]}"),
            ".certificates[0].names[0]",
            &["*.example", "does not stand in it"],
        ),
        (
            with("default: b.crt", ""),
            ".default",
            &["b.crt", "none of"],
        ),
        (
            with("ciphers: [TLS13_AES_128_GCM_SHA256, RC4]", ""),
            ".ciphers[1]",
            &["RC4", "TLS13_AES_256_GCM_SHA384"],
        ),
        (
            with("groups: [sect163k1]", ""),
            ".groups[0]",
            &["sect163k1", "x25519mlkem768"],
        ),
        (
            with("tickets: {keys: [tickets.key, short.key]}", ""),
            ".tickets.keys[1]",
            &["short.key", "32"],
        ),
        (
            auth("ca: empty"),
            ".policies[0].client_auth.ca",
            &["a.example", "empty"],
        ),
        (
            auth("ca: ca.pem, crl: ca.pem"),
            ".policies[0].client_auth.crl",
            &["a.example", "ca.pem"],
        ),
        (
            with("policies: [{names: [a.example, a.exmaple]}]", ""),
            ".policies[0].names[1]",
            &["a.exmaple", "for nobody"],
        ),
    ];
    let count = cases.len();
    for (yaml, key, words) in cases {
        let ran = validate(&yaml);
        assert_eq!(ran.code, Some(2), "{words:?}: {}", ran.output());
        for word in words {
            assert!(ran.output().contains(word), "{word}: {}", ran.output());
        }
        let place = position(&yaml, &format!("{}:", last_key(key)));
        let (line, _) = place.rsplit_once(':').unwrap();
        let mut told = ran.stderr.lines();
        let told = told.find(|told| told.contains(&format!("{line}:")));
        let told = told.unwrap_or_else(|| panic!("{place}: {}", ran.output()));
        let key = format!(": listeners[0].tls{key}: ");
        assert!(told.contains(&key), "{key}: {told}");
        assert_eq!(ran.output().matches(&key).count(), 1, "{}", ran.output());
    }
    assert_eq!(count, 17);
}

/// The last key of a path, without its number.
fn last_key(path: &str) -> &str {
    let (_, last) = path.rsplit_once('.').unwrap();
    last.split('[').next().unwrap()
}

/// What keeps a gateway from its start is told in the same way as by `validate`.
#[test]
fn a_start_tells_the_place_too() {
    let dir = tempfile::tempdir().unwrap();
    let yaml = YAML.replace("a.crt", "nowhere.crt");
    let config = write_config(dir.path(), &yaml);
    let ran = run(&["run", "-c", config.to_str().unwrap()]);
    assert_eq!(ran.code, Some(2), "{}", ran.output());
    let place = "lamina.yaml:6:18: listeners[0].tls.certificates[0].cert: ";
    assert!(ran.output().contains(place), "{}", ran.output());
}

#[test]
fn suites_of_an_older_version_do_not_serve_a_newer_one() {
    let suites = "ciphers: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]";
    assert_eq!(validate(&with(suites, "")).code, Some(0));
    let ran = validate(&with(&format!("{suites}\n      min_version: \"1.3\""), ""));
    assert_eq!(ran.code, Some(2), "{}", ran.output());
    assert!(ran.output().contains("min_version"), "{}", ran.output());
}
