//! Loads what a hot key of an earlier process stands for, while the gateway warms up.
//!
//! Nobody asks for it, so the request is made up: a GET for the URL in the key, without any other
//! field. So only those keys are loaded that such a request has, by the routes and key rules of now:
//! what depends on headers, cookies or a plugin's view of a client is left to the client.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::HOST;
use http::{HeaderValue, Method, Request, Uri, Version};
use http_body_util::BodyExt;

use crate::cache::Lookup;
use crate::cache::key::{EntryKey, StoredKeyFields};
use crate::cache::warm::metrics::WarmOutcome;
use crate::http::body::Body;
use crate::http::forward::{self, ForwardingContext, PeerTrust, RequestSender};
use crate::proxy::context::{DerivedKey, RequestContext};
use crate::proxy::lookup::{HitSample, RoutedRequest};
use crate::proxy::plan::{self, RequestPlan};
use crate::proxy::{Proxy, esi, miss, origin_query};

/// How often it is looked whether a body that has come is stored, and how long after each look.
const LOOKS: usize = 20;
const BETWEEN: Duration = Duration::from_millis(5);

impl Proxy {
    /// Loads what is stored under `key` from its origin, unless it is here and certain.
    pub async fn load_hot(self: &Arc<Self>, key: &EntryKey) -> WarmOutcome {
        let Some((ask, keyed)) = self.made_up(key) else {
            return WarmOutcome::Skipped;
        };
        let found = self
            .cache
            .lookup(&keyed.key, &ask.parts.headers, ask.started);
        if matches!(found, Lookup::Fresh(_)) {
            return WarmOutcome::Restored;
        }
        let ask = Arc::new(ask);
        let primary = keyed.key.clone();
        let served = miss::answer(self, Arc::clone(&ask), keyed, found).await;
        let mut body = served.response.into_body();
        while let Some(frame) = body.frame().await {
            if frame.is_err() {
                return WarmOutcome::Failed;
            }
        }
        for _ in 0..LOOKS {
            let headers = &ask.parts.headers;
            let stored = self.cache.fresh_again(&primary, headers, Instant::now());
            if stored.is_some() {
                return WarmOutcome::Restored;
            }
            tokio::time::sleep(BETWEEN).await;
        }
        WarmOutcome::Failed
    }

    /// The request for a key, if a request without any fields has this key.
    fn made_up(&self, key: &EntryKey) -> Option<(RequestContext, DerivedKey)> {
        let generation = self.generation();
        let fields = StoredKeyFields::read(key.as_bytes())?;
        let scheme = match fields.scheme {
            "https" => "https",
            _ => "http",
        };
        let uri: Uri = match fields.query {
            Some(query) => format!("{}?{query}", fields.path).parse().ok()?,
            None => fields.path.parse().ok()?,
        };
        let mut parts = Request::new(()).into_parts().0;
        (parts.method, parts.uri, parts.version) = (Method::GET, uri, Version::HTTP_11);
        let host = fields.host.to_owned();
        parts
            .headers
            .insert(HOST, HeaderValue::from_str(&host).ok()?);
        let nobody = RequestSender::nobody(scheme);
        let version = parts.version;
        let ForwardingContext { caller, wishes, .. } =
            forward::receive(&mut parts.headers, version, nobody, PeerTrust::Nothing).0;
        let route = Arc::clone(generation.routes.find(&host, &parts)?);
        if route.request_plugin.is_some() {
            return None;
        }
        esi::prepare(&route, &mut parts);
        let started = Instant::now();
        let body = Body::empty();
        let planned = plan::plan(&RoutedRequest {
            parts: &parts,
            body: &body,
            host: &host,
            scheme,
            wishes: &wishes,
            route: &route,
            started,
            trail: None,
            sample: HitSample::LeftOut,
            codings: None,
        });
        let RequestPlan::Cache(keyed) = planned else {
            return None;
        };
        if keyed.key.as_bytes() != fields.primary {
            return None;
        }
        origin_query::narrow(&mut parts.uri, &route, &keyed.key);
        let path_rules = generation.path_rules[0];
        let ask = RequestContext {
            generation,
            parts,
            host,
            scheme,
            caller,
            wishes,
            path_rules,
            route,
            started,
            interim: None,
            memory: None,
            trail: None,
        };
        Some((ask, keyed))
    }
}
