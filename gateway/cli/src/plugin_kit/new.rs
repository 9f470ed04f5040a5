//! `lamina plugin new --lang LANG --hook HOOK NAME`: writes a project that builds, from the
//! templates in plugin-sdk, which the binary contains.
//!
//! A project is made from four folders of `templates`: `any/any`, `any/HOOK`, `LANG/any` and
//! `LANG/HOOK`. Their placeholders are `{{name}}`, `{{sdk}}` and those in `words` of the language
//! and of the hook. A file `gitignore` becomes `.gitignore`.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::ValueEnum;

use super::language::TemplateLanguage;
use super::sdk::{self, FILES, SdkLocation, TEMPLATES};

const KEY_YAML: &str = "\
routes:
  - name: shop
    upstream: shop
    key: { plugin: {{name}} }";
const LOAD_YAML: &str = "    fetch: [shop]               # the upstreams that it may ask
routes:
  - name: accounts
    match: { path: /account/* }
    loader: { plugin: {{name}} }";
const REQUEST_YAML: &str =
    "    on_error: { request: refuse }  # or continue: as if there were no plugin
routes:
  - name: shop
    upstream: shop
    request: { plugin: {{name}} }";
const RESPONSE_YAML: &str = "\
routes:
  - name: shop
    upstream: shop
    response: { plugin: {{name}} }";

/// The hook that a new plugin begins with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum FirstHook {
    /// What makes two requests the same for the cache.
    Key,
    /// Where a missing value comes from.
    Load,
    /// What becomes of a request before its key is derived.
    Request,
    /// What becomes of a response before it is stored.
    Response,
}

impl FirstHook {
    fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Load => "load",
            Self::Request => "request",
            Self::Response => "response",
        }
    }

    /// The replacements for placeholders in templates.
    fn words(self) -> [(&'static str, &'static str); 4] {
        let (kind, world, interfaces, yaml) = match self {
            Self::Key => ("key plugin", "key_plugin", "key", KEY_YAML),
            Self::Load => ("loader", "loader_plugin", "load fetch", LOAD_YAML),
            Self::Request => ("request plugin", "", "on-request", REQUEST_YAML),
            Self::Response => ("response plugin", "", "on-response", RESPONSE_YAML),
        };
        [
            ("kind", kind),
            ("world", world),
            ("interfaces", interfaces),
            ("yaml", yaml),
        ]
    }
}

/// The project that was written.
pub struct NewPluginProject {
    folder: PathBuf,
    sdk: SdkLocation,
}

/// Writes a project into a new folder with this name.
///
/// # Errors
/// Returns a message if the name is not valid, if the folder exists, or if nothing can be written.
pub fn new(
    name: &str,
    language: TemplateLanguage,
    hook: FirstHook,
    sdk: Option<&Path>,
) -> Result<NewPluginProject, String> {
    check_name(name)?;
    let files = template(language, hook)?;
    let folder = PathBuf::from(name);
    if folder.exists() {
        return Err(format!(
            "{name} exists already; choose another name, or remove it"
        ));
    }
    let failed = |error: io::Error| format!("{name}: {error}");
    let sdk = sdk::locate(sdk).map_err(failed)?;
    let sdk_path = sdk.path.display().to_string();
    for (path, text) in files {
        let path = match path {
            "gitignore" => ".gitignore",
            path => path,
        };
        // The name and the SDK come last, since the other replacements contain their placeholders.
        let words = language.words().into_iter().chain(hook.words());
        let words = words.chain([("name", name), ("sdk", &sdk_path)]);
        let text = words.fold(text.to_owned(), |text, (word, says)| {
            text.replace(&format!("{{{{{word}}}}}"), says)
        });
        write(&folder.join(path), &text).map_err(failed)?;
    }
    Ok(NewPluginProject { folder, sdk })
}

impl fmt::Display for NewPluginProject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let folder = self.folder.display();
        let wrote = match self.sdk.is_new {
            true => "written beside it",
            false => "found",
        };
        let sdk = self.sdk.path.display();
        writeln!(f, "{folder}: a project; its SDK is {sdk} ({wrote})")?;
        writeln!(f, "next:")?;
        writeln!(f, "  cd {folder}")?;
        writeln!(f, "  lamina plugin build")?;
        writeln!(f, "  lamina plugin test {folder}.wasm")
    }
}

/// The files of a project, by their paths in it.
fn template(
    language: TemplateLanguage,
    hook: FirstHook,
) -> Result<BTreeMap<&'static str, &'static str>, String> {
    let (lang, hook_name) = (language.folder(), hook.name());
    let own: Vec<_> = files_of(format!("{lang}/{hook_name}")).collect();
    if own.is_empty() {
        return Err(without_template(language, hook));
    }
    let shared = [
        "any/any".to_owned(),
        format!("any/{hook_name}"),
        format!("{lang}/any"),
    ];
    Ok(shared.into_iter().flat_map(files_of).chain(own).collect())
}

fn files_of(folder: String) -> impl Iterator<Item = (&'static str, &'static str)> {
    let folder = format!("{TEMPLATES}/{folder}/");
    let files = FILES.iter();
    files.filter_map(move |(path, text)| Some((path.strip_prefix(&folder)?, *text)))
}

fn without_template(language: TemplateLanguage, hook: FirstHook) -> String {
    let (lang, wanted) = (language.folder(), hook.name());
    let hooks = FirstHook::value_variants().iter().map(|hook| hook.name());
    let there = hooks.filter(|hook| files_of(format!("{lang}/{hook}")).next().is_some());
    let there: Vec<_> = there.map(|hook| format!("`--hook {hook}`")).collect();
    format!(
        "there is no template with the hook `{wanted}` in this language; there are {}. Start with \
         one of them and change what it exports: plugin-sdk/README.md lists the hooks, and \
         plugin-sdk/wit what they receive and return",
        there.join(" and ")
    )
}

/// Checks that cargo, npm and a gateway's YAML all accept the name.
fn check_name(name: &str) -> Result<(), String> {
    let begins = name.starts_with(|c: char| c.is_ascii_lowercase());
    let is_letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    match begins && name.len() <= 64 && name.chars().all(is_letter) {
        true => Ok(()),
        false => Err(format!(
            "{name:?} is not a valid name; expected lower-case letters, digits and `-`, beginning \
             with a letter, as my-key"
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
