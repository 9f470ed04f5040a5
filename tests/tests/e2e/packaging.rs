//! The Debian package: what it holds, that Debian's own checks have nothing to say, and what its
//! installation, upgrade and removal do to a folder that stands for a machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use e2e::cli::{binary, repository};
use e2e::tools;
use tempfile::TempDir;

/// The folder with all that a release consists of; made once for all tests. None if what makes it is
/// not here.
pub fn artefacts() -> Option<&'static Path> {
    static MADE: OnceLock<Option<PathBuf>> = OnceLock::new();
    let made = MADE.get_or_init(|| {
        let is_here = ["cargo-deb", "cargo-cyclonedx"]
            .into_iter()
            .all(|tool| Command::new(tool).arg("--version").output().is_ok());
        let has_plugins = repository()
            .join("plugins/dist/normalize-query.wasm")
            .exists();
        if !is_here || !has_plugins {
            let tools =
                "cargo-deb and cargo-cyclonedx (scripts/tools.sh) with plugins (make plugins)";
            tools::is_missing(tools, "the parts of a release");
            return None;
        }
        // Not a temporary folder, since nothing would remove it at the end.
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("release");
        let made = Command::new(repository().join("scripts/dist.sh"))
            .arg(binary())
            .arg(&folder)
            .args(["--fast", "--quiet"])
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", text(&made));
        Some(folder)
    });
    made.as_deref()
}

pub fn package() -> Option<PathBuf> {
    let files = fs::read_dir(artefacts()?).unwrap();
    let mut packages = files
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "deb"));
    let package = packages.next();
    assert!(
        package.is_some() && packages.next().is_none(),
        "one package"
    );
    package
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Runs a program to its good end; answers what it has written.
pub fn well(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        text(&output)
    );
    text(&output)
}

pub fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn the_package_holds_what_a_service_needs() {
    let Some(package) = package() else { return };
    let list = well("dpkg-deb", &["--contents", path(&package)]);
    for file in [
        "./usr/bin/lamina",
        "./etc/lamina/lamina.yaml",
        "./usr/lib/systemd/system/lamina.service",
        "./usr/lib/sysusers.d/lamina.conf",
        "./usr/share/man/man1/lamina.1.gz",
        "./usr/share/man/man1/lamina-acme-renew.1.gz",
        "./usr/share/bash-completion/completions/lamina",
        "./usr/share/zsh/vendor-completions/_lamina",
        "./usr/share/fish/vendor_completions.d/lamina.fish",
        "./usr/share/lamina/plugins/normalize-query.wasm",
        "./usr/share/doc/lamina/reference.yaml",
        "./usr/share/doc/lamina/copyright",
    ] {
        let line = list
            .lines()
            .find(|line| line.ends_with(&format!(" {file}")));
        let line = line.unwrap_or_else(|| panic!("{file} is not in\n{list}"));
        let mode = if file.contains("/bin/") {
            "-rwxr-xr-x"
        } else {
            "-rw-r--r--"
        };
        assert!(line.starts_with(mode), "{line}");
        assert!(
            line.contains(" 0/0 ") || line.contains(" root/root "),
            "{line}"
        );
    }
    let field = |name: &str| well("dpkg-deb", &["--field", path(&package), name]);
    assert_eq!(field("Package").trim(), "lamina");
    assert!(field("Version").starts_with(env!("CARGO_PKG_VERSION")));
    assert!(field("Depends").contains("libc6"), "{}", field("Depends"));
    let conffiles = well("dpkg-deb", &["--info", path(&package), "conffiles"]);
    assert_eq!(conffiles.trim(), "/etc/lamina/lamina.yaml");
}

#[test]
fn debians_own_check_finds_nothing() {
    let Some(package) = package() else { return };
    let arguments = ["--fail-on", "error,warning", "--allow-root", path(&package)];
    match Command::new("lintian").args(arguments).output() {
        Ok(output) => assert!(
            output.status.success() && output.stdout.is_empty(),
            "{}",
            text(&output)
        ),
        Err(_) => tools::is_missing("lintian", "the check of the package"),
    }
}

#[test]
fn its_configuration_is_valid_and_its_program_runs() {
    let Some(package) = package() else { return };
    let root = tempfile::tempdir().unwrap();
    well(
        "dpkg-deb",
        &["--extract", path(&package), path(root.path())],
    );
    let program = root.path().join("usr/bin/lamina");
    let config = root.path().join("etc/lamina/lamina.yaml");
    let said = well(path(&program), &["validate", "-c", path(&config)]);
    assert!(said.contains("ok, 1 routes"), "{said}");
    let schema = fs::read_to_string(&config).unwrap();
    let schema = schema.lines().next().unwrap().split("$schema=/").nth(1);
    assert!(root.path().join(schema.unwrap()).exists(), "{schema:?}");
}

