//! The admin listener: health, metrics, purge, plugins, the second tier's keys, explain.
//!
//! It runs on a thread and a runtime of its own, so that it answers when the listeners
//! are full. What changes something is POST and asks for the token where one is set, as do
//! a plugin's failed calls and the keys of the second tier;
//! beyond loopback one must be (`config` refuses to start otherwise).

pub mod config;
mod l2;
mod plugins;
mod purge;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use http::header::{ALLOW, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use serde_json::{Value, json};

use crate::cluster::{Cluster, Standing};
use crate::http::bearer;
use crate::http::body::{Body, collect};
use crate::plugin::Plugins;
use crate::proxy::Proxy;
use crate::telemetry::metrics::{self, Registry};
use purge::Asked;

/// What the admin listener answers from.
pub struct Admin {
    pub proxy: Arc<Proxy>,
    pub plugins: Arc<Plugins>,
    /// The other nodes, where there is an event bus.
    pub cluster: Option<Arc<Cluster>>,
    pub registry: Registry,
    pub token: Option<String>,
    /// Whether requests are taken: false from the moment a drain begins.
    pub ready: Arc<AtomicBool>,
    /// Brings gauges up to date before a scrape.
    pub refresh: Box<dyn Fn() + Send + Sync>,
}

/// Bytes of an admin request's body at most.
const MAX_BODY: usize = 64 << 10;

impl Admin {
    /// Answers one admin request.
    pub async fn handle(self: Arc<Self>, request: Request<Body>) -> Response<Body> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        match (&method, path.as_str()) {
            (&Method::GET | &Method::HEAD, "/livez") => {
                answer(StatusCode::OK, &json!({"live": true}))
            }
            (&Method::GET | &Method::HEAD, "/readyz") => self.ready(),
            (&Method::GET | &Method::HEAD, "/metrics") => self.metrics(),
            (&Method::GET | &Method::HEAD, "/v1/nodes") => self.nodes(),
            (&Method::POST, "/v1/purge") => match self.asked(request).await {
                Ok(body) => told(self.purge(&body).await),
                Err(refusal) => refusal,
            },
            (&Method::POST, "/v1/explain") => match self.asked(request).await {
                Ok(body) => told(self.explain(&body).await),
                Err(refusal) => refusal,
            },
            (&Method::GET | &Method::HEAD, "/v1/plugins") => {
                answer(StatusCode::OK, &plugins::list(&self.plugins))
            }
            (&Method::GET | &Method::HEAD, "/v1/l2/keys") => {
                let (allowed, uri) = (self.allows(&request), request.uri().clone());
                self.keys(allowed, &uri).await
            }
            (_, path) if plugins::target(path).is_some() => {
                let allowed = self.allows(&request);
                self.about_plugin(&method, path, allowed).await
            }
            (_, "/v1/purge" | "/v1/explain") => wrong_method("POST"),
            (
                _,
                "/livez" | "/readyz" | "/metrics" | "/v1/nodes" | "/v1/plugins" | "/v1/l2/keys",
            ) => wrong_method("GET, HEAD"),
            _ => answer(
                StatusCode::NOT_FOUND,
                &json!({"error": "no such page; there are /livez, /readyz, /metrics, /v1/nodes, /v1/plugins, /v1/plugins/NAME/calls, /v1/l2/keys, /v1/purge and /v1/explain"}),
            ),
        }
    }

