//! The admin listener: health, metrics, purge, plugins, upstreams, the second tier's keys, explain.
//!
//! It runs on a thread and a runtime of its own, so that it answers even when the listeners are
//! overloaded. `table` lists every request that is answered, with the right that it needs; `gate`
//! checks each of them in one place, with `hosts`, `browser` and `tokens`; `audit` logs what was
//! done. An address beyond loopback requires a token (`config` refuses to start otherwise).

mod answer;
pub mod audit;
mod browser;
mod certificates;
pub mod config;
mod config_reload;
mod explain;
mod gate;
mod health;
mod hosts;
mod l2;
mod maintenance;
pub mod phase;
mod plugins;
mod purge;
mod purge_api;
mod requests;
pub mod table;
mod tokens;
mod upstreams;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use http::{Request, Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, SemaphorePermit, TryAcquireError};

use crate::acme::AcmeManager;
use crate::cluster::Cluster;
use crate::http::body::{Body, collect};
use crate::http::config::ListenerLimits;
use crate::http::server::Peer;
use crate::proxy::Proxy;
use crate::proxy::record::recent::RecentRequestLog;
use crate::telemetry::metrics::Registry;
use crate::units::{ByteSize, ConfigDuration};
use audit::{AdminActionSource, AuditLine, RefusalAuditLimiter};
use gate::{AdmittedAdminRequest, RefusalAudit};
use health::LastScrape;
use phase::ServingPhaseReceiver;
use table::{AdminAccess, AdminAction};

pub use browser::INTENT;
pub use gate::AdminGate;
pub use tokens::ALMIGHTY;

/// Everything that the admin listener answers from.
pub struct AdminService {
    pub proxy: Arc<Proxy>,
    /// The other nodes, if there is an event bus.
    pub cluster: Option<Arc<Cluster>>,
    pub registry: Registry,
    pub recent: Arc<RecentRequestLog>,
    pub gate: Arc<ArcSwap<AdminGate>>,
    pub work_limits: AdminWorkLimits,
    /// Whether requests should come.
    pub phase: ServingPhaseReceiver,
    /// What obtains certificates, if any are to be obtained.
    pub acme: Option<Arc<AcmeManager>>,
    /// Whether secrets of TLS sessions are written to a file.
    pub keylog: Arc<AtomicBool>,
    /// Updates the gauges before a scrape.
    pub refresh: Box<dyn Fn() + Send + Sync>,
    /// Takes up the configuration, or says what that would do.
    pub reload: AdminReloadFunction,
}

/// Does with the configuration what an operator wants.
pub type AdminReloadFunction = Box<
    dyn Fn(AdminReload, AdminActionSource) -> BoxFuture<'static, AdminReloadAnswer> + Send + Sync,
>;

/// What is to be done with the configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AdminReload {
    Apply,
    /// Say what taking it up would do. None: the gateway's own file.
    Plan(Option<PathBuf>),
}

