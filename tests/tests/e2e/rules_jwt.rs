//! `auth: {jwt: …}`: signed tokens (RFC 7519, RFC 8725).

use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
    RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use e2e::cli::run;
use e2e::client::{Answer, Client};
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::{Setup, write_config};
use e2e::wait::wait_for;
use serde_json::{Value, json};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
/// Keys are fetched again some seconds after an unknown one was named.
const FETCHED: Duration = Duration::from_secs(60);

/// Keys of an issuer.
struct Issuer {
    rsa: RsaKeyPair,
    ec: EcdsaKeyPair,
    ed: Ed25519KeyPair,
}

static ISSUER: LazyLock<Issuer> = LazyLock::new(Issuer::new);

fn coded(octets: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(octets)
}

impl Issuer {
    fn new() -> Self {
        Self {
            rsa: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
            ec: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
            ed: Ed25519KeyPair::generate().unwrap(),
        }
    }

    /// The public keys, whose names begin with `prefix`.
    fn keys(&self, prefix: &str) -> Value {
        let point = self.ec.public_key().as_ref();
        json!({"keys": [
            {"kty": "oct", "kid": "shared", "k": "AAAA"},
            {"kty": "RSA", "kid": format!("{prefix}rsa"), "use": "sig",
             "n": coded(self.rsa.public_key().modulus().big_endian_without_leading_zero()),
             "e": coded(self.rsa.public_key().exponent().big_endian_without_leading_zero())},
            {"kty": "EC", "crv": "P-256", "kid": format!("{prefix}ec"), "alg": "ES256",
             "x": coded(&point[1..33]), "y": coded(&point[33..])},
            {"kty": "OKP", "crv": "Ed25519", "kid": format!("{prefix}ed"), "x": coded(self.ed.public_key())},
        ]})
    }

    fn signature(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match algorithm {
            "RS256" => {
                let mut signature = vec![0; self.rsa.public_modulus_len()];
                self.rsa
                    .sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
                    .unwrap();
                signature
            }
            "ES256" => self.ec.sign(&random, message).unwrap().as_ref().to_vec(),
            "EdDSA" => self.ed.sign(message).as_ref().to_vec(),
            "HS256" => by_secret(SECRET.as_bytes(), message),
            _ => Vec::new(),
        }
    }

    fn token(&self, header: &Value, claims: &Value) -> String {
        let message = format!(
            "{}.{}",
            coded(header.to_string()),
            coded(claims.to_string())
        );
        let signature = self.signature(header["alg"].as_str().unwrap(), message.as_bytes());
        format!("{message}.{}", coded(signature))
    }
}

fn by_secret(secret: &[u8], message: &[u8]) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    hmac::sign(&key, message).as_ref().to_vec()
}

fn in_seconds(seconds: i64) -> i64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    now as i64 + seconds
}

fn claims(user: &str) -> Value {
    json!({"iss": "https://idp.test/", "aud": "edge", "sub": user, "exp": in_seconds(600), "groups": ["a", "b"]})
}

fn with(mut claims: Value, name: &str, value: Value) -> Value {
    claims[name] = value;
    claims
}

fn good(user: &str) -> String {
    ISSUER.token(&json!({"alg": "ES256", "kid": "ec"}), &claims(user))
}

const RULES: &str = "issuer: \"https://idp.test/\", audience: [edge, other], leeway: 5s, take: {x-user: sub, x-groups: groups}";

/// A server with keys, a page and a gateway.
async fn site(algorithms: &str) -> (Arc<Mutex<KeyServerSays>>, Origin, Gateway) {
    let said = Arc::new(Mutex::new(KeyServerSays(200, ISSUER.keys("").to_string())));
    let says = Arc::clone(&said);
    let server = Origin::pages(move |_| {
        let KeyServerSays(status, text) = says.lock().unwrap().clone();
        Reply::ok(text).status(status)
    })
    .await;
    let jwt = format!(
        "keys: \"{}/jwks\", algorithms: {algorithms}, {RULES}",
        server.url()
    );
    let (origin, gateway) = before(&jwt).await;
    // It must outlive the gateway's fetches.
    std::mem::forget(server);
    (said, origin, gateway)
}

/// The status and the text of the server with keys.
#[derive(Clone)]
struct KeyServerSays(u16, String);

async fn before(jwt: &str) -> (Origin, Gateway) {
    let origin =
        Origin::pages(|seen| Reply::fresh(format!("page of {}", seen.header("x-user")))).await;
    let route = format!(
        "{{name: site, upstream: origin, key: {{headers: [x-user, x-groups]}}, auth: {{jwt: {{{jwt}}}}}}}"
    );
    let gateway = Setup::new(&origin)
        .file("keys.json", ISSUER.keys("").to_string())
        .route(&route)
        .start()
        .await;
    (origin, gateway)
}

