//! What helps at the command line: completions that shells take, and the manual.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use e2e::cli::{repository, run};
use e2e::tools;

/// Runs a program with this on stdin; answers stdout and stderr together. None if it is not here.
fn piped(program: &str, arguments: &[&str], input: &str) -> Option<(bool, String)> {
    let child = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C.UTF-8")
        .env("MANWIDTH", "100")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        tools::is_missing(program, "a test of completions or the manual");
        return None;
    };
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    // A program that answers before it has read all must not hold the test up.
    let writing = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    let _ = writing.join().unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Some((output.status.success(), text))
}

fn completions(shell: &str) -> String {
    let ran = run(&["completions", shell]);
    assert_eq!(ran.code, Some(0), "{}", ran.output());
    ran.stdout
}

/// What bash offers for these words, the last of which is being written.
fn offered_by_bash(words: &[&str]) -> Option<BTreeSet<String>> {
    let typed = words.iter().map(|word| format!("'{word}'"));
    let script = format!(
        "{}\nCOMP_WORDS=({})\nCOMP_CWORD={}\n_lamina lamina '{}' '{}'\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"\n",
        completions("bash"),
        typed.collect::<Vec<_>>().join(" "),
        words.len() - 1,
        words[words.len() - 1],
        words[words.len() - 2],
    );
    let (well, text) = piped("bash", &["--norc", "-u"], &script)?;
    assert!(well, "{text}");
    Some(text.lines().map(str::to_owned).collect())
}

#[test]
fn bash_completes_commands_and_options() {
    let offered = |words: &[&str]| offered_by_bash(words).unwrap_or_default();
    let commands = offered(&["lamina", "up"]);
    let both = ["upgrade", "upstreams"].map(str::to_owned);
    assert_eq!(commands, BTreeSet::from(both));
    let commands = offered(&["lamina", "acme", "re"]);
    assert!(
        commands.contains("renew") && commands.contains("revoke"),
        "{commands:?}"
    );
    let options = offered(&["lamina", "purge", "--t"]);
    assert!(
        options.contains("--tag") && options.contains("--token-file"),
        "{options:?}"
    );
    let shells = offered(&["lamina", "completions", "z"]);
    assert_eq!(shells, BTreeSet::from(["zsh".to_owned()]));
    let all = offered(&["lamina", ""]);
    assert!(all.contains("health") && all.contains("man"), "{all:?}");
    assert!(!all.iter().any(|one| one.contains("compile")), "{all:?}");
}

#[test]
fn zsh_takes_its_completions() {
    let script = completions("zsh");
    assert!(script.starts_with("#compdef lamina"), "{script}");
    if let Some((well, text)) = piped("zsh", &["-n"], &script) {
        assert!(well && text.is_empty(), "{text}");
    }
}

#[test]
fn fish_completes_commands_and_options() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lamina.fish");
    fs::write(&file, completions("fish")).unwrap();
    let offered = |typed: &str| {
        let script = format!("source {}; complete -C '{typed}'", file.display());
        piped("fish", &["--no-config", "-c", &script], "").map(|(_, text)| text)
    };
    if let (Some(commands), Some(options)) =
        (offered("lamina acme re"), offered("lamina purge --t"))
    {
        assert!(commands.starts_with("renew\t"), "{commands}");
        assert!(options.contains("--token-file\t"), "{options}");
    }
}

#[test]
fn an_unknown_shell_is_an_error_of_the_command_line() {
    assert_eq!(run(&["completions", "tcsh"]).code, Some(2));
}

fn pages(folder: &Path) -> Vec<(String, String)> {
    let ran = run(&["man", "--all-to", folder.to_str().unwrap()]);
    assert_eq!(ran.code, Some(0), "{}", ran.output());
    let mut pages: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|page| {
            let path = page.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect();
    pages.sort();
    pages
}

#[test]
fn every_page_of_the_manual_is_rendered_without_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let pages = pages(folder.path());
    assert!(pages.len() > 25, "{}", pages.len());
    for (name, page) in &pages {
        let arguments = ["-k", "-man", "-Tutf8", "-ww", "-z", "-rLL=100n"];
        if let Some((well, text)) = piped("groff", &arguments, page) {
            assert!(well && text.is_empty(), "{name}: {text}");
        }
    }
    let arguments = ["-Tlint", "-Wwarning"];
    for (name, page) in &pages {
        if let Some((_, text)) = piped("mandoc", &arguments, page) {
            // Lists of possible values have one break too many; so clap makes them.
            let lines = text.lines().filter(|line| !line.contains("macro: br "));
            let lines: Vec<_> = lines.collect();
            assert!(lines.is_empty(), "{name}: {lines:?}");
        }
    }
}

#[test]
fn the_page_of_the_program_names_every_command_variable_and_exit_code() {
    let page = run(&["man"]).stdout;
    let Some((_, shown)) = piped("mandoc", &["-Tascii", "-Owidth=400"], &page) else {
        return;
    };
    // Bold letters are written twice, with a backspace between.
    let mut plain = String::new();
    for letter in shown.chars() {
        match letter {
            '\u{8}' => {
                plain.pop();
            }
            letter => plain.push(letter),
        }
    }
    for heading in [
        "ENVIRONMENT",
        "FILES",
        "EXIT STATUS",
        "EXAMPLES",
        "SEE ALSO",
    ] {
        let is_there = plain.lines().any(|line| line == heading);
        assert!(is_there, "{heading}: {plain}");
    }
    for word in [
        "lamina-health(1)",
        "lamina-completions(1)",
        "3 it is unknown",
        "/etc/lamina",
    ] {
        assert!(plain.contains(word), "{word}: {plain}");
    }
    let read = variables_of_the_program();
    assert!(read.len() >= 8, "{read:?}");
    for variable in read {
        assert!(plain.contains(&variable), "{variable}: {plain}");
    }
    assert!(
        !plain.contains("compile-plugin"),
        "what only programs run is not in it"
    );
}

#[test]
fn a_page_of_a_command_has_its_options() {
    let ran = run(&["man", "acme", "renew"]);
    assert_eq!(ran.code, Some(0), "{}", ran.output());
    assert!(ran.stdout.contains("token\\-file"), "{}", ran.stdout);
    let ran = run(&["man", "acme", "rnew"]);
    assert_eq!(ran.code, Some(1), "{}", ran.output());
    assert!(ran.stderr.contains("acme rnew"), "{}", ran.output());
}

/// Variables of its own and of systemd that the program's source names, but in tests.
fn variables_of_the_program() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders = vec![repository().join("gateway")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("tests") {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                found.extend(variables_in(&fs::read_to_string(&path).unwrap()));
            }
        }
    }
    // The files of the schema and the shipped configurations are written anew with it.
    found.remove("LAMINA_BLESS");
    found
}

fn variables_in(text: &str) -> Vec<String> {
    let quoted = text.split('"');
    let is_ours = |word: &&str| {
        ["LAMINA_", "STATE_DIR", "NOTIFY_", "WATCHDOG_"]
            .iter()
            .any(|begin| word.starts_with(begin))
    };
    let is_name = |word: &&str| word.chars().all(|c| c.is_ascii_uppercase() || c == '_');
    let found = quoted.filter(is_ours).filter(is_name);
    found.map(str::to_owned).collect()
}
