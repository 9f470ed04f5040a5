//! `lamina man`: the manual, a page for the program and one for each of its commands.
//!
//! Commands and options come from the definition of the command line, so that the pages say what
//! `--help` says. What that does not hold (variables, files, exit codes) stands here and is in the
//! page lamina(1).

use std::io;
use std::path::Path;

use anyhow::Context;
use clap::CommandFactory;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::arguments::{CommandLine, EXAMPLES, EXIT_CODES};
use crate::exit::ExitOutcome;
use crate::{completions, output};

/// The section of commands.
const SECTION: &str = "1";

/// The name of the collection in the last line of each page.
const COLLECTION: &str = "Lamina";

/// The day of the release, as every page shows it. Not that of the build, so that the same source
/// makes the same pages.
const DATE: &str = "2026-11-01";

/// The variables of the environment, and what they do.
const VARIABLES: [(&str, &str); 11] = [
    (
        "LAMINA_CONFIG",
        "The configuration file of the commands that read one, where --config is not given.",
    ),
    (
        "LAMINA_ADMIN",
        "The admin listener of the commands that ask a running gateway, where --admin is not given.",
    ),
    (
        "LAMINA_CACHE_DIR",
        "The folder for what may be lost: compiled plugins, states of targets. Without it, the folder lamina of XDG_CACHE_HOME or else of $HOME/.cache.",
    ),
    (
        "LAMINA_STATE_DIR",
        "The folder for the certificates of `run --domain`. Without it STATE_DIRECTORY, the folder lamina of XDG_STATE_HOME, or that of $HOME/.local/state.",
    ),
    (
        "STATE_DIRECTORY",
        "As LAMINA_STATE_DIR; systemd sets it for units with StateDirectory=.",
    ),
    (
        "NOTIFY_SOCKET",
        "Where `run` tells a service manager that it is ready, what it does and that it stops; systemd sets it for units with Type=notify.",
    ),
    (
        "WATCHDOG_USEC",
        "With NOTIFY_SOCKET: `run` gives a sign of life twice in this time as long as every thread that serves requests works; systemd sets it for units with WatchdogSec=.",
    ),
    (
        "WATCHDOG_PID",
        "The process that WATCHDOG_USEC is meant for, if not every one.",
    ),
    (
        "RUST_LOG",
        "What is logged, by part of the program, in place of telemetry.log_level.",
    ),
    (
        "SSLKEYLOGFILE",
        "The file for the secrets of TLS sessions, where tls.keylog is on.",
    ),
    (
        "NO_COLOR",
        "If it is set and not empty, nothing is printed in colours.",
    ),
];

/// The files and folders, and what they are.
const FILES: [(&str, &str); 7] = [
    (
        "lamina.yaml",
        "The configuration, in the current folder, where neither --config nor LAMINA_CONFIG is given.",
    ),
    (
        "/etc/lamina/lamina.yaml",
        "The configuration of the packaged service.",
    ),
    (
        "/usr/share/doc/lamina/reference.yaml",
        "Every key of the configuration, explained; its JSON Schema is lamina.schema.json beside it.",
    ),
    ("/usr/share/lamina/plugins", "The shipped plugins."),
    (
        "/var/lib/lamina",
        "What the packaged service must keep: certificates.",
    ),
    (
        "/var/cache/lamina",
        "What the packaged service may lose: compiled plugins, the second tier on disk.",
    ),
    (
        "/run/lamina",
        "The admin listener of the packaged service, where it is a Unix socket.",
    ),
];

/// Prints the page of a command, or writes every page into a folder.
///
/// # Errors
/// If there is no such command, or a file can't be written.
pub fn print(names: &[String], all_to: Option<&Path>) -> anyhow::Result<ExitOutcome> {
    match all_to {
        Some(folder) => {
            let written = write_all(folder)?;
            output::line(format_args!("{}: {written} pages", folder.display()));
        }
        None => output::text(page(names)?),
    }
    Ok(ExitOutcome::Well)
}

