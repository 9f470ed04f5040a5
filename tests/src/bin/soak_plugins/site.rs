//! The gateway with a route for each plugin, and what each route's answers must be.

use anyhow::Context;
use e2e::gateway::Gateway;
use e2e::guest;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;

/// A plugin on a route of its own.
pub struct HostedPlugin {
    /// Of the plugin and its route.
    pub name: &'static str,
    /// YAML of the plugin beside its file.
    yaml: &'static str,
    /// YAML of the route beside its match.
    route: &'static str,
}

/// Answers live this long, so that there are loads and hits.
const POLICY: &str = "policy: {mode: override, ttl: 2s}";

const FEED: &str = r#"{"items": [{"id": 1, "date_published": "2026-01-01", "title": "first"},
    {"id": 2, "date_published": "2026-01-02", "title": "second"}]}"#;

/// Every shipped plugin, by the name of its file.
pub const HOSTED: [HostedPlugin; 12] = [
    HostedPlugin {
        name: "normalize-query",
        yaml: "config: {drop: [\"utm_*\"]}",
        route: "upstream: origin, key: {plugin: normalize-query}",
    },
    HostedPlugin {
        name: "device-class",
        yaml: "",
        route: "upstream: origin, key: {plugin: device-class}",
    },
    HostedPlugin {
        name: "strip-trailing-slash",
        yaml: "",
        route: "upstream: origin, key: {plugin: strip-trailing-slash}",
    },
    HostedPlugin {
        name: "lowercase-path-zig",
        yaml: "",
        route: "upstream: origin, key: {plugin: lowercase-path-zig}",
    },
    HostedPlugin {
        name: "ab-bucket-js",
        yaml: "config: {experiment: e, cookie: visitor, buckets: {old: 90, new: 10}}, \
               limits: {key_timeout: 1s}",
        route: "upstream: origin, key: {plugin: ab-bucket-js}",
    },
    HostedPlugin {
        name: "geo-key-py",
        yaml: "wasi: minimal, config: {markets: {dach: [DE, AT, CH]}}, limits: {key_timeout: 2s}",
        route: "upstream: origin, key: {plugin: geo-key-py}",
    },
    HostedPlugin {
        name: "api-compose",
        yaml: "fetch: [origin], config: {parts: {one: {upstream: origin, path: \"/json/{1}\"}}}",
        route: "loader: {plugin: api-compose}",
    },
    HostedPlugin {
        name: "render-page-js",
        yaml: "fetch: [origin], limits: {load_timeout: 20s}, \
               config: {parts: {one: {upstream: origin, path: \"/json/{1}\"}}, template: \"page {{one}}\"}",
        route: "loader: {plugin: render-page-js}",
    },
    HostedPlugin {
        name: "feed-merge-py",
        yaml: "wasi: minimal, fetch: [origin], limits: {load_timeout: 20s}, \
               config: {feeds: {one: {upstream: origin, path: /feed}}}",
        route: "loader: {plugin: feed-merge-py}",
    },
    HostedPlugin {
        name: "hello-wasi-http",
        yaml: "wasi: minimal, fetch: [demo]",
        route: "loader: {plugin: hello-wasi-http}",
    },
    HostedPlugin {
        name: "signed-origin",
        yaml: "grant: [clock], config: {host: files.example, region: eu, access_key: A, secret_key: S}",
        route: "upstream: origin, loader: {plugin: signed-origin}",
    },
    HostedPlugin {
        name: "trap",
        yaml: "quarantine: {failures: 0}, on_error: {key: bypass}",
        route: "upstream: origin, key: {plugin: trap}",
    },
];

/// The path of a page on a plugin's route.
pub fn path(hosted: &HostedPlugin, page: usize) -> String {
    format!("/{}/{page}", segment(hosted.name))
}

/// The first segment of a plugin's paths.
fn segment(name: &str) -> &str {
    match name {
        "hello-wasi-http" => "hello",
        other => other,
    }
}

/// Whether this is the answer for that page.
pub fn is_right(hosted: &HostedPlugin, page: usize, text: &str) -> bool {
    match hosted.name {
        "render-page-js" => text == format!("page /json/{page}"),
        "feed-merge-py" => text.contains("first") && text.contains("second"),
        "hello-wasi-http" => text.contains(&format!("user {page}")),
        "api-compose" => text == format!("{{\"one\":\"/json/{page}\"}}"),
        _ => text == path(hosted, page),
    }
}

pub async fn start() -> anyhow::Result<(Origin, Gateway)> {
    let origin = Origin::pages(|seen| {
        let page = seen.path.rsplit('/').next().unwrap_or_default();
        let json = |text: String| Reply::ok(text).header("content-type", "application/json");
        match seen.path.split('/').nth(1) {
            Some("json") => json(format!("\"{}\"", seen.path)),
            Some("feed") => json(FEED.to_owned()),
            Some("api") => json(format!("{{\"name\": \"user {page}\", \"level\": 1}}")),
            _ => Reply::ok(seen.path_only().to_owned()),
        }
    })
    .await;
    let demo = format!("\"{}\"", origin.url());
    let mut setup = Setup::new(&origin)
        .upstream("demo", &demo)
        .top("telemetry", "{log_format: json, access_log: off}");
    let mut plugins = Vec::new();
    for hosted in &HOSTED {
        let name = hosted.name;
        setup = setup
            .file(&format!("{name}.wasm"), code(name)?)
            .route(&format!(
                "{{name: {name}, match: {{path: /{}/*}}, {POLICY}, {}}}",
                segment(name),
                hosted.route
            ));
        plugins.push(format!("{name}: {{file: {name}.wasm, {}}}", hosted.yaml));
    }
    let gateway = setup
        .top("plugins", &format!("{{{}}}", plugins.join(", ")))
        .start()
        .await;
    Ok((origin, gateway))
}

fn code(name: &str) -> anyhow::Result<Vec<u8>> {
    if name == "trap" {
        return Ok(guest::trapping());
    }
    let file = e2e::cli::repository().join(format!("plugins/dist/{name}.wasm"));
    std::fs::read(&file).with_context(|| format!("{} (plugins/build.sh --install)", file.display()))
}