async fn get(client: &Client, token: &str) -> Answer {
    let ask = client
        .request("/")
        .header("authorization", &format!("Bearer {token}"));
    ask.header("x-user", "admin")
        .header("x_user", "admin")
        .send()
        .await
}

#[tokio::test]
async fn each_algorithm_lets_its_users_in() {
    let (_said, origin, gateway) = site("[RS256, ES256, EdDSA]").await;
    let client = gateway.client();
    for (algorithm, kid) in [("RS256", "rsa"), ("ES256", "ec"), ("EdDSA", "ed")] {
        for header in [
            json!({"alg": algorithm, "kid": kid}),
            json!({"alg": algorithm, "typ": "JWT"}),
        ] {
            let token = ISSUER.token(&header, &claims(algorithm));
            let answer = get(&client, &token).await;
            assert_eq!(answer.text(), format!("page of {algorithm}"), "{header}");
        }
        let seen = origin.last();
        assert_eq!(seen.header("x-groups"), "a,b");
        assert!(
            !seen.headers.contains_key("authorization") && !seen.headers.contains_key("x_user")
        );
        let again = get(
            &client,
            &ISSUER.token(&json!({"alg": algorithm}), &claims(algorithm)),
        )
        .await;
        assert!(again.is_hit(), "each user has entries, whatever the token");
    }
    assert_eq!(origin.count(), 3);
}

/// What an origin makes of letters beside ASCII in a field nobody knows.
#[tokio::test]
async fn a_claim_with_other_letters_than_ascii_is_no_value_of_a_field() {
    let (origin, gateway) =
        before(&format!("secret: {SECRET}, algorithms: [HS256], {RULES}")).await;
    let token = ISSUER.token(&json!({"alg": "HS256"}), &claims("José"));
    assert_eq!(get(&gateway.client(), &token).await.status, 401);
    assert_eq!(origin.count(), 0);
}

#[tokio::test]
async fn a_shared_secret_and_a_file_do_as_well() {
    let (_origin, gateway) =
        before(&format!("secret: {SECRET}, algorithms: [HS256], {RULES}")).await;
    let token = ISSUER.token(&json!({"alg": "HS256"}), &claims("alice"));
    assert_eq!(get(&gateway.client(), &token).await.text(), "page of alice");
    let (_origin, gateway) =
        before(&format!("keys: keys.json, algorithms: [ES256], {RULES}")).await;
    assert_eq!(
        get(&gateway.client(), &good("alice")).await.text(),
        "page of alice"
    );
}

#[tokio::test]
async fn a_cookie_may_have_the_token() {
    let jwt = format!("keys: keys.json, algorithms: [ES256], cookie: session, {RULES}");
    let (origin, gateway) = before(&jwt).await;
    let client = gateway.client().uncached();
    let ask = async |fields: &[(&str, &str)]| {
        let ask = client.request("/");
        let ask = fields
            .iter()
            .fold(ask, |ask, (name, value)| ask.header(name, value));
        ask.send().await
    };
    let (alice, bob) = (good("alice"), good("bob"));
    let bad = format!("{}x", good("alice"));
    let of = |token: &str| format!("theme=dark; session={token}; lang=de");
    for (user, token) in [("alice", &alice), ("bob", &bob)] {
        let answer = ask(&[("cookie", &of(token))]).await;
        assert_eq!(answer.text(), format!("page of {user}"));
        let seen = origin.last();
        assert_eq!(
            seen.header("cookie"),
            "theme=dark; lang=de",
            "the token ends here"
        );
    }
    // One token is all that tells whose request it is.
    let only = format!("session={alice}");
    let asked = origin.count();
    assert_eq!(ask(&[("cookie", &only)]).await.text(), "page of alice");
    assert!(ask(&[("cookie", &only)]).await.is_hit());
    assert!(origin.count() <= asked + 1);
    let bearer = |token: &str| format!("Bearer {token}");
    let both = ask(&[("authorization", &bearer(&bob)), ("cookie", &of(&alice))]).await;
    assert_eq!(
        both.text(),
        "page of bob",
        "what is shown by choice goes first"
    );
    let two = format!("session={bob}; session={alice}");
    let bad_bearer = bearer(&bad);
    let refused: [&[(&str, &str)]; 8] = [
        &[],
        &[("cookie", "session=")],
        &[("cookie", "theme=dark")],
        &[("cookie", &of(&bad))],
        &[("cookie", &two)],
        &[("cookie", &format!("Session={alice}"))],
        &[("cookie", &format!("xsession={alice}"))],
        &[("authorization", &bad_bearer), ("cookie", &of(&alice))],
    ];
    let asked = origin.count();
    for fields in refused {
        assert_eq!(ask(fields).await.status, 401, "{fields:?}");
    }
    assert_eq!(origin.count(), asked);
    // Nobody has said that a cookie counts.
    let (_origin, gateway) =
        before(&format!("keys: keys.json, algorithms: [ES256], {RULES}")).await;
    let answer = gateway
        .client()
        .request("/")
        .header("cookie", &only)
        .send()
        .await;
    assert_eq!(answer.status, 401);
}

