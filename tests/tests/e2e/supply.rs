//! What a release consists of, and the check of what it is made of: the scripts behind `make dist` and
//! `make deny`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use e2e::cli::repository;
use e2e::upgrade::script;
use serde_json::Value;

use crate::packaging::{artefacts, path};

/// All files below a folder, by their paths from there.
fn files_below(folder: &Path) -> BTreeSet<PathBuf> {
    let mut all = BTreeSet::new();
    let mut left = vec![folder.to_owned()];
    while let Some(at) = left.pop() {
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => left.push(path),
                false => drop(all.insert(path.strip_prefix(folder).unwrap().to_owned())),
            }
        }
    }
    all
}

/// The versions of all packages of the lock file, by their names.
fn locked() -> BTreeMap<String, BTreeSet<String>> {
    let lock = fs::read_to_string(repository().join("Cargo.lock")).unwrap();
    let mut all = BTreeMap::<String, BTreeSet<String>>::new();
    for package in lock.split("[[package]]").skip(1) {
        let value = |key: &str| {
            let mut lines = package.lines();
            let found = lines.find_map(|line| line.strip_prefix(&format!("{key} = \"")));
            found.unwrap().trim_end_matches('"').to_owned()
        };
        all.entry(value("name"))
            .or_default()
            .insert(value("version"));
    }
    all
}

/// Of the program that these tests run.
#[test]
fn a_release_has_all_its_parts_with_checksums_and_a_list_of_its_dependencies() {
    let Some(folder) = artefacts() else { return };
    let left = files_below(&repository().join("gateway"));
    let left = left
        .iter()
        .filter(|file| path(file).contains("lamina-sbom"));
    assert_eq!(left.count(), 0, "nothing is left beside the manifests");
    let files = files_below(folder);
    for file in [
        "lamina",
        "lamina.cdx.json",
        "SHA256SUMS",
        "man/lamina.1",
        "completions/lamina.bash",
        "completions/_lamina",
        "completions/lamina.fish",
    ] {
        assert!(files.contains(Path::new(file)), "{file}: {files:?}");
    }
    let is_package = |file: &&PathBuf| file.extension().is_some_and(|ending| ending == "deb");
    assert_eq!(files.iter().filter(is_package).count(), 1, "{files:?}");

    // Each file has its checksum.
    let sums = fs::read_to_string(folder.join("SHA256SUMS")).unwrap();
    let summed: BTreeSet<_> = sums
        .lines()
        .map(|line| PathBuf::from(line.split_once("  ").unwrap().1))
        .collect();
    let mut all = files.clone();
    all.remove(Path::new("SHA256SUMS"));
    assert_eq!(summed, all);
    let checked = Command::new("sha256sum")
        .args(["--check", "--strict", "--quiet", "SHA256SUMS"])
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(checked.status.success(), "{checked:?}");

    // The list names what the lock file has, in its versions.
    let list = fs::read(folder.join("lamina.cdx.json")).unwrap();
    let list: Value = serde_json::from_slice(&list).unwrap();
    assert_eq!(list["bomFormat"], "CycloneDX");
    assert_eq!(list["metadata"]["component"]["name"], "lamina");
    let locked = locked();
    let components = list["components"].as_array().unwrap();
    let mut listed = BTreeSet::new();
    for component in components {
        let text = |key: &str| component[key].as_str().unwrap_or_default().to_owned();
        let (name, version) = (text("name"), text("version"));
        let known = locked.get(&name);
        assert!(
            known.is_some_and(|all| all.contains(&version)),
            "{name} {version} is not in Cargo.lock"
        );
        listed.insert(name);
    }
    for name in [
        "tokio",
        "rustls",
        "hyper",
        "quinn",
        "wasmtime",
        "libmimalloc-sys",
    ] {
        assert!(listed.contains(name), "{name}");
    }
}

/// `scripts/deny.sh` with a Cargo whose database of advisories can't be had, since it says this.
fn deny(folder: &Path, told: &str, required: &str) -> Output {
    let cargo = format!(
        "case \"$*\" in *\"fetch db\"*) echo '{told}' >&2; exit 1 ;; *advisories*) echo checked ;; esac"
    );
    script(&folder.join("cargo"), &cargo);
    script(&folder.join("cargo-deny"), "exit 0");
    let path = std::env::var("PATH").unwrap_or_default();
    Command::new(repository().join("scripts/deny.sh"))
        .env("PATH", format!("{}:{path}", folder.display()))
        .env("LAMINA_ADVISORIES", required)
        .output()
        .unwrap()
}

#[test]
fn advisories_are_left_out_only_where_their_host_can_not_be_reached() {
    let folder = tempfile::tempdir().unwrap();
    let unreachable = "fatal: unable to access: Could not resolve host: github.com";
    for (told, required, passes) in [
        (unreachable, "", true),
        (unreachable, "required", false),
        ("error: the database is damaged", "", false),
    ] {
        let ran = deny(folder.path(), told, required);
        assert_eq!(ran.status.success(), passes, "{told}, {required}: {ran:?}");
        assert!(ran.stdout.is_empty(), "nothing was checked: {ran:?}");
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        let names_it = said.contains("advisories were not checked");
        assert_eq!(names_it, told == unreachable, "{said}");
    }
}
