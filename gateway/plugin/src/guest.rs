//! One instance of a plugin: how it is made, started, limited and dropped.
//!
//! Invariant: a guest runs only while its deadline is set and its memory is counted; after any
//! failed call its instance is dropped and never used again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use wasmtime::component::{
    ComponentExportIndex, ComponentNamedList, Instance, InstancePre, Lift, Lower, TypedFunc,
};
use wasmtime::{Store, UpdateDeadline};
use wasmtime_wasi_http::p2::bindings::ProxyPre;

use super::Hook;
use super::bindings::types;
use super::calls::{FailedCalls, VersionIdentity};
use super::config::PluginLimits;
use super::contract::{self, Exports};
use super::engine::guest_runs;
use super::error::{CallError, PluginFault};
use super::fetch::FetchAllowance;
use super::health::{CallAdmission, HealthChange, VersionHealth};
use super::kv::KvStore;
use super::local::InstancePlaces;
use super::meter::{InstanceGauge, InstanceMemory, TotalMemory};
use super::metrics::PluginMetrics;
use super::outcome::{NotAllowed, TimedOut, explain};
use super::wasi::WasiState;
use crate::telemetry::limit::LineLimiter;

/// The time that the start of an instance may take, in addition to the call's own time. Measured: a
/// start takes 30 µs in Rust, 0.4 ms in QuickJS, 3 ms in Python; the first call of a fresh instance
/// then takes 0.1 ms in QuickJS and 0.2 ms in Python, three times as long as the next ones. So the
/// slow part of a language's runtime is over before the call's deadline begins.
pub(super) const START: Duration = Duration::from_millis(500);
/// Bytes that a hook other than `load` may pass to the host in one call; without this limit a small
/// guest could name one long text a million times.
const HANDED_OVER: usize = 1 << 20;

pub(super) type DescribeResult = (Result<types::Manifest, String>,);
pub(super) type DeriveFunction = TypedFunc<(types::KeyInputs,), (types::KeyDecision,)>;
pub(super) type LoadFunction = TypedFunc<(types::Request, types::Context), (types::LoadDecision,)>;
pub(super) type OnRequest = TypedFunc<(types::RequestHead,), (types::RequestDecision,)>;
pub(super) type OnResponse =
    TypedFunc<(types::RequestHead, types::ResponseHead), (types::ResponseDecision,)>;

/// What instances of one plugin are made from.
pub(super) struct GuestBlueprint {
    pub(super) name: Arc<str>,
    /// Linked with the imports that may be called on a listener's thread.
    pub(super) prompt: InstancePre<GuestState>,
    /// Linked with the imports that may wait.
    pub(super) waiting: InstancePre<GuestState>,
    /// Present if it answers requests through `wasi:http`.
    pub(super) handler: Option<ProxyPre<GuestState>>,
    pub(super) exports: Exports,
    /// The plugin's `config` as JSON text.
    pub(super) config: String,
    pub(super) limits: PluginLimits,
    pub(super) log: Arc<LineLimiter>,
    pub(super) metrics: PluginMetrics,
    pub(super) kv: Arc<KvStore>,
    /// The memory of the instances of all plugins.
    pub(super) total_memory: Arc<TotalMemory>,
    pub(super) health: VersionHealth,
    pub(super) identity: VersionIdentity,
    /// The calls that failed.
    pub(super) calls: Arc<FailedCalls>,
    /// Set when another version has replaced it.
    pub(super) retired: AtomicBool,
    /// Its instances on the threads that call hooks that may not wait.
    pub(super) places: InstancePlaces,
}

/// A live instance.
pub(super) struct Guest {
    pub(super) store: Store<GuestState>,
    pub(super) derive: Option<DeriveFunction>,
    pub(super) load: Option<LoadFunction>,
    pub(super) on_request: Option<OnRequest>,
    pub(super) on_response: Option<OnResponse>,
    uses_wasi: bool,
    calls: u64,
    born: Instant,
}

/// What the host keeps for a running guest.
pub(super) struct GuestState {
    pub(super) plugin: Arc<str>,
    pub(super) log: Arc<LineLimiter>,
    /// The hook that runs; none while the guest returns its manifest.
    pub(super) hook: Option<Hook>,
    /// Present during a `load`.
    pub(super) fetches: Option<FetchAllowance>,
    pub(super) kv: Arc<KvStore>,
    /// Present if the guest imports WASI.
    wasi: Option<Box<WasiState>>,
    deadline: Instant,
    memory: InstanceMemory,
    /// Counts this instance while it lives.
    _live: InstanceGauge,
}

/// Why an instance could not be started.
pub(super) enum GuestStartError {
    Instantiate(CallError),
    Describe(CallError),
    Config(String),
    Type {
        interface: &'static str,
        reason: String,
    },
}