#[tokio::test]
async fn no_other_token_lets_anybody_in() {
    let (_said, origin, gateway) = site("[RS256, ES256]").await;
    let client = gateway.client().uncached();
    assert_eq!(get(&client, &good("alice")).await.text(), "page of alice");
    let header = json!({"alg": "ES256", "kid": "ec"});
    let signed = |claims: Value| ISSUER.token(&header, &claims);
    let headed = |header: Value| ISSUER.token(&header, &claims("alice"));
    let whole = good("alice");
    let (message, _) = whole.rsplit_once('.').unwrap();
    let other = Issuer::new();
    // A public key is no secret: whoever signs with it by HS256 must not get in (CVE-2015-9235).
    let confused = {
        let header = coded(json!({"alg": "HS256", "kid": "rsa"}).to_string());
        let message = format!("{header}.{}", coded(claims("alice").to_string()));
        let modulus = ISSUER
            .rsa
            .public_key()
            .modulus()
            .big_endian_without_leading_zero();
        format!(
            "{message}.{}",
            coded(by_secret(modulus, message.as_bytes()))
        )
    };
    let tokens = [
        ("none", headed(json!({"alg": "none"}))),
        ("None", headed(json!({"alg": "None"}))),
        ("not accepted", headed(json!({"alg": "EdDSA", "kid": "ed"}))),
        ("a secret that is public", confused),
        (
            "another key's name",
            headed(json!({"alg": "ES256", "kid": "rsa"})),
        ),
        (
            "an unknown key",
            headed(json!({"alg": "ES256", "kid": "new"})),
        ),
        (
            "extensions",
            headed(json!({"alg": "ES256", "kid": "ec", "crit": ["b64"], "b64": false})),
        ),
        (
            "another issuer's key",
            other.token(&header, &claims("alice")),
        ),
        ("no signature", format!("{message}.")),
        ("two parts", message.to_owned()),
        ("four parts", format!("{whole}.x")),
        ("padding", format!("{whole}=")),
        ("other claims", {
            let mut parts: Vec<_> = whole.split('.').map(str::to_owned).collect();
            parts[1] = coded(claims("root").to_string());
            parts.join(".")
        }),
        (
            "issuer",
            signed(with(claims("alice"), "iss", json!("https://evil.test/"))),
        ),
        (
            "audience",
            signed(with(claims("alice"), "aud", json!("elsewhere"))),
        ),
        (
            "audiences",
            signed(with(claims("alice"), "aud", json!(["elsewhere", 1]))),
        ),
        (
            "no audience",
            signed(with(claims("alice"), "aud", Value::Null)),
        ),
        (
            "expired",
            signed(with(claims("alice"), "exp", json!(in_seconds(-10)))),
        ),
        ("no end", signed(with(claims("alice"), "exp", Value::Null))),
        (
            "an end in words",
            signed(with(claims("alice"), "exp", json!("tomorrow"))),
        ),
        (
            "not yet",
            signed(with(claims("alice"), "nbf", json!(in_seconds(60)))),
        ),
        ("a second line", signed(claims("alice\r\nx-admin: 1"))),
        ("no JSON", "a.b.c".to_owned()),
        ("nothing", String::new()),
        ("large", "x".repeat(20_000)),
    ];
    for (what, token) in &tokens {
        let answer = get(&client, token).await;
        assert_eq!(answer.status, 401, "{what}");
        assert!(!answer.text().contains("page of"), "{what}");
        let challenge = answer.header("www-authenticate");
        assert_eq!(
            challenge, "Bearer realm=\"restricted\", error=\"invalid_token\"",
            "{what}"
        );
    }
    let bare = client.get("/").await;
    assert_eq!(
        (bare.status.as_u16(), bare.header("www-authenticate")),
        (401, "Bearer realm=\"restricted\"")
    );
    let twice = client
        .request("/")
        .header("authorization", &format!("Bearer {whole}"));
    let twice = twice.header("authorization", "Bearer x").send().await;
    assert_eq!(twice.status, 401);
    assert_eq!(origin.count(), 1);
    let tolerated = [
        with(claims("alice"), "exp", json!(in_seconds(-1))),
        with(claims("alice"), "nbf", json!(in_seconds(2))),
        with(claims("alice"), "aud", json!(["elsewhere", "other"])),
    ];
    for claims in tolerated {
        assert_eq!(
            get(&client, &signed(claims.clone())).await.status,
            200,
            "{claims}"
        );
    }
}

