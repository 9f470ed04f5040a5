//! The key hook: shipped plugins, misbehaving guests, and what these must not harm.

use super::*;

#[tokio::test]
async fn tracking_parameters_share_one_key() {
    for declarative in [false, true] {
        let config =
            json!({ "drop": ["utm_*", "fbclid"], "sort": true, "declarative": declarative });
        let site = load_shipped("normalize-query", config).await;
        let plain = key_of(&site, "normalize-query", &get("/p?a=1&b=2", &[]));
        assert_eq!(plain, ("shop/p?a=1&b=2".into(), vec![]));
        assert_eq!(
            key_of(
                &site,
                "normalize-query",
                &get("/p?b=2&utm_source=x&a=1&fbclid=9", &[])
            ),
            plain
        );
        assert_eq!(
            site.plugin("normalize-query")
                .manifest()
                .declarative
                .is_some(),
            declarative
        );
    }
}

#[tokio::test]
async fn a_declared_key_costs_no_call() {
    let site = load_shipped(
        "normalize-query",
        json!({ "sort": true, "declarative": true }),
    )
    .await;
    key_of(&site, "normalize-query", &get("/p?b&a", &[]));
    assert_eq!(
        site.metric("lamina_plugin_calls_total", &["key", "ok"]),
        0.0
    );
}

#[tokio::test]
async fn equal_inputs_cost_one_call() {
    let site = load_shipped("device-class", json!({ "languages": ["en", "de"] })).await;
    let request = get(
        "/p",
        &[("user-agent", "x iPhone"), ("accept-language", "de-AT")],
    );
    for _ in 0..100 {
        assert_eq!(
            key_of(&site, "device-class", &request),
            ("shop/p".into(), vec!["mobile".into(), "de".into()])
        );
    }
    // A header that was not declared makes no difference.
    key_of(
        &site,
        "device-class",
        &get(
            "/p",
            &[
                ("user-agent", "x iPhone"),
                ("accept-language", "de-AT"),
                ("x-id", "7"),
            ],
        ),
    );
    assert_eq!(
        site.metric("lamina_plugin_calls_total", &["key", "ok"]),
        1.0
    );
    assert_eq!(site.metric("lamina_plugin_memo_total", &["hit"]), 100.0);
    assert_eq!(
        key_of(&site, "device-class", &get("/p", &[])).1,
        ["desktop", "en"]
    );
    assert_eq!(site.metric("lamina_plugin_memo_total", &["miss"]), 2.0);
}

#[tokio::test]
async fn the_c_plugin_strips_slashes() {
    let site = load_shipped("strip-trailing-slash", Value::Null).await;
    for (uri, key) in [
        ("/a/b//", "shop/a/b"),
        ("/", "shop/"),
        ("//", "shop/"),
        ("/a/?x=/", "shop/a?x=/"),
        ("/a?", "shop/a"),
    ] {
        assert_eq!(
            key_of(&site, "strip-trailing-slash", &get(uri, &[])).0,
            key,
            "{uri}"
        );
    }
    // The guest's arena is emptied after each call.
    for i in 0..5_000 {
        let path = format!("/{i}/{}", "x".repeat(1_000));
        assert_eq!(
            key_of(
                &site,
                "strip-trailing-slash",
                &get(&format!("{path}/"), &[])
            )
            .0,
            format!("shop{path}")
        );
    }
    assert_eq!(site.metric("lamina_plugin_instances", &[]), 1.0);
}

#[tokio::test]
async fn an_endless_loop_is_a_timeout() {
    let site = load_with(key_guest(LOOP, ""), json!({ "key_timeout": "5ms" }))
        .await
        .unwrap();
    let started = Instant::now();
    assert_eq!(key_error(&site), CallError::Timeout(Some(crate::Hook::Key)));
    assert!(started.elapsed() >= Duration::from_millis(5));
    assert_eq!(
        site.metric("lamina_plugin_calls_total", &["key", "timeout"]),
        1.0
    );
}

#[tokio::test]
async fn endless_recursion_is_a_trap() {
    let call = "(call $derive (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) \
        (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) \
        (i32.const 0) (i32.const 0) (i32.const 0)) drop";
    let site = load_code(key_guest(call, "")).await.unwrap();
    assert!(matches!(key_error(&site), CallError::Trap { reason } if reason.contains("stack")));
}

#[tokio::test]
async fn memory_without_end_is_out_of_memory() {
    let grow = "(loop $again (drop (memory.grow (i32.const 16))) (br $again))";
    let site = load_with(key_guest(grow, ""), json!({ "max_memory": "4MiB" }))
        .await
        .unwrap();
    assert!(matches!(
        key_error(&site),
        CallError::OutOfMemory {
            limit: 4_194_304,
            ..
        }
    ));
}

#[tokio::test]
async fn a_table_that_grows_without_end_is_out_of_memory() {
    let grow = "(loop $again (drop (table.grow 0 (ref.null func) (i32.const 10000))) (br $again))";
    let site = load_code(key_guest(grow, "(table 1 funcref)"))
        .await
        .unwrap();
    assert!(matches!(key_error(&site), CallError::OutOfMemory { .. }));
}

