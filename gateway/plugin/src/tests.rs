//! Tests of plugins with real WebAssembly: the plugins that we ship, built by `plugins/build.sh`,
//! and misbehaving guests written as text.
//!
//! This file is the harness: guests, their configuration, requests, and metrics.

mod keys;
mod kit;
mod loaders;
mod refusals;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Method, Response};
use serde_json::{Value, json};

use super::PluginHost;
use super::config::DEFAULT_TOTAL_MEMORY;
use super::{
    CallError, Compiler, FetchCall, KeyDecision, LoadError, LoadRequest, Plugin, PluginHostOptions,
    PluginSet, UpstreamFetcher,
};

/// The folder of the repository.
fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("the crate is a folder in `gateway` of the repository")
}

/// A plugin that we ship; all of them are built once.
fn shipped(name: &str) -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        let built = std::process::Command::new(top().join("plugins/build.sh"))
            .output()
            .unwrap();
        assert!(
            built.status.success(),
            "{}",
            String::from_utf8_lossy(&built.stderr)
        );
    });
    let file = top().join(format!("plugins/dist/{name}.wasm"));
    assert!(
        file.exists(),
        "{} was skipped: run `plugins/build.sh --install`",
        file.display()
    );
    file
}

/// A core module with the component type of a world that contains `items`.
fn core_guest(items: &str, wat: &str) -> Vec<u8> {
    let mut resolve = wit_parser::Resolve::default();
    resolve.push_dir(top().join("plugin-sdk/wit")).unwrap();
    let package = resolve
        .push_str(
            "guest.wit",
            &format!("package test:guest; world guest {{ {items} }}"),
        )
        .unwrap();
    let world = resolve.select_world(&[package], Some("guest")).unwrap();
    let mut wasm = wat::parse_str(wat).unwrap_or_else(|e| panic!("{e}"));
    wit_component::embed_component_metadata(
        &mut wasm,
        &resolve,
        world,
        wit_component::StringEncoding::UTF8,
    )
    .unwrap();
    wasm
}

const MANIFEST: &str = "export lamina:plugin/manifest@1.0.0;";
const KEY: &str = "export lamina:plugin/key@1.0.0;";
const LOAD: &str = "export lamina:plugin/load@1.0.0;";

/// The common parts of every guest below: memory, an allocator that starts again in each call, and
/// a manifest `bad` whose key depends on the path.
fn module(imports: &str, hooks: &str) -> String {
    format!(
        r#"(module
        {imports}
        (memory (export "memory") 4)
        (global $next (mut i32) (i32.const 65536))
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
            (local $at i32)
            (local.set $at (global.get $next))
            (global.set $next (i32.and (i32.add (i32.add (global.get $next) (local.get 3)) (i32.const 15)) (i32.const -8)))
            (local.get $at))
        (func (export "lamina:plugin/manifest@1.0.0#describe") (param i32 i32) (result i32) (i32.const 1024))
        (data (i32.const 1028) "\00\08\00\00\03\00\00\00" "\00\08\00\00\01\00\00\00" "\00\00\01")
        (data (i32.const 2048) "bad")
        {hooks})"#
    )
}

/// A guest whose `derive` runs `body` and returns the value at address 3072.
fn key_guest(body: &str, data: &str) -> Vec<u8> {
    let hooks = format!(
        r#"(func $derive (export "lamina:plugin/key@1.0.0#derive")
            (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
            (global.set $next (i32.const 65536))
            {body}
            (i32.const 3072))
        {data}"#
    );
    core_guest(&format!("{MANIFEST}{KEY}"), &module("", &hooks))
}

/// A guest whose `load` runs `body` and returns the value at address 3072.
fn load_guest(body: &str, data: &str) -> Vec<u8> {
    let hooks = format!(
        r#"(func $load (export "lamina:plugin/load@1.0.0#load")
            (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i64) (result i32)
            (global.set $next (i32.const 65536))
            {body}
            (i32.const 3072))
        {data}"#
    );
    core_guest(&format!("{MANIFEST}{LOAD}"), &module("", &hooks))
}

const LOOP: &str = "(loop $again (br $again))";

/// A set of plugins and their metrics.
struct Site {
    plugins: PluginSet,
    registry: prometheus::Registry,
}

