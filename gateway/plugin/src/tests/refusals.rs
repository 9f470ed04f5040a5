//! What is refused when a plugin is loaded, and whether the message is helpful.

use super::*;

async fn refusal(code: Vec<u8>) -> String {
    match load_code(code).await {
        Ok(_) => panic!("it was loaded"),
        Err(error) => error.to_string(),
    }
}

async fn component_refusal(wat: &str) -> String {
    refusal(wat::parse_str(wat).unwrap_or_else(|e| panic!("{e}"))).await
}

#[tokio::test]
async fn what_is_not_webassembly_is_refused() {
    assert!(
        refusal(b"#!/bin/sh".to_vec())
            .await
            .contains("not a WebAssembly file")
    );
    assert!(refusal(Vec::new()).await.contains("not a WebAssembly file"));
    assert!(
        refusal(b"\0asm\x0d\0\x01\0garbage".to_vec())
            .await
            .contains("not valid")
    );
    assert!(
        refusal(b"\0asm\x01\0\0\0".to_vec())
            .await
            .contains("does not export `lamina:plugin/manifest@1.0.0`")
    );
}

#[tokio::test]
async fn a_huge_file_is_refused_unread() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("huge.wasm");
    std::fs::File::create(&file)
        .unwrap()
        .set_len(100_000_000)
        .unwrap();
    let error = super::super::artifact::read(&file).unwrap_err().to_string();
    assert!(error.contains("100000000 bytes"), "{error}");
}

#[tokio::test]
async fn a_missing_file_is_named() {
    let config = serde_json::from_value(json!({ "file": "nowhere.wasm" })).unwrap();
    let configs = BTreeMap::from([("shop".to_owned(), config)]);
    let registry = prometheus::Registry::new();
    let options = PluginHostOptions {
        base: "/tmp".into(),
        cache_dir: None,
        compiler: Compiler::here(),
        fetch: no_fetch(),
        upstreams: BTreeMap::new(),
        host: &PluginHost::new(&registry, DEFAULT_TOTAL_MEMORY).unwrap(),
        before: None,
    };
    let Err(error) = PluginSet::load(&configs, options).await else {
        panic!("it was loaded")
    };
    assert!(
        error
            .to_string()
            .starts_with("plugin `shop`: can't read /tmp/nowhere.wasm"),
        "{error}"
    );
}

#[tokio::test]
async fn an_import_that_does_not_exist_is_named() {
    let unknown = r#"(component (import "acme:shop/prices@1.0.0" (instance)))"#;
    assert!(
        component_refusal(unknown)
            .await
            .contains("imports `acme:shop/prices@1.0.0`")
    );
    let wasi = r#"(component (import "wasi:cli/environment@0.2.0" (instance)))"#;
    assert!(
        component_refusal(wasi)
            .await
            .contains("`wasi:cli/environment@0.2.0`: plugins get WASI only with `wasi: minimal`")
    );
    let kv = r#"(component (import "lamina:plugin/kv@1.0.0" (instance)))"#;
    assert!(component_refusal(kv).await.contains(
        "imports `lamina:plugin/kv@1.0.0`, which the YAML does not grant; add `grant: [kv]`"
    ));
}

#[tokio::test]
async fn another_version_of_the_contract_is_named() {
    let import = r#"(component (import "lamina:plugin/log@2.0.0" (instance)))"#;
    assert!(
        component_refusal(import)
            .await
            .contains("`lamina:plugin/log@2.0.0` is not of contract version 1.0.0")
    );
    let export = r#"(component (instance $i) (export "lamina:plugin/key@0.9.0" (instance $i)))"#;
    assert!(
        component_refusal(export)
            .await
            .contains("`lamina:plugin/key@0.9.0` is not of contract version 1.0.0")
    );
}

#[tokio::test]
async fn a_missing_export_is_named() {
    assert!(
        component_refusal("(component)")
            .await
            .contains("does not export `lamina:plugin/manifest@1.0.0`")
    );
    let empty =
        r#"(component (instance $i) (export "lamina:plugin/manifest@1.0.0" (instance $i)))"#;
    assert!(
        component_refusal(empty)
            .await
            .contains("`lamina:plugin/manifest@1.0.0#describe`")
    );
    let no_hook = refusal(core_guest(MANIFEST, &module("", ""))).await;
    assert!(
        no_hook.contains("`lamina:plugin/key@1.0.0`, `lamina:plugin/load@1.0.0`"),
        "{no_hook}"
    );
}

