//! The commands that read a configuration or a record and ask no running gateway.

use std::path::Path;

use anyhow::Context;
use lamina_cache::key::KeyId;
use lamina_cache::record::{self, CorruptRecord, RecordLimits, Seal};
use lamina_edge::app;
use lamina_edge::certificate_review;
use lamina_edge::config::{self, ConfigProblem, GatewayConfig, ShownValues};
use lamina_edge::proxy;

use crate::arguments::{ConfigCommand, RecordCommand};
use crate::command::{runtime, with_config};
use crate::exit::ExitOutcome;
use crate::{doctor, output, records};

pub fn validate(file: &Path) -> anyhow::Result<ExitOutcome> {
    with_config(file, |config| {
        for warning in &config.warnings {
            output::error(format_args!("warning: {warning}"));
        }
        let plan = runtime()?.block_on(app::build(&config));
        let plan = plan.context("the file has the right form, but")?;
        for finding in certificate_review::of_listeners(&config, &plan.certificates) {
            let problem = config::problem_at(file, &finding.key, finding.message);
            output::error(format_args!("warning: {problem}"));
        }
        for warning in doubtful_targets(&config) {
            output::error(format_args!("warning: {warning}"));
        }
        let included = match config.files_read.len().saturating_sub(1) {
            0 => String::new(),
            1 => ", 1 included file".to_owned(),
            n => format!(", {n} included files"),
        };
        output::line(format_args!(
            "{}: ok{included}, {} routes, {} upstreams, {} plugins",
            file.display(),
            config.routes.len(),
            config.upstreams.len(),
            config.plugins.by_name.len()
        ));
        Ok(())
    })
}

/// Returns what is doubtful in files of targets. A file that can't be read is an error of its
/// upstream, and not told here.
fn doubtful_targets(config: &GatewayConfig) -> impl Iterator<Item = ConfigProblem> {
    let upstreams = config.upstreams.values();
    let files = upstreams.filter_map(|upstream| upstream.targets_file.as_deref());
    files.filter_map(|file| config::load_targets(file).ok()?.warning)
}

/// Prints what would happen to a request.
pub fn explain(
    file: &Path,
    (method, url, headers): (http::Method, &str, &[String]),
    json: bool,
) -> anyhow::Result<ExitOutcome> {
    with_config(file, |config| {
        let request = request(url, headers, method)?;
        let plan = runtime()?.block_on(app::build(&config))?;
        print_explanation(&plan.generation.explain(request), json)
    })
}

/// Tries what the configuration names.
pub fn doctor(file: &Path) -> anyhow::Result<ExitOutcome> {
    with_config(file, |config| {
        let report = runtime()?.block_on(doctor::examine(&config, file))?;
        output::text(&report);
        anyhow::ensure!(report.is_well(), "checks failed: {}", report.unwell());
        Ok(())
    })
}

/// Prints a valid configuration with where its values come from.
pub fn config(command: &ConfigCommand) -> anyhow::Result<ExitOutcome> {
    let ConfigCommand::Show {
        file,
        json,
        no_defaults,
    } = command;
    let values = match no_defaults {
        true => ShownValues::Given,
        false => ShownValues::All,
    };
    show(&file.config, *json, values)
}

/// Prints what a record holds: one in a file, or that of a request.
pub fn record(command: RecordCommand) -> anyhow::Result<ExitOutcome> {
    let RecordCommand::Inspect {
        what,
        key,
        seal_key_file,
        file,
        headers,
    } = command;
    if !what.contains("://") {
        inspect(Path::new(&what), key, seal_key_file.as_deref())?;
        return Ok(ExitOutcome::Well);
    }
    with_config(&file.config, |config| {
        let request = request(&what, &headers, http::Method::GET)?;
        inspect_stored(&config, request)
    })
}

fn show(file: &Path, json: bool, values: ShownValues) -> anyhow::Result<ExitOutcome> {
    match config::effective(file) {
        Ok(shown) if json => {
            output::line(serde_json::to_string_pretty(&shown.json(values))?);
            Ok(ExitOutcome::Well)
        }
        Ok(shown) => {
            output::text(shown.yaml(values));
            Ok(ExitOutcome::Well)
        }
        Err(problems) => {
            output::error(problems);
            Ok(ExitOutcome::Wrong)
        }
    }
}

/// Prints what a record holds. Fails if a gateway would not accept the record.
fn inspect(file: &Path, key: Option<KeyId>, seal_key_file: Option<&Path>) -> anyhow::Result<()> {
    let read = |file: &Path| std::fs::read(file).with_context(|| file.display().to_string());
    let seal = match seal_key_file {
        Some(secret) => Seal::new(read(secret)?.trim_ascii()),
        None => Seal::public(),
    };
    let told = record::inspect(&read(file)?.into(), &RecordLimits::of_inspection(), &seal)
        .with_context(|| format!("{}: not a record", file.display()))?;
    output::text(&told);
    let bound = key.is_none_or(|key| key == KeyId::of(&told.key));
    anyhow::ensure!(bound, "{}: {}", file.display(), CorruptRecord::AnotherKey);
    match told.refusal() {
        Some(why) => anyhow::bail!("{}: {why}", file.display()),
        None => Ok(()),
    }
}

/// Prints what the second tier holds for a request.
fn inspect_stored(config: &GatewayConfig, request: http::Request<()>) -> anyhow::Result<()> {
    let records = runtime()?.block_on(records::of(config, request))?;
    anyhow::ensure!(!records.is_empty(), "nothing is stored for this request");
    let secret = config.cache.l2.seal_key.as_ref();
    let seal = secret.map_or_else(Seal::public, |secret| Seal::new(secret.as_bytes()));
    for bytes in &records {
        let told = record::inspect(bytes, &RecordLimits::of_inspection(), &seal)?;
        output::line(&told);
        if let Some(why) = told.refusal() {
            anyhow::bail!(why);
        }
    }
    Ok(())
}

fn request(
    url: &str,
    headers: &[String],
    method: http::Method,
) -> anyhow::Result<http::Request<()>> {
    anyhow::ensure!(
        url.contains("://"),
        "{url:?} is not absolute; expected http://host/path"
    );
    let mut request = http::Request::builder().method(method).uri(url);
    for header in headers {
        let (name, value) = header
            .split_once(':')
            .with_context(|| format!("{header:?} is not of the form `Name: value`"))?;
        request = request.header(name.trim(), value.trim());
    }
    request
        .body(())
        .with_context(|| format!("{url:?} and its headers are no request"))
}

fn print_explanation(explanation: &proxy::Explanation, json: bool) -> anyhow::Result<()> {
    match json {
        true => output::line(serde_json::to_string_pretty(explanation)?),
        false => output::text(explanation),
    }
    Ok(())
}
