//! Variables, secrets, and files beside the configuration.

use super::*;

#[test]
fn a_variable_becomes_what_the_type_needs() {
    let text = file("    cache: ${WORD}\nserver:\n  threads: ${N}\n");
    let config = read(&text).unwrap();
    assert_eq!(
        (config.server.threads, config.routes[0].cache),
        (Some(3), crate::proxy::config::OnOffSwitch::Off)
    );
    assert_eq!(
        read(&file("server: { threads: \"${NONE:-2}\" }\n"))
            .unwrap()
            .server
            .threads,
        Some(2)
    );
    assert_eq!(
        read(&file("server:\n  threads: ${NONE:-}\n"))
            .unwrap()
            .server
            .threads,
        None
    );
    assert_eq!(
        read(&file("admin:\n  token: ${DIGITS}\n"))
            .unwrap()
            .admin
            .token
            .as_deref(),
        Some("123456")
    );
    let plugin = read(&file("").replace(
        "{ file: c.wasm }",
        "\n    file: c.wasm\n    config:\n      n: ${N}\n      s: \"${N}\"",
    ))
    .unwrap()
    .plugins
    .by_name["compose"]
        .config
        .clone();
    assert_eq!(plugin, serde_json::json!({ "n": 3, "s": "3" }));
}

#[test]
fn a_variable_cannot_inject_yaml() {
    let config = read(&file("    tags: [\"${EVIL}\"]\n"));
    assert!(
        config
            .unwrap_err()
            .to_string()
            .contains("routes[0].tags[0]")
    );
    says(
        &file("server: { threads: \"${EVIL}\" }\n"),
        "11:20: server.threads: found the text \"1\\nadmin: {token: ***\"",
    );
}

#[test]
fn all_missing_variables_are_named_at_once() {
    let all = said(&file(
        "admin: { token: \"${A}\" }\nserver:\n  threads: ${B:?how many}\n",
    ));
    assert_eq!(all.len(), 2);
    assert!(
        all[0].starts_with("lamina.yaml:11:17: admin.token: environment variable `A` is not set"),
        "{}",
        all[0]
    );
    assert!(all[1].contains("`B` is not set: how many"), "{}", all[1]);
}

#[test]
fn secrets_come_from_files_beside_the_configuration() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("token"), "s3cret\r\n").unwrap();
    std::fs::write(dir.path().join("empty"), "\n").unwrap();
    let name = dir.path().join("lamina.yaml");
    let with = |extra: &str| {
        std::fs::write(&name, file(extra)).unwrap();
        load(&name)
    };
    let config = with("admin: { address: 0.0.0.0:1, token_file: token }\n").unwrap();
    assert_eq!(config.admin.token.as_deref(), Some("s3cret"));
    assert_eq!(
        config.plugins.by_name["compose"].file,
        dir.path().join("c.wasm")
    );
    for (extra, want) in [
        (
            "admin: { token_file: none }\n",
            "admin.token_file: cannot read",
        ),
        (
            "admin: { token_file: empty }\n",
            "is empty; expected a secret",
        ),
        (
            "purge_method: { token: x, token_file: token }\n",
            "purge_method.token_file: given beside `token`",
        ),
    ] {
        let message = with(extra).unwrap_err().to_string();
        assert!(message.contains(want), "{message}");
    }
}

#[test]
fn what_the_second_tier_names_lies_beside_the_configuration() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("pw"), "a s3cret of 16 bytes\n").unwrap();
    let name = dir.path().join("lamina.yaml");
    let with = |l2: &str| {
        std::fs::write(&name, file(&format!("cache: {{ l2: {l2} }}\n"))).unwrap();
        load(&name)
    };
    let redis = "{ redis: { password_file: pw, sentinel_password_file: pw, ca_file: ca.pem }, seal_key_file: pw }";
    let l2 = with(redis).unwrap().cache.l2;
    let redis = l2.redis.unwrap();
    assert_eq!(l2.seal_key.as_deref(), Some("a s3cret of 16 bytes"));
    assert_eq!(redis.password.as_deref(), Some("a s3cret of 16 bytes"));
    assert_eq!(
        redis.sentinel_password.as_deref(),
        Some("a s3cret of 16 bytes")
    );
    assert_eq!(redis.ca_file, Some(dir.path().join("ca.pem")));
    let disk = with("{ disk: { path: x.l2 } }").unwrap().cache.l2.disk;
    assert_eq!(disk.unwrap().path, dir.path().join("x.l2"));
    for (l2, want) in [
        (
            "{ redis: {}, disk: {} }",
            "cache.l2.disk: given beside `redis`",
        ),
        (
            "{ redis: { password: x, password_file: pw } }",
            "cache.l2.redis.password_file: given beside `password`",
        ),
        (
            "{ redis: { url: x } }",
            "cache.l2.redis.url: \"x\" is not the address of a Redis server",
        ),
        (
            "{ redis: { url: 'redis://me:s3cret@h' } }",
            "cache.l2.redis.url: credentials in the URL",
        ),
        ("{ redis: { prefix: '{a}' } }", "cache.l2.redis.prefix: "),
        (
            "{ redis: { connections: 0 } }",
            "cache.l2.redis.connections: ",
        ),
        ("{ max_concurrent: 0 }", "cache.l2.max_concurrent: "),
    ] {
        let message = with(l2).unwrap_err().to_string();
        assert!(
            message.contains(want) && !message.contains("s3cret"),
            "{message}"
        );
    }
}

#[test]
fn no_dump_and_no_message_shows_a_secret() {
    let text = file("admin: { token: s3cret }\n")
        .replace("c.wasm }", "c.wasm, config: { api_key: s3cret, n: 1 } }");
    let dump = redacted(&read(&text).unwrap());
    assert!(
        !dump.contains("s3cret")
            && dump.contains("token: '***'")
            && dump.contains("api_key: '***'"),
        "{dump}"
    );
    for bad in [
        "admin: { token: [s3cret] }\n",
        "admin: { token: s3cret, s: s3cret }\n",
        "admin: { token: s3cret\n",
        "  # x\nupstreams2: https://me:s3cret@h\n",
    ] {
        let shown = said(&file(bad)).join("\n");
        assert!(!shown.is_empty() && !shown.contains("s3cret"), "{shown}");
    }
}

#[test]
fn a_password_in_a_url_is_refused_and_not_shown() {
    for url in ["https://me:s3cret@h", "http://me:s3cret@h"] {
        let shown = said(&file("").replace("http://127.0.0.1:8081", url)).join("\n");
        assert!(
            shown.contains("user information") && !shown.contains("s3cret"),
            "{shown}"
        );
    }
}

#[test]
fn the_redacted_dump_reads_back_as_the_same_configuration() {
    let dump = redacted(&read(QUICKSTART).unwrap());
    let again = parse(&dump, "lamina.yaml", &env).unwrap_or_else(|e| panic!("{e}\n{dump}"));
    assert_eq!(redacted(&again), dump);
}