#[test]
fn the_unit_is_hardened_and_lets_plugins_be_compiled() {
    let unit = repository().join("config/packaging/lamina.service");
    let text = fs::read_to_string(&unit).unwrap();
    let has = |line: &str| text.lines().any(|one| one == line);
    assert!(
        !text
            .lines()
            .any(|line| line.starts_with("MemoryDenyWriteExecute"))
    );
    for line in [
        "Type=notify",
        "StateDirectory=lamina",
        "CacheDirectory=lamina",
        "RuntimeDirectory=lamina",
    ] {
        assert!(has(line), "{line}");
    }
    let families = text
        .lines()
        .find(|line| line.starts_with("RestrictAddressFamilies="));
    assert!(families.unwrap().contains("AF_UNIX"));
    let arguments = ["security", "--offline=true", "--no-pager", path(&unit)];
    let Ok(output) = Command::new("systemd-analyze").args(arguments).output() else {
        tools::is_missing("systemd-analyze", "the score of the unit");
        return;
    };
    let told = String::from_utf8_lossy(&output.stdout);
    let score = told
        .lines()
        .find_map(|line| {
            line.split("Overall exposure level for lamina.service: ")
                .nth(1)
        })
        .and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
    assert!(score.unwrap() <= 2.0, "{score:?}: {told}");
}

/// A folder that dpkg takes for the root of a machine without packages.
pub struct InstalledMachine(TempDir);

impl InstalledMachine {
    /// None: packages can't be installed here.
    pub fn take() -> Option<Self> {
        let is_possible =
            well("id", &["-u"]).trim() == "0" && !Path::new("/run/systemd/system").exists();
        if !is_possible {
            let machine = "root on a machine without systemd at work";
            tools::is_missing(machine, "the installation of the package");
            return None;
        }
        Some(Self::new())
    }

    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for folder in [
            "var/lib/dpkg/info",
            "var/lib/dpkg/updates",
            "etc",
            "var/lib/systemd",
        ] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        for file in ["var/lib/dpkg/status", "var/lib/dpkg/available"] {
            fs::write(root.path().join(file), "").unwrap();
        }
        Self(root)
    }

    pub fn at(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    pub fn dpkg(&self, arguments: &[&str]) {
        let root = format!("--root={}", self.0.path().display());
        let log = format!("--log={}", self.at("dpkg.log").display());
        // Scripts run on this machine and are told of the folder, since it has no shell.
        let forced = "--force-script-chrootless,depends,confold";
        let before = [&*root, &*log, forced];
        well("dpkg", &[&before[..], arguments].concat());
    }
}

#[test]
fn it_is_installed_upgraded_and_removed() {
    let Some(package) = package() else { return };
    let Some(machine) = InstalledMachine::take() else {
        return;
    };
    machine.dpkg(&["--install", path(&package)]);
    let users = fs::read_to_string(machine.at("etc/passwd")).unwrap();
    assert!(users.contains("lamina:"), "{users}");
    let config = machine.at("etc/lamina/lamina.yaml");
    let mine = fs::read_to_string(&config).unwrap() + "# mine\n";
    fs::write(&config, &mine).unwrap();
    machine.dpkg(&["--install", path(&package)]);
    assert_eq!(
        fs::read_to_string(&config).unwrap(),
        mine,
        "an upgrade keeps it"
    );
    let cache = machine.at("var/cache/lamina");
    fs::create_dir_all(&cache).unwrap();
    machine.dpkg(&["--remove", "lamina"]);
    assert!(!machine.at("usr/bin/lamina").exists());
    assert_eq!(
        fs::read_to_string(&config).unwrap(),
        mine,
        "so does a removal"
    );
    assert!(cache.exists());
    machine.dpkg(&["--purge", "lamina"]);
    assert!(
        !config.exists() && !cache.exists(),
        "a purge leaves nothing"
    );
}

#[test]
fn completions_and_the_manual_stand_beside_it() {
    let Some(folder) = artefacts() else { return };
    for file in [
        "man/lamina.1",
        "completions/lamina.bash",
        "completions/_lamina",
        "completions/lamina.fish",
    ] {
        assert!(folder.join(file).exists(), "{file}");
    }
}

/// The check of the image by its own program, as the Dockerfile has it.
#[test]
fn the_image_asks_its_own_program_for_its_health() {
    let file = fs::read_to_string(repository().join("Dockerfile")).unwrap();
    let check = file
        .lines()
        .skip_while(|line| !line.starts_with("HEALTHCHECK"));
    let check: Vec<_> = check.take(2).collect();
    let words = check.join(" ");
    assert!(
        words.contains(r#"CMD ["/usr/local/bin/lamina", "health"]"#),
        "{words}"
    );
}
