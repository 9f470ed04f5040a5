//! Whether the gateway is alive and accepts requests, its metrics, and the other nodes.
//!
//! Decision: scrapes that wait at the same time share one text, whose collection began after each
//! of them had arrived. So a flood of scrapes costs only one for each turn of the thread, and
//! answers that nobody reads share the same bytes. No scrape gets an older text than it would
//! without this.

use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use http::{Response, StatusCode};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::phase::ServingPhase;
use super::{AdminService, answer, upstreams};
use crate::acme::MissingCertificates;
use crate::cache::l2::StoreHealth;
use crate::cluster::{BusStatus, Cluster, PublishStatus};
use crate::http::body::Body;
use crate::telemetry::metrics;

/// The last text of the metrics, and when its collection began.
#[derive(Default)]
pub struct LastScrape(Mutex<Option<(Instant, Bytes)>>);

impl AdminService {
    /// Ready as long as requests are accepted, even if degraded: a node that is cut off from the
    /// others still serves.
    pub(super) fn ready(&self) -> Response<Body> {
        let phase = *self.phase.borrow();
        let ready = phase == ServingPhase::Serving;
        let standing = self.cluster.as_ref().map(|cluster| cluster.standing());
        let reach = self.proxy.cache.reach();
        let names = self.proxy.generation().origins.failing_names();
        let missing = self.acme.as_ref().and_then(|acme| acme.missing());
        let is_whole = standing.as_ref().is_none_or(BusStatus::is_whole)
            && reach == StoreHealth::Whole
            && missing.is_none()
            && names.is_empty();
        let (status, state) = match (ready, is_whole) {
            (false, _) => (StatusCode::SERVICE_UNAVAILABLE, phase.as_str()),
            (true, false) => (StatusCode::OK, "degraded"),
            (true, true) => (StatusCode::OK, "serving"),
        };
        let mut body = json!({"ready": ready, "state": state});
        if self.keylog.load(Ordering::Relaxed) {
            body["tls"] = json!({"keylog": "on"});
        }
        if let Some(standing) = standing {
            body["bus"] = bus(&standing);
        }
        if let Some(l2) = self.second_tier(&reach) {
            body["l2"] = l2;
        }
        if let Some(MissingCertificates { names, count }) = missing {
            body["certificates"] = json!({"state": "degraded", "missing": names, "count": count});
        }
        if !names.is_empty() {
            body["names"] = upstreams::failing_names(names);
        }
        answer::json(status, &body)
    }

    /// The state of the second tier. None if no second tier is configured.
    fn second_tier(&self, reach: &StoreHealth) -> Option<Value> {
        let kind = self.proxy.cache.second_tier_kind()?;
        let waiting = self.proxy.cache.purges_waiting_for_second_tier();
        let mut body = json!({"store": kind, "purges_waiting": waiting});
        body["state"] = match reach {
            StoreHealth::Whole => "serving".into(),
            StoreHealth::Degraded { .. } => "degraded".into(),
        };
        add_reason(&mut body, reach);
        Some(body)
    }

    /// The known nodes and their states.
    pub(super) fn nodes(&self) -> Response<Body> {
        let mut body = match &self.cluster {
            Some(cluster) => nodes_of(cluster),
            None => json!({"node": null, "bus": null, "nodes": []}),
        };
        if let Some(l2) = self.second_tier(&self.proxy.cache.reach()) {
            body["l2"] = l2;
        }
        answer::json(StatusCode::OK, &body)
    }

    pub(super) async fn metrics(&self) -> Response<Body> {
        let asked = Instant::now();
        // Lets the other tasks of this thread run: other requests for metrics join this scrape.
        tokio::task::yield_now().await;
        let mut last = self.work_limits.last_scrape.0.lock();
        let shared = last.as_ref().filter(|(begun, _)| *begun > asked);
        if let Some((_, text)) = shared {
            return answer::text(StatusCode::OK, metrics::MEDIA_TYPE, text.clone());
        }
        let begun = Instant::now();
        (self.refresh)();
        match metrics::text(&self.registry) {
            Ok(text) => {
                let text = Bytes::from(text);
                *last = Some((begun, text.clone()));
                answer::text(StatusCode::OK, metrics::MEDIA_TYPE, text)
            }
            Err(error) => {
                tracing::error!(%error, "metrics can't be encoded");
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                answer::error(status, "metrics can't be encoded")
            }
        }
    }
}

/// Why the second tier is degraded, and for how long it has been.
pub(super) fn add_reason(body: &mut Value, reach: &StoreHealth) {
    if let StoreHealth::Degraded { since, why } = reach {
        body["reason"] = why.as_str().into();
        body["for_ms"] = (since.elapsed().as_millis() as u64).into();
    }
}

/// What a node knows of the others and of its bus.
fn nodes_of(cluster: &Cluster) -> Value {
    let now = Instant::now();
    let nodes: Vec<Value> = cluster
        .nodes(now)
        .into_iter()
        .map(|(name, node)| {
            let is_silent = cluster.is_silent(&node, now);
            let healthy = node.state.as_ref().map(|state| state.healthy);
            let state = match (is_silent, healthy) {
                (true, _) => "silent",
                (false, Some(true)) => "healthy",
                (false, _) => "degraded",
            };
            json!({
                "node": name,
                "state": state,
                "healthy": state == "healthy",
                "version": node.state.as_ref().map(|state| &state.version),
                "silent_ms": now.saturating_duration_since(node.heard).as_millis() as u64,
            })
        })
        .collect();
    json!({"node": cluster.name(), "bus": bus(&cluster.standing()), "nodes": nodes})
}

fn bus(standing: &BusStatus) -> Value {
    let mut body = json!({
        "transport": standing.transport,
        "hears": standing.hears,
        "publishes": standing.publishes(),
        "purges_waiting": standing.unsent,
        "gap_open": standing.doubts,
    });
    if let PublishStatus::Fails { since, why } = &standing.publishing {
        body["reason"] = why.as_str().into();
        body["for_ms"] = (since.elapsed().as_millis() as u64).into();
    }
    body
}
