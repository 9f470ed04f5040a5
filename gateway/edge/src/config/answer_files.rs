//! Reads the files with answers of ours that routes name, so that none is missing when it is needed.

use std::path::Path;

use super::GatewayConfig;
use super::problem::{ConfigFinding, ConfigPath};
use super::text_file::{is_pipe, read_at_most};
use crate::proxy::config::rules::common::MOST_OF_A_FILE;

/// Reads the files, which are relative to the folder `base`.
pub fn read(config: &mut GatewayConfig, base: &Path) -> Vec<ConfigFinding> {
    let mut findings = Vec::new();
    for (n, route) in config.routes.iter_mut().enumerate() {
        for (below, file) in route.answer_files() {
            file.path = base.join(&file.path);
            match content_of(&file.path) {
                Ok(content) => file.content = content,
                Err(reason) => {
                    let at = ConfigPath::read(&format!("routes[{n}].{below}"));
                    findings.push(ConfigFinding::value(at, reason));
                }
            }
        }
    }
    findings
}

fn content_of(file: &Path) -> Result<Vec<u8>, String> {
    if is_pipe(file) {
        let file = file.display();
        return Err(format!("{file} is a pipe; expected a regular file"));
    }
    let content = read_at_most(file, MOST_OF_A_FILE)
        .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    match content.len() as u64 > MOST_OF_A_FILE {
        true => Err(format!(
            "{} is larger than 1 MiB; expected a smaller page, or an upstream for it",
            file.display()
        )),
        false => Ok(content),
    }
}
