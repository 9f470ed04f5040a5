//! `lamina plugin new --lang LANG NAME`: writes a project that builds, from the template of
//! its language, which the binary has with it.
//!
//! Templates say `{{name}}` and `{{sdk}}`; a file `gitignore` becomes `.gitignore`.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::ValueEnum;

use super::language::Language;
use super::sdk::{self, FILES, TEMPLATES};

/// The hook that a new plugin begins with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum FirstHook {
    Key,
    Load,
}

/// What was written.
pub struct Project {
    pub folder: PathBuf,
    pub sdk: PathBuf,
    /// Whether the SDK was written too.
    pub wrote_sdk: bool,
}

/// Writes a project into a new folder of this name.
///
/// # Errors
/// In words, when the name is none, the folder is there, or nothing can be written.
pub fn new(
    name: &str,
    language: Language,
    hook: FirstHook,
    sdk: Option<&Path>,
) -> Result<Project, String> {
    check_name(name)?;
    let files = template(language, hook)?;
    let folder = PathBuf::from(name);
    if folder.exists() {
        return Err(format!(
            "{name} is there already; choose another name, or remove it"
        ));
    }
    let failed = |error: io::Error| format!("{name}: {error}");
    let (sdk, wrote_sdk) = sdk::place(&folder, sdk).map_err(failed)?;
    for (path, text) in files {
        let path = match path {
            "gitignore" => ".gitignore",
            path => path,
        };
        let text = text.replace("{{name}}", name);
        let text = text.replace("{{sdk}}", &sdk.display().to_string());
        write(&folder.join(path), &text).map_err(failed)?;
    }
    Ok(Project {
        folder,
        sdk,
        wrote_sdk,
    })
}

impl fmt::Display for Project {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let folder = self.folder.display();
        let wrote = match self.wrote_sdk {
            true => "written beside it",
            false => "found",
        };
        writeln!(
            f,
            "{folder}: a project; its SDK is {} ({wrote})",
            self.sdk.display()
        )?;
        writeln!(f, "next:")?;
        writeln!(f, "  cd {folder}")?;
        writeln!(f, "  lamina plugin build")?;
        writeln!(f, "  lamina plugin test dist/{folder}.wasm")
    }
}

/// The files of a template, by their paths in the project.
fn template(
    language: Language,
    hook: FirstHook,
) -> Result<Vec<(&'static str, &'static str)>, String> {
    let suffix = match hook {
        FirstHook::Key => "",
        FirstHook::Load => "-load",
    };
    let folder = format!("{TEMPLATES}/{}{suffix}/", language.folder());
    let files = FILES.iter();
    let files = files.filter_map(|(path, text)| Some((path.strip_prefix(&folder)?, *text)));
    let files: Vec<_> = files.collect();
    match files.is_empty() {
        false => Ok(files),
        true => Err(
            "there is no template with this hook in this language; `--hook key` has one in each. \
             Loaders to begin from: plugins/api-compose (Rust), plugins/render-page-js, plugins/feed-merge-py"
                .to_owned(),
        ),
    }
}

/// A name that is one to cargo, npm and a gateway's YAML alike.
fn check_name(name: &str) -> Result<(), String> {
    let begins = name.starts_with(|c: char| c.is_ascii_lowercase());
    let is_letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    match begins && name.len() <= 64 && name.chars().all(is_letter) {
        true => Ok(()),
        false => Err(format!(
            "{name:?} can't be a name; expected lower-case letters, digits and `-`, a letter first, as my-key"
        )),
    }
}

fn write(file: &Path, text: &str) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::create_dir_all(file.parent().unwrap_or(file))?;
    fs::write(file, text)?;
    match text.starts_with("#!") {
        true => fs::set_permissions(file, fs::Permissions::from_mode(0o755)),
        false => Ok(()),
    }
}
