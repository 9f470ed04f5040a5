//! The wasmtime engine of one set of plugins, its epoch clock, and the threads of loaders.
//!
//! One engine serves all hooks. Support for concurrent components is off, since it would cost each
//! `key` call 0.35 µs; loaders still suspend on a fetch, each on a stack of its own. A thread of
//! the engine advances its epoch: in this way a guest that never returns is noticed. Loaders run on
//! threads of their own, with a slightly lower priority than the listeners, so that a busy guest
//! does not delay those.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::config::{PluginConfig, PluginLimits};

/// The time between two checks of a running guest's deadline.
pub(super) const TICK: Duration = Duration::from_millis(2);
/// The same while no guest runs, and after how many ticks without a guest it applies: a process
/// that finds all keys in its memory need not wake up 500 times a second.
const IDLE_TICK: Duration = Duration::from_millis(40);
const IDLE_AFTER: u32 = 500;

/// Increases with every guest call. Clocks only check whether it has changed.
static WORK: AtomicU64 = AtomicU64::new(0);

/// Shows the clocks that a guest runs.
pub(super) fn guest_runs() {
    WORK.fetch_add(1, Ordering::Relaxed);
}

/// Stack for the host functions that are called by a guest on a stack of its own.
const HOST_STACK: usize = 512 << 10;
/// The most elements of a guest's tables.
pub(super) const MAX_TABLE_ELEMENTS: usize = 100_000;
/// Core instances that one component may consist of: the module and the shims that make it a
/// component, or the many libraries of a language's runtime (Python has about 30).
const CORE_INSTANCES: u32 = 64;
/// Memories that one component may have: its own, and empty ones of the parts that some tools
/// compose it from (componentize-qjs: two).
const MEMORIES: u32 = 4;
/// The most instances of all plugins together, whatever `max_concurrent` says.
const MAX_INSTANCES: usize = 4_096;

/// Makes the engine that `plugins` share, and starts its clock.
pub(super) fn start(plugins: &BTreeMap<String, PluginConfig>) -> wasmtime::Result<Engine> {
    let engine = Engine::new(&pooled(plugins)).or_else(|error| {
        // Little address space is available, for example under `ulimit -v`: slower, but it works.
        tracing::warn!(
            %error,
            "no memory pool for plugins could be created; memory is allocated on demand"
        );
        Engine::new(&base(plugins))
    })?;
    tick(&engine).map_err(|e| wasmtime::format_err!("{e}"))?;
    Ok(engine)
}

/// An engine that only compiles. Its code can be used by the engines of [`start`], since memory
/// pools and stacks do not affect the code.
pub(super) fn for_compiling() -> wasmtime::Result<Engine> {
    Engine::new(&base(&BTreeMap::new()))
}

fn base(plugins: &BTreeMap<String, PluginConfig>) -> Config {
    let stack = largest(plugins, |l| l.max_stack.as_usize());
    let mut config = Config::new();
    config.concurrency_support(false);
    config.epoch_interruption(true);
    config.max_wasm_stack(stack);
    config.async_stack_size(stack + HOST_STACK);
    // A pure hook must return the same on every machine.
    config.cranelift_nan_canonicalization(true);
    config.relaxed_simd_deterministic(true);
    config.wasm_memory64(false);
    config
}

fn pooled(plugins: &BTreeMap<String, PluginConfig>) -> Config {
    let instances = instances(plugins);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances);
    pool.total_core_instances(instances * CORE_INSTANCES);
    pool.max_core_instances_per_component(CORE_INSTANCES);
    // Each memory reserves 4 GiB of address space, so fewer than `MEMORIES` for each instance.
    pool.total_memories(instances * 2);
    pool.max_memories_per_component(MEMORIES);
    pool.total_tables(instances * 4);
    pool.max_tables_per_component(8);
    pool.table_elements(MAX_TABLE_ELEMENTS);
    pool.total_stacks(instances);
    pool.max_memory_size(largest(plugins, |l| l.max_memory.as_usize()));
    pool.linear_memory_keep_resident(1 << 20);
    pool.pagemap_scan(Enabled::Auto);
    let mut config = base(plugins);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}

/// How many instances are needed: one for each thread and plugin for keys, the ones that loaders
/// may use at once, and some more for threads that exist only for a short time.
fn instances(plugins: &BTreeMap<String, PluginConfig>) -> u32 {
    let threads = cores() * 4 + 16;
    let wanted: usize = plugins
        .values()
        .map(|p| threads + p.limits.max_concurrent)
        .sum();
    u32::try_from(wanted.clamp(16, MAX_INSTANCES)).unwrap_or(16)
}

fn largest(
    plugins: &BTreeMap<String, PluginConfig>,
    size: impl Fn(&PluginLimits) -> usize,
) -> usize {
    let largest = plugins.values().map(|p| size(&p.limits)).max();
    largest.unwrap_or_else(|| size(&PluginLimits::default()))
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Advances the epoch until the engine is dropped. After a pause, the first guest may be checked
/// late, by at most `IDLE_TICK`.
fn tick(engine: &Engine) -> std::io::Result<()> {
    let engine = engine.weak();
    let run = move || {
        let (mut seen, mut quiet) = (0, 0_u32);
        while let Some(engine) = engine.upgrade() {
            engine.increment_epoch();
            drop(engine);
            let work = WORK.load(Ordering::Relaxed);
            quiet = if work == seen {
                quiet.saturating_add(1)
            } else {
                0
            };
            seen = work;
            let idle = quiet >= IDLE_AFTER;
            std::thread::sleep(if idle { IDLE_TICK } else { TICK });
        }
    };
    std::thread::Builder::new()
        .name("plugin-clock".into())
        .spawn(run)
        .map(drop)
}

/// The threads that loaders run on. They end with the last plugin that uses them.
pub(super) struct LoaderThreads {
    /// Present until it is dropped.
    runtime: Option<tokio::runtime::Runtime>,
}

impl LoaderThreads {
    /// Starts one thread for each core.
    pub(super) fn start() -> std::io::Result<Arc<Self>> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(cores())
            .thread_name("plugin-loader")
            .on_thread_start(|| {
                // On Linux this is the thread's own priority. It is not required: if it is refused,
                // loaders compete with equal priority.
                _ = rustix::process::nice(5);
            })
            .enable_all()
            .build()?;
        Ok(Arc::new(Self {
            runtime: Some(runtime),
        }))
    }

    /// Runs a call on these threads.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        call: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.runtime
            .as_ref()
            .expect("present until it is dropped")
            .spawn(call)
    }
}

impl Drop for LoaderThreads {
    fn drop(&mut self) {
        // Does not wait: the last plugin may be dropped on a thread that must not block.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