impl Site {
    /// Loads plugins. Each has a name, a file or code, and its YAML without `file`.
    async fn load(
        plugins: &[(&str, Guest<'_>, Value)],
        fetch: UpstreamFetcher,
    ) -> Result<Self, LoadError> {
        let folder = tempfile::tempdir().unwrap();
        let mut configs = BTreeMap::new();
        for (name, guest, yaml) in plugins {
            let mut yaml = yaml.clone();
            yaml["file"] = guest.file(folder.path(), name).to_str().unwrap().into();
            configs.insert(name.to_string(), serde_json::from_value(yaml).unwrap());
        }
        let registry = prometheus::Registry::new();
        let cache_dir = Some(top().join("target/plugin-test-cache"));
        let options = PluginHostOptions {
            base: folder.path().to_owned(),
            cache_dir,
            compiler: Compiler::here(),
            fetch,
            upstreams: BTreeMap::new(),
            host: &PluginHost::new(&registry, DEFAULT_TOTAL_MEMORY).unwrap(),
            before: None,
        };
        PluginSet::load(&configs, options)
            .await
            .map(|plugins| Self { plugins, registry })
    }

    fn plugin(&self, name: &str) -> Arc<Plugin> {
        self.plugins.get(name).unwrap()
    }

    /// A metric of one of our families, by its labels.
    fn metric(&self, family: &str, labels: &[&str]) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|f| f.name() == family).unwrap();
        let has = |m: &prometheus::proto::Metric| {
            labels
                .iter()
                .all(|l| m.get_label().iter().any(|p| p.value() == *l))
        };
        let metric = family.get_metric().iter().find(|m| has(m)).unwrap();
        metric.get_counter().get_value() + metric.get_gauge().get_value()
    }
}

/// Where the code of a plugin is.
enum Guest<'a> {
    Shipped(&'a str),
    Code(Vec<u8>),
}

impl Guest<'_> {
    fn file(&self, folder: &Path, name: &str) -> PathBuf {
        match self {
            Self::Shipped(name) => shipped(name),
            Self::Code(code) => {
                std::fs::write(folder.join(name), code).unwrap();
                name.into()
            }
        }
    }
}

/// Loads one guest with the name `bad`, and with enough time for a busy machine.
async fn load_code(code: Vec<u8>) -> Result<Site, LoadError> {
    load_with(code, json!({})).await
}

async fn load_with(code: Vec<u8>, mut limits: Value) -> Result<Site, LoadError> {
    if limits.get("key_timeout").is_none() {
        limits["key_timeout"] = "2s".into();
    }
    Site::load(
        &[("bad", Guest::Code(code), json!({ "limits": limits }))],
        no_fetch(),
    )
    .await
}

async fn load_shipped(name: &str, config: Value) -> Site {
    let yaml = json!({ "config": config, "limits": { "key_timeout": "2s" } });
    Site::load(&[(name, Guest::Shipped(name), yaml)], no_fetch())
        .await
        .unwrap()
}

fn no_fetch() -> UpstreamFetcher {
    Arc::new(|call| panic!("nothing is granted, and yet: {call:?}"))
}

/// Answers each fetch with its path as a JSON string, and counts the fetches.
fn echo(count: Arc<AtomicUsize>) -> UpstreamFetcher {
    Arc::new(move |call: FetchCall| {
        count.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            Ok(Response::new(
                json!(call.request.uri().path()).to_string().into(),
            ))
        })
    })
}

fn get(uri: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = http::Request::get(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

/// The key that the plugin `name` derives, as text and parts.
fn key_of(site: &Site, name: &str, request: &Parts) -> (String, Vec<String>) {
    match &*site.plugin(name).key(request, "shop").unwrap() {
        KeyDecision::Key { text, parts, .. } => (text.clone(), parts.clone()),
        other => panic!("not a key: {other:?}"),
    }
}

/// The error with which the guest `bad` fails.
fn key_error(site: &Site) -> CallError {
    site.plugin("bad").key(&get("/", &[]), "shop").unwrap_err()
}

fn load_request(path: &str) -> LoadRequest {
    LoadRequest {
        method: Method::GET,
        scheme: http::uri::Scheme::HTTP,
        host: "shop".into(),
        path_and_query: path.parse().unwrap(),
        headers: HeaderMap::new(),
        body: Bytes::new(),
        route: "test".into(),
        deadline: Instant::now() + Duration::from_secs(60),
    }
}
