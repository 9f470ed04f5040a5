//! The metric registry and its text form (Prometheus exposition format 0.0.4).

use prometheus::{Encoder, IntGaugeVec, Opts, TextEncoder};

pub use prometheus::Registry;

/// A new registry with the metrics of the process itself.
///
/// # Errors
/// Never in practice: the names are fixed and the registry is new.
pub fn registry() -> prometheus::Result<Registry> {
    let registry = Registry::new();
    registry.register(Box::new(
        prometheus::process_collector::ProcessCollector::for_self(),
    ))?;
    let build = IntGaugeVec::new(
        Opts::new("lamina_build_info", "The version that runs; always 1."),
        &["version"],
    )?;
    registry.register(Box::new(build.clone()))?;
    build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    Ok(registry)
}

/// All metrics in the text format.
///
/// # Errors
/// When a metric cannot be encoded.
pub fn text(registry: &Registry) -> prometheus::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(16 << 10);
    TextEncoder::new().encode(&registry.gather(), &mut out)?;
    Ok(out)
}

/// The media type of the text format.
pub const MEDIA_TYPE: &str = prometheus::TEXT_FORMAT;

/// For tests: in them a metric that does not exist would read as 0.
///
/// # Panics
/// When the registry has no metric of this name.
pub fn assert_registered(registry: &Registry, name: &str) {
    let options = Opts::new(name, "A help that no metric has.");
    let probe = prometheus::IntCounter::with_opts(options).expect("a name");
    // A name has one help text only, also where nothing was counted yet, so another one is refused.
    let known = registry.register(Box::new(probe)).is_err();
    assert!(known, "there is no metric `{name}`");
}