impl GuestBlueprint {
    /// Makes an instance for the hooks that may not wait, and calls its `describe` for the
    /// manifest.
    pub(super) fn start(&self) -> Result<(Guest, types::Manifest), GuestStartError> {
        let mut store = self.store(|| UpdateDeadline::Continue(1), HANDED_OVER);
        let instance = match self.exports.uses_wasi {
            false => self.prompt.instantiate(&mut store),
            true => at_once(self.prompt.instantiate_async(&mut store)),
        };
        let instance =
            instance.map_err(|e| GuestStartError::Instantiate(store.data().explain(&e)))?;
        let Some(describe) = describe(&mut store, &instance, &self.exports)? else {
            return Ok((self.guest(store, &instance)?, self.silent()));
        };
        let answer = match self.exports.uses_wasi {
            false => describe.call(&mut store, (&self.config,)),
            true => at_once(describe.call_async(&mut store, (&self.config,))),
        };
        let manifest = read_manifest(&store, answer)?;
        Ok((self.guest(store, &instance)?, manifest))
    }

    /// Makes an instance for `load`.
    pub(super) async fn start_async(&self) -> Result<Guest, GuestStartError> {
        let mut store = self.waiting_store();
        let instance = self.waiting.instantiate_async(&mut store).await;
        let instance =
            instance.map_err(|e| GuestStartError::Instantiate(store.data().explain(&e)))?;
        if let Some(describe) = describe(&mut store, &instance, &self.exports)? {
            let answer = describe.call_async(&mut store, (&self.config,)).await;
            read_manifest(&store, answer)?;
        }
        self.guest(store, &instance)
    }

    /// A store for an instance that may wait.
    pub(super) fn waiting_store(&self) -> Store<GuestState> {
        let body = self.limits.max_body.as_usize();
        let handed_over = body.saturating_mul(2).saturating_add(HANDED_OVER);
        self.store(|| UpdateDeadline::Yield(1), handed_over)
    }

    /// The manifest of a component that has none: it counts as reading everything, since it is not
    /// known what it reads.
    fn silent(&self) -> types::Manifest {
        types::Manifest {
            name: self.name.to_string(),
            version: String::new(),
            inputs: types::KeyNeeds {
                method: false,
                host: false,
                path: false,
                query: types::QueryNeed::None,
                headers: Vec::new(),
                cookies: Vec::new(),
            },
            declarative: None,
            reads: types::Reads {
                headers: vec!["*".to_owned()],
                cookies: Vec::new(),
            },
        }
    }

    /// Makes a store whose guest is stopped at its deadline. When an epoch check comes before the
    /// deadline, `go_on` says how the guest continues.
    fn store(
        &self,
        go_on: impl Fn() -> UpdateDeadline + Send + Sync + 'static,
        handed_over: usize,
    ) -> Store<GuestState> {
        let state = GuestState {
            plugin: self.name.clone(),
            log: self.log.clone(),
            hook: None,
            fetches: None,
            kv: self.kv.clone(),
            wasi: self
                .exports
                .uses_wasi
                .then(|| Box::new(WasiState::new(&self.name, &self.log))),
            deadline: Instant::now() + START,
            memory: InstanceMemory::new(
                self.limits.max_memory.as_usize(),
                Arc::clone(&self.total_memory),
            ),
            _live: InstanceGauge::new(&self.metrics.instances),
        };
        guest_runs();
        let mut store = Store::new(self.prompt.engine(), state);
        store.limiter(|state| &mut state.memory);
        store.set_hostcall_fuel(handed_over);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(move |context| {
            guest_runs();
            match Instant::now() >= context.data().deadline {
                true => Err(wasmtime::Error::new(TimedOut)),
                false => Ok(go_on()),
            }
        });
        store
    }

    fn guest(
        &self,
        store: Store<GuestState>,
        instance: &Instance,
    ) -> Result<Guest, GuestStartError> {
        let mut guest = Guest {
            store,
            derive: None,
            load: None,
            on_request: None,
            on_response: None,
            uses_wasi: self.exports.uses_wasi,
            calls: 0,
            born: Instant::now(),
        };
        let (store, exports) = (&mut guest.store, &self.exports);
        guest.derive = hook(store, instance, exports.derive, contract::KEY)?;
        guest.load = hook(store, instance, exports.load, contract::LOAD)?;
        guest.on_request = hook(store, instance, exports.on_request, contract::ON_REQUEST)?;
        guest.on_response = hook(store, instance, exports.on_response, contract::ON_RESPONSE)?;
        Ok(guest)
    }

    /// Whether another version has replaced this one.
    pub(super) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    /// Asks whether a call may begin.
    ///
    /// # Errors
    /// When the plugin is set aside.
    pub(super) fn admit(&self, hook: Hook) -> Result<CallAdmission, CallError> {
        let turn = self.health.admit(Instant::now());
        turn.ok_or_else(|| {
            self.metrics.not_called(hook);
            CallError::Quarantined
        })
    }

