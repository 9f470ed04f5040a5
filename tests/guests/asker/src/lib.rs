//! A request plugin: what it does with a path is said by its configuration.
//!
//! `{reads: [HEADER], cookies: [NAME], rules: {PATH: RULE}}`, a rule one of `echo: true`,
//! `respond: STATUS`, `refuse: STATUS`, `trap: true`, `loop: true`, `grow: true`,
//! `count: true`, or what a change has: `path`, `set`, `remove`, `mark: HEADER`,
//! `copy: {HEADER: HEADER THAT IT READS}`.

use std::cell::Cell;
use std::hint::black_box;

use lamina_plugin::{
    Manifest, RequestChange, RequestDecision, RequestHead, RequestPlugin, Response,
};
use serde_json::{Value, json};

/// Tests put other bytes in its place to make another version of the same length.
static VERSION: &str = "version-one";

struct Asker {
    config: Value,
    calls: Cell<u64>,
}

impl RequestPlugin for Asker {
    fn new(config: &str) -> Result<Self, String> {
        assert!(black_box(VERSION) != "version-bad", "it can't be described");
        let config = serde_json::from_str(config).map_err(|e| e.to_string())?;
        let calls = Cell::new(0);
        Ok(Self { config, calls })
    }

    fn manifest(&self) -> Manifest {
        let names = |key: &str| -> Vec<&str> {
            let names = self.config[key].as_array().into_iter().flatten();
            names.filter_map(Value::as_str).collect()
        };
        Manifest::new("asker", black_box(VERSION))
            .reads_headers(&names("reads"))
            .reads_cookies(&names("cookies"))
    }

    fn on_request(&self, request: RequestHead) -> RequestDecision {
        self.calls.set(self.calls.get() + 1);
        assert!(black_box(VERSION) != "version-ill", "it always fails");
        let rule = &self.config["rules"][request.path()];
        let is = |key: &str| rule[key] == true;
        let status = |key: &str| rule[key].as_u64().map(|status| status as u16);
        if is("trap") {
            panic!("a rule says so");
        }
        while is("loop") {}
        if is("grow") {
            let mut all = Vec::new();
            loop {
                all.push(vec![1_u8; 1 << 20]);
                black_box(&all);
            }
        }
        if is("count") {
            return Response::new(200, "text/plain", self.calls.get().to_string()).into();
        }
        if is("echo") {
            return Response::new(200, "application/json", seen(&request).to_string()).into();
        }
        if let Some(status) = status("respond") {
            let length = "99999";
            let answer = Response::new(status, "text/plain", "from the plugin");
            return answer
                .header("content-length", length)
                .header("cache-control", "max-age=60")
                .into();
        }
        if let Some(status) = status("refuse") {
            return RequestDecision::Refuse(status);
        }
        match rule.is_object() {
            true => changed(rule, &request).into(),
            false => RequestDecision::Next,
        }
    }
}

fn changed(rule: &Value, request: &RequestHead) -> RequestChange {
    let mut change = RequestChange::default();
    if let Some(path) = rule["path"].as_str() {
        change = change.path(path);
    }
    if let Some(name) = rule["mark"].as_str() {
        change = change.set(name, black_box(VERSION));
    }
    for (name, value) in rule["set"].as_object().into_iter().flatten() {
        change = change.set(name, value.as_str().unwrap_or_default());
    }
    for (name, from) in rule["copy"].as_object().into_iter().flatten() {
        let from = from.as_str().unwrap_or_default();
        let header = request.headers.iter().find(|header| header.name == from);
        if let Some(header) = header {
            change = change.set(name, header.value.clone());
        }
    }
    for name in rule["remove"].as_array().into_iter().flatten() {
        change = change.remove(name.as_str().unwrap_or_default());
    }
    change
}

fn seen(request: &RequestHead) -> Value {
    let lines = request.headers.iter();
    let lines = lines.map(|h| format!("{}: {}", h.name, String::from_utf8_lossy(&h.value)));
    json!({
        "method": request.method,
        "scheme": request.scheme,
        "host": request.host,
        "path": request.path_and_query,
        "headers": lines.collect::<Vec<_>>(),
        "client": request.client,
        "route": request.route,
    })
}

lamina_plugin::export_request!(Asker);