/// A report, or what is wrong with the word for it: `busy`, `invalid`, `not_live` or `failed`.
pub type AdminReloadAnswer = Result<Value, (&'static str, Value)>;

/// The limits for the work on admin requests.
pub struct AdminWorkLimits {
    /// One place for each request that is not open and may wait for something, such as its own body
    /// or other nodes. There are fewer places than connections, so there is always a connection
    /// that can be closed for a new client.
    places: Semaphore,
    refusals: RefusalAuditLimiter,
    last_scrape: LastScrape,
}

/// The most bytes of an admin request's body.
const MAX_BODY: usize = 64 << 10;

/// The most requests at once that are not open.
const MAX_AT_ONCE: usize = 32;

/// The limits of a connection to the admin listener. The deadlines are short, since its clients are
/// near. The number of streams is small, which limits the memory of answers that nobody reads.
pub fn limits() -> ListenerLimits {
    ListenerLimits {
        max_connections: 128,
        max_body_bytes: ByteSize::mib(1),
        header_timeout: ConfigDuration::secs(2),
        body_timeout: ConfigDuration::secs(5),
        upload_timeout: ConfigDuration::secs(5),
        idle_timeout: ConfigDuration::secs(30),
        max_streams: 4,
        ..ListenerLimits::default()
    }
}

impl Default for AdminWorkLimits {
    fn default() -> Self {
        Self {
            places: Semaphore::new(MAX_AT_ONCE),
            refusals: RefusalAuditLimiter::new(Instant::now()),
            last_scrape: LastScrape::default(),
        }
    }
}

impl AdminService {
    /// Answers one admin request.
    pub async fn handle(self: Arc<Self>, request: Request<Body>, peer: Peer) -> Response<Body> {
        let gate = self.gate.load_full();
        let api = purge_api::asked(&request);
        let admitted = match gate.check(&request, peer) {
            Ok(admitted) => admitted,
            Err(refusal) => {
                if refusal.audit == RefusalAudit::Line {
                    self.work_limits.refusals.tell(&refusal, &request, peer);
                }
                return answer::guarded(purge_api::told_by(api, refusal.response));
            }
        };
        let mut line = AuditLine::of(&admitted, &request, peer);
        let response = match self.reserve(admitted.entry.access) {
            _ if self.proxy.passes_on() && admitted.entry.access != AdminAccess::Open => {
                answer::replaced()
            }
            Ok(_place) => self.act(&gate, &admitted, request, line.as_mut()).await,
            Err(_) => answer::busy(),
        };
        if let Some(line) = line {
            line.ends(response.status());
        }
        answer::guarded(purge_api::told_by(api, response))
    }

    /// Takes a place for a request that may wait for something; open requests need none.
    fn reserve(&self, access: AdminAccess) -> Result<Option<SemaphorePermit<'_>>, TryAcquireError> {
        match access {
            AdminAccess::Open => Ok(None),
            AdminAccess::Needs(_) | AdminAccess::NeedsToken(_) => {
                self.work_limits.places.try_acquire().map(Some)
            }
        }
    }

    async fn act(
        &self,
        gate: &AdminGate,
        admitted: &AdmittedAdminRequest<'_>,
        request: Request<Body>,
        line: Option<&mut AuditLine>,
    ) -> Response<Body> {
        let generation = self.proxy.generation();
        let (plugins, name) = (&generation.plugins, admitted.name.as_str());
        let (status, body) = match admitted.entry.action {
            AdminAction::Live => (StatusCode::OK, json!({"live": true})),
            AdminAction::Ready => return self.ready(),
            AdminAction::Metrics => return self.metrics().await,
            AdminAction::Nodes => return self.nodes(),
            AdminAction::Plugins => (StatusCode::OK, plugins::list(plugins)),
            AdminAction::FailedCalls => plugins::calls(plugins, name),
            AdminAction::Reload => plugins::reload(plugins, name).await,
            AdminAction::Quarantine => plugins::quarantine(plugins, name, &self.proxy),
            AdminAction::Resume => plugins::resume(plugins, name),
            AdminAction::Certificates => certificates::list(self.acme.as_deref()),
            AdminAction::RenewCertificate => certificates::renew(self.acme.as_deref(), name),
            AdminAction::RevokeCertificate => {
                certificates::revoke(self.acme.as_deref(), name).await
            }
            AdminAction::Keys => {
                let tier = self.proxy.cache.second_tier().map(Arc::as_ref);
                l2::keys(tier, request.uri().query().unwrap_or_default()).await
            }
            AdminAction::RecentRequests => {
                let query = request.uri().query().unwrap_or_default();
                return answer::of_outcome(requests::recent(&self.recent, query));
            }
            AdminAction::Upstreams => (StatusCode::OK, upstreams::list(&generation.origins)),
            AdminAction::ChangeTarget => match asked(request, line).await {
                Ok(body) => upstreams::change(&generation.origins, name, &admitted.target, &body),
                Err(refusal) => return refusal,
            },
            AdminAction::SwitchMaintenance => match asked(request, line).await {
                Ok(body) => maintenance::switch(&generation, name, &body),
                Err(refusal) => return refusal,
            },
            AdminAction::ReloadConfig => return self.reload_config(request, line).await,
            AdminAction::Explain => {
                return match asked(request, line).await {
                    Ok(body) => answer::of_outcome(explain::explain(&self.proxy, &body).await),
                    Err(refusal) => refusal,
                };
            }
            AdminAction::PurgeAs(api) => {
                let (apis, proxy) = (&gate.purge_apis, &*self.proxy);
                return purge_api::answer(api, admitted, request, apis, proxy, line).await;
            }
            AdminAction::Purge => {
                return match asked(request, line).await {
                    Ok(body) => {
                        let cluster = self.cluster.as_deref();
                        answer::of_outcome(purge::purge(&body, &self.proxy, cluster).await)
                    }
                    Err(refusal) => refusal,
                };
            }
        };
        answer::json(status, &body)
    }

    async fn reload_config(
        &self,
        request: Request<Body>,
        line: Option<&mut AuditLine>,
    ) -> Response<Body> {
        let source = line.as_ref().map(|line| line.source().clone());
        let wanted = match config_reload::wanted(request, line).await {
            Ok(wanted) => wanted,
            Err(refusal) => return refusal,
        };
        config_reload::answer((self.reload)(wanted, source.unwrap_or_default()).await)
    }
}

/// Reads the JSON body.
async fn asked(
    request: Request<Body>,
    line: Option<&mut AuditLine>,
) -> Result<Value, Response<Body>> {
    let Ok(bytes) = collect(request.into_body(), MAX_BODY).await else {
        let message = "the body is larger than 64 KiB or broke off";
        return Err(answer::error(StatusCode::PAYLOAD_TOO_LARGE, message));
    };
    if let Some(line) = line {
        line.asked(&bytes);
    }
    let refused = |message| answer::of_outcome(Err(message));
    match serde_json::from_slice(&bytes) {
        // A list would be read as the values of an object, in the order in which we know its keys.
        Ok(Value::Array(_)) => Err(refused("the body is a list; expected an object".to_owned())),
        Ok(value) => Ok(value),
        Err(error) => Err(refused(format!("the body is not JSON: {error}"))),
    }
}
