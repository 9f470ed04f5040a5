//! `lamina completions`: what a shell needs to complete commands and options.

use clap::{CommandFactory, ValueEnum};
use clap_complete::Shell;

use crate::arguments::CommandLine;

/// The shells for which there are completions.
#[derive(Clone, Copy, ValueEnum)]
pub enum CompletionShell {
    Bash,
    Zsh,
    Fish,
}

impl From<CompletionShell> for Shell {
    fn from(shell: CompletionShell) -> Self {
        match shell {
            CompletionShell::Bash => Self::Bash,
            CompletionShell::Zsh => Self::Zsh,
            CompletionShell::Fish => Self::Fish,
        }
    }
}

/// The script for a shell.
pub fn script(shell: CompletionShell) -> String {
    let mut script = Vec::new();
    let mut command = for_people(CommandLine::command());
    clap_complete::generate(Shell::from(shell), &mut command, "lamina", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// The command without those of its subcommands that only programs run: clap's completions would
/// offer them.
pub fn for_people(command: clap::Command) -> clap::Command {
    let shown = command.get_subcommands().filter(|one| !one.is_hide_set());
    let shown: Vec<_> = shown.cloned().collect();
    clap::Command::new("lamina")
        .version(env!("CARGO_PKG_VERSION"))
        .about(command.get_about().cloned().unwrap_or_default())
        .subcommands(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_gets_the_commands_for_people_and_no_others() {
        for shell in CompletionShell::value_variants() {
            let script = script(*shell);
            assert!(script.contains("completions"), "{script}");
            assert!(script.contains("token-file"), "{script}");
            assert!(!script.contains(lamina_plugin_host::compile::SUBCOMMAND));
        }
    }
}
