//! What documents tell people to type, and where their links lead. Their commands are run by
//! `document_commands`, the guide for plugins by `plugin_guide`, and their YAML blocks are read by
//! the unit tests of the configuration.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use e2e::cli::{repository, run};
use e2e::documents::{DocumentBlock, ProjectDocument, documents};

/// The least that there is of each; far fewer means that the test went blind.
const MIN_COMMANDS: usize = 40;
const MIN_MAKE: usize = 6;
const MIN_LINKS: usize = 150;

/// The commands of a document's shell blocks, without comment and the file that their output goes
/// to.
fn commands(document: &ProjectDocument) -> Vec<String> {
    let typed = document.blocks();
    let typed = typed.iter().flat_map(DocumentBlock::typed);
    let mut commands = Vec::new();
    for typed in typed {
        let command = typed.line.split(" #").next().unwrap_or_default();
        let command = command.split(" > ").next().unwrap_or_default();
        let pieces = command
            .split("&&")
            .map(|piece| piece.trim_end_matches('&').trim());
        commands.extend(pieces.map(str::to_owned));
    }
    commands
}

/// The words of a command, with quotes as a shell reads them.
fn words(command: &str) -> Vec<String> {
    let (mut words, mut word, mut quote, mut begun) = (Vec::new(), String::new(), None, false);
    for letter in command.chars() {
        match (quote, letter) {
            (None, '\'' | '"') => (quote, begun) = (Some(letter), true),
            (Some(open), letter) if open == letter => quote = None,
            (None, ' ') => {
                if begun {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            (_, letter) => {
                word.push(letter);
                begun = true;
            }
        }
    }
    if begun {
        words.push(word);
    }
    words
}

/// The program reads the command line of each, as far as it goes: with `--help` at its end
/// everything before that is parsed, and nothing is done.
#[test]
fn each_command_of_a_document_is_one_that_the_program_takes() {
    let (mut faults, mut tried) = (Vec::new(), 0);
    for document in documents() {
        for command in commands(&document) {
            let words = words(&command);
            let Some((program, arguments)) = words.split_first() else {
                continue;
            };
            if program != "lamina" && !program.ends_with("/lamina") {
                continue;
            }
            tried += 1;
            let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            arguments.push("--help");
            let ran = run(&arguments);
            if ran.code != Some(0) {
                faults.push(document.fault(format_args!("{command}\n{}", ran.output())));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(tried >= MIN_COMMANDS, "only {tried} commands were tried");
}

#[test]
fn each_target_of_make_that_a_document_names_is_there() {
    let makefile = fs::read_to_string(repository().join("Makefile")).unwrap();
    let targets = makefile.lines().filter_map(|line| line.split_once(':'));
    let targets: BTreeSet<&str> = targets.map(|(target, _)| target).collect();
    let (mut faults, mut looked_at) = (Vec::new(), 0);
    for document in documents() {
        let in_blocks = commands(&document).into_iter();
        let in_text = document
            .text
            .split('`')
            .skip(1)
            .step_by(2)
            .map(str::to_owned);
        for command in in_blocks.chain(in_text) {
            let Some(target) = command.strip_prefix("make ") else {
                continue;
            };
            let target = target.split(' ').next().unwrap_or_default();
            looked_at += 1;
            if !targets.contains(target) {
                faults.push(document.fault(format_args!("make {target}")));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(looked_at >= MIN_MAKE, "only {looked_at} were looked at");
}

/// Links to files of the repository, and to headings in them.
#[test]
fn each_link_between_documents_leads_somewhere() {
    let (mut faults, mut followed) = (Vec::new(), 0);
    for document in documents() {
        for (at, _) in document.text.match_indices("](") {
            let rest = &document.text[at + 2..];
            let link = rest.split([')', ' ', '\n']).next().unwrap_or_default();
            if link.is_empty() || link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            followed += 1;
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => document.path.clone(),
                file => document.path.parent().unwrap().join(file),
            };
            if !target.exists() {
                faults.push(document.fault(format_args!("there is no {link}")));
            } else if !heading.is_empty() && !has_heading(&target, heading) {
                faults.push(document.fault(format_args!("there is no heading for {link}")));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(followed >= MIN_LINKS, "only {followed} links were followed");
}

/// Whether a heading of the document has this anchor, as GitHub makes it.
fn has_heading(document: &Path, anchor: &str) -> bool {
    let text = fs::read_to_string(document).unwrap();
    let headings = text.lines().filter_map(|line| line.strip_prefix('#'));
    let mut anchors = headings.map(|heading| {
        let heading = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = heading
            .chars()
            .filter(|letter| letter.is_alphanumeric() || [' ', '-', '_'].contains(letter));
        kept.collect::<String>().replace(' ', "-")
    });
    anchors.any(|known| known == anchor)
}

#[test]
fn words_are_those_that_a_shell_reads() {
    let read = words("lamina explain 'http://a/?b=1&c' -H \"A: b c\"  ''");
    assert_eq!(
        read,
        ["lamina", "explain", "http://a/?b=1&c", "-H", "A: b c", ""]
    );
}