/// The page of a command, such as `["acme", "renew"]`; of the program itself for no names.
///
/// # Errors
/// If there is no such command.
fn page(names: &[String]) -> anyhow::Result<String> {
    let program = program();
    let mut command = &program;
    for name in names {
        command = command
            .find_subcommand(name)
            .with_context(|| format!("there is no command {:?}", names.join(" ")))?;
    }
    Ok(rendered(command)?)
}

/// Writes every page into a folder. Returns how many there are.
///
/// # Errors
/// If a file can't be written.
fn write_all(folder: &Path) -> anyhow::Result<usize> {
    write_page_and_those_below(&program(), folder).with_context(|| folder.display().to_string())
}

fn write_page_and_those_below(command: &clap::Command, folder: &Path) -> io::Result<usize> {
    let name = format!("{}.{SECTION}", title(command));
    std::fs::write(folder.join(name), rendered(command)?)?;
    let mut written = 1;
    for below in command.get_subcommands() {
        written += write_page_and_those_below(below, folder)?;
    }
    Ok(written)
}

/// The command line with the names by which commands are called.
fn program() -> clap::Command {
    let mut program = completions::for_people(CommandLine::command()).disable_help_subcommand(true);
    program.build();
    program
}

/// As in `lamina-acme-renew`.
fn title(command: &clap::Command) -> &str {
    command
        .get_display_name()
        .unwrap_or_else(|| command.get_name())
}

fn rendered(command: &clap::Command) -> io::Result<String> {
    let man = Man::new(command.clone())
        .section(SECTION)
        .date(DATE)
        .source(concat!("lamina ", env!("CARGO_PKG_VERSION")))
        .manual(COLLECTION);
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    match command.get_name() == title(command) {
        true => of_the_program().to_writer(&mut page)?,
        false => see_also(&[("lamina", "1")]).to_writer(&mut page)?,
    }
    // Each part begins with the same definitions, which one page needs once.
    let definitions = Roff::new().render();
    let parts = String::from_utf8_lossy(&page).replace(&definitions, "");
    Ok(definitions + &parts)
}

/// What stands in lamina(1) alone.
fn of_the_program() -> Roff {
    let mut roff = Roff::new();
    described(&mut roff, "ENVIRONMENT", &VARIABLES);
    described(&mut roff, "FILES", &FILES);
    roff.control("SH", ["EXIT STATUS"]);
    verbatim(&mut roff, EXIT_CODES);
    roff.control("SH", ["EXAMPLES"]);
    verbatim(&mut roff, EXAMPLES);
    roff.extend([see_also(&[("systemctl", "1"), ("systemd.service", "5")])]);
    roff
}

fn described(roff: &mut Roff, heading: &str, entries: &[(&str, &str)]) {
    roff.control("SH", [heading]);
    for (name, meaning) in entries {
        roff.control("TP", []);
        roff.text([bold(*name)]);
        roff.text([roman(*meaning)]);
    }
}

/// Lines that are to stay lines.
fn verbatim(roff: &mut Roff, text: &str) {
    roff.control("nf", []);
    for line in text.lines() {
        roff.text([roman(line.trim_start())]);
    }
    roff.control("fi", []);
}

fn see_also(pages: &[(&str, &str)]) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["SEE ALSO"]);
    let count = pages.len();
    for (n, (name, section)) in pages.iter().enumerate() {
        let comma = if n + 1 < count { "," } else { "" };
        roff.text([bold(*name), roman(format!("({section}){comma}"))]);
    }
    roff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_has_a_page_and_an_unknown_one_is_an_error() {
        let names = |line: &str| {
            line.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let renew = page(&names("acme renew")).unwrap();
        assert!(renew.contains("lamina\\-acme\\-renew"), "{renew}");
        assert!(page(&names("acme rnew")).is_err());
        let folder = tempfile::tempdir().unwrap();
        let written = write_all(folder.path()).unwrap();
        assert!(written > 25, "{written}");
        assert_eq!(folder.path().read_dir().unwrap().count(), written);
        assert!(folder.path().join("lamina-upstreams-drain.1").exists());
    }
}
