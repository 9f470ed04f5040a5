//! A response plugin: what it does with the response to a path is said by its configuration.
//!
//! `{PATH: RULE}`, a rule `trap: true`, or what a change has: `ttl` in seconds, `tag`,
//! `store: false`, `set`, `remove`, and `told: HEADER`, which tells what the plugin saw;
//! `reads: [HEADER]` beside the paths.

use lamina_plugin::{
    Manifest, RequestHead, ResponseChange, ResponseDecision, ResponseHead, ResponsePlugin,
};
use serde_json::Value;

struct Answerer(Value);

impl ResponsePlugin for Answerer {
    fn new(config: &str) -> Result<Self, String> {
        serde_json::from_str(config)
            .map(Self)
            .map_err(|e| e.to_string())
    }

    fn manifest(&self) -> Manifest {
        let names = self.0["reads"].as_array().into_iter().flatten();
        let names: Vec<&str> = names.filter_map(Value::as_str).collect();
        Manifest::new("answerer", "1").reads_headers(&names)
    }

    fn on_response(&self, request: RequestHead, response: ResponseHead) -> ResponseDecision {
        let rule = &self.0[request.path()];
        if rule["trap"] == true {
            panic!("a rule says so");
        }
        if !rule.is_object() {
            return ResponseDecision::Keep;
        }
        let mut change = ResponseChange::default();
        change.store = rule["store"] != false;
        change.ttl_ms = rule["ttl"].as_u64().map(|seconds| seconds * 1_000);
        change.tags.extend(rule["tag"].as_str().map(str::to_owned));
        if let Some(name) = rule["told"].as_str() {
            let kind = response.header("content-type").unwrap_or("none");
            change = change.set(
                name,
                format!("{} {} {kind}", request.method, response.status),
            );
        }
        for (name, value) in rule["set"].as_object().into_iter().flatten() {
            change = change.set(name, value.as_str().unwrap_or_default());
        }
        for name in rule["remove"].as_array().into_iter().flatten() {
            change = change.remove(name.as_str().unwrap_or_default());
        }
        change.into()
    }
}

lamina_plugin::export_response!(Answerer);