#[tokio::test]
async fn an_export_of_another_type_is_named() {
    let wat = r#"(component
        (core module $m (func (export "f") (result i32) i32.const 0))
        (core instance $i (instantiate $m))
        (func $f (result u32) (canon lift (core func $i "f")))
        (instance $e (export "describe" (func $f)))
        (export "lamina:plugin/manifest@1.0.0" (instance $e)))"#;
    assert!(
        component_refusal(wat)
            .await
            .contains("`lamina:plugin/manifest@1.0.0` does not have the types")
    );
}

#[tokio::test]
async fn a_hook_that_a_route_wants_but_the_plugin_lacks_is_named() {
    let site = load_shipped("normalize-query", Value::Null).await;
    let plugin = site.plugin("normalize-query");
    assert!(plugin.has(super::super::Hook::Key) && !plugin.has(super::super::Hook::Load));
    assert!(plugin.require(super::super::Hook::Key).is_ok());
    let error = plugin.require(super::super::Hook::Load).unwrap_err();
    assert_eq!(
        error.to_string(),
        "plugin `normalize-query`: a route uses it as `load`, which it does not export"
    );
}

#[tokio::test]
async fn a_fetch_that_the_yaml_does_not_grant_is_refused() {
    let yaml = json!({ "config": { "parts": { "a": { "upstream": "demo", "path": "/" } } } });
    let loaded = Site::load(
        &[("compose", Guest::Shipped("api-compose"), yaml)],
        no_fetch(),
    )
    .await;
    let Err(error) = loaded else {
        panic!("it was loaded")
    };
    assert!(
        error.to_string().contains("its `fetch` names no upstream"),
        "{error}"
    );
}

#[tokio::test]
async fn a_trap_in_the_start_is_told() {
    let items = format!("{MANIFEST}{KEY}");
    let derive = r#"(func (export "lamina:plugin/key@1.0.0#derive")
        (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32) (i32.const 3072))"#;
    let traps = format!("{derive} (func $start unreachable) (start $start)");
    let message = refusal(core_guest(&items, &module("", &traps))).await;
    assert!(
        message.contains("failed while it was started: trap"),
        "{message}"
    );
    let hangs = format!("{derive} (func $start {LOOP}) (start $start)");
    let message = refusal(core_guest(&items, &module("", &hangs))).await;
    assert!(
        message.contains("failed while it was started: deadline exceeded"),
        "{message}"
    );
}

#[tokio::test]
async fn a_huge_table_or_memory_is_refused() {
    let table = refusal(key_guest("", "(table 100000000 funcref)")).await;
    assert!(table.contains("table"), "{table}");
    let items = format!("{MANIFEST}{KEY}");
    let wat = module(
        "",
        r#"(func (export "lamina:plugin/key@1.0.0#derive")
        (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32) (i32.const 3072))"#,
    );
    let memory = refusal(core_guest(
        &items,
        &wat.replace(r#"(export "memory") 4"#, r#"(export "memory") 60000"#),
    ))
    .await;
    assert!(memory.contains("memory"), "{memory}");
}

#[tokio::test]
async fn a_bad_configuration_is_explained_by_the_plugin() {
    let yaml = json!({ "config": { "dorp": [] } });
    let loaded = Site::load(
        &[("normal", Guest::Shipped("normalize-query"), yaml)],
        no_fetch(),
    )
    .await;
    let Err(error) = loaded else {
        panic!("it was loaded")
    };
    let message = error.to_string();
    assert!(
        message.contains("refuses its configuration") && message.contains("dorp"),
        "{message}"
    );
}

