//! The shipped plugins, loaded from plugins/dist. `fetch` answers within the process.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use http::request::Parts;
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, Method, Request, Response};
use lamina_plugin_host::config::DEFAULT_TOTAL_MEMORY;
use lamina_plugin_host::{
    Compiler, FetchCall, LoadRequest, Plugin, PluginHost, PluginHostOptions, PluginSet,
    UpstreamFetcher,
};
use serde_json::json;
use tokio::runtime::{Builder, Runtime};

/// The plugins that the benches call.
pub struct Shipped {
    pub called: Arc<Plugin>,
    pub declared: Arc<Plugin>,
    pub loader: Arc<Plugin>,
}

/// A runtime with one thread, as each of the program's listeners has.
pub fn runtime() -> anyhow::Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

/// Compiles the shipped plugins.
pub fn load(runtime: &Runtime) -> anyhow::Result<Shipped> {
    let rules = json!({ "drop": ["utm_*"], "sort": true });
    let declared = json!({ "drop": ["utm_*"], "sort": true, "declarative": true });
    let page = json!({ "parts": { "page": { "upstream": "demo", "path": "/page/{1}" } } });
    let all = json!({
        "called": { "file": "normalize-query.wasm", "config": rules },
        "declared": { "file": "normalize-query.wasm", "config": declared },
        "loader": { "file": "api-compose.wasm", "config": page, "fetch": ["demo"] },
    });
    let configs: BTreeMap<_, _> = serde_json::from_value(all).context("the plugins' YAML")?;
    let options = PluginHostOptions {
        base: Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins/dist"),
        cache_dir: None,
        compiler: Compiler::here(),
        fetch: one_kibibyte(),
        upstreams: BTreeMap::new(),
        host: &PluginHost::new(&prometheus::Registry::new(), DEFAULT_TOTAL_MEMORY)
            .expect("a new registry"),
        before: None,
    };
    let plugins = runtime.block_on(PluginSet::load(&configs, options));
    let plugins = plugins.context("`make plugins` builds them")?;
    let get = |name: &str| plugins.get(name).context("a plugin that was asked for");
    Ok(Shipped {
        called: get("called")?,
        declared: get("declared")?,
        loader: get("loader")?,
    })
}

/// The request for a page. The plugin leaves `campaign` out of the key.
pub fn request(campaign: usize) -> anyhow::Result<Parts> {
    let uri = format!("/search?q=tea&utm_source={campaign}&page=2");
    let mut request = Request::get(uri).body(()).context("a request")?;
    *request.headers_mut() = crate::entries::request_headers();
    Ok(request.into_parts().0)
}

/// The request that the loader answers.
pub fn load_request() -> LoadRequest {
    LoadRequest {
        method: Method::GET,
        scheme: Scheme::HTTP,
        host: "shop.example".into(),
        path_and_query: PathAndQuery::from_static("/composed/42"),
        headers: crate::entries::request_headers(),
        body: Bytes::new(),
        route: "bench".into(),
        deadline: Instant::now() + Duration::from_secs(3_600),
    }
}

/// A fetcher that returns a JSON string of 1 KiB at once.
fn one_kibibyte() -> UpstreamFetcher {
    let answer = Bytes::from(format!("\"{}\"", "x".repeat(1_022)));
    Arc::new(move |_: FetchCall| {
        let mut response = Response::new(answer.clone());
        *response.headers_mut() = HeaderMap::new();
        Box::pin(std::future::ready(Ok(response)))
    })
}