#[tokio::test]
async fn keys_that_change_are_noticed_and_lost_ones_stay() {
    let (said, _origin, gateway) = site("[ES256]").await;
    let client = gateway.client().uncached();
    let new = || ISSUER.token(&json!({"alg": "ES256", "kid": "2-ec"}), &claims("alice"));
    assert_eq!(get(&client, &good("alice")).await.status, 200);
    assert_eq!(get(&client, &new()).await.status, 401);
    *said.lock().unwrap() = KeyServerSays(200, ISSUER.keys("2-").to_string());
    wait_for("the new key counts", FETCHED, || async {
        (get(&client, &new()).await.status == 200).then_some(())
    })
    .await;
    assert_eq!(
        get(&client, &good("alice")).await.status,
        401,
        "the old one does not"
    );
    // What can't be fetched or read changes nothing.
    for bad in [
        KeyServerSays(500, String::new()),
        KeyServerSays(200, "{\"keys\": []}".to_owned()),
    ] {
        *said.lock().unwrap() = bad;
        for _ in 0..3 {
            assert_eq!(get(&client, &good("alice")).await.status, 401);
            assert_eq!(get(&client, &new()).await.status, 200);
        }
    }
}

#[tokio::test]
async fn nobody_is_let_in_while_there_are_no_keys() {
    let jwt = format!("keys: \"http://127.0.0.1:1/jwks\", algorithms: [ES256], {RULES}");
    let (origin, gateway) = before(&jwt).await;
    let client = gateway.client().uncached();
    let answer = get(&client, &good("alice")).await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("cache-control")),
        (503, "no-store")
    );
    assert_eq!(origin.count(), 0);
}

#[test]
fn what_would_let_others_in_is_refused() {
    let rules = "issuer: x, audience: [edge]";
    for (jwt, more, said) in [
        (
            format!(
                "keys: \"https://i.test/k\", algorithms: [RS256], {rules}, take: {{x-user: sub}}"
            ),
            "",
            "stored for everybody",
        ),
        (
            format!("keys: \"https://i.test/k\", algorithms: [none], {rules}"),
            "",
            "none",
        ),
        (
            format!("keys: \"https://i.test/k\", algorithms: [], {rules}"),
            "",
            "no algorithms",
        ),
        (
            format!("keys: \"https://i.test/k\", algorithms: [HS256], secret: {SECRET}, {rules}"),
            "",
            "belongs to RS256",
        ),
        (
            format!("secret: {SECRET}, algorithms: [RS256], {rules}"),
            "",
            "belongs to",
        ),
        (
            format!("secret: s3cret-word, algorithms: [HS256], {rules}"),
            "",
            "short secret",
        ),
        (
            "keys: \"https://i.test/k\", algorithms: [RS256], issuer: x, audience: []".to_owned(),
            "",
            "for somebody else",
        ),
        (
            format!("keys: absent.json, algorithms: [RS256], {rules}"),
            "",
            "cannot read",
        ),
        (
            format!("keys: /k, upstream: nowhere, algorithms: [RS256], {rules}"),
            "",
            "no upstream",
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let yaml = format!(
            "version: 1\nlisteners: [{{address: \"127.0.0.1:0\"}}]\nupstreams: {{o: {{targets: [\"http://127.0.0.1:1\"]}}}}\nroutes:\n  - {{name: r, upstream: o, auth: {{jwt: {{{jwt}}}}}{more}}}\n"
        );
        let config = write_config(dir.path(), &yaml);
        let refused = run(&["validate", "-c", config.to_str().unwrap()]);
        assert_ne!(refused.code, Some(0), "{jwt}");
        assert!(
            refused.output().contains(said),
            "{jwt}: {}",
            refused.output()
        );
        assert!(
            !refused.output().contains("s3cret-word"),
            "{}",
            refused.output()
        );
    }
}