#[tokio::test]
async fn sets_of_plugins_share_the_families_of_metrics() {
    let registry = prometheus::Registry::new();
    let host = PluginHost::new(&registry, DEFAULT_TOTAL_MEMORY).unwrap();
    let options = || PluginHostOptions {
        base: "/".into(),
        cache_dir: None,
        compiler: Compiler::here(),
        fetch: no_fetch(),
        upstreams: BTreeMap::new(),
        host: &host,
        before: None,
    };
    let of = |file: &str| {
        let config = serde_json::from_value(json!({ "file": file })).unwrap();
        BTreeMap::from([("p".to_owned(), config)])
    };
    let file = shipped("normalize-query");
    for calls in [1.0, 2.0] {
        let plugins = PluginSet::load(&of(file.to_str().unwrap()), options()).await;
        let plugins = plugins.unwrap();
        let site = Site {
            plugins,
            registry: registry.clone(),
        };
        key_of(&site, "p", &get("/", &[]));
        let counted = site.metric("lamina_plugin_calls_total", &["key", "ok"]);
        assert_eq!(counted, calls);
    }
    assert!(
        PluginSet::load(&of("nowhere.wasm"), options())
            .await
            .is_err()
    );
}

/// Loads and calls a shipped plugin; its compiled code is kept in `cache`.
async fn load_kept(name: &str, cache: &std::path::Path) {
    let config = serde_json::from_value(json!({ "file": shipped(name) })).unwrap();
    let configs = BTreeMap::from([(name.to_owned(), config)]);
    let registry = prometheus::Registry::new();
    let options = PluginHostOptions {
        base: "/".into(),
        cache_dir: Some(cache.to_owned()),
        compiler: Compiler::here(),
        fetch: no_fetch(),
        upstreams: BTreeMap::new(),
        host: &PluginHost::new(&registry, DEFAULT_TOTAL_MEMORY).unwrap(),
        before: None,
    };
    let plugins = PluginSet::load(&configs, options).await.unwrap();
    key_of(&Site { plugins, registry }, name, &get("/", &[]));
}

#[tokio::test]
async fn compiled_code_is_kept_and_damage_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let load = async || load_kept("normalize-query", &cache).await;
    let files = || {
        std::fs::read_dir(&cache)
            .unwrap()
            .map(|f| f.unwrap().path())
            .collect::<Vec<_>>()
    };
    load().await;
    let [file] = &files()[..] else {
        panic!("{:?}", files())
    };
    let whole = std::fs::read(file).unwrap();
    load().await;
    // A damaged file is not run; it is written again.
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    for bad in [damaged, whole[..1_000].to_vec(), Vec::new()] {
        std::fs::write(file, bad).unwrap();
        load().await;
        assert_eq!(std::fs::read(file).unwrap().len(), whole.len());
    }
}

/// Guards against code that another user of the machine has placed there: a file that is not
/// trusted is written again, and so gets another inode.
#[tokio::test]
async fn compiled_code_that_others_could_have_written_is_not_run() {
    use std::fs::Permissions;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    let folder = tempfile::tempdir().unwrap();
    let above = folder.path().join("above");
    let cache = above.join("cache");
    let load = async || load_kept("normalize-query", &cache).await;
    let file = || {
        let mut files = std::fs::read_dir(&cache).unwrap();
        files.next().unwrap().unwrap().path()
    };
    let inode = || std::fs::symlink_metadata(file()).unwrap().ino();
    load().await;
    let kept = inode();
    load().await;
    assert_eq!(inode(), kept, "what is trusted is used again");
    for (open, mode) in [(&cache, 0o770), (&above, 0o777), (&above, 0o775)] {
        std::fs::set_permissions(open, Permissions::from_mode(mode)).unwrap();
        let before = inode();
        load().await;
        assert_ne!(inode(), before, "{} {mode:o}", open.display());
        std::fs::set_permissions(open, Permissions::from_mode(0o700)).unwrap();
    }
    let before = inode();
    std::fs::set_permissions(file(), Permissions::from_mode(0o666)).unwrap();
    load().await;
    assert_ne!(inode(), before, "the file itself");
    let elsewhere = folder.path().join("elsewhere");
    let linked = file();
    std::fs::rename(&linked, &elsewhere).unwrap();
    symlink(&elsewhere, &linked).unwrap();
    load().await;
    assert!(
        std::fs::symlink_metadata(&linked).unwrap().is_file(),
        "a link is not followed"
    );
}