    /// Counts a call that began at `started`; if it failed, its inputs are kept.
    pub(super) fn ended<T>(
        &self,
        turn: CallAdmission,
        (hook, started): (Hook, Instant),
        answer: &Result<T, CallError>,
        inputs: impl FnOnce() -> serde_json::Value,
    ) {
        let now = Instant::now();
        self.metrics
            .called(hook, answer, now.duration_since(started).as_secs_f64());
        let error = answer.as_ref().err();
        if let Some(error) = error.filter(|error| error.is_its_fault()) {
            self.calls.keep(&self.identity, hook, error, inputs());
        }
        let plugin = &*self.name;
        match self.health.ended(turn, error, now) {
            None => {}
            Some(HealthChange::Aside { reason }) => {
                tracing::error!(
                    plugin,
                    reason,
                    "plugin in quarantine: it is not called until a probe succeeds"
                );
            }
            Some(HealthChange::Healed) => {
                tracing::info!(plugin, "plugin quarantine ended: it is called again")
            }
        }
    }
}

impl Guest {
    /// Prepares the instance for one call.
    pub(super) fn arm(&mut self, hook: Hook, deadline: Instant) {
        self.calls += 1;
        self.store.data_mut().begin(hook, deadline);
        self.store.set_epoch_deadline(1);
    }

    /// Calls a hook that may not wait.
    pub(super) fn call<P, R>(&mut self, hook: TypedFunc<P, (R,)>, inputs: P) -> Result<R, CallError>
    where
        P: ComponentNamedList + Lower + Send + Sync,
        R: Send + Sync + 'static,
        (R,): ComponentNamedList + Lift,
    {
        let answer = match self.uses_wasi {
            false => hook.call(&mut self.store, inputs),
            true => at_once(hook.call_async(&mut self.store, inputs)),
        };
        let (answer,) = answer.map_err(|error| self.store.data().explain(&error))?;
        Ok(answer)
    }

    /// Bytes of the instance's linear memories.
    pub(super) fn linear_memory(&self) -> usize {
        self.store.data().memory.used
    }

    /// Whether the instance should be replaced by a fresh one: runtimes of some languages leak
    /// memory.
    pub(super) fn is_worn_out(&self, limits: &PluginLimits) -> bool {
        self.calls >= limits.max_requests
            || self.store.data().memory.used > limits.recycle_memory.as_usize()
            || self.store.data().memory.total.is_scarce()
            || self.born.elapsed() >= limits.max_age.0
    }
}

/// The result of a call that must not wait; if an import would wait, the call is refused.
fn at_once<T>(call: impl Future<Output = wasmtime::Result<T>>) -> wasmtime::Result<T> {
    let refused = || Err(wasmtime::Error::new(NotAllowed("a wait")));
    call.now_or_never().unwrap_or_else(refused)
}

/// The function of a hook, if it is exported.
fn hook<P, R>(
    store: &mut Store<GuestState>,
    instance: &Instance,
    index: Option<ComponentExportIndex>,
    interface: &'static str,
) -> Result<Option<TypedFunc<P, R>>, GuestStartError>
where
    P: ComponentNamedList + Lower,
    R: ComponentNamedList + Lift,
{
    let function = index.map(|index| instance.get_typed_func(store, index));
    function.transpose().map_err(|e| wrong_type(interface, &e))
}

impl GuestState {
    /// Called when a call begins.
    pub(super) fn begin(&mut self, hook: Hook, deadline: Instant) {
        guest_runs();
        self.deadline = deadline;
        self.hook = Some(hook);
    }

    /// The instance's WASI state.
    pub(super) fn wasi(&mut self) -> &mut WasiState {
        self.wasi.as_mut().expect("only who imports WASI calls it")
    }

    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The error that a failed call of this guest stands for.
    pub(super) fn explain(&self, error: &wasmtime::Error) -> CallError {
        explain(&self.memory, self.hook, error)
    }
}

fn describe<'a>(
    store: &mut Store<GuestState>,
    instance: &Instance,
    exports: &Exports,
) -> Result<Option<TypedFunc<(&'a str,), DescribeResult>>, GuestStartError> {
    hook(store, instance, exports.describe, contract::MANIFEST)
}

fn read_manifest(
    store: &Store<GuestState>,
    answer: wasmtime::Result<DescribeResult>,
) -> Result<types::Manifest, GuestStartError> {
    let (manifest,) = answer.map_err(|e| GuestStartError::Describe(store.data().explain(&e)))?;
    manifest.map_err(GuestStartError::Config)
}

fn wrong_type(interface: &'static str, error: &wasmtime::Error) -> GuestStartError {
    GuestStartError::Type {
        interface,
        reason: format!("{error:#}"),
    }
}

impl From<GuestStartError> for CallError {
    fn from(error: GuestStartError) -> Self {
        match error {
            GuestStartError::Instantiate(error) | GuestStartError::Describe(error) => error,
            GuestStartError::Config(reason) => Self::invalid(format!(
                "a fresh instance refuses the configuration: {reason}"
            )),
            GuestStartError::Type { interface, reason } => {
                Self::invalid(format!("`{interface}`: {reason}"))
            }
        }
    }
}

impl From<GuestStartError> for PluginFault {
    fn from(error: GuestStartError) -> Self {
        match error {
            GuestStartError::Instantiate(error) => Self::Start(error),
            GuestStartError::Describe(error) => Self::Describe(error),
            GuestStartError::Config(reason) => Self::Config(reason),
            GuestStartError::Type { interface, reason } => Self::WrongType {
                interface: interface.into(),
                reason,
            },
        }
    }
}
