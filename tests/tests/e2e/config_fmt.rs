//! `lamina fmt`: files in the canonical form, and what is told of those that are not.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use e2e::cli::{Ran, repository, run};

const UNTIDY: &str = "\
# of the shop
routes:
-   name: shop   # all of it
    upstream: origin
admin: {token: Zq8w-a-long-random-text-for-this-test}
version: 1\x20\x20
";

const TIDY: &str = "\
version: 1
# of the shop
routes:
  - name: shop   # all of it
    upstream: origin
admin: {token: Zq8w-a-long-random-text-for-this-test}
";

fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lamina.yaml");
    fs::write(&file, text).unwrap();
    (folder, file)
}

fn fmt(files: &[&PathBuf], further: &[&str]) -> Ran {
    let names = files.iter().map(|file| file.to_str().unwrap());
    let arguments: Vec<&str> = ["fmt"].into_iter().chain(names).collect();
    run(&[&arguments, further].concat())
}

#[test]
fn a_file_is_rewritten_once_with_its_rights_and_through_links() {
    let (folder, file) = file(UNTIDY);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    let link = folder.path().join("link.yaml");
    std::os::unix::fs::symlink("lamina.yaml", &link).unwrap();
    let ran = fmt(&[&link], &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.output());
    assert!(
        ran.stdout.contains("link.yaml: rewritten"),
        "{}",
        ran.stdout
    );
    assert_eq!(fs::read_to_string(&file).unwrap(), TIDY);
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o640
    );
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        2,
        "nothing is left beside it"
    );

    let ran = fmt(&[&link], &[]);
    assert_eq!((ran.code, ran.output().as_str()), (Some(0), ""));
}

#[test]
fn check_lists_the_lines_without_secrets_and_changes_nothing() {
    let (_folder, file) = file(UNTIDY);
    let ran = fmt(&[&file], &["--check"]);
    assert_eq!(ran.code, Some(1), "{}", ran.output());
    let place = format!("{}:3", file.display());
    for line in [
        &place,
        "- -   name: shop   # all of it",
        "+   - name: shop   # all of it",
    ] {
        assert!(
            ran.stdout.lines().any(|said| said == line),
            "{line}\n{}",
            ran.stdout
        );
    }
    assert!(!ran.output().contains("Zq8w"), "{}", ran.output());
    assert_eq!(fs::read_to_string(&file).unwrap(), UNTIDY);

    fs::write(&file, TIDY).unwrap();
    let ran = fmt(&[&file], &["--check"]);
    assert_eq!((ran.code, ran.output().as_str()), (Some(0), ""));

    fs::write(&file, TIDY.replace('\n', "\r\n")).unwrap();
    let ran = fmt(&[&file], &["--check"]);
    assert_eq!(ran.code, Some(1), "{}", ran.output());
    assert!(ran.stdout.contains("ends of lines"), "{}", ran.stdout);
}

#[test]
fn a_file_that_is_no_yaml_is_left_alone_and_the_others_are_not() {
    let (_one, broken) = file("routes: [\n");
    let (_two, untidy) = file(UNTIDY);
    let ran = fmt(&[&broken, &untidy], &[]);
    assert_eq!(ran.code, Some(2), "{}", ran.output());
    assert!(
        ran.stderr.contains("lamina.yaml:1:10: not valid YAML"),
        "{}",
        ran.stderr
    );
    assert_eq!(fs::read_to_string(&broken).unwrap(), "routes: [\n");
    assert_eq!(fs::read_to_string(&untidy).unwrap(), TIDY);
    assert_eq!(run(&["fmt"]).code, Some(2), "no file is named");
}

#[test]
fn shipped_configurations_are_in_the_canonical_form() {
    let config = repository().join("config");
    let folders = ["examples", "migrate"].map(|name| fs::read_dir(config.join(name)).unwrap());
    let entries = folders.into_iter().flatten();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|ending| ending == "yaml"));
    files.extend(["quickstart.yaml", "reference.yaml"].map(|name| config.join(name)));
    let ran = fmt(&files.iter().collect::<Vec<_>>(), &["--check"]);
    assert_eq!((ran.code, ran.output().as_str()), (Some(0), ""));
}
