//! The metric registry and its text form (Prometheus exposition format 0.0.4).

use prometheus::{Encoder, IntGaugeVec, Opts, TextEncoder};

pub use prometheus::Registry;

/// A registry with what the process says of itself.
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

/// All metrics as text.
///
/// # Errors
/// When a metric can't be encoded.
pub fn text(registry: &Registry) -> prometheus::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(16 << 10);
    TextEncoder::new().encode(&registry.gather(), &mut out)?;
    Ok(out)
}

/// The text's media type.
pub const MEDIA_TYPE: &str = prometheus::TEXT_FORMAT;

/// For tests, to which a metric that is not there would read as 0.
///
/// # Panics
/// When the registry has no metric of this name.
pub fn assert_registered(registry: &Registry, name: &str) {
    let options = Opts::new(name, "A help that no metric has.");
    let probe = prometheus::IntCounter::with_opts(options).expect("a name");
    // Of one name there is one help, also where nothing was counted yet.
    let known = registry.register(Box::new(probe)).is_err();
    assert!(known, "there is no metric `{name}`");
}