    /// Ready while requests are taken, degraded or not: who is cut off from the others
    /// still serves.
    fn ready(&self) -> Response<Body> {
        let ready = self.ready.load(Ordering::Acquire);
        let standing = self.cluster.as_ref().map(|cluster| cluster.standing());
        let (status, state) = match (ready, &standing) {
            (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
            (true, Some(standing)) if !standing.is_whole() => (StatusCode::OK, "degraded"),
            (true, _) => (StatusCode::OK, "serving"),
        };
        let mut body = json!({"ready": ready, "state": state});
        if let Some(standing) = standing {
            body["bus"] = bus(&standing);
        }
        answer(status, &body)
    }

    /// Who is there.
    fn nodes(&self) -> Response<Body> {
        let Some(cluster) = &self.cluster else {
            let error = "there is no event bus (`bus` in the configuration)";
            return answer(StatusCode::NOT_FOUND, &json!({"error": error}));
        };
        let now = Instant::now();
        let nodes: Vec<Value> = cluster
            .nodes(now)
            .into_iter()
            .map(|(name, node)| {
                json!({
                    "node": name,
                    "healthy": node.state.as_ref().map(|state| state.healthy),
                    "version": node.state.as_ref().map(|state| &state.version),
                    "silent_ms": now.saturating_duration_since(node.heard).as_millis() as u64,
                })
            })
            .collect();
        let standing = bus(&cluster.standing());
        let body = json!({"node": cluster.name(), "bus": standing, "nodes": nodes});
        answer(StatusCode::OK, &body)
    }

    fn metrics(&self) -> Response<Body> {
        (self.refresh)();
        match metrics::text(&self.registry) {
            Ok(text) => {
                let mut response = Response::new(Body::full(text));
                response
                    .headers_mut()
                    .insert(CONTENT_TYPE, HeaderValue::from_static(metrics::MEDIA_TYPE));
                response
            }
            Err(error) => {
                tracing::error!(%error, "metrics can't be encoded");
                answer(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    &json!({"error": "metrics can't be encoded"}),
                )
            }
        }
    }

    /// What the second tier holds: which URLs are asked for is private.
    async fn keys(&self, allowed: bool, uri: &Uri) -> Response<Body> {
        if !allowed {
            return unauthorized();
        }
        let tier = self.proxy.cache.below().map(Arc::as_ref);
        let (status, body) = l2::keys(tier, uri.query().unwrap_or_default()).await;
        answer(status, &body)
    }

    async fn about_plugin(&self, method: &Method, path: &str, allowed: bool) -> Response<Body> {
        let (name, verb) = plugins::target(path).unwrap_or_default();
        // What clients sent is in the calls: private, though without secrets.
        let (is_right, methods) = match verb {
            "calls" => (matches!(*method, Method::GET | Method::HEAD), "GET, HEAD"),
            _ => (*method == Method::POST, "POST"),
        };
        if !is_right {
            return wrong_method(methods);
        }
        if !allowed {
            return unauthorized();
        }
        let (status, body) = match verb {
            "calls" => plugins::calls(&self.plugins, name),
            _ => plugins::act(&self.plugins, name, verb).await,
        };
        answer(status, &body)
    }

    /// Checks the token and reads the JSON body.
    async fn asked(&self, request: Request<Body>) -> Result<Value, Response<Body>> {
        if !self.allows(&request) {
            return Err(unauthorized());
        }
        let Ok(bytes) = collect(request.into_body(), MAX_BODY).await else {
            return Err(answer(
                StatusCode::PAYLOAD_TOO_LARGE,
                &json!({"error": "the body is larger than 64 KiB or broke off"}),
            ));
        };
        serde_json::from_slice(&bytes)
            .map_err(|error| told(Err(format!("the body is not JSON: {error}"))))
    }

    fn allows(&self, request: &Request<Body>) -> bool {
        let token = self.token.as_ref();
        token.is_none_or(|token| bearer::brings(request.headers(), token))
    }

    /// Holds here at once; with a second tier the answer waits for its log, for a while, and
    /// with `wait` for the other nodes.
    async fn purge(&self, body: &Value) -> Result<Value, String> {
        let Asked {
            selectors,
            kind,
            wait,
            notes,
        } = purge::read(body, &self.proxy)?;
        let (order, logged, peers) = match (&self.cluster, wait) {
            (Some(cluster), Some(wait)) => {
                let told = cluster.purge_and_wait(&selectors, kind, wait).await;
                let peers = purge::nodes(&told);
                let (orders, logged): (Vec<_>, Vec<_>) =
                    told.into_iter().map(|t| (t.order, t.logged)).unzip();
                (orders, logged, Some(peers))
            }
            (None, Some(_)) => {
                return Err("wait: there is no event bus, so no other node to wait for".to_owned());
            }
            (_, None) => {
                let cache = &self.proxy.cache;
                let purges = selectors.iter().map(|s| cache.purge_everywhere(s, kind));
                let (orders, logged): (Vec<_>, Vec<_>) = purges.unzip();
                (orders, logged, None)
            }
        };
        let order = order.into_iter().max().unwrap_or(0);
        let mut receipt = json!({"order": order, "selectors": selectors.len(), "applied": true});
        if let Some(l2) = purge::shared(logged.into_iter().flatten()).await {
            receipt["l2"] = l2;
        }
        if let Some(peers) = peers {
            receipt["peers"] = peers;
        }
        if !notes.is_empty() {
            receipt["notes"] = notes.into();
        }
        tracing::info!(request = %body, %receipt, "purged");
        Ok(receipt)
    }

    async fn explain(&self, body: &Value) -> Result<Value, String> {
        let url = body
            .get("url")
            .and_then(Value::as_str)
            .ok_or("expected {\"url\": \"http://host/path\", \"headers\": {…}}")?;
        let mut request = Request::builder().uri(url);
        for (name, value) in body
            .get("headers")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            request = request.header(name, value.as_str().unwrap_or_default());
        }
        let request = request
            .body(())
            .map_err(|error| format!("not a request: {error}"))?;
        let explanation = self.proxy.explain_here(request).await;
        serde_json::to_value(explanation).map_err(|error| error.to_string())
    }
}

fn bus(standing: &Standing) -> Value {
    json!({
        "transport": standing.transport,
        "hears": standing.hears,
        "publishes": standing.publishes,
        "purges_waiting": standing.unsent,
        "gap_open": standing.doubts,
    })
}

fn told(outcome: Result<Value, String>) -> Response<Body> {
    match outcome {
        Ok(value) => answer(StatusCode::OK, &value),
        Err(error) => answer(StatusCode::BAD_REQUEST, &json!({"error": error})),
    }
}

fn answer(status: StatusCode, value: &Value) -> Response<Body> {
    let mut response = Response::new(Body::full(format!("{value}\n")));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn unauthorized() -> Response<Body> {
    let mut response = answer(
        StatusCode::UNAUTHORIZED,
        &json!({"error": "a valid `Authorization: Bearer` token is needed"}),
    );
    response
        .headers_mut()
        .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

fn wrong_method(allowed: &'static str) -> Response<Body> {
    let mut response = answer(
        StatusCode::METHOD_NOT_ALLOWED,
        &json!({"error": format!("use {allowed}")}),
    );
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(allowed));
    response
}
