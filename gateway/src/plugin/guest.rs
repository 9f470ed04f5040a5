//! One instance of a plugin: made, started, limited, and thrown away.
//!
//! Invariant: a guest runs only while its deadline is armed and its memory counted;
//! after any failed call its instance is dropped, never used again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmtime::component::{Instance, InstancePre, TypedFunc};
use wasmtime::{Store, UpdateDeadline};

use super::bindings::types;
use super::config::Limits;
use super::contract::{self, Exports};
use super::engine::guest_runs;
use super::error::{CallError, Cause};
use super::fetch::Fetches;
use super::meter::{Live, Memory};
use super::metrics::Metrics;
use super::outcome::{TimedOut, explain};
use crate::telemetry::limit::LineLimiter;

/// Time that the start of an instance may take, besides the call's own.
pub(super) const START: Duration = Duration::from_millis(500);
/// Bytes that a hook other than `load` may hand to the host in one go; without it a
/// small guest could name one long text a million times.
const HANDED_OVER: usize = 1 << 20;

pub(super) type Describe = (Result<types::Manifest, String>,);
pub(super) type Derive = TypedFunc<(types::KeyInputs,), (types::KeyDecision,)>;
pub(super) type Load = TypedFunc<(types::Request, types::Context), (types::LoadDecision,)>;

/// What instances of one plugin are made from.
pub(super) struct Blueprint {
    pub(super) name: Arc<str>,
    /// With the imports that may be called on a listener's thread.
    pub(super) key: InstancePre<State>,
    /// With the imports that may wait.
    pub(super) load: InstancePre<State>,
    pub(super) exports: Exports,
    /// The plugin's `config` as JSON text.
    pub(super) config: String,
    pub(super) limits: Limits,
    pub(super) log: Arc<LineLimiter>,
    pub(super) metrics: Metrics,
}

/// A live instance.
pub(super) struct Guest {
    pub(super) store: Store<State>,
    pub(super) derive: Option<Derive>,
    pub(super) load: Option<Load>,
    calls: u64,
    born: Instant,
}

/// What the host knows of a running guest.
pub(super) struct State {
    pub(super) plugin: Arc<str>,
    pub(super) log: Arc<LineLimiter>,
    /// Present during a `load`.
    pub(super) fetches: Option<Fetches>,
    deadline: Instant,
    memory: Memory,
    /// Counts this instance while it lives.
    _live: Live,
}

/// Why an instance did not start.
pub(super) enum StartError {
    Instantiate(CallError),
    Describe(CallError),
    Config(String),
    Type {
        interface: &'static str,
        reason: String,
    },
}

impl Blueprint {
    /// Makes an instance for `key`, and asks it for its manifest.
    pub(super) fn start(&self) -> Result<(Guest, types::Manifest), StartError> {
        let mut store = self.store(|| UpdateDeadline::Continue(1), HANDED_OVER);
        let instance = self.key.instantiate(&mut store);
        let instance = instance.map_err(|e| StartError::Instantiate(store.data().explain(&e)))?;
        let describe = describe(&mut store, &instance, &self.exports)?;
        let answer = describe.call(&mut store, (&self.config,));
        let manifest = read_manifest(&store, answer)?;
        Ok((self.guest(store, &instance)?, manifest))
    }

    /// Makes an instance for `load`.
    pub(super) async fn start_async(&self) -> Result<Guest, StartError> {
        let handed_over = self
            .limits
            .max_body
            .as_usize()
            .saturating_mul(2)
            .saturating_add(HANDED_OVER);
        let mut store = self.store(|| UpdateDeadline::Yield(1), handed_over);
        let instance = self.load.instantiate_async(&mut store).await;
        let instance = instance.map_err(|e| StartError::Instantiate(store.data().explain(&e)))?;
        let describe = describe(&mut store, &instance, &self.exports)?;
        let answer = describe.call_async(&mut store, (&self.config,)).await;
        read_manifest(&store, answer)?;
        self.guest(store, &instance)
    }

    /// A store whose guest is ended at its deadline, and goes on by `go_on` when it was
    /// only looked at.
    fn store(
        &self,
        go_on: impl Fn() -> UpdateDeadline + Send + Sync + 'static,
        handed_over: usize,
    ) -> Store<State> {
        let state = State {
            plugin: self.name.clone(),
            log: self.log.clone(),
            fetches: None,
            deadline: Instant::now() + START,
            memory: Memory::new(self.limits.max_memory.as_usize()),
            _live: Live::new(&self.metrics.instances),
        };
        guest_runs();
        let mut store = Store::new(self.key.engine(), state);
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

    fn guest(&self, mut store: Store<State>, instance: &Instance) -> Result<Guest, StartError> {
        let derive = self
            .exports
            .derive
            .map(|index| instance.get_typed_func(&mut store, index));
        let derive = derive
            .transpose()
            .map_err(|e| wrong_type(contract::KEY, &e))?;
        let load = self
            .exports
            .load
            .map(|index| instance.get_typed_func(&mut store, index));
        let load = load
            .transpose()
            .map_err(|e| wrong_type(contract::LOAD, &e))?;
        Ok(Guest {
            store,
            derive,
            load,
            calls: 0,
            born: Instant::now(),
        })
    }
}

impl Guest {
    /// Makes ready for one call.
    pub(super) fn arm(&mut self, deadline: Instant) {
        self.calls += 1;
        guest_runs();
        self.store.data_mut().deadline = deadline;
        self.store.set_epoch_deadline(1);
    }

    /// Whether it is time for a fresh one: runtimes of some languages leak.
    pub(super) fn is_worn_out(&self, limits: &Limits) -> bool {
        self.calls >= limits.max_requests
            || self.store.data().memory.used > limits.recycle_memory.as_usize()
            || self.born.elapsed() >= limits.max_age.0
    }
}

impl State {
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// What a failed call of this guest means.
    pub(super) fn explain(&self, error: &wasmtime::Error) -> CallError {
        explain(&self.memory, error)
    }
}

fn describe<'a>(
    store: &mut Store<State>,
    instance: &Instance,
    exports: &Exports,
) -> Result<TypedFunc<(&'a str,), Describe>, StartError> {
    instance
        .get_typed_func(store, exports.describe)
        .map_err(|e| wrong_type(contract::MANIFEST, &e))
}

fn read_manifest(
    store: &Store<State>,
    answer: wasmtime::Result<Describe>,
) -> Result<types::Manifest, StartError> {
    let (manifest,) = answer.map_err(|e| StartError::Describe(store.data().explain(&e)))?;
    manifest.map_err(StartError::Config)
}

fn wrong_type(interface: &'static str, error: &wasmtime::Error) -> StartError {
    StartError::Type {
        interface,
        reason: format!("{error:#}"),
    }
}

impl From<StartError> for CallError {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Instantiate(error) | StartError::Describe(error) => error,
            StartError::Config(reason) => Self::invalid(format!(
                "a fresh instance refuses the configuration: {reason}"
            )),
            StartError::Type { interface, reason } => {
                Self::invalid(format!("`{interface}`: {reason}"))
            }
        }
    }
}

impl From<StartError> for Cause {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Instantiate(error) => Self::Start(error),
            StartError::Describe(error) => Self::Describe(error),
            StartError::Config(reason) => Self::Config(reason),
            StartError::Type { interface, reason } => Self::WrongType {
                interface: interface.into(),
                reason,
            },
        }
    }
}
