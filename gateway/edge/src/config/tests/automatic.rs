//! Certificates that are obtained automatically.

use super::*;

/// A valid file with an automatic certificate for these names; `acme` begins at line 12.
fn obtained(source: &str, acme: &str) -> String {
    let listener = format!(
        "  - address: 127.0.0.1:8080\n  - address: 127.0.0.1:8443\n    tls: {{ certificates: [{source}] }}\n"
    );
    file(acme).replace("  - address: 127.0.0.1:8080\n", &listener)
}

const LETS_ENCRYPT: &str = "acme:\n  storage: certificates\n  issuers:\n    letsencrypt: { directory: \"https://acme.example/dir\", agree_to_terms: true }\n";

#[test]
fn an_automatic_certificate_is_read() {
    let text = obtained(
        "{ acme: letsencrypt, names: [shop.example.com] }",
        LETS_ENCRYPT,
    );
    let config = read(&text).unwrap();
    let tls = config.listeners[1].tls.as_ref().unwrap();
    let issuers = tls.certificates[0].acme.as_ref().unwrap();
    assert_eq!(issuers.as_slice(), ["letsencrypt"]);
    let acme = config.acme.unwrap();
    let folder = crate::acme::config::AcmeStorageConfig::Folder("certificates".into());
    assert_eq!(acme.storage, folder);
}

#[test]
fn a_wildcard_needs_the_challenge_of_the_dns() {
    let text = obtained(
        "{ acme: letsencrypt, names: [example.com, \"*.example.com\"] }",
        LETS_ENCRYPT,
    );
    says(
        &text,
        "5:69: listeners[1].tls.certificates[0].names[1]: *.example.com is a wildcard",
    );
    let dns = "agree_to_terms: true, challenge: { dns-01: { exec: [./hook] } }, key: both";
    assert!(read(&text.replace("agree_to_terms: true", dns)).is_ok());
}

#[test]
fn what_an_automatic_certificate_lacks_is_told() {
    let source = "{ acme: letsencrypt, names: [shop.example.com] }";
    let whole = obtained(source, LETS_ENCRYPT);
    for (given, instead, start) in [
        (
            "storage: certificates",
            "storage: redis\n  seal_key: 0123456789abcdef",
            "14:12: acme.storage: `cache.l2` has no Redis",
        ),
        (
            "acme: letsencrypt,",
            "acme: [letsencrypt, zerossl],",
            "5:49: listeners[1].tls.certificates[0].acme[1]: no issuer is named `zerossl`; expected `letsencrypt`",
        ),
        (
            ", agree_to_terms: true",
            "",
            "16:5: acme.issuers.letsencrypt.agree_to_terms: the issuer gives out nothing",
        ),
        (
            "https://acme.example/dir",
            "http://acme.example/dir",
            "16:31: acme.issuers.letsencrypt.directory: \"http://acme.example/dir\" is not the URL",
        ),
        (
            ", names: [shop.example.com]",
            "",
            "5:27: listeners[1].tls.certificates[0].names: no names",
        ),
        (
            "acme: letsencrypt,",
            "acme: letsencrypt, dir: x,",
            "5:48: listeners[1].tls.certificates[0].dir: given beside `acme`",
        ),
        (
            "agree_to_terms: true",
            "agree_to_terms: true, challenge: dns-02",
            "16:92: acme.issuers.letsencrypt.challenge: found the text \"dns-02\"",
        ),
        (
            "agree_to_terms: true",
            "agree_to_terms: true, contact: [ops@example.com]",
            "16:91: acme.issuers.letsencrypt.contact[0]",
        ),
    ] {
        assert!(whole.contains(given), "{given}");
        says(&whole.replace(given, instead), start);
    }
    says(
        &obtained(source, ""),
        "5:35: listeners[1].tls.certificates[0].acme: there is no `acme`",
    );
    let redis = whole.replace("storage: certificates", "storage: redis");
    let redis = format!("{redis}cache: {{ l2: {{ redis: {{}} }} }}\n");
    says(
        &redis,
        "14:12: acme.storage: private keys would lie in Redis",
    );
    let clear = whole.replace("  - address: 127.0.0.1:8080\n", "");
    says(
        &clear,
        "4:35: listeners[0].tls.certificates[0].acme: its issuer has `challenge: http-01`",
    );
}
