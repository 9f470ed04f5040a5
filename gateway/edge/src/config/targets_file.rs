//! Files with the targets of an upstream (`targets_file`): a YAML list, read and checked as
//! `upstreams.NAME.targets` is, with environment variables.

use std::path::Path;

use super::check::{listed_targets, named_twice};
use super::document::located;
use super::problem::{ConfigFinding, ConfigPath, ConfigProblem, ConfigProblems};
use super::sources::ConfigSources;
use super::text_file::read_text;
use super::{de, expand, parser, tree};
use crate::origin::config::TargetConfig;

/// The targets of a file, and what is doubtful about them.
#[derive(Debug)]
pub struct LoadedTargets {
    pub targets: Vec<TargetConfig>,
    pub warning: Option<ConfigProblem>,
}

/// Reads and checks a file of targets.
///
/// # Errors
/// Everything that is wrong, where it stands, and what was expected.
pub fn load(file: &Path) -> Result<LoadedTargets, ConfigProblems> {
    // Reading a pipe or a device may never end.
    if file.metadata().is_ok_and(|found| !found.is_file()) {
        let sources = ConfigSources::new(&file.display().to_string(), "");
        let finding =
            ConfigFinding::file("no regular file; expected a file with a list of targets");
        return Err(ConfigProblems::one(finding.locate(&sources, None)));
    }
    let (name, text) = read_text(file)?;
    parse(&text, &name, &|variable| std::env::var(variable).ok())
}

fn parse(
    text: &str,
    file: &str,
    env: expand::VariableLookup<'_>,
) -> Result<LoadedTargets, ConfigProblems> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let sources = ConfigSources::new(file, text);
    let one = |finding: ConfigFinding, root: Option<&tree::YamlNode>| {
        ConfigProblems::one(finding.locate(&sources, root))
    };
    let mut root =
        parser::parse(text).map_err(|finding| match finding.message == parser::EMPTY {
            true => one(ConfigFinding::file(NO_LIST), None),
            false => one(finding, None),
        })?;
    if !matches!(root.body, tree::YamlValue::List(_)) {
        return Err(one(ConfigFinding::at(root.at, NO_LIST), Some(&root)));
    }
    let all = |findings: Vec<ConfigFinding>, root: &tree::YamlNode| {
        ConfigProblems::new(located(findings, &sources, root)).map_or(Ok(()), Err)
    };
    let findings = expand::expand(&mut root, env);
    all(findings, &root)?;
    let targets: Vec<TargetConfig> = de::read(&root).map_err(|e| one(e, Some(&root)))?;
    if targets.is_empty() {
        return Err(one(ConfigFinding::at(root.at, NO_LIST), Some(&root)));
    }
    let list = ConfigPath::default();
    all(listed_targets(&targets, &list), &root)?;
    let doubt = named_twice(&targets, &list);
    let warning = doubt.map(|finding| finding.locate(&sources, Some(&root)));
    Ok(LoadedTargets { targets, warning })
}

const NO_LIST: &str = "no list of targets; expected at least one, as in `- http://127.0.0.1:9000`";

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> String {
        let env = |name: &str| (name == "PORT").then(|| "9000".to_owned());
        match parse(text, "targets.yaml", &env) {
            Ok(loaded) => {
                let (count, first) = (loaded.targets.len(), loaded.targets[0].url());
                match loaded.warning {
                    None => format!("{count} targets, {first}"),
                    Some(warning) => warning.to_string(),
                }
            }
            Err(problems) => problems.to_string(),
        }
    }

    #[test]
    fn a_list_is_read_as_the_targets_of_an_upstream_are() {
        let list = "# blue\n- http://10.0.0.1:${PORT}\n- { url: http://b, weight: 2 }\n- { dns: app.internal }\n- unix:/run/app.sock\n";
        assert_eq!(said(list), "4 targets, http://10.0.0.1:9000");
    }

    #[test]
    fn what_cannot_be_used_is_named_with_its_place() {
        for (text, expected) in [
            ("", "no list of targets"),
            ("\n# nothing\n", "no list of targets"),
            ("[]", "no list of targets"),
            ("targets: [http://a]", "targets.yaml:1:1"),
            ("- http://a\n- http://b/path\n", "targets.yaml:2:3: [1]: "),
            (
                "- http://a\n- { url: http://b, wieght: 2 }\n",
                "did you mean `weight`?",
            ),
            (
                "- { dns: a, srv: b }",
                "expected one of `url`, `dns` and `srv`",
            ),
            ("- http://a\n- [", "targets.yaml:2"),
            ("- http://${NOBODY}", "NOBODY"),
        ] {
            let said = said(text);
            assert!(said.contains(expected), "{text:?}: {said}");
        }
    }

    #[test]
    fn two_targets_of_one_name_are_told_with_their_place() {
        for (text, place) in [
            (
                "- http://a\n- http://b\n- http://a\n",
                "targets.yaml:3:3: [2]: ",
            ),
            (
                "- { url: http://a, name: x }\n- { url: http://b, name: x }\n",
                "targets.yaml:2:3: [1]: ",
            ),
        ] {
            let said = said(text);
            assert!(said.contains(place), "{said}");
            assert!(said.contains("expected a `name` of its own"), "{said}");
        }
        let apart = "- { url: http://a, name: x }\n- { url: http://a, name: y }\n";
        assert_eq!(said(apart), "2 targets, http://a");
    }
}