#[tokio::test]
async fn a_key_that_breaks_a_rule_is_invalid() {
    // A key: tag 1, then pointer and length of its text.
    let key =
        |length: &str| format!(r#"(data (i32.const 3072) "\01\00\00\00\00\10\00\00{length}")"#);
    let cases = [
        (key(r"\00\00\00\00"), "empty"),
        (key(r"\00\00\10\00"), ""), // 1 MiB: past the memory's end
        (key(r"\01\20\00\00"), "bytes of the key"),
        (
            format!(
                r#"{}(data (i32.const 4096) "\ff\fe")"#,
                key(r"\02\00\00\00")
            ),
            "utf-8",
        ),
        (
            r#"(data (i32.const 3072) "\09")"#.to_owned(),
            "discriminant",
        ),
        (
            r#"(data (i32.const 3072) "\03\00\00\00\c8")"#.to_owned(),
            "status 200",
        ),
    ];
    for (data, reason) in cases {
        let site = load_code(key_guest("", &data)).await.unwrap();
        let CallError::Invalid { what } = key_error(&site) else {
            panic!("{reason}: accepted")
        };
        assert!(what.contains(reason), "{what}");
    }
}

#[tokio::test]
async fn one_text_named_a_million_times_does_not_fill_the_host() {
    // All 16 parts of 200,000 bytes are the same 200,000 bytes of the guest.
    let parts = r"\00\10\00\00\40\0d\03\00".repeat(16);
    let data = format!(
        r#"(data (i32.const 3072) "\01\00\00\00\00\10\00\00\01\00\00\00\00\0e\00\00\10\00\00\00") (data (i32.const 3584) "{parts}") (data (i32.const 4096) "k")"#
    );
    let site = load_code(key_guest("", &data)).await.unwrap();
    assert!(matches!(key_error(&site), CallError::Invalid { .. }));
}

#[tokio::test]
async fn a_fetch_is_refused_to_a_key() {
    let import = format!(
        r#"(import "{}" "fetch" (func $fetch (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))"#,
        super::super::contract::FETCH
    );
    let zeroes = "(i32.const 0)".repeat(12);
    let hooks = format!(
        r#"(func (export "lamina:plugin/key@1.0.0#derive")
            (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
            (call $fetch {zeroes} (i32.const 4096)) (i32.const 3072))"#
    );
    let items = format!("import lamina:plugin/fetch@1.0.0; {MANIFEST}{KEY}");
    let guest = Guest::Code(core_guest(&items, &module(&import, &hooks)));
    let site = Site::load(&[("bad", guest, json!({ "fetch": ["demo"] }))], no_fetch())
        .await
        .unwrap();
    assert_eq!(
        key_error(&site),
        CallError::Refused {
            import: super::super::contract::FETCH
        }
    );
}

#[tokio::test]
async fn a_storm_of_log_lines_is_cut() {
    let import = r#"(import "lamina:plugin/log@1.0.0" "write" (func $log (param i32 i32 i32)))"#;
    let hooks = r#"(func (export "lamina:plugin/key@1.0.0#derive")
        (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
        (local $n i32)
        (loop $again
            (call $log (i32.const 2) (i32.const 2048) (i32.const 3))
            (br_if $again (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 20000))))
        (i32.const 3072))"#;
    let items = format!("import lamina:plugin/log@1.0.0; {MANIFEST}{KEY}");
    let site = load_with(
        core_guest(&items, &module(import, hooks)),
        json!({ "key_timeout": "20s" }),
    )
    .await
    .unwrap();
    let started = Instant::now();
    site.plugin("bad").key(&get("/", &[]), "shop").unwrap();
    let (written, _) = site
        .plugin("bad")
        .versions
        .current
        .load()
        .blueprint
        .log
        .counts();
    assert!(
        written as f64 <= 20.0 + 10.0 * (started.elapsed().as_secs_f64() + 1.0),
        "{written} lines"
    );
}

#[tokio::test]
async fn a_hundred_thousand_traps_leave_nothing_behind() {
    let code = Guest::Code(key_guest("unreachable", ""));
    let yaml = json!({ "quarantine": { "failures": 0 }, "limits": { "key_timeout": "2s" } });
    let site = Site::load(&[("bad", code, yaml)], no_fetch())
        .await
        .unwrap();
    let calls =
        |n: usize| (0..n).for_each(|_| assert!(matches!(key_error(&site), CallError::Trap { .. })));
    calls(1_000);
    let before = resident();
    calls(99_000);
    // Other tests run at the same time; a leak of one memory for each call would be 6 GiB.
    assert!(
        resident() < before + (128 << 20),
        "grew from {before} to {}",
        resident()
    );
    assert_eq!(site.metric("lamina_plugin_instances", &[]), 0.0);
    assert_eq!(
        site.metric("lamina_plugin_calls_total", &["key", "trap"]),
        100_000.0
    );
}

/// Bytes of this process that are in physical memory.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * rustix::param::page_size()
}

#[tokio::test]
async fn an_instance_is_recycled_after_its_calls() {
    // The guest counts its calls and returns the count as a status: 400, 401 and so on.
    let count = "(i32.store8 (i32.const 3072) (i32.const 3))
        (i32.store16 (i32.const 3076) (i32.add (i32.const 400) (i32.load (i32.const 8192))))
        (i32.store (i32.const 8192) (i32.add (i32.load (i32.const 8192)) (i32.const 1)))";
    let limits = json!({ "max_requests": 2, "memo_entries": 0 });
    let site = load_with(key_guest(count, ""), limits).await.unwrap();
    let status = || match &*site.plugin("bad").key(&get("/", &[]), "shop").unwrap() {
        KeyDecision::Refuse { status } => status.as_u16(),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        [status(), status(), status(), status()],
        [400, 401, 400, 401]
    );
}

#[tokio::test]
async fn a_plugin_that_is_gone_leaves_the_thread() {
    let first = load_shipped("normalize-query", Value::Null).await;
    key_of(&first, "normalize-query", &get("/", &[]));
    let instances = first
        .plugin("normalize-query")
        .versions
        .current
        .load()
        .blueprint
        .metrics
        .instances
        .clone();
    assert_eq!(instances.get(), 1);
    drop(first);
    let second = load_shipped("normalize-query", Value::Null).await;
    key_of(&second, "normalize-query", &get("/", &[]));
    assert_eq!(instances.get(), 0);
}
