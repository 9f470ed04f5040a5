//! The files of which a configuration consists, and those that it names: [`files_of`].

use std::path::{Path, PathBuf};

use super::sources::{self, ConfigSources};
use super::text_file::read_text;
use super::{expand, include, parser, tree};

/// The file, those that it includes, and those that its `*_file` keys name, as far as that can be
/// told of it as it is now. A file of targets is followed by its upstream, and is none of them.
pub fn files_of(file: &Path) -> Vec<PathBuf> {
    let Ok((name, text)) = read_text(file) else {
        return vec![file.to_owned()];
    };
    let env = |variable: &str| std::env::var(variable).ok();
    let mut sources = ConfigSources::new(&name, &text);
    let mut budget = parser::AliasBudget::default();
    let parsed = parser::parse_source(&text, sources::MAIN, &mut budget);
    let Ok(mut root) = parsed else {
        return vec![file.to_owned()];
    };
    // What is wrong with them is told when they are read.
    let _ = include::join(&mut root, &mut sources, &mut budget, &env);
    let _ = expand::expand(&mut root, &env);
    let mut files: Vec<_> = sources.names().map(PathBuf::from).collect();
    let base = file.parent().unwrap_or(Path::new(""));
    named_files(&root, "", base, ConfigPart::Top, &mut files);
    files
}

/// In which part of the configuration a key stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ConfigPart {
    Top,
    /// Where `file` is an answer of ours; elsewhere it has a watch of its own.
    Routes,
    Other,
}

impl ConfigPart {
    fn below(self, key: &str) -> Self {
        match self {
            Self::Top if key == "routes" => Self::Routes,
            Self::Top => Self::Other,
            part => part,
        }
    }
}

/// The files that the keys of the section `parent` and below name.
fn named_files(
    node: &tree::YamlNode,
    parent: &str,
    base: &Path,
    part: ConfigPart,
    files: &mut Vec<PathBuf>,
) {
    match &node.body {
        tree::YamlValue::Map(entries) => {
            for (key, node) in entries {
                let is_file = key.name.ends_with("_file") && key.name != "targets_file";
                let is_of_auth =
                    matches!((parent, &*key.name), ("auth", "basic") | ("jwt", "keys"));
                let is_file = is_file || (key.name == "file" && part == ConfigPart::Routes);
                match &node.body {
                    tree::YamlValue::Scalar(scalar) if is_file || is_of_auth => {
                        files.push(base.join(&scalar.text));
                    }
                    _ => named_files(node, &key.name, base, part.below(&key.name), files),
                }
            }
        }
        tree::YamlValue::List(items) => {
            items
                .iter()
                .for_each(|item| named_files(item, parent, base, part, files));
        }
        tree::YamlValue::Scalar(_) => {}
    }
}
